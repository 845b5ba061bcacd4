"""The quantities of a preflight: against brute force over all subsets and pairs, and cases worked by hand."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu
from shared import REFERENCE

from crescent_utils import answers, benchmarks, generation, stats, vote
from crescent_utils.runs import domains, params
from crescent_utils.vote import headroom


def table_of(answer_rows, golds=None, **more):
    """Samples of questions 0, 1 …; the right answer of question i is golds[i], None where it is not known."""
    rows = [
        {"question": f"q{i}", "answer": answer, "right": None if gold is None else answer == gold}
        for i, (row, gold) in enumerate(zip(answer_rows, golds or [None] * len(answer_rows), strict=True))
        for answer in row
    ]
    return pd.DataFrame(rows).assign(**more)


def greedy_of(given, golds=None):
    rows = [(f"q{i}", answer) for i, answer in enumerate(given)]
    table = pd.DataFrame(rows, columns=["question", "answer"])
    return table if golds is None else table.assign(right=[a == g for a, g in zip(given, golds, strict=True)])


def rows_of(*arguments, **options):
    table = vote.headroom_table(*arguments, **options)
    assert list(table) == headroom.COLUMNS and table["quantity"].is_unique
    assert (table["low"].isna() == (table["n"] == 0)).all()
    known = table[table["n"] > 0]
    assert (known["low"] <= known["estimate"]).all() and (known["estimate"] <= known["high"]).all()
    assert set(table["stand_in"]) - {""} <= set(table["quantity"]), "each stand-in is a row"
    assert ((table["stand_in"] != "") == table["needs_gold"]).all()
    assert not table.set_index("quantity").loc[[s for s in table["stand_in"] if s], "needs_gold"].any()
    return table.set_index("quantity")


def leaders(answer_row):
    counts = Counter(answer for answer in answer_row if answer is not None)
    return [answer for answer, count in counts.items() if count == max(counts.values())]


def chance_right(answer_row, gold):
    best = leaders(answer_row)
    return best.count(gold) / len(best) if best else 0.0


BALLOTS = st.lists(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=4, max_size=4), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(BALLOTS)
def test_shares_are_those_of_brute_force(ballots):
    golds = ["1"] * len(ballots)
    rows = rows_of(table_of(ballots, golds), votes=(1, 4))
    mean = np.mean
    assert rows.estimate["one_sample"] == pytest.approx(mean([row.count("1") / 4 for row in ballots]))
    most = [max([row.count(a) for a in "123"]) / 4 for row in ballots]
    assert rows.estimate["agreement"] == pytest.approx(mean(most))
    assert rows.estimate["no_answer"] == pytest.approx(mean([row.count(None) / 4 for row in ballots]))
    assert rows.estimate["majority@4"] == pytest.approx(mean([chance_right(row, "1") for row in ballots]))
    for k in (1, 4):
        parts = [list(combinations(row, k)) for row in ballots]
        passed = [mean(["1" in part for part in of_row]) for of_row in parts]
        different = [mean([len(set(part) - {None}) for part in of_row]) for of_row in parts]
        assert rows.estimate[f"pass@{k}"] == pytest.approx(mean(passed))
        assert rows.estimate[f"different@{k}"] == pytest.approx(mean(different))
    for tau in headroom.COVERAGES:
        assert rows.estimate[f"coverage@{tau:g}"] == mean([row.count("1") / 4 >= tau for row in ballots])
        assert rows.estimate[f"agreement@{tau:g}"] == mean([share >= tau for share in most])


@settings(deadline=None, max_examples=40)
@given(BALLOTS)
def test_rewards_and_preferences_are_those_of_brute_force(ballots):
    """Each way to decide a tie is one labelling; expectations over all of them."""
    rows = rows_of(table_of(ballots, ["1"] * len(ballots)), min_agreement=0.0)
    rewarded, chosen, rejected = [], [], []
    for row in ballots:
        labels = leaders(row) or [None]
        pairs = [(sample is not None and sample == label, sample == "1") for label in labels for sample in row]
        rewarded.append(np.mean([won == right for won, right in pairs]))
        if labels != [None]:
            chosen += [(right, 1 / len(labels)) for won, right in pairs if won]
            rejected += [(not right, 1 / len(labels)) for won, right in pairs if not won]
    assert rows.estimate["reward_accuracy"] == pytest.approx(np.mean(rewarded))
    for name, pairs in (("chosen_right", chosen), ("rejected_wrong", rejected)):
        total = sum(weight for _, weight in pairs)
        expected = sum(right * weight for right, weight in pairs) / total if total else float("nan")
        assert rows.estimate[name] == pytest.approx(expected, nan_ok=True)


def test_the_majority_of_k_is_near_that_of_all_subsets():
    ballots = [["1", "2", "1", None, "3", "1"], ["2", "2", "1", "1", "1", "3"], ["1", "2", "3", "3", None, "1"]] * 40
    golds = ["1"] * len(ballots)
    rows = rows_of(table_of(ballots, golds), votes=(3, 5))
    for k in (3, 5):
        exact = np.mean([np.mean([chance_right(part, "1") for part in combinations(row, k)]) for row in ballots[:3]])
        assert rows.estimate[f"majority@{k}"] == pytest.approx(exact, abs=0.02)
        alike = [np.mean([sum(1 / len(leaders(p)) for a in leaders(p) if a in leaders(row)) if leaders(p) else 0
                          for p in combinations(row, k)]) for row in ballots[:3]]  # fmt: skip
        assert rows.estimate[f"same_majority@{k}"] == pytest.approx(np.mean(alike), abs=0.02)
    curve = stats.accuracy_by_votes(ballots, golds, votes=(1, 3, 5, 6)).set_index("m")["right"]
    for k in (1, 3, 5, 6):
        assert rows_of(table_of(ballots, golds), votes=(1, 3, 5)).estimate[f"majority@{k}"] == pytest.approx(
            curve[k], abs=0.03
        )


def auroc(agreement, right):
    return headroom._auroc(headroom._auroc_parts(agreement, right).sum(axis=0))


AGREEMENTS = st.lists(st.tuples(st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=2, max_size=40)


@settings(deadline=None)
@given(AGREEMENTS)
def test_auroc_is_that_of_all_pairs(pairs):
    scores, right = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    positive, negative = scores[right == 1], scores[right == 0]
    if not len(positive) or not len(negative):
        assert np.isnan(auroc(scores, right))
        return
    expected = mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))
    assert auroc(scores, right) == pytest.approx(expected)


@settings(deadline=None)
@given(AGREEMENTS, st.integers(1, 12))
def test_the_calibration_error_is_that_of_a_loop_over_bins(pairs, bins):
    total = 0.0
    for number in range(bins):
        inside = [(s, r) for s, r in pairs if number / bins < s <= (number + 1) / bins]
        if inside:
            total += len(inside) / len(pairs) * abs(np.mean([s for s, _ in inside]) - np.mean([r for _, r in inside]))
    scores, right = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    parts = headroom._calibration_parts(scores, right, bins)
    assert headroom._calibration(parts.sum(axis=0)) == pytest.approx(total)


def test_headroom_is_majority_minus_greedy_paired():
    ballots = [["1", "1", "2"]] * 30 + [["2", "2", "1"]] * 10 + [["1", "1", "1"]] * 20
    golds = ["1"] * 60
    pupil = ["2"] * 25 + ["1"] * 5 + ["1"] * 10 + ["1"] * 20
    rows = rows_of(table_of(ballots, golds), greedy_of(pupil, golds))
    expected = stats.paired_difference([a == "1" for a in pupil], [True] * 30 + [False] * 10 + [True] * 20)
    found = rows.loc["headroom"]
    assert (found.estimate, found.low, found.high) == pytest.approx((expected.difference, expected.low, expected.high))
    assert found.n == 60 and rows.estimate["greedy"] == pytest.approx(35 / 60)
    assert rows.estimate["vote_changes"] == pytest.approx(35 / 60)
    assert rows.estimate["greedy_is_majority"] == pytest.approx(25 / 60)
    interval = binomtest(35, 60).proportion_ci(method="wilson")
    assert (rows.low["greedy"], rows.high["greedy"]) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_a_few_gains_and_a_tie_are_no_certain_headroom():
    """A paired difference has the kit's test, also where a tied vote counts one half: a bootstrap is too sure."""
    ballots = [["1", "1", "1", "1"]] * 56 + [["1", "1", "2", "2"]] + [["1", "1", "1", "2"]] * 3
    pupil = ["1"] * 56 + ["2"] * 4
    rows = rows_of(table_of(ballots, ["1"] * 60), greedy_of(pupil, ["1"] * 60))
    expected = stats.paired_difference([1.0] * 56 + [0.0] * 4, [1.0] * 56 + [0.5] + [1.0] * 3)
    assert rows.loc["headroom", ["estimate", "low", "high"]].tolist() == pytest.approx(
        [expected.difference, expected.low, expected.high]
    )
    assert rows.low["headroom"] < 0 < rows.estimate["headroom"]
    gaps = stats.paired_difference([1.0] * 56 + [0.5] + [0.75] * 3, [1.0] * 56 + [0.5] + [1.0] * 3)
    assert rows.loc["gap_vote", ["low", "high"]].tolist() == pytest.approx([gaps.low, gaps.high])


def test_a_gain_over_the_evaluated_prompt_is_split_from_that_over_the_votes_own():
    golds = ["1"] * 40
    rows = rows_of(
        table_of([["1", "1", "2"]] * 40, golds),
        pd.concat([
            greedy_of(["1"] * 40, golds).assign(prompt="vote"),
            greedy_of(["2"] * 30 + ["1"] * 10, golds).assign(prompt="evaluated"),
        ]),
    )  # fmt: skip
    assert rows.estimate["headroom"] == pytest.approx(0.75) and rows.estimate["headroom_of_prompt"] == 0
    assert rows.estimate["evaluated"] == 0.25 and rows.estimate["evaluated_is_majority"] == 0.25


def test_what_the_model_believes_is_judged_by_samples_that_did_not_vote():
    """Where answers are drawn at random, a majority of some has no lead in the others, and no gain is believed."""
    draw = np.random.default_rng(0)
    ballots = draw.choice(list("12345678"), (400, 10)).tolist()
    rows = rows_of(table_of(ballots), greedy_of(draw.choice(list("12345678"), 400).tolist()))
    assert abs(rows.estimate["believed_headroom"]) < 0.02 and rows.low["believed_headroom"] < 0
    assert abs(rows.estimate["believed_gap"]) < 0.02
    assert rows.estimate["auroc_of_halves"] == pytest.approx(0.5, abs=0.1)
    sure = [["1"] * 9 + ["2"]] * 40
    rows = rows_of(table_of(sure), greedy_of(["2"] * 40))
    assert rows.estimate["believed_headroom"] == pytest.approx(0.8)
    assert rows.n["headroom"] == 0 and rows.n["greedy"] == 0, "no right answer is known"


def test_verifiers_choose_the_likeliest_path():
    samples = table_of([["1", "2", "2", None], ["2", "1", "1", "1"]], ["1", "1"])
    samples["log_path"] = [-1.0, -2.0, -3.0, 0.0, -1.0, -1.0, -5.0, float("-inf")]
    samples["log_answer"] = [-9.0, -0.5, -0.1, 0.0, np.nan, -0.2, -0.1, -0.3]
    rows = rows_of(samples)
    one_sample = (1 / 4 + 3 / 4) / 2
    assert rows.estimate["gap_vote"] == pytest.approx((0 + 1) / 2 - one_sample)
    assert rows.estimate["gap_log_path"] == pytest.approx((1 + 0.5) / 2 - one_sample), "of two alike each one half"
    assert rows.estimate["gap_log_answer"] == pytest.approx((0 + 1) / 2 - one_sample)
    assert rows.estimate["log_path_is_majority"] == pytest.approx((0 + 0.5) / 2)
    views = np.exp([-9.0, -0.5, -0.1, -0.2, -0.1, -0.3])
    assert rows.estimate["self_view"] == pytest.approx(views.mean())
    assert rows.estimate["self_bias"] == pytest.approx(views.mean() - 4 / 6)
    without = rows_of(samples.drop(columns=["log_path", "log_answer"]))
    assert without.n["gap_log_path"] == 0 and without.n["gap_vote"] == 2
    others = [0, 1 / 3, 1 / 3, 0, 2 / 3, 2 / 3, 2 / 3]
    assert without.estimate["self_view"] == pytest.approx(np.mean(others))
    assert without.estimate["self_bias"] == pytest.approx(np.mean(others) - 4 / 7)


def test_a_question_whose_paths_have_no_score_says_nothing_of_that_verifier():
    samples = table_of([["1", "2"], ["1", "1"], [None, None]], ["1", "1", "1"])
    samples["log_path"] = [-1.0, -2.0, np.nan, np.nan, np.nan, np.nan]
    rows = rows_of(samples)
    assert rows.n["gap_log_path"] == 2, "the second question's paths may be the likeliest or not"
    right, one_sample = (1 + 0) / 2, (0.5 + 0) / 2  # where no sample can win, none is chosen and none is right
    assert rows.estimate["gap_log_path"] == pytest.approx(right - one_sample)


def test_rounds_may_be_named_by_numbers_and_by_words():
    rounds = [table_of([["1", "1"]], ["1"], round=name) for name in (10, "last", 2)]
    rows = rows_of(pd.concat(rounds))
    assert [name for name in rows.index if name.startswith("self_bias@")] == [
        "self_bias@2",
        "self_bias@10",
        "self_bias@last",
    ]


def test_rounds_are_kept_apart():
    rounds = [table_of([["1", "1"], ["2", "3"]], ["1", "1"], round=1), table_of([["2", "2"]], ["1"], round=2)]
    rows = rows_of(pd.concat(rounds))
    assert rows.n["agreement"] == 3
    assert rows.estimate["self_bias@1"] == pytest.approx(np.mean([0, 0, 0, 0]))
    assert rows.estimate["self_bias@2"] == pytest.approx(1.0) and rows.estimate["self_view@2"] == 1.0


def test_questions_without_a_gold_count_for_what_needs_none():
    rows = rows_of(table_of([["1", "1"], ["2", "2"], [None, None]], ["1", None, "7"]))
    assert rows.n["one_sample"] == 2 and rows.n["agreement"] == 3
    assert rows.estimate["majority@2"] == pytest.approx(0.5), "a vote without an answer is wrong"
    with pytest.raises(ValueError, match="samples: has no column 'answer'"):
        vote.headroom_table(pd.DataFrame({"question": [1]}))
    with pytest.raises(ValueError, match="samples: there is none"):
        vote.headroom_table(pd.DataFrame({"question": [], "answer": []}))


def test_the_bootstrap_covers_as_often_as_it_says():
    """The mean agreement of 60 questions, drawn anew 200 times: 95 % of the intervals hold the true mean, or nearly."""
    draw = np.random.default_rng(1)
    many = np.array([draw.multinomial(8, [0.5, 0.3, 0.2]).max() / 8 for _ in range(40_000)])
    inside = 0
    for _ in range(200):
        ballots = draw.choice(list("123"), (60, 8), p=[0.5, 0.3, 0.2])
        row = headroom._mean("x", np.array([max(Counter(b).values()) / 8 for b in ballots.tolist()]), "")
        ends = headroom._row(row, headroom._resampled([row], 0)[0][1])
        inside += ends["low"] <= many.mean() <= ends["high"]
    assert 180 <= inside <= 198


def reference_samples():
    paths = pd.read_parquet(REFERENCE / "vote" / "paths.parquet")
    pool = pd.read_parquet(REFERENCE / "dedup" / "questions.parquet")
    golds = vote.known_golds(pool, domains.get_domain("arithmetic"))
    names = answers.equality_classes(paths["answer"])
    right = [a == golds[q] for q, a in zip(paths["question_id"], names, strict=True)]
    return paths, golds, pd.DataFrame({"question": paths["question_id"], "answer": names, "right": right})


def test_the_reference_runs_own_votes():
    paths, golds, samples = reference_samples()
    found = vote.path_samples(paths.assign(cut=False), golds)
    assert (
        all(found[name].tolist() == samples[name].tolist() for name in ("question", "right")) and not found["cut"].any()
    )
    assert found["answer"].fillna("").tolist() == samples["answer"].fillna("").tolist()
    rows = rows_of(samples)
    curve = vote.votes_needed(paths, golds, 1).set_index("m")
    assert curve.index.tolist() == [1, 3, 5, 8, 12]
    for k in curve.index:
        assert rows.estimate[f"majority@{k}"] == pytest.approx(curve["right"][k], abs=0.006)
        assert rows.low[f"majority@{k}"] == pytest.approx(curve["low"][k], abs=0.01)
    assert rows.estimate["pass@12"] > rows.estimate["majority@12"] > rows.estimate["one_sample"]
    curve = vote.reliability_table(samples)
    assert curve["n"].sum() == paths["question_id"].nunique() and (curve["agreement"] <= curve["up_to"]).all()
    assert (curve["agreement"][1:] > curve["above"][1:]).all() and curve["agreement"][0] < 0.1
    assert np.average(curve["right"], weights=curve["n"]) == pytest.approx(rows.estimate["majority@12"])
    again = vote.headroom_table(samples.sample(frac=1.0, random_state=3))
    assert again.set_index("quantity").estimate["auroc"] == pytest.approx(rows.estimate["auroc"])
    assert vote.headroom_table(samples).equals(vote.headroom_table(samples)), "all draws are seeded"


def test_greedy_answers_are_those_of_the_store_and_nothing_is_sampled():
    """The reference's store has the base's greedy answers to the test items."""
    settings = params.build_settings("vote", {})
    domain = domains.get_domain("arithmetic")
    (benchmark,) = domain.benchmarks
    items = benchmarks.load_benchmark(benchmark, items=settings.benchmark_items).items[:50]
    fingerprint = generation.GenerationStore(REFERENCE / "store.sqlite", read_only=True).models()["base"]
    sampling = generation.Sampling(0.7, 1.0, settings.vote_max_tokens, seed=1)
    requests = [
        generation.Request.of(fingerprint, [{"role": "user", "content": text}], sampling)
        for text in [*(item.question for item in items), "What is 1 + 1 + 1 + 1?"]
    ]
    golds = {number: item.gold for number, item in enumerate(items)}
    found = vote.stored_greedy(settings, range(51), requests, golds, "number")
    assert found["question"].tolist() == list(range(50)), "the last one was never asked"
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet")
    scores = scores.query("model == 'base' and decoding == 'greedy' and prompt == 'bare' and seed == 1")
    scores = scores.query("item < 50").sort_values("item")
    assert found["right"].tolist() == scores["symbolic"].tolist()


def test_greedy_answers_of_a_preflight_on_the_own_questions_are_found_with_both_prompts():
    settings = params.build_settings("vote", {})
    preflight = pd.read_parquet(REFERENCE / "preflight" / "greedy.parquet")
    sampling = generation.Sampling(0.8, 1.0, settings.vote_max_tokens, seed=1)
    evaluated = preflight[preflight["prompt"] == "evaluated"]
    assert len(evaluated) > 300
    golds = dict(zip(evaluated["id"], evaluated["gold"], strict=True))
    own = list(evaluated["question"])
    for asked in (own, own[::-1]):  # with other questions' numbers: none
        requests = [generation.Request.of("m", [{"role": "user", "content": text}], sampling) for text in asked]
        found = vote.stored_greedy(settings, list(evaluated["id"]), requests, golds, "number")
        if asked is own:
            assert found["prompt"].tolist() == ["evaluated"] * len(evaluated), "the store has none of model m"
            assert found["right"].tolist() == evaluated["right"].tolist()
        else:
            assert len(found) <= 1, "the middle one alone keeps its number"
