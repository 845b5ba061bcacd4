"""Evaluate: models over benchmarks before and after training, paired by item, and a verdict for each claim.

In come the models of a run by label (`models_to_evaluate`: base, tuned, the control tuned_random_labels if there is
one, student, student_tuned) and its benchmarks.
`answer_benchmark` has each model answer them through lm-evaluation-harness, whose completions come from the generation
store. Out go these tables of `evaluate/`:

- `scores`: one row per answer: benchmark, kind, model, prompt, shots, decoding (greedy, sampled, or matched: the base
  at a temperature chosen for it), item, sample, seed, question, gold, form, completion, answer, the three scorings
  (strict, flexible, symbolic), truncated. `headline_scores` are those on which claims are judged.
- `general`: one row per item of a task of the harness: its `score` on the task's own `metric`, from 0 to 1.
- `comparisons`: one row per pair of models, benchmark, shots, decoding and scoring: both accuracies with intervals, n,
  seeds, difference, low, high, p_value, gained, lost.
- `prompts`: the same rows of base and tuned model under each of `eval_prompts`, greedily.
- `baselines`: one row per baseline of the base model, paired with the tuned model (`baseline_table`).
- `parts`: the same rows, with each gain split into a reasoning and a format part.
- `sources`: the gain of the greedy answers by how the base's answer ended, format against values (`gain_sources`).
- `claims.json`: the ledger of verdicts (`claims_ledger`).
"""

from ..benchmarks import load_evaluated, repeated_items
from .baselines import (
    DEVELOPMENT_ITEMS,
    Choices,
    answer_baselines,
    answer_development,
    baseline_table,
    choose_baselines,
    development_conditions,
    development_summary,
    prompt_table,
)
from .breakdown import FAILURES, failure_counts, flipped_items, gain_sources, prompting_baselines, sources_sentence
from .claims import (
    NO_RUN,
    NOT_REPRODUCED,
    REPRODUCED,
    Claim,
    claims_ledger,
    claims_table,
    ledger_to_json,
    main_claim,
    missing_runs,
    verdict_line,
    verdict_text,
)
from .evaluation import (
    PAIRS,
    answer_benchmark,
    comparison_summary,
    comparison_table,
    deciding_rows,
    method_pairs,
    models_to_evaluate,
    parts_summary,
    parts_table,
)
from .harness import check_tasks, general_ability
from .pooling import pooled_scores
from .prompts import asked_with, first_prompts, headline_scores

__all__ = [
    "Choices",
    "Claim",
    "DEVELOPMENT_ITEMS",
    "FAILURES",
    "NOT_REPRODUCED",
    "NO_RUN",
    "PAIRS",
    "REPRODUCED",
    "answer_baselines",
    "answer_benchmark",
    "answer_development",
    "asked_with",
    "baseline_table",
    "check_tasks",
    "choose_baselines",
    "claims_ledger",
    "claims_table",
    "comparison_summary",
    "comparison_table",
    "deciding_rows",
    "development_conditions",
    "development_summary",
    "failure_counts",
    "first_prompts",
    "flipped_items",
    "gain_sources",
    "general_ability",
    "headline_scores",
    "ledger_to_json",
    "load_evaluated",
    "main_claim",
    "method_pairs",
    "missing_runs",
    "models_to_evaluate",
    "parts_summary",
    "parts_table",
    "pooled_scores",
    "prompt_table",
    "prompting_baselines",
    "repeated_items",
    "sources_sentence",
    "verdict_line",
    "verdict_text",
]
