"""The line in which a preflight ends: each way that it can fall, by tables of real samples' shape."""

from __future__ import annotations

import math

import numpy as np
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


def line_of(n=200, most_items=verdict.MOST_ITEMS, option="", **changed):
    import pandas as pd

    rows = []
    for name, values in (BASE | changed).items():
        estimate, low, high = values or (math.nan,) * 3
        rows.append({"quantity": name, "estimate": estimate, "low": low, "high": high, "n": n if values else 0})
    found = vote.headroom_verdict(pd.DataFrame(rows), most_items, option)
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
    assert line.endswith(
        "To change: about 810 items, which would tell with a chance of 80% if this difference is the true one"
    )
    assert "about 810 items (-n 810), which" in line_of(headroom=(0.05, -0.02, 0.12), option="-n")
    fewer = line_of(headroom=(0.05, -0.02, 0.12), most_items=750)
    assert "items, which" not in fewer and "another solve_prompt" in fewer, "there are not so many items"


@pytest.mark.parametrize(("gained", "lost", "n"), [(30, 20, 200), (12, 7, 41), (9, 14, 150)])
def test_so_many_items_tell_in_about_eight_of_ten_trials(gained, lost, n):
    paired = stats.paired_difference(
        [0] * gained + [1] * (n - gained), [1] * gained + [0] * lost + [1] * (n - gained - lost)
    )
    row = {"estimate": paired.difference, "low": paired.low, "high": paired.high, "n": n}
    needed = int(verdict._items_needed(row))
    trials = np.random.default_rng(1).multinomial(needed, [gained / n, lost / n, 1 - (gained + lost) / n], size=400)
    telling = 0
    for more, fewer, _ in trials:
        before = np.r_[np.zeros(more), np.ones(needed - more)]
        after = np.r_[np.ones(more), np.zeros(fewer), np.ones(needed - more - fewer)]
        found = stats.paired_difference(before, after)
        telling += found.low > 0 or found.high < verdict.SMALLEST_GAIN
    assert 0.7 < telling / len(trials) < 0.9


ASKED_TWICE = {"evaluated": (0.075, 0.03, 0.2), "greedy": (0.25, 0.14, 0.4), "headroom": (0.096, -0.012, 0.204)}


def test_the_line_names_both_greedy_answers_and_does_not_hide_that_the_vote_adds_nothing():
    line = line_of(n=40, **ASKED_TWICE, headroom_of_prompt=(-0.079, -0.2, 0.05))
    assert line.startswith(
        "cannot be told with n = 40: the majority is 9.6 points [-1.2, +20.4] above the greedy answer as the "
        "evaluation asks it (17.1% against 7.5%, n = 40); asked alike, as the vote asks, greedy has 25.0% and "
        "the majority is 7.9 points [-20.0, +5.0] below it: the vote itself adds nothing"
    )
    gains = line_of(n=40, **ASKED_TWICE, headroom_of_prompt=(0.02, -0.1, 0.14))
    assert "the majority is 2.0 points [-10.0, +14.0] above it. To change: " in gains and "adds nothing" not in gains
    go = line_of(**ASKED_TWICE | {"headroom": (0.096, 0.02, 0.17)}, headroom_of_prompt=(-0.079, -0.2, 0.05))
    assert go.startswith("go: ") and "the vote itself adds nothing" in go
    kept = line_of(**ASKED_TWICE, kept_headroom=(0.2, 0.1, 0.3), headroom_of_prompt=(-0.079, -0.2, 0.05))
    assert kept.startswith("go: on the 200 questions") and "the vote itself adds nothing" in kept
    none = line_of(**ASKED_TWICE | {"headroom": (-0.1, -0.2, -0.01)}, headroom_of_prompt=(-0.2, -0.3, -0.1))
    assert none.startswith("no headroom: ") and "the vote itself adds nothing" in none
    assert "asked alike" not in line_of(headroom=(0.12, 0.05, 0.19)), "there is one prompt alone"


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
    assert len(text.splitlines()) == len(table) + 3
    short = vote.headroom_text(table, with_curves=False)
    assert "pass@3" in short and "pass@1" not in short


def test_the_text_begins_with_what_decides():
    import pandas as pd

    samples = pd.DataFrame(
        {"question": [1] * 4 + [2] * 4, "answer": list("11223344"), "right": [True] * 2 + [False] * 6}
    )
    greedy = pd.DataFrame({"question": [1, 2], "answer": ["1", "3"], "right": [True, False]})
    evaluated = pd.DataFrame({"question": [1, 2], "answer": ["2", "3"], "right": [False, False]})
    both = pd.concat([greedy.assign(prompt="vote"), evaluated.assign(prompt="evaluated")])
    table = vote.headroom_table(samples, both)
    heading, *lines = vote.headroom_text(table, with_curves=False).splitlines()
    last = next(number for number, line in enumerate(lines) if line.startswith("--"))
    assert [line.partition("  ")[0] for line in lines[:last]] == [
        "majority@4 *", "greedy as evaluated *", "greedy as the vote asks *", "headroom *", "headroom_of_prompt *",
        "labels_right *",
    ]  # fmt: skip
    assert "headroom: majority minus greedy as the evaluation asks it" in lines[3]
    unknown = vote.headroom_table(samples.drop(columns="right"), greedy.drop(columns="right"))
    lines = vote.headroom_text(unknown).splitlines()
    for name, stand_in in (
        ("headroom *", "believed_headroom"),
        ("labels_right *", "kept"),
        ("majority@4 *", "agreement"),
    ):
        place = next(number for number, line in enumerate(lines) if line.startswith(name))
        assert "not known" in lines[place] and lines[place + 1].split()[0] == stand_in
    assert len(set(lines)) == len(lines) == len(unknown) + 3, "each line once"
