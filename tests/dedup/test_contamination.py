"""Contamination: each sign on hand-worked cases and against a plain count; what leaves the pool in which protocol."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.benchmarks import files
from crescent_utils.dedup import contamination, protocols

HELD = files.Benchmark(
    "b",
    (
        files.Item("What is 3 + 4?", "7"), files.Item("How far is Rome?", "1"),
        files.Item("A train leaves the old town at noon and drives 80 miles in 2 hours. How fast is it?", "40"),
    ),
    (), "here",
)  # fmt: skip
QUOTE = "In a story, a train leaves the old town at noon and drives 80 miles in 2 hours. How fast is it? Explain."


class Letters:
    """A real, deterministic encoder: counts of letter pairs."""

    def encode(self, texts):
        made = np.zeros((len(texts), 128), np.float32)
        for row, text in enumerate(texts):
            for a, b in zip(text, text[1:], strict=False):
                made[row, hashlib.sha256((a + b).encode()).digest()[0] % 128] += 1
        return made


def test_each_sign_names_the_item():
    asked = ["What is 4 plus 3?", "What is 3 - 4?", "HOW far is  rome", "Why?", QUOTE]
    found = contamination.find_contamination([5, 6, 7, 8, 9], asked, [HELD], None)
    assert found[["id", "sign", "benchmark", "item"]].to_numpy().tolist() == [
        [5, "repeats", "b", 0], [7, "repeats", "b", 1], [9, "n-grams", "b", 2],
    ]  # fmt: skip
    assert found["item_question"].tolist() == [HELD.items[i].question for i in (0, 1, 2)]
    assert found["score"].tolist() == [1.0, 1.0, 1.0], "all of the item's 8-grams stand in the question"
    near = contamination.find_contamination([5, 6], ["What is 3 + 5?", "zzzz qqqq"], [HELD], Letters(), closeness=0.8)
    assert (
        near[["id", "sign", "item"]].to_numpy().tolist() == [[5, "neighbour", 0]] and 0.8 <= near["score"].iloc[0] < 1
    )


words = st.lists(st.sampled_from("a b c".split()), min_size=0, max_size=14).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(words, max_size=4), st.lists(words, min_size=1, max_size=4), st.sampled_from([0.3, 0.7, 1.0]))
def test_the_overlap_is_a_plain_count_of_8_grams(asked, items, least):
    held = files.Benchmark("b", tuple(files.Item(text, "1") for text in items), (), "")
    found = contamination.find_contamination(range(len(asked)), asked, [held], None, overlap=least).query(
        "sign == 'n-grams'"
    )

    def grams(text):
        return {tuple(text.split()[i : i + 8]) for i in range(len(text.split()) - 7)}

    for row, text in enumerate(asked):
        shares = [
            len(grams(text) & grams(item)) / min(len(grams(text)), len(grams(item)))
            if grams(text) and grams(item)
            else 0.0
            for item in items
        ]
        mine = found[found["id"] == row]
        assert len(mine) == (max(shares) >= least)
        if len(mine):
            assert mine["score"].iloc[0] == pytest.approx(max(shares), abs=1e-4)
            assert mine["item"].iloc[0] == shares.index(max(shares))


@pytest.mark.parametrize(
    "protocol, remove, left", [("paper", True, [6, 8, 9]), ("strict", True, [6, 8]), ("strict", False, [5, 6, 7, 8, 9])]
)
def test_who_leaves_the_pool(protocol, remove, left):
    table = pd.DataFrame(
        {"id": [5, 6, 7, 8, 9], "question": ["What is 4 plus 3?", "What is 3 - 4?", "HOW far is  rome", "Why?", QUOTE]}
    )
    found = contamination.find_contamination(list(table["id"]), list(table["question"]), [HELD], None)
    kept, removed = contamination.split_contaminated(table, found, protocol, remove)
    assert kept["id"].tolist() == left and sorted([*left, *removed["id"]]) == table["id"].tolist()
    assert list(kept.columns) == list(table.columns) == ["id", "question"]
    reasons = dict(zip(removed["id"], removed["reason"], strict=True))
    assert reasons.get(5, "repeats a benchmark item") == "repeats a benchmark item"
    assert 9 not in reasons or reasons[9] == "quotes a benchmark item"


def test_nothing_to_decontaminate():
    empty = pd.DataFrame({"id": [], "question": []})
    for held in ([HELD], []):
        found = contamination.find_contamination([], [], held, Letters())
        assert list(found.columns) == contamination.COLUMNS and len(found) == 0
        kept, removed = contamination.split_contaminated(empty, found, "strict", True)
        assert len(kept) == len(removed) == 0 and "reason" in removed
    assert len(contamination.find_contamination([1], ["What is 3 + 4?"], [], Letters())) == 0


# --- the three protocols on the same questions ----------------------------------------------------------------------------------


def test_what_the_released_cleaner_damages():
    table = protocols.damage_of_released_cleaner(
        [
            "What is 3 + 4?",
            "Why is it so?",
            "Find the sum.",
            "He pays 5.50 there. Why?",
            "How many? How far?",
            "Of course. Why is it so?",
        ]
    )
    assert table["damage"].tolist() == ["signs", "", "lost", "signs", "cut", "signs"]
    assert table["cleaned"].tolist()[0] == "What is 3  4?" and table["cleaned"].tolist()[2] == ""


def test_the_protocols_are_counted_by_hand():
    asked = ["What is 3 + 4?", "What is 3 + 4?", "How far is Rome?", "Name the sum of 8 and 9."]
    table = protocols.compare_protocols(asked, Letters(), 0.9, [HELD]).set_index("protocol")
    assert table["read"].to_dict() == {"paper": 4, "released": 3, "strict": 4}
    # Paper: the repetition goes back to the model. Released: the earlier of the two is dropped. Strict: and two repeat an item.
    assert table["kept"].to_dict() == {"paper": 3, "released": 2, "strict": 1}
    assert table["to rewrite"].to_dict() == {"paper": 1, "released": 0, "strict": 1}
    assert table["dropped"].to_dict() == {"paper": 0, "released": 1, "strict": 0}
    assert table["damaged"].to_dict() == {"paper": 0, "released": 2, "strict": 0}
    assert table["near-duplicates left"].tolist() == [0, 0, 0]
    assert table["contaminated"].to_dict()["paper"] == 2 and table["contaminated"].to_dict()["strict"] == 0


def test_released_leaves_near_duplicates_across_batches_below_its_own_threshold():
    # Its bound against history is cosine 0.875, within a batch 0.85: a pair at 0.86 in two batches stays.
    class Given:
        def encode(self, texts):
            chance = np.random.default_rng(3)
            made = np.linalg.qr(chance.normal(size=(200, 200)))[0][: len(texts)]
            if len(texts) > 150:
                made[150] = 0.86 * made[0] + np.sqrt(1 - 0.86**2) * made[150]
            return made

    asked = [f"What is the name of number {chr(97 + i % 26)}{i // 26 * 'z'}?" for i in range(160)]
    table = protocols.compare_protocols(asked, Given(), 0.85, []).set_index("protocol")
    assert table["near-duplicates left"].to_dict() == {"paper": 0, "released": 2, "strict": 0}
    assert re.search("False", str(table.loc["released", "rewrite checked"]))


def test_no_questions():
    table = protocols.compare_protocols([], Letters(), 0.9, [HELD])
    assert table["kept"].tolist() == [0, 0, 0]
