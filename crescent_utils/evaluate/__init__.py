"""Evaluate: models over benchmarks before and after training, paired by item, and a verdict for each claim.

In come the models of a run by label (`models_to_evaluate`) and its benchmarks. `answer_benchmark` has each answered through
lm-evaluation-harness, whose completions come from the generation store. Out go `scores` (one row per answer: benchmark, kind,
model, shots, decoding, item, sample, seed, question, gold, form, completion, answer, strict, flexible, symbolic, truncated),
`general` (tasks for general ability), `comparisons` (one row per pair of models: accuracies, n, seeds, difference, low, high,
p_value), `parts` (how much of a gain is format and how much reasoning) and `claims.json`, the ledger of verdicts.
"""

from ..benchmarks import load_evaluated, repeated_items
from .breakdown import FAILURES, failure_counts, flipped_items, gain_parts, prompting_baselines, sampled_scores
from .claims import NO_RUN, Claim, claims_ledger, claims_table, ledger_from_json, ledger_to_json, verdict_line
from .evaluation import (
    PAIRS,
    answer_benchmark,
    compared_pairs,
    comparison_table,
    first_prompt,
    method_pairs,
    models_to_evaluate,
    pooled_scores,
)
from .harness import check_tasks, general_ability

__all__ = [
    "Claim",
    "FAILURES",
    "NO_RUN",
    "PAIRS",
    "answer_benchmark",
    "check_tasks",
    "claims_ledger",
    "claims_table",
    "compared_pairs",
    "comparison_table",
    "failure_counts",
    "first_prompt",
    "flipped_items",
    "gain_parts",
    "general_ability",
    "ledger_from_json",
    "ledger_to_json",
    "load_evaluated",
    "method_pairs",
    "models_to_evaluate",
    "pooled_scores",
    "prompting_baselines",
    "repeated_items",
    "sampled_scores",
    "verdict_line",
]
