"""Statistics: how sure one can be of a share, of a difference, and of several tests taken together.

In come scores between 0 and 1: a sequence with one score per item, or a table of shape (seeds, items). Out come
- a share or a mean with its confidence interval (`Interval`: `wilson`, `mean_interval`);
- a difference between before and after on the same items, with interval and p-value (`paired_difference`), and a table
  of them (`compare_models`);
- p-values corrected for the number of tests (`holm`);
- how often the majority of m answers is right (`accuracy_by_votes`), or any of k (`pass_at_k`);
- how far two quantities have the same order (`rank_correlation`).
Intervals are of 95 %. Whatever resamples takes a seed. Of scipy `special` alone is taken, where it is called: its
`stats`, and statsmodels with it, take most of a second to import, in each notebook.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Interval",
    "LEAST_P",
    "Paired",
    "VOTES",
    "accuracy_by_votes",
    "compare_models",
    "crossed_t_test",
    "holm",
    "mcnemar",
    "mean_interval",
    "p_text",
    "paired_difference",
    "paired_scores",
    "pass_at_k",
    "percentiles",
    "points_text",
    "rank_correlation",
    "wilson",
]

Floats = NDArray[np.float64]
LEVEL = 0.95  # of every interval
VOTES = (1, 3, 5, 8, 16, 32)  # ours: numbers of votes that are compared; LMSI samples 32
VOTE_DRAWS = 20  # ours: random subsets of m answers drawn for each question
LEAST_P = 0.001  # ours: a smaller p-value is shown as "<0.001"
LEAST_SETTINGS = 10  # ours: a rank correlation of fewer has no interval
CELLS_AT_ONCE = 2_000_000  # ours: a block of resamples stays under some 50 MB
COMPARISON_COLUMNS = ["benchmark", "shots", "decoding", "scoring", "before", "after", "n", "seeds"]
COMPARISON_COLUMNS += ["before_accuracy", "before_low", "before_high", "after_accuracy", "after_low", "after_high"]
COMPARISON_COLUMNS += ["difference", "low", "high", "p_value", "gained", "lost", "how", "seed_sd", "item_sd", "rest_sd"]


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A share or mean with its confidence interval; `n` is the number of items."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired:
    """The same items before and after: `difference` is mean(after) - mean(before), on a scale of 0 to 1.

    `gained` and `lost` count the items whose (mean) score rose and fell; `how` names test and interval. The standard
    error squared is about seed_sd ** 2 / seeds + item_sd ** 2 / n + rest_sd ** 2 / (seeds * n): what further seeds and
    items would change. One seed does not tell how seeds differ: `seed_sd` is nan, and `item_sd` holds the rest too.
    """

    n: int
    seeds: int
    difference: float
    low: float
    high: float
    p_value: float
    gained: int
    lost: int
    how: str
    seed_sd: float
    item_sd: float
    rest_sd: float


# --- shares and means -------------------------------------------------------------------------------------------------


def wilson(successes: int, n: int) -> Interval:
    """Return a share with Wilson's score interval; n = 0 tells nothing and gives all of [0, 1]."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes={successes} is not between 0 and n={n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    from scipy.special import ndtri

    share, critical_z = successes / n, -float(ndtri((1 - LEVEL) / 2))
    weight = critical_z**2 / n
    centre = (share + weight / 2) / (1 + weight)
    reach = critical_z * math.sqrt(share * (1 - share) / n + critical_z**2 / (4 * n**2)) / (1 + weight)
    low, high = centre - reach, centre + reach
    # An end that is exactly 0, 1 or the share itself would otherwise miss it by a rounding of 1e-17.
    return Interval(share, min(share, low) if successes else 0.0, max(share, high) if successes < n else 1.0, n)


def mean_interval(scores: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of a (seeds, items) table: Wilson's interval where all seeds say the same.

    Else the interval is that of the t-test with seeds and items random (`crossed_t_test`), or for one seed a
    bootstrap's over its items.
    """
    table = _score_table(scores, "scores")
    n = table.shape[1]
    if (table == table[0]).all() and np.isin(table, [0, 1]).all():
        return wilson(int(table[0].sum()), n)
    if len(table) == 1:
        low, high = percentiles(resample(table, resamples, seed))
    else:
        test = crossed_t_test(table)
        low, high = max(0.0, test.low), min(1.0, test.high)
    return Interval(float(table.mean()), low, high, n)


# --- before and after -------------------------------------------------------------------------------------------------


def paired_difference(before: ArrayLike, after: ArrayLike) -> Paired:
    """Compare scores in [0, 1] of the same items, of shape (items,) or (seeds, items); one seed is set against several.

    Right-or-wrong answers of one seed are compared by McNemar's exact test, with Tango's score interval (Statistics in
    Medicine 17, 1998, 891-908). A percentile bootstrap shrinks to a point when no item changes and covers too little
    when few do; from some thirty changed items on the two agree.

    All else has the p-value of a t-test with seeds and items both random, and the interval of the differences that this
    test does not reject: three seeds are a sample of three from all seeds, and a bootstrap that draws them anew would
    take their spread for that of the population. A sign-flip test over items would take the trained models as given:
    with 3 seeds, 300 items and 4 points between seeds it rejects a true null in 13 % of cases, this one in 6 %.
    """
    old, new = _score_table(before, "before"), _score_table(after, "after")
    if old.shape[1] != new.shape[1] or (len(old) != len(new) and 1 not in (len(old), len(new))):
        raise ValueError(
            f"before has shape {old.shape} and after {new.shape}: pair (seeds, items) of the same runs first"
        )
    change = new - old
    seeds, n = change.shape
    item_changes = change.mean(axis=0)
    gained, lost = int((item_changes > 1e-12).sum()), int((item_changes < -1e-12).sum())
    single_answers = seeds == 1 and bool(np.isin([old, new], [0, 1]).all())
    test = crossed_t_test(change)
    if single_answers or np.ptp(change) == 0:  # where nothing varies, a bootstrap could only say that it is certain
        low, high, p_value = *score_interval(gained, lost, n), mcnemar(gained, lost)
    else:
        low, high, p_value = max(-1.0, test.low), min(1.0, test.high), test.p_value
    difference = float(change.mean())
    low, high = min(low, difference), max(high, difference)
    how = "McNemar exact; score interval"
    if not single_answers:
        how = "t-test with seeds and items random, and its interval"
    spread = (test.seed_sd, test.item_sd, test.rest_sd)
    return Paired(n, seeds, difference, low, high, p_value, gained, lost, how, *spread)


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, in which unchanged items play no part."""
    changed = gained + lost
    ways = ways_so_few = 1  # of choosing which items rose, or fell: none of them, then up to the smaller number
    for chosen in range(min(gained, lost)):
        ways = ways * (changed - chosen) // (chosen + 1)
        ways_so_few += ways
    return min(1.0, float(2 * ways_so_few / 2**changed))  # in integers: scipy's bdtr is not exact to 12 digits


def compare_models(
    scores: pd.DataFrame, before: str, after: str, scoring: str = "symbolic", *, resamples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Compare two models of a scores table: one row for each benchmark, number of shots and decoding.

    An item's score is its mean over samples. Seeds are paired by their number; where one side has a single seed (a
    greedy base) it stands against every seed of the other. Only items that both models answered with every seed count.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    keys = ["benchmark", "shots", "decoding"]
    answers = scores[[*keys, "model", "seed", "item", scoring]]  # without the texts, which take long to copy
    for (benchmark, shots, decoding), part in answers.groupby(keys, sort=True):
        tables = paired_scores(part, before, after, scoring, f"{benchmark}, {shots} shots, {decoding}")
        if tables is None:
            continue
        row = {"benchmark": benchmark, "shots": shots, "decoding": decoding, "scoring": scoring}
        row |= {"before": before, "after": after}
        for side, table in zip(("before", "after"), tables, strict=True):
            accuracy = mean_interval(table, resamples=resamples, seed=seed)
            row |= {f"{side}_accuracy": accuracy.estimate, f"{side}_low": accuracy.low, f"{side}_high": accuracy.high}
        rows.append(row | asdict(paired_difference(*tables)))
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def paired_scores(
    scores: pd.DataFrame, before: str, after: str, column: str, where: str = "scores"
) -> tuple[Floats, Floats] | None:
    """Return both models' scores as tables (seeds, items) over what both have; None if one model has none.

    A single seed stands against all of the other's. Raises ValueError, naming `where`, if they share nothing.
    """
    old, new = (_seeds_by_items(scores[scores["model"] == model], column) for model in (before, after))
    if old.scores.size == 0 or new.scores.size == 0:
        return None
    items, old_places, new_places = np.intersect1d(old.items, new.items, assume_unique=True, return_indices=True)
    old_scores, new_scores = old.scores[:, old_places], new.scores[:, new_places]
    if len(old.seeds) > 1 and len(new.seeds) > 1:
        _, old_rows, new_rows = np.intersect1d(old.seeds, new.seeds, assume_unique=True, return_indices=True)
        old_scores, new_scores = old_scores[old_rows], new_scores[new_rows]
    if len(items) == 0 or len(old_scores) == 0:
        raise ValueError(f"{where}: the models share no item or no seed; evaluate both on the same")
    # Rows stand together in memory: the last digit of a mean depends on it, and so do the committed tables.
    return np.ascontiguousarray(old_scores), np.ascontiguousarray(new_scores)


class _SeedsByItems(NamedTuple):
    """Mean scores (seeds, items), the seeds and items in order."""

    seeds: NDArray[Any]
    items: NDArray[Any]
    scores: Floats


def _seeds_by_items(rows: pd.DataFrame, column: str) -> _SeedsByItems:
    """Return the mean of `column` over samples, for each seed and each item that has a score under every seed."""
    scored = rows[rows[column].notna()]
    seeds, seed_of = np.unique(scored["seed"].to_numpy(), return_inverse=True)
    items, item_of = np.unique(scored["item"].to_numpy(), return_inverse=True)
    cell_of = seed_of * len(items) + item_of
    cells = len(seeds) * len(items)
    samples = np.bincount(cell_of, minlength=cells).reshape(len(seeds), len(items))
    totals = np.bincount(cell_of, scored[column].to_numpy(dtype=float), cells).reshape(samples.shape)
    complete = (samples > 0).all(axis=0)
    return _SeedsByItems(seeds, items[complete], totals[:, complete] / samples[:, complete])


# --- several tests ----------------------------------------------------------------------------------------------------


def points_text(difference: float, low: float, high: float) -> str:
    """Return a difference of shares in percentage points with its interval, if it has one (nan: it has none)."""
    value, start, end = (100 * share + 0.0 for share in (difference, low, high))  # no "-0.0"
    return f"{value:+.1f}" + ("" if math.isnan(end) else f" [{start:+.1f}, {end:+.1f}]")


def p_text(p: float) -> str:
    """Return a p-value as it is shown: of three decimals, since more would pretend to know; "" for nan."""
    return "" if math.isnan(p) else f"<{LEAST_P}" if p < LEAST_P else f"{p:.3f}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values after Holm's step-down correction (1979); a nan (not tested) stays nan and does not count.

    Statsmodels has it too, and looks for garbage in all of the process's memory at each call, half a second in a run.
    """
    corrected = np.array(p_values, dtype=float)
    is_tested = ~np.isnan(corrected)
    tested = corrected[is_tested]
    order = np.argsort(tested, kind="stable")
    remaining = np.arange(len(tested), 0, -1)  # hypotheses not rejected yet, before each step
    tested[order] = np.minimum(np.maximum.accumulate(tested[order] * remaining), 1)
    corrected[is_tested] = tested
    return [float(p_value) for p_value in corrected]


# --- two quantities ---------------------------------------------------------------------------------------------------


def rank_correlation(first: ArrayLike, second: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return Spearman's rank correlation of two quantities of the same settings, and n, the number of settings.

    The interval is that of a percentile bootstrap over settings; a resample in which one quantity is the same
    everywhere has no correlation and is left out. Below ten settings it is nan (ours): three in the same order would
    have one from 1 to 1, which is no certainty. All is nan where there are fewer than three settings, or one quantity
    is the same in all.
    """
    from scipy.stats import rankdata

    pairs = np.column_stack([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    n = len(pairs)

    def correlation(rows: Floats) -> float:
        ranks = rankdata(rows, axis=0)
        centred = ranks - ranks.mean(axis=0)
        spread = math.sqrt(float((centred[:, 0] ** 2).sum() * (centred[:, 1] ** 2).sum()))
        return float((centred[:, 0] * centred[:, 1]).sum()) / spread if spread else math.nan

    if n < 3 or math.isnan(estimate := correlation(pairs)):
        return Interval(math.nan, math.nan, math.nan, n)
    if n < LEAST_SETTINGS:
        return Interval(estimate, math.nan, math.nan, n)
    generator = np.random.default_rng(seed)
    draws = np.array([correlation(pairs[generator.integers(n, size=n)]) for _ in range(resamples)])
    draws = draws[~np.isnan(draws)]
    return Interval(estimate, *(percentiles(draws) if len(draws) else (math.nan, math.nan)), n)


# --- votes ------------------------------------------------------------------------------------------------------------


def accuracy_by_votes(
    answer_rows: Sequence[Sequence[str | None]],
    golds: Sequence[str],
    seed: int = 0,
    votes: Sequence[int] = VOTES,
    seeds: int = 1,
) -> pd.DataFrame:
    """Return how often the majority of m answers is right, for each m of `votes` up to the number of answers.

    Where `votes` go beyond that number, the last m is the number itself: twelve votes have a row of twelve.
    `answer_rows` has one row per question with the answers to it, in a form in which equal answers are equal text
    (None: unreadable, never a candidate); m = 1 is a single sample. Each question counts with its mean over random
    subsets of m answers, so that the order of sampling plays no part; a tie counts with its chance of being drawn.
    With several `seeds` the rows are those of the first seed, then of the second …, each with the same questions.
    Columns: `m`, `n` (questions), `right`, `low`, `high` (95 %, see `mean_interval`).
    """
    import pandas as pd

    rows: list[dict[str, float]] = []
    fewest_answers = min((len(answers) for answers in answer_rows), default=0)
    up_to = {min(m, fewest_answers) for m in votes}
    for m in sorted(up_to - {0}):
        rng = random.Random(seed * 1_000 + m)
        shares = [_share_right(answers, gold, m, rng) for answers, gold in zip(answer_rows, golds, strict=True)]
        interval = mean_interval(np.reshape(shares, (seeds, -1)))
        rows.append({"m": m, "n": interval.n, "right": interval.estimate, "low": interval.low, "high": interval.high})
    return pd.DataFrame(rows, columns=["m", "n", "right", "low", "high"])


def _share_right(answers: Sequence[str | None], gold: str, m: int, rng: random.Random) -> float:
    """Return how often the majority of m of these answers is right, over random subsets."""
    if m == 1:  # all subsets of one are known
        return sum(answer == gold for answer in answers) / len(answers)
    draws = 1 if m == len(answers) else VOTE_DRAWS
    return math.fsum(_chance_right(rng.sample(answers, m), gold) for _ in range(draws)) / draws


def _chance_right(answers: Sequence[str | None], gold: str) -> float:
    """Return the chance that the majority is right, where a tie is decided at random."""
    counts = Counter(answer for answer in answers if answer is not None)
    most = max(counts.values(), default=0)
    leaders = sum(count == most for count in counts.values())
    return (counts[gold] == most) / leaders if most else 0.0


def pass_at_k(totals: ArrayLike, right: ArrayLike, k: int) -> Floats:
    """Return for each question the chance that one of k samples is right, drawn without replacement of `totals`.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), 1 - C(n - c, k) / C(n, k); nan where n < k.
    """
    from scipy.special import gammaln

    sampled = np.asarray(totals, dtype=float)
    wrong = sampled - np.asarray(right, dtype=float)
    log_share = gammaln(wrong + 1) - gammaln(np.maximum(wrong - k, 0) + 1)
    log_share += gammaln(np.maximum(sampled - k, 0) + 1) - gammaln(sampled + 1)
    none_right = np.where(wrong < k, 0.0, np.exp(log_share))
    return np.where(sampled < k, np.nan, 1 - none_right)


# --- numerics ---------------------------------------------------------------------------------------------------------


def percentiles(values: Floats) -> tuple[float, float]:
    """Return the central interval that holds a share of LEVEL of the values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resample(values: Floats, resamples: int, seed: int) -> Floats:
    """Return bootstrap means of a (seeds, items) table, seeds and items both drawn anew with replacement.

    The items are crossed with the seeds (each seed answers all of them), so whole columns are drawn: Owen's pigeonhole
    bootstrap (Annals of Applied Statistics 1, 2007, 386-411). Equal columns are drawn as one, with their multiplicity:
    faster, and the same whatever the order of the items.
    """
    rng = np.random.default_rng(seed)
    columns, counts = np.unique(values, axis=1, return_counts=True)
    seeds, n = values.shape
    block_size = max(1, CELLS_AT_ONCE // columns.shape[1])
    means: list[Floats] = []
    for start in range(0, resamples, block_size):
        size = min(block_size, resamples - start)
        seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
        item_weights = rng.multinomial(n, counts / n, size=size) / n
        means.append(((seed_weights @ columns) * item_weights).sum(axis=1))
    return np.concatenate(means)


@dataclass(frozen=True)
class CrossedTest:
    """A t-test of a zero mean: two-sided p-value, the means that it does not reject, and what the variance is made of.

    `seed_sd`, `item_sd` and `rest_sd` are as in `Paired`.
    """

    p_value: float
    low: float
    high: float
    seed_sd: float
    item_sd: float
    rest_sd: float


def crossed_t_test(change: Floats) -> CrossedTest:
    """Return the t-test of a zero mean in a crossed layout of seeds and items, both random.

    Var(mean) = (MS seeds + MS items - MS rest) / cells from the two-way ANOVA; degrees of freedom after Satterthwaite
    (Biometrics Bulletin 2, 1946, 110-114). Where nothing can be told the interval is all of [-1, 1].
    """
    from scipy.special import stdtr, stdtrit

    seeds, n = change.shape
    mean, seed_means, item_means = change.mean(), change.mean(axis=1), change.mean(axis=0)
    ms_items = seeds * float(((item_means - mean) ** 2).sum()) / max(1, n - 1)
    total, degrees = ms_items, float(n - 1)
    seed_sd, item_sd, rest_sd = math.nan, math.sqrt(ms_items), 0.0
    if seeds > 1 and n > 1:
        rest = change - seed_means[:, np.newaxis] - item_means + mean
        ms_rest = float((rest**2).sum()) / ((seeds - 1) * (n - 1))
        ms_seeds = n * float(((seed_means - mean) ** 2).sum()) / (seeds - 1)
        seed_sd = math.sqrt(max(0.0, ms_seeds - ms_rest) / n)
        item_sd, rest_sd = math.sqrt(max(0.0, ms_items - ms_rest) / seeds), math.sqrt(ms_rest)
        if ms_seeds > ms_rest:  # otherwise the seeds add nothing beyond chance and items alone decide
            total = ms_seeds + ms_items - ms_rest
            squares = ms_seeds**2 / (seeds - 1) + ms_items**2 / (n - 1) + ms_rest**2 / ((seeds - 1) * (n - 1))
            degrees = total**2 / squares
    if total <= 0 or degrees <= 0:
        return CrossedTest(1.0, -1.0, 1.0, seed_sd, item_sd, rest_sd)
    standard_error = math.sqrt(total / (seeds * n))
    p_value = 2 * float(stdtr(degrees, -abs(float(mean)) / standard_error))
    reach = float(stdtrit(degrees, (1 + LEVEL) / 2)) * standard_error
    return CrossedTest(p_value, float(mean) - reach, float(mean) + reach, seed_sd, item_sd, rest_sd)


def score_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Return the ends of the differences that Tango's score test does not reject."""
    # The upper end mirrors the lower one: swapping before and after negates the interval to the last bit.
    return _score_low(gained, lost, n), -_score_low(lost, gained, n)


def _score_low(gained: int, lost: int, n: int) -> float:
    critical_z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    low, high = -1.0, (gained - lost) / n
    for _ in range(60):  # bisection to the last bit
        middle = (low + high) / 2
        if score_z(middle, gained, lost, n) > critical_z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def score_z(delta: float, gained: int, lost: int, n: int) -> float:
    """Return Tango's statistic for a true difference of `delta`; it falls as delta grows."""
    linear = (2 * n - gained + lost) * delta - gained - lost
    constant = -lost * delta * (1 - delta)
    share_lost = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * share_lost + delta * (1 - delta))
    excess = gained - lost - n * delta
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def _score_table(values: ArrayLike, name: str) -> Floats:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0 or not ((table >= 0) & (table <= 1)).all():
        raise ValueError(f"{name} must be a (seeds, items) table of scores between 0 and 1; got shape {table.shape}")
    return table
