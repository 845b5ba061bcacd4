"""Statistics: intervals, paired tests and corrections, for answers that are right or wrong and for scores over seeds.

In come arrays of scores, of items or of seeds and items, before and after a change; out come a difference with its interval
and p-value (`Paired`), a share with Wilson's interval, Holm's correction of a family of tests, and how many items would be
needed to tell. Resampling takes a seed. Everything is checked against an independent computation in the tests.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtr

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Paired",
    "VOTES",
    "accuracy_by_votes",
    "compare_models",
    "holm",
    "mean_interval",
    "n_needed",
    "non_inferior",
    "paired_difference",
    "paired_over_seeds",
    "percentiles",
    "smallest_detectable",
    "wilson",
]
Floats = NDArray[np.float64]
NORMAL = NormalDist()
VOTES = (1, 3, 5, 8, 16, 32)  # ours: numbers of votes that are compared; LMSI samples 32
VOTE_DRAWS = 20  # ours: random subsets of so many votes a question; of one or of all there is no need to draw
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


# fmt: off
COMPARISON_COLUMNS = [
    "benchmark", "shots", "decoding", "scoring", "before", "after", "n", "seeds",
    "before_accuracy", "before_low", "before_high", "after_accuracy", "after_low", "after_high",
    "difference", "low", "high", "p_value", "gained", "lost", "how",
]


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
    z, share = z_value(level), successes / n
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
    old, new = right_or_wrong(before, "before"), right_or_wrong(after, "after")
    if len(old) != len(new):
        raise ValueError(f"before has {len(old)} items and after {len(new)}: pair them by item first")
    n, gained, lost = len(old), int((new & ~old).sum()), int((old & ~new).sum())
    difference = (gained - lost) / n
    if interval == "score":
        low, high = score_interval(gained, lost, n, z_value(level))
    elif interval == "bootstrap":
        change = (new.astype(float) - old.astype(float))[np.newaxis]
        low, high = percentiles(resample(change, resamples, seed), level)
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
    old, new = score_table(before, "before"), score_table(after, "after")
    if old.shape[1] != new.shape[1] or (len(old) != len(new) and 1 not in (len(old), len(new))):
        raise ValueError(f"before has shape {old.shape} and after {new.shape}: give (seeds, items) of the same runs")
    change = new - old
    by_item = change.mean(axis=0)
    gained, lost = int((by_item > 1e-12).sum()), int((by_item < -1e-12).sum())
    if np.ptp(change) == 0:  # nothing varies: a bootstrap could only say that it is certain
        low, high = score_interval(gained, lost, change.shape[1], z_value(level))
        p_value = mcnemar(gained, lost)
    else:
        low, high = percentiles(resample(change, resamples, seed), level)
        p_value = crossed_t_test(change)
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
    p_value = 1 - NORMAL.cdf(score_z(-margin, pair.gained, pair.lost, pair.n))
    return NonInferiority(pair.difference, pair.low, margin, p_value, pair.low > -margin, pair.n)


def mean_interval(scores: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of a (seeds, items) table: Wilson's interval where every seed says the same, else a bootstrap."""
    table = score_table(scores, "scores")
    n = table.shape[1]
    if (table == table[0]).all() and np.isin(table, [0, 1]).all():
        return wilson(int(table[0].sum()), n, level)
    low, high = percentiles(resample(table, resamples, seed), level)
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
    seen = z_value(1 - alpha) * math.sqrt(discordant_rate)
    missed = NORMAL.inv_cdf(power) * math.sqrt(discordant_rate - effect**2)
    return math.ceil((seen + missed) ** 2 / effect**2)


def smallest_detectable(n: int, discordant_rate: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest difference that n items show with this power; inf where none can be shown."""
    if n <= 0 or discordant_rate <= 0 or n_needed(discordant_rate, discordant_rate, power, alpha) > n:
        return math.inf
    # n * d^2 = (a + b * sqrt(rate - d^2))^2 has one positive root: with y = sqrt(rate - d^2) it is quadratic.
    a = z_value(1 - alpha) * math.sqrt(discordant_rate)
    b = NORMAL.inv_cdf(power)
    root = math.sqrt(max(0.0, a * a * b * b + (n + b * b) * (n * discordant_rate - a * a)))
    return math.sqrt(max(0.0, discordant_rate - ((root - a * b) / (n + b * b)) ** 2))


def compare_models(
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
    import pandas as pd

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


def accuracy_by_votes(
    answer_rows: Sequence[Sequence[str | None]], golds: Sequence[str], seed: int = 0, votes: Sequence[int] = VOTES
) -> pd.DataFrame:
    """Return how often the majority of m answers is right, for each m of `votes` up to the number of answers; m = 1 is one sample.

    `answer_rows` has the answers to one question in each row, in a form in which equal answers are equal text (None: unreadable,
    never a candidate). Each question counts with its mean over random subsets of m answers, so that the order of sampling plays
    no part; a tie counts with its chance of being drawn. Columns: `m`, `n` (questions), `right`, `low`, `high` (bootstrap over
    questions, 95 %).
    """
    import pandas as pd

    rows: list[dict[str, float]] = []
    most = min((len(row) for row in answer_rows), default=0)
    for m in [m for m in votes if m <= most]:
        chance = random.Random(seed * 1_000 + m)
        right = [_share_right(row, gold, m, chance) for row, gold in zip(answer_rows, golds, strict=True)]
        interval = mean_interval(right)
        rows.append({"m": m, "n": len(right), "right": interval.estimate, "low": interval.low, "high": interval.high})
    return pd.DataFrame(rows, columns=["m", "n", "right", "low", "high"])


def _share_right(row: Sequence[str | None], gold: str, m: int, chance: random.Random) -> float:
    if m == 1:
        return sum(answer == gold for answer in row) / len(row)
    draws = 1 if m == len(row) else VOTE_DRAWS
    return math.fsum(_chance_right(chance.sample(row, m), gold) for _ in range(draws)) / draws


def _chance_right(row: Sequence[str | None], gold: str) -> float:
    """Return the chance that the majority is right, where a tie is decided at random."""
    counts = Counter(answer for answer in row if answer is not None)
    most = max(counts.values(), default=0)
    leaders = sum(count == most for count in counts.values())
    return (counts[gold] == most) / leaders if most else 0.0
