"""Contamination: each sign on hand-worked cases and against a plain count; what leaves the pool in which protocol."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.benchmarks import files
from crescent_utils.dedup import contamination, loop, protocols
from crescent_utils.runs import params

HELD_OUT = files.Benchmark(
    "b",
    (
        files.Item("What is 3 + 4?", "7"), files.Item("How far is Rome?", "1"),
        files.Item("A train leaves the old town at noon and drives 80 miles in 2 hours. How fast is it?", "40"),
    ),
    (), "here",
)  # fmt: skip
QUOTE = "In a story, a train leaves the old town at noon and drives 80 miles in 2 hours. How fast is it? Explain."


NEVER = 1.1  # a cosine that no neighbour reaches: leaves repetitions and quotations


class Letters:
    """A real, deterministic encoder: counts of letter pairs."""

    def encode(self, texts):
        counts = np.zeros((len(texts), 128), np.float32)
        for row, text in enumerate(texts):
            for a, b in zip(text, text[1:], strict=False):
                counts[row, hashlib.sha256((a + b).encode()).digest()[0] % 128] += 1
        return counts


def test_each_sign_names_the_item():
    questions = ["What is 4 plus 3?", "What is 3 - 4?", "HOW far is  rome", "Why?", QUOTE]
    table = contamination.find_contamination([5, 6, 7, 8, 9], questions, [HELD_OUT], Letters(), closeness=NEVER)
    assert table[["id", "sign", "benchmark", "item"]].to_numpy().tolist() == [
        [5, "repeats", "b", 0], [7, "repeats", "b", 1], [9, "n-grams", "b", 2],
    ]  # fmt: skip
    assert table["item_question"].tolist() == [HELD_OUT.items[i].question for i in (0, 1, 2)]
    assert table["score"].tolist() == [1.0, 1.0, 1.0], "all of the item's 8-grams stand in the question"
    near = contamination.find_contamination(
        [5, 6], ["What is 3 + 5?", "zzzz qqqq"], [HELD_OUT], Letters(), closeness=0.8
    )
    assert near[["id", "sign", "item"]].to_numpy().tolist() == [[5, "neighbour", 0]]
    assert 0.8 <= near["score"].iloc[0] < 1


words = st.lists(st.sampled_from("a b c".split()), min_size=0, max_size=14).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(words, max_size=4), st.lists(words, min_size=1, max_size=4), st.sampled_from([0.3, 0.7, 1.0]))
def test_the_overlap_is_a_plain_count_of_8_grams(questions, items, least):
    held_out = files.Benchmark("b", tuple(files.Item(text, "1") for text in items), (), "")
    ids = range(len(questions))
    table = contamination.find_contamination(
        ids, questions, [held_out], Letters(), overlap=least, closeness=NEVER
    ).query("sign == 'n-grams'")

    def grams(text):
        return {tuple(text.split()[i : i + 8]) for i in range(len(text.split()) - 7)}

    def share(text, item):
        if not grams(text) or not grams(item):
            return 0.0
        return len(grams(text) & grams(item)) / min(len(grams(text)), len(grams(item)))

    for row, text in enumerate(questions):
        shares = [share(text, item) for item in items]
        matches = table[table["id"] == row]
        assert len(matches) == (max(shares) >= least)
        if len(matches):
            assert matches["score"].iloc[0] == pytest.approx(max(shares), abs=1e-4)
            assert matches["item"].iloc[0] == shares.index(max(shares))


def outcome(accepted, rejected):
    """What the rejection loop gives: accepted questions, and those that it rejected as too similar."""

    def table(questions):
        rows = [(number, text, 0, -1.0, "") for number, text in questions.items()]
        return pd.DataFrame(rows, columns=loop.QUESTION_COLUMNS)

    rejected = table(rejected).assign(reason="too similar")[loop.REJECTED_COLUMNS]
    return loop.Diversified(table(accepted), rejected, pd.DataFrame(columns=loop.ATTEMPT_COLUMNS), 0.9)


ACCEPTED = {5: "What is 4 plus 3?", 6: "What is 3 - 4?", 8: "HOW far is  rome", 9: "Why?", 10: QUOTE}


@pytest.mark.parametrize(
    "protocol, decontaminate, kept_ids",
    [("paper", True, [6, 9, 10]), ("strict", True, [6, 9]), ("strict", False, [5, 6, 8, 9, 10])],
)
@pytest.mark.parametrize("too_similar", [{}, {4: "Why? Why?", 7: "Why so?", 11: "Why not?"}])
def test_who_leaves_the_pool_and_why(protocol, decontaminate, kept_ids, too_similar):
    result = outcome(ACCEPTED, too_similar)
    matches = contamination.find_contamination(
        list(ACCEPTED), list(ACCEPTED.values()), [HELD_OUT], Letters(), closeness=NEVER
    )
    values = params.build_settings("dedup", {"protocol": protocol, "decontaminate": decontaminate})
    kept, rejected = contamination.split_contaminated(result, matches, values)
    assert kept["id"].tolist() == kept_ids
    assert list(kept.columns) == loop.QUESTION_COLUMNS and list(rejected.columns) == loop.REJECTED_COLUMNS
    reasons = {5: "repeats a benchmark item", 8: "repeats a benchmark item", 10: "quotes a benchmark item"}
    expected = reasons | dict.fromkeys(too_similar, "too similar")
    expected = {number: expected[number] for number in sorted(expected) if number not in kept_ids}
    assert dict(zip(rejected["id"], rejected["reason"], strict=True)) == expected
    assert rejected["id"].tolist() == list(expected), "in order of id"


def test_nothing_to_decontaminate():
    for benchmarks in ([HELD_OUT], []):
        table = contamination.find_contamination([], [], benchmarks, Letters(), closeness=0.8)
        assert list(table.columns) == contamination.COLUMNS and len(table) == 0
        strict = params.build_settings("dedup", {"protocol": "strict"})
        kept, rejected = contamination.split_contaminated(outcome({}, {}), table, strict)
        assert len(kept) == len(rejected) == 0 and "reason" in rejected
    assert len(contamination.find_contamination([1], ["What is 3 + 4?"], [], Letters(), closeness=0.8)) == 0


# --- the three protocols on the same questions ----------------------------------------------------------------------


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
    questions = ["What is 3 + 4?", "What is 3 + 4?", "How far is Rome?", "Name the sum of 8 and 9."]
    table = protocols.compare_protocols(questions, Letters(), 0.9, [HELD_OUT]).set_index("protocol")
    assert table["read"].to_dict() == {"paper": 4, "released": 3, "strict": 4}
    # Paper: the repetition goes back to the model. Released: the earlier of the two is dropped.
    # Strict: as paper, and two repeat an item.
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
            vectors = np.linalg.qr(chance.normal(size=(200, 200)))[0][: len(texts)]
            if len(texts) > 150:
                vectors[150] = 0.86 * vectors[0] + np.sqrt(1 - 0.86**2) * vectors[150]
            return vectors

    questions = [f"What is the name of number {chr(97 + i % 26)}{i // 26 * 'z'}?" for i in range(160)]
    table = protocols.compare_protocols(questions, Given(), 0.85, []).set_index("protocol")
    assert table["near-duplicates left"].to_dict() == {"paper": 0, "released": 2, "strict": 0}
    assert table["rewrite checked"].to_dict() == {"paper": True, "released": False, "strict": True}


def test_no_questions():
    table = protocols.compare_protocols([], Letters(), 0.9, [HELD_OUT])
    assert table["kept"].tolist() == [0, 0, 0]
