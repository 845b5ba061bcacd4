"""Figures of 03 on the tables that say how good the labels are, with golds, without, and empty."""

from __future__ import annotations

import pandas as pd
import pytest
from shared import assert_nothing_is_cut_off, covered_texts, figure_that_says

from crescent_utils.figures import vote
from crescent_utils.vote import headroom, labels

LABELS = pd.DataFrame(
    [(1, 0.25, False), (2, 0.25, True), (3, 0.5, None), (4, 1.0, True), (4, 1.0, True)],
    columns=["id", "agreement", "correct"],
)


def curve_of(answer_rows):
    """The curve of votes where each question's right answer is 1."""
    rows = [(number, answer) for number, row in enumerate(answer_rows) for answer in row]
    paths = pd.DataFrame(rows, columns=["question_id", "answer"])
    return labels.votes_needed(paths, dict.fromkeys(range(len(answer_rows)), "1"))


SAMPLES = pd.DataFrame(
    [(number, answer, answer == "1") for number in range(8) for answer in ("1", "1", "2", "3")],
    columns=["question", "answer", "right"],
)
GREEDY = pd.DataFrame({"question": range(8), "answer": ["1", "2"] * 4, "right": [True, False] * 4})
HEADROOM = headroom.headroom_table(SAMPLES, GREEDY)
FIGURES = {
    "sweep": (
        lambda: vote.threshold_sweep(labels.kept_by_threshold(LABELS)),
        "0.25: 4, 67% right; 0.50: 2, 100% right",
    ),
    "sweep without golds": (
        lambda: vote.threshold_sweep(labels.kept_by_threshold(LABELS.assign(correct=None))),
        "0.25: 4; 0.50: 2; 1.00: 1",
    ),
    "sweep with the run's threshold": (
        lambda: vote.threshold_sweep(labels.kept_by_threshold(LABELS), 0.5),
        "0.25: 4, 67% right; 0.50: 2, 100% right",
    ),
    "votes and greedy": (lambda: vote.votes_needed(curve_of([["1", "1", "2"]] * 9), 0.5), "; greedy 50.0%"),
    "headroom": (lambda: vote.headroom_bars(HEADROOM), "greedy: 50.0% ["),
    "groups": (
        lambda: vote.agreement_by_group({"length": labels.agreement_by_group(LABELS, list("abbbb"))}),
        "length a: 0.25 [",
    ),
    "votes": (lambda: vote.votes_needed(curve_of([["1", "1", "2"]] * 9)), "1: 66.7% [66.7%, 66.7%], 3: 100.0% ["),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error::UserWarning")
def test_figure_says_its_numbers_and_cuts_nothing_off(name):
    draw, expected = FIGURES[name]
    figure = figure_that_says(draw, expected)
    assert_nothing_is_cut_off(figure)
    assert covered_texts(figure) == []


def test_headroom_shows_the_largest_k_and_what_is_known():
    _, text = vote.headroom_bars(HEADROOM)
    assert "one sample: 50.0%" in text and "majority of 4: 100.0%" in text and "pass@4): 100.0%" in text
    assert "headroom (majority minus greedy) +50.0 points" in text
    twice = pd.concat([GREEDY.assign(prompt="vote"), GREEDY.assign(prompt="evaluated")])
    _, text = vote.headroom_bars(headroom.headroom_table(SAMPLES, twice))
    assert "greedy, as the vote asks: " in text and "headroom (majority minus greedy as evaluated) +50.0" in text
    _, text = vote.headroom_bars(headroom.headroom_table(SAMPLES))
    assert "greedy:" not in text and "one sample: 50.0%" in text
    unknown = headroom.headroom_table(SAMPLES.drop(columns="right"))
    assert vote.headroom_bars(unknown)[1] == "headroom: no data"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: vote.threshold_sweep(labels.kept_by_threshold(LABELS.head(0))),
        lambda: vote.agreement_by_group({"length": labels.agreement_by_group(LABELS.head(0), [])}),
        lambda: vote.votes_needed(curve_of([])),
    ],
)
def test_nothing_to_draw(draw):
    figure, text = draw()
    assert text.endswith("no data") and figure._repr_png_().startswith(b"\x89PNG")
