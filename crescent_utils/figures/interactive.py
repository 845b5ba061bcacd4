"""What a reader can move: a threshold slider for 02, a browser of votes for 03, a browser of flipped answers for 06.

Each function returns a view and a text that says the view's numbers. A view has a static form, HTML and plain text with
a few chosen examples, which papermill, GitHub and a printed page keep. Where somebody sits before the kernel, in
JupyterLab, Colab, VS Code or Kaggle, it is a widget as well; a page that cannot show widgets takes the static form.
A widget holds the one card that it shows, so that a notebook that is saved with its state stays small.

Questions and answers were written by a model. They are escaped, and stand in `code` and `pre`, where no page takes what
lies between two dollar signs for mathematics.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .canvas import BLUE, GREY

if TYPE_CHECKING:
    import pandas as pd

WIDGET = "application/vnd.jupyter.widget-view+json"
ALL = "all"  # the group of a browser that holds every entry
CUT, UNREADABLE = "(cut)", "(unreadable)"  # in the place of an answer; these paths vote for nothing
WIDE = "36em"  # of a slider: room to meet one entry of many
MOST_FLIPS = 4  # examples of each way that the static form shows
CELL = "padding: 2px 12px 2px 0; text-align: left; vertical-align: top"


def reader_is_there() -> bool:
    """Tell whether somebody can move what this kernel shows, by what front ends leave in a kernel's surroundings.

    papermill, nbval and nbclient leave nothing; what is not known counts as such a batch run.
    """
    jupyter_or_vs_code = "JPY_SESSION_NAME" in os.environ or "VSCODE_PID" in os.environ
    kaggle = os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Interactive"
    return (jupyter_or_vs_code or kaggle or "google.colab" in sys.modules) and find_spec("ipywidgets") is not None


@dataclass(frozen=True)
class View:
    """A static form as HTML and as plain text, and what makes the widget that shows the same and more."""

    html: str
    text: str
    make_widget: Callable[[], Any]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the static form, and with it the widget where somebody can move it."""
        bundle: dict[str, Any] = {"text/html": self.html, "text/plain": self.text}
        if reader_is_there():
            bundle[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": self.make_widget().model_id}
        return bundle


@dataclass(frozen=True)
class Browser:
    """Entries to leaf through: the group and the text of each, and what makes the card of one as HTML."""

    groups: Sequence[str]
    texts: Sequence[str]
    card: Callable[[int], str]

    def counts(self) -> dict[str, int]:
        """Return how many entries each group has, `ALL` first and then the largest."""
        return {ALL: len(self.groups), **dict(Counter(self.groups).most_common())}

    def matching(self, group: str = ALL, words: str = "") -> list[int]:
        """Return the numbers of the entries of a group whose text holds `words`, whatever their case."""
        wanted = words.casefold()
        return [
            number
            for number, (name, text) in enumerate(zip(self.groups, self.texts, strict=True))
            if group in (ALL, name) and wanted in text.casefold()
        ]

    def widget(self) -> Any:
        """Return a menu of groups, a field to search in, a slider over what matches, and the card that it points at."""
        import ipywidgets as widgets

        names = [(f"{name} ({count:,})", name) for name, count in self.counts().items()]
        menu = widgets.Dropdown(options=names, value=ALL, description="show")
        search = widgets.Text(placeholder="text to look for", description="with")
        width = widgets.Layout(width=WIDE)
        place = widgets.IntSlider(value=1, min=1, max=max(1, len(self.groups)), description="entry", layout=width)
        shown = widgets.HTML()

        def show(_: object = None) -> None:
            matches = self.matching(menu.value, search.value)
            shown.value = self.card(matches[min(place.value, len(matches)) - 1]) if matches else "<p>none matches</p>"

        def select(_: object) -> None:
            place.max = max(1, len(self.matching(menu.value, search.value)))
            place.value = 1
            show()

        menu.observe(select, "value")
        search.observe(select, "value")
        place.observe(show, "value")
        show()
        return widgets.VBox([widgets.HBox([menu, search]), place, shown])


def threshold_slider(levels: pd.DataFrame, chosen: float) -> tuple[View, str]:
    """Show what each similarity threshold keeps, with questions on either side (table of `dedup.threshold_examples`).

    The static form lists the threshold of this run, `chosen`, and each fifth of the others.
    """
    rows = levels.to_dict("records")
    if not rows:
        return _nothing("thresholds")
    at_run = min(range(len(rows)), key=lambda number: abs(rows[number]["threshold"] - chosen))
    listed = [row for number, row in enumerate(rows) if number == at_run or number % 5 == 0]

    def widget() -> Any:
        import ipywidgets as widgets

        names = [(f"{row['threshold']:.2f}", number) for number, row in enumerate(rows)]
        width = widgets.Layout(width=WIDE)
        place = widgets.SelectionSlider(options=names, value=at_run, description="threshold", layout=width)
        shown = widgets.HTML(_level_card(rows[at_run], rows[at_run]))
        place.observe(lambda change: setattr(shown, "value", _level_card(rows[change["new"]], rows[at_run])), "value")
        return widgets.VBox([place, shown])

    names = ["threshold", "kept", "leaves: just too similar", "stays: just different enough"]
    cells = [
        [_number(row), f"{row['kept']:,}", *(_pairs(row[side][:1]) for side in ("leaving", "staying"))]
        for row in listed
    ]
    words = ", ".join(f"{_number(row)}: {row['kept']:,}" for row in listed)
    text = f"kept of {rows[0]['total']:,} at {words}"
    return View(_table(names, cells), text, widget), text


def vote_browser(
    questions: pd.DataFrame, votes: pd.DataFrame, rejected: pd.DataFrame, paths: pd.DataFrame
) -> tuple[View, str]:
    """Show a question, how its reasoning paths voted, and each path; by what became of the question.

    `questions` (id, question) were voted on. `votes` is `qa` counted without a threshold, `rejected` and `paths` are
    those of this run. The static form has the first question of each group.
    """
    if not len(questions):
        return _nothing("votes")
    labels = {row["id"]: row for row in votes.to_dict("records")}
    reasons = dict(zip(rejected["id"], rejected["reason"], strict=True))
    places = {number: list(rows) for number, rows in paths.groupby("question_id").indices.items()}
    asked = questions[["id", "question"]].to_dict("records")

    def card(number: int) -> str:
        row = asked[number]
        its_paths = paths.iloc[places.get(row["id"], [])].to_dict("records")
        return _vote_card(row["question"], labels.get(row["id"], {}), reasons.get(row["id"], ""), its_paths)

    groups = [_outcome(labels.get(row["id"], {}), reasons.get(row["id"], "")) for row in asked]
    return _browser_view(Browser(groups, [row["question"] for row in asked], card))


def flip_browser(flipped: pd.DataFrame) -> tuple[View, str]:
    """Show the items that one model answers right and the other wrong (table of `evaluate.flipped_items`).

    The static form lists the first few of each way.
    """
    rows = flipped.to_dict("records")
    if not rows:
        return _nothing("flipped answers")
    several = flipped["benchmark"].nunique() > 1
    groups = [
        " · ".join([*[row["benchmark"]] * several, row["way"], *[row["kind"]] * bool(row["kind"])]) for row in rows
    ]
    browser = Browser(groups, [row["question"] for row in rows], lambda number: _flip_card(rows[number]))
    listed = [row for way in ("gained", "lost") for row in [row for row in rows if row["way"] == way][:MOST_FLIPS]]
    cells = [
        [row["way"], _code(row["question"]), _code(row["gold"]), _block(row["before"]), _block(row["after"])]
        for row in listed
    ]
    ways = Counter(row["way"] for row in rows)
    text = f"{ways['gained']:,} gained, {ways['lost']:,} lost; {_counted(browser)}"
    return View(_table(["", "question", "right answer", "before", "after"], cells), text, browser.widget), text


def _nothing(what: str) -> tuple[View, str]:
    """Return a view of one line that says that there is nothing to look at."""
    text = f"{what}: no data"

    def widget() -> Any:
        import ipywidgets as widgets

        return widgets.HTML(text)

    return View(f"<p>{text}</p>", text, widget), text


def _browser_view(browser: Browser) -> tuple[View, str]:
    """Return the view of a browser, whose static form is the first card of each group, and its counts as text."""
    firsts = [browser.groups.index(name) for name in browser.counts() if name != ALL]
    text = _counted(browser)
    return View("<hr>".join(map(browser.card, firsts)), text, browser.widget), text


def _counted(browser: Browser) -> str:
    """Return the groups of a browser with their counts, in one line."""
    return "; ".join(f"{name}: {count:,}" for name, count in browser.counts().items() if name != ALL)


def _outcome(label: dict[str, Any], reason: str) -> str:
    """Return what became of a question: kept with a right or a wrong label, where that is known, or why rejected."""
    if reason:
        return f"rejected, {reason.replace('_', ' ')}"
    correct = label.get("correct")
    return "kept" if correct is None or correct != correct else f"kept with a {'right' if correct else 'wrong'} label"


def _vote_card(question: str, label: dict[str, Any], reason: str, paths: Sequence[dict[str, Any]]) -> str:
    """Return a question, what became of it, and one row per answer: its votes and the reasoning paths to it."""
    by_answer: dict[str, list[str]] = {}
    for path in paths:
        by_answer.setdefault(_answer(path), []).append(path["path"])
    rows = []
    for answer, texts in sorted(by_answer.items(), key=lambda item: -len(item[1])):
        bar = _bar(len(texts) / len(paths), GREY if answer in (CUT, UNREADABLE) else BLUE)
        rows.append([_code(answer), f"{len(texts)} of {len(paths)}{bar}", "".join(map(_block, texts))])
    lines = [f"<b>{_code(question)}</b>", escape(_outcome(label, reason))]
    if label:
        tied = ", drawn from a tie" if label.get("tied") else ""
        lines.append(f"most frequent answer {_code(label['answer'])}: {label['votes']} of {label['total']} votes{tied}")
    if isinstance(label.get("gold"), str):
        lines.append(f"right answer {_code(label['gold'])}")
    return f"<p>{'<br>'.join(lines)}</p>{_table(['answer', 'votes', 'reasoning paths'], rows)}"


def _answer(path: dict[str, Any]) -> str:
    """Return what a path votes for; one that cannot be read votes for nothing, nor does one that was cut."""
    if isinstance(path["answer"], str):
        return path["answer"]
    return CUT if path.get("cut") else UNREADABLE


def _flip_card(row: dict[str, Any]) -> str:
    """Return an item that flipped: the question, the right answer, and what either model wrote."""
    wrong = " (" + escape(str(row["failure"])) + ")"
    before, after = ("wrong" + wrong, "right") if row["way"] == "gained" else ("right", "wrong" + wrong)
    return (
        f"<p><b>{_code(row['question'])}</b><br>{escape(row['way'])}; right answer {_code(row['gold'])}</p>"
        f"{_table([f'before: {before}', f'after: {after}'], [[_block(row['before']), _block(row['after'])]])}"
    )


def _level_card(row: dict[str, Any], run: dict[str, Any]) -> str:
    """Return how many questions a threshold keeps, and questions on either side of it, beside the run's threshold."""
    share = row["kept"] / row["total"]
    return (
        f"<p><b>{row['kept']:,} of {row['total']:,} questions stay ({share:.0%}) at {_number(row)}</b>; "
        f"this run's {_number(run)} keeps {run['kept']:,}</p>{_bar(share)}"
        f"{_table(['leaves: just too similar to one that stays'], [[_pairs(row['leaving'])]])}"
        f"{_table(['stays: just different enough'], [[_pairs(row['staying'])]])}"
    )


def _number(row: dict[str, Any]) -> str:
    return f"{row['threshold']:.2f}"


def _pairs(pairs: Iterable[tuple[str, str, float]]) -> str:
    """Return one line per question: its cosine to its neighbour, itself, the neighbour."""
    return "<br>".join(f"{cosine:.4f} {_code(one)} ~ {_code(other)}" for one, other, cosine in pairs) or "none"


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>"


def _block(text: object) -> str:
    return f'<pre style="white-space: pre-wrap; word-break: normal; margin: 0 0 4px">{escape(str(text))}</pre>'


def _bar(share: float, colour: str = BLUE) -> str:
    """Return a horizontal bar; its number stands beside it."""
    return f'<div style="background: {colour}; height: 8px; width: {round(100 * share)}px"></div>'


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    head = "".join(f'<th style="{CELL}">{name}</th>' for name in names)
    body = "".join("<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
