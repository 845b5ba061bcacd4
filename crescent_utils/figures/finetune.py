"""Figures of 04 and 05, and of several rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .canvas import BLUE, PER_CENT, RED, empty_axes, empty_figure, empty_picture, label_ends, style_axes

if TYPE_CHECKING:
    import pandas as pd

SMOOTHING = 8  # ours: the smoothed loss looks back over about an eighth of the steps
PALE = "#A9CCE3"  # of the loss as it was logged


def loss_curve(log: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the training loss, and the held-out loss where it was measured (columns `step`, `loss`, `eval_loss`).

    The loss of single steps is pale, its exponential moving average is drawn in full.
    """
    rows = {name: log[log[name].notna()].sort_values("step") for name in ("loss", "eval_loss") if name in log}
    rows = {name: table for name, table in rows.items() if len(table)}
    if not rows:
        return empty_figure("loss")
    last_step = int(log["step"].max())
    span = max(2, round(len(rows["loss"]) / SMOOTHING)) if "loss" in rows else 0
    parts = [f"{last_step:,} optimiser steps"]
    if span:
        parts.append(f"pale: each logged step; line: its moving average (span {span})")
    title = "Training and held-out loss" if len(rows) == 2 else "Training loss" if span else "Held-out loss"
    figure, axes = empty_axes(title, 3.2, note="; ".join(parts) + ".", counts="x")
    words, ends = [], []
    for column, name, colour in (("loss", "training", BLUE), ("eval_loss", "held out", RED)):
        if column not in rows:
            continue
        steps, values = rows[column]["step"], rows[column][column]
        words.append(f"{name} {values.iloc[0]:.3f} -> {values.iloc[-1]:.3f} (lowest {values.min():.3f})")
        if column == "loss":
            axes.plot(steps, values, color=PALE, lw=1)
            values = values.ewm(span=span).mean()
            words[-1] += f", smoothed {values.iloc[0]:.3f} -> {values.iloc[-1]:.3f}"
        axes.plot(steps, values, "-" if column == "loss" else "o-", color=colour, lw=2, ms=4)
        ends.append((float(last_step), float(values.iloc[-1]), f"{name} {values.iloc[-1]:.2f}", colour))
    top = max(float(table[name].max()) for name, table in rows.items())
    axes.set(xlabel="optimiser step", ylabel="cross-entropy (nats per token)", ylim=(0, 1.05 * top))
    axes.set_xlim(min(float(log["step"].min()), last_step - 1), last_step)
    label_ends(axes, ends)
    return figure, f"{last_step:,} steps; " + "; ".join(words)


# Column of the table, what it is, and whether it is a share.
WATCHED = (
    ("accuracy", "greedy accuracy", True),
    ("right", "labels that are right", True),
    ("agreement", "agreement of votes", True),
    ("entropy", "entropy of votes (bits)", False),
    ("diversity", "accepted as they came", True),
    ("words", "different words / words", True),
    ("length", "characters of a path", False),
    ("distance", "distance from the base", True),
)
INTERVALS = {"accuracy": ("low", "high", "n"), "right": ("right_low", "right_high", "labels")}  # and their n
COLUMNS = 4  # of panels


def rounds_panels(table: pd.DataFrame) -> tuple[Figure, str]:
    """Draw what a run of several rounds watched, one small panel each; round 0 is the untrained model.

    The title says whether each round's `data` replaced that of the rounds before, or accumulated. The bars are 95 %
    intervals, where the table has them.
    """
    watched = [item for item in WATCHED if item[0] in table and table[item[0]].notna().any()]
    if not watched:
        return empty_figure("rounds")
    columns = min(COLUMNS, len(watched))
    lines = -(-len(watched) // columns)
    note = "From round to round; round 0 is the untrained model. Bars: 95 % intervals, where there are any."
    data = f"data {table['data'].iloc[0]}"
    figure = empty_picture(f"Over the rounds, {data}", 0.85 + 1.5 * lines, note)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    texts = [_panel(axes, table, *item) for axes, item in zip(panels, watched, strict=False)]
    for axes in panels[: len(watched)]:
        axes.set_xlim(-0.3, float(table["round"].max()) + 0.3)
    for axes in panels[len(watched) :]:
        axes.remove()
    return figure, "; ".join([data, *texts])


def _panel(axes: Any, table: pd.DataFrame, column: str, name: str, is_share: bool) -> str:
    """Draw one column over the rounds, and return its values as text."""
    rows = table[table[column].notna()]
    values, top, counted = rows[column], rows[column], ""
    style_axes(axes)
    axes.plot(rows["round"], values, "o-", color=BLUE, lw=1.6, ms=4)
    if column in INTERVALS:
        low, top, counts = (rows[other] for other in INTERVALS[column])
        axes.errorbar(rows["round"], values, [values - low, top - values], fmt="none", color=BLUE, capsize=3, lw=1)
        counted = f" (n = {', '.join(dict.fromkeys(f'{count:.0f}' for count in counts))})"
    axes.set_title(name, fontsize=7.5, loc="left")
    axes.set_ylim(0, 1.15 * max(1e-9, float(top.max())))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.tick_params(labelsize=8)
    axes.set_xlabel("round", fontsize=8)
    if is_share:
        axes.yaxis.set_major_formatter(PER_CENT if float(values.max()) > 0.05 else "{x:.1%}")
    return f"{name} " + " -> ".join(f"{value:.1%}" if is_share else f"{value:.2f}" for value in values) + counted
