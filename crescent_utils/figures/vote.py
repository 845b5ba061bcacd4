"""One function a figure: each takes tables and returns the figure and a text that says its numbers again.

The text is rounded and depends on the table alone, so that a check can compare it where it cannot compare
pictures. Figures are made without pyplot: nothing stays open and any backend will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from .canvas import BLUE, GREEN, GREY, ORANGE, PER_CENT, Z95, empty_axes, empty_figure

if TYPE_CHECKING:
    import pandas as pd


def agreement_histogram(qa: pd.DataFrame) -> tuple[Figure, str]:
    """How many of the votes the winning answer has (column `agreement`); ties apart where `tied` is known."""
    import pandas as pd

    figure, axes = empty_axes("Agreement of the votes", 3.2)
    if qa.empty:
        return empty_figure("agreement")
    tied = qa["tied"].astype(bool) if "tied" in qa else pd.Series(False, index=qa.index)
    levels = sorted(qa["agreement"].round(3).unique())
    style = {"stacked": True, "color": [BLUE, ORANGE], "label": ["one winner", "tied"], "ec": "white"}
    groups = [qa.loc[~tied, "agreement"], qa.loc[tied, "agreement"]]
    axes.hist(groups, _edges(levels) if len(levels) <= 40 else np.linspace(0, 1, 21), **style)
    axes.set(xlabel="agreement (the winner's share of the votes)", ylabel="questions", xlim=(0, 1.1))
    axes.set_xticks(levels if len(levels) <= 12 else np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    mean, full = qa["agreement"].mean(), (qa["agreement"] > 1 - 1e-9).mean()
    return figure, f"n {len(qa):,}, mean agreement {mean:.2f}, unanimous {full:.1%}, tied {tied.mean():.1%}"


def reliability(qa: pd.DataFrame) -> tuple[Figure, str]:
    """How often the voted label is right at each agreement (columns `agreement`, `correct`), 95 % Wilson."""
    figure, axes = empty_axes("Is an agreed answer a right one?", 3.6)
    known = qa[qa["correct"].notna()] if "correct" in qa else qa.iloc[:0]
    if known.empty:
        return empty_figure("no gold answers")
    exact = known["agreement"].nunique() <= 12
    level = known["agreement"].round(3) if exact else np.ceil(known["agreement"].round(6) * 10) / 10
    table = known["correct"].astype(bool).groupby(level).agg(["sum", "size"]).sort_index()
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.2, label="right as often as agreed")
    words = []
    for place, (right, n) in zip(table.index, table.to_numpy().tolist(), strict=True):
        share, scale = right / n, 1 + Z95**2 / n
        centre = (share + Z95**2 / (2 * n)) / scale
        half = Z95 * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n)) / scale
        error = [[max(0.0, share - centre + half)], [max(0.0, centre + half - share)]]
        axes.errorbar(place, share, error, fmt="o", color=BLUE, capsize=3, ms=5)
        axes.text(place, centre + half + 0.01, f"{n:,}", ha="center", va="bottom", fontsize=8)
        words.append(f"{place:.2f}: {share:.0%} of {n:,}")
    label = "agreement" if exact else "agreement (upper end of each tenth)"
    axes.set(xlabel=label, ylabel="labels that are right", xlim=(0, 1.05), ylim=(0, 1.12))
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(frameon=False, loc="upper left")
    total = f"all {known['correct'].astype(bool).mean():.0%} of {len(known):,}"
    return figure, f"right labels by agreement: {', '.join([*words, total])}"


def _edges(levels: Sequence[float]) -> list[float]:
    """Bin edges half-way between the values that occur, so that each has its own bar."""
    step = min((b - a for a, b in pairwise(levels)), default=0.1)
    return [levels[0] - step / 2, *((a + b) / 2 for a, b in pairwise(levels)), levels[-1] + step / 2]


def threshold_sweep(sweep: pd.DataFrame) -> tuple[Figure, str]:
    """Questions kept against the minimum agreement, and how often their labels are right where that is known."""
    if sweep.empty:
        return empty_figure("thresholds")
    figure, axes = empty_axes("What a minimum agreement keeps", 3.4)
    axes.step(sweep["min_agreement"], sweep["share"], where="pre", color=BLUE, lw=2, label="questions kept")
    axes.plot(sweep["min_agreement"], sweep["share"], "o", color=BLUE, ms=4)
    known = sweep[sweep["known"] > 0]
    if len(known):
        axes.fill_between(known["min_agreement"], known["low"], known["high"], color=ORANGE, alpha=0.25, lw=0)
        axes.plot(
            known["min_agreement"], known["right"], "s-", color=ORANGE, lw=1.6, ms=4, label="of these, labels right"
        )
    axes.set(xlabel="minimum agreement", ylabel="share (band: 95 % interval)", xlim=(0, 1.03), ylim=(0, 1.03))
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    words = []
    for row in sweep.to_dict("records"):
        right = f", {row['right']:.0%} right" if row["known"] else ""
        words.append(f"{row['min_agreement']:.2f}: {row['kept']:,}{right}")
    return figure, f"kept at a minimum agreement of {'; '.join(words)}"


def agreement_by_group(tables: dict[str, pd.DataFrame]) -> tuple[Figure, str]:
    """Mean agreement by group, a block of rows for each table: {"length": …, "rewrite round": …}."""
    filled = {name: table for name, table in tables.items() if len(table)}
    if not filled:
        return empty_figure("agreement by group")
    figure, axes = empty_axes("What agreement depends on", 1.2 + 0.36 * sum(map(len, filled.values())))
    titles, words, place = [], [], 0
    for colour, (name, table) in zip([BLUE, GREEN, ORANGE, GREY] * len(filled), filled.items(), strict=False):
        for row in table.to_dict("records"):
            error = [[row["agreement"] - row["low"]], [row["high"] - row["agreement"]]]
            axes.errorbar(row["agreement"], place, xerr=error, fmt="o", color=colour, capsize=3)
            titles.append(f"{name} {row['group']} (n = {row['n']:,})")
            place += 1
        said = [
            f"{r['group']}: {r['agreement']:.2f} [{r['low']:.2f}, {r['high']:.2f}] (n {r['n']:,})"
            for r in table.to_dict("records")
        ]
        words.append(f"{name} {', '.join(said)}")
    axes.set_yticks(range(place), titles, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel="mean agreement (95 % interval)", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.grid(axis="y", visible=False)
    return figure, "; ".join(words)


def votes_needed(curve: pd.DataFrame) -> tuple[Figure, str]:
    """How often the majority of m paths is right, for each m; the first point is a single sample."""
    if curve.empty:
        return empty_figure("votes")
    figure, axes = empty_axes("A single sample against the majority", 3.2)
    error = np.clip([curve["right"] - curve["low"], curve["high"] - curve["right"]], 0, None)
    axes.errorbar(curve["m"], curve["right"], error, fmt="o-", color=BLUE, capsize=3, lw=1.6)
    axes.axhline(curve["right"].iloc[0], color=GREY, ls=":", lw=1.2, label="a single sample")
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve["m"], [str(m) for m in curve["m"]])
    axes.xaxis.set_minor_locator(NullLocator())
    top = float(curve["high"].max())
    axes.set(xlabel="paths that vote", ylabel="labels right (95 % interval)", ylim=(0, min(1.02, 1.25 * top + 0.02)))
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(frameon=False, loc="lower right")
    said = [f"{r['m']}: {r['right']:.1%} [{r['low']:.1%}, {r['high']:.1%}]" for r in curve.to_dict("records")]
    return figure, f"right by the majority of {', '.join(said)} (n {curve['n'].iloc[0]:,})"
