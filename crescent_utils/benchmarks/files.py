"""Published benchmarks, read from a folder's files or from the hub: which field is the question, the gold, its form.

GSM8K (Cobbe et al., 2021): 1,319 test items. GSM-Plus testmini (Li et al., 2024): 300 items of each of eight
perturbations of GSM8K's test questions. ASDiv (Miao et al., 2020): all 2,305 items. SVAMP (Patel et al., 2021) in the
hub's split: 300 test items, 700 for few shots. MATH-500 (Hendrycks et al., 2021; subset of Lightman et al., 2023) and
BIG-Bench Hard (Suzgun et al., 2022) have no training split: 0-shot.

Golds are normal forms. An item's `form` says how an answer to it is scored (see `scoring.py`). Its `kind` is the
benchmark's own sort of item: GSM-Plus's perturbation, ASDiv's solution type, MATH's subject, BIG-Bench Hard's task.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import answers
from ..runs import BENCHMARK_FILES, InputError

BBH_TASKS = tuple(
    """
    boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies
    geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects
    logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting
    penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks
    sports_understanding temporal_sequences tracking_shuffled_objects_five_objects
    tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting
    """.split()
)
BBH_SOLVE = (  # ours
    "{question}\n\nThink step by step, then state the final answer on a last line of the form "
    "'The answer is <answer>'. Where the options have letters, answer with the letter in brackets, such as (A)."
)


# Test items of each published benchmark, as its papers and data sets say: no run can have more.
TEST_ITEMS = {"gsm8k": 1319, "asdiv": 2305, "gsm_plus_mini": 2400, "svamp": 300, "math500": 500, "bbh": 6511}


class BenchmarkError(InputError, ValueError):
    """A benchmark that cannot be loaded; the message names it, where it was looked for and the fix."""


@dataclass(frozen=True)
class Item:
    """One question with its gold answer and the solution that a few-shot example shows.

    `form` is one of number, list (golds joined by ";"), text, choice (a letter), and none: the question has no answer,
    and to say so is right.
    """

    question: str
    gold: str
    solution: str = ""
    form: str = "number"
    kind: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Test items, and `train` items for few shots; `source` says where they came from.

    `solve` is the wording of the user's turn, with {question}, where the domain's would not fit; "" keeps the domain's.
    """

    name: str
    items: tuple[Item, ...]
    train: tuple[Item, ...]
    source: str
    solve: str = ""


def read_benchmark(name: str, folder: str) -> Benchmark:
    """Return the published benchmark `name` from the files in `folder`, else from the hub.

    GSM-Plus and ASDiv have no training split: their few shots are GSM8K's training items, and none where these cannot
    be had (0-shot needs none). lm-evaluation-harness takes GSM-Plus's shots from the test split itself, where each item
    has siblings that were made from the same question.
    """
    if name == "bbh":
        return _bbh(folder)
    test_file, *train_files = BENCHMARK_FILES[name]
    items, source = _read_items(folder, test_file)
    train: tuple[Item, ...] = ()
    for file_name in train_files:
        try:
            train, _ = _read_items(folder, file_name)
        except BenchmarkError:
            if file_name.startswith(name):  # its own training split
                raise
    return Benchmark(name, items, train, source)


def _read_items(folder: str, file_name: str) -> tuple[tuple[Item, ...], str]:
    """Return the items and their source: the file in `folder`, else its split on the hub."""
    item, *hub_split = FILES[file_name]
    path = Path(folder).expanduser() / file_name if folder else None
    if path is None or not path.exists():
        rows, source = _hub_rows(hub_split, folder, file_name)
    else:
        rows, source = read_rows(path), path.name
    return tuple(map(item, rows)), source


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of JSON Lines, of a task of BIG-Bench Hard, or of ASDiv's XML (with the hub's names)."""
    try:
        if path.suffix == ".xml":
            problems = ET.parse(path).getroot().iter("Problem")
            return [{field.tag.lower().replace("-", "_"): field.text or "" for field in item} for item in problems]
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return list(json.loads(text)["examples"])
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, KeyError, TypeError, ET.ParseError) as error:
        raise BenchmarkError(f"benchmark_dir: {path} is damaged ({error}); fetch it again") from None


def _hub_rows(hub_split: Sequence[str], folder: str, file_name: str) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of (data set, configuration, split) and their source."""
    from datasets import load_dataset

    dataset, configuration, split = hub_split
    try:
        return list(load_dataset(dataset, configuration, split=split)), f"{dataset} ({configuration}, {split})"
    except Exception as error:  # whatever the hub's client raises: no network, no such dataset, a damaged cache
        where = f"{Path(folder).expanduser() / file_name} does not exist" if folder else "benchmark_dir is not set"
        raise BenchmarkError(
            f"evaluate_on: {file_name} cannot be had: {where}, and the hub did not give {dataset} "
            f"({type(error).__name__}). Put the file into a folder and name it as benchmark_dir"
        ) from error


def _gsm8k_item(row: dict[str, Any]) -> Item:
    solution, _, gold = row["answer"].rpartition("####")
    gold = gold.strip()
    without_annotations = re.sub(r"<<.*?>>", "", solution)
    return Item(row["question"], answers.normal_form(gold), f"{without_annotations}The answer is {gold}")


def _gsm_plus_item(row: dict[str, Any]) -> Item:
    gold = str(row["answer"])
    form = "none" if gold.strip().lower() == "none" else "number"
    kind = str(row.get("perturbation_type", ""))
    return Item(row["question"], answers.normal_form(gold), str(row.get("solution", "")), form, kind)


def _asdiv_item(row: dict[str, Any]) -> Item:
    fields = ("body", "question", "answer", "solution_type")
    body, question, answer, kind = (row.get(field, "").strip() for field in fields)
    gold, form = asdiv_gold(answer)
    return Item(f"{body} {question}", gold, form=form, kind=kind)


def asdiv_gold(answer: str) -> tuple[str, str]:
    """Return ASDiv's answer as (gold, form).

    "9 (apples)" is a number, "6 (cm); 15 (cm)" a list; a name, a time or a ratio is text.
    """
    parts = [_asdiv_number(part) for part in answer.split(";")]
    if all(re.fullmatch(r"-?[\d,]*\.?\d+(?:/\d+)?", part) for part in parts):
        return ";".join(map(answers.normal_form, parts)), "number" if len(parts) == 1 else "list"
    text = re.sub(r"^the\s+|\.$", "", answer.strip(), flags=re.I)
    return "equal" if text.lower() == "they are equal" else text, "text"


def _asdiv_number(part: str) -> str:
    """Return the part without its unit, which stands in brackets; "-(1/3)", a number in brackets, as "-1/3"."""
    part = re.sub(r"\s+\([^()]*\)\s*$", "", part).strip()
    if re.fullmatch(r"-?\([\d/.]+\)", part):
        return part.replace("(", "").replace(")", "")
    return part


def _svamp_item(row: dict[str, Any]) -> Item:
    gold = answers.normal_form(str(row["Answer"]))
    solution = f"{row.get('Equation', '')} = {gold}\nThe answer is {gold}"
    return Item(f"{row['Body'].strip()} {row['Question'].strip()}", gold, solution, kind=str(row.get("Type", "")))


def _math500_item(row: dict[str, Any]) -> Item:
    return Item(row["problem"], answers.normal_form(row["answer"]), row["solution"], kind=str(row["subject"]))


def _bbh(folder: str) -> Benchmark:
    """Return the tasks in `folder`/bbh, else all 27 from the hub."""
    paths = sorted((Path(folder).expanduser() / "bbh").glob("*.json")) if folder else []
    if paths:
        tasks = {path.stem: read_rows(path) for path in paths}
        source = f"bbh/*.json ({len(tasks)} tasks)"
    else:
        tasks = {task: _hub_rows(("lukaemon/bbh", task, "test"), folder, f"bbh/{task}.json")[0] for task in BBH_TASKS}
        source = f"lukaemon/bbh ({len(tasks)} tasks, test)"
    items = tuple(_bbh_item(task, row) for task, rows in tasks.items() for row in rows)
    return Benchmark("bbh", items, (), source, BBH_SOLVE)


def _bbh_item(task: str, row: dict[str, Any]) -> Item:
    gold = row["target"].strip()
    if letter := re.fullmatch(r"\(([A-Z])\)", gold):
        return Item(row["input"], letter[1], form="choice", kind=task)
    if re.fullmatch(r"-?\d+", gold):
        return Item(row["input"], answers.normal_form(gold), form="number", kind=task)
    return Item(row["input"], gold, form="text", kind=task)


# How an item is made of a row of each file, and the file's data set, configuration and split on the hub.
FILES: dict[str, tuple[Any, str, str, str]] = {
    "gsm8k_test.jsonl": (_gsm8k_item, "openai/gsm8k", "main", "test"),
    "gsm8k_train.jsonl": (_gsm8k_item, "openai/gsm8k", "main", "train"),
    "gsmplus_testmini.jsonl": (_gsm_plus_item, "qintongli/GSM-Plus", "default", "testmini"),
    "ASDiv.xml": (_asdiv_item, "EleutherAI/asdiv", "asdiv", "validation"),
    "svamp_test.jsonl": (_svamp_item, "ChilleD/SVAMP", "default", "test"),
    "svamp_train.jsonl": (_svamp_item, "ChilleD/SVAMP", "default", "train"),
    "math500.jsonl": (_math500_item, "HuggingFaceH4/MATH-500", "default", "test"),
}
