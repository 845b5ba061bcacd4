"""Figures of a pool's diversity: how alike its questions are, where rewriting moved them, what another threshold would keep.

As in `plots`, each returns the figure and a text that says its numbers again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .plots import BLUE, GREEN, GREY, ORANGE, PER_CENT, RED, bars, canvas, nothing

MOST = 12  # bars of a figure


def kept_by_threshold(
    thresholds: Sequence[float], kept: Sequence[int], total: int, chosen: float
) -> tuple[Figure, str]:
    """How many of `total` questions each threshold keeps before any rewrite (see `similarity.rethreshold`)."""
    if not total or not len(thresholds):
        return nothing("thresholds")
    figure, axes = canvas("Kept at each threshold, before any rewrite", 3.2)
    axes.plot(thresholds, np.asarray(kept) / total, "o-", color=BLUE, ms=4, lw=1.8)
    axes.axvline(chosen, color=RED, ls="--", lw=1.4, label=f"threshold of this run: {chosen:.2f}")
    axes.set(xlabel="cosine from which two questions are too similar", ylabel="questions kept", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(frameon=False, loc="upper left")
    words = [f"{level:.2f}: {count:,}" for level, count in zip(thresholds, kept, strict=True)]
    return figure, f"kept of {total:,} at {', '.join(words)}"


def pool_map(places: np.ndarray, shown: float, joined: Sequence[tuple[int, int]]) -> tuple[Figure, str]:
    """Questions on two principal axes (n, 2), which show the share `shown` of the variance; `joined` are (before, after) rows."""
    if not len(places):
        return nothing("map")
    figure, axes = canvas("Map of the pool", 4.6)
    ends = np.asarray(joined, int).reshape(-1, 2)
    plain = np.setdiff1d(np.arange(len(places)), ends.ravel())
    axes.scatter(*places[plain].T, s=9, color=GREY, alpha=0.5, lw=0, label=f"kept as it came ({len(plain):,})")
    for before, after in ends:
        axes.plot(*places[[before, after]].T, color=ORANGE, lw=0.5, alpha=0.4, zorder=1)
    if len(ends):
        axes.scatter(*places[ends[:, 0]].T, s=11, color=ORANGE, lw=0, label=f"before rewriting ({len(ends):,})")
        axes.scatter(*places[ends[:, 1]].T, s=11, color=BLUE, lw=0, label="after rewriting, accepted")
    axes.set(xlabel="first principal axis", ylabel="second principal axis")
    figure.legend(loc="outside lower center", frameon=False, ncols=3, fontsize=9)
    moved = np.linalg.norm(places[ends[:, 0]] - places[ends[:, 1]], axis=1)
    text = f"{len(plain):,} kept as they came, {len(ends):,} after rewriting; two axes show {shown:.0%} of the variance"
    return figure, text + (
        f"; a rewrite moved a question by {np.median(moved):.2f} on the map (median)" if len(ends) else ""
    )


def vendi(scores: Mapping[str, tuple[float, int]]) -> tuple[Figure, str]:
    """Effective number of different questions, by the name of a set: (Vendi score, questions in it)."""
    if not scores:
        return nothing("diversity")
    notes = [f"{score:.1f} of {count:,}" for score, count in scores.values()]
    figure = bars("Vendi score: effective number of different questions", {name: score for name, (score, _) in scores.items()},
                  notes, GREEN, "Vendi score")  # fmt: skip
    return figure, "; ".join(map(": ".join, zip(scores, notes, strict=True)))


def frequent(title: str, counts: Mapping[str, int], total: int) -> tuple[Figure, str]:
    """The most frequent of what was counted (openings, names), with the share of `total` questions."""
    top = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST])
    if not top:
        return nothing(title)
    notes = [f"{count:,} ({count / total:.1%})" for count in top.values()]
    figure = bars(title, top, notes, BLUE, "questions")
    return figure, f"{len(counts):,} different in {total:,}: {', '.join(map(' '.join, zip(top, notes, strict=True)))}"


def protocols(table: pd.DataFrame) -> tuple[Figure, str]:
    """What each protocol keeps of the same raw questions before any rewrite, and how much of it is a near-duplicate or damaged."""
    if table.empty:
        return nothing("protocols")
    figure, axes = canvas("The same raw questions under three protocols", 3.2)
    columns = (
        ("kept", BLUE),
        ("near-duplicates left", RED),
        ("to rewrite", GREY),
        ("dropped", ORANGE),
        ("damaged", "black"),
    )
    width, words = 0.8 / len(columns), []
    for place, (name, colour) in enumerate(columns):
        at = np.arange(len(table)) + (place - (len(columns) - 1) / 2) * width
        axes.bar(at, table[name], width, color=colour, label=name)
        for x, value in zip(at, table[name], strict=True):
            axes.annotate(f"{value:,}", (x, value), ha="center", va="bottom", fontsize=7.5)
    axes.set_xticks(range(len(table)), table["protocol"])
    axes.set(xlabel="protocol", ylabel="questions")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", frameon=False, ncols=5, fontsize=8.5)
    for row in table.to_dict("records"):
        words.append(f"{row['protocol']}: " + ", ".join(f"{name} {row[name]:,}" for name, _ in columns))
    return figure, "; ".join(words)
