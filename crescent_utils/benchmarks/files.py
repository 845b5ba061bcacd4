"""Published benchmarks, read from a folder's files or from the hub: which field is the question, the gold, its form.

Golds are normal forms. An item's `form` says how an answer to it is scored (see `scoring.py`). Its `kind` is the
benchmark's own sort of item: GSM-Plus's perturbation, ASDiv's solution type, MATH's subject, BIG-Bench Hard's task.
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


class BenchmarkError(ValueError):
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


# --- GSM8K and its relatives ------------------------------------------------------------------------------------------


def gsm8k(folder: str) -> Benchmark:
    """Return GSM8K (Cobbe et al., 2021): 1,319 test items, and its training split for few shots."""
    test, source = _read_rows(folder, "gsm8k_test.jsonl", ("openai/gsm8k", "main", "test"))
    return Benchmark("gsm8k", tuple(map(_gsm8k_item, test)), _gsm8k_train(folder), source)


def _gsm8k_train(folder: str) -> tuple[Item, ...]:
    rows, _ = _read_rows(folder, "gsm8k_train.jsonl", ("openai/gsm8k", "main", "train"))
    return tuple(map(_gsm8k_item, rows))


def _gsm8k_train_if_any(folder: str) -> tuple[Item, ...]:
    """Return GSM8K's training split for a benchmark that has none; empty if it cannot be loaded (0-shot needs none)."""
    try:
        return _gsm8k_train(folder)
    except BenchmarkError:
        return ()


def _gsm8k_item(row: dict[str, Any]) -> Item:
    solution, _, gold = row["answer"].rpartition("####")
    gold = gold.strip()
    without_annotations = re.sub(r"<<.*?>>", "", solution)
    return Item(row["question"], answers.normal_form(gold), f"{without_annotations}The answer is {gold}")


def gsm_plus_mini(folder: str) -> Benchmark:
    """Return GSM-Plus testmini (Li et al., 2024): 300 items of each of eight perturbations of GSM8K's test questions.

    Its few shots are GSM8K's training items. lm-evaluation-harness takes them from the test split itself, where each
    item has siblings that were made from the same question.
    """
    rows, source = _read_rows(folder, "gsmplus_testmini.jsonl", ("qintongli/GSM-Plus", "default", "testmini"))
    return Benchmark("gsm_plus_mini", tuple(map(_gsm_plus_item, rows)), _gsm8k_train_if_any(folder), source)


def _gsm_plus_item(row: dict[str, Any]) -> Item:
    gold = str(row["answer"])
    form = "none" if gold.strip().lower() == "none" else "number"
    kind = str(row.get("perturbation_type", ""))
    return Item(row["question"], answers.normal_form(gold), str(row.get("solution", "")), form, kind)


# --- ASDiv ------------------------------------------------------------------------------------------------------------


def asdiv(folder: str) -> Benchmark:
    """Return ASDiv (Miao et al., 2020): all 2,305 items; few shots from GSM8K's training split, since it has none."""
    path = Path(folder).expanduser() / "ASDiv.xml" if folder else None
    if path is not None and path.exists():
        problems, source = _asdiv_problems(path), path.name
    else:
        rows, source = _read_rows(folder, "ASDiv.xml", ("EleutherAI/asdiv", "asdiv", "validation"))
        problems = [(row["body"], row["question"], row["answer"], row.get("solution_type", "")) for row in rows]
    items = tuple(_asdiv_item(*problem) for problem in problems)
    return Benchmark("asdiv", items, _gsm8k_train_if_any(folder), source)


def _asdiv_problems(path: Path) -> list[tuple[str, str, str, str]]:
    """Return (body, question, answer, solution type) of each problem in the published XML file."""
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise _damaged(path, error) from None
    return [
        (
            problem.findtext("Body", ""),
            problem.findtext("Question", ""),
            problem.findtext("Answer", ""),
            problem.findtext("Solution-Type", ""),
        )
        for problem in root.iter("Problem")
    ]


def _asdiv_item(body: str, question: str, answer: str, kind: str) -> Item:
    gold, form = asdiv_gold(answer)
    return Item(f"{body.strip()} {question.strip()}", gold, form=form, kind=kind.strip())


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


# --- SVAMP and MATH-500 -----------------------------------------------------------------------------------------------


def svamp(folder: str) -> Benchmark:
    """Return SVAMP (Patel et al., 2021) in the hub's split: 300 test items, 700 for few shots."""
    test, source = _read_rows(folder, "svamp_test.jsonl", ("ChilleD/SVAMP", "default", "test"))
    train, _ = _read_rows(folder, "svamp_train.jsonl", ("ChilleD/SVAMP", "default", "train"))
    return Benchmark("svamp", tuple(map(_svamp_item, test)), tuple(map(_svamp_item, train)), source)


def _svamp_item(row: dict[str, Any]) -> Item:
    gold = answers.normal_form(str(row["Answer"]))
    solution = f"{row.get('Equation', '')} = {gold}\nThe answer is {gold}"
    return Item(f"{row['Body'].strip()} {row['Question'].strip()}", gold, solution, kind=str(row.get("Type", "")))


def math500(folder: str) -> Benchmark:
    """Return MATH-500 (Hendrycks et al., 2021; subset of Lightman et al., 2023); without a training split: 0-shot."""
    rows, source = _read_rows(folder, "math500.jsonl", ("HuggingFaceH4/MATH-500", "default", "test"))
    return Benchmark("math500", tuple(map(_math500_item, rows)), (), source)


def _math500_item(row: dict[str, Any]) -> Item:
    return Item(row["problem"], answers.normal_form(row["answer"]), row["solution"], kind=str(row["subject"]))


# --- BIG-Bench Hard ---------------------------------------------------------------------------------------------------


def bbh(folder: str) -> Benchmark:
    """Return BIG-Bench Hard (Suzgun et al., 2022), 0-shot: the tasks in `folder`/bbh, else all 27 from the hub."""
    paths = sorted((Path(folder).expanduser() / "bbh").glob("*.json")) if folder else []
    if paths:
        tasks = [(path.stem, _bbh_examples(path)) for path in paths]
        source = f"bbh/*.json ({len(paths)} tasks)"
    else:
        hub_splits = {task: ("lukaemon/bbh", task, "test") for task in BBH_TASKS}
        tasks = [(task, _read_rows(folder, f"bbh/{task}.json", split)[0]) for task, split in hub_splits.items()]
        source = f"lukaemon/bbh ({len(tasks)} tasks, test)"
    items = tuple(_bbh_item(task, row) for task, rows in tasks for row in rows)
    return Benchmark("bbh", items, (), source, BBH_SOLVE)


def _bbh_examples(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["examples"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None


def _bbh_item(task: str, row: dict[str, Any]) -> Item:
    gold = row["target"].strip()
    if letter := re.fullmatch(r"\(([A-Z])\)", gold):
        return Item(row["input"], letter[1], form="choice", kind=task)
    if re.fullmatch(r"-?\d+", gold):
        return Item(row["input"], answers.normal_form(gold), form="number", kind=task)
    return Item(row["input"], gold, form="text", kind=task)


LOADERS: dict[str, Callable[[str], Benchmark]] = {
    "gsm8k": gsm8k,
    "asdiv": asdiv,
    "gsm_plus_mini": gsm_plus_mini,
    "svamp": svamp,
    "math500": math500,
    "bbh": bbh,
}


# --- reading rows -----------------------------------------------------------------------------------------------------


def _read_rows(folder: str, file_name: str, hub_split: tuple[str, str, str]) -> tuple[list[dict[str, Any]], str]:
    """Return the rows and their source: of a JSON Lines file in `folder`, else of (dataset, configuration, split)."""
    path = Path(folder).expanduser() / file_name if folder else None
    if path is not None and path.exists():
        try:
            with open(path, encoding="utf-8") as lines:
                return [json.loads(line) for line in lines if line.strip()], path.name
        except ValueError as error:
            raise _damaged(path, error) from None
    from datasets import load_dataset

    dataset, configuration, split = hub_split
    try:
        return list(load_dataset(dataset, configuration, split=split)), f"{dataset} ({configuration}, {split})"
    except Exception as error:  # whatever the hub's client raises: no network, no such dataset, a damaged cache
        where = f"{path} does not exist" if path else "benchmark_dir is not set"
        raise BenchmarkError(
            f"evaluate_on: {file_name} cannot be had: {where}, and the hub did not give {dataset} "
            f"({type(error).__name__}). Put the file into a folder and name it as benchmark_dir"
        ) from error


def _damaged(path: Path, error: Exception) -> BenchmarkError:
    return BenchmarkError(f"benchmark_dir: {path} is damaged ({error}); fetch it again")
