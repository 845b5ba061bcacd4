"""Figures of `06_evaluate` beyond the accuracies: what a gain is made of, and how answers fail. See `plots.py`."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from . import plots
from .breakdown import FAILURES

# From light to dark by how near the answer came; the palette is that of plots.py, thinned out.
_SHADES = {
    "right": plots.BLUE, "truncated": "#56B4E9", "no answer": "#555555", "wrong operation": plots.RED,
    "arithmetic slip": plots.ORANGE, "other numbers": "#CC79A7", "other": "#CCCCCC",
}  # fmt: skip


_INK = {"right": "white", "no answer": "white"}  # on the dark shades


def gain_parts(parts: pd.DataFrame) -> tuple[Figure, str]:
    """The reasoning and the format part of each gain, one above the other, with intervals (see `breakdown.gain_parts`)."""
    rows = parts.to_dict("records")
    if not rows:
        return plots.nothing("gains")
    figure, axes = plots.canvas("What each gain is made of", 1.3 + 0.5 * len(rows))
    words = []
    for place, row in enumerate(rows):
        for name, colour, shift in (("reasoning", plots.BLUE, -0.14), ("format", plots.ORANGE, 0.14)):
            value, low, high = (100 * float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
            spread = None if low != low else [[max(0.0, value - low)], [max(0.0, high - value)]]  # nan: nothing varied
            label = name if place == 0 else None
            axes.errorbar(value, place + shift, None, spread, "o", color=colour, capsize=3, ms=5, label=label)
        said = ", ".join(f"{name} {100 * row[name]:+.1f}" for name in ("reasoning", "format"))
        words.append(f"{100 * row['gain']:+.1f} points = {said}")
    titles = [plots.what(row, models=True) for row in rows]
    plots.name_rows(axes, titles)
    axes.axvline(0, color="black", lw=1)
    axes.set_xlabel("percentage points (95 % interval); the two parts sum to the gain")
    figure.legend(loc="outside lower right", frameon=False, ncols=2, fontsize=9)
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


def failures(counts: pd.DataFrame) -> tuple[Figure, str]:
    """Shares of right answers and of each class of failure, a bar for each model and decoding (`breakdown.failure_counts`)."""
    rows = counts.to_dict("records")
    if not rows:
        return plots.nothing("failures")
    figure, axes = plots.canvas("How answers end", 1.4 + 0.42 * len(rows))
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
    titles = [f"{plots.what(row)}, {plots.name_of(row['model'])}" for row in rows]
    plots.name_rows(axes, titles)
    axes.set(xlabel="share of answers", xlim=(0, 1))
    axes.xaxis.set_major_formatter(plots.PER_CENT)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", frameon=False, ncols=4, fontsize=8.5)
    listed = [", ".join(f"{name} {row[name]:,}" for name in ("right", *FAILURES) if row[name]) for row in rows]
    return figure, "; ".join(
        f"{title}: {text} of {row['n']:,}" for title, text, row in zip(titles, listed, rows, strict=True)
    )
