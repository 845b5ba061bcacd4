"""Figures of 03: how far the votes agree, whether an agreed answer is a right one, and what there is to gain."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..stats import wilson
from .canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SMALL,
    empty_axes,
    empty_figure,
    empty_rows,
    label_ends,
    mark_threshold,
    sentence,
    text_colour,
)

if TYPE_CHECKING:
    import pandas as pd

FEW_LEVELS = 12  # different agreements, up to which each has a place of its own


def agreement_histogram(qa: pd.DataFrame, min_agreement: float | None = None) -> tuple[Figure, str]:
    """Draw how large a share of the votes the winners have; ties in another colour, if column `tied` is there.

    With `min_agreement` a line shows the threshold from which on a question is learned from.
    """
    import pandas as pd

    if qa.empty:
        return empty_figure("agreement")
    tied = qa["tied"].astype(bool) if "tied" in qa else pd.Series(False, index=qa.index)
    mean, full = qa["agreement"].mean(), (qa["agreement"] > 1 - 1e-9).mean()
    kept, words = "", ""
    if min_agreement is not None:
        share = (qa["agreement"] >= min_agreement - 1e-9).mean()
        kept = f" At or right of the line: {share:.0%}."
        words = f", at or above {min_agreement:.2f}: {share:.1%}"
    note = f"n = {len(qa):,} questions; mean agreement {mean:.2f}, unanimous {full:.1%}.{kept}"
    figure, axes = empty_axes("Agreement of the votes", 3.2, note=note, shares="x", counts="y")
    levels = sorted(qa["agreement"].round(3).unique())
    edges = _edges(levels) if len(levels) <= 40 else list(np.linspace(0, 1, 21))
    groups = [qa.loc[~tied, "agreement"], qa.loc[tied, "agreement"]]
    axes.hist(groups, edges, stacked=True, color=[BLUE, ORANGE], ec="white", lw=0.6)
    axes.set(xlabel="agreement (the winner's share of the votes)", ylabel="questions")
    axes.set_xlim(min(0, edges[0]), max(1.02, edges[-1]))
    if len(levels) <= FEW_LEVELS:
        axes.set_xticks(levels, _level_names(qa, levels))
    else:
        axes.set_xticks(np.linspace(0, 1, 6))
    names = [(f"one winner ({(~tied).sum():,})", BLUE), (f"tied ({tied.sum():,})", ORANGE)]
    line_is_left = min_agreement is not None and min_agreement < 0.5
    places, side = ((0.78, 1.0), "right") if line_is_left else ((0.0, 0.22), "left")  # beside the words of the line
    for place, (text, colour) in zip(places, names if tied.any() else names[:1], strict=False):
        style = {"ha": side, "va": "bottom", "fontsize": 9, "fontweight": "bold", "color": text_colour(colour)}
        axes.text(place, 1.02, text, transform=axes.transAxes, **style)
    if min_agreement is not None:
        mark_threshold(axes, _left_edge(edges, min_agreement), f"minimum agreement {min_agreement:.2f}")
    return figure, f"n {len(qa):,}, mean agreement {mean:.2f}, unanimous {full:.1%}, tied {tied.mean():.1%}{words}"


def _left_edge(edges: Sequence[float], threshold: float) -> float:
    """Return the threshold, or the edge of the bar that it falls into, so that the line cuts no bar of one value."""
    return max((edge for edge in edges if edge <= threshold), default=threshold) if len(edges) <= 41 else threshold


def reliability(qa: pd.DataFrame, counted: str = "questions") -> tuple[Figure, str]:
    """Draw how often the voted label is right at each agreement, with Wilson's 95 % intervals.

    Columns: `agreement`, `correct` (missing where no right answer is known). `counted` says what the rows are.
    """
    judged = qa[qa["correct"].notna()] if "correct" in qa else qa.iloc[:0]
    if judged.empty:
        return empty_figure("no gold answers")
    few_levels = judged["agreement"].nunique() <= FEW_LEVELS
    level = judged["agreement"].round(3) if few_levels else np.ceil(judged["agreement"].round(6) * 10) / 10
    table = judged["correct"].astype(bool).groupby(level).agg(["sum", "size"]).sort_index()
    all_right = f"{judged['correct'].astype(bool).mean():.0%} of {len(judged):,}"
    note = f"n = {len(judged):,} {counted} whose right answer is known, below each point its own; bars: 95 % intervals."
    figure, axes = empty_axes("Is an agreed answer a right one?", 3.8, note=note, shares="y")
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.4)
    words = []
    for place, (right, n) in zip(table.index, table.to_numpy().tolist(), strict=True):
        interval = wilson(right, n)
        share = interval.estimate
        axes.errorbar(place, share, [[share - interval.low], [interval.high - share]], fmt="o", color=BLUE, capsize=3)
        words.append(f"{place:.2f}: {share:.0%} of {n:,}")
    names = _level_names(judged, table.index) if few_levels else [f"{level:.0%}" for level in table.index]
    axes.set_xticks(table.index, [f"{name}\n{n:,}" for name, n in zip(names, table["size"], strict=True)])
    label = "agreement, and below it n" if few_levels else "agreement (upper end of each tenth), and below it n"
    axes.set(xlabel=label, ylabel="labels that are right", xlim=(0, 1.03), ylim=(0, 1.03))
    label_ends(axes, [(1.03, 1.0, "as often right\nas agreed", GREY)])
    of_these = "" if counted == "questions" else f" of the {counted}"
    return figure, f"right labels{of_these} by agreement: {', '.join([*words, f'all {all_right}'])}"


def _level_names(qa: pd.DataFrame, levels: Sequence[float]) -> list[str]:
    """Return agreements as votes of their total ("3/8"), or in per cent where questions have different totals."""
    totals = qa["total"].unique() if "total" in qa else []
    if len(totals) == 1:
        return [f"{round(level * totals[0])}/{totals[0]}" for level in levels]
    return [f"{level:.0%}" for level in levels]


def _edges(levels: Sequence[float]) -> list[float]:
    """Return bin edges half-way between the values that occur, so that each value has its own bar."""
    step = min((b - a for a, b in pairwise(levels)), default=0.1)
    return [levels[0] - step / 2, *((a + b) / 2 for a, b in pairwise(levels)), levels[-1] + step / 2]


def threshold_sweep(sweep: pd.DataFrame, min_agreement: float | None = None) -> tuple[Figure, str]:
    """Draw how many questions each minimum agreement keeps, and how often their labels are right, if known.

    With `min_agreement` a line shows the threshold of this run.
    """
    if sweep.empty:
        return empty_figure("thresholds")
    judged = sweep[sweep["known"] > 0]
    note = f"n = {sweep['kept'].max():,} questions" + ("; band: 95 % interval." if len(judged) else ".")
    figure, axes = empty_axes("What a minimum agreement keeps", 3.4, note=note, shares="xy")
    places = sweep["min_agreement"]
    axes.step(places, sweep["share"], where="pre", color=BLUE, lw=2)
    axes.plot(places, sweep["share"], "o", color=BLUE, ms=4)
    ends = [(1.03, float(sweep["share"].iloc[-1]), "questions kept", BLUE)]
    if len(judged):
        axes.fill_between(judged["min_agreement"], judged["low"], judged["high"], color=ORANGE, alpha=0.22, lw=0)
        axes.plot(judged["min_agreement"], judged["right"], "s-", color=ORANGE, lw=1.8, ms=4)
        ends.append((1.03, float(judged["right"].iloc[-1]), "of these,\nlabels right", ORANGE))
    lowest = max(0.0, float(places.min()) - 0.05)
    axes.set(xlabel="minimum agreement", ylabel="share", xlim=(lowest, 1.03), ylim=(0, 1.05))
    label_ends(axes, ends)
    if min_agreement is not None:
        mark_threshold(axes, min_agreement, f"this run: {min_agreement:.0%}")
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
    titles = [
        f"{_group_name(name, row['group'])} (n = {row['n']:,})"
        for name, table in filled.items()
        for row in table.to_dict("records")
    ]
    note = "Points: mean agreement; bars: 95 % intervals. The axis shows the range of these alone."
    figure, axes = empty_rows("What agreement depends on", titles, 1.2, 0.28, note=note, shares="x")
    words = []
    place = 0
    for colour, (name, table) in zip([BLUE, GREEN, ORANGE, GREY] * len(filled), filled.items(), strict=False):
        texts = []
        for row in table.to_dict("records"):
            mean, low, high = row["agreement"], row["low"], row["high"]
            axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=colour, capsize=3)
            texts.append(f"{row['group']}: {mean:.2f} [{low:.2f}, {high:.2f}] (n {row['n']:,})")
            place += 1
        words.append(f"{name} {', '.join(texts)}")
        if place < len(titles):
            axes.axhline(place - 0.5, color=GREY, lw=0.6)
    axes.set_xlabel("mean agreement (95 % interval)")
    return figure, "; ".join(words)


def _group_name(table: str, group: object) -> str:
    """Return a group's name; nobody thinks of questions that were never rewritten as of a round 0 of rewriting."""
    return "never rewritten" if table == "rewrite round" and str(group) == "0" else f"{table} {group}"


def votes_needed(curve: pd.DataFrame, greedy: float | None = None) -> tuple[Figure, str]:
    """Draw how often the majority of m paths is right, for each m; the first point is a single sample.

    With `greedy`, the share of right greedy answers to the same questions, a line shows what a vote has to beat.
    """
    if curve.empty:
        return empty_figure("votes")
    note = f"n = {curve['n'].iloc[0]:,} questions whose right answer is known; bars: 95 % intervals."
    figure, axes = empty_axes("A single sample against the majority", 3.2, note=note, shares="y")
    error = np.clip([curve["right"] - curve["low"], curve["high"] - curve["right"]], 0, None)
    axes.errorbar(curve["m"], curve["right"], error, fmt="o-", color=BLUE, capsize=3, lw=1.8, ms=5)
    single, last = float(curve["right"].iloc[0]), float(curve["right"].iloc[-1])
    axes.axhline(single, color=GREY, ls=":", lw=1.4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve["m"], [str(m) for m in curve["m"]])
    axes.xaxis.set_minor_locator(NullLocator())
    least, most = float(curve["m"].min()), float(curve["m"].max())
    top = max(float(curve["high"].max()), greedy or 0.0)
    axes.set(xlabel="paths that vote", ylabel="labels right", ylim=(0, min(1.02, 1.12 * top + 0.02)))
    axes.set_xlim(least / 1.1, most * 1.1)
    ends = [(most * 1.1, single, f"one sample {single:.1%}", GREY), (most * 1.1, last, f"majority {last:.1%}", BLUE)]
    texts = [
        f"{row['m']}: {row['right']:.1%} [{row['low']:.1%}, {row['high']:.1%}]" for row in curve.to_dict("records")
    ]
    text = f"right by the majority of {', '.join(texts)} (n {curve['n'].iloc[0]:,})"
    if greedy is not None:
        axes.axhline(greedy, color=ORANGE, ls="--", lw=1.4)
        ends.append((most * 1.1, greedy, f"greedy {greedy:.1%}", ORANGE))
        text += f"; greedy {greedy:.1%}"
    label_ends(axes, ends)
    return figure, text


def headroom_bars(table: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how often greedy, one sample, the majority and any of k samples are right (table of `vote.headroom_table`).

    The majority and pass@k are those of the largest k that the table has. Quantities that are not known are left out.
    """
    rows = {row["quantity"]: row for row in table.to_dict("records") if row["n"] > 0}
    asked, pupil = (", as the vote asks", "greedy as evaluated") if "evaluated" in rows else ("", "greedy")
    chosen = [
        (rows[name], label, colour)
        for name, label, colour in (
            ("greedy", f"greedy{asked}", ORANGE),
            ("evaluated", "greedy, as the evaluation asks", ORANGE),
            ("one_sample", "one sample", GREY),
            *_largest(rows, "majority", "majority of {k}", BLUE),
            *_largest(rows, "pass", "right among {k} (pass@{k})", "#A9CCE3"),
        )
        if name in rows
    ]
    if not chosen:
        return empty_figure("headroom")
    headroom = rows.get("headroom")
    text = f"; headroom (majority minus {pupil}) {_points(headroom)}" if headroom else ""
    counted = f"n = {min(int(row['n']) for row, *_ in chosen):,} questions; bars: 95 % intervals."
    note = counted + (f" Headroom, majority minus {pupil}: {_points(headroom)}." if headroom else "")
    labels = [label for _, label, _ in chosen]
    figure, axes = empty_rows("Headroom: what a vote could hand on", labels, 1.2, 0.38, note=note, shares="x")
    words = []
    for place, (row, _, colour) in enumerate(chosen):
        value, low, high = (float(row[name]) for name in ("estimate", "low", "high"))
        axes.barh(place, value, 0.66, color=colour)
        axes.errorbar(value, place, None, np.clip([[value - low], [high - value]], 0, None), color=INK, capsize=3, lw=1)
        axes.annotate(f"  {value:.1%}", (high, place), va="center", fontsize=SMALL, color=INK)
        words.append(f"{value:.1%} [{low:.1%}, {high:.1%}]")
    top = max(float(row["high"]) for row, *_ in chosen)
    axes.set(xlabel="questions answered right", xlim=(0, 1.14 * top + 0.01))
    return figure, sentence(labels, words) + text


def _largest(rows: dict[str, Any], name: str, label: str, colour: str) -> list[tuple[str, str, str]]:
    """Return the quantity `name`@k of the largest k, with its label and colour; nothing where there is none."""
    numbers = [int(quantity.partition("@")[2]) for quantity in rows if quantity.startswith(f"{name}@")]
    return [(f"{name}@{k}", label.format(k=k), colour) for k in [max(numbers)]] if numbers else []


def _points(row: dict[str, Any]) -> str:
    estimate, low, high = (100 * float(row[name]) for name in ("estimate", "low", "high"))
    return f"{estimate:+.1f} points [{low:+.1f}, {high:+.1f}]"
