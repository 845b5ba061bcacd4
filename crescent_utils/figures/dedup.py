"""Figures of 02: how similar and how diverse the questions are, and what each protocol keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SMALL,
    empty_axes,
    empty_figure,
    empty_rows,
    horizontal_bars,
    label_ends,
    mark_threshold,
    sentence,
    text_colour,
    trim_ticks,
)

if TYPE_CHECKING:
    import pandas as pd

MOST_FREQUENT = 10  # bars of `frequent_bars`
CROWD = 3_000  # ours: points of the map from which on they are drawn smaller
MOST_ARROWS = 15  # ours: rewrites that the map shows; more make a hairball
# What a protocol may leave wrong with its questions: a column of the table, and its words on the figure.
PROBLEMS = {
    "damaged": "damaged",
    "near-duplicates left": "near-duplicates kept",
    "contaminated": "resemble a test item",
}
BINS = 30  # ours: of the similarity's histogram


def nearest_similarity(before: ArrayLike, after: ArrayLike, threshold: float) -> tuple[Figure, str]:
    """Draw the cosine of each question to its nearest neighbour: before deduplication upwards, after it downwards."""
    import pandas as pd

    sides = [("before", before, ORANGE, 1), ("after", after, BLUE, -1)]
    cosines = {name: np.clip(pd.Series(values, dtype=float).dropna().to_numpy(), 0, 1) for name, values, *_ in sides}
    measured = [values for values in cosines.values() if values.size]
    if not measured:
        return empty_figure("similarity")
    lowest = np.floor(10 * min(threshold, *(values.min() for values in measured))) / 10
    edges = np.linspace(min(lowest, 0.9), 1, BINS + 1)
    note = "Share of questions by cosine to the nearest other question; a bar to the right of the line is too similar."
    figure, axes = empty_axes("Nearest neighbours, before and after deduplication", 3.6, note=note)
    words, shares = [], {}
    for name, _, colour, way in sides:
        n = cosines[name].size
        if not n:
            continue
        share = np.histogram(cosines[name], edges)[0] / n
        shares[way] = share.max()
        axes.bar(edges[:-1], way * share, np.diff(edges), align="edge", color=colour, ec="white", lw=0.4)
        too_similar = (cosines[name] >= threshold).mean()
        text = f"{name} (n = {n:,})\nmedian {np.median(cosines[name]):.2f}, {too_similar:.1%} too similar"
        style = {"ha": "left", "va": "top" if way > 0 else "bottom", "fontsize": 9, "color": text_colour(colour)}
        axes.text(0.015, 0.97 if way > 0 else 0.03, text, transform=axes.transAxes, **style)
        at_or_above = f"at or above {threshold:.2f}: {too_similar:.1%}"
        words.append(f"{name}: n {n:,}, median {np.median(cosines[name]):.2f}, {at_or_above}")
    axes.axhline(0, color=INK, lw=0.8)
    mark_threshold(axes, threshold, f"threshold {threshold:.2f}", left=threshold > (edges[0] + 1) / 2)
    room = 0.25 * max(shares.values())  # for the words on either side
    axes.set(xlabel="cosine", ylabel="share of questions", xlim=(edges[0], 1))
    axes.set_ylim(-1.1 * shares.get(-1, 0) - room, 1.1 * shares.get(1, 0) + room)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
    return figure, "; ".join(words)


def acceptance_by_round(attempts: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how many questions were accepted as sampled and after each rewrite (columns `round`, `accepted`).

    Round 0 are the questions as they were sampled.
    """
    if attempts.empty:
        return empty_figure("rewrites")
    rounds = attempts.groupby("round")["accepted"].agg(["sum", "size"]).astype(int).sort_index()
    names = ["as sampled" if number == 0 else f"rewrite {number}" for number in rounds.index]
    note = "Behind each bar its share of the questions checked. What is refused is rewritten, until its tries run out."
    figure, axes = empty_rows("Accepted as sampled, and after each rewrite", names, 1.2, 0.36, note=note, counts="x")
    places, most = range(len(names)), int(rounds["size"].max())
    axes.barh(places, rounds["sum"], 0.66, color=GREEN)
    axes.barh(places, rounds["size"] - rounds["sum"], 0.66, rounds["sum"], color="#DDE0E4")
    words = []
    for place, (name, row) in enumerate(zip(names, rounds.to_dict("records"), strict=True)):
        share = f"{row['sum'] / row['size']:.0%}"
        text = f" {row['sum']:,} of {row['size']:,} accepted ({share})"
        axes.annotate(text, (row["size"], place), va="center", fontsize=SMALL, color=INK)
        words.append(f"{name}:{text}")
    axes.set(xlabel="questions checked (green: accepted)", xlim=(0, most * 1.45))
    trim_ticks(axes, most)
    return figure, "; ".join(words)


def pool_growth(accepted: Sequence[bool] | ArrayLike) -> tuple[Figure, str]:
    """Draw how the pool grows with the candidates, in their order: flat where nothing new comes any more."""
    is_new = np.asarray(accepted, dtype=bool)
    n, kept = is_new.size, np.cumsum(is_new)
    if n == 0:
        return empty_figure("pool")
    last_tenth = is_new[-max(1, n // 10) :].mean()
    note = f"n = {n:,} candidates, before any rewrite; of the last tenth {last_tenth:.0%} were new."
    figure, axes = empty_axes("Growth of the pool", 3.2, note=note, counts="xy")
    axes.plot([0, n], [0, n], color=GREY, ls=":", lw=1.4)
    axes.plot(np.arange(n + 1), [0, *kept], color=BLUE, lw=2)
    axes.set(xlabel="candidates seen", ylabel="questions in the pool", xlim=(0, n), ylim=(0, 1.04 * n))
    label_ends(axes, [(n, n, "if all were new", GREY), (n, int(kept[-1]), f"kept: {kept[-1]:,}", BLUE)])
    half = max(1, n // 2)
    return figure, f"{kept[half - 1]:,} kept of {half:,}, {kept[-1]:,} of {n:,}; last tenth {last_tenth:.0%}"


def kept_by_similarity(
    thresholds: Sequence[float], kept: Sequence[int], total: int, chosen: float
) -> tuple[Figure, str]:
    """Draw how many of `total` questions each threshold keeps before any rewrite."""
    if not total or not len(thresholds):
        return empty_figure("thresholds")
    note = f"n = {total:,} questions as sampled; a question is kept if its cosine to all kept before is below."
    figure, axes = empty_axes("What a similarity threshold keeps", 3.2, note=note, shares="y")
    shares = np.asarray(kept) / total
    axes.plot(thresholds, shares, "o-", color=BLUE, ms=4, lw=1.8)
    axes.set(xlabel="threshold: cosine from which two questions are too similar", ylabel="questions kept")
    axes.set_ylim(0, min(1.05, 1.25 * max(shares.max(), 0.04)))
    mark_threshold(axes, chosen, f"this run: {chosen:.2f}", left=chosen > np.mean(axes.get_xlim()))
    words = [f"{level:.2f}: {count:,}" for level, count in zip(thresholds, kept, strict=True)]
    return figure, f"kept of {total:,} at {', '.join(words)}"


def pool_map(places: np.ndarray, shown: float, joined: Sequence[tuple[int, int]]) -> tuple[Figure, str]:
    """Draw questions on two principal axes; arrows show where some of the rewrites went, chosen far from each other.

    `places` has shape (n, 2), `shown` is the share of the variance that the two axes show, and `joined` has the rows of
    `places` (before, after) of each rewrite. At most MOST_ARROWS arrows are drawn.
    """
    if not len(places):
        return empty_figure("map")
    rewrites = np.asarray(joined, int).reshape(-1, 2)
    untouched = np.setdiff1d(np.arange(len(places)), rewrites.ravel())
    before, after = places[rewrites[:, 0]], places[rewrites[:, 1]]
    chosen = spread_rows(np.hstack([before, after]), MOST_ARROWS)
    arrows = f" The arrows show {len(chosen)} of {len(rewrites):,} rewrites." if len(rewrites) else ""
    note = f"n = {len(untouched) + len(rewrites):,} questions; the axes show {shown:.0%} of the variance.{arrows}"
    figure, axes = empty_axes("Map of the pool", 4.6, note=note)
    size = 12 * min(1.0, (CROWD / len(places)) ** 0.5)  # smaller where many would cover each other
    axes.scatter(*places[untouched].T, s=size, color=GREY, alpha=0.55, lw=0)
    axes.scatter(*after.T, s=size, color=BLUE, alpha=0.75, lw=0)
    style = {"arrowstyle": "-|>", "color": RED, "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    for row in chosen:
        axes.annotate("", after[row], before[row], arrowprops=style)
    axes.scatter(*before[chosen].T, s=16, color=ORANGE, ec="white", lw=0.5, zorder=3)
    axes.set(xlabel="first principal axis", ylabel="second principal axis")
    legend = [(f"kept as it came ({len(untouched):,})", GREY)]
    if len(rewrites):
        legend += [(f"after rewriting ({len(rewrites):,})", BLUE), ("before it, where an arrow starts", ORANGE)]
    for number, (text, colour) in enumerate(legend):
        style = {"color": text_colour(colour), "fontsize": 9, "ha": "left", "va": "bottom", "fontweight": "bold"}
        axes.text((0, 0.3, 0.58)[number], 1.01, text, transform=axes.transAxes, **style)
    words = f"{len(untouched):,} kept as they came, {len(rewrites):,} after rewriting; "
    words += f"two axes show {shown:.0%} of the variance"
    if len(rewrites):
        distances = np.linalg.norm(before - after, axis=1)
        words += f"; a rewrite moved a question by {np.median(distances):.2f} on the map (median)"
    return figure, words


def spread_rows(rows: np.ndarray, most: int) -> list[int]:
    """Return the numbers of at most `most` rows that are far from each other, in the order of their choice.

    Greedy: the first is the one nearest to the middle, each next one the farthest from all chosen before.
    """
    if not len(rows):
        return []
    chosen = [int(np.linalg.norm(rows - np.median(rows, axis=0), axis=1).argmin())]
    distances = np.linalg.norm(rows - rows[chosen[0]], axis=1)
    while len(chosen) < min(most, len(rows)) and distances.max() > 0:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(rows - rows[chosen[-1]], axis=1))
    return chosen


def vendi_bars(scores: Mapping[str, tuple[float, int]]) -> tuple[Figure, str]:
    """Draw the effective number of different questions of each set: name -> (Vendi score, questions in the set).

    The last set is the one that the figure is about: it has a colour of its own.
    """
    if not scores:
        return empty_figure("diversity")
    notes = [f"{score:.1f} of {count:,}" for score, count in scores.values()]
    bars = {name: score for name, (score, _) in scores.items()}
    colours = [*[GREY] * (len(scores) - 1), GREEN]
    note = "Behind each bar the number of questions in the set; if all were different, the score would be that number."
    title = "Diversity: the effective number of different questions"
    return horizontal_bars(title, bars, notes, colours, "Vendi score", note=note, each=0.34), sentence(scores, notes)


def frequent_bars(title: str, counts: Mapping[str, int], total: int) -> tuple[Figure, str]:
    """Draw the most frequent of what was counted (openings, names), with their shares of `total` questions."""
    top = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_FREQUENT])
    if not top:
        return empty_figure(title)[0], f"{title}: none"
    notes = [f"{count:,} ({count / total:.1%})" for count in top.values()]
    note = f"n = {total:,} questions; the {len(top)} most frequent of {len(counts):,} different."
    figure = horizontal_bars(title, top, notes, BLUE, "questions", note=note, each=0.24)
    return figure, f"{len(counts):,} different in {total:,}: {', '.join(map(' '.join, zip(top, notes, strict=True)))}"


def protocol_bars(table: pd.DataFrame) -> tuple[Figure, str]:
    """Draw what each protocol does with the same raw questions before any rewrite, one bar each.

    Behind each bar stands what is wrong with its questions. What `strict` takes out as contaminated is in no bar.
    """
    if table.empty:
        return empty_figure("protocols")
    parts = {"kept": (BLUE, "white"), "to rewrite": ("#B9C0C8", INK), "dropped": (ORANGE, INK)}
    totals = table[list(parts)].sum(axis=1).to_numpy()
    note = f"n = {totals.max():,} raw questions, before any rewrite. Behind each bar: what is wrong with its questions."
    names = [str(name) for name in table["protocol"]]
    figure, axes = empty_rows("The same questions under each protocol", names, 1.35, 0.42, note=note, counts="x")
    starts = np.zeros(len(table))
    for name, (colour, ink) in parts.items():
        values = table[name].to_numpy()
        axes.barh(range(len(table)), values, 0.72, starts, color=colour, ec="white", lw=0.8)
        for place in np.flatnonzero(values >= 0.14 * totals.max()):
            middle = (starts[place] + values[place] / 2, place)
            text = f"{name} {values[place]:,}"
            axes.annotate(text, middle, ha="center", va="center", fontsize=SMALL, color=ink)
        starts = starts + values
    for place, row in enumerate(table.to_dict("records")):
        problems = [f" {row[name]:,} {words}" for name, words in PROBLEMS.items() if row.get(name)]
        style = {"va": "center", "fontsize": 8, "color": text_colour(RED if problems else GREY)}
        axes.annotate("\n".join(problems) or " nothing wrong found", (starts[place], place), **style)
    axes.set(xlabel="questions", xlim=(0, 1.42 * totals.max()))
    trim_ticks(axes, totals.max())
    columns = ("kept", "near-duplicates left", "to rewrite", "dropped", "damaged")
    texts = [", ".join(f"{name} {row[name]:,}" for name in columns) for row in table.to_dict("records")]
    return figure, sentence(table["protocol"], texts)
