"""Benchmarks: the questions that a claim is judged on, and how an answer to them is scored.

`load_benchmark` returns a benchmark by name, from the hub, from files in `benchmark_dir`, or generated: `arithmetic`,
and problem spaces such as `three_terms_40` (`spaces.py`). It has items (question, gold answer, form of the answer),
worked examples, and where they come from. `general_task` returns a task for general ability that needs no hub
(`general.py`). `load_evaluated` and `load_held_out` return those of a run: what it is judged
on, and what its training questions must not repeat (`repeated_items`). `score_answer` scores one answer in three ways
side by side, `SCORINGS`: strict, flexible, symbolic.
"""

from ..runs import benchmark_folder
from .files import Benchmark, BenchmarkError, Item
from .general import general_task, is_general_task
from .items import (
    arithmetic_gold,
    arithmetic_problem,
    benchmark_names,
    harness_task,
    is_generated,
    load_benchmark,
    load_development,
    load_evaluated,
    load_held_out,
    most_items,
    overlap_key,
    repeated_items,
)
from .scoring import SCORINGS, read_scored_answer, score_answer

__all__ = [
    "Benchmark",
    "BenchmarkError",
    "Item",
    "SCORINGS",
    "arithmetic_gold",
    "arithmetic_problem",
    "benchmark_folder",
    "benchmark_names",
    "general_task",
    "harness_task",
    "is_general_task",
    "is_generated",
    "load_benchmark",
    "load_development",
    "load_evaluated",
    "load_held_out",
    "most_items",
    "overlap_key",
    "read_scored_answer",
    "repeated_items",
    "score_answer",
]
