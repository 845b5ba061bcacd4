"""What a reader can move: its numbers are those of the tables, what a model wrote stays text, and a batch run keeps the
static form.
"""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets import embed
from shared import REFERENCE

from crescent_utils import evaluate
from crescent_utils.figures import interactive

OURS = {"table", "thead", "tbody", "tr", "th", "td", "p", "b", "br", "hr", "code", "pre", "div"}
LEVELS = pd.DataFrame([
    {"threshold": 0.7 + level / 100, "kept": 10 * level, "total": 400,
     "leaving": [(f"leaves {level}?", "a neighbour?", 0.7 + level / 100)], "staying": []}
    for level in range(31)
])  # fmt: skip
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> & $x$ and $y$ \"'"


class Page(HTMLParser):
    """The tags of a page, its text, and the text within `code` and `pre`."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.literal, self._open = Counter(), "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        assert tag in OURS and {name for name, _ in attributes} <= {"style"}
        self.tags[tag] += 1
        if tag in ("code", "pre"):
            self.literal.append("")
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("code", "pre"):
            self._open.pop()

    def handle_data(self, data):
        self.text += data
        if self._open:
            self.literal[-1] += data


@pytest.fixture
def batch(monkeypatch):
    """As papermill and nbval start a kernel, wherever the tests run."""
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)


def reference(stage, name):
    return pd.read_parquet(REFERENCE / stage / f"{name}.parquet")


def votes_of_the_reference():
    qa, rejected, paths = (reference("vote", name) for name in ("qa", "rejected", "paths"))
    questions = pd.concat([qa[["id", "question"]], rejected[["id", "question"]]]).sort_values("id", ignore_index=True)
    return questions, qa, rejected, paths


def flips_of_the_reference():
    scores = reference("evaluate", "scores")
    return evaluate.flipped_items(scores[scores["seed"] == 1])


def small_votes(question="Q?", path="p", answer="1", gold="1", reason=""):
    """One question with two paths, kept or rejected."""
    label = {"id": 3, "question": question, "answer": answer, "votes": 1, "total": 2, "tied": False, "gold": gold}
    rejected = pd.DataFrame([{"id": 3, "reason": reason}] if reason else [], columns=["id", "reason"])
    paths = pd.DataFrame([
        {"question_id": 3, "path": path, "answer": answer, "cut": False},
        {"question_id": 3, "path": "unfinished", "answer": None, "cut": True},
    ])  # fmt: skip
    return pd.DataFrame([{"id": 3, "question": question}]), pd.DataFrame([{**label, "correct": True}]), rejected, paths


def controls(view):
    """The widgets of a view by their kind; HBox and VBox are walked through."""
    found, waiting = {}, [view.make_widget()]
    while waiting:
        widget = waiting.pop()
        waiting += getattr(widget, "children", ())
        found[type(widget).__name__] = widget
    return found


# ---- the numbers


def test_votes_are_counted_by_what_became_of_their_questions():
    questions, qa, rejected, paths = votes_of_the_reference()
    view, text = interactive.vote_browser(questions, qa, rejected, paths)
    counts = {f"rejected, {reason.replace('_', ' ')}": n for reason, n in rejected["reason"].value_counts().items()}
    counts |= {"kept with a right label": qa["correct"].sum(), "kept with a wrong label": (~qa["correct"]).sum()}
    assert sum(counts.values()) == len(questions)
    assert dict(part.rsplit(": ", 1) for part in text.split("; ")) == {name: str(n) for name, n in counts.items()}
    assert view.text == text and Page(view.html).tags["table"] == len(counts)


def test_a_card_of_votes_has_every_path_under_its_answer():
    questions, qa, rejected, paths = votes_of_the_reference()
    view, _ = interactive.vote_browser(questions, qa, rejected, paths)
    found = controls(view)
    for entry in (1, 2, 57, len(questions)):
        found["IntSlider"].value = entry
        page = Page(found["HTML"].value)
        question = questions.iloc[entry - 1]
        own = paths[paths["question_id"] == question["id"]]
        assert question["question"] in page.text
        assert Counter(page.literal) >= Counter(own["path"])
        for answer, count in own["answer"].dropna().value_counts().items():
            assert f"{answer}{count} of {len(own)}" in page.text
        assert page.tags["tr"] == 1 + own["answer"].fillna(own["cut"].astype(str)).nunique()


def test_what_votes_for_nothing_has_a_bar_of_its_own():
    html = interactive.vote_browser(*small_votes())[0].html
    before, _, after = html.partition("(cut)")
    assert (before.count(interactive.BLUE), after.count(interactive.GREY)) == (1, 1)
    assert not before.count(interactive.GREY) and not after.count(interactive.BLUE)


def test_a_flip_shows_both_answers_and_which_was_wrong():
    flipped = flips_of_the_reference()
    view, text = interactive.flip_browser(flipped)
    ways = flipped["way"].value_counts()
    assert text.startswith(f"{ways['gained']} gained, {ways['lost']} lost; ")
    for (way, kind), count in flipped.groupby(["way", "kind"]).size().items():
        assert f"{way} · {kind}: {count}" in text
    found = controls(view)
    for number, row in enumerate(flipped.to_dict("records"), start=1):
        found["IntSlider"].value = number
        page = Page(found["HTML"].value)
        assert page.literal == [row["question"], row["gold"], row["before"], row["after"]]
        wrong = f"{'before' if row['way'] == 'gained' else 'after'}: wrong ({row['failure']})"
        assert wrong in page.text and page.text.count("wrong") == 1
    assert Page(view.html).tags["tr"] == 1 + 2 * interactive.MOST_FLIPS


def test_a_flip_names_its_benchmark_where_there_are_several():
    flipped = flips_of_the_reference()
    two = pd.concat([flipped, flipped.assign(benchmark="asdiv", kind="")])
    _, text = interactive.flip_browser(two)
    assert f"asdiv · lost: {(flipped['way'] == 'lost').sum()}" in text
    assert f"{flipped['benchmark'].iloc[0]} · gained · addition: " in text


def test_the_slider_stands_at_the_runs_threshold_and_shows_where_it_is_moved():
    view, text = interactive.threshold_slider(LEVELS, 0.83)
    assert "kept of 400 at 0.70: 0, 0.75: 50, 0.80: 100, 0.83: 130, 0.85: 150" in text
    found = controls(view)
    assert "130 of 400 questions stay (32%) at 0.83" in Page(found["HTML"].value).text
    found["SelectionSlider"].value = 30
    page = Page(found["HTML"].value)
    assert "300 of 400 questions stay (75%) at 1.00; this run's 0.83 keeps 130" in page.text
    assert page.literal == ["leaves 30?", "a neighbour?"] and page.text.endswith("stays: just different enoughnone")


ENTRIES = st.lists(st.tuples(st.sampled_from("xyz"), st.text("aAbBß é", max_size=4)), max_size=30)


@settings(deadline=None)
@given(ENTRIES, st.sampled_from(["all", *"xyz"]), st.text("aAbBß é", max_size=2))
def test_a_browser_finds_what_has_the_group_and_the_words(entries, group, words):
    browser = interactive.Browser([name for name, _ in entries], [text for _, text in entries], str)
    expected = []
    for number, (name, text) in enumerate(entries):
        if group in ("all", name) and text.casefold().find(words.casefold()) >= 0:
            expected.append(number)
    assert browser.matching(group, words) == expected
    counts = browser.counts()
    assert counts.pop("all") == len(entries) == sum(counts.values())
    assert all(len(browser.matching(name)) == count for name, count in counts.items())


def test_leafing_through_what_was_searched():
    questions, qa, rejected, paths = votes_of_the_reference()
    found = controls(interactive.vote_browser(questions, qa, rejected, paths)[0])
    found["IntSlider"].value = 500
    found["Dropdown"].value = "kept with a wrong label"
    wrong = qa[~qa["correct"]].sort_values("id")
    assert (found["IntSlider"].value, found["IntSlider"].max) == (1, len(wrong))
    found["Text"].value = "WHAT IS 1"
    matches = wrong[wrong["question"].str.contains("What is 1")]
    assert found["IntSlider"].max == len(matches) > 1
    found["IntSlider"].value = len(matches)
    assert matches["question"].iloc[-1] in Page(found["HTML"].value).text
    found["Text"].value = "no such words"
    assert found["HTML"].value == "<p>none matches</p>" and found["IntSlider"].max == 1


# ---- what a model wrote


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_what_a_model_wrote_stays_text(question, path, answer):
    for written in (question, path, answer):
        page = Page(interactive.vote_browser(*small_votes(question, path, answer, answer))[0].html)
        assert written.replace("\r\n", "\n").replace("\r", "\n") in [
            part.replace("\r\n", "\n").replace("\r", "\n") for part in page.literal
        ]


def test_nothing_hostile_becomes_a_tag_or_mathematics():
    flip = {"benchmark": HOSTILE, "kind": HOSTILE, "way": "gained", "question": HOSTILE, "gold": HOSTILE,
            "before": HOSTILE, "after": HOSTILE, "failure": "other"}  # fmt: skip
    level = {"threshold": 0.9, "kept": 1, "total": 2, "leaving": [(HOSTILE, HOSTILE, 0.9)], "staying": []}
    views = [
        interactive.vote_browser(*small_votes(HOSTILE, HOSTILE, HOSTILE, HOSTILE))[0],
        interactive.flip_browser(pd.DataFrame([flip]))[0],
        interactive.threshold_slider(pd.DataFrame([level]), 0.9)[0],
    ]
    for view in views:
        for html in (view.html, controls(view)["HTML"].value):
            page = Page(html)  # knows no other tags and attributes than ours
            assert page.literal.count(HOSTILE) >= 2
            assert page.text.count("$") == "".join(page.literal).count("$")


# ---- static and live


def test_a_batch_run_keeps_the_static_form(batch):
    view, text = interactive.flip_browser(flips_of_the_reference())
    assert set(view._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert view._repr_mimebundle_()["text/plain"] == text


@pytest.mark.parametrize(
    ("name", "value", "there"),
    [
        ("JPY_SESSION_NAME", "notebooks/03_vote.ipynb", True),
        ("VSCODE_PID", "7", True),
        ("KAGGLE_KERNEL_RUN_TYPE", "Interactive", True),
        ("KAGGLE_KERNEL_RUN_TYPE", "Batch", False),
    ],
)
def test_where_a_reader_sits_the_widget_comes_besides(batch, monkeypatch, name, value, there):
    monkeypatch.setenv(name, value)
    view, _ = interactive.threshold_slider(LEVELS, 0.9)
    bundle = view._repr_mimebundle_()
    assert (interactive.WIDGET in bundle) == there and bundle["text/html"] == view.html
    monkeypatch.setattr(interactive, "find_spec", lambda _: None)  # ipywidgets is not installed
    assert interactive.WIDGET not in view._repr_mimebundle_()


def test_a_saved_widget_is_small_however_many_questions_there_are():
    questions, qa, rejected, paths = votes_of_the_reference()
    many = pd.concat([questions] * 20, ignore_index=True)
    widget = interactive.vote_browser(many, qa, rejected, paths)[0].make_widget()
    assert len(json.dumps(embed.dependency_state([widget]))) < 12_000
    assert len(interactive.threshold_slider(LEVELS, 0.9)[0].html) < 4_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: interactive.threshold_slider(LEVELS.iloc[:0], 0.9),
        lambda: interactive.flip_browser(flips_of_the_reference().iloc[:0]),
        lambda: interactive.vote_browser(*(table.iloc[:0] for table in small_votes())),
    ],
)
def test_nothing_to_look_at(make):
    view, text = make()
    assert text.endswith("no data") and controls(view)["HTML"].value == text
