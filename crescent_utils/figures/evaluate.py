"""Figures of 06: accuracies, paired differences, seeds, the parts of a gain, and how answers fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ..evaluate import FAILURES
from .canvas import BLUE, GREEN, GREY, ORANGE, RED, empty_figure, empty_rows, model_name, row_label, sentence

if TYPE_CHECKING:
    import pandas as pd


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
DARK_SHADES = ("right", "no answer")  # a number on these is white


def accuracy_bars(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the accuracy before and after with intervals, a pair of bars for each row of a comparisons table."""
    rows = comparisons.to_dict("records")
    if not rows:
        return empty_figure("accuracy")
    titles = [row_label(row) for row in rows]
    figure, axes = empty_rows("Accuracy", titles, 1.2, 0.62, shares="x")
    for side, colour, shift in (("before", GREY, -0.2), ("after", BLUE, 0.2)):
        names = {model_name(row[side]) for row in rows}
        places = np.arange(len(rows)) + shift
        accuracies, lows, highs = (comparisons[f"{side}_{end}"].to_numpy() for end in ("accuracy", "low", "high"))
        axes.barh(places, accuracies, 0.38, color=colour, label=names.pop() if len(names) == 1 else side)
        error = np.clip([accuracies - lows, highs - accuracies], 0, None)
        axes.errorbar(accuracies, places, xerr=error, fmt="none", ecolor="black", capsize=3, lw=1.1)
        for place, accuracy, high in zip(places, accuracies, highs, strict=True):
            axes.annotate(f"  {accuracy:.1%}", (high, place), va="center", fontsize=8)
    highest = comparisons[["before_high", "after_high"]].to_numpy().max()
    axes.set(xlabel="accuracy (95 % interval)", xlim=(0, 1.15 * highest))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower right", frameon=False, ncols=2, fontsize=9)
    texts = [f"{row['before_accuracy']:.1%} -> {row['after_accuracy']:.1%} (n {row['n']:,})" for row in rows]
    return figure, sentence(titles, texts)


def paired_effects(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the differences in points with their intervals, one below the other; left of the line is worse."""
    rows = comparisons.to_dict("records")
    if not rows:
        return empty_figure("differences")
    titles = [row_label(row) for row in rows]
    figure, axes = empty_rows("Paired difference", titles, 1.1, 0.42)
    texts = []
    for place, row in enumerate(rows):
        value, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
        colour = GREEN if low > 0 else RED if high < 0 else GREY
        axes.errorbar(value, place, None, [[value - low], [high - value]], "o", color=colour, capsize=3)
        texts.append(f"{value:+.1f} points [{low:+.1f}, {high:+.1f}], n {row['n']:,}")
    axes.set_xlabel("after minus before, percentage points (95 % interval)")
    axes.axvline(0, color="black", lw=1)
    return figure, sentence(titles, texts)


def accuracy_by_seed(scores: pd.DataFrame) -> tuple[Figure, str]:
    """Draw each model's accuracy under each seed, by benchmark, so that a single lucky seed is seen."""
    keys = ["benchmark", "shots", "decoding", "model"]
    table = scores.assign(right=scores["symbolic"].astype(float)).groupby([*keys, "seed"])["right"].mean()
    rows = [(dict(zip(keys, key, strict=True)), values) for key, values in table.groupby(level=keys)]
    if not rows:
        return empty_figure("seeds")
    titles = [row_label(row) for row, _ in rows]
    figure, axes = empty_rows("Accuracy by seed", titles, 1.1, 0.4, shares="x")
    texts = []
    for place, (row, values) in enumerate(rows):
        colour = {"base": GREY, "tuned": BLUE}.get(row["model"], ORANGE)
        axes.plot(values, np.full(len(values), place), "o", color=colour, alpha=0.75, ms=7)
        axes.plot([values.mean()] * 2, [place - 0.28, place + 0.28], color=colour, lw=2.2)
        texts.append(", ".join(f"{value:.1%}" for value in values))
    axes.set(xlabel="accuracy (dot: one seed; line: mean)", xlim=(0, 1.15 * float(table.max()) + 0.01))
    return figure, sentence(titles, texts)


def gain_parts_bars(parts: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the reasoning part and the format part of each gain with their intervals (table `parts` of 06)."""
    rows = parts.to_dict("records")
    if not rows:
        return empty_figure("gains")
    titles = [row_label(row) for row in rows]
    figure, axes = empty_rows("What each gain is made of", titles, 1.3, 0.5)
    texts = []
    for place, row in enumerate(rows):
        for name, colour, shift in (("reasoning", BLUE, -0.14), ("format", ORANGE, 0.14)):
            value, low, high = (100 * float(row[column]) for column in (name, f"{name}_low", f"{name}_high"))
            error = None if np.isnan(low) else [[max(0.0, value - low)], [max(0.0, high - value)]]
            label = name if place == 0 else None
            axes.errorbar(value, place + shift, None, error, "o", color=colour, capsize=3, ms=5, label=label)
        reasoning, form = 100 * row["reasoning"], 100 * row["format"]
        texts.append(f"{100 * row['gain']:+.1f} points = reasoning {reasoning:+.1f}, format {form:+.1f}")
    axes.axvline(0, color="black", lw=1)
    axes.set_xlabel("percentage points (95 % interval); the two parts sum to the gain")
    figure.legend(loc="outside lower right", frameon=False, ncols=2, fontsize=9)
    return figure, sentence(titles, texts)


def failure_bars(counts: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the shares of right answers and of each class of failure, one bar for each model and decoding."""
    rows = counts.to_dict("records")
    if not rows:
        return empty_figure("failures")
    titles = [row_label(row) for row in rows]
    figure, axes = empty_rows("How answers end", titles, 1.4, 0.42, shares="x")
    totals = counts["n"].to_numpy()
    starts = np.zeros(len(rows))
    for name in ("right", *FAILURES):
        shares = counts[name].to_numpy() / totals
        if not shares.any():
            continue
        axes.barh(range(len(rows)), shares, left=starts, height=0.7, color=SHADES[name], label=name)
        ink = "white" if name in DARK_SHADES else "black"
        for place in np.flatnonzero(shares >= 0.06):
            middle = (starts[place] + shares[place] / 2, place)
            axes.annotate(f"{shares[place]:.0%}", middle, ha="center", va="center", fontsize=8, color=ink)
        starts = starts + shares
    axes.set(xlabel="share of answers", xlim=(0, 1))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", frameon=False, ncols=4, fontsize=8.5)
    texts = [
        ", ".join(f"{name} {row[name]:,}" for name in ("right", *FAILURES) if row[name]) + f" of {row['n']:,}"
        for row in rows
    ]
    return figure, sentence(titles, texts)
