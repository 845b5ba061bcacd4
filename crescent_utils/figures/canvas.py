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

# Okabe and Ito's palette (2008), which survives the common kinds of colour blindness.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
WIDTH = 7.0  # inches: a notebook's column
MOST_BARS = 14
PER_CENT, COUNT = "{x:.0%}", "{x:,.0f}"  # how an axis writes its numbers
NAMES = {"base": "base", "tuned": "self-improved", "student": "student", "student_tuned": "distilled student"}


class Picture(Figure):  # type: ignore[misc, unused-ignore]
    """A figure that notebooks show by themselves, with or without an inline backend."""

    def _repr_png_(self) -> bytes:
        self.savefig(target := io.BytesIO(), format="png", dpi=100)
        return target.getvalue()


def empty_axes(title: str, height: float) -> tuple[Figure, Any]:
    """Return an empty figure of the common width and look, and its axes."""
    figure = Picture(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def horizontal_bars(title: str, counts: Mapping[str, float], notes: Sequence[str], colour: str, unit: str) -> Figure:
    """Return a figure of horizontal bars, one per count, with its note behind it."""
    if not counts:
        return empty_figure(title)[0]
    figure, axes = empty_axes(title, 0.9 + 0.4 * len(counts))
    axes.barh(range(len(counts)), list(counts.values()), color=colour, height=0.7)
    name_rows(axes, list(counts))
    for place, (value, note) in enumerate(zip(counts.values(), notes, strict=True)):
        axes.annotate(f" {note}", (value, place), va="center", fontsize=9)
    axes.set(xlabel=unit, xlim=(0, max(1, *counts.values()) * 1.22))
    axes.xaxis.set_major_formatter(COUNT)
    axes.grid(axis="y", visible=False)
    return figure


def empty_figure(what: str) -> tuple[Figure, str]:
    """Return a figure that says that there is nothing to draw."""
    figure, axes = empty_axes(what.capitalize(), 1.2)
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no data", ha="center", va="center", color=GREY, transform=axes.transAxes)
    return figure, f"{what}: no data"


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """Write names beside horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 38) for name in names], fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)


def model_name(model: object) -> str:
    """Return a model's label in plain words."""
    return NAMES.get(str(model), str(model).replace("_", " "))


def row_label(row: Mapping[Any, Any], models: bool = False) -> str:
    """Return which benchmark, shots, decoding and scoring a row is about.

    With `models`, also which models it compares, if these are not base and tuned.
    """
    parts = [f"{row['benchmark']}, {int(row['shots'])}-shot, {row['decoding']}"]
    if row.get("scoring", "symbolic") != "symbolic":
        parts.append(str(row["scoring"]))
    if models and (row["before"], row["after"]) != ("base", "tuned"):
        parts.append(f"{model_name(row['after'])} against {model_name(row['before'])}")
    return ", ".join(parts)


def sentence(names: Iterable[str], texts: Iterable[str]) -> str:
    """Return "name: text; name: text; …"."""
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))
