"""Published benchmarks, read from a folder's files or from the hub: which fields are the question, the gold and its form.

Golds are normal forms. An item's `form` says how an answer to it is judged (see `scoring.py`), its `kind` is the benchmark's own
sort of item: GSM-Plus's perturbation, ASDiv's solution type, MATH's subject, the task of BIG-Bench Hard.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import answers

# fmt: off
BBH_TASKS = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages", "formal_fallacies",
    "geometric_shapes", "hyperbaton", "logical_deduction_five_objects", "logical_deduction_seven_objects",
    "logical_deduction_three_objects", "movie_recommendation", "multistep_arithmetic_two", "navigate", "object_counting",
    "penguins_in_a_table", "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies", "word_sorting",
)
# fmt: on
BBH_SOLVE = (  # ours
    "{question}\n\nThink step by step, then state the final answer on a last line of the form 'The answer is <answer>'. Where the "
    "options have letters, answer with the letter in brackets, such as (A)."
)


class BenchmarkError(ValueError):
    """A benchmark that cannot be loaded; the message names it, where it was looked for and the fix."""


@dataclass(frozen=True)
class Item:
    """One question with its gold answer and the solution that a few-shot example shows.

    `form` is number, list (golds joined by ";"), text, choice (a letter) or none (there is no answer, and saying so is right).
    """

    question: str
    gold: str
    solution: str = ""
    form: str = "number"
    kind: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Test items, and `train` items for few shots; `source` says where they came from.

    `solve` replaces the domain's wording of the user's turn where that would not fit, with {question}; "" keeps it.
    """

    name: str
    items: tuple[Item, ...]
    train: tuple[Item, ...]
    source: str
    solve: str = ""


def gsm8k(folder: str) -> Benchmark:
    """GSM8K (Cobbe et al., 2021): 1,319 test items; the few shots are the first of its training split."""
    test, source = _rows(folder, "gsm8k_test.jsonl", ("openai/gsm8k", "main", "test"))
    return Benchmark("gsm8k", tuple(map(_gsm8k_item, test)), _gsm8k_train(folder), source)


def _gsm8k_train(folder: str) -> tuple[Item, ...]:
    return tuple(map(_gsm8k_item, _rows(folder, "gsm8k_train.jsonl", ("openai/gsm8k", "main", "train"))[0]))


def _borrowed_train(folder: str) -> tuple[Item, ...]:
    """GSM8K's training split, for a benchmark without one of its own; empty where it cannot be had (0-shot needs none)."""
    try:
        return _gsm8k_train(folder)
    except BenchmarkError:
        return ()


def _gsm8k_item(row: dict[str, Any]) -> Item:
    solution, _, gold = row["answer"].rpartition("####")
    return Item(
        row["question"],
        answers.normal_form(gold.strip()),
        re.sub(r"<<.*?>>", "", solution) + f"The answer is {gold.strip()}",
    )


def asdiv(folder: str) -> Benchmark:
    """ASDiv (Miao et al., 2020), all 2,305 with generated answers; few shots from GSM8K's training split, since it has none."""
    path = Path(folder).expanduser() / "ASDiv.xml" if folder else None
    if path is None or not path.exists():
        rows, source = _rows(folder, "ASDiv.xml", ("EleutherAI/asdiv", "asdiv", "validation"))
        fields = [(r["body"], r["question"], r["answer"], r.get("solution_type", "")) for r in rows]
    else:
        source = path.name
        try:
            problems = ET.parse(path).getroot().iter("Problem")
        except ET.ParseError as error:
            raise BenchmarkError(f"benchmark_dir: {path} is damaged ({error}); fetch it again") from None
        fields = [
            (
                p.findtext("Body", ""),
                p.findtext("Question", ""),
                p.findtext("Answer", ""),
                p.findtext("Solution-Type", ""),
            )
            for p in problems
        ]
    items = tuple(_asdiv_item(*field) for field in fields)
    return Benchmark("asdiv", items, _borrowed_train(folder), source)


def _asdiv_item(body: str, question: str, answer: str, kind: str) -> Item:
    gold, form = asdiv_gold(answer)
    return Item(f"{body.strip()} {question.strip()}", gold, form=form, kind=kind.strip())


def asdiv_gold(answer: str) -> tuple[str, str]:
    """Read ASDiv's answer field as (gold, form): "9 (apples)" is a number, "6 (cm); 15 (cm)" a list, a name or a ratio text."""
    parts = [
        re.sub(r"\s+\([^()]*\)\s*$", "", part).strip() for part in answer.split(";")
    ]  # the unit stands in brackets
    parts = [part.replace("(", "").replace(")", "") if re.fullmatch(r"-?\([\d/.]+\)", part) else part for part in parts]
    if all(re.fullmatch(r"-?[\d,]*\.?\d+(?:/\d+)?", part) for part in parts):
        return ";".join(map(answers.normal_form, parts)), "number" if len(parts) == 1 else "list"
    text = re.sub(r"^the\s+|\.$", "", answer.strip(), flags=re.I)
    return "equal" if text.lower() == "they are equal" else text, "text"


def gsm_plus_mini(folder: str) -> Benchmark:
    """GSM-Plus testmini (Li et al., 2024): 300 items of each of eight perturbations of GSM8K's test questions.

    Its few shots are GSM8K's training items: what lm-evaluation-harness takes, its own test split, holds siblings of each item.
    """
    rows, source = _rows(folder, "gsmplus_testmini.jsonl", ("qintongli/GSM-Plus", "default", "testmini"))
    return Benchmark("gsm_plus_mini", tuple(map(_gsm_plus_item, rows)), _borrowed_train(folder), source)


def _gsm_plus_item(row: dict[str, Any]) -> Item:
    gold, kind = str(row["answer"]), str(row.get("perturbation_type", ""))
    form = "none" if gold.strip().lower() == "none" else "number"
    return Item(row["question"], answers.normal_form(gold), str(row.get("solution", "")), form, kind)


def svamp(folder: str) -> Benchmark:
    """SVAMP (Patel et al., 2021), the hub's split: 300 test items, 700 for few shots."""
    test, source = _rows(folder, "svamp_test.jsonl", ("ChilleD/SVAMP", "default", "test"))
    train, _ = _rows(folder, "svamp_train.jsonl", ("ChilleD/SVAMP", "default", "train"))
    return Benchmark("svamp", tuple(map(_svamp_item, test)), tuple(map(_svamp_item, train)), source)


def _svamp_item(row: dict[str, Any]) -> Item:
    gold = answers.normal_form(str(row["Answer"]))
    solution = f"{row.get('Equation', '')} = {gold}\nThe answer is {gold}"
    return Item(f"{row['Body'].strip()} {row['Question'].strip()}", gold, solution, kind=str(row.get("Type", "")))


def math500(folder: str) -> Benchmark:
    """MATH-500 (Hendrycks et al., 2021; the subset of Lightman et al., 2023). It has no training split, so 0-shot alone."""
    rows, source = _rows(folder, "math500.jsonl", ("HuggingFaceH4/MATH-500", "default", "test"))
    items = (Item(r["problem"], answers.normal_form(r["answer"]), r["solution"], kind=str(r["subject"])) for r in rows)
    return Benchmark("math500", tuple(items), (), source)


def bbh(folder: str) -> Benchmark:
    """BIG-Bench Hard (Suzgun et al., 2022), generated answers, 0-shot: the tasks in `folder`/bbh, else all 27 from the hub."""
    files = sorted((Path(folder).expanduser() / "bbh").glob("*.json")) if folder else []
    if files:
        tasks = [(path.stem, _bbh_examples(path)) for path in files]
        source = f"bbh/*.json ({len(files)} tasks)"
    else:
        tasks = [(name, _rows(folder, f"bbh/{name}.json", ("lukaemon/bbh", name, "test"))[0]) for name in BBH_TASKS]
        source = f"lukaemon/bbh ({len(tasks)} tasks, test)"
    items = tuple(_bbh_item(name, row) for name, rows in tasks for row in rows)
    return Benchmark("bbh", items, (), source, BBH_SOLVE)


def _bbh_examples(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["examples"])
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"benchmark_dir: {path} is damaged ({error}); fetch it again") from None


def _bbh_item(task: str, row: dict[str, Any]) -> Item:
    gold = row["target"].strip()
    if letter := re.fullmatch(r"\(([A-Z])\)", gold):
        return Item(row["input"], letter[1], form="choice", kind=task)
    number = re.fullmatch(r"-?\d+", gold)
    return Item(
        row["input"], answers.normal_form(gold) if number else gold, form="number" if number else "text", kind=task
    )


LOADERS: dict[str, Callable[[str], Benchmark]] = {
    "gsm8k": gsm8k,
    "asdiv": asdiv,
    "gsm_plus_mini": gsm_plus_mini,
    "svamp": svamp,
    "math500": math500,
    "bbh": bbh,
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
