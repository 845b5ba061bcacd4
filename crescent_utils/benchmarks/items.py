"""Benchmarks: the questions that a claim is judged on, from the hub, from a folder, or generated from a seed.

Each becomes a task of lm-evaluation-harness (`harness_task`). Golds are final answers in normal form. `repeated_items`
tells which training questions repeat an item.
"""

from __future__ import annotations

import functools
import operator
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from .. import answers
from ..runs import BENCHMARK_FILES, Domain, benchmark_folder, did_you_mean
from . import spaces
from .files import TEST_ITEMS, Benchmark, BenchmarkError, Item, read_benchmark
from .scoring import SCORINGS, score_answer

DEV_ITEMS = 150  # ours: items of the development split of the arithmetic benchmark
FEW_SHOT_ITEMS = 8  # ours: its worked examples


def load_benchmark(name: str, *, folder: str = "", split: str = "test", items: int = 0, seed: int = 2025) -> Benchmark:
    """Return benchmark `name`: generated, else from `folder`, $CRESCENT_BENCHMARK_DIR or the hub.

    `split` is "test"; generated benchmarks have "dev" and "train" as well. `items` limits the number of test items (0:
    all); `seed` generates or draws them. Raises BenchmarkError for an unknown name, a split that does not exist and
    files that cannot be had.
    """
    if spaces.is_space(name):
        return spaces.load_space(name, split, items, seed)
    if name not in benchmark_names():
        hint = did_you_mean(name, benchmark_names())
        raise BenchmarkError(
            f"evaluate_on: {name!r} is unknown; allowed: {', '.join(benchmark_names())}, and problem spaces such as "
            f"{spaces.EXAMPLES}.{hint}"
        )
    if name == "arithmetic":
        return generated_arithmetic(seed, split, items or 350)
    if split != "test":
        raise BenchmarkError(
            f"benchmark_split: {split!r} exists for arithmetic and problem spaces alone; {name} is scored on its test "
            "split"
        )
    benchmark = read_benchmark(name, benchmark_folder(folder))
    if not items or items >= len(benchmark.items):
        return benchmark
    indices = sorted(random.Random(seed).sample(range(len(benchmark.items)), items))
    sample = tuple(benchmark.items[i] for i in indices)
    return replace(benchmark, items=sample, source=f"{benchmark.source}, {items} drawn with seed {seed}")


def load_evaluated(settings: Any, domain: Domain) -> list[Benchmark]:
    """Return the benchmarks that a run is judged on: `evaluate_on`, or the domain's, in the split `benchmark_split`."""
    names = settings.evaluate_on or domain.benchmarks
    return [_load_for(name, settings, settings.benchmark_split) for name in names]


def load_held_out(settings: Any, domain: Domain) -> list[Benchmark]:
    """Return the benchmarks that no training question may repeat.

    They are those of `load_evaluated`; of generated ones dev and test. Of a problem space the whole test split is held
    out, whatever `benchmark_items` says, and its worked examples are as well.
    """
    held_out: list[Benchmark] = []
    for name in settings.evaluate_on or domain.benchmarks:
        if spaces.is_space(name):
            held_out += [spaces.load_space(name, split, 0, settings.benchmark_seed) for split in spaces.HELD_OUT_SPLITS]
        else:
            splits = ("dev", "test") if name == "arithmetic" else ("test",)
            held_out += [_load_for(name, settings, split) for split in splits]
    return held_out


def load_development(settings: Any, domain: Domain, items: int) -> list[Benchmark]:
    """Return `items` items of each evaluated benchmark to choose settings on: none of them is tested.

    They are the dev split of a generated benchmark, and the last items of another one's training split, whose first are
    worked examples. A benchmark without any, such as a small problem space, is left out; raises BenchmarkError where
    none is left.
    """
    development = []
    names = settings.evaluate_on or domain.benchmarks
    for name in names:
        if is_generated(name):
            benchmark = _load_for(name, settings, "dev")
            chosen = benchmark.items[:items]
        else:
            benchmark = _load_for(name, settings, "test")
            chosen = benchmark.train[-items:]
        if chosen:
            development.append(replace(benchmark, items=chosen))
    if not development:
        raise BenchmarkError(
            f"evaluate_on: {', '.join(names)} have no items beside the tested ones, so nothing can be chosen for the "
            "base; set best_prompt and matched_temperature to false"
        )
    return development


def _load_for(name: str, settings: Any, split: str) -> Benchmark:
    return load_benchmark(
        name, folder=settings.benchmark_dir, split=split, items=settings.benchmark_items, seed=settings.benchmark_seed
    )


def benchmark_names() -> list[str]:
    """Return the names that the parameter `evaluate_on` may hold, beside those of problem spaces (`spaces.py`)."""
    return ["arithmetic", *BENCHMARK_FILES]


def is_generated(name: str) -> bool:
    """Return whether a benchmark is generated: it has a train split, and its golds can be worked out."""
    return name == "arithmetic" or spaces.is_space(name)


def most_items(name: str) -> int:
    """Return how many test items a benchmark has at most; 0 where it is not one of the kit's."""
    if spaces.is_space(name):
        return spaces.test_items(name)
    if name == "arithmetic":
        return len(_arithmetic_problems()) - DEV_ITEMS - FEW_SHOT_ITEMS
    return TEST_ITEMS.get(name, 0)


def generated_arithmetic(seed: int, split: str, items: int) -> Benchmark:
    """Return generated additions, subtractions and multiplications of one- and two-digit numbers; ours.

    Every unordered pair of operands stands at most once over dev, test, train (all that `items` test items leave) and
    the few-shot items together.
    """
    problems = _arithmetic_problems()
    most = most_items("arithmetic")
    if items > most:
        raise BenchmarkError(f"benchmark_items: {items} is too many; the arithmetic benchmark has {most} at most")
    generator = random.Random(seed)
    generator.shuffle(problems)
    in_either_order = [
        (b, operation, a) if operation != "-" and generator.random() < 0.5 else (a, operation, b)
        for a, operation, b in problems
    ]
    every_item = tuple(_arithmetic_item(*problem) for problem in in_either_order)
    end_of_test = DEV_ITEMS + items
    splits = {
        "dev": every_item[:DEV_ITEMS],
        "test": every_item[DEV_ITEMS:end_of_test],
        "train": every_item[end_of_test:-FEW_SHOT_ITEMS],
    }
    if split not in splits:
        raise BenchmarkError(f"benchmark_split: {split!r} is not allowed; choose dev, test or train")
    source = f"generated with seed {seed}, {split} split"
    return Benchmark("arithmetic", splits[split], every_item[-FEW_SHOT_ITEMS:], source)


def _arithmetic_problems() -> list[tuple[int, str, int]]:
    """Return each problem of the arithmetic benchmark once, the larger number first."""
    problems = [(a, "+", b) for a in range(1, 31) for b in range(1, a + 1)]
    problems += [(a, "-", b) for a in range(1, 31) for b in range(1, a + 1)]
    return problems + [(a, "*", b) for a in range(1, 21) for b in range(1, min(a, 12) + 1)]


def _arithmetic_item(a: int, operation: str, b: int) -> Item:
    value = _CALCULATE[operation](a, b)
    kind = {"+": "addition", "-": "subtraction", "*": "multiplication"}[operation]
    return Item(f"What is {a} {operation} {b}?", str(value), f"{a} {operation} {b} = {value}", kind=kind)


_CALCULATE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv
}  # fmt: skip
# Each operation as a question may write it.
_OPERATIONS = {
    "+": "+", "plus": "+", "added to": "+",
    "-": "-", "−": "-", "–": "-", "minus": "-",
    "*": "*", "x": "*", "×": "*", "times": "*", "multiplied by": "*",
    "/": "/", "÷": "/", "divided by": "/",
}  # fmt: skip
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_SIGN = "|".join(map(re.escape, _OPERATIONS))
# Signs match as ASCII: without it "i" and "s" match foreign letters as well, which `_OPERATIONS` does not have.
_PROBLEM = re.compile(rf"(-?{_NUMBER})\s*((?ai:{_SIGN}))\s*(-?{_NUMBER})")
_PLUS_OR_MINUS = "|".join(re.escape(sign) for sign, operation in _OPERATIONS.items() if operation in "+-")
_NEXT_TERM = rf"\s*((?ai:{_PLUS_OR_MINUS}))\s*(-?{_NUMBER})"
_SUM_OF_THREE = re.compile(rf"(-?{_NUMBER}){_NEXT_TERM}{_NEXT_TERM}")


@functools.lru_cache(maxsize=8192)  # the same items come back with each model, seed and decoding
def arithmetic_problem(question: str) -> tuple[Fraction, str, Fraction] | None:
    """Return the problem in "What is 7 plus 4?" as (4, "+", 7); None where there is no single operation.

    The operands of + and * are in order of size, so that 4 + 7 and 7 + 4 are one problem.
    """
    problems = _PROBLEM.findall(question)
    if len(problems) != 1 or len(re.findall(_NUMBER, question)) != 2:  # a third number: "3 + 4 + 5", or a story
        return None
    first, sign, second = problems[0]
    a, b = Fraction(first.replace(",", "")), Fraction(second.replace(",", ""))
    operation = _OPERATIONS[sign.lower()]
    if operation in "+*":
        return min(a, b), operation, max(a, b)
    return a, operation, b


def three_terms(question: str) -> tuple[Fraction, ...] | None:
    """Return the terms of a sum of three with their signs, in order of size: "What is 7 + 12 - 5?" gives -5, 7, 12.

    None where the question has other numbers or other operations.
    """
    sums = _SUM_OF_THREE.findall(question)
    if len(sums) != 1 or len(re.findall(_NUMBER, question)) != 3:
        return None
    first, second_sign, second, third_sign, third = sums[0]
    terms = [Fraction(number.replace(",", "")) for number in (first, second, third)]
    signs = ["+", _OPERATIONS[second_sign.lower()], _OPERATIONS[third_sign.lower()]]
    return tuple(sorted(-term if sign == "-" else term for sign, term in zip(signs, terms, strict=True)))


def arithmetic_gold(question: str) -> str | None:
    """Return the right answer of an arithmetic question, in normal form: two numbers, or a sum of three terms.

    None for any other question. It judges labels; nothing is ever trained on it.
    """
    problem = arithmetic_problem(question)
    if problem is None:
        terms = three_terms(question)
        return answers.normal_form(str(sum(terms))) if terms else None
    a, operation, b = problem
    if operation == "/" and b == 0:
        return None
    return answers.normal_form(str(_CALCULATE[operation](a, b)))


@functools.lru_cache(maxsize=1 << 16)  # held-out items are compared with each batch of new questions again
def overlap_key(question: str) -> str:
    """Return a key that two questions share if one repeats the other: the arithmetic problem, else the words."""
    if len(question.split()) <= 12:
        problem = arithmetic_problem(question)
        if problem is not None:
            return f"{problem[0]} {problem[1]} {problem[2]}"
        terms = three_terms(question)
        if terms is not None:
            return f"sum of {terms[0]}, {terms[1]} and {terms[2]}"
    return " ".join(re.findall(r"\w+", question.lower()))


def repeated_items(questions: Sequence[str], benchmarks: Sequence[Benchmark]) -> list[str]:
    """Return for each question the name of the benchmark of which it repeats an item; "" if it repeats none."""
    benchmark_of = {overlap_key(item.question): benchmark.name for benchmark in benchmarks for item in benchmark.items}
    return [benchmark_of.get(overlap_key(question), "") for question in questions]


def harness_task(
    benchmark: Benchmark, ask: Callable[[str], str], *, repeats: int, generation: dict[str, Any]
) -> dict[str, Any]:
    """Return the benchmark as a task of lm-evaluation-harness.

    `ask(question)` words the user's turn; `repeats` is the number of samples per item; `generation` holds the harness's
    generation_kwargs.
    """
    from datasets import Dataset

    def splits(**_: Any) -> dict[str, Any]:
        test = [_document(number, item, item.gold) for number, item in enumerate(benchmark.items)]
        # An example's number is below zero, so that it is never taken for an item; its target is its whole solution.
        shots = [_document(-n, item, item.solution or item.gold) for n, item in enumerate(benchmark.train, start=1)]
        return {name: Dataset.from_list(rows) for name, rows in (("test", test), ("train", shots)) if rows}

    def shares_right(doc: dict[str, Any], results: list[list[str]]) -> dict[str, float]:
        rows = [score_answer(text, doc["gold"], doc["form"]) for text in results[0]]
        return {name: sum(row[name] for row in rows) / len(rows) for name in SCORINGS}

    return {
        "task": benchmark.name,
        "custom_dataset": splits,
        "test_split": "test",
        "output_type": "generate_until",
        "fewshot_split": "train" if benchmark.train else None,
        "fewshot_config": {"sampler": "first_n"} if benchmark.train else None,
        "doc_to_text": lambda doc: ask(doc["question"]),
        "doc_to_target": lambda doc: doc["gold"],
        "process_results": shares_right,
        "repeats": repeats,
        "generation_kwargs": generation,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in SCORINGS],
        "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": repeats}]}],
    }


def _document(number: int, item: Item, target: str) -> dict[str, Any]:
    """Return one row of the harness's data set."""
    return {"item": number, "question": item.question, "gold": target, "form": item.form, "kind": item.kind}
