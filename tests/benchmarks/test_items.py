"""Benchmarks: generated items against an oracle, files against their counts, overlaps against what a reader would say.

What is read from files is read from our samples, and from the published files where a machine has them.
"""

from __future__ import annotations

import ast
import json
import operator
import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import BENCHMARKS, SAMPLES, benchmark_folders

from crescent_utils.answers import equality, reading
from crescent_utils.answers.normal_form import normal_form
from crescent_utils.benchmarks import files, items, scoring
from crescent_utils.benchmarks.files import BenchmarkError, Item

GSM8K_FILES = ("gsm8k_test.jsonl", "gsm8k_train.jsonl")
FILES = {
    "gsm8k": GSM8K_FILES,
    "asdiv": ("ASDiv.xml", *GSM8K_FILES),
    "gsm_plus_mini": ("gsmplus_testmini.jsonl", *GSM8K_FILES),
    "bbh": ("bbh",),
}
COUNTS = {  # of the test items; of the training items that all three of them show
    SAMPLES: ({"gsm8k": 16, "asdiv": 13, "gsm_plus_mini": 16}, 12),
    BENCHMARKS: ({"gsm8k": 1319, "asdiv": 2305, "gsm_plus_mini": 2400}, 7473),
}
OPERATOR = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(expression):
    """Work out an expression of numbers exactly, from its syntax tree."""

    def of(node):
        if isinstance(node, ast.Constant):
            return Fraction(str(node.value))
        if isinstance(node, ast.UnaryOp):
            return -of(node.operand)
        return OPERATIONS[type(node.op)](of(node.left), of(node.right))

    return of(ast.parse(expression, mode="eval").body)


def expression(question):
    return re.fullmatch(r"What is (.+)\?", question)[1]


# --- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2025])
def test_dev_test_and_worked_examples_share_no_problem(seed):
    dev, test = (items.load_benchmark("arithmetic", split=split, items=350, seed=seed) for split in ("dev", "test"))
    assert dev.train == test.train and len(test.train) == 8
    assert (len(dev.items), len(test.items)) == (items.DEV_ITEMS, 350)
    keys = [items.overlap_key(item.question) for item in (*dev.items, *test.items, *test.train)]
    assert len(set(keys)) == len(keys)


def test_each_gold_is_right_by_another_way_of_working_it_out():
    for split in ("dev", "test"):
        loaded = items.load_benchmark("arithmetic", split=split, seed=3)
        for item in (*loaded.items, *loaded.train):
            assert Fraction(item.gold) == value(expression(item.question))
            assert item.gold == normal_form(item.gold) == items.arithmetic_gold(item.question)
            assert item.solution == f"{expression(item.question)} = {item.gold}"
            assert items.repeated_items([item.question], [loaded]) == (["arithmetic"] if item in loaded.items else [""])


def test_all_three_operations_one_and_two_digits_and_both_orders():
    found = [
        re.fullmatch(r"What is (\d{1,2}) ([-+*]) (\d{1,2})\?", item.question)
        for item in items.load_benchmark("arithmetic").items
    ]
    assert all(found)
    counts = Counter(match[2] for match in found)
    assert min(counts.values()) > 30 and set(counts) == set("+-*")
    assert all(int(m[1]) >= int(m[3]) for m in found if m[2] == "-"), "no answer is negative"
    assert {int(m[1]) > int(m[3]) for m in found if m[2] != "-" and m[1] != m[3]} == {True, False}


def test_the_seed_makes_the_benchmark_and_more_items_only_add():
    load = items.load_benchmark
    assert load("arithmetic", seed=5) == load("arithmetic", seed=5)
    assert load("arithmetic", seed=5).items != load("arithmetic", seed=6).items
    assert load("arithmetic", seed=5, items=300).items == load("arithmetic", seed=5, items=350).items[:300]
    assert len(load("arithmetic").items) >= 300


def test_too_many_items_and_an_unknown_split_are_named():
    with pytest.raises(BenchmarkError, match=r"benchmark_items: 5000 is too many.* (\d+) at most") as caught:
        items.load_benchmark("arithmetic", items=5000)
    most = int(re.search(r"(\d+) at most", str(caught.value))[1])
    assert len(items.load_benchmark("arithmetic", items=most).items) == most
    with pytest.raises(BenchmarkError, match="benchmark_split: 'valid' is not allowed; choose dev, test or train"):
        items.load_benchmark("arithmetic", split="valid")
    parts = [set(items.load_benchmark("arithmetic", split=split).items) for split in ("dev", "test", "train")]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


numbers = st.integers(-(10**7), 10**7).map(str) | st.decimals(-1000, 1000, allow_nan=False, places=2).map(str)
SIGNS = {
    "+": ["+", "plus", "added to"],
    "-": ["-", "minus", "−", "–"],
    "*": ["*", "x", "×", "times", "multiplied by"],
    "/": ["/", "÷", "divided by"],
}


@settings(max_examples=300, deadline=None)
@given(numbers, st.sampled_from(sorted(SIGNS)), numbers, st.data())
def test_a_gold_is_the_value_of_the_problem_however_it_is_written(a, sign, b, data):
    word = data.draw(st.sampled_from(SIGNS[sign]))
    gold = items.arithmetic_gold(f"What is {a} {word} {b}?")
    if sign == "/" and Fraction(b) == 0:
        assert gold is None
    else:
        assert Fraction(gold) == OPERATOR[sign](Fraction(a), Fraction(b))
    assert items.arithmetic_problem(f"What is {a} {word} {b}?")[1] == sign


@pytest.mark.parametrize(
    "question",
    [
        "",
        "How far is it to Rome?",
        "What is 3?",
        "What is 3 + 4 x 5?",
        "What is 1/2 + 1/3?",
        "What is 3 and 4?",
        "What is 2 times 3 plus 4?",
        "What is 2 + 3 + 4 + 5?",
    ],
)
def test_a_question_that_is_neither_one_operation_nor_a_sum_of_three_has_no_gold(question):
    assert items.arithmetic_problem(question) is None
    assert items.arithmetic_gold(question) is None


@pytest.mark.parametrize("word", ["pluſ", "mınus", "tİmes"])
def test_a_word_with_a_foreign_letter_is_no_operation(word):
    assert items.arithmetic_gold(f"What is 3 {word} 4?") is None
    assert items.overlap_key(f"What is 3 {word} 4?").startswith("what is 3")


def test_large_operands_are_read_exactly():
    assert items.arithmetic_gold("What is 12,345,678,901,234,567 + 1?") == "12345678901234568"


# --- overlaps ---------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**8), st.sampled_from("+-*"), st.integers(0, 10**8), st.sampled_from("+-*"), st.data())
def test_two_problems_have_one_key_iff_they_are_the_same(a, first, b, second, data):
    c, d = data.draw(st.sampled_from([(a, b), (b, a), (a + 1, b), (a, b + 10)]))
    same = first == second and ((a, b) == (c, d) or (first != "-" and (a, b) == (d, c)))
    one, two = items.overlap_key(f"What is {a} {first} {b}?"), items.overlap_key(f"Compute {c} {second} {d}.")
    assert (one == two) == same


@pytest.mark.parametrize(
    ("one", "two"),
    [("What is 1000001 + 1?", "What is 1000002 + 1?"), ("What is 0.1234567 * 2?", "What is 0.1234568 * 2?")],
)
def test_problems_that_differ_in_the_seventh_digit_differ(one, two):
    assert items.overlap_key(one) != items.overlap_key(two)


def test_overlaps_name_the_benchmark_of_which_an_item_is_repeated():
    one = files.Benchmark("one", (files.Item("What is 3 + 4?", "7"),), (files.Item("What is 1 + 1?", "2"),), "")
    two = files.Benchmark("two", (files.Item("Tom has 3 apples. How many?", "3"),), (), "")
    asked = [
        "What is 4 plus 3?",
        "tom has 3 apples; how many",
        "What is 3 - 4?",
        "Tom has 4 apples. How many?",
        "3+4",
        "",
    ]
    assert items.repeated_items(asked, [one, two]) == ["one", "two", "", "", "one", ""]
    assert items.repeated_items([], [one]) == [] and items.repeated_items(["3+4"], []) == [""]


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_named_with_the_nearest():
    with pytest.raises(
        BenchmarkError, match="evaluate_on: 'gsm8' is unknown; allowed: arithmetic, gsm8k.*Did you mean 'gsm8k'"
    ):
        items.load_benchmark("gsm8")
    assert items.benchmark_names() == ["arithmetic", "gsm8k", "asdiv", "gsm_plus_mini", "svamp", "math500", "bbh"]


def test_only_arithmetic_has_a_development_split():
    with pytest.raises(BenchmarkError, match="benchmark_split: 'dev'.*gsm8k is scored on its test split"):
        items.load_benchmark("gsm8k", split="dev")


def in_each_folder(*names):
    """Run a test on each benchmark of these `names`, from each folder that has its files."""
    cases = [
        pytest.param(name, folder.values[0], id=f"{name}-{folder.id}")
        for name in names
        for folder in benchmark_folders(*FILES[name])
    ]
    return pytest.mark.parametrize(("name", "folder"), cases)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@in_each_folder("gsm8k", "asdiv", "gsm_plus_mini")
def test_a_benchmark_is_whole(name, folder):
    loaded = items.load_benchmark(name, folder=str(folder))
    counts, shown = COUNTS[folder]
    assert (len(loaded.items), len(loaded.train)) == (counts[name], shown)
    assert folder != BENCHMARKS or len(loaded.items) == items.most_items(name)
    assert all(item.question.strip() and item.gold.strip() for item in loaded.items)
    assert all(item.gold == normal_form(item.gold) for item in loaded.items if item.form == "number")
    assert str(folder) not in loaded.source
    assert sum(map(bool, items.repeated_items([item.question for item in loaded.train], [loaded]))) == 0


@in_each_folder("gsm8k", "asdiv", "gsm_plus_mini")
def test_a_seed_draws_some_items_of_a_benchmark(name, folder):
    loaded = items.load_benchmark(name, folder=str(folder))
    size = len(loaded.items) // 3
    some, again, other = (items.load_benchmark(name, folder=str(folder), items=size, seed=seed) for seed in (1, 1, 2))
    assert some == again and set(some.items) < set(loaded.items) and len(some.items) == size
    assert some.items != other.items and "seed 1" in some.source
    assert some.train == loaded.train


@in_each_folder("gsm8k")
def test_gsm8k_golds_and_worked_examples(name, folder, monkeypatch):
    monkeypatch.setenv("CRESCENT_BENCHMARK_DIR", str(folder))
    loaded = items.load_benchmark(name)
    for row, item in zip(rows_of(folder / "gsm8k_test.jsonl"), loaded.items, strict=True):
        assert item.question == row["question"]
        assert Fraction(item.gold) == Fraction(row["answer"].rsplit("#### ", 1)[1].replace(",", ""))
    for item in loaded.train:
        assert "<<" not in item.solution and "####" not in item.solution
        shown = reading.extract_answer(item.solution)
        assert equality.answers_equal(shown, item.gold), "a worked example ends on its gold"


@in_each_folder("asdiv")
def test_asdiv_is_read_whole_by_its_forms(name, folder):
    loaded = items.load_benchmark(name, folder=str(folder))
    assert {item.form for item in loaded.items} == {"number", "list", "text"}
    for problem, item in zip(ET.parse(folder / "ASDiv.xml").getroot().iter("Problem"), loaded.items, strict=True):
        answer = problem.findtext("Answer")
        values = [re.match(r"-?[\d.,/]+(?=\s*(?:\(|$))", part.strip()) for part in answer.split(";")]
        if all(values):  # numbers, each with a unit or bare
            assert item.form == ("number" if len(values) == 1 else "list")
            written = [Fraction(value[0].replace(",", "")) for value in values]
            assert [Fraction(value) for value in item.gold.split(";")] == written
        elif answer == "-(1/3)":
            assert (Fraction(item.gold), item.form) == (Fraction(-1, 3), "number")
        else:
            assert item.form == "text"
            assert scoring.score_answer(f"The answer is {answer}.", item.gold, "text")["symbolic"], answer
            assert not scoring.score_answer("The answer is 12.", item.gold, "text")["symbolic"]
        assert item.kind == problem.findtext("Solution-Type").strip()


def test_asdiv_asks_no_more_than_that_things_are_equal():
    gold, form = files.asdiv_gold("They are equal.")
    assert scoring.score_answer("So both are equal.", gold, form)["symbolic"]
    assert not scoring.score_answer("So the first is larger.", gold, form)["symbolic"]


@in_each_folder("gsm_plus_mini")
def test_gsm_plus_keeps_its_perturbations_and_shows_no_sibling(name, folder):
    loaded = items.load_benchmark(name, folder=str(folder))
    counts = Counter(item.kind for item in loaded.items)
    assert len(counts) == 8 and set(counts.values()) == {len(loaded.items) // 8}
    assert {item.kind for item in loaded.items if item.form == "none"} == {"critical thinking"}
    seeds = {items.overlap_key(row["seed_question"]) for row in rows_of(folder / "gsmplus_testmini.jsonl")}
    assert not seeds & {items.overlap_key(item.question) for item in loaded.train}, "a shot is a sibling of an item"
    test = items.load_benchmark("gsm8k", folder=str(folder)).items
    assert seeds & {items.overlap_key(item.question) for item in test}, "else no shot could be a sibling"


@in_each_folder("bbh")
def test_bbh_golds_are_found_where_they_are_stated(name, folder):
    loaded = items.load_benchmark(name, folder=str(folder))
    examples = [
        (path.stem, row["target"])
        for path in sorted((folder / "bbh").glob("*.json"))
        for row in json.loads(path.read_text(encoding="utf-8"))["examples"]
    ]
    assert len(loaded.items) == len(examples) and "{question}" in loaded.solve
    assert {item.form for item in loaded.items} == {"number", "choice", "text"}
    for (task, gold), item in zip(examples, loaded.items, strict=True):
        assert item.kind == task
        stated = scoring.score_answer(f"So it is clear.\nThe answer is {gold}.", item.gold, item.form)
        assert stated["symbolic"], (gold, item)


def test_svamp_and_math500_are_read_from_their_files(tmp_path):
    row = {
        "Body": "Ann has 3 cats.",
        "Question": "How many with 4 more?",
        "Answer": "7.0",
        "Equation": "( 3.0 + 4.0 )",
        "Type": "Addition",
    }
    for split in ("test", "train"):
        (tmp_path / f"svamp_{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    one = items.load_benchmark("svamp", folder=str(tmp_path))
    assert one.items == (Item("Ann has 3 cats. How many with 4 more?", "7", one.items[0].solution, kind="Addition"),)
    assert scoring.score_answer(one.train[0].solution, "7")["symbolic"]
    row = {"problem": "Half of $x=1$?", "answer": "\\frac{1}{2}", "solution": "…", "subject": "Algebra", "level": 1}
    (tmp_path / "math500.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    two = items.load_benchmark("math500", folder=str(tmp_path))
    assert (two.items[0].kind, two.train) == ("Algebra", ())
    assert scoring.score_answer("so \\boxed{0.5}", two.items[0].gold)["symbolic"]


def offline(code, **environment):
    """Run code where the hub cannot be reached: its switch is read at import, so in a process of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **environment}
    environment.pop("CRESCENT_BENCHMARK_DIR", None)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment
    )


def test_a_benchmark_that_cannot_be_had_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    code = f"""
        from crescent_utils import benchmarks
        folder = {str(tmp_path)!r}
        for name, folder in (("gsm8k", ""), ("gsm8k", folder), ("asdiv", folder), ("gsm_plus_mini", "")):
            try:
                benchmarks.load_benchmark(name, folder=folder)
            except benchmarks.BenchmarkError as error:
                print(error)
    """
    lines = offline(code, HF_HOME=str(tmp_path / "hub")).stdout.splitlines()
    assert len(lines) == 4
    assert all(
        line.startswith("evaluate_on: ") and "benchmark_dir" in line and "the hub did not give" in line
        for line in lines
    )
    for line, file in zip(
        lines, ("gsm8k_test.jsonl", "gsm8k_test.jsonl", "ASDiv.xml", "gsmplus_testmini.jsonl"), strict=True
    ):
        assert file in line
    assert "benchmark_dir is not set" in lines[0] and "benchmark_dir is not set" in lines[3]
    assert f"{tmp_path / 'gsm8k_test.jsonl'} does not exist" in lines[1]
    assert f"{tmp_path / 'ASDiv.xml'} does not exist" in lines[2]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "ASDiv.xml").write_text("<no", encoding="utf-8")
    (tmp_path / "gsmplus_testmini.jsonl").write_text('{"question": 1\n', encoding="utf-8")
    for name, file in (("asdiv", "ASDiv.xml"), ("gsm_plus_mini", "gsmplus_testmini.jsonl")):
        with pytest.raises(BenchmarkError, match=file):
            items.load_benchmark(name, folder=str(tmp_path))
