"""Figures of 04 and 05, and of several rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .canvas import BLUE, GREY, PER_CENT, RED, WIDTH, Picture, empty_axes, empty_figure

if TYPE_CHECKING:
    import pandas as pd


def loss_curve(log: pd.DataFrame) -> tuple[Figure, str]:
    """Draw the training loss, and the held-out loss where it was measured (columns `step`, `loss`, `eval_loss`)."""
    figure, axes = empty_axes("Loss", 3.2, counts="x")
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
    axes.legend(frameon=False)
    return figure, f"{int(log['step'].max()):,} steps; " + "; ".join(words)


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

    The bars are 95 % intervals, where the table has them.
    """
    watched = [item for item in WATCHED if item[0] in table and table[item[0]].notna().any()]
    lines = max(1, -(-len(watched) // COLUMNS))
    figure = Picture(figsize=(WIDTH, 0.6 + 1.5 * lines), layout="constrained", facecolor="white")
    figure.suptitle("Over the rounds", x=0.01, ha="left", fontsize=11, fontweight="bold")
    if not watched:
        figure.text(0.5, 0.4, "no data", ha="center", color=GREY)
        return figure, "rounds: no data"
    panels = list(figure.subplots(lines, COLUMNS, squeeze=False).flat)
    texts = [_panel(axes, table, *item) for axes, item in zip(panels, watched, strict=False)]
    for axes in panels[: len(watched)]:
        axes.set_xlim(-0.3, float(table["round"].max()) + 0.3)
    for axes in panels[len(watched) :]:
        axes.set_axis_off()
    figure.supxlabel("round", fontsize=9)
    return figure, "; ".join(texts)


def _panel(axes: Any, table: pd.DataFrame, column: str, name: str, is_share: bool) -> str:
    """Draw one column over the rounds, and return its values as text."""
    rows = table[table[column].notna()]
    values, top, counted = rows[column], rows[column], ""
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", lw=0.8)
    if is_share:
        axes.yaxis.set_major_formatter(PER_CENT if float(values.max()) > 0.05 else "{x:.1%}")
    return f"{name} " + " -> ".join(f"{value:.1%}" if is_share else f"{value:.2f}" for value in values) + counted
