"""The look that all figures share: card, palette, title, axes, bars, labels at the end of a line.

Every figure stands on a light card of its own with a hairline border, on a light page as on a dark one. A transparent
figure would need mid-tone ink, whose contrast is poor on both (about 4.5 to 1 at best, too little for small print), and
pale bands or numbers inside bars would have to work on two grounds: so each picture looks the same everywhere, in a
notebook, on GitHub, in the report and in print. The title stands on top, and what was counted (n, seeds) below.

Figures are made without pyplot: nothing stays open, and any backend will do. The text beside a figure is rounded and
depends on the table alone, so that a check can compare it where it cannot compare pictures.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from .. import runs

# Okabe and Ito's palette (2008), which survives the common kinds of colour blindness. Text in orange or green takes the
# darker shade of the same hue: the palette's own are too pale for small print.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#A6ACB3"
TEXT_SHADES = {ORANGE: "#9A6A00", GREEN: "#00734F", RED: "#A94600", GREY: "#5F6B76"}
CARD, BORDER, GRID, INK, QUIET = "#FDFDFB", "#DADDE1", "#E8EAED", "#24292F", "#5F6B76"
WIDTH = 7.0  # inches: a notebook's column
RESOLUTION = 200  # dots per inch: twice what a notebook's column shows, for sharp screens
SHOWN = 100  # pixels per inch at which a notebook shows the picture
MOST_BARS = 14
PER_CENT = "{x:.0%}"  # how an axis writes shares
SMALL = 8.5  # points: labels, notes
NAMES = {
    "base": "base",
    "tuned": "self-improved",
    runs.CONTROL: "random labels",
    "student": "student",
    "student_tuned": "distilled student",
}


class Picture(Figure):  # type: ignore[misc, unused-ignore]
    """A figure that notebooks show by themselves, with or without an inline backend, at twice a column's resolution."""

    def _repr_png_(self) -> bytes:
        self.savefig(target := io.BytesIO(), format="png", dpi=RESOLUTION)
        return target.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, bytes], dict[str, dict[str, int]]]:
        """Return the picture, and the size at which to show it."""
        width, height = (round(SHOWN * inches) for inches in self.get_size_inches())
        return {"image/png": self._repr_png_()}, {"image/png": {"width": width, "height": height}}


class NoPicture(Picture):
    """One line that says that there is nothing to draw; a notebook, which prints that line, does not show it."""

    def _ipython_display_(self) -> None:
        """Show nothing."""


def empty_picture(title: str, height: float, note: str = "") -> Figure:
    """Return a card of the common width with a title, and a note (what was counted) at its foot."""
    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.1, wspace=0.04)
    figure = Picture(figsize=(WIDTH, height), layout=layout, facecolor=CARD, edgecolor=BORDER, linewidth=1.5)
    left = 0.14 / WIDTH
    figure.suptitle(title, x=left, ha="left", fontsize=11, fontweight="bold", color=INK)
    if note:
        text = "\n".join(textwrap.fill(line, 112) for line in note.splitlines())
        figure.supxlabel(text, x=left, ha="left", fontsize=8, color=QUIET)
    return figure


def style_axes(axes: Any, *, shares: str = "", counts: str = "") -> None:
    """Give axes the common look.

    `shares` names the axes that are written in per cent ("x", "y" or "xy"), `counts` those with whole numbers alone.
    """
    axes.set_facecolor(CARD)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=QUIET, labelsize=SMALL, color=GREY)
    axes.xaxis.label.set(color=QUIET, size=9)
    axes.yaxis.label.set(color=QUIET, size=9)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    for name in shares:
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # no 2.5 %, which would be written as 3 %
        axis.set_major_formatter(PER_CENT)
    for name in counts:
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(MaxNLocator(integer=True))
        axis.set_major_formatter("{x:,.0f}")


def empty_axes(title: str, height: float, *, note: str = "", shares: str = "", counts: str = "") -> tuple[Figure, Any]:
    """Return an empty figure of the common width and look, and its axes; see `style_axes`."""
    figure = empty_picture(title, height, note)
    axes = figure.subplots()
    style_axes(axes, shares=shares, counts=counts)
    return figure, axes


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """Write names beside horizontal bars or points, the first on top."""
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 38) for name in names])
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def empty_rows(
    title: str, names: Sequence[str], margin: float, each: float, *, note: str = "", shares: str = "", counts: str = ""
) -> tuple[Figure, Any]:
    """Return empty axes with names beside horizontal bars or points, the first on top; heights are in inches."""
    figure, axes = empty_axes(title, margin + each * len(names), note=note, shares=shares, counts=counts)
    name_rows(axes, names)
    return figure, axes


def empty_panels(
    title: str, panels: Sequence[tuple[str, Sequence[str]]], each: float, *, note: str = "", **options: Any
) -> tuple[Figure, list[Any]]:
    """Return a figure of panels one below the other, each with a subtitle and named rows `each` inches high.

    `options` are those of `style_axes`, and `sharex`.
    """
    sharex = options.pop("sharex", False)
    sizes = [len(names) * each + 0.12 for _, names in panels]
    height = 0.62 + 0.2 * note.count("\n") + sum(sizes) + 0.62 * len(panels)
    figure = empty_picture(title, height, note)
    drawn = figure.subplots(len(panels), 1, squeeze=False, sharex=sharex, height_ratios=sizes)[:, 0]
    for axes, (subtitle, names) in zip(drawn, panels, strict=True):
        style_axes(axes, **options)
        name_rows(axes, names)
        axes.set_title(subtitle, loc="left", fontsize=9.5, color=INK)
    return figure, list(drawn)


def horizontal_bars(
    title: str,
    counts: Mapping[str, float],
    notes: Sequence[str],
    colours: str | Sequence[str],
    unit: str,
    *,
    note: str = "",
    each: float = 0.3,
) -> Figure:
    """Return a figure of horizontal bars, one per count and `each` inches high, with its note behind it."""
    if not counts:
        return empty_figure(title)[0]
    figure, axes = empty_rows(title, list(counts), 1.2, each, note=note)
    axes.barh(range(len(counts)), list(counts.values()), color=colours, height=0.7)
    for place, (value, text) in enumerate(zip(counts.values(), notes, strict=True)):
        axes.annotate(f" {text}", (value, place), va="center", fontsize=SMALL, color=INK)
    axes.set(xlabel=unit, xlim=(0, max(1e-9, *counts.values()) * 1.3))
    ticks = MaxNLocator(nbins=5, integer=max(counts.values()) >= 5).tick_values(0, max(1e-9, *counts.values()))
    axes.set_xticks([tick for tick in ticks if 0 <= tick <= max(counts.values())])
    axes.xaxis.set_major_formatter("{x:,.0f}" if max(counts.values()) >= 5 else "{x:,.1f}")
    return figure


def empty_figure(what: str) -> tuple[Figure, str]:
    """Return a figure of one line of text that says that there is nothing to draw."""
    figure = NoPicture(figsize=(WIDTH, 0.4), facecolor=CARD, edgecolor=BORDER, linewidth=1.5)
    line = f"{what[:1].upper()}{what[1:]}: no data"
    figure.text(0.14 / WIDTH, 0.5, line, ha="left", va="center", color=QUIET, fontsize=9)
    return figure, f"{what}: no data"


def label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]], *, in_a_column: bool = False) -> None:
    """Write labels to the right of where lines end, in the place of a legend: (x, y, text, colour) of each.

    Labels that would cover each other move apart. Set the limits of the axes first. Points, which end nowhere, have
    their labels `in_a_column` beside the axes, a thin line leading to each.
    """
    low, high = axes.get_ylim()
    points = 0.62 * 72 * axes.figure.get_size_inches()[1]  # about the height of the axes
    gap = (high - low) * 12 / points
    places: list[float] = []
    ordered = sorted(ends, key=lambda end: end[1])
    heights = [gap * (end[2].count("\n") + 1) for end in ordered]
    for end, height in zip(ordered, heights, strict=True):
        places.append(end[1] if not places else max(end[1], places[-1] + height))
    most = high
    for number in reversed(range(len(places))):  # what stands above the axes moves down, and what it meets with it
        places[number] = min(places[number], most)
        most = places[number] - heights[number]
    left, right = axes.get_xlim()
    for (x, y, text, colour), place in zip(ordered, places, strict=True):
        style = {"fontsize": SMALL, "color": text_colour(colour), "annotation_clip": False, "va": "center"}
        if in_a_column:
            line = {"arrowstyle": "-", "color": GREY, "lw": 0.7, "relpos": (0, 0.5), "shrinkA": 2, "shrinkB": 3}
            axes.annotate(text, (x, y), (right + 0.03 * (right - left), place), arrowprops=line, **style)
        else:
            at = (max(x, right) if x >= 0.9 * right else x, place)
            axes.annotate(text, at, (6, 0), textcoords="offset points", **style)


def mark_threshold(axes: Any, x: float, text: str, *, left: bool = False) -> None:
    """Draw a vertical line at a threshold, and its name on top of it, right or left of the line."""
    axes.axvline(x, color=RED, ls="--", lw=1.3)
    style = {"fontsize": SMALL, "color": text_colour(RED), "va": "bottom", "ha": "right" if left else "left"}
    axes.annotate(text, (x, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points", **style)


def trim_ticks(axes: Any, most: float) -> None:
    """Drop the ticks of a horizontal axis beyond `most`, where labels stand and no bar ends."""
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= most])


def text_colour(colour: str) -> str:
    """Return the shade of a colour in which small print can be read on the card."""
    return TEXT_SHADES.get(colour, colour)


def count_of(count: int, noun: str) -> str:
    """Return "1 seed", "3 seeds"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def model_name(model: object) -> str:
    """Return a model's label in plain words."""
    return NAMES.get(str(model), str(model).replace("_", " "))


def pair_name(row: Mapping[Any, Any]) -> str:
    """Return which two models a row compares."""
    return f"{model_name(row['after'])} against {model_name(row['before'])}"


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
        parts.append(pair_name(row))
    return ", ".join(parts)


def short_labels(rows: Sequence[Mapping[Any, Any]]) -> tuple[str, list[str]]:
    """Return what all rows are about, and for each row what the others are not about: nothing is said twice.

    A single row keeps its decoding. The models that a row compares are left out of both; a row's one model is not.
    """
    parts = []
    for row in rows:
        named = [str(row["benchmark"]).replace("_", " "), f"{int(row['shots'])}-shot", str(row["decoding"])]
        named += [f"{row['scoring']} scoring"] if "scoring" in row else []
        named += [model_name(row["model"])] if "model" in row else []
        parts.append(named)
    shared = [len(set(values)) == 1 for values in zip(*parts, strict=True)]
    if all(shared) and shared:
        shared[2] = False
    common = ", ".join(part for part, same in zip(parts[0], shared, strict=True) if same) if parts else ""
    return common, [", ".join(part for part, same in zip(row, shared, strict=True) if not same) for row in parts]


def sentence(names: Iterable[str], texts: Iterable[str]) -> str:
    """Return "name: text; name: text; …"."""
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))
