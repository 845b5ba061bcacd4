"""Evaluate: models over benchmarks before and after training, paired by item, and a verdict for each claim.

In come the models of a run by label (`models_to_evaluate`: base, tuned, student, student_tuned) and its benchmarks.
`answer_benchmark` has each model answer them through lm-evaluation-harness, whose completions come from the generation
store. Out go these tables of `evaluate/`:

- `scores`: one row per answer: benchmark, kind, model, shots, decoding (greedy or sampled), item, sample, seed,
  question, gold, form, completion, answer, the three scorings (strict, flexible, symbolic), truncated.
- `general`: one row per item of a task of the harness: its `score` on the task's own `metric`, from 0 to 1.
- `comparisons`: one row per pair of models, benchmark, shots, decoding and scoring: both accuracies with intervals, n,
  seeds, difference, low, high, p_value, gained, lost.
- `parts`: the same rows, with each gain split into a reasoning and a format part.
- `claims.json`: the ledger of verdicts (`claims_ledger`).
"""

from ..benchmarks import load_evaluated, repeated_items
from .breakdown import FAILURES, failure_counts, flipped_items, prompting_baselines
from .claims import NO_RUN, Claim, claims_ledger, claims_table, ledger_to_json, verdict_line
from .evaluation import (
    PAIRS,
    answer_benchmark,
    comparison_summary,
    comparison_table,
    deciding_rows,
    first_prompt,
    method_pairs,
    models_to_evaluate,
    parts_summary,
    parts_table,
)
from .harness import check_tasks, general_ability
from .pooling import pooled_scores

__all__ = [
    "Claim",
    "FAILURES",
    "NO_RUN",
    "PAIRS",
    "answer_benchmark",
    "check_tasks",
    "claims_ledger",
    "claims_table",
    "comparison_summary",
    "comparison_table",
    "deciding_rows",
    "failure_counts",
    "first_prompt",
    "flipped_items",
    "general_ability",
    "ledger_to_json",
    "load_evaluated",
    "method_pairs",
    "models_to_evaluate",
    "parts_summary",
    "parts_table",
    "pooled_scores",
    "prompting_baselines",
    "repeated_items",
    "verdict_line",
]
