"""Figures of 02: how similar and how diverse the questions are, and what each protocol keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .canvas import BLUE, GREEN, GREY, ORANGE, RED, empty_axes, empty_figure, horizontal_bars, sentence, short_count

if TYPE_CHECKING:
    import pandas as pd

MOST_FREQUENT = 12  # bars of `frequent_bars`
CROWD = 3_000  # ours: points of the map from which on they are drawn smaller


def nearest_similarity(before: ArrayLike, after: ArrayLike, threshold: float) -> tuple[Figure, str]:
    """Draw the cosine of each question to its nearest neighbour, before and after deduplication."""
    import pandas as pd

    figure, axes = empty_axes("Similarity to the nearest neighbour", 3.4, shares="y")
    shares: list[str] = []
    for values, name, colour in ((before, "before", ORANGE), (after, "after", BLUE)):
        cosines = np.clip(pd.Series(values, dtype=float).dropna().to_numpy(), 0, 1)
        n = cosines.size
        if n == 0:
            continue
        style = {"histtype": "stepfilled", "fc": (colour, 0.25), "ec": colour, "lw": 1.6}
        axes.hist(cosines, np.linspace(0, 1, 41), weights=np.full(n, 1 / n), label=f"{name} (n = {n:,})", **style)
        above = f"at or above {threshold:.2f}: {(cosines >= threshold).mean():.1%}"
        shares.append(f"{name}: n {n:,}, median {np.median(cosines):.2f}, {above}")
    if not shares:
        return empty_figure("similarity")
    axes.axvline(threshold, color=RED, ls="--", lw=1.4, label=f"threshold {threshold:.2f}")
    axes.set(xlabel="cosine to the nearest other question", ylabel="share of questions")
    axes.legend(frameon=False, loc="upper left")
    return figure, "; ".join(shares)


def acceptance_by_round(attempts: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how many questions were accepted and refused in each round (columns `round`, `accepted`)."""
    figure, axes = empty_axes("Questions checked in each round", 3.2, counts="y")
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
    axes.set(xlabel="round", ylabel="questions checked", ylim=(0, rounds["size"].max() * 1.25))
    axes.legend(frameon=False, loc="upper right", ncols=2)
    return figure, "; ".join(words)


def pool_growth(accepted: Sequence[bool] | ArrayLike) -> tuple[Figure, str]:
    """Draw how the pool grows with the candidates, in their order: flat where nothing new comes any more."""
    figure, axes = empty_axes("Growth of the pool", 3.2, counts="xy")
    is_new = np.asarray(accepted, dtype=bool)
    n, kept = is_new.size, np.cumsum(is_new)
    if n == 0:
        return empty_figure("pool")
    axes.plot([0, n], [0, n], color=GREY, ls=":", lw=1.2, label="if all were new")
    axes.plot(np.arange(n + 1), [0, *kept], color=BLUE, lw=2, label="kept")
    axes.set(xlabel="candidates seen", ylabel="questions in the pool", xlim=(0, n), ylim=(0, None))
    axes.legend(frameon=False, loc="upper left")
    half, last_tenth = max(1, n // 2), is_new[-max(1, n // 10) :]
    return figure, f"{kept[half - 1]:,} kept of {half:,}, {kept[-1]:,} of {n:,}; last tenth {last_tenth.mean():.0%}"


def kept_by_similarity(
    thresholds: Sequence[float], kept: Sequence[int], total: int, chosen: float
) -> tuple[Figure, str]:
    """Draw how many of `total` questions each threshold keeps before any rewrite."""
    if not total or not len(thresholds):
        return empty_figure("thresholds")
    figure, axes = empty_axes("Kept at each threshold, before any rewrite", 3.2, shares="y")
    axes.plot(thresholds, np.asarray(kept) / total, "o-", color=BLUE, ms=4, lw=1.8)
    axes.axvline(chosen, color=RED, ls="--", lw=1.4, label=f"threshold of this run: {chosen:.2f}")
    axes.set(xlabel="cosine from which two questions are too similar", ylabel="questions kept", ylim=(0, 1.02))
    axes.legend(frameon=False, loc="upper left")
    words = [f"{level:.2f}: {count:,}" for level, count in zip(thresholds, kept, strict=True)]
    return figure, f"kept of {total:,} at {', '.join(words)}"


def pool_map(places: np.ndarray, shown: float, joined: Sequence[tuple[int, int]]) -> tuple[Figure, str]:
    """Draw questions on two principal axes; a line joins each rewritten question with its rewrite.

    `places` has shape (n, 2), `shown` is the share of the variance that the two axes show, and `joined` has the rows of
    `places` (before, after) of each rewrite.
    """
    if not len(places):
        return empty_figure("map")
    figure, axes = empty_axes("Map of the pool", 4.6)
    rewrites = np.asarray(joined, int).reshape(-1, 2)
    untouched = np.setdiff1d(np.arange(len(places)), rewrites.ravel())
    before, after = places[rewrites[:, 0]], places[rewrites[:, 1]]
    crowd = min(1.0, (CROWD / len(places)) ** 0.5)  # smaller and paler where many would cover each other
    axes.scatter(
        *places[untouched].T, s=9 * crowd, color=GREY, alpha=0.5, lw=0, label=f"kept as it came ({len(untouched):,})"
    )
    if len(rewrites):
        moves = np.stack([before, after], axis=1)
        axes.add_collection(LineCollection(list(moves), color=ORANGE, lw=0.5, alpha=0.4 * crowd, zorder=1))
        axes.scatter(*before.T, s=11 * crowd, color=ORANGE, lw=0, label=f"before rewriting ({len(rewrites):,})")
        axes.scatter(*after.T, s=11 * crowd, color=BLUE, lw=0, label="after rewriting, accepted")
    axes.set(xlabel="first principal axis", ylabel="second principal axis")
    figure.legend(loc="outside lower center", frameon=False, ncols=3, fontsize=9, markerscale=crowd**-0.5)
    text = f"{len(untouched):,} kept as they came, {len(rewrites):,} after rewriting; "
    text += f"two axes show {shown:.0%} of the variance"
    if len(rewrites):
        distances = np.linalg.norm(before - after, axis=1)
        text += f"; a rewrite moved a question by {np.median(distances):.2f} on the map (median)"
    return figure, text


def vendi_bars(scores: Mapping[str, tuple[float, int]]) -> tuple[Figure, str]:
    """Draw the effective number of different questions of each set: name -> (Vendi score, questions in the set)."""
    if not scores:
        return empty_figure("diversity")
    notes = [f"{score:.1f} of {count:,}" for score, count in scores.values()]
    bars = {name: score for name, (score, _) in scores.items()}
    title = "Vendi score: effective number of different questions"
    return horizontal_bars(title, bars, notes, GREEN, "Vendi score"), sentence(scores, notes)


def frequent_bars(title: str, counts: Mapping[str, int], total: int) -> tuple[Figure, str]:
    """Draw the most frequent of what was counted (openings, names), with their shares of `total` questions."""
    top = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_FREQUENT])
    if not top:
        return empty_figure(title)
    notes = [f"{count:,} ({count / total:.1%})" for count in top.values()]
    figure = horizontal_bars(title, top, notes, BLUE, "questions")
    return figure, f"{len(counts):,} different in {total:,}: {', '.join(map(' '.join, zip(top, notes, strict=True)))}"


def protocol_bars(table: pd.DataFrame) -> tuple[Figure, str]:
    """Draw what each protocol keeps of the same raw questions before any rewrite, and how much of it is damaged."""
    if table.empty:
        return empty_figure("protocols")
    figure, axes = empty_axes("The same raw questions under three protocols", 3.2, counts="y")
    columns = {"kept": BLUE, "near-duplicates left": RED, "to rewrite": GREY, "dropped": ORANGE, "damaged": "black"}
    width = 0.8 / len(columns)
    for number, (name, colour) in enumerate(columns.items()):
        places = np.arange(len(table)) + (number - (len(columns) - 1) / 2) * width
        axes.bar(places, table[name], width, color=colour, label=name)
        for place, value in zip(places, table[name], strict=True):
            axes.annotate(short_count(value), (place, value), ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(table)), table["protocol"])
    axes.set(xlabel="protocol", ylabel="questions")
    figure.legend(loc="outside lower center", frameon=False, ncols=5, fontsize=8.5)
    texts = [", ".join(f"{name} {row[name]:,}" for name in columns) for row in table.to_dict("records")]
    return figure, sentence(table["protocol"], texts)
