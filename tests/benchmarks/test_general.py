"""General tasks without a hub: each item has one right continuation, which a rule of its own finds again."""

from __future__ import annotations

import json

import pytest
from shared import BENCHMARKS, SAMPLES

from crescent_utils.benchmarks import BenchmarkError, general


def items(name):
    task = general.general_task(name, folder=str(SAMPLES))
    return [row for split in task["custom_dataset"]().values() for row in split]


@pytest.mark.parametrize("name", general.GENERATED)
def test_a_generated_task_is_the_same_each_time_and_has_no_item_twice(name):
    task = general.general_task(name, shots=8)
    splits = task["custom_dataset"]()
    assert (len(splits["test"]), len(splits["train"])) == (general.ITEMS, general.SHOTS)
    rows = items(name)
    assert rows == items(name) and len({row["text"] for row in rows}) == len(rows)
    assert all(len(set(row["choices"])) == len(row["choices"]) > row["right"] >= 0 for row in rows)
    rights = [row["right"] for row in rows]
    assert max(map(rights.count, rights)) < 0.6 * len(rows), "always the same choice would not do"


def test_a_verb_agrees_with_the_first_noun():
    for row in items("verb_agreement"):
        subject = row["text"].split()[1]
        assert row["choices"][row["right"]].startswith("are " if subject.endswith("s") else "is ")


def test_a_copy_ends_as_its_list():
    for row in items("copying"):
        words, again = row["text"].split(". Again: ")
        assert f"{again} {row['choices'][row['right']]}" == words


def test_a_word_has_one_class():
    words = [word for members in general._CLASSES.values() for word in members.split()]
    assert len(words) == len(set(words)) == 64
    for row in items("word_classes"):
        word = row["text"].split()[-5]
        assert word in general._CLASSES[row["choices"][row["right"]]].split()


@pytest.mark.parametrize(
    ("name", "first", "right"),
    [("bbh_navigate", ["No", "Yes"], "Yes"), ("bbh_date_understanding", ["(A)", "(B)", "(C)"], "(B)")],
)
def test_a_task_of_big_bench_hard_offers_its_options(name, first, right):
    row = items(name)[0]
    assert row["choices"] == first and row["choices"][row["right"]] == right


@pytest.mark.skipif(not (BENCHMARKS / "bbh").exists(), reason="the published files are not here")
def test_every_published_task_here_is_one_of_choosing():
    for path in sorted((BENCHMARKS / "bbh").glob("*.json")):
        found = general.bbh_choices(path.stem, str(BENCHMARKS))
        targets = [row["target"] for row in json.loads(path.read_text())["examples"]]
        assert [item.choices[item.right] for item in found] == targets


def test_what_cannot_be_asked_is_refused():
    assert general.is_general_task("bbh_navigate") and not general.is_general_task("bbh_cot_fewshot")
    with pytest.raises(BenchmarkError, match="benchmark_dir is not set"):
        general.general_task("bbh_navigate")
    with pytest.raises(BenchmarkError, match=r"web_of_lies.json does not exist"):
        general.general_task("bbh_web_of_lies", folder=str(SAMPLES))
    with pytest.raises(BenchmarkError, match="general_shots: 3 is too many for bbh_navigate, which has 0"):
        general.general_task("bbh_navigate", folder=str(SAMPLES), shots=3)
