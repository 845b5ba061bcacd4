"""One function a figure: each takes tables and returns the figure and a text that says its numbers again.

The text is rounded and depends on the table alone, so that a check can compare it where it cannot compare
pictures. Figures are made without pyplot: nothing stays open and any backend will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .canvas import BLUE, GREY, PER_CENT, RED, WIDTH, Picture, empty_axes, empty_figure

if TYPE_CHECKING:
    import pandas as pd


def loss_curve(log: pd.DataFrame) -> tuple[Figure, str]:
    """Training loss, and held-out loss where it was measured (columns `step`, `loss`, `eval_loss`)."""
    figure, axes = empty_axes("Loss", 3.2)
    words = []
    for column, name, colour, style in (("loss", "training", BLUE, ""), ("eval_loss", "held out", RED, "o")):
        rows = log[log[column].notna()].sort_values("step") if column in log else log.iloc[:0]
        if rows.empty:
            continue
        axes.plot(rows["step"], rows[column], style + "-", color=colour, lw=1.8, ms=4, label=name)
        values = rows[column]
        words.append(f"{name} {values.iloc[0]:.3f} -> {values.iloc[-1]:.3f} (lowest {values.min():.3f})")
    if not words:
        return empty_figure("loss")
    axes.set(xlabel="optimiser step", ylabel="cross-entropy (nats per token)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure, f"{int(log['step'].max()):,} steps; " + "; ".join(words)


# Column of the table, what it is, and whether it is a share.
WATCHED = (
    ("accuracy", "greedy accuracy", True), ("right", "labels that are right", True), ("agreement", "agreement of votes", True),
    ("entropy", "entropy of votes (bits)", False), ("diversity", "accepted as they came", True),
    ("words", "different words / words", True), ("length", "characters of a path", False), ("distance", "distance from the base", True),
)  # fmt: skip
INTERVALS = {"accuracy": ("low", "high", "n"), "right": ("right_low", "right_high", "labels")}  # and their n


def rounds_panels(table: pd.DataFrame) -> tuple[Figure, str]:
    """What `rounds.monitors` watched, a small panel each; round 0 is the untrained model, bars are 95 % intervals."""
    shown = [item for item in WATCHED if item[0] in table and table[item[0]].notna().any()]
    figure = Picture(figsize=(WIDTH, 0.6 + 1.5 * max(1, -(-len(shown) // 4))), layout="constrained", facecolor="white")
    figure.suptitle("Over the rounds", x=0.01, ha="left", fontsize=11, fontweight="bold")
    if not shown:
        figure.text(0.5, 0.4, "no data", ha="center", color=GREY)
        return figure, "rounds: no data"
    words = []
    for axes, (column, name, share) in zip(
        figure.subplots(-(-len(shown) // 4), 4, squeeze=False).flat, shown, strict=False
    ):
        part = table[table[column].notna()]
        axes.plot(part["round"], part[column], "o-", color=BLUE, lw=1.6, ms=4)
        top, counted = part[column], ""
        if column in INTERVALS:
            low, top, n = (part[other] for other in INTERVALS[column])
            error = [part[column] - low, top - part[column]]
            axes.errorbar(part["round"], part[column], error, fmt="none", color=BLUE, capsize=3, lw=1)
            counted = f" (n = {', '.join(dict.fromkeys(f'{count:.0f}' for count in n))})"
        axes.set_title(name, fontsize=7.5, loc="left")
        axes.set_ylim(0, 1.15 * max(1e-9, float(top.max())))
        axes.set_xlim(-0.3, float(table["round"].max()) + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e5e5e5", lw=0.8)
        if share:
            axes.yaxis.set_major_formatter(PER_CENT if float(part[column].max()) > 0.05 else "{x:.1%}")
        values = " -> ".join(f"{value:.1%}" if share else f"{value:.2f}" for value in part[column])
        words.append(f"{name} {values}{counted}")
    for axes in figure.axes[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("round", fontsize=9)
    return figure, "; ".join(words)
