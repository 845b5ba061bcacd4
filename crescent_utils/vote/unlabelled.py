"""The questions that are voted on: 02's pool, or for LMSI a training split, a file, a dataset of the hub.

LMSI (Huang et al., 2022, section 3) takes the questions of training sets and leaves their answers aside. Where a source
has answers they travel along as golds, which judge labels after the fact and never make one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import answers, benchmarks, runs
from ..runs import Vote

if TYPE_CHECKING:
    import pandas as pd

ARITHMETIC_DRAWS = 4_000  # ours: problems drawn for `arithmetic`; about half of them are different
REPEATED, EMPTY = "repeats a question", "empty"  # reasons why a row of a source is not asked


@dataclass(frozen=True)
class Unlabelled:
    """The questions to vote on (`id`, `question`, `gold` where known), those rejected with a reason, and the source."""

    questions: pd.DataFrame
    rejected: pd.DataFrame
    source: str


def questions_of_stage(stage: runs.Stage, domain: runs.Domain) -> Unlabelled:
    """Return the questions to vote on: 02's pool, or those of `question_source` without benchmark items."""
    settings: Any = stage.settings
    if settings.question_source == "pool":
        pool = stage.read_table("dedup", "questions")
        return Unlabelled(pool, pool.head(0)[["id", "question"]].assign(reason=""), "02_dedup")
    return load_unlabelled(settings, benchmarks.load_held_out(settings, domain))


def load_unlabelled(settings: Vote, held_out: list[benchmarks.Benchmark]) -> Unlabelled:
    """Return what `question_source` names; each row of it that is not asked stands in `rejected`, with its reason.

    Rows without text are "empty"; what repeats a question before it "repeats a question". `question_items` draws so
    many of the different questions, each with its repeats; `source` says of how many. With `decontaminate` questions
    that repeat an item of `held_out` are rejected too. Raises BenchmarkError naming the source, what is allowed and the
    fix.
    """
    import pandas as pd

    rows, source = _rows(settings)
    wordings: dict[str, list[tuple[str, str | None]]] = {}  # of one question: the first is asked
    for question, gold in rows:
        if question:
            wordings.setdefault(benchmarks.overlap_key(question), []).append((question, gold))
    drawn = list(wordings.values())
    if settings.question_items and settings.question_items < len(drawn):
        drawn = random.Random(settings.seed).sample(drawn, settings.question_items)
        source = f"{source}; {len(drawn):,} of {len(wordings):,} different questions drawn"
    asked = [first for first, *_ in drawn]
    items = benchmarks.repeated_items([text for text, _ in asked], held_out if settings.decontaminate else [])
    reasons = ["repeats a benchmark item" if item else "" for item in items]
    fates = [(*pair, reason) for pair, reason in zip(asked, reasons, strict=True)]
    fates += [(*pair, REPEATED) for _, *repeats in drawn for pair in repeats]
    fates += [(*pair, EMPTY) for pair in rows if not pair[0]]
    table = pd.DataFrame(
        [(number, *fate) for number, fate in enumerate(fates)], columns=["id", "question", "gold", "reason"]
    )
    is_kept = table["reason"] == ""
    questions = table[is_kept].drop(columns="reason").reset_index(drop=True)
    return Unlabelled(questions, table[~is_kept].reset_index(drop=True), source)


def _rows(settings: Vote) -> tuple[list[tuple[str, str | None]], str]:
    name = settings.question_source
    if name == "arithmetic":
        return _arithmetic(settings.seed), f"generated with seed {settings.seed}"
    if benchmarks.is_generated(name):  # a problem space: what it does not hold out
        benchmark = benchmarks.load_benchmark(name, split="train", seed=settings.benchmark_seed)
        return [(item.question, item.gold) for item in benchmark.items], f"{name}, {benchmark.source}"
    if name == "gsm8k":
        benchmark = benchmarks.load_benchmark("gsm8k", folder=settings.benchmark_dir)
        return [(item.question, item.gold) for item in benchmark.train], "gsm8k, train split"
    if Path(name).suffix in (".jsonl", ".json", ".parquet", ".csv"):
        return _file(name, settings.benchmark_dir)
    if "/" in name:
        return _hub(name)
    raise benchmarks.BenchmarkError(
        f"question_source: {name!r} is unknown; allowed: pool, arithmetic, a problem space such as three_terms_40, "
        "gsm8k, a file (.jsonl, .json, .parquet, .csv) with a column `question`, or a hub id such as openai/gsm8k"
    )


def _arithmetic(seed: int) -> list[tuple[str, str | None]]:
    """Return different problems as the arithmetic benchmark words them, operands up to 50 (ours), and their answers.

    A problem that was drawn before is drawn for nothing: it was never a question.
    """
    draw = random.Random(f"unlabelled {seed}")
    problems: dict[str, tuple[str, str | None]] = {}
    for _ in range(ARITHMETIC_DRAWS):
        operation = draw.choice("+-*")
        a, b = draw.randint(1, 20 if operation == "*" else 50), draw.randint(1, 12 if operation == "*" else 50)
        if operation == "-" and b > a:
            a, b = b, a
        question = f"What is {a} {operation} {b}?"
        problems.setdefault(benchmarks.overlap_key(question), (question, benchmarks.arithmetic_gold(question)))
    return list(problems.values())


def _file(name: str, folder: str) -> tuple[list[tuple[str, str | None]], str]:
    import pandas as pd

    path = next((p for p in (Path(name).expanduser(), Path(folder).expanduser() / name) if p.is_file()), None)
    if path is None:
        where = f" nor in benchmark_dir {folder!r}" if folder else ""
        raise benchmarks.BenchmarkError(f"question_source: {name!r} is no file here{where}; give its whole path")
    readers: dict[str, Any] = {
        ".jsonl": lambda p: pd.read_json(p, lines=True),
        ".json": pd.read_json,
        ".parquet": pd.read_parquet,
        ".csv": pd.read_csv,
    }
    try:
        table = readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise benchmarks.BenchmarkError(f"question_source: {path.name} cannot be read ({error})") from None
    return _questions(table, path.name), path.name


def _hub(name: str) -> tuple[list[tuple[str, str | None]], str]:
    from datasets import get_dataset_config_names, load_dataset

    try:
        config = get_dataset_config_names(name)[0]
        table = load_dataset(name, config, split="train").to_pandas()
    except Exception as error:
        raise benchmarks.BenchmarkError(
            f"question_source: the hub did not give {name!r} ({type(error).__name__}). Check the name and the network, "
            "or download it and name the file"
        ) from error
    return _questions(table, name), f"{name} ({config}, train)"


def _questions(table: pd.DataFrame, where: str) -> list[tuple[str, str | None]]:
    if "question" not in table.columns:
        raise benchmarks.BenchmarkError(
            f"question_source: {where} has no column `question`; its columns are {', '.join(map(str, table.columns))}"
        )
    golds = table["answer"] if "answer" in table.columns else [None] * len(table)
    pairs = []
    for question, gold in zip(table["question"], golds, strict=True):
        text = question.strip() if isinstance(question, str) else ""
        has_gold = isinstance(gold, str | Number) and gold == gold  # nan and pandas' NA mark a missing answer
        pairs.append((text, answers.extract_answer(str(gold)) if text and has_gold else None))
    return pairs
