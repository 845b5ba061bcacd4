"""Statistics against scipy, statsmodels, published examples, simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from crescent_utils import stats

UNHURRIED = settings(deadline=None, max_examples=60)  # a busy machine must not fail a test
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def from_counts(gained, lost, same):
    """Before and after with so many items won, lost and unchanged (half of those right)."""
    before = [False] * gained + [True] * lost + [i % 2 == 0 for i in range(same)]
    return before, [True] * gained + [False] * lost + before[gained + lost :]


# -- shares ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published(successes, n, low, high):
    found = stats.wilson(successes, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@UNHURRIED
@given(
    st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_wilson_statsmodels(counts, level):
    found = stats.wilson(*counts, level)
    assert (found.low, found.high) == pytest.approx(
        proportion_confint(*counts, alpha=1 - level, method="wilson"), abs=1e-9
    )
    assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_wilson_edges():
    nothing = stats.wilson(0, 0)
    assert math.isnan(nothing.estimate) and (nothing.low, nothing.high, nothing.n) == (0, 1, 0)
    with pytest.raises(ValueError, match="successes=5"):
        stats.wilson(5, 4)
    with pytest.raises(ValueError, match="level=95"):
        stats.wilson(1, 4, 95)


# -- pairs -------------------------------------------------------------------------------------------------------


def test_paired_published():
    # Complete response before and after consolidation therapy (Cavo 2012) in Fagerland, Lydersen and Laake, Statistical
    # Analysis of Contingency Tables (2017), chapter 8: 59, 6, 16, 80; the R package's tests print four digits.
    found = stats.paired_difference(*from_counts(6, 16, 139))
    assert found.difference == pytest.approx(-10 / 161)
    assert (round(found.low, 4), round(found.high, 4)) == (-0.1240, -0.0054)
    assert round(found.p_value, 6) == 0.052479
    assert (found.n, found.gained, found.lost) == (161, 6, 16)


@UNHURRIED
@given(PAIRS)
def test_paired_is_mcnemar_exact(pairs):
    before, after = zip(*pairs, strict=True)
    table = [[0, 0], [0, 0]]
    for b, a in pairs:
        table[b][a] += 1
    assert stats.paired_difference(before, after).p_value == pytest.approx(sm_mcnemar(table, exact=True).pvalue)


@UNHURRIED
@given(PAIRS, st.randoms(use_true_random=False))
def test_paired_properties(pairs, random):
    before, after = zip(*pairs, strict=True)
    found, mirrored = stats.paired_difference(before, after), stats.paired_difference(after, before)
    assert found.difference == pytest.approx(np.mean(after) - np.mean(before))
    assert -1 <= found.low <= found.difference <= found.high <= 1 and 0 <= found.p_value <= 1
    assert (mirrored.difference, mirrored.low, mirrored.high) == (-found.difference, -found.high, -found.low)
    assert mirrored.p_value == found.p_value
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert stats.paired_difference(*zip(*shuffled, strict=True)) == found


def test_bootstrap_interval():
    before, after = from_counts(40, 18, 122)
    score, boot = (stats.paired_difference(before, after, interval=kind) for kind in ("score", "bootstrap"))
    assert (boot.low, boot.high) == pytest.approx((score.low, score.high), abs=0.006)
    assert boot == stats.paired_difference(before, after, interval="bootstrap")
    few = [stats.paired_difference(before, after, interval="bootstrap", resamples=33, seed=seed).low for seed in (0, 1)]
    assert few[0] != few[1]
    ours = np.subtract(after, before, dtype=float)
    theirs = scipy_stats.bootstrap((ours,), np.mean, method="percentile", rng=0).confidence_interval
    assert (boot.low, boot.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [([True], [True, False], "pair them"), ([], [], "at least one"), ([0.5], [1], "paired_over_seeds")],
)
def test_paired_rejects(before, after, message):
    with pytest.raises(ValueError, match=message):
        stats.paired_difference(before, after)


# -- several seeds -----------------------------------------------------------------------------------------------


def test_one_seed_is_the_paired_t_test():
    rng = np.random.default_rng(3)
    before, after = rng.random((1, 50)), rng.random((1, 50))
    found = stats.paired_over_seeds(before, after, resamples=500)
    assert found.p_value == pytest.approx(scipy_stats.ttest_rel(after[0], before[0]).pvalue)


def test_seeds_that_differ_most_are_the_t_test_over_seeds():
    # Every item changes alike within a seed: only the seeds vary, and the test is the one over their means.
    after = np.repeat([[0.2], [0.5], [0.6]], 40, axis=1)
    found = stats.paired_over_seeds(np.zeros((1, 40)), after, resamples=500)
    assert found.p_value == pytest.approx(scipy_stats.ttest_1samp([0.2, 0.5, 0.6], 0).pvalue)


def test_over_seeds_without_variation():
    """No change at all is not certainty of no change: the interval is that of the score test."""
    found = stats.paired_over_seeds(np.ones((3, 50)), np.ones((3, 50)))
    single = stats.paired_difference([True] * 50, [True] * 50)
    assert (found.difference, found.low, found.high, found.p_value) == (0, single.low, single.high, 1)
    assert found.low < -0.05 and found.high > 0.05
    assert stats.paired_over_seeds(np.zeros((2, 20)), np.ones((2, 20))).p_value == pytest.approx(2 * 0.5**20)


@pytest.mark.parametrize(
    ("before", "after"),
    [(np.zeros((2, 5)), np.zeros((3, 5))), (np.zeros((1, 5)), np.zeros((1, 6))), ([2.0], [1.0]), ([], [])],
)
def test_over_seeds_rejects(before, after):
    with pytest.raises(ValueError, match=r"seeds, items"):
        stats.paired_over_seeds(before, after)


# -- margins, families, sizes ------------------------------------------------------------------------------------


def test_non_inferior():
    same = stats.non_inferior(*from_counts(30, 30, 940), margin=0.03)
    assert same.holds and same.p_value < 0.05 and same.low > -0.03
    worse = stats.non_inferior(*from_counts(20, 60, 920), margin=0.03)
    assert not worse.holds and worse.p_value > 0.5
    with pytest.raises(ValueError, match="margin=3"):
        stats.non_inferior([True], [True], 3)


@UNHURRIED
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 300))
def test_non_inferior_agrees_with_its_p_value(gained, lost, same):
    found = stats.non_inferior(*from_counts(gained, lost, same), margin=0.05)
    if abs(found.p_value - 0.05) > 1e-6:
        assert found.holds == (found.p_value < 0.05)


@pytest.mark.parametrize("seed", range(8))
def test_holm_statsmodels(seed):
    p_values = np.random.default_rng(seed).beta(0.3, 2, size=seed + 1).tolist()
    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@UNHURRIED
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_properties(p_values):
    corrected = stats.holm(p_values)
    assert all(p <= c <= min(1, p * len(p_values)) + 1e-12 for p, c in zip(p_values, corrected, strict=True))
    in_order = [corrected[place] for place in np.argsort(p_values, kind="stable")]
    assert in_order == sorted(in_order)


def test_holm_published_and_untested():
    # Worked example: p 0.01, 0.04, 0.03, 0.005 (Holm's procedure): 0.03, 0.06, 0.06, 0.02.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = stats.holm([math.nan, 0.02, 0.01])
    assert math.isnan(corrected[0]) and corrected[1:] == pytest.approx([0.02, 0.02])
    assert stats.holm([]) == []


@UNHURRIED
@given(st.integers(30, 5000), st.floats(0.05, 1.0))
def test_smallest_detectable_inverts_n_needed(n, rate):
    effect = stats.smallest_detectable(n, rate)
    if math.isinf(effect):
        assert stats.n_needed(rate, rate) > n
    else:
        assert abs(stats.n_needed(effect, rate) - n) <= 1


def test_power_is_what_was_asked_for():
    rate, effect = 0.3, 0.08
    n = stats.n_needed(effect, rate)
    draws = np.random.default_rng(0).multinomial(n, [(rate + effect) / 2, (rate - effect) / 2, 1 - rate], size=4000)
    z = (draws[:, 0] - draws[:, 1]) / np.sqrt(draws[:, 0] + draws[:, 1])
    assert (z > 1.96).mean() == pytest.approx(0.8, abs=0.03)
    assert math.isinf(stats.smallest_detectable(5, 0.1)) and math.isinf(stats.smallest_detectable(0, 0.1))
    with pytest.raises(ValueError, match="discordant_rate"):
        stats.n_needed(0.5, 0.1)


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
        scores_table("base", [1], lambda i, *_: i < 20), scores_table("tuned", [1, 2, 3], lambda i, s, _: i < 20 + 5 * s),
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


def test_compare_without_pairs():
    scores = scores_table("base", [1], lambda *_: True)
    assert stats.compare_models(scores, "base", "tuned").empty
    assert list(stats.compare_models(scores, "base", "tuned").columns) == stats.COMPARISON_COLUMNS
    with pytest.raises(ValueError, match="flexible"):
        stats.compare_models(scores, "base", "tuned", "flexible")
    other = scores_table("tuned", [1], lambda *_: True).assign(item=lambda rows: rows["item"] + 1000)
    with pytest.raises(ValueError, match="share no item"):
        stats.compare_models(pd.concat([scores, other]), "base", "tuned")
