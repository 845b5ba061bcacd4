"""Elicit: whose turn it is, when sampling stops, and what the tables count; on the reference run's real completions."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import REFERENCE

from crescent_utils.elicit.sampling import (
    Elicited,
    bait_requests,
    bait_turns,
    read_questions,
    sample_completions,
    yield_table,
)
from crescent_utils.generation import generator, store
from crescent_utils.runs import domains, layout, params

ARITHMETIC = domains.get_domain("arithmetic")
GATES = domains.validity_gates(ARITHMETIC)
WORDS = domains.validity_gates(domains.get_domain("math_word_problems"))
PIECES = ["What is 3 + 4?", "Sure! ", "\n", "?", "½", "Tom has 5 apples. ", "How many? ", "Answer: 9", "x", "$5.50"]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=3).map("".join)
PROTOCOLS = ("paper", "released", "strict")


def of(**values):
    return params.build_settings("elicit", values)


SAMPLED = layout.read_manifest(REFERENCE, "elicit")["counts"]["sampled"]


@pytest.fixture
def reference():
    with generator.open_generator(of()) as reference_generator:
        yield reference_generator


def different_questions(completions):
    """The set of questions that are read from arithmetic completions."""
    zeros, blanks = [0] * len(completions), [""] * len(completions)
    return set(read_questions(completions, zeros, blanks, GATES)[0]["question"])


def test_the_defaults_ask_for_the_reference_runs_completions(reference):
    requests = bait_requests(reference, ARITHMETIC, of(), 0, SAMPLED)
    rounds = -(-SAMPLED // len(bait_turns(ARITHMETIC, of())))  # the last may be a part
    assert len(set(requests)) == SAMPLED and {sample for _, sample in requests} == set(range(rounds))
    sampled = sample_completions(reference, ARITHMETIC, of())
    turns = bait_turns(ARITHMETIC, of())
    prefixes = [turns[number].prefix for number in sampled.turns]
    kept, rejected = read_questions(sampled.texts, sampled.turns, prefixes, GATES)
    for name, table in (("questions", kept), ("rejected", rejected)):
        pd.testing.assert_frame_equal(table, pd.read_parquet(REFERENCE / "elicit" / f"{name}.parquet"))
    assert sampled.stopped == f"{SAMPLED} completions"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 40),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.sampled_from([0.5, 1.0, 1.5]), max_size=3, unique=True),
)
def test_parts_join_to_the_whole_and_no_completion_is_asked_for_twice(start, count, baits, prefixes, temperatures):
    domain = domains.get_domain(
        "arithmetic", bait=[f"b{i}" for i in range(baits)], bait_prefixes=[f"p{i}" for i in range(prefixes)]
    )
    elicit_settings = of(elicit_temperatures=temperatures)

    class Requester:
        def request(self, messages, sampling, prefix=""):
            return store.Request.of("m", messages, sampling, prefix)

    def requests(first, number):
        return bait_requests(Requester(), domain, elicit_settings, first, number)

    whole = requests(0, start + count)
    assert whole == requests(0, start) + requests(start, count)
    assert len(set(whole)) == start + count
    turns = bait_turns(domain, elicit_settings)
    assert len(turns) == baits * prefixes * max(1, len(temperatures))
    for number, (request, _) in enumerate(whole):
        turn = turns[number % len(turns)]
        assert (request.prefix, request.sampling.temperature) == (turn.prefix, turn.temperature)
        assert request.messages[-1][1] == domain.bait[turn.bait]


def test_it_stops_at_so_many_different_questions(reference):
    sampled = sample_completions(reference, ARITHMETIC, of(elicit_until=200, elicit_chunk=90))
    before_last_chunk = different_questions(sampled.texts[:-90])
    questions = different_questions(sampled.texts)
    assert len(before_last_chunk) < 200 <= len(questions) and len(sampled.texts) % 90 == 0
    assert sampled.stopped == f"{len(questions)} different questions"
    # A shorter run is the beginning of the longer one.
    assert sample_completions(reference, ARITHMETIC, of()).texts[: len(sampled.texts)] == sampled.texts


def test_it_stops_when_the_model_runs_dry(reference):
    sampled = sample_completions(reference, ARITHMETIC, of(elicit_min_yield=0.3, elicit_chunk=100))
    assert 100 < len(sampled.texts) < SAMPLED
    shares, earlier = [], set()
    for start in range(0, len(sampled.texts), 100):
        new_questions = different_questions(sampled.texts[start : start + 100]) - earlier
        earlier |= new_questions
        shares.append(len(new_questions) / 100)
    assert all(share >= 0.3 for share in shares[:-1]) and shares[-1] < 0.3
    assert sampled.stopped == f"{shares[-1]:.1%} of the last 100 were new questions"


def test_the_samples_are_the_most_it_takes(reference):
    sampled = sample_completions(reference, ARITHMETIC, of(elicit_samples=130, elicit_until=10_000, elicit_chunk=50))
    assert len(sampled.texts) == 130 and sampled.stopped == "130 completions"


def test_yields_count_each_completion_once(reference):
    sampled = sample_completions(reference, ARITHMETIC, of())
    turns = bait_turns(ARITHMETIC, of())
    prefixes = [turns[number].prefix for number in sampled.turns]
    kept, rejected = read_questions(sampled.texts, sampled.turns, prefixes, GATES)
    by_prefix = yield_table(sampled, kept, turns, ["prefix"])
    assert by_prefix["prefix"].tolist() == list(ARITHMETIC.bait_prefixes)
    whole_rounds, begun = divmod(SAMPLED, len(turns))
    assert by_prefix["sampled"].tolist() == [whole_rounds + (place < begun) for place in range(len(turns))]
    assert by_prefix["kept"].sum() == len(kept) == SAMPLED - len(rejected)
    assert by_prefix["kept"].tolist() == kept.groupby("prefix").size().reindex(by_prefix["prefix"]).tolist()
    whole = yield_table(sampled, kept, turns, ["temperature"])
    assert whole.to_dict("records") == [
        {
            "temperature": 1.0,
            "sampled": SAMPLED,
            "kept": len(kept),
            "different": kept["question"].nunique(),
            "yield": round(len(kept) / SAMPLED, 3),
        }
    ]
    nothing = yield_table(Elicited([], [], [], ""), kept.head(0), turns, ["bait", "prefix"])
    assert len(nothing) == 0 and list(nothing.columns) == ["bait", "prefix", "sampled", "kept", "different", "yield"]


# --- read ---


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=8), st.sampled_from(PROTOCOLS), st.sampled_from([GATES, WORDS, {}]))
def test_every_completion_is_kept_or_rejected_with_a_reason(completions, protocol, gates):
    baits = [i % 3 for i in range(len(completions))]
    prefixes = [f"p{i}" for i in range(len(completions))]
    kept, rejected = read_questions(completions, baits, prefixes, gates, protocol)
    assert sorted([*kept["id"], *rejected["id"]]) == list(range(len(completions)))
    assert (rejected["reason"] != "").all() and (kept["question"] != "").all()
    for row in pd.concat([kept, rejected]).itertuples():
        assert (row.bait, row.prefix) == (baits[row.id], prefixes[row.id])
    assert [completions[i] for i in rejected["id"]] == rejected["text"].tolist()


def test_what_the_released_cleaner_costs():
    whole = "Tom spends 3/4 of $5.50 on milk. How much is left?"
    chatty = f"Of course! {whole} (Hint: subtract.)"
    ours, _ = read_questions([whole, chatty], [0, 0], ["", ""], WORDS)
    assert ours["question"].tolist()[0] == whole
    released, rejected = read_questions([whole, chatty], [0, 0], ["", ""], WORDS, "released")
    assert released["question"].tolist() == ["Tom spends 34 of 5. 50 on milk. How much is left?"] * 2
    assert len(rejected) == 0


def test_the_released_cleaner_rejects_what_asks_nothing_and_ignores_our_gates():
    asks_not, short = "Find the sum of 3 and 4.", "Why?"
    kept, rejected = read_questions([asks_not, short], [0, 1], ["", ""], WORDS, "released")
    assert kept["question"].tolist() == [short] and rejected["reason"].tolist() == ["empty"]
    kept, rejected = read_questions([asks_not, short], [0, 1], ["", ""], {**WORDS, "min_words": 3})
    assert kept["question"].tolist() == [asks_not] and rejected["reason"].tolist() == ["too_short"]


def test_the_arithmetic_gate_closes_a_question_that_the_stop_string_cut():
    kept, rejected = read_questions(
        ["What is 3 + 4?", "What is 3 + 4", "What is 3 + 4 + 5?", "What is it?"], [0] * 4, [""] * 4, GATES
    )
    assert kept["question"].tolist()[0] == "What is 3 + 4?"
    assert {2, 3} <= set(rejected["id"])
