"""The schematic of the method: its six steps as boxes, with one of them lit.

It is SVG text of its own: no script, no style sheet (one inside an SVG would reach into the page around it), no font to
be loaded. The ink is mid-tone, with a contrast of 4 to 1 or more on white and on a dark page alike, since a notebook's
theme need not be the one that the browser reports; the lit box brings its own ground.
"""

from __future__ import annotations

from html import escape

# Stage, where its box stands, what it does. 04 and 05 both learn from the votes.
STEPS = (
    ("elicit", 0, 46, "the model writes", "questions"),
    ("dedup", 1, 46, "repeats are", "rewritten or go"),
    ("vote", 2, 46, "many answers,", "the majority wins"),
    ("finetune", 3, 8, "the model learns", "from its votes"),
    ("distil", 3, 84, "a smaller one", "learns from them"),
    ("evaluate", 4, 46, "is it better?", "a tested verdict"),
)
LIT, INK = "#0072B2", "#797979"
ACROSS, BOX, HIGH = 144, 124, 62  # pixels: from box to box, a box's width and height


class Schematic(str):
    """SVG text that a notebook shows as a picture; in words where it is not trusted and shows no picture."""

    lit: str = ""

    def _repr_svg_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        """Return the steps in their order, the lit one in brackets."""
        titles = [f"{number:02} {name}" for number, (name, *_) in enumerate(STEPS, start=1)]
        return " > ".join(f"[{title}]" if title[3:] == self.lit else title for title in titles)


def schematic(step: str = "") -> Schematic:
    """Return the method's six steps as SVG text with `step` lit ("" for none), for a notebook or a page.

    `step` is a stage's name: elicit, dedup, vote, finetune, distil or evaluate; ValueError for any other.
    """
    names = [name for name, *_ in STEPS]
    if step and step not in names:
        raise ValueError(f"step: {step!r} is none of the method's steps; choose one of {', '.join(names)}")
    boxes = [_box(number, *row, lit=row[0] == step) for number, row in enumerate(STEPS, start=1)]
    places = {name: (2 + column * ACROSS, top) for name, column, top, *_ in STEPS}
    ways = [("elicit", "dedup"), ("dedup", "vote"), ("vote", "finetune"), ("vote", "distil")]
    ways += [("finetune", "evaluate"), ("distil", "evaluate")]
    arrows = [_arrow(places[first], places[second]) for first, second in ways]
    width, height = 4 * ACROSS + BOX + 4, 84 + HIGH + 4
    lit = f"; here: {step}" if step else ""
    picture = Schematic(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" text-anchor="middle">'
        f"<title>{escape(f'The six steps of the method{lit}')}</title>"
        f'<g stroke="{INK}" stroke-width="1.5" fill="none">{"".join(arrows)}</g>{"".join(boxes)}</svg>'
    )
    picture.lit = step
    return picture


def _box(number: int, name: str, column: int, top: int, first: str, second: str, *, lit: bool) -> str:
    """Return a box with a step's number and name, and two short lines on what it does."""
    left = 2 + column * ACROSS
    middle = left + BOX // 2
    ground, ink = (LIT, "#fff") if lit else ("none", INK)
    title = f"{number:02} {escape(name)}"
    lines = "".join(
        f'<text x="{middle}" y="{top + 36 + 15 * place}" font-size="11.5">{escape(text)}</text>'
        for place, text in enumerate((first, second))
    )
    return (
        f'<g fill="{ink}"><rect x="{left}" y="{top}" width="{BOX}" height="{HIGH}" rx="8" fill="{ground}" '
        f'stroke="{LIT if lit else INK}" stroke-width="1.5"/>'
        f'<text x="{middle}" y="{top + 19}" font-size="13" font-weight="bold">{title}</text>{lines}</g>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return an arrow from the right side of one box to the left side of another."""
    x, y = start[0] + BOX + 2, start[1] + HIGH // 2
    to_x, to_y = end[0] - 3, end[1] + HIGH // 2
    turn = (x + to_x) // 2
    return f'<path d="M{x} {y}C{turn} {y} {turn} {to_y} {to_x} {to_y}m-6 -4l6 4l-6 4"/>'
