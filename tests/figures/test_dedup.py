"""Figures of diversity: each draws, says its numbers, does so again alike, and keeps its labels on the page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from shared import assert_nothing_is_cut_off, covered_texts, figure_that_says

from crescent_utils.figures import dedup

PLACES = np.random.default_rng(0).normal(size=(40, 2))
TABLE = pd.DataFrame([
    {"protocol": name, "kept": 100 * i, "near-duplicates left": i, "to rewrite": 7, "dropped": 3, "damaged": 12}
    for i, name in enumerate(("paper", "released", "strict"), start=1)
])  # fmt: skip
DRAWN = {
    "thresholds": (lambda: dedup.kept_by_similarity([0.5, 0.9], [10, 1200], 2000, 0.85),
        "kept of 2,000 at 0.50: 10, 0.90: 1,200"),
    "map": (lambda: dedup.pool_map(PLACES, 0.25, [(30, 1), (31, 2)]),
        "36 kept as they came, 2 after rewriting; two axes show 25%"),
    "map without rewrites": (lambda: dedup.pool_map(PLACES, 0.25, []), "40 kept as they came, 0 after rewriting"),
    "map of many": (lambda: dedup.pool_map(np.tile(PLACES, (500, 1)), 0.25, [(i, i + 1) for i in range(0, 9000, 2)]),
        "11,000 kept as they came, 4,500 after rewriting"),
    "vendi": (lambda: dedup.vendi_bars({"before": (12.345, 1300), "pool": (20.0, 600)}),
        "before: 12.3 of 1,300; pool: 20.0 of 600"),
    "frequent": (lambda: dedup.frequent_bars("Openings", {f"o{i:02}": 30 - i for i in range(20)}, 100),
                 "20 different in 100: o00 30 (30.0%)"),
    "protocols": (lambda: dedup.protocol_bars(TABLE),
        "released: kept 200, near-duplicates left 2, to rewrite 7, dropped 3, damaged 12"),
}  # fmt: skip
EMPTY = {
    "thresholds": lambda: dedup.kept_by_similarity([], [], 0, 0.85),
    "map": lambda: dedup.pool_map(PLACES[:0], 0.0, []),
    "vendi": lambda: dedup.vendi_bars({}),
    "frequent": lambda: dedup.frequent_bars("Names", {}, 0),
    "protocols": lambda: dedup.protocol_bars(TABLE.iloc[:0]),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_figure_says_its_numbers_and_nothing_is_cut_off(name):
    draw, expected = DRAWN[name]
    figure = figure_that_says(draw, expected)
    assert_nothing_is_cut_off(figure)
    assert covered_texts(figure) == []


def test_a_map_draws_few_arrows_that_are_far_apart():
    rows = np.random.default_rng(1).normal(size=(300, 4))
    chosen = dedup.spread_rows(rows, dedup.MOST_ARROWS)
    assert len(set(chosen)) == dedup.MOST_ARROWS
    distances = np.linalg.norm(rows[:, None] - rows[chosen], axis=2)
    among = min(distances[row, np.arange(len(chosen)) != place].min() for place, row in enumerate(chosen))
    assert among >= distances.min(axis=1).max() - 1e-9, "else a row left out would be farther from all than these"
    assert dedup.spread_rows(np.zeros((5, 2)), 3) == [0] and dedup.spread_rows(rows[:0], 3) == []


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_draw(name):
    figure, text = EMPTY[name]()
    assert text == "Names: none" if name == "frequent" else text.endswith("no data")
    assert figure._repr_png_().startswith(b"\x89PNG")
