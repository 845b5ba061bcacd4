"""Figures about labels: what a threshold keeps, what agreement depends on, what more votes buy (tables of `labels`).

As in `plots`, each returns the figure and a text that says its numbers again.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .plots import BLUE, GREEN, GREY, ORANGE, PER_CENT, canvas, nothing


def threshold_sweep(sweep: pd.DataFrame) -> tuple[Figure, str]:
    """Questions kept against the minimum agreement, and how often their labels are right where that is known."""
    if sweep.empty:
        return nothing("thresholds")
    figure, axes = canvas("What a minimum agreement keeps", 3.4)
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


def agreement_by(tables: dict[str, pd.DataFrame]) -> tuple[Figure, str]:
    """Mean agreement by group, a block of rows for each table: {"length": …, "rewrite round": …}."""
    filled = {name: table for name, table in tables.items() if len(table)}
    if not filled:
        return nothing("agreement by group")
    figure, axes = canvas("What agreement depends on", 1.2 + 0.36 * sum(map(len, filled.values())))
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
        return nothing("votes")
    figure, axes = canvas("A single sample against the majority", 3.2)
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
