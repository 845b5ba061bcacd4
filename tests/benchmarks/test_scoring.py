"""Scoring: numbers against lm-evaluation-harness's filters and metric, other forms against what a reader would say."""

from __future__ import annotations

import re
from functools import partial

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import REFERENCE, grows_in_proportion

from crescent_utils.answers import reading
from crescent_utils.benchmarks import scoring

IGNORED = [",", "\\$", "(?s).*#### ", "\\.$"]  # lm-evaluation-harness, gsm8k.yaml


@pytest.fixture(scope="module")
def harness():
    """Strict and flexible verdicts of lm-evaluation-harness on one completion, by its own code."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    filters = {
        "strict": RegexFilter(r"#### (\-?[0-9\.\,]+)"),
        "flexible": RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1),
    }

    def judge(completion, gold):
        said = {name: one.apply([[completion]], [{}]) for name, one in filters.items()}
        read = {name: list(texts)[0][0] for name, texts in said.items()}
        options = {"regexes_to_ignore": IGNORED, "ignore_case": True, "ignore_punctuation": False}
        return {
            name: bool(exact_match_hf_evaluate([text], [gold], **options)["exact_match"]) for name, text in read.items()
        }

    return judge


def test_numbers_are_scored_as_the_harness_scores_them_on_recorded_answers(harness):
    rows = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet").drop_duplicates(["gold", "completion"])
    seen = set()
    for completion, gold in rows[["completion", "gold"]].itertuples(index=False, name=None):
        ours = scoring.score_answer(completion, gold)
        theirs = harness(completion, gold)
        assert {name: ours[name] for name in theirs} == theirs, completion
        seen.add(ours["flexible"])
    assert seen == {True, False} and len(rows) > 500


PIECES = st.sampled_from(
    ["#### ", "####", "12", "1,234", "$", ".", ",", "-", "7", "7.0", " ", "\n", "is", "= ", "0", "%", "12."]
)


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(PIECES, max_size=9), gold=st.sampled_from(["7", "12", "1234", "-12", "0", "127"]))
def test_numbers_are_scored_as_the_harness_scores_them_on_odd_texts(harness, pieces, gold):
    completion = "".join(pieces)
    ours = scoring.score_answer(completion, gold)
    assert {name: ours[name] for name in ("strict", "flexible")} == harness(completion, gold)


@pytest.mark.parametrize(
    "form, completion, gold, strict, flexible, symbolic",
    [
        ("list", "The answer is 15 cm and 6 cm.", "6;15", False, True, True),
        ("list", "The answer is 6 cm.", "6;15", False, False, False),
        ("list", "#### 6; 15", "6;15", True, True, True),
        ("list", "They are 45, 45 and 90.", "45;45;90", False, True, True),
        ("list", "They are 45 and 90.", "45;45;90", False, False, False),
        ("list", "It is 1,000 and 4.0.", "4;1000", False, True, True),
        ("list", "The answer is 6 and 15.\nI hope that helps!", "6;15", False, False, True),
        ("text", "So the answer is John.", "John", False, True, True),
        ("text", "Johnny has more.", "John", False, False, False),
        ("text", "the ratio is 3 to 4", "3:4", False, True, True),
        ("text", "13:4", "3:4", False, False, False),
        ("text", "It will be 3:30 PM.", "3:30 p.m.", False, True, True),
        ("text", "#### yes", "Yes", True, True, True),
        ("text", "They are equal", "equal", False, True, True),
        ("text", "", "Yes", False, False, False),
        ("text", "Answer: ) ] }\nDone", ") ] }", False, False, True),
        ("choice", "The answer is (B).", "B", False, True, True),
        ("choice", "#### (A)", "A", True, True, True),
        ("choice", "Not (A) but (C)", "A", False, False, False),
        ("choice", "", "A", False, False, False),
        ("none", "The answer cannot be determined.", "none", False, True, True),
        ("none", "#### None", "none", True, True, True),
        ("none", "We do not have enough information.", "none", False, True, True),
        ("none", "", "none", False, False, False),
        ("none", "The answer is 12.", "none", False, False, False),
        ("none", "The price is not given, so it is 12.\nThe answer is 12.", "none", False, False, False),
    ],
)
def test_the_other_forms_have_a_stated_rule(form, completion, gold, strict, flexible, symbolic):
    assert scoring.score_answer(completion, gold, form) == {
        "strict": strict,
        "flexible": flexible,
        "symbolic": symbolic,
    }


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200), form=st.sampled_from(scoring.FORMS))
def test_any_text_is_scored_and_read(text, form):
    found = scoring.score_answer(text, "7", form)
    assert set(found) == set(scoring.SCORINGS) and all(isinstance(value, bool) for value in found.values())
    read = scoring.read_scored_answer(text, form)
    assert read is None or read
    if form == "number":
        assert read == reading.extract_answer(text)


def test_long_texts_take_time_in_proportion():
    for text in ("#" * 50_000, "answer " * 20_000, "1," * 50_000, "is " * 30_000 + "is unknown", "(A" * 40_000):
        for form in scoring.FORMS:
            assert set(scoring.score_answer(text, "7", form)) == set(scoring.SCORINGS)
            assert grows_in_proportion(partial(scoring.score_answer, gold="7", form=form), text), (text[:9], form)


@pytest.mark.parametrize(
    ("phrase", "example"),
    [
        (0, "The price cannot be determined."),
        (1, "We don't know how many came."),
        (2, "There is not enough information."),
        (3, "The text gives insufficient data."),
        (3, "Because of missing information, nothing follows."),
        (4, "The number of bags is not given."),
        (5, "**None**"),
    ],
)
def test_each_way_to_say_that_there_is_no_answer_reads_its_example_alone(phrase, example):
    assert [n for n, other in enumerate(scoring.NO_ANSWER) if re.search(other, example, re.I)] == [phrase]
    assert scoring.score_answer(example, "none", "none") == {"strict": False, "flexible": True, "symbolic": True}


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match="form='letters' is unknown: allowed are number"):
        scoring.score_answer("7", "7", "letters")
