"""The numerics under stats.py: paired score test, bootstrap of seeds and items, variance over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

Floats = NDArray[np.float64]
NORMAL = NormalDist()
CELLS_AT_ONCE = 2_000_000  # ours: a block of resamples stays under some 50 MB


def z_value(level: float) -> float:
    """Return the standard normal's two-sided critical value."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1, for example 0.95")
    return NORMAL.inv_cdf((1 + level) / 2)


def score_z(delta: float, gained: int, lost: int, n: int) -> float:
    """Tango's statistic for a true difference of `delta`; falls as delta grows."""
    linear = (2 * n - gained + lost) * delta - gained - lost
    constant = -lost * delta * (1 - delta)
    share_lost = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * share_lost + delta * (1 - delta))
    excess = gained - lost - n * delta
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def score_interval(gained: int, lost: int, n: int, z: float) -> tuple[float, float]:
    """Return the differences that the score test at `z` does not reject."""
    # The upper end mirrors the lower one: swapping before and after negates the interval to the last bit.
    return _score_low(gained, lost, n, z), -_score_low(lost, gained, n, z)


def _score_low(gained: int, lost: int, n: int, z: float) -> float:
    low, high = -1.0, (gained - lost) / n
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if score_z(middle, gained, lost, n) > z else (low, middle)
    return (low + high) / 2


def resample(values: Floats, resamples: int, seed: int) -> Floats:
    """Return bootstrap means of a (seeds, items) table, seeds and items both drawn anew with replacement.

    The items are crossed with the seeds (each seed answers all of them), so whole columns are drawn: Owen's
    pigeonhole bootstrap (Annals of Applied Statistics 1, 2007, 386-411). Equal columns are drawn as one, with
    their multiplicity: faster, and the same whatever the order of the items.
    """
    rng = np.random.default_rng(seed)
    columns, counts = np.unique(values, axis=1, return_counts=True)
    seeds, n = values.shape
    means: list[Floats] = []
    left, block = resamples, max(1, CELLS_AT_ONCE // columns.shape[1])
    while left > 0:
        size = min(block, left)
        rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
        items = rng.multinomial(n, counts / n, size=size) / n
        means.append(((rows @ columns) * items).sum(axis=1))
        left -= size
    return np.concatenate(means)


def percentiles(values: Floats, level: float) -> tuple[float, float]:
    """Return the central interval that holds a share of `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def crossed_t_test(change: Floats) -> float:
    """Two-sided p-value of a zero mean in a crossed layout of seeds and items, both random.

    Var(mean) = (MS seeds + MS items - MS rest) / cells from the two-way ANOVA; degrees of freedom after
    Satterthwaite (Biometrics Bulletin 2, 1946, 110-114).
    """
    seeds, n = change.shape
    mean, by_seed, by_item = change.mean(), change.mean(axis=1), change.mean(axis=0)
    ms_items = seeds * float(((by_item - mean) ** 2).sum()) / max(1, n - 1)
    total, degrees = ms_items, float(n - 1)
    if seeds > 1 and n > 1:
        rest = change - by_seed[:, np.newaxis] - by_item + mean
        ms_rest = float((rest**2).sum()) / ((seeds - 1) * (n - 1))
        ms_seeds = n * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
        if ms_seeds > ms_rest:  # otherwise the seeds add nothing beyond chance and items alone decide
            total = ms_seeds + ms_items - ms_rest
            squares = ms_seeds**2 / (seeds - 1) + ms_items**2 / (n - 1) + ms_rest**2 / ((seeds - 1) * (n - 1))
            degrees = total**2 / squares
    if total <= 0 or degrees <= 0:
        return 1.0
    return 2 * float(stdtr(degrees, -abs(float(mean)) / math.sqrt(total / (seeds * n))))


def score_table(values: ArrayLike, name: str) -> Floats:
    """Check a (seeds, items) table of scores; a flat sequence is one seed."""
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if array.ndim != 2 or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} must be a (seeds, items) table of scores between 0 and 1; got shape {array.shape}")
    return array


def right_or_wrong(values: Sequence[bool] | ArrayLike, name: str) -> NDArray[np.bool_]:
    """Check a sequence of right-or-wrong answers."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a sequence of at least one right-or-wrong answer, not shape {array.shape}")
    if not np.isin(array, [0, 1]).all():
        raise ValueError(f"{name} must hold only True and False (or 1 and 0): use paired_over_seeds for mean scores")
    return array.astype(bool)
