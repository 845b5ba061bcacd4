"""Benchmarks: the questions that a claim is judged on, from the hub, from a folder, or generated from a seed.

Each becomes a task of lm-evaluation-harness. Golds are final answers in normal form; questions that the training data repeats
can be found with `overlaps`.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from . import answers

DEV_ITEMS = 150  # ours: items of the development split of the arithmetic benchmark


class BenchmarkError(ValueError):
    """A benchmark that cannot be loaded; the message names it, where it was looked for and the fix."""


@dataclass(frozen=True)
class Item:
    """One question with its gold answer (normal form) and the solution that a few-shot example shows."""

    question: str
    gold: str
    solution: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Test items, and `train` items for few shots; `source` says where they came from."""

    name: str
    items: tuple[Item, ...]
    train: tuple[Item, ...]
    source: str


def load(name: str, *, folder: str = "", split: str = "test", items: int = 0, seed: int = 2025) -> Benchmark:
    """Load benchmark `name`: generated (arithmetic), else from `folder` or $CRESCENT_BENCHMARK_DIR, else from the hub.

    `split` "dev" exists for arithmetic alone; `items` limits the number (0: all); `seed` generates or picks them.
    """
    if name not in _LOADERS:
        near = difflib.get_close_matches(name, _LOADERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BenchmarkError(f"evaluate_on: {name!r} is unknown; allowed: {', '.join(_LOADERS)}.{hint}")
    if name == "arithmetic":
        return arithmetic(seed, split, items or 350)
    if split != "test":
        raise BenchmarkError(
            f"benchmark_split: {split!r} exists for arithmetic alone; {name} is scored on its test split"
        )
    benchmark = _LOADERS[name](folder or os.environ.get("CRESCENT_BENCHMARK_DIR", ""))
    if not items or items >= len(benchmark.items):
        return benchmark
    picked = sorted(random.Random(seed).sample(range(len(benchmark.items)), items))
    return Benchmark(
        name,
        tuple(benchmark.items[i] for i in picked),
        benchmark.train,
        f"{benchmark.source}, {items} drawn with seed {seed}",
    )


def names() -> list[str]:
    """Names that the parameter `benchmarks` may hold."""
    return list(_LOADERS)


# --- arithmetic -----------------------------------------------------------------------------------------------------------------


def arithmetic(seed: int, split: str, items: int) -> Benchmark:
    """Generate one- and two-digit additions, subtractions and multiplications; ours.

    Every unordered pair of operands stands at most once over dev, test and the few-shot items together.
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
    parts = {"dev": made[:DEV_ITEMS], "test": made[DEV_ITEMS : DEV_ITEMS + items]}
    if split not in parts:
        raise BenchmarkError(f"benchmark_split: {split!r} is not allowed; choose dev or test")
    return Benchmark("arithmetic", tuple(parts[split]), tuple(made[-8:]), f"generated with seed {seed}, {split} split")


def _arithmetic_item(a: int, operation: str, b: int) -> Item:
    value = {"+": a + b, "-": a - b, "*": a * b}[operation]
    return Item(f"What is {a} {operation} {b}?", str(value), f"{a} {operation} {b} = {value}")


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


# --- files and the hub ----------------------------------------------------------------------------------------------------------


def _gsm8k(folder: str) -> Benchmark:
    test, source = _rows(folder, "gsm8k_test.jsonl", ("openai/gsm8k", "main", "test"))
    train, _ = _rows(folder, "gsm8k_train.jsonl", ("openai/gsm8k", "main", "train"))
    return Benchmark("gsm8k", tuple(map(_gsm8k_item, test)), tuple(map(_gsm8k_item, train)), source)


def _gsm8k_item(row: dict[str, Any]) -> Item:
    solution, _, gold = row["answer"].rpartition("####")
    return Item(
        row["question"],
        answers.normal_form(gold.strip()),
        re.sub(r"<<.*?>>", "", solution) + f"The answer is {gold.strip()}",
    )


def _asdiv(folder: str) -> Benchmark:
    path = Path(folder).expanduser() / "ASDiv.xml" if folder else None
    if path is None or not path.exists():
        rows, source = _rows(folder, "ASDiv.xml", ("EleutherAI/asdiv", "asdiv", "validation"))
        items = [Item(f"{r['body']} {r['question']}", _asdiv_gold(r["answer"])) for r in rows]
    else:
        source = path.name
        try:
            problems = ET.parse(path).getroot().iter("Problem")
        except ET.ParseError as error:
            raise BenchmarkError(f"benchmark_dir: {path} is damaged ({error}); fetch it again") from None
        items = [
            Item(
                f"{p.findtext('Body', '').strip()} {p.findtext('Question', '').strip()}",
                _asdiv_gold(p.findtext("Answer", "")),
            )
            for p in problems
        ]
    return Benchmark("asdiv", tuple(items), (), source)


def _asdiv_gold(answer: str) -> str:
    # "9 (apples)": the unit stands in brackets behind the value.
    return answers.normal_form(answer.split("(", maxsplit=1)[0].strip() or answer.strip())


def _gsm_plus_mini(folder: str) -> Benchmark:
    rows, source = _rows(folder, "gsmplus_testmini.jsonl", ("qintongli/GSM-Plus", "default", "testmini"))
    items = tuple(Item(r["question"], answers.normal_form(str(r["answer"])), str(r.get("solution", ""))) for r in rows)
    return Benchmark("gsm_plus_mini", items, (), source)


_LOADERS: dict[str, Callable[[str], Benchmark]] = {
    "arithmetic": lambda folder: arithmetic(2025, "test", 350),
    "gsm8k": _gsm8k,
    "asdiv": _asdiv,
    "gsm_plus_mini": _gsm_plus_mini,
}


def _rows(folder: str, file: str, hub: tuple[str, str, str]) -> tuple[list[dict[str, Any]], str]:
    path = Path(folder).expanduser() / file if folder else None
    if path is not None and path.exists():
        try:
            with open(path, encoding="utf-8") as lines:
                return [json.loads(line) for line in lines if line.strip()], path.name
        except ValueError as error:
            raise BenchmarkError(f"benchmark_dir: {path} is damaged ({error}); fetch it again") from None
    from datasets import load_dataset

    try:
        return list(load_dataset(hub[0], hub[1], split=hub[2])), f"{hub[0]} ({hub[1]}, {hub[2]})"
    except Exception as error:
        where = f"{path} does not exist" if path else "benchmark_dir is not set"
        raise BenchmarkError(
            f"evaluate_on: {file} cannot be had: {where}, and the hub did not give {hub[0]} ({type(error).__name__}). "
            "Put the file into a folder and name it as benchmark_dir"
        ) from error


# --- overlap and the harness ----------------------------------------------------------------------------------------------------


def overlap_key(question: str) -> str:
    """Return what two questions share if one repeats the other: the arithmetic problem, else the words in lower case."""
    problem = arithmetic_problem(question)
    if problem is not None and len(question.split()) <= 12:
        return f"{problem[0]} {problem[1]} {problem[2]}"
    return " ".join(re.findall(r"\w+", question.lower()))


def overlaps(questions: Sequence[str], benchmarks: Sequence[Benchmark]) -> list[str]:
    """Return for each question the benchmark of which it repeats an item ("" for none)."""
    held = {overlap_key(item.question): benchmark.name for benchmark in benchmarks for item in benchmark.items}
    return [held.get(overlap_key(question), "") for question in questions]


def harness_task(
    benchmark: Benchmark,
    ask: Callable[[str], str],
    score: Callable[[str, str], dict[str, bool]],
    *,
    repeats: int,
    generation: dict[str, Any],
) -> dict[str, Any]:
    """Return the benchmark as a task of lm-evaluation-harness.

    `ask(question)` words the user's turn; `score(completion, gold)` gives one truth value a scoring; `repeats` is the number of
    samples an item; `generation` are the harness's generation_kwargs.
    """
    from datasets import Dataset

    def splits(**_: Any) -> dict[str, Any]:
        test = [{"item": i, "question": it.question, "gold": it.gold} for i, it in enumerate(benchmark.items)]
        train = [
            {"item": -1 - i, "question": it.question, "gold": it.solution or it.gold}
            for i, it in enumerate(benchmark.train)
        ]
        return {"test": Dataset.from_list(test), **({"train": Dataset.from_list(train)} if train else {})}

    def process(doc: dict[str, Any], results: list[list[str]]) -> dict[str, float]:
        rows = [score(text, doc["gold"]) for text in results[0]]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in score("", "0")]
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
