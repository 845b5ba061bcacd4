"""One function a figure: each takes tables and returns the figure and a text that says its numbers again.

The text is rounded and depends on the table alone, so that a check can compare it where it cannot compare
pictures. Figures are made without pyplot: nothing stays open and any backend will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from .canvas import BLUE, GREEN, GREY, ORANGE, PER_CENT, RED, empty_axes, empty_figure, horizontal_bars

if TYPE_CHECKING:
    import pandas as pd


def nearest_similarity(before: ArrayLike, after: ArrayLike, threshold: float) -> tuple[Figure, str]:
    """Cosine of each question to its nearest neighbour, before and after deduplication."""
    import pandas as pd

    figure, axes = empty_axes("Similarity to the nearest neighbour", 3.4)
    shares: list[str] = []
    for values, name, colour in ((before, "before", ORANGE), (after, "after", BLUE)):
        found = np.clip(pd.Series(values, dtype=float).dropna().to_numpy(), 0, 1)
        if found.size == 0:
            continue
        style = {"histtype": "stepfilled", "fc": (colour, 0.25), "ec": colour, "lw": 1.6}
        style |= {"weights": np.full(found.size, 1 / found.size), "label": f"{name} (n = {found.size:,})"}
        axes.hist(found, np.linspace(0, 1, 41), **style)
        above = f"at or above {threshold:.2f}: {(found >= threshold).mean():.1%}"
        shares.append(f"{name}: n {found.size:,}, median {np.median(found):.2f}, {above}")
    if not shares:
        return empty_figure("similarity")
    axes.axvline(threshold, color=RED, ls="--", lw=1.4, label=f"threshold {threshold:.2f}")
    axes.set(xlabel="cosine to the nearest other question", ylabel="share of questions")
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(frameon=False, loc="upper left")
    return figure, "; ".join(shares)


def acceptance_by_round(attempts: pd.DataFrame) -> tuple[Figure, str]:
    """Rewrites accepted and refused in each round (columns `round`, `accepted`)."""
    figure, axes = empty_axes("Rewrites by round", 3.2)
    if attempts.empty:
        return empty_figure("rewrites")
    rounds = attempts.groupby("round")["accepted"].agg(["sum", "size"]).astype(int).sort_index()
    places = rounds.index.astype(str)
    axes.bar(places, rounds["sum"], 0.65, color=GREEN, label="accepted")
    axes.bar(places, rounds["size"] - rounds["sum"], 0.65, rounds["sum"], color=GREY, label="refused")
    words = []
    for place, (number, row) in enumerate(rounds.iterrows()):
        share = f"{row['sum'] / row['size']:.0%}"
        axes.annotate(share, (place, row["size"]), ha="center", va="bottom", fontsize=9)
        words.append(f"round {number}: {row['sum']:,} of {row['size']:,} accepted ({share})")
    axes.set(xlabel="round", ylabel="rewrites", ylim=(0, rounds["size"].max() * 1.25))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper right", ncols=2)
    return figure, "; ".join(words)


def pool_growth(accepted: Sequence[bool] | ArrayLike) -> tuple[Figure, str]:
    """How the pool grows as candidates come by, in their order: flat where nothing new comes any more."""
    figure, axes = empty_axes("Growth of the pool", 3.2)
    new = np.asarray(accepted, dtype=bool)
    n, kept = new.size, np.cumsum(new)
    if n == 0:
        return empty_figure("pool")
    axes.plot([0, n], [0, n], color=GREY, ls=":", lw=1.2, label="if all were new")
    axes.plot(np.arange(n + 1), [0, *kept], color=BLUE, lw=2, label="kept")
    axes.set(xlabel="candidates seen", ylabel="questions in the pool", xlim=(0, n), ylim=(0, None))
    axes.legend(frameon=False, loc="upper left")
    half, last = max(1, n // 2), new[-max(1, n // 10) :].mean()
    return figure, f"{kept[half - 1]:,} kept of {half:,}, {kept[-1]:,} of {n:,}; last tenth {last:.0%}"


MOST = 12  # bars of a figure


def kept_by_similarity(
    thresholds: Sequence[float], kept: Sequence[int], total: int, chosen: float
) -> tuple[Figure, str]:
    """How many of `total` questions each threshold keeps before any rewrite (see `similarity.rethreshold`)."""
    if not total or not len(thresholds):
        return empty_figure("thresholds")
    figure, axes = empty_axes("Kept at each threshold, before any rewrite", 3.2)
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
        return empty_figure("map")
    figure, axes = empty_axes("Map of the pool", 4.6)
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


def vendi_bars(scores: Mapping[str, tuple[float, int]]) -> tuple[Figure, str]:
    """Effective number of different questions, by the name of a set: (Vendi score, questions in it)."""
    if not scores:
        return empty_figure("diversity")
    notes = [f"{score:.1f} of {count:,}" for score, count in scores.values()]
    figure = horizontal_bars("Vendi score: effective number of different questions", {name: score for name, (score, _) in scores.items()},
                  notes, GREEN, "Vendi score")  # fmt: skip
    return figure, "; ".join(map(": ".join, zip(scores, notes, strict=True)))


def frequent_bars(title: str, counts: Mapping[str, int], total: int) -> tuple[Figure, str]:
    """The most frequent of what was counted (openings, names), with the share of `total` questions."""
    top = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST])
    if not top:
        return empty_figure(title)
    notes = [f"{count:,} ({count / total:.1%})" for count in top.values()]
    figure = horizontal_bars(title, top, notes, BLUE, "questions")
    return figure, f"{len(counts):,} different in {total:,}: {', '.join(map(' '.join, zip(top, notes, strict=True)))}"


def protocol_bars(table: pd.DataFrame) -> tuple[Figure, str]:
    """What each protocol keeps of the same raw questions before any rewrite, and how much of it is a near-duplicate or damaged."""
    if table.empty:
        return empty_figure("protocols")
    figure, axes = empty_axes("The same raw questions under three protocols", 3.2)
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
