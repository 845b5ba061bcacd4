"""Intervals, paired tests and sample sizes: how sure one may be that one model answers better than another.

Everything here takes plain sequences, arrays or DataFrames and is a function of its arguments alone: what is
drawn at random is drawn from `seed`. The verdicts on the papers' claims are built on top, in `claims.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import bdtr

from . import intervals

# fmt: off
COMPARISON_COLUMNS = [
    "benchmark", "shots", "decoding", "scoring", "before", "after", "n", "seeds",
    "before_accuracy", "before_low", "before_high", "after_accuracy", "after_low", "after_high",
    "difference", "low", "high", "p_value", "gained", "lost", "how",
]
# fmt: on


@dataclass(frozen=True)
class Interval:
    """A share with its confidence interval."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired:
    """The same items before and after: `difference` is mean(after) - mean(before), on a scale of 0 to 1.

    `gained` and `lost` count the items whose (mean) score rose and fell; `method` names test and interval.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    gained: int
    lost: int
    before: float
    after: float
    seeds: int = 1
    level: float = 0.95
    method: str = ""


@dataclass(frozen=True)
class NonInferiority:
    """Whether `after` is worse by less than `margin`; `low` is the one-sided bound at 1 - alpha."""

    difference: float
    low: float
    margin: float
    p_value: float
    holds: bool
    n: int


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Score interval of a share (Wilson 1927); n = 0 tells nothing and gives all of [0, 1]."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes={successes} is not between 0 and n={n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    z, share = intervals.z_value(level), successes / n
    spread = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else min(share, centre - spread)  # exact ends: rounding would leave 1e-17
    high = 1.0 if successes == n else max(share, centre + spread)
    return Interval(share, low, high, n)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: are gains and losses equally likely?"""
    if gained + lost == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def paired_difference(
    before: Sequence[bool] | ArrayLike,
    after: Sequence[bool] | ArrayLike,
    *,
    level: float = 0.95,
    interval: Literal["score", "bootstrap"] = "score",
    resamples: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Compare right-or-wrong answers to the same items: McNemar's exact test, an interval for the difference.

    The interval is Tango's score interval (Statistics in Medicine 17, 1998, 891-908). The paired percentile
    bootstrap (`interval="bootstrap"`) shrinks to a point when no item changes and covers too little when few
    do; from some thirty changed items on the two agree.
    """
    old, new = intervals.right_or_wrong(before, "before"), intervals.right_or_wrong(after, "after")
    if len(old) != len(new):
        raise ValueError(f"before has {len(old)} items and after {len(new)}: pair them by item first")
    n, gained, lost = len(old), int((new & ~old).sum()), int((old & ~new).sum())
    difference = (gained - lost) / n
    if interval == "score":
        low, high = intervals.score_interval(gained, lost, n, intervals.z_value(level))
    elif interval == "bootstrap":
        change = (new.astype(float) - old.astype(float))[np.newaxis]
        low, high = intervals.percentiles(intervals.resample(change, resamples, seed), level)
    else:
        raise ValueError(f"interval={interval!r} is unknown: use 'score' or 'bootstrap'")
    return Paired(
        difference=difference,
        low=min(low, difference),
        high=max(high, difference),
        p_value=mcnemar(gained, lost),
        n=n,
        gained=gained,
        lost=lost,
        before=float(old.mean()),
        after=float(new.mean()),
        level=level,
        method=f"McNemar exact; {interval} interval",
    )


def paired_over_seeds(
    before: ArrayLike, after: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Paired:
    """Compare tables of scores in [0, 1], of shape (seeds, items); one of a single seed is set against all.

    The interval is the percentile one of a bootstrap that draws seeds and items anew. The p-value is a t-test
    with seeds and items both random. A sign-flip test over items would take the trained models as given: with
    3 seeds, 300 items and 4 points between seeds it rejects a true null in 13 % of cases, this one in 6 %.
    """
    old, new = intervals.score_table(before, "before"), intervals.score_table(after, "after")
    if old.shape[1] != new.shape[1] or (len(old) != len(new) and 1 not in (len(old), len(new))):
        raise ValueError(f"before has shape {old.shape} and after {new.shape}: give (seeds, items) of the same runs")
    change = new - old
    by_item = change.mean(axis=0)
    gained, lost = int((by_item > 1e-12).sum()), int((by_item < -1e-12).sum())
    if np.ptp(change) == 0:  # nothing varies: a bootstrap could only say that it is certain
        low, high = intervals.score_interval(gained, lost, change.shape[1], intervals.z_value(level))
        p_value = mcnemar(gained, lost)
    else:
        low, high = intervals.percentiles(intervals.resample(change, resamples, seed), level)
        p_value = intervals.crossed_t_test(change)
    difference = float(change.mean())
    return Paired(
        difference=difference,
        low=min(low, difference),
        high=max(high, difference),
        p_value=p_value,
        n=change.shape[1],
        gained=gained,
        lost=lost,
        before=float(old.mean()),
        after=float(new.mean()),
        seeds=len(change),
        level=level,
        method="two-way random-effects t-test; bootstrap of seeds and items",
    )


def non_inferior(
    before: Sequence[bool] | ArrayLike, after: Sequence[bool] | ArrayLike, margin: float, *, alpha: float = 0.05
) -> NonInferiority:
    """Test whether `after` is worse than `before` by less than `margin`: Tango's score test, one-sided."""
    if not 0 < margin < 1:
        raise ValueError(f"margin={margin} must lie between 0 and 1: the largest loss that would not matter")
    pair = paired_difference(before, after, level=1 - 2 * alpha)
    p_value = 1 - intervals.NORMAL.cdf(intervals.score_z(-margin, pair.gained, pair.lost, pair.n))
    return NonInferiority(pair.difference, pair.low, margin, p_value, pair.low > -margin, pair.n)


def mean_interval(scores: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of a (seeds, items) table: Wilson's interval where every seed says the same, else a bootstrap."""
    table = intervals.score_table(scores, "scores")
    n = table.shape[1]
    if (table == table[0]).all() and np.isin(table, [0, 1]).all():
        return wilson(int(table[0].sum()), n, level)
    low, high = intervals.percentiles(intervals.resample(table, resamples, seed), level)
    return Interval(float(table.mean()), low, high, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) across a family of tests; a nan (not tested) does not count."""
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, worst = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(tested):
        worst = max(worst, min(1.0, (len(tested) - rank) * p))
        corrected[place] = worst
    return corrected


def n_needed(difference: float, discordant_rate: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Items that McNemar's test needs to see `difference` when `discordant_rate` change (Connor 1987)."""
    effect = abs(difference)
    if not 0 < effect <= discordant_rate <= 1:
        raise ValueError(
            f"difference={difference} needs 0 < |difference| <= discordant_rate={discordant_rate} <= 1: "
            "no more items can be won than change"
        )
    seen = intervals.z_value(1 - alpha) * math.sqrt(discordant_rate)
    missed = intervals.NORMAL.inv_cdf(power) * math.sqrt(discordant_rate - effect**2)
    return math.ceil((seen + missed) ** 2 / effect**2)


def smallest_detectable(n: int, discordant_rate: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest difference that n items show with this power; inf where none can be shown."""
    if n <= 0 or discordant_rate <= 0 or n_needed(discordant_rate, discordant_rate, power, alpha) > n:
        return math.inf
    # n * d^2 = (a + b * sqrt(rate - d^2))^2 has one positive root: with y = sqrt(rate - d^2) it is quadratic.
    a = intervals.z_value(1 - alpha) * math.sqrt(discordant_rate)
    b = intervals.NORMAL.inv_cdf(power)
    root = math.sqrt(max(0.0, a * a * b * b + (n + b * b) * (n * discordant_rate - a * a)))
    return math.sqrt(max(0.0, discordant_rate - ((root - a * b) / (n + b * b)) ** 2))


def compare(
    scores: pd.DataFrame,
    before: str,
    after: str,
    scoring: str = "symbolic",
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two models of a scores table, a row for each benchmark, number of shots and decoding.

    An item's score is its mean over samples. Seeds are paired by their number; where one side has a single
    seed (a greedy base) it stands against every seed of the other. Only items answered throughout count.
    """
    missing = {"benchmark", "shots", "decoding", "model", "item", "seed", scoring} - set(scores.columns)
    if missing:
        raise ValueError(f"scores lacks {sorted(missing)}; it has {sorted(scores.columns)}")
    rows: list[dict[str, Any]] = []
    for (benchmark, shots, decoding), part in scores.groupby(["benchmark", "shots", "decoding"], sort=True):
        old, new = _by_seed(part, before, scoring), _by_seed(part, after, scoring)
        if old.empty or new.empty:
            continue
        old, new = _aligned(old, new, f"{benchmark}, {shots} shots, {decoding}")
        settings: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
        head = {"benchmark": benchmark, "shots": shots, "decoding": decoding, "scoring": scoring}
        rows.append({**head, "before": before, "after": after, **_compared(old, new, settings)})
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _by_seed(part: pd.DataFrame, model: str, scoring: str) -> pd.DataFrame:
    chosen = part[part["model"] == model].assign(score=lambda rows: rows[scoring].astype(float))
    return chosen.pivot_table(index="seed", columns="item", values="score", aggfunc="mean").dropna(axis=1)


def _aligned(old: pd.DataFrame, new: pd.DataFrame, where: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    items = old.columns.intersection(new.columns).sort_values()
    if len(old) > 1 and len(new) > 1:
        seeds = old.index.intersection(new.index).sort_values()
        old, new = old.loc[seeds], new.loc[seeds]
    if len(items) == 0 or len(old) == 0:
        raise ValueError(f"{where}: the models share no item or no seed; evaluate both on the same")
    return old[items], new[items]


def _compared(old: pd.DataFrame, new: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    a, b = old.to_numpy(dtype=float), new.to_numpy(dtype=float)
    if len(a) == len(b) == 1 and bool(np.isin(np.concatenate([a, b]), [0, 1]).all()):
        pair = paired_difference(a[0], b[0], level=settings["level"])
    else:
        pair = paired_over_seeds(a, b, **settings)
    first, second = mean_interval(a, **settings), mean_interval(b, **settings)
    return {
        "n": pair.n,
        "seeds": pair.seeds,
        "before_accuracy": first.estimate,
        "before_low": first.low,
        "before_high": first.high,
        "after_accuracy": second.estimate,
        "after_low": second.low,
        "after_high": second.high,
        **{name: getattr(pair, name) for name in COMPARISON_COLUMNS[-7:-1]},
        "how": pair.method,
    }
