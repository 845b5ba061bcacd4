"""Benchmarks: the questions that a claim is judged on, from the hub, from a folder, or generated from a seed.

Each becomes a task of lm-evaluation-harness. Golds are final answers in normal form; questions that the training data repeats
can be found with `overlaps`.
"""

from __future__ import annotations

import difflib
import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from .. import answers
from ..runs import Domain
from .files import LOADERS, Benchmark, BenchmarkError, Item

DEV_ITEMS = 150  # ours: items of the development split of the arithmetic benchmark


def load_benchmark(name: str, *, folder: str = "", split: str = "test", items: int = 0, seed: int = 2025) -> Benchmark:
    """Load benchmark `name`: generated (arithmetic), else from `folder` or $CRESCENT_BENCHMARK_DIR, else from the hub.

    `split` "dev" exists for arithmetic alone; `items` limits the number (0: all); `seed` generates or picks them.
    """
    if name not in benchmark_names():
        near = difflib.get_close_matches(name, benchmark_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BenchmarkError(f"evaluate_on: {name!r} is unknown; allowed: {', '.join(benchmark_names())}.{hint}")
    if name == "arithmetic":
        return generated_arithmetic(seed, split, items or 350)
    if split != "test":
        raise BenchmarkError(
            f"benchmark_split: {split!r} exists for arithmetic alone; {name} is scored on its test split"
        )
    benchmark = LOADERS[name](benchmark_folder(folder))
    if not items or items >= len(benchmark.items):
        return benchmark
    picked = sorted(random.Random(seed).sample(range(len(benchmark.items)), items))
    drawn = tuple(benchmark.items[i] for i in picked)
    return replace(benchmark, items=drawn, source=f"{benchmark.source}, {items} drawn with seed {seed}")


def load_evaluated(settings: Any, domain: Domain) -> list[Benchmark]:
    """Return the benchmarks that a run is judged on: `evaluate_on`, or the domain's own, in the split `benchmark_split`."""
    names = settings.evaluate_on or domain.benchmarks
    return [_load_for(name, settings, settings.benchmark_split) for name in names]


def load_held_out(settings: Any, domain: Domain) -> list[Benchmark]:
    """Return the benchmarks that no training question may repeat: as `load_evaluated`, and of generated ones the dev split too."""
    return [
        _load_for(name, settings, split)
        for name in settings.evaluate_on or domain.benchmarks
        for split in (("dev", "test") if name == "arithmetic" else ("test",))
    ]


def _load_for(name: str, settings: Any, split: str) -> Benchmark:
    return load_benchmark(
        name, folder=settings.benchmark_dir, split=split, items=settings.benchmark_items, seed=settings.benchmark_seed
    )


def benchmark_folder(benchmark_dir: str) -> str:
    """Return the folder of benchmark files: the parameter, else $CRESCENT_BENCHMARK_DIR, else "" (the hub)."""
    return benchmark_dir or os.environ.get("CRESCENT_BENCHMARK_DIR", "")


def benchmark_names() -> list[str]:
    """Names that the parameter `benchmarks` may hold."""
    return ["arithmetic", *LOADERS]


def generated_arithmetic(seed: int, split: str, items: int) -> Benchmark:
    """Generate one- and two-digit additions, subtractions and multiplications; ours.

    Every unordered pair of operands stands at most once over dev, test, train (all that `items` test items leave) and the few-shot
    items together.
    """
    every = [(a, "+", b) for a in range(1, 31) for b in range(1, a + 1)]
    every += [(a, "-", b) for a in range(1, 31) for b in range(1, a + 1)]
    every += [(a, "*", b) for a in range(1, 21) for b in range(1, min(a, 12) + 1)]
    generator = random.Random(seed)
    generator.shuffle(every)
    if DEV_ITEMS + items + 8 > len(every):
        raise BenchmarkError(
            f"benchmark_items: {items} is too many; the arithmetic benchmark has {len(every) - DEV_ITEMS - 8} at most"
        )
    swapped = [(b, o, a) if o != "-" and generator.random() < 0.5 else (a, o, b) for a, o, b in every]
    made = [_arithmetic_item(*problem) for problem in swapped]
    end = DEV_ITEMS + items
    parts = {"dev": made[:DEV_ITEMS], "test": made[DEV_ITEMS:end], "train": made[end:-8]}
    if split not in parts:
        raise BenchmarkError(f"benchmark_split: {split!r} is not allowed; choose dev, test or train")
    return Benchmark("arithmetic", tuple(parts[split]), tuple(made[-8:]), f"generated with seed {seed}, {split} split")


def _arithmetic_item(a: int, operation: str, b: int) -> Item:
    value = {"+": a + b, "-": a - b, "*": a * b}[operation]
    kind = {"+": "addition", "-": "subtraction", "*": "multiplication"}[operation]
    return Item(f"What is {a} {operation} {b}?", str(value), f"{a} {operation} {b} = {value}", kind=kind)


_PROBLEM = re.compile(
    r"(-?\d[\d,]*(?:\.\d+)?)\s*(\+|-|−|–|\*|x|×|/|÷|plus|minus|times|multiplied by|divided by|added to)\s*(-?\d[\d,]*(?:\.\d+)?)",
    re.I,
)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_OPERATIONS = {"plus": "+", "added to": "+", "minus": "-", "−": "-", "–": "-", "x": "*", "×": "*", "times": "*", "multiplied by": "*",
               "÷": "/", "divided by": "/"}  # fmt: skip


def arithmetic_problem(question: str) -> tuple[Fraction, str, Fraction] | None:
    """Read "What is 4 plus 7?" as (4, "+", 7), operands of + and * in order; None where there is no single operation."""
    found = _PROBLEM.findall(question)
    if len(found) != 1 or len(_NUMBER.findall(question)) != 2:  # a third number: "3 + 4 + 5", or a story
        return None
    first, operation, second = found[0]
    a, b = Fraction(first.replace(",", "")), Fraction(second.replace(",", ""))
    operation = _OPERATIONS.get(operation.lower(), operation)
    return (min(a, b), operation, max(a, b)) if operation in "+*" else (a, operation, b)


def arithmetic_gold(question: str) -> str | None:
    """Return the right answer of an arithmetic question, in normal form: it judges labels, it never trains anything."""
    problem = arithmetic_problem(question)
    if problem is None:
        return None
    a, operation, b = problem
    if operation == "/" and b == 0:
        return None
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[operation]
    return answers.normal_form(str(value))


def overlap_key(question: str) -> str:
    """Return what two questions share if one repeats the other: the arithmetic problem, else the words in lower case."""
    problem = arithmetic_problem(question)
    if problem is not None and len(question.split()) <= 12:
        return f"{problem[0]} {problem[1]} {problem[2]}"
    return " ".join(re.findall(r"\w+", question.lower()))


def repeated_items(questions: Sequence[str], benchmarks: Sequence[Benchmark]) -> list[str]:
    """Return for each question the benchmark of which it repeats an item ("" for none)."""
    held = {overlap_key(item.question): benchmark.name for benchmark in benchmarks for item in benchmark.items}
    return [held.get(overlap_key(question), "") for question in questions]


def harness_task(
    benchmark: Benchmark,
    ask: Callable[[str], str],
    score: Callable[[str, str, str], dict[str, bool]],
    *,
    repeats: int,
    generation: dict[str, Any],
) -> dict[str, Any]:
    """Return the benchmark as a task of lm-evaluation-harness.

    `ask(question)` words the user's turn; `score(completion, gold, form)` gives one truth value a scoring; `repeats` is the number of
    samples an item; `generation` are the harness's generation_kwargs.
    """
    from datasets import Dataset

    def splits(**_: Any) -> dict[str, Any]:
        test = [
            {"item": i, "question": it.question, "gold": it.gold, "form": it.form, "kind": it.kind}
            for i, it in enumerate(benchmark.items)
        ]
        train = [
            {"item": -1 - i, "question": it.question, "gold": it.solution or it.gold, "form": it.form, "kind": it.kind}
            for i, it in enumerate(benchmark.train)
        ]
        return {"test": Dataset.from_list(test), **({"train": Dataset.from_list(train)} if train else {})}

    def process(doc: dict[str, Any], results: list[list[str]]) -> dict[str, float]:
        rows = [score(text, doc["gold"], doc["form"]) for text in results[0]]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in score("", "0", "number")]
    return {
        "task": benchmark.name,
        "custom_dataset": splits,
        "test_split": "test",
        "output_type": "generate_until",
        "fewshot_split": "train" if benchmark.train else None,
        "fewshot_config": {"sampler": "first_n"} if benchmark.train else None,
        "doc_to_text": lambda doc: ask(doc["question"]),
        "doc_to_target": lambda doc: doc["gold"],
        "process_results": process,
        "repeats": repeats,
        "generation_kwargs": generation,
        "metric_list": metrics,
        "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": repeats}]}],
    }
