"""Figures of 03: how far the votes agree, and whether an agreed answer is a right one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..stats import wilson
from .canvas import BLUE, GREEN, GREY, ORANGE, empty_axes, empty_figure

if TYPE_CHECKING:
    import pandas as pd


def agreement_histogram(qa: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how large a share of the votes the winners have; ties in another colour, if column `tied` is there."""
    import pandas as pd

    figure, axes = empty_axes("Agreement of the votes", 3.2, shares="x", counts="y")
    if qa.empty:
        return empty_figure("agreement")
    tied = qa["tied"].astype(bool) if "tied" in qa else pd.Series(False, index=qa.index)
    levels = sorted(qa["agreement"].round(3).unique())
    style = {"stacked": True, "color": [BLUE, ORANGE], "label": ["one winner", "tied"], "ec": "white"}
    groups = [qa.loc[~tied, "agreement"], qa.loc[tied, "agreement"]]
    axes.hist(groups, _edges(levels) if len(levels) <= 40 else np.linspace(0, 1, 21), **style)
    axes.set(xlabel="agreement (the winner's share of the votes)", ylabel="questions", xlim=(0, 1.1))
    axes.set_xticks(levels if len(levels) <= 12 else np.linspace(0, 1, 6))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    mean, full = qa["agreement"].mean(), (qa["agreement"] > 1 - 1e-9).mean()
    return figure, f"n {len(qa):,}, mean agreement {mean:.2f}, unanimous {full:.1%}, tied {tied.mean():.1%}"


def reliability(qa: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how often the voted label is right at each agreement, with Wilson's 95 % intervals.

    Columns: `agreement`, `correct` (missing where no right answer is known).
    """
    figure, axes = empty_axes("Is an agreed answer a right one?", 3.6, shares="xy")
    judged = qa[qa["correct"].notna()] if "correct" in qa else qa.iloc[:0]
    if judged.empty:
        return empty_figure("no gold answers")
    few_levels = judged["agreement"].nunique() <= 12
    level = judged["agreement"].round(3) if few_levels else np.ceil(judged["agreement"].round(6) * 10) / 10
    table = judged["correct"].astype(bool).groupby(level).agg(["sum", "size"]).sort_index()
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.2, label="right as often as agreed")
    words = []
    for place, (right, n) in zip(table.index, table.to_numpy().tolist(), strict=True):
        interval = wilson(right, n)
        share = interval.estimate
        axes.errorbar(place, share, [[share - interval.low], [interval.high - share]], fmt="o", color=BLUE, capsize=3)
        axes.text(place, interval.high + 0.01, f"{n:,}", ha="center", va="bottom", fontsize=8)
        words.append(f"{place:.2f}: {share:.0%} of {n:,}")
    label = "agreement" if few_levels else "agreement (upper end of each tenth)"
    axes.set(xlabel=label, ylabel="labels that are right", xlim=(0, 1.05), ylim=(0, 1.12))
    axes.legend(frameon=False, loc="upper left")
    total = f"all {judged['correct'].astype(bool).mean():.0%} of {len(judged):,}"
    return figure, f"right labels by agreement: {', '.join([*words, total])}"


def _edges(levels: Sequence[float]) -> list[float]:
    """Return bin edges half-way between the values that occur, so that each value has its own bar."""
    step = min((b - a for a, b in pairwise(levels)), default=0.1)
    return [levels[0] - step / 2, *((a + b) / 2 for a, b in pairwise(levels)), levels[-1] + step / 2]


def threshold_sweep(sweep: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how many questions each minimum agreement keeps, and how often their labels are right, if known."""
    if sweep.empty:
        return empty_figure("thresholds")
    figure, axes = empty_axes("What a minimum agreement keeps", 3.4, shares="xy")
    axes.step(sweep["min_agreement"], sweep["share"], where="pre", color=BLUE, lw=2, label="questions kept")
    axes.plot(sweep["min_agreement"], sweep["share"], "o", color=BLUE, ms=4)
    judged = sweep[sweep["known"] > 0]
    if len(judged):
        places, right = judged["min_agreement"], judged["right"]
        axes.fill_between(places, judged["low"], judged["high"], color=ORANGE, alpha=0.25, lw=0)
        axes.plot(places, right, "s-", color=ORANGE, lw=1.6, ms=4, label="of these, labels right")
    axes.set(xlabel="minimum agreement", ylabel="share (band: 95 % interval)", xlim=(0, 1.03), ylim=(0, 1.03))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    words = []
    for row in sweep.to_dict("records"):
        right = f", {row['right']:.0%} right" if row["known"] else ""
        words.append(f"{row['min_agreement']:.2f}: {row['kept']:,}{right}")
    return figure, f"kept at a minimum agreement of {'; '.join(words)}"


def agreement_by_group(tables: dict[str, pd.DataFrame]) -> tuple[Figure, str]:
    """Draw the mean agreement by group, one block of rows for each table: {"length": …, "rewrite round": …}."""
    filled = {name: table for name, table in tables.items() if len(table)}
    if not filled:
        return empty_figure("agreement by group")
    height = 1.2 + 0.36 * sum(map(len, filled.values()))
    figure, axes = empty_axes("What agreement depends on", height, shares="x")
    titles: list[str] = []
    words = []
    for colour, (name, table) in zip([BLUE, GREEN, ORANGE, GREY] * len(filled), filled.items(), strict=False):
        texts = []
        for row in table.to_dict("records"):
            mean, low, high = row["agreement"], row["low"], row["high"]
            axes.errorbar(mean, len(titles), xerr=[[mean - low], [high - mean]], fmt="o", color=colour, capsize=3)
            titles.append(f"{name} {row['group']} (n = {row['n']:,})")
            texts.append(f"{row['group']}: {mean:.2f} [{low:.2f}, {high:.2f}] (n {row['n']:,})")
        words.append(f"{name} {', '.join(texts)}")
    axes.set_yticks(range(len(titles)), titles, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel="mean agreement (95 % interval)", xlim=(0, 1))
    axes.grid(axis="y", visible=False)
    return figure, "; ".join(words)


def votes_needed(curve: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how often the majority of m paths is right, for each m; the first point is a single sample."""
    if curve.empty:
        return empty_figure("votes")
    figure, axes = empty_axes("A single sample against the majority", 3.2, shares="y")
    error = np.clip([curve["right"] - curve["low"], curve["high"] - curve["right"]], 0, None)
    axes.errorbar(curve["m"], curve["right"], error, fmt="o-", color=BLUE, capsize=3, lw=1.6)
    axes.axhline(curve["right"].iloc[0], color=GREY, ls=":", lw=1.2, label="a single sample")
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve["m"], [str(m) for m in curve["m"]])
    axes.xaxis.set_minor_locator(NullLocator())
    top = float(curve["high"].max())
    axes.set(xlabel="paths that vote", ylabel="labels right (95 % interval)", ylim=(0, min(1.02, 1.25 * top + 0.02)))
    axes.legend(frameon=False, loc="lower right")
    texts = [
        f"{row['m']}: {row['right']:.1%} [{row['low']:.1%}, {row['high']:.1%}]" for row in curve.to_dict("records")
    ]
    return figure, f"right by the majority of {', '.join(texts)} (n {curve['n'].iloc[0]:,})"
