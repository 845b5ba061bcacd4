"""Prompts: every domain asks with its own words, takes others in their place, and leaves a model's braces alone."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.benchmarks import items
from crescent_utils.elicit import questions
from crescent_utils.runs import domains, layout

DOMAINS = [domains.get_domain(name) for name in ("arithmetic", "math_word_problems", "three_terms")]
ids = [domain.name for domain in DOMAINS]


@pytest.mark.parametrize("domain", DOMAINS, ids=ids)
def test_a_domain_is_whole(domain):
    assert domain.bait and domain.bait_prefixes and domain.benchmarks
    assert all(name in items.benchmark_names() or items.is_generated(name) for name in domain.benchmarks)
    assert 0 < domain.similarity_threshold <= 1 and 0 < domain.gates.min_words < domain.gates.max_words
    re.compile(domain.gates.pattern)
    question = "What is 13 + 4 + 6?" if domain.name == "three_terms" else "What is 3 + 4?"
    gates = {**domains.validity_gates(domain), "min_words": 1}
    assert questions.extract_question(question, **gates) == questions.Question(question)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DOMAINS), st.text(max_size=40), st.text(max_size=40))
def test_texts_come_through_unchanged_whatever_stands_in_them(domain, question, neighbour):
    asked = domains.solve_messages(domain, question)[-1]["content"]
    assert asked == domain.solve_prompt.replace("{question}", question)
    before, middle, after = re.split(r"\{question\}|\{neighbour\}", domain.rewrite_prompt)
    assert (
        domains.rewrite_messages(domain, question, neighbour)[-1]["content"]
        == before + question + middle + neighbour + after
    )


@pytest.mark.parametrize(
    "text", ["{question} Put it into \\boxed{}.", "{question} as {answer}", "{question} {", "{question} {0} }"]
)
def test_a_solve_prompt_may_hold_braces_of_its_own(text):
    domain = domains.get_domain("arithmetic", solve=text)
    assert domains.solve_messages(domain, "What is {3} + 4?")[-1]["content"] == text.replace(
        "{question}", "What is {3} + 4?"
    )


def test_the_system_prompt_comes_first_and_a_parameter_replaces_the_domains():
    domain = domains.get_domain("arithmetic")
    assert [m["role"] for m in domains.solve_messages(domain, "q")] == ["system", "user"]
    assert domains.solve_messages(domain, "q")[0]["content"] == domain.solve_system
    assert domains.solve_messages(domain, "q", "Be brief.")[0] == {"role": "system", "content": "Be brief."}
    words = domains.get_domain("math_word_problems")
    assert [m["role"] for m in domains.solve_messages(words, "q")] == ["user"]
    assert [m["role"] for m in domains.bait_messages(words, 0)[0]] == ["user"]
    assert [m["role"] for m in domains.rewrite_messages(words, "q", "n", "s")] == ["system", "user"]


def test_exemplars_are_turns_before_the_question():
    domain = domains.get_domain("arithmetic")
    asked = domains.solve_messages(domain, "What is 3 + 4?", exemplars=domain.exemplars)
    assert [m["role"] for m in asked] == ["system", *["user", "assistant"] * len(domain.exemplars), "user"]
    for i, exemplar in enumerate(domain.exemplars):
        assert asked[1 + 2 * i] == domains.solve_messages(domain, exemplar.question)[-1]
        assert asked[2 + 2 * i]["content"] == exemplar.path
    assert [asked[0], asked[-1]] == domains.solve_messages(domain, "What is 3 + 4?")


def test_a_bare_question_has_nothing_around_it_but_a_given_system_prompt():
    assert domains.bare_messages("{question}?") == [{"role": "user", "content": "{question}?"}]
    assert domains.bare_messages("q", "Be brief.")[0] == {"role": "system", "content": "Be brief."}


def test_own_exemplars_are_read_in_the_order_of_the_prompt(tmp_path):
    with pytest.raises(layout.RunError, match="own.*vote_shots: own"):
        domains.own_exemplars(tmp_path / "own")
    (tmp_path / "own" / "vote").mkdir(parents=True)
    rows = [("What is 9 - 2?", "It is 7.", "7", 0.5), ("What is 1 + 1?", "2", "2", 1.0)]
    table = pd.DataFrame(rows, columns=["question", "path", "answer", "agreement"])
    table.to_parquet(tmp_path / "own" / "vote" / "exemplars.parquet")
    read = domains.own_exemplars(tmp_path / "own")
    assert [(one.question, one.path, one.answer) for one in read] == [row[:3] for row in rows]


def test_each_bait_meets_each_prefix_once_and_then_again():
    domain = domains.get_domain("arithmetic", bait=["a", "b", "c"], bait_prefixes=["x", "y"])
    assert domains.bait_count(domain) == 6
    turns = [
        (messages[-1]["content"], prefix) for messages, prefix in (domains.bait_messages(domain, i) for i in range(12))
    ]
    assert set(turns[:6]) == {(bait, prefix) for bait in "abc" for prefix in "xy"}
    assert turns[:6] == turns[6:]


def test_what_is_given_takes_the_place_and_the_rest_stays():
    own = domains.get_domain("arithmetic")
    changed = domains.get_domain("arithmetic", bait=["b"], rewrite="{neighbour} {question}", solve="? {question}")
    assert (changed.bait, changed.rewrite_prompt, changed.solve_prompt) == (
        ("b",),
        "{neighbour} {question}",
        "? {question}",
    )
    assert (changed.bait_prefixes, changed.gates, changed.solve_system) == (
        own.bait_prefixes,
        own.gates,
        own.solve_system,
    )
    assert domains.get_domain("arithmetic") == own
    assert domains.get_domain("arithmetic", bait=[], bait_prefixes=[], rewrite="", solve="") == own


@pytest.mark.parametrize(
    "given_, name, lacks",
    [({"solve": "Solve it."}, "solve", "{question}"), ({"rewrite": "{question}"}, "rewrite", "{neighbour}"),
     ({"rewrite": "again"}, "rewrite", "{question}, {neighbour}")],
)  # fmt: skip
def test_a_prompt_without_its_placeholder_is_refused_by_name(given_, name, lacks):
    with pytest.raises(ValueError, match=name) as caught:
        domains.get_domain("arithmetic", **given_)
    assert lacks in str(caught.value) and repr(given_[name]) in str(caught.value)


def test_an_unknown_domain_is_named_with_all_and_the_nearest():
    with pytest.raises(
        ValueError,
        match="'arithmatic'.*allowed: arithmetic, commonsense, math_word_problems.*Did you mean 'arithmetic'",
    ):
        domains.get_domain("arithmatic")


@pytest.mark.parametrize("domain", DOMAINS, ids=ids)
def test_no_prompt_of_ours_is_taken_for_a_question(domain):
    # A small model repeats what it is asked; such an echo must not enter the pool.
    for bait in domain.bait:
        assert isinstance(questions.extract_question(bait, **domains.validity_gates(domain)), questions.Rejected)
