"""The figure of a study: each setting by its name, and the rank correlation with n."""

from __future__ import annotations

import pandas as pd
from shared import assert_nothing_is_cut_off, covered_texts, figure_that_says

from crescent_utils import stats
from crescent_utils.figures.study import foretelling_scatter


def test_the_figure_names_each_setting_and_its_rank():
    rows = [
        ("p", "whole", "arithmetic", 0.1, 0.3),
        ("p", "no_vote", "arithmetic", 0.0, 0.1),
        ("q", "whole", "x", 0.2, 0.2),
    ]
    table = pd.DataFrame(rows, columns=["part", "arm", "domain", "predicted", "realised"])
    for name in ("predicted", "realised"):
        table[[f"{name}_low", f"{name}_high"]] = table[[name, name]].to_numpy() + [-0.05, 0.05]
    rank = stats.rank_correlation(table["predicted"], table["realised"], resamples=50)
    figure = figure_that_says(lambda: foretelling_scatter(table, rank), "p, no vote +0.0 -> +10.0")
    assert (
        "Spearman +0.50 (too few for an interval)" in figure.get_supxlabel()
        and "n = 3 settings" in figure.get_supxlabel()
    )
    assert_nothing_is_cut_off(figure)
    assert foretelling_scatter(table.head(0), rank)[1] == "foretelling: no data"
    two = stats.rank_correlation(table["predicted"][:2], table["realised"][:2])
    text = foretelling_scatter(table.head(2), two)[1]
    assert text.endswith("too few different settings for a rank correlation, n = 2 settings")


def test_the_names_of_crowded_settings_do_not_cover_each_other():
    """Settings that differ in what is learned alone have the same headroom, and about the same gain."""
    rows = [("thresholds", f"agreement_{number}", "arithmetic", 0.106, 0.13 + number / 1000) for number in range(14)]
    table = pd.DataFrame(rows, columns=["part", "arm", "domain", "predicted", "realised"])
    for name in ("predicted", "realised"):
        table[[f"{name}_low", f"{name}_high"]] = table[[name, name]].to_numpy() + [-0.05, 0.05]
    figure, _ = foretelling_scatter(table, stats.rank_correlation(table["predicted"], table["realised"]))
    assert covered_texts(figure) == []
    assert_nothing_is_cut_off(figure)
