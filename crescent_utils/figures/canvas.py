"""The look that all figures share: palette, axes, bars, the names of rows.

Figures are made without pyplot: nothing stays open, and any backend will do. The text beside a figure is rounded and
depends on the table alone, so that a check can compare it where it cannot compare pictures.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette (2008), which survives the common kinds of colour blindness.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
WIDTH = 7.0  # inches: a notebook's column
MOST_BARS = 14
PER_CENT = "{x:.0%}"  # how an axis writes shares
NAMES = {"base": "base", "tuned": "self-improved", "student": "student", "student_tuned": "distilled student"}


class Picture(Figure):  # type: ignore[misc, unused-ignore]
    """A figure that notebooks show by themselves, with or without an inline backend."""

    def _repr_png_(self) -> bytes:
        self.savefig(target := io.BytesIO(), format="png", dpi=100)
        return target.getvalue()


def empty_axes(title: str, height: float, *, shares: str = "", counts: str = "") -> tuple[Figure, Any]:
    """Return an empty figure of the common width and look, and its axes.

    `shares` names the axes that are written in per cent ("x", "y" or "xy"), `counts` those with whole numbers alone.
    """
    figure = Picture(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)
    for name in shares:
        getattr(axes, f"{name}axis").set_major_formatter(PER_CENT)
    for name in counts:
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(MaxNLocator(integer=True))
        axis.set_major_formatter("{x:,.0f}")
    return figure, axes


def empty_rows(title: str, names: Sequence[str], margin: float, each: float, **axes_of: str) -> tuple[Figure, Any]:
    """Return empty axes with names beside horizontal bars or points, the first on top; heights are in inches."""
    figure, axes = empty_axes(title, margin + each * len(names), **axes_of)
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 38) for name in names], fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return figure, axes


def horizontal_bars(title: str, counts: Mapping[str, float], notes: Sequence[str], colour: str, unit: str) -> Figure:
    """Return a figure of horizontal bars, one per count, with its note behind it."""
    if not counts:
        return empty_figure(title)[0]
    figure, axes = empty_rows(title, list(counts), 0.9, 0.4)
    axes.barh(range(len(counts)), list(counts.values()), color=colour, height=0.7)
    for place, (value, note) in enumerate(zip(counts.values(), notes, strict=True)):
        axes.annotate(f" {note}", (value, place), va="center", fontsize=9)
    axes.set(xlabel=unit, xlim=(0, max(1, *counts.values()) * 1.22))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", visible=False)
    return figure


def empty_figure(what: str) -> tuple[Figure, str]:
    """Return a figure that says that there is nothing to draw."""
    figure, axes = empty_axes(what.capitalize(), 1.2)
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no data", ha="center", va="center", color=GREY, transform=axes.transAxes)
    return figure, f"{what}: no data"


def short_count(count: int) -> str:
    """Return a count as it may stand above a narrow bar: "9,999", "54.3k"."""
    return f"{count:,}" if count < 10_000 else f"{count / 1000:.1f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"


def model_name(model: object) -> str:
    """Return a model's label in plain words."""
    return NAMES.get(str(model), str(model).replace("_", " "))


def row_label(row: Mapping[Any, Any]) -> str:
    """Return which benchmark, shots, decoding and scoring a row is about.

    Also which model it is about, or which models it compares, if these are not base and tuned.
    """
    parts = [f"{row['benchmark']}, {int(row['shots'])}-shot, {row['decoding']}"]
    if row.get("scoring", "symbolic") != "symbolic":
        parts.append(str(row["scoring"]))
    if "model" in row:
        parts.append(model_name(row["model"]))
    elif (row["before"], row["after"]) != ("base", "tuned"):
        parts.append(f"{model_name(row['after'])} against {model_name(row['before'])}")
    return ", ".join(parts)


def sentence(names: Iterable[str], texts: Iterable[str]) -> str:
    """Return "name: text; name: text; …"."""
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))
