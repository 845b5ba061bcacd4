"""The numerics under stats.py against their definitions, statsmodels and simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from crescent_utils import stats

UNHURRIED = settings(deadline=None, max_examples=60)  # a busy machine must not fail a test


@UNHURRIED
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200))
def test_score_interval_inverts_its_test(gained, lost, same):
    low, high = stats.score_interval(gained, lost, gained + lost + same, 1.96)
    for end, z in ((low, 1.96), (high, -1.96)):
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
    assert stats.crossed_t_test(change) == pytest.approx(p)


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
    """Few changes: the reason why the score interval is the default."""
    rng = np.random.default_rng(1)
    n, truth, hit = 60, 0.03, {"score": 0, "bootstrap": 0}
    for _ in range(400):
        change = rng.choice([1, -1, 0], size=n, p=[0.04, 0.01, 0.95])
        before, after = change < 0, change > 0
        for kind in hit:
            found = stats.paired_difference(before, after, interval=kind, resamples=500)
            hit[kind] += found.low <= truth <= found.high
    assert hit["score"] / 400 >= 0.93
    assert hit["bootstrap"] < hit["score"]


def crossed(rng, seeds, n, seed_sd, shift=0.0):
    """A base answered once and `seeds` tuned models of the same mean accuracy plus `shift`, which differ by seed_sd."""
    chance = 1 / (1 + np.exp(-rng.normal(0, 1, n)))
    base = (rng.random(n) < chance).astype(float)
    lift = shift + rng.normal(0, seed_sd, (seeds, 1))
    return base[np.newaxis], (rng.random((seeds, n)) < np.clip(chance + lift, 0, 1)).astype(float)


def test_over_seeds_error_rate_and_coverage():
    rng = np.random.default_rng(11)
    runs, wrong, covered, flipped = 300, 0, 0, 0
    for _ in range(runs):
        before, after = crossed(rng, 3, 150, 0.06)
        found = stats.paired_over_seeds(before, after, resamples=300)
        wrong += found.p_value < 0.05
        covered += found.low <= 0 <= found.high
        by_item = (after - before).mean(axis=0)
        signs = rng.choice([-1, 1], size=(200, 150))
        flipped += (np.abs((signs * by_item).mean(axis=1)) >= abs(by_item.mean())).mean() < 0.05
    assert wrong / runs <= 0.09
    assert covered / runs >= 0.90
    assert flipped > wrong  # the sign-flip test over items, which the docstring argues against


def test_over_seeds_properties():
    rng = np.random.default_rng(2)
    before, after = crossed(rng, 3, 80, 0.02, 0.1)
    found = stats.paired_over_seeds(before, after, resamples=800)
    order = rng.permutation(80)
    assert stats.paired_over_seeds(before[:, order], after[:, order], resamples=800).low == found.low
    mirrored = stats.paired_over_seeds(after, before, resamples=4000)
    full = stats.paired_over_seeds(before, after, resamples=4000)
    assert (mirrored.difference, mirrored.p_value) == pytest.approx((-full.difference, full.p_value))
    assert (-mirrored.high, -mirrored.low) == pytest.approx((full.low, full.high), abs=0.01)
    assert (found.gained, found.lost) == (mirrored.lost, mirrored.gained) and found.seeds == 3
    assert -1 <= found.low <= found.difference <= found.high <= 1
