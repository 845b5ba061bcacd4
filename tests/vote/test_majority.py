"""The vote against a brute-force count, and the rules for ties, thresholds, winning paths and LMSI's formats."""

from collections import Counter
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.runs import Exemplar
from crescent_utils.vote.formats import lmsi_formats
from crescent_utils.vote.majority import choose_path, majority_vote

BALLOTS = st.lists(st.sampled_from(["1", "2", "3", None]), max_size=9)
SPELLINGS = {"1": ["1", "1.0", "$1", "2/2"], "2": ["2", "two", "2 apples"], "3": ["3", "3%", "\\frac{6}{2}"]}


@settings(deadline=None)
@given(BALLOTS, st.data())
def test_counts_agree_with_brute_force(ballots: list[str | None], data: st.DataObject) -> None:
    spelled = [b and data.draw(st.sampled_from(SPELLINGS[b])) for b in ballots]
    vote = majority_vote(spelled, seed=data.draw(st.integers(0, 99)))
    counts = Counter(b for b in ballots if b is not None)
    ranked = [n for _, n in counts.most_common()] + [0, 0]
    assert vote.total == len(ballots)
    assert vote.votes == ranked[0]
    assert vote.tied == (ranked[0] == ranked[1] > 0)
    assert (vote.answer is None) == (not counts)
    assert vote.answer is None or counts[vote.answer] == ranked[0]
    if ballots:
        assert vote.agreement == ranked[0] / len(ballots)
        assert vote.margin == (ranked[0] - ranked[1]) / len(ballots)
    readable = sum(counts.values())
    entropy = sum(-n / readable * log2(n / readable) for n in counts.values())
    assert vote.entropy == pytest.approx(entropy, abs=1e-9)


@settings(deadline=None)
@given(BALLOTS, st.randoms(), st.integers(0, 9))
def test_seeded_ties_do_not_depend_on_the_order(ballots: list[str | None], shuffler: object, seed: int) -> None:
    mixed = ballots[:]
    shuffler.shuffle(mixed)  # type: ignore[attr-defined]
    assert majority_vote(ballots, seed=seed) == majority_vote(mixed, seed=seed)


def test_seeds_draw_each_of_the_tied_answers() -> None:
    won = Counter(majority_vote(["1", "2", "3"], seed=s).answer for s in range(300))
    assert set(won) == {"1", "2", "3"}
    assert min(won.values()) > 60


def test_ties_first_and_abstain() -> None:
    tie = ["2", "1", "1", "2", None]
    assert majority_vote(tie, ties="first").answer == "2"
    vote = majority_vote(tie, ties="abstain")
    assert (vote.answer, vote.votes, vote.tied, vote.reason) == (None, 2, True, "tie")
    assert majority_vote(["2", "1", "2"], ties="abstain").answer == "2"


def test_unreadable_counts_in_the_total_but_does_not_win() -> None:
    vote = majority_vote([None, None, None, "7"])
    assert (vote.answer, vote.votes, vote.total, vote.agreement) == ("7", 1, 4, 0.25)
    assert majority_vote([None, None]).reason == "no_answer"
    assert majority_vote([]).answer is None


def test_released_rule_lets_no_number_win() -> None:
    vote = majority_vote([None, None, "7"], ties="first", none_can_win=True)
    assert (vote.answer, vote.votes, vote.reason) == (None, 2, "no_answer")
    assert majority_vote(["7", None], ties="first", none_can_win=True).answer == "7"


@settings(deadline=None)
@given(BALLOTS, st.floats(0, 1), st.floats(0, 1))
def test_thresholds_only_take_answers_away(ballots: list[str | None], agreement: float, margin: float) -> None:
    free = majority_vote(ballots)
    vote = majority_vote(ballots, agreement, min_margin=margin)
    passes = free.answer is not None and free.agreement >= agreement and free.margin >= margin
    assert vote.answer == (free.answer if passes else None)
    assert (vote.reason == "") == passes


@pytest.mark.parametrize("bad", [{"ties": "last"}, {"min_agreement": 1.5}, {"min_margin": -0.1}])
def test_bad_settings_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        majority_vote(["1"], **bad)  # type: ignore[arg-type]


def test_choose_path() -> None:
    paths, answers = ["long path", "short", "other", "brief", "none"], ["5", "5.0", "6", "$5", None]
    assert choose_path(paths, answers, "5", "all") == [0, 1, 3]
    assert choose_path(paths, answers, "5", "first") == [0]
    assert choose_path(paths, answers, "5", "shortest") == [1]
    assert {choose_path(paths, answers, "5", "random", seed)[0] for seed in range(60)} == {0, 1, 3}
    assert choose_path(paths, answers, "9", "shortest") == []
    assert choose_path(paths, answers, "5", "most_likely", likelihoods=[-2.0, -1.0, -0.5, -1.0, 0.0]) == [1]
    with pytest.raises(ValueError, match="most_likely.*likelihoods.*shortest"):
        choose_path(paths, answers, "5", "most_likely")


def test_lmsi_formats() -> None:
    exemplar = Exemplar(question="What is 1 + 1?", path="One and one is two. The answer is 2.", answer="2")
    rows = lmsi_formats("What is 2 + 3?", "Two and three is five. The answer is 5.", "5", [exemplar])
    names = ["few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct"]
    assert [row["format"] for row in rows] == names
    few_cot, few_direct, zero_cot, zero_direct = rows
    assert few_cot["prompt"] == "Q: What is 1 + 1?\nA: One and one is two. The answer is 2.\n\nQ: What is 2 + 3?\nA:"
    assert few_direct["prompt"] == "Q: What is 1 + 1?\nA: The answer is 2.\n\nQ: What is 2 + 3?\nA:"
    assert zero_cot["prompt"].endswith("step by step.") and zero_direct["prompt"] == "Q: What is 2 + 3?\nA:"
    assert few_cot["path"] == zero_cot["path"] == "Two and three is five. The answer is 5."
    assert few_direct["path"] == zero_direct["path"] == "The answer is 5."
