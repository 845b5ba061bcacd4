"""How good the labels are: against brute force over all subsets, scipy's Wilson, and cases worked by hand."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from shared import REFERENCE

from crescent_utils import answers, stats
from crescent_utils.generation import generator
from crescent_utils.generation.store import Sampling
from crescent_utils.runs import domains, params
from crescent_utils.vote import exemplars, labels, tables

LABELS = pd.DataFrame(
    [
        {"id": 1, "agreement": 0.25, "correct": False, "question": "a"},
        {"id": 2, "agreement": 0.25, "correct": True, "question": "bb"},
        {"id": 3, "agreement": 0.5, "correct": None, "question": "ccc"},
        {"id": 4, "agreement": 1.0, "correct": True, "question": "dddd"},
        {
            "id": 4,
            "agreement": 1.0,
            "correct": True,
            "question": "dddd",
        },  # all winning paths kept: a question counts once
    ]
)


def test_a_threshold_keeps_each_question_once():
    sweep = labels.kept_by_threshold(LABELS)
    assert sweep["min_agreement"].tolist() == [0.25, 0.5, 1.0]
    assert sweep["kept"].tolist() == [4, 2, 1] and sweep["known"].tolist() == [3, 1, 1]
    assert sweep["right"].tolist() == pytest.approx([2 / 3, 1, 1])
    interval = binomtest(2, 3).proportion_ci(method="wilson")
    assert (sweep["low"][0], sweep["high"][0]) == pytest.approx((interval.low, interval.high), abs=1e-6)
    without = labels.kept_by_threshold(LABELS.assign(correct=None))
    assert without["kept"].tolist() == [4, 2, 1] and without["right"].isna().all()


def test_the_reliability_curve_is_by_agreement():
    curve = labels.accuracy_by_agreement(LABELS)
    assert curve["known"].tolist() == [2, 0, 1] and curve["right"].tolist()[::2] == [0.5, 1.0]


def test_groups_of_length_are_of_about_one_size_and_named_by_their_ends():
    groups = labels.length_groups(["x" * n for n in (3, 3, 5, 8, 13, 21, 34, 55)], most=4)
    assert Counter(groups) == {" 3": 2, " 5- 8": 2, "13-21": 2, "34-55": 2}
    assert labels.length_groups(["same", "long"]) == ["4", "4"]
    assert labels.length_groups([]) == []
    with pytest.raises(ValueError, match="groups: 1 for 5 labels"):
        labels.agreement_by_group(LABELS, ["a"])
    found = labels.agreement_by_group(LABELS, ["b", "a", "b", "b", "b"])
    assert found["group"].tolist() == ["a", "b"] and found["n"].tolist() == [1, 4]
    assert found["agreement"].tolist() == pytest.approx([0.25, 0.6875])


def path_table(answer_rows):
    """The vote's table of paths as far as it is read here: answers, and as their paths the same texts."""
    rows = [(number, answer) for number, row in enumerate(answer_rows) for answer in row]
    table = pd.DataFrame(rows, columns=["question_id", "answer"])
    return table.assign(path=table["answer"])


def curve_of(answer_rows, golds, **more):
    known = {number: gold for number, gold in enumerate(golds) if gold is not None}
    return labels.votes_needed(path_table(answer_rows), known, **more)


BALLOTS = st.lists(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=3, max_size=3), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(BALLOTS)
def test_one_and_all_paths_are_exact(ballots):
    """By all subsets of one, and of three: a tie counts by the chance of its draw."""
    curve = curve_of(ballots, ["1"] * len(ballots), votes=(1, 3))
    for m, found in zip((1, 3), curve["right"], strict=True):
        shares = []
        for ballot in ballots:
            for part in combinations(ballot, m):
                counts = Counter(x for x in part if x is not None)
                best = max(counts.values(), default=0)
                leaders = [x for x, n in counts.items() if n == best]
                shares.append(Fraction("1" in leaders, max(1, len(leaders))))
        assert found == pytest.approx(float(sum(shares) / len(shares)))


ROWS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["1", "1.0", "2", "So 3", None])), max_size=25)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.dictionaries(st.integers(0, 6), st.sampled_from(["1", "2"])), st.integers(0, 3))
def test_rows_of_several_questions_may_alternate_in_the_table(rows, golds, seed):
    """The same as with a table for each question, in the order in which the questions come."""
    table = pd.DataFrame(rows, columns=["question_id", "answer"]).astype({"answer": object})
    parts = [(number, part) for number, part in table.groupby("question_id", sort=False) if number in golds]
    expected = stats.accuracy_by_votes(
        [answers.equality_classes(part["answer"]) for _, part in parts],
        [answers.equality_class(golds[number]) for number, _ in parts],
        seed,
    )
    pd.testing.assert_frame_equal(labels.votes_needed(table, golds, seed), expected)
    table = table.assign(path=table["answer"].fillna("none"), cut=table.index % 3 == 0)
    one_by_one = pd.concat([table.head(0), *(part for _, part in table.groupby("question_id", sort=False))])
    strict = params.build_settings("vote", {"min_agreement": 0.5, "seed": seed})
    for cost in (labels.cost_of_released, lambda paths, golds: labels.cost_of_cut(paths, golds, strict)):
        pd.testing.assert_frame_equal(cost(table, golds), cost(one_by_one, golds))


def test_random_subsets_are_near_all_subsets():
    ballots = [["1", "2", "1", None, "3", "1", "2", "2"], ["2", "2", "1", "1", "1", "3", "3", None]] * 40
    curve = curve_of(ballots, ["1"] * 80, seed=4, votes=(3, 5, 16))
    assert curve["m"].tolist() == [3, 5, 8], "sixteen are not stored, eight are"
    for m, found in zip((3, 5, 8), curve["right"], strict=True):
        exact = []
        for ballot in ballots[:2]:
            for part in combinations(ballot, m):
                counts = Counter(x for x in part if x is not None)
                leaders = [x for x, n in counts.items() if n == max(counts.values())]
                exact.append(("1" in leaders) / len(leaders))
        assert found == pytest.approx(sum(exact) / len(exact), abs=0.04)
    assert curve_of(ballots, ["1"] * 80, seed=4).equals(curve_of(ballots, ["1"] * 80, seed=4))


def test_unknown_golds_and_gaps_of_a_table_are_not_judged():
    assert curve_of([["1"], ["2"]], [None, None]).empty
    curve = curve_of([["1", float("nan")], ["9", "9"]], ["1.0", None])
    assert curve["m"].tolist() == [1, 2] and curve["n"].tolist() == [1, 1]
    assert curve["right"].tolist() == [0.5, 1.0], "the gap is never a candidate"


def test_what_the_released_reading_costs():
    paths = [
        ["It costs $1,234.", "So $1,234 in all.", "1234"],
        ["The answer is 3/4.", "0.75", "It is 0.75"],
        ["no idea"] * 3,
    ]
    cost = labels.cost_of_released(path_table(paths), {0: "1234", 1: "3/4", 2: "5"}).set_index("rule")
    assert cost["right"].tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3])  # 234 wins over 1234; 4, 0.75, 0.75
    assert cost["labelled"].tolist() == [2, 2, 2]
    assert cost["difference"].tolist() == pytest.approx([0, -1 / 3, -1 / 3])
    assert labels.cost_of_released(path_table([]), {}).empty is False, "three rules, nothing judged"


def test_what_it_costs_to_let_cut_paths_vote():
    table = path_table([["It is 7.", "It is 8", "So 8"], ["It is 3.", "It is 3.", "4"], ["5", "6", "6"]])
    table["cut"] = [False, True, True, False, False, True, True, True, True]
    settings = params.build_settings("vote", {"min_agreement": 0.6})
    cost = labels.cost_of_cut(table, {0: "7", 1: "3", 2: "6"}, settings).set_index("rule")
    assert cost.index.tolist() == ["cut paths cannot win", "cut paths vote"]
    assert cost["agreement"].tolist() == pytest.approx([(1 / 3 + 2 / 3 + 0) / 3, 2 / 3])
    assert cost["kept"].tolist() == [1, 3] and cost["kept_right"].tolist() == pytest.approx([1.0, 2 / 3])
    assert cost["right"].tolist() == pytest.approx([2 / 3, 2 / 3]) and cost["n"].tolist() == [3, 3]
    assert cost["difference"].tolist() == [0.0, 0.0], "one is lost and one is gained"
    unknown = labels.cost_of_cut(table, {}, settings)
    assert unknown["kept"].tolist() == [1, 3] and unknown[["kept_right", "right"]].isna().all(axis=None)
    abstaining = labels.cost_of_cut(
        path_table([["1", "2"]]).assign(cut=[False, False]),
        {0: "1"},
        settings.model_copy(update={"protocol": "strict"}),
    )
    assert abstaining["right"].tolist() == [0.0, 0.0], "a tie has no label in strict"


def test_cut_paths_win_only_the_released_vote():
    table = path_table([["It is 7.", "It is 8", "So 8"]]).assign(cut=[False, True, True])
    cost = labels.cost_of_released(table, {0: "7"})
    assert cost["right"].tolist() == [1.0, 1.0, 0.0]


def test_what_cut_paths_cost_the_reference_run():
    """The table is what two votes of their own give."""
    domain = domains.get_domain("arithmetic")
    pool = pd.read_parquet(REFERENCE / "dedup" / "questions.parquet")
    as_recorded = params.build_settings("vote", {})
    sampling = Sampling(as_recorded.vote_temperature, as_recorded.vote_top_p, as_recorded.vote_max_tokens)
    with generator.open_generator(as_recorded) as recorded:
        shots = exemplars.worked_examples(recorded, pool, as_recorded, domain)
        requests = [
            recorded.request(domains.solve_messages(domain, text, "", shots.exemplars), sampling)
            for text in shots.questions["question"]
        ]
        completions = recorded.generate(requests, as_recorded.votes)
    asked, settings = shots.questions, as_recorded.model_copy(update={"min_agreement": 0.0})
    texts = [[path.text for path in row] for row in completions]
    cut = [[path.truncated for path in row] for row in completions]
    golds = tables.known_golds(asked, domain)
    with_votes, paths, _ = tables.vote_tables(asked, texts, settings, domain)
    without, marked, rejected = tables.vote_tables(asked, texts, settings, domain, cut=cut)
    assert 0 < marked["cut"].sum() < len(marked) / 10 and marked[marked["cut"]]["answer"].isna().all()
    recorded_paths = pd.read_parquet(REFERENCE / "vote" / "paths.parquet")
    pd.testing.assert_frame_equal(marked, recorded_paths.assign(won=marked["won"]))
    assert paths["path"].tolist() == marked["path"].tolist()
    cost = labels.cost_of_cut(marked, golds, settings).set_index("rule")
    agreements = pd.concat([without["agreement"], rejected["agreement"]])
    assert cost["agreement"].tolist() == pytest.approx([agreements.mean(), with_votes["agreement"].mean()], abs=1e-4)
    right = [table["correct"].astype(bool).sum() / len(asked) for table in (without, with_votes)]
    assert cost["right"].tolist() == pytest.approx(right) and cost["n"].tolist() == [len(asked)] * 2
    assert labels.cost_of_released(marked, golds, settings.seed)["right"][0] == pytest.approx(right[0])


def test_the_reference_run_by_its_tables_alone():
    paths = pd.read_parquet(REFERENCE / "vote" / "paths.parquet")
    pool = pd.read_parquet(REFERENCE / "dedup" / "questions.parquet")
    asked = pool[pool["id"].isin(paths["question_id"])]
    texts = [list(part) for _, part in paths.groupby("question_id", sort=False)["path"]]
    cut = [list(part) for _, part in paths.groupby("question_id", sort=False)["cut"]]
    domain = domains.get_domain("arithmetic")
    settings = params.build_settings("vote", {"min_agreement": 0.0})
    everything, sampled, _ = tables.vote_tables(asked, texts, settings, domain, cut=cut)
    golds = tables.known_golds(pool, domain)
    curve = labels.votes_needed(sampled, golds)
    cost = labels.cost_of_released(sampled, golds, 1)
    assert curve["m"].tolist() == [1, 3, 5, 8, 12] and curve["right"].is_monotonic_increasing
    right = everything["correct"].astype(bool).sum() / len(asked)
    assert cost["right"][0] == pytest.approx(right), "drawn as the vote draws; an abstention is not right"
    assert labels.kept_by_threshold(everything)["right"].is_monotonic_increasing
