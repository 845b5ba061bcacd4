"""Figures of 06: accuracies, paired differences, seeds, the parts of a gain, how answers fail, and the claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ..evaluate import FAILURES, NO_RUN, NOT_REPRODUCED, PAIRS, REPRODUCED, Claim
from .canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    QUIET,
    RED,
    SMALL,
    count_of,
    empty_figure,
    empty_panels,
    empty_rows,
    model_name,
    pair_name,
    row_label,
    sentence,
    short_labels,
    text_colour,
    trim_ticks,
)

if TYPE_CHECKING:
    import pandas as pd

Rows = list[dict[str, Any]]

# The shades grow lighter the nearer an answer came; the palette is the common one, with a few more colours.
SHADES = {
    "right": BLUE,
    "truncated": "#56B4E9",
    "no answer": "#555555",
    "wrong operation": RED,
    "arithmetic slip": ORANGE,
    "other numbers": "#CC79A7",
    "other": "#CCCCCC",
}
RIGHT_VALUE, AS_ASKED = "right value", "written as asked"  # the reasoning part of a gain, and the format part
UNSETTLED = "#7B848E"  # an effect that the data cannot tell from none
DARK_SHADES = ("right", "no answer")  # a number on these is white


def accuracy_bars(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the accuracy before and after with intervals, a pair of bars for each row of a comparisons table.

    Each two models that are compared have a panel and a scale of their own. Rows in which both are always wrong are
    named in the note and not drawn.
    """
    rows = comparisons.to_dict("records")
    if not rows:
        return empty_figure("accuracy")
    sides = ("before_accuracy", "after_accuracy")
    figure, panels = _pair_figure("Accuracy before and after", rows, sides, 0.5, shares="x")
    for axes, group in panels:
        for side, colour, shift in (("before", GREY, -0.2), ("after", BLUE, 0.2)):
            for place, row in enumerate(group):
                value, low, high = (float(row[f"{side}_{end}"]) for end in ("accuracy", "low", "high"))
                axes.barh(place + shift, value, 0.37, color=colour)
                error = np.clip([[value - low], [high - value]], 0, None)
                axes.errorbar(value, place + shift, None, error, fmt="none", ecolor=INK, capsize=2.5, lw=1)
                text = f"  {value:.1%} {model_name(row[side])}"
                axes.annotate(text, (max(value, high), place + shift), va="center", fontsize=8, color=INK)
        highest = max(float(row[f"{side}_high"]) for row in group for side in ("before", "after"))
        axes.set_xlim(0, 1.32 * max(highest, 0.01))
        trim_ticks(axes, min(1, 1.1 * highest))
        if highest < 0.1:
            axes.xaxis.set_major_formatter("{x:.1%}")
    axes.set_xlabel("accuracy")
    texts = [f"{row['before_accuracy']:.1%} -> {row['after_accuracy']:.1%} (n {row['n']:,})" for row in rows]
    return figure, sentence(map(row_label, rows), texts)


def paired_effects(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the differences in points with their intervals, one below the other; left of the line is worse."""
    rows = comparisons.to_dict("records")
    if not rows:
        return empty_figure("differences")
    sides, note = ("before_accuracy", "after_accuracy"), " Grey: the interval holds zero."
    figure, panels = _pair_figure("Paired difference: after minus before", rows, sides, 0.34, note, sharex=True)
    for axes, group in panels:
        axes.axvline(0, color=INK, lw=1)
        for place, row in enumerate(group):
            value, low, high = _points(row, "difference", "low", "high")
            _draw_effect(axes, place, value, low, high)
    axes.set_xlabel("percentage points")
    texts = []
    for row in rows:
        value, low, high = _points(row, "difference", "low", "high")
        texts.append(f"{value:+.1f} points [{low:+.1f}, {high:+.1f}], n {row['n']:,}")
    return figure, sentence(map(row_label, rows), texts)


def accuracy_by_seed(scores: pd.DataFrame) -> tuple[Figure, str]:
    """Draw each model's accuracy under each seed, before and after joined, so that a single lucky seed is seen."""
    keys = ["benchmark", "shots", "decoding", "model"]
    table = scores.assign(right=scores["symbolic"].astype(float)).groupby([*keys, "seed"])["right"].mean()
    rows = [(dict(zip(keys, key, strict=True)), values.droplevel(keys)) for key, values in table.groupby(level=keys)]
    if not rows:
        return empty_figure("seeds")
    groups: dict[tuple[Any, ...], list[tuple[str, Any]]] = {}
    for row, values in rows:
        is_student = str(row["model"]).startswith("student")
        condition = (str(row["benchmark"]), int(row["shots"]), str(row["decoding"]))
        groups.setdefault((is_student, *condition), []).append((str(row["model"]), values))
    ordered = sorted(groups)
    items = int(scores.groupby([*keys, "seed"])["item"].nunique().max()) if "item" in scores else 0
    seeds = int(scores["seed"].nunique())
    counted = f"n = {items:,} items each, " if items else ""
    has_others = not set(scores["model"]) <= {model for pair in PAIRS for model in pair}
    others = ", orange: after another training" if has_others else ""
    note = f"{counted}{count_of(seeds, 'seed')}; grey: before training, blue: after it{others}."
    panels = []
    for is_student, benchmark, shots, decoding in ordered:
        names = [f"seed {seed}" for seed in _seeds(groups[is_student, benchmark, shots, decoding])]
        title = f"{benchmark.replace('_', ' ')}, {shots}-shot, {decoding}{', students' if is_student else ''}"
        panels.append((title, names))
    figure, all_axes = empty_panels("Accuracy by seed", panels, 0.27, note=note, shares="x")
    figure.set_figheight(figure.get_figheight() + 0.16 * len(panels))  # a line of means in each panel
    for axes, key in zip(all_axes, ordered, strict=True):
        _draw_seeds(axes, groups[key])
    all_axes[-1].set_xlabel("accuracy")
    texts = [", ".join(f"{value:.1%}" for value in values) for _, values in rows]
    return figure, sentence([row_label(row) for row, _ in rows], texts)


def _seeds(models: Sequence[tuple[str, Any]]) -> list[int]:
    return sorted({int(seed) for _, values in models for seed in values.index})


def _draw_seeds(axes: Any, models: Sequence[tuple[str, Any]]) -> None:
    """Draw one row per seed: a point for each model, before and after training joined by a line."""
    seeds, by_model = _seeds(models), dict(models)
    highest = max(float(values.max()) for _, values in models)
    for before, after in PAIRS:
        if before in by_model and after in by_model:
            for seed in set(by_model[before].index) & set(by_model[after].index):
                ends = [float(by_model[before][seed]), float(by_model[after][seed])]
                axes.plot(ends, [seeds.index(int(seed))] * 2, color=GREY, lw=1.6, zorder=1)
    for model, values in sorted(models, key=lambda pair: float(pair[1].mean())):
        colour = GREY if model in {before for before, _ in PAIRS} else BLUE if model.endswith("tuned") else ORANGE
        axes.scatter(
            values, [seeds.index(int(seed)) for seed in values.index], s=42, color=colour, zorder=2, ec="white"
        )
    words = [f"{model_name(model)} (mean {values.mean():.1%})" for model, values in models]
    style = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8, "color": QUIET}
    axes.annotate("; ".join(words), (0, 1), (0, 4), va="bottom", **style)
    axes.set_title(axes.get_title("left"), loc="left", fontsize=9.5, color=INK, pad=16)  # above the line of means
    axes.set_xlim(min(0, -0.02 * highest), 1.08 * highest + 0.005)
    if highest < 0.1:
        axes.xaxis.set_major_formatter("{x:.1%}")


def gain_parts_bars(parts: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the two parts of each gain with their intervals (table `parts` of 06): the right value, the asked form.

    Rows without any gain or loss are named in the note and not drawn.
    """
    rows = parts.to_dict("records")
    if not rows:
        return empty_figure("gains")
    columns, note = ("gain", "reasoning", "format"), " The two parts sum to the gain."
    figure, panels = _pair_figure("What each gain is made of", rows, columns, 0.46, note, sharex=True)
    for axes, group in panels:
        axes.axvline(0, color=INK, lw=1)
        for place, row in enumerate(group):
            named = (("reasoning", RIGHT_VALUE, BLUE, -0.18), ("format", AS_ASKED, ORANGE, 0.18))
            for part, name, colour, shift in named:
                value, low, high = _points(row, part, f"{part}_low", f"{part}_high")
                low, high = (value, value) if math.isnan(low) else (min(low, value), max(high, value))
                error = [[value - low], [high - value]]
                axes.errorbar(value, place + shift, None, error, "o", color=colour, capsize=2.5, ms=5)
                text = f"  {name} {value:+.1f}"
                style = {"va": "center", "fontsize": 8, "color": text_colour(colour)}
                axes.annotate(text, (high, place + shift), **style)
        axes.margins(x=0.2)
    axes.set_xlabel("percentage points")
    texts = [
        f"{100 * row['gain']:+.1f} points = {RIGHT_VALUE} {100 * row['reasoning']:+.1f}, "
        f"{AS_ASKED} {100 * row['format']:+.1f}"
        for row in rows
    ]
    return figure, sentence(map(row_label, rows), texts)


def failure_bars(counts: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the shares of right answers and of each class of failure, one bar for each model and decoding."""
    rows = counts.to_dict("records")
    if not rows:
        return empty_figure("failures")
    common, labels = short_labels(rows)
    totals = counts["n"].to_numpy()
    sizes = " to ".join(f"{size:,}" for size in sorted({int(totals.min()), int(totals.max())}))
    note = f"{common or 'All benchmarks'}; n = {sizes} answers a bar, over all seeds and samples."
    figure, axes = empty_rows("How answers end", labels, 1.5, 0.36, note=note, shares="x")
    starts = np.zeros(len(rows))
    for name in ("right", *FAILURES):
        shares = counts[name].to_numpy() / totals
        if not shares.any():
            continue
        axes.barh(
            range(len(rows)), shares, left=starts, height=0.74, color=SHADES[name], label=name, ec="white", lw=0.5
        )
        ink = "white" if name in DARK_SHADES else "black"
        for place in np.flatnonzero(shares >= 0.06):
            middle = (starts[place] + shares[place] / 2, place)
            axes.annotate(f"{shares[place]:.0%}", middle, ha="center", va="center", fontsize=8, color=ink)
        starts = starts + shares
    axes.set(xlabel="share of answers", xlim=(0, 1))
    style = {"frameon": False, "ncols": 7, "fontsize": 8, "handlelength": 1, "columnspacing": 1, "labelcolor": INK}
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, handletextpad=0.4, **style)
    texts = [
        ", ".join(f"{name} {row[name]:,}" for name in ("right", *FAILURES) if row[name]) + f" of {row['n']:,}"
        for row in rows
    ]
    return figure, sentence(map(row_label, rows), texts)


def claims_forest(claims: Sequence[Claim]) -> tuple[Figure, str]:
    """Draw the ledger of claims: each effect with its interval and verdict; a blank says why it has none.

    The colour is the verdict's: green where the claim is reproduced, red where it is not, grey where none is settled.
    """
    if not claims:
        return empty_figure("claims")
    filled = [claim for claim in claims if claim.n]
    ranges = [f"{claim.id}: n = {claim.n:,}, {count_of(claim.seeds, 'seed')}" for claim in filled]
    note = "; ".join([*ranges, "bars: 95 % intervals."]) if filled else "No claim has a run yet."
    names = [f"{claim.id}  {claim.hypothesis}" for claim in claims]
    figure, axes = empty_rows("The claims, and what this run says of them", names, 1.2, 0.4, note=note)
    axes.axvline(0, color=INK, lw=1)
    words = []
    for place, claim in enumerate(claims):
        verdict, _, reason = claim.verdict.partition(" (")
        side = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8, "annotation_clip": False}
        if not claim.n:
            axes.annotate("blank: no run compares this yet", (1.02, place), color=QUIET, style="italic", **side)
            words.append(NO_RUN)
            continue
        value, low, high = 100 * claim.effect, 100 * claim.low, 100 * claim.high
        colour = {REPRODUCED: GREEN, NOT_REPRODUCED: RED}.get(claim.verdict, UNSETTLED)
        _draw_interval(axes, place, value, low, high, colour)
        axes.annotate(f"{claim.points}\n{verdict}", (1.02, place), color=INK, **side)
        words.append(f"{claim.points} points, {verdict}" + (f" ({reason}" if reason else ""))
    furthest = max((abs(100 * end) for claim in filled for end in (claim.low, claim.high)), default=5.0)
    axes.set(xlabel="effect, percentage points (right of the line is better)", xlim=(-1.1 * furthest, 1.1 * furthest))
    return figure, sentence([claim.id for claim in claims], words)


def _points(row: dict[str, Any], *names: str) -> list[float]:
    """Return shares as percentage points."""
    return [100 * float(row[name]) for name in names]


def _draw_effect(axes: Any, place: int, value: float, low: float, high: float) -> None:
    """Draw a difference in points with its interval: green above zero, red below, grey where it holds zero."""
    colour = GREEN if low > 0 else RED if high < 0 else UNSETTLED
    _draw_interval(axes, place, value, low, high, colour)
    axes.annotate(f"{value:+.1f}", (value, place), (0, 6), textcoords="offset points", ha="center", va="bottom",
                  fontsize=SMALL, color=text_colour(colour))  # fmt: skip


def _draw_interval(axes: Any, place: int, value: float, low: float, high: float, colour: str) -> None:
    error = np.clip([[value - low], [high - value]], 0, None)
    axes.errorbar(value, place, None, error, "o", color=colour, capsize=3, lw=1.6, ms=6)


def _pair_figure(
    title: str, rows: Rows, columns: Sequence[str], each: float, note: str = "", **options: Any
) -> tuple[Figure, list[tuple[Any, Rows]]]:
    """Return a figure with a panel for each two models that `rows` compare: its axes, and the rows to draw there.

    Rows that are zero in all `columns` are named in the note and not drawn; `each` is the height of a row in inches.
    """
    drawn, zeros = _without_zeros(rows, columns)
    groups, panels = _pair_panels(drawn)
    text = f"{_scope(rows)}; bars: 95 % intervals.{note}{zeros}"
    figure, all_axes = empty_panels(title, panels, each, note=text, **options)
    return figure, list(zip(all_axes, groups, strict=True))


def _without_zeros(rows: Rows, columns: Sequence[str]) -> tuple[Rows, str]:
    """Return the rows that are not zero in all these columns, and a sentence that names the others.

    If all are zero, all are returned.
    """
    drawn = [row for row in rows if any(row[column] for column in columns)]
    zeros = [row for row in rows if not any(row[column] for column in columns)]
    if not drawn or not zeros:
        return rows, ""
    return drawn, "".join(
        f"\nZero, and so not drawn: {title}: {'; '.join(labels)}." for title, labels in _pair_panels(zeros)[1]
    )


def _pair_panels(rows: Rows) -> tuple[list[Rows], list[tuple[str, list[str]]]]:
    """Return the rows by the two models that they compare, and for each the panel's subtitle and the rows' names."""
    groups: dict[str, Rows] = {}
    for row in rows:
        groups.setdefault(pair_name(row), []).append(row)
    panels = []
    for pair, group in groups.items():
        common, labels = short_labels(group)
        panels.append((f"{pair}: {common}" if common else pair, labels))
    return list(groups.values()), panels


def _scope(rows: Rows) -> str:
    """Return how many items and seeds stand behind rows of a comparisons table: "n = 350 items, 3 seeds"."""
    items = sorted({int(row["n"]) for row in rows})
    seeds = sorted({int(row["seeds"]) for row in rows if "seeds" in row})
    counted = f"{items[0]:,} to {items[-1]:,} items" if len(items) > 1 else count_of(items[0], "item")
    if len(seeds) > 1:
        return f"n = {counted}, {seeds[0]} to {seeds[-1]} seeds"
    return f"n = {counted}, {count_of(seeds[0], 'seed')}" if seeds else f"n = {counted}"
