"""One function a figure: each takes tables and returns the figure and a text that says its numbers again.

The text is rounded and depends on the table alone, so that a check can compare it where it cannot compare
pictures. Figures are made without pyplot: nothing stays open and any backend will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ..evaluate import FAILURES
from . import canvas
from .canvas import BLUE, GREEN, GREY, ORANGE, PER_CENT, RED, empty_axes, empty_figure, model_name, name_rows, row_label

if TYPE_CHECKING:
    import pandas as pd


def accuracy_bars(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Accuracy before and after, with intervals, a pair of bars for each row of a comparisons table."""
    rows = comparisons.to_dict("records")
    if not rows:
        return empty_figure("accuracy")
    figure, axes = empty_axes("Accuracy", 1.2 + 0.62 * len(rows))
    for side, colour, shift in (("before", GREY, -0.2), ("after", BLUE, 0.2)):
        names = {model_name(row[side]) for row in rows}
        places = np.arange(len(rows)) + shift
        value, low, high = (comparisons[f"{side}_{end}"].to_numpy() for end in ("accuracy", "low", "high"))
        axes.barh(places, value, 0.38, color=colour, label=names.pop() if len(names) == 1 else side)
        error = np.clip([value - low, high - value], 0, None)
        axes.errorbar(value, places, xerr=error, fmt="none", ecolor="black", capsize=3, lw=1.1)
        for place, share, end in zip(places, value, high, strict=True):
            axes.annotate(f"  {share:.1%}", (end, place), va="center", fontsize=8)
    titles = [row_label(row, models=True) for row in rows]
    name_rows(axes, titles)
    axes.set_xlabel("accuracy (95 % interval)")
    axes.set_xlim(0, 1.15 * comparisons[["before_high", "after_high"]].to_numpy().max())
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower right", frameon=False, ncols=2, fontsize=9)
    words = [f"{r['before_accuracy']:.1%} -> {r['after_accuracy']:.1%} (n {r['n']:,})" for r in rows]
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


def paired_effects(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Differences in points with their intervals, one under the other; left of the line is worse."""
    rows = comparisons.to_dict("records")
    if not rows:
        return empty_figure("differences")
    figure, axes = empty_axes("Paired difference", 1.1 + 0.42 * len(rows))
    words = []
    for place, row in enumerate(rows):
        value, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
        colour = GREEN if low > 0 else RED if high < 0 else GREY
        axes.errorbar(value, place, None, [[value - low], [high - value]], "o", color=colour, capsize=3)
        words.append(f"{value:+.1f} points [{low:+.1f}, {high:+.1f}], n {row['n']:,}")
    titles = [row_label(row, models=True) for row in rows]
    name_rows(axes, titles)
    axes.set_xlabel("after minus before, percentage points (95 % interval)")
    axes.axvline(0, color="black", lw=1)
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


def accuracy_by_seed(scores: pd.DataFrame, scoring: str = "symbolic") -> tuple[Figure, str]:
    """Accuracy of each model under each seed, by benchmark, so that one lucky seed shows."""
    keys = ["benchmark", "shots", "decoding", "model"]
    table = scores.assign(score=scores[scoring].astype(float)).groupby([*keys, "seed"])["score"].mean()
    rows = [(dict(zip(keys, key, strict=True)), values) for key, values in table.groupby(level=keys)]
    if not rows:
        return empty_figure("seeds")
    figure, axes = empty_axes("Accuracy by seed", 1.1 + 0.4 * len(rows))
    words = []
    for place, (row, values) in enumerate(rows):
        colour = {"base": GREY, "tuned": BLUE}.get(row["model"], ORANGE)
        axes.plot(values, np.full(len(values), place), "o", color=colour, alpha=0.75, ms=7)
        axes.plot([values.mean()] * 2, [place - 0.28, place + 0.28], color=colour, lw=2.2)
        words.append(", ".join(f"{value:.1%}" for value in values))
    titles = [f"{row_label(row)}, {model_name(row['model'])}" for row, _ in rows]
    name_rows(axes, titles)
    axes.set(xlabel="accuracy (dot: one seed; line: mean)", xlim=(0, 1.15 * float(table.max()) + 0.01))
    axes.xaxis.set_major_formatter(PER_CENT)
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


# From light to dark by how near the answer came; the palette is that of plots.py, thinned out.
_SHADES = {
    "right": canvas.BLUE, "truncated": "#56B4E9", "no answer": "#555555", "wrong operation": canvas.RED,
    "arithmetic slip": canvas.ORANGE, "other numbers": "#CC79A7", "other": "#CCCCCC",
}  # fmt: skip
_INK = {"right": "white", "no answer": "white"}  # on the dark shades


def gain_parts_bars(parts: pd.DataFrame) -> tuple[Figure, str]:
    """The reasoning and the format part of each gain, one above the other, with intervals (see `breakdown.gain_parts`)."""
    rows = parts.to_dict("records")
    if not rows:
        return canvas.empty_figure("gains")
    figure, axes = canvas.empty_axes("What each gain is made of", 1.3 + 0.5 * len(rows))
    words = []
    for place, row in enumerate(rows):
        for name, colour, shift in (("reasoning", canvas.BLUE, -0.14), ("format", canvas.ORANGE, 0.14)):
            value, low, high = (100 * float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
            spread = None if low != low else [[max(0.0, value - low)], [max(0.0, high - value)]]  # nan: nothing varied
            label = name if place == 0 else None
            axes.errorbar(value, place + shift, None, spread, "o", color=colour, capsize=3, ms=5, label=label)
        said = ", ".join(f"{name} {100 * row[name]:+.1f}" for name in ("reasoning", "format"))
        words.append(f"{100 * row['gain']:+.1f} points = {said}")
    titles = [canvas.row_label(row, models=True) for row in rows]
    canvas.name_rows(axes, titles)
    axes.axvline(0, color="black", lw=1)
    axes.set_xlabel("percentage points (95 % interval); the two parts sum to the gain")
    figure.legend(loc="outside lower right", frameon=False, ncols=2, fontsize=9)
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


def failure_bars(counts: pd.DataFrame) -> tuple[Figure, str]:
    """Shares of right answers and of each class of failure, a bar for each model and decoding (`breakdown.failure_counts`)."""
    rows = counts.to_dict("records")
    if not rows:
        return canvas.empty_figure("failures")
    figure, axes = canvas.empty_axes("How answers end", 1.4 + 0.42 * len(rows))
    left = [0.0] * len(rows)
    for name in ("right", *FAILURES):
        shares = [row[name] / row["n"] for row in rows]
        if not any(shares):
            continue
        axes.barh(range(len(rows)), shares, left=left, height=0.7, color=_SHADES[name], label=name)
        for place, (share, start) in enumerate(zip(shares, left, strict=True)):
            if share >= 0.06:
                axes.annotate(
                    f"{share:.0%}",
                    (start + share / 2, place),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=_INK.get(name, "black"),
                )
        left = [start + share for start, share in zip(left, shares, strict=True)]
    titles = [f"{canvas.row_label(row)}, {canvas.model_name(row['model'])}" for row in rows]
    canvas.name_rows(axes, titles)
    axes.set(xlabel="share of answers", xlim=(0, 1))
    axes.xaxis.set_major_formatter(canvas.PER_CENT)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", frameon=False, ncols=4, fontsize=8.5)
    listed = [", ".join(f"{name} {row[name]:,}" for name in ("right", *FAILURES) if row[name]) for row in rows]
    return figure, "; ".join(
        f"{title}: {text} of {row['n']:,}" for title, text, row in zip(titles, listed, rows, strict=True)
    )
