"""Statistics against their definitions, scipy, published examples and simulation."""

import dataclasses
import itertools
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from crescent_utils import stats

UNHURRIED = settings(deadline=None, max_examples=60)  # a busy machine must not fail a test
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def from_counts(gained, lost, same):
    """Before and after with so many items won, lost and unchanged (half of those right)."""
    before = [False] * gained + [True] * lost + [i % 2 == 0 for i in range(same)]
    return before, [True] * gained + [False] * lost + before[gained + lost :]


def bootstrap_interval(change, resamples=10_000, seed=0):
    """The percentile bootstrap's 95 % interval for a mean change of items."""
    return stats.percentiles(stats.resample(change[np.newaxis], resamples, seed))


# -- shares ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published(successes, n, low, high):
    interval = stats.wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@UNHURRIED
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_are_the_shares_that_the_score_test_just_does_not_reject(counts):
    successes, n = counts
    interval = stats.wilson(successes, n)
    critical_z = scipy_stats.norm.ppf(0.975)
    for end in (interval.low, interval.high):
        if 0 < end < 1:
            assert abs(successes - n * end) == pytest.approx(critical_z * math.sqrt(n * end * (1 - end)), abs=1e-6)
    assert (interval.low == 0) == (successes == 0) and (interval.high == 1) == (successes == n)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1


@UNHURRIED
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_statsmodels_to_the_last_bit(counts):
    from statsmodels.stats.proportion import proportion_confint

    successes, n = counts
    interval = stats.wilson(successes, n)
    low, high = proportion_confint(successes, n, alpha=1 - stats.LEVEL, method="wilson")
    expected = min(low, successes / n) if successes else 0.0, max(high, successes / n) if successes < n else 1.0
    assert (interval.low, interval.high) == expected


@UNHURRIED
@given(st.integers(0, 600), st.integers(0, 600))
def test_mcnemar_is_that_of_statsmodels(gained, lost):
    from statsmodels.stats.contingency_tables import mcnemar

    expected = mcnemar([[3, lost], [gained, 4]], exact=True).pvalue
    assert stats.mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12, abs=0)


def test_nothing_of_stats_needs_statsmodels_or_the_whole_of_scipys():
    code = """
import sys
from crescent_utils import evaluate, figures, stats
assert "scipy" not in sys.modules, "figures need no statistics"
stats.wilson(3, 7), stats.paired_difference([0, 1, 1], [1, 1, 1]), stats.paired_difference([[0, 1]] * 2, [[1, 1]] * 2)
print(*{"scipy.stats", "statsmodels"} & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_wilson_edges():
    nothing = stats.wilson(0, 0)
    assert math.isnan(nothing.estimate) and (nothing.low, nothing.high, nothing.n) == (0, 1, 0)
    with pytest.raises(ValueError, match="successes=5"):
        stats.wilson(5, 4)


# -- pairs -------------------------------------------------------------------------------------------------------


def test_paired_published():
    # Complete response before and after consolidation therapy (Cavo 2012) in Fagerland, Lydersen and Laake, Statistical
    # Analysis of Contingency Tables (2017), chapter 8: 59, 6, 16, 80; the R package's tests print four digits.
    pair = stats.paired_difference(*from_counts(6, 16, 139))
    assert pair.difference == pytest.approx(-10 / 161)
    assert (round(pair.low, 4), round(pair.high, 4)) == (-0.1240, -0.0054)
    assert round(pair.p_value, 6) == 0.052479
    assert (pair.n, pair.gained, pair.lost) == (161, 6, 16)


@UNHURRIED
@given(PAIRS)
def test_the_p_value_of_pairs_is_a_sign_test_of_those_that_changed(pairs):
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    p_value = scipy_stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert stats.paired_difference(*zip(*pairs, strict=True)).p_value == pytest.approx(p_value)


@UNHURRIED
@given(PAIRS, st.randoms(use_true_random=False))
def test_paired_properties(pairs, random):
    before, after = zip(*pairs, strict=True)
    pair, mirrored = stats.paired_difference(before, after), stats.paired_difference(after, before)
    assert pair.difference == pytest.approx(np.mean(after) - np.mean(before))
    assert -1 <= pair.low <= pair.difference <= pair.high <= 1 and 0 <= pair.p_value <= 1
    assert (mirrored.difference, mirrored.low, mirrored.high) == (-pair.difference, -pair.high, -pair.low)
    assert mirrored.p_value == pair.p_value
    shuffled = list(pairs)
    random.shuffle(shuffled)
    again = stats.paired_difference(*zip(*shuffled, strict=True))
    assert again.item_sd == pytest.approx(pair.item_sd)
    assert dataclasses.replace(again, item_sd=0) == dataclasses.replace(pair, item_sd=0)


def test_the_bootstrap_agrees_with_the_score_interval_where_many_items_change_and_with_scipys():
    before, after = from_counts(40, 18, 122)
    change = np.subtract(after, before, dtype=float)
    low, high = bootstrap_interval(change)
    score = stats.paired_difference(before, after)
    assert (low, high) == pytest.approx((score.low, score.high), abs=0.006)
    independent = scipy_stats.bootstrap((change,), np.mean, method="percentile", rng=0).confidence_interval
    assert (low, high) == pytest.approx((independent.low, independent.high), abs=0.006)
    assert bootstrap_interval(change) == (low, high)
    assert bootstrap_interval(change, resamples=33, seed=0) != bootstrap_interval(change, resamples=33, seed=1)


# -- several seeds -----------------------------------------------------------------------------------------------


def test_one_seed_is_the_paired_t_test():
    rng = np.random.default_rng(3)
    before, after = rng.random((1, 50)), rng.random((1, 50))
    pair, expected = stats.paired_difference(before, after), scipy_stats.ttest_rel(after[0], before[0])
    assert pair.p_value == pytest.approx(expected.pvalue) and math.isnan(pair.seed_sd)
    interval = expected.confidence_interval(0.95)
    assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high))
    assert pair.item_sd == pytest.approx((after - before).std(ddof=1))


def test_seeds_that_differ_most_are_the_t_test_over_seeds():
    # Every item changes alike within a seed: only the seeds vary, and the test is the one over their means.
    after = np.repeat([[0.2], [0.5], [0.6]], 40, axis=1)
    pair, expected = stats.paired_difference(np.zeros((1, 40)), after), scipy_stats.ttest_1samp([0.2, 0.5, 0.6], 0)
    interval = expected.confidence_interval(0.95)
    assert pair.p_value == pytest.approx(expected.pvalue)
    assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high))
    assert pair.seed_sd == pytest.approx(np.std([0.2, 0.5, 0.6], ddof=1)) and pair.item_sd == pytest.approx(0)
    accuracy = stats.mean_interval(after)
    assert (accuracy.low, accuracy.high) == pytest.approx((max(0, interval.low), min(1, interval.high)))


def test_the_variance_of_the_mean_is_that_of_its_seeds_and_its_items():
    """Simulated: the two standard deviations are those that the scores were drawn with."""
    rng = np.random.default_rng(7)
    tests = [
        stats.crossed_t_test(
            0.05 + rng.normal(0, 0.04, (4, 1)) + rng.normal(0, 0.3, (1, 200)) + rng.normal(0, 0.1, (4, 200))
        )
        for _ in range(400)
    ]
    assert np.mean([test.seed_sd**2 for test in tests]) == pytest.approx(0.04**2, rel=0.1)
    assert np.mean([test.item_sd**2 for test in tests]) == pytest.approx(0.3**2, rel=0.05)
    assert np.mean([test.rest_sd**2 for test in tests]) == pytest.approx(0.1**2, rel=0.05)
    rejected = [not test.low <= 0.05 <= test.high for test in tests]
    assert 0.02 <= np.mean(rejected) <= 0.08


@UNHURRIED
@given(st.integers(2, 5), st.integers(2, 30), st.integers(0, 10**6))
def test_the_interval_holds_zero_where_the_test_does_not_reject_it(seeds, n, number):
    rng = np.random.default_rng(number)
    before, after = rng.integers(0, 2, (1, n)), rng.integers(0, 2, (seeds, n))
    pair = stats.paired_difference(before, after)
    if 1e-9 < abs(pair.p_value - 0.05):
        assert (pair.low <= 0 <= pair.high) == (pair.p_value > 0.05)


def test_over_seeds_without_variation():
    """No change at all is not certainty of no change: the interval is that of the score test."""
    pair = stats.paired_difference(np.ones((3, 50)), np.ones((3, 50)))
    single = stats.paired_difference([True] * 50, [True] * 50)
    assert (pair.difference, pair.low, pair.high, pair.p_value) == (0, single.low, single.high, 1)
    assert pair.low < -0.05 and pair.high > 0.05
    assert stats.paired_difference(np.zeros((2, 20)), np.ones((2, 20))).p_value == pytest.approx(2 * 0.5**20)


@pytest.mark.parametrize(
    ("before", "after"), [(np.zeros((2, 5)), np.zeros((3, 5))), ([True], [True, False]), ([2.0], [1.0]), ([], [])]
)
def test_paired_rejects(before, after):
    with pytest.raises(ValueError, match=r"seeds, items"):
        stats.paired_difference(before, after)


# -- several tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_holm_rejects_what_its_step_down_procedure_rejects(seed):
    p_values = np.random.default_rng(seed).beta(0.3, 2, size=seed + 1)
    corrected = stats.holm(p_values.tolist())
    for level in np.random.default_rng(seed).random(20):
        rejected = set()
        for rank, place in enumerate(np.argsort(p_values)):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(int(place))
        assert {place for place, p_value in enumerate(corrected) if p_value <= level} == rejected


@UNHURRIED
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_properties(p_values):
    corrected = stats.holm(p_values)
    assert all(p <= c <= min(1, p * len(p_values)) + 1e-12 for p, c in zip(p_values, corrected, strict=True))
    in_order = [corrected[place] for place in np.argsort(p_values, kind="stable")]
    assert in_order == sorted(in_order)


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_that_of_statsmodels(seed):
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(seed).choice([0.001, 0.01, 0.02, 0.2, 0.9, 1.0], size=9)
    assert stats.holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_published_and_untested():
    # Worked example: p 0.01, 0.04, 0.03, 0.005 (Holm's procedure): 0.03, 0.06, 0.06, 0.02.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = stats.holm([math.nan, 0.02, 0.01])
    assert math.isnan(corrected[0]) and corrected[1:] == pytest.approx([0.02, 0.02])
    assert stats.holm([]) == []


# -- the comparisons table ---------------------------------------------------------------------------------------


def scores_table(model, seeds, right, samples=1, decoding="greedy"):
    return pd.DataFrame([
        {"benchmark": "arithmetic", "shots": 0, "decoding": decoding, "model": model, "item": item, "sample": sample,
         "seed": seed, "symbolic": right(item, seed, sample), "strict": False}
        for seed in seeds for item in range(60) for sample in range(samples)
    ])  # fmt: skip


def test_compare_one_seed_is_mcnemar():
    scores = pd.concat([
        scores_table("base", [1], lambda i, *_: i < 20), scores_table("tuned", [1], lambda i, *_: 5 <= i < 40),
    ])  # fmt: skip
    row = stats.compare_models(scores.sample(frac=1, random_state=0), "base", "tuned").iloc[0]
    pair = stats.paired_difference([i < 20 for i in range(60)], [5 <= i < 40 for i in range(60)])
    assert (row["difference"], row["low"], row["high"], row["p_value"]) == (
        pair.difference,
        pair.low,
        pair.high,
        pair.p_value,
    )
    assert (row["n"], row["seeds"], row["gained"], row["lost"]) == (60, 1, 20, 5)
    first = stats.wilson(20, 60)
    assert (row["before_accuracy"], row["before_low"], row["before_high"]) == (first.estimate, first.low, first.high)
    assert list(stats.compare_models(scores, "base", "tuned", "strict")["difference"]) == [0]


def test_compare_reuses_a_single_base():
    scores = pd.concat([
        scores_table("base", [1], lambda i, *_: i < 20), scores_table("tuned", [1, 2, 3], lambda i, s,
        _: i < 20 + 5 * s),
    ])  # fmt: skip
    row = stats.compare_models(scores, "base", "tuned", resamples=500).iloc[0]
    assert (row["seeds"], row["n"], row["gained"]) == (3, 60, 15)
    assert row["difference"] == pytest.approx(10 / 60) and "seeds" in row["how"]


def test_compare_pairs_seeds_items_and_samples():
    base = scores_table("base", [1, 2, 4], lambda i, s, k: (i + k) % 2 == 0, samples=4, decoding="sampled")
    tuned = scores_table("tuned", [2, 1, 3], lambda i, s, k: (i + k) % 4 != 0, samples=4, decoding="sampled")
    scores = pd.concat([base[base["item"] < 50], tuned[tuned["item"] > 9]])
    row = stats.compare_models(scores, "base", "tuned", resamples=300).iloc[0]
    assert (row["seeds"], row["n"]) == (2, 40)
    assert (row["before_accuracy"], row["after_accuracy"]) == pytest.approx((0.5, 0.75))


ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(["base", "tuned"]),
        st.integers(1, 3),
        st.sampled_from([7, 3, 20]),
        st.sampled_from([0, 1, None]),
    ),
    max_size=40,
)


@UNHURRIED
@given(ANSWERS, st.sampled_from([int, str]))
def test_paired_scores_are_those_of_a_pivot_table(answers, as_item):
    rows = pd.DataFrame(answers, columns=["model", "seed", "item", "score"]).astype({"score": float})
    rows["item"] = rows["item"].map(as_item)
    old, new = (
        rows[rows["model"] == model].pivot_table(index="seed", columns="item", values="score").dropna(axis=1)
        for model in ("base", "tuned")
    )
    items = old.columns.intersection(new.columns).sort_values()
    seeds = [old.index, new.index]
    if len(old) > 1 and len(new) > 1:
        seeds = [old.index.intersection(new.index).sort_values()] * 2
    if old.empty or new.empty:
        assert stats.paired_scores(rows, "base", "tuned", "score") is None
    elif len(items) == 0 or len(seeds[0]) == 0:
        with pytest.raises(ValueError, match="share no item or no seed"):
            stats.paired_scores(rows, "base", "tuned", "score")
    else:
        tables = stats.paired_scores(rows, "base", "tuned", "score")
        assert np.array_equal(tables[0], old.loc[seeds[0], items]) and np.array_equal(
            tables[1], new.loc[seeds[1], items]
        )


def test_compare_without_pairs():
    scores = scores_table("base", [1], lambda *_: True)
    assert stats.compare_models(scores, "base", "tuned").empty
    assert list(stats.compare_models(scores, "base", "tuned").columns) == stats.COMPARISON_COLUMNS
    other = scores_table("tuned", [1], lambda *_: True).assign(item=lambda rows: rows["item"] + 1000)
    with pytest.raises(ValueError, match="share no item"):
        stats.compare_models(pd.concat([scores, other]), "base", "tuned")


# -- numerics -----------------------------------------------------------------------------------------------------


@UNHURRIED
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200))
def test_score_interval_inverts_its_test(gained, lost, same):
    low, high = stats.score_interval(gained, lost, gained + lost + same)
    for end, z in ((low, 1.959964), (high, -1.959964)):
        assert stats.score_z(end, gained, lost, gained + lost + same) == pytest.approx(z, abs=1e-4)


def test_score_statistic_at_zero_is_mcnemar():
    # At a difference of zero the score statistic is McNemar's (b - c) / sqrt(b + c).
    assert stats.score_z(0.0, 25, 10, 300) == pytest.approx(15 / math.sqrt(35))


def test_two_way_variance_matches_anova():
    import statsmodels.formula.api as smf
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(5)
    change = rng.normal(0.05, 0.2, (4, 30)) + rng.normal(0, 0.2, (4, 1)) + rng.normal(0, 0.2, 30)
    rows = pd.DataFrame([{"s": s, "i": i, "y": change[s, i]} for s in range(4) for i in range(30)])
    mean_square = anova_lm(smf.ols("y ~ C(s) + C(i)", rows).fit())["mean_sq"]
    seeds, items, rest = (mean_square[name] for name in ("C(s)", "C(i)", "Residual"))
    total = seeds + items - rest
    degrees = total**2 / (seeds**2 / 3 + items**2 / 29 + rest**2 / 87)
    p = 2 * scipy_stats.t.sf(abs(change.mean()) / math.sqrt(total / 120), degrees)
    assert stats.crossed_t_test(change).p_value == pytest.approx(p)


def test_resample_is_the_bootstrap_of_rows_and_columns():
    """Drawing equal columns as one changes the speed only: mean and spread are those of plain index resampling."""
    rng = np.random.default_rng(0)
    table = (rng.random((3, 40)) < [[0.3], [0.5], [0.6]]).astype(float)
    plain = [table[rng.integers(0, 3, 3)][:, rng.integers(0, 40, 40)].mean() for _ in range(4000)]
    ours = stats.resample(table, 4000, seed=0)
    assert (ours.mean(), ours.std()) == pytest.approx((np.mean(plain), np.std(plain)), rel=0.05)
    shuffled = stats.resample(table[:, rng.permutation(40)], 4000, seed=0)
    assert np.array_equal(ours, shuffled)


def test_resample_in_blocks(monkeypatch):
    table = np.random.default_rng(0).random((2, 30))
    monkeypatch.setattr(stats, "CELLS_AT_ONCE", 700)
    means = stats.resample(table, 100, seed=1)
    assert len(means) == 100 and abs(means.mean() - table.mean()) < 0.05


def test_score_covers_where_bootstrap_does_not():
    """Few changes: the reason why the interval of a paired difference is the score test's."""
    rng = np.random.default_rng(1)
    n, truth, covered = 60, 0.03, {"score": 0, "bootstrap": 0}
    for _ in range(400):
        change = rng.choice([1, -1, 0], size=n, p=[0.04, 0.01, 0.95])
        pair = stats.paired_difference(change < 0, change > 0)
        low, high = bootstrap_interval(change.astype(float), resamples=500)
        covered["score"] += pair.low <= truth <= pair.high
        covered["bootstrap"] += low <= truth <= high
    assert covered["score"] / 400 >= 0.93
    assert covered["bootstrap"] < covered["score"]


def crossed(rng, seeds, n, seed_sd, shift=0.0):
    """A base answered once and `seeds` tuned models of the same mean accuracy plus `shift`, which differ by seed_sd."""
    chance = 1 / (1 + np.exp(-rng.normal(0, 1, n)))
    base = (rng.random(n) < chance).astype(float)
    lift = shift + rng.normal(0, seed_sd, (seeds, 1))
    return base[np.newaxis], (rng.random((seeds, n)) < np.clip(chance + lift, 0, 1)).astype(float)


def test_over_seeds_error_rate_and_coverage():
    rng = np.random.default_rng(11)
    runs, wrong, covered, by_bootstrap, flipped = 300, 0, 0, 0, 0
    for _ in range(runs):
        before, after = crossed(rng, 3, 150, 0.06)
        pair = stats.paired_difference(before, after)
        wrong += pair.p_value < 0.05
        covered += pair.low <= 0 <= pair.high
        low, high = stats.percentiles(stats.resample(after - before, 300, seed=0))
        by_bootstrap += low <= 0 <= high
        by_item = (after - before).mean(axis=0)
        signs = rng.choice([-1, 1], size=(200, 150))
        flipped += (np.abs((signs * by_item).mean(axis=1)) >= abs(by_item.mean())).mean() < 0.05
    assert wrong / runs <= 0.09
    assert covered / runs >= 0.91 and covered > by_bootstrap  # a bootstrap of three seeds is too narrow
    assert flipped > wrong  # the sign-flip test over items, which the docstring argues against


def test_over_seeds_properties():
    rng = np.random.default_rng(2)
    before, after = crossed(rng, 3, 80, 0.02, 0.1)
    pair, mirrored = stats.paired_difference(before, after), stats.paired_difference(after, before)
    order = rng.permutation(80)
    assert stats.paired_difference(before[:, order], after[:, order]).low == pytest.approx(pair.low)
    assert (mirrored.difference, mirrored.p_value) == pytest.approx((-pair.difference, pair.p_value))
    assert (-mirrored.high, -mirrored.low) == pytest.approx((pair.low, pair.high))
    assert (pair.gained, pair.lost) == (mirrored.lost, mirrored.gained) and pair.seeds == 3
    assert -1 <= pair.low <= pair.difference <= pair.high <= 1


# --- two quantities


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_rank_correlation_is_scipys(rows):
    first, second = np.array(rows, dtype=float).T
    found = stats.rank_correlation(first, second, resamples=20)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(found.estimate) and math.isnan(found.low)
    else:
        assert found.estimate == pytest.approx(scipy_stats.spearmanr(first, second).statistic)
        assert math.isnan(found.low) or -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
    assert found.n == len(rows)


def test_the_interval_of_a_rank_correlation_is_scipys_bootstrap():
    generator = np.random.default_rng(3)
    first = generator.normal(size=25)
    second = first + generator.normal(size=25)
    found = stats.rank_correlation(first, second, resamples=1000)
    plain = scipy_stats.bootstrap(
        (first, second), lambda a, b: scipy_stats.spearmanr(a, b).statistic, paired=True, vectorized=False,
        n_resamples=1000, method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.06)
    assert math.isnan(stats.rank_correlation([1, 2], [1, 2]).estimate), "two settings have no rank correlation"


def test_few_settings_in_the_same_order_are_no_certainty():
    nine, ten = (stats.rank_correlation(range(n), [*range(n - 1), 0], resamples=50) for n in (9, 10))
    assert nine.estimate > 0 and math.isnan(nine.low) and math.isnan(nine.high)
    assert ten.low < ten.estimate


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(itertools.combinations(right, k))
    assert stats.pass_at_k([len(right)], [sum(right)], k)[0] == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_as_published():
    # Chen et al. (2021), figure 3's code: 1 - prod(1 - k / arange(n - c + 1, n + 1)).
    for n, c, k in ((200, 3, 1), (200, 3, 100), (200, 57, 10), (5, 0, 5), (5, 5, 1)):
        published = 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))
        assert stats.pass_at_k([n], [c], k)[0] == pytest.approx(published)
    assert np.isnan(stats.pass_at_k([2, 4], [1, 4], 3)).tolist() == [True, False], "two samples tell nothing of three"
