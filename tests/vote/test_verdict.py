"""The line in which a preflight ends: each way that it can fall, by tables of real samples' shape."""

from __future__ import annotations

import math

import pytest

from crescent_utils import stats, vote
from crescent_utils.vote import verdict

BASE = {
    "agreement": (0.5, 0.45, 0.55),
    "cut": (0.0, 0.0, 0.01),
    "no_answer": (0.0, 0.0, 0.01),
    "headroom": None,
    "believed_headroom": None,
    "kept_headroom": None,
    "vote_changes": (0.4, 0.3, 0.5),
}


def line_of(n=200, most_items=verdict.MOST_ITEMS, **changed):
    import pandas as pd

    rows = []
    for name, values in (BASE | changed).items():
        estimate, low, high = values or (math.nan,) * 3
        rows.append({"quantity": name, "estimate": estimate, "low": low, "high": high, "n": n if values else 0})
    found = vote.headroom_verdict(pd.DataFrame(rows), most_items)
    assert found.line.startswith(found.word)
    return found.line


def test_go_where_the_interval_is_above_zero():
    line = line_of(headroom=(0.12, 0.05, 0.19))
    assert line == "go: the majority is 12.0 points [+5.0, +19.0] above greedy (n = 200)"


def test_go_where_the_questions_that_are_learned_from_gain():
    line = line_of(headroom=(-0.02, -0.06, 0.02), kept_headroom=(0.09, 0.03, 0.15))
    assert line.startswith(
        "go: on the 200 questions that it would learn from, the majority is 9.0 points [+3.0, +15.0]"
    )
    assert "on all 200 it is 2.0 points [-6.0, +2.0] below" in line


def test_no_headroom_where_none_can_be_worth_it():
    line = line_of(headroom=(-0.13, -0.18, -0.08), kept_headroom=(0.01, -0.1, 0.1))
    assert line.startswith("no headroom: the majority is 13.0 points [-18.0, -8.0] below greedy (n = 200)")
    assert "To change: worked examples (vote_shots: own)" in line
    line = line_of(headroom=(0.001, -0.03, 0.03), vote_changes=(0.005, 0.001, 0.018))
    assert line.startswith("no headroom: the vote changes 0.5% of the greedy answers (n = 200)")


def test_cannot_be_told_says_how_many_items_would_tell():
    line = line_of(headroom=(0.05, -0.02, 0.12))
    assert line.startswith("cannot be told with n = 200: the majority is 5.0 points [-2.0, +12.0] above greedy")
    assert "about 400 items, which would tell" in line
    fewer = line_of(headroom=(0.05, -0.02, 0.12), most_items=350)
    assert "items, which" not in fewer and "another solve_prompt" in fewer, "there are not so many items"


@pytest.mark.parametrize(("gained", "lost", "n"), [(30, 20, 200), (12, 10, 100), (9, 14, 150)])
def test_so_many_items_would_tell(gained, lost, n):
    paired = stats.paired_difference(
        [0] * gained + [1] * (n - gained), [1] * gained + [0] * lost + [1] * (n - gained - lost)
    )
    row = {"estimate": paired.difference, "low": paired.low, "high": paired.high, "n": n}
    times = math.ceil(verdict._items_needed(row) / n)
    more = stats.paired_difference(
        ([0] * gained + [1] * (n - gained)) * times, ([1] * gained + [0] * lost + [1] * (n - gained - lost)) * times
    )
    assert more.low > 0 or more.high < verdict.SMALLEST_GAIN + 0.002


def test_without_golds_the_models_own_eyes_decide_and_that_is_said():
    line = line_of(believed_headroom=(0.1, 0.05, 0.15))
    assert line.startswith("go: the majority is 10.0 points") and "no right answer was looked at" in line
    assert line_of(believed_headroom=(-0.1, -0.15, -0.05)).startswith("no headroom")
    assert "there are no greedy answers" in line_of()


def test_the_line_names_what_is_lost_first():
    line = line_of(headroom=(0.12, 0.05, 0.19), cut=(0.32, 0.3, 0.34), no_answer=(0.4, 0.3, 0.5))
    assert line.endswith("To change: a larger token limit (vote_max_tokens; 32% of the samples are cut)")
    line = line_of(headroom=(0.12, 0.05, 0.19), cut=None, no_answer=(0.4, 0.3, 0.5))
    assert "40% of the samples have none" in line


def test_the_text_says_every_quantity():
    import pandas as pd

    samples = pd.DataFrame({"question": [1] * 3 + [2] * 3, "answer": list("112223"), "right": [True] * 2 + [False] * 4})
    table = vote.headroom_table(samples)
    text = vote.headroom_text(table)
    assert all(name in text for name in table["quantity"]) and "one_sample *" in text and "not known" in text
    assert len(text.splitlines()) == len(table) + 2
    short = vote.headroom_text(table, with_curves=False)
    assert "pass@3" in short and "pass@1" not in short
