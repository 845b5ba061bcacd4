"""Similarity: which vectors are far enough from those kept before, and which other vectors stand nearest.

The cosine of two rows is that of their float64 unit vectors, rounded to 12 digits: float32 puts a repetition up to
6e-7 short of 1, and an unrounded sum leaves ties to its last bit. An index names the few rows that can be nearest;
their cosines are then computed in float64, so that decisions and neighbours are those of this definition. As many
pairs as `EXACT_ROWS` rows have among them are all compared, by float32 products; where there are more, FAISS looks into
the nearest of many lists, and the recall is measured. Ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 12  # of a cosine
EXACT_ROWS = 60_000  # above the paper's 55,000, which take 8 s on two cores; 100,000 take 25 s exactly, 3 s by FAISS
RELEASED_BATCH, RELEASED_COSINE, RELEASED_SQUARED_L2 = 100, 0.85, 0.25  # Crescent, released scripts
BLOCK, PIECE = 1024, 8192  # rows that are looked up, and rows of the index that they are compared with, at a time
CANDIDATES = 4  # rows that FAISS names for each row
LISTS_SEARCHED = 8  # of about 4 sqrt(n) lists (FAISS's guideline)
ROWS_PER_LIST, TRAINING_ROUNDS = 10, 3  # what the lists' centres are computed from, and the rounds of k-means
RECALL_SAMPLE = 2_000  # rows that the recall is measured on


@dataclass(frozen=True)
class Selection:
    """Which rows were kept; for each row its nearest kept row before it (-1: none) and the cosine to it (-1: none).

    `recall` is the share of too-similar rows that the search recognised, measured on `recall_rows` of them in a sample;
    1.0 and 0 where every pair was compared. An approximate `similarity` is a lower bound.
    """

    kept: np.ndarray
    nearest: np.ndarray
    similarity: np.ndarray
    recall: float = 1.0
    recall_rows: int = 0


@dataclass(frozen=True)
class Released:
    """What the authors' code does with each row at first: `dropped`, `close` (sent to one rewrite), or kept.

    `nearest` is the row that decided (-1: none) and `similarity` the largest cosine that was looked at (-1: none).
    """

    dropped: np.ndarray
    close: np.ndarray
    nearest: np.ndarray
    similarity: np.ndarray


def select_diverse(
    vectors: np.ndarray, threshold: float, pool: np.ndarray | None = None, exact_rows: int = EXACT_ROWS
) -> Selection:
    """Keep row i iff its largest cosine to every row kept before is < threshold: greedy, first come.

    `vectors` is (n, d) with rows of any length; `pool` (m, d) holds rows kept earlier: they count as 0 … m-1 in
    `nearest` and the rows of `vectors` as m … m+n-1; of equal neighbours the first is named. Every pair is compared
    where there are no more of them than among `exact_rows` rows. Raises ValueError for another shape or a value that is
    not finite. Ours.
    """
    vectors, first = np.asarray(vectors), 0 if pool is None else len(pool)
    if pool is not None and first:
        if pool.shape[1:] != vectors.shape[1:]:
            raise ValueError(f"pool: rows of {pool.shape[-1]} numbers, those of vectors have {vectors.shape[-1]}")
        vectors = np.concatenate([pool, vectors])
    rows = _Rows(vectors)
    pairs = len(rows) ** 2 - first**2  # twice their number
    index = _Index(rows, first, exact=pairs <= exact_rows**2)
    kept = np.zeros(len(rows) - first, bool)
    nearest, similarity = np.full(len(kept), -1), np.full(len(kept), -1.0)
    for numbers in _blocks(first, len(rows)):
        unit = rows.unit32(numbers)
        block_nearest = index.nearest(numbers, unit)
        scores = unit @ unit.T
        chosen = _choose(rows, numbers, scores, block_nearest.cosine < threshold, threshold)
        _look_within(rows, numbers, scores, chosen, block_nearest)
        index.add(numbers[chosen], unit[chosen])
        here = numbers - first
        kept[here], nearest[here], similarity[here] = chosen, block_nearest.number, block_nearest.cosine
    if index.exact:
        return Selection(kept, nearest, similarity)
    return Selection(kept, nearest, similarity, *_recall(rows, first, threshold, kept))


def select_released(vectors: np.ndarray, exact_rows: int = EXACT_ROWS) -> Released:
    """Select as the authors' public code does (Crescent, released scripts).

    In a batch of 100, of two rows with cosine >= 0.85 the earlier is dropped; of the others, a row with squared L2
    distance < 0.25 to any row of an earlier batch (dropped or not) is close. Reads the embeddings alone, so it needs
    no rewrite. More than `exact_rows` rows are searched approximately.
    """
    rows = _Rows(vectors)
    index = _Index(rows, 0, exact=len(rows) <= exact_rows)
    dropped, close = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    nearest, similarity = np.full(len(rows), -1), np.full(len(rows), -1.0)
    for batch in _blocks(0, len(rows), RELEASED_BATCH):
        unit = rows.unit32(batch)
        earlier = index.nearest(batch, unit)
        index.add(batch, unit)
        cosines = np.round(rows.unit(batch) @ rows.unit(batch).T, DIGITS)
        later_cosines = np.where(np.triu(np.ones_like(cosines, bool), 1), cosines, -np.inf)
        dropped[batch] = later_cosines.max(axis=1) >= RELEASED_COSINE
        squared_distance = 2 - 2 * earlier.cosine  # of unit vectors
        close[batch] = ~dropped[batch] & (squared_distance < RELEASED_SQUARED_L2)
        similarity[batch] = np.where(dropped[batch], later_cosines.max(axis=1), earlier.cosine)
        nearest_earlier = np.where(close[batch], earlier.number, -1)
        nearest[batch] = np.where(dropped[batch], batch[0] + later_cosines.argmax(axis=1), nearest_earlier)
    return Released(dropped, close, nearest, similarity)


def nearest_other(vectors: np.ndarray, exact_rows: int = EXACT_ROWS) -> np.ndarray:
    """Return the cosine of each row to its nearest *other* row (-1: there is none).

    More than `exact_rows` rows are searched approximately; a cosine is then a lower bound.
    """
    rows = _Rows(vectors)
    index = _Index(rows, len(rows), exact=len(rows) <= exact_rows)
    blocks = _blocks(0, len(rows))
    cosines = [index.nearest(numbers, rows.unit32(numbers), itself=False).cosine for numbers in blocks]
    return np.concatenate([np.empty(0), *cosines])


def nearest_among(vectors: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of each row of `vectors` to its nearest row of `others`, and that row's number (-1: none).

    The cosines are float32 products, good to six digits: the scores of committed tables were rounded from these.
    """
    rows, other_rows = _Rows(vectors), _Rows(others)
    cosine, number = np.full(len(rows), -1.0), np.full(len(rows), -1)
    if not len(other_rows):
        return cosine, number
    unit = other_rows.unit32(np.arange(len(other_rows)))
    for block in _blocks(0, len(rows)):
        products = rows.unit32(block) @ unit.T
        number[block] = products.argmax(axis=1)
        cosine[block] = np.clip(products.max(axis=1), -1, 1)
    return cosine, number


def rethreshold(vectors: np.ndarray, thresholds: Sequence[float], exact_rows: int = EXACT_ROWS) -> list[int]:
    """Return how many rows `select_diverse` keeps at each threshold, without sampling anything again."""
    return [int(select_diverse(vectors, level, exact_rows=exact_rows).kept.sum()) for level in thresholds]


def threshold_examples(
    questions: Sequence[str], vectors: np.ndarray, thresholds: Sequence[float], examples: int = 4, first: int = 2000
) -> pd.DataFrame:
    """Return one row per threshold: what `select_diverse` keeps there, with questions on either side of it.

    Columns: `threshold`, `kept` of `total` questions, `leaving` and `staying`. The latter two list up to `examples`
    pairs (question, its neighbour that stays, their cosine), those nearest to the threshold first: just too similar,
    and just different enough. The `first` questions alone are looked at; what becomes of them does not depend on later
    ones. Raises ValueError if there are not as many questions as vectors. Ours.
    """
    import pandas as pd

    if len(questions) != len(vectors):
        raise ValueError(
            f"questions: {len(questions)}, but vectors has {len(vectors)} rows; give one vector per question"
        )
    rows = []
    for level in thresholds:
        selection = select_diverse(vectors[:first], level)
        distance = np.abs(selection.similarity - level)
        sides = {}
        for name, side in (("leaving", ~selection.kept), ("staying", selection.kept)):
            near = np.flatnonzero(side & (selection.nearest >= 0))
            near = near[np.argsort(distance[near], kind="stable")]
            pairs = ((questions[i], questions[selection.nearest[i]], float(selection.similarity[i])) for i in near)
            sides[name] = list(islice(dict.fromkeys(pairs), examples))
        rows.append({"threshold": level, "kept": int(selection.kept.sum()), "total": len(selection.kept), **sides})
    return pd.DataFrame(rows, columns=["threshold", "kept", "total", "leaving", "staying"])


def _blocks(start: int, end: int, size: int = 0) -> Iterator[np.ndarray]:
    """Yield the numbers from `start` to `end` in order, in blocks."""
    size = size or BLOCK
    for begin in range(start, end, size):
        yield np.arange(begin, min(begin + size, end))


class _Rows:
    """Rows by number. Unit vectors are made when asked for, so that no float64 copy of all rows is held."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors = np.asarray(vectors)
        if vectors.ndim != 2:
            raise ValueError(f"vectors: shape {vectors.shape} is not (rows, dimension)")
        self._norms = np.empty(len(vectors))
        for numbers in _blocks(0, len(vectors)):
            self._norms[numbers] = np.linalg.norm(vectors[numbers].astype(np.float64), axis=1)
        if not np.isfinite(self._norms).all():
            row = int(np.argmin(np.isfinite(self._norms)))
            raise ValueError(f"vectors: row {row} holds a value that is not finite")
        self._norms[self._norms == 0] = 1.0  # a row of zeros stays one: its cosine to any other is 0
        self.dimension = int(vectors.shape[1])
        # How far a float32 product of two unit rows can be from the float64 one: gamma_n of the usual error analysis.
        self.float32_error = (self.dimension + 8) * 2.0**-24

    def __len__(self) -> int:
        return len(self._vectors)

    def unit(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers as float64 unit vectors."""
        unit: np.ndarray = self._vectors[numbers].astype(np.float64) / self._norms[numbers, None]
        return unit

    def unit32(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers as float32 unit vectors."""
        return self.unit(numbers).astype(np.float32)

    def cosines(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the rounded cosine of each pair of row numbers."""
        cosines = np.empty(len(left))
        for pairs in _blocks(0, len(left), 4096):
            cosines[pairs] = np.einsum("nd,nd->n", self.unit(left[pairs]), self.unit(right[pairs]))
        return np.round(cosines, DIGITS)


class _Nearest:
    """The nearest row so far of each row of a block: its `number` and `cosine` (-1 and -1: none)."""

    def __init__(self, count: int) -> None:
        self.number, self.cosine = np.full(count, -1), np.full(count, -1.0)

    def offer(self, place: np.ndarray, number: np.ndarray, cosine: np.ndarray) -> None:
        """Offer neighbours to the rows at these places: the largest cosine stays; of equals, the lowest number."""
        order = np.lexsort((number, -cosine, place))
        best = order[np.flatnonzero(np.diff(place[order], prepend=-1))]  # the first of each place
        place, number, cosine = place[best], number[best], cosine[best]
        nearer = (self.number[place] < 0) | (cosine > self.cosine[place])
        nearer |= (cosine == self.cosine[place]) & (number < self.number[place])
        self.number[place[nearer]], self.cosine[place[nearer]] = number[nearer], cosine[nearer]


class _Index:
    """Rows to find neighbours in: `exact` compares every pair, else FAISS searches the nearest of many lists."""

    def __init__(self, rows: _Rows, count: int, exact: bool = True) -> None:
        """Begin with the first `count` rows."""
        self.exact = exact
        self._rows, self._size = rows, 0
        self._numbers = np.empty(len(rows), np.int64)
        self._unit = np.empty((len(rows) if exact else 0, rows.dimension), np.float32)  # memory is taken as it fills
        self._lists = None if exact else _Lists(rows)
        for numbers in _blocks(0, count):
            self.add(numbers, rows.unit32(numbers))

    def add(self, numbers: np.ndarray, unit: np.ndarray) -> None:
        """Add the rows of these numbers, given as float32 unit vectors."""
        here = slice(self._size, self._size + len(numbers))
        self._numbers[here] = numbers
        if self._lists is None:
            self._unit[here] = unit
        else:
            self._lists.add(numbers, unit)
        self._size += len(numbers)

    def nearest(self, numbers: np.ndarray, unit: np.ndarray, itself: bool = True) -> _Nearest:
        """Return the nearest row in the index of each of these rows (`unit`: as float32 unit vectors).

        Without `itself`, a row is not its own neighbour; that is for indexes of all rows.
        """
        nearest = _Nearest(len(numbers))
        if not self._size:
            return nearest
        if self._lists is None:
            place, position = self._candidates(unit, None if itself else numbers)
        else:
            place, position = self._lists.candidates(numbers, unit)
        neighbour = self._numbers[position]
        if not itself:
            others = neighbour != numbers[place]
            place, neighbour = place[others], neighbour[others]
        nearest.offer(place, neighbour, self._rows.cosines(numbers[place], neighbour))
        return nearest

    def _candidates(self, unit: np.ndarray, left_out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return (place, position) of each row that float32 cannot tell from the nearest; `left_out`: one per place."""
        tolerance = np.float32(2 * self._rows.float32_error)
        largest = np.full((len(unit), 1), -np.inf, np.float32)
        buffer = np.empty(len(unit) * min(PIECE, self._size), np.float32)
        candidates = []
        for positions in _blocks(0, self._size, PIECE):
            products = buffer[: len(unit) * len(positions)].reshape(len(unit), len(positions))
            np.matmul(unit, self._unit[positions[0] : positions[-1] + 1].T, out=products)
            if left_out is not None:
                inside = np.flatnonzero(np.isin(left_out, positions))
                products[inside, left_out[inside] - positions[0]] = -np.inf
            np.maximum(largest, products.max(axis=1, keepdims=True), out=largest)
            # One flat array of truth values: numpy goes through it several times as fast as through two dimensions.
            place, column = np.divmod(np.flatnonzero(products >= largest - tolerance), len(positions))
            candidates.append((place, positions[column], products[place, column]))
        place, position, product = (np.concatenate(part) for part in zip(*candidates, strict=True))
        near = (product >= largest[place, 0] - tolerance) & (product > -np.inf)  # a later piece may hold larger ones
        return place[near], position[near]


class _Lists:
    """A FAISS index of about 4 sqrt(n) lists in half precision, their centres trained on a sample of the rows.

    Which lists are nearest to a row is computed once, for its search and for its own place.
    """

    def __init__(self, rows: _Rows) -> None:
        """Train the centres; the index is still empty."""
        try:
            import faiss
            from faiss.contrib import ivf_tools
        except ImportError:
            raise ImportError(
                "exact_rows: so many questions are searched with FAISS, which is not installed; install faiss-cpu, or "
                "raise exact_rows to compare every pair"
            ) from None
        self._tools: Any = ivf_tools
        lists = max(1, min(len(rows), int(4 * len(rows) ** 0.5)))
        index: Any = faiss.index_factory(rows.dimension, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False  # else a product would need the one with the list's centre besides
        index.cp.niter, index.cp.min_points_per_centroid = TRAINING_ROUNDS, 1
        sample = np.random.default_rng(0).choice(len(rows), min(len(rows), ROWS_PER_LIST * lists), replace=False)
        index.train(rows.unit32(np.sort(sample)))
        index.nprobe = min(LISTS_SEARCHED, lists)
        self._index = index
        self._nearest = np.empty((len(rows), index.nprobe), np.int32)  # lists of each row, the nearest first
        for numbers in _blocks(0, len(rows), PIECE):
            self._nearest[numbers] = index.quantizer.search(rows.unit32(numbers), index.nprobe)[1]

    def add(self, numbers: np.ndarray, unit: np.ndarray) -> None:
        """Add the rows of these numbers, given as float32 unit vectors; they are counted in this order."""
        if len(numbers):
            self._tools.add_preassigned(self._index, unit, self._nearest[numbers, 0].astype(np.int64))

    def candidates(self, numbers: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (place, position) of each row that may be nearest to one of these; positions count what was added."""
        lists = self._nearest[numbers].astype(np.int64)
        positions = self._tools.search_preassigned(self._index, unit, CANDIDATES, lists)[1]
        place, column = np.nonzero(positions >= 0)
        return place, positions[place, column]


def _choose(rows: _Rows, numbers: np.ndarray, scores: np.ndarray, free: np.ndarray, threshold: float) -> np.ndarray:
    """Choose, in order, each `free` row of a block whose cosine to those chosen before is < threshold (bool, n).

    `scores` holds the block's float32 products; where they are too close to the threshold, float64 decides.
    """
    later, earlier = np.nonzero(scores >= threshold - rows.float32_error)
    in_question = (later > earlier) & free[later] & free[earlier]
    later, earlier = later[in_question], earlier[in_question]
    similar = scores[later, earlier] > threshold + rows.float32_error
    similar[~similar] = rows.cosines(numbers[later[~similar]], numbers[earlier[~similar]]) >= threshold
    later, earlier = later[similar], earlier[similar]
    chosen = free.copy()
    ends = np.searchsorted(later, np.arange(len(numbers) + 1))
    for row in np.unique(later):
        chosen[row] = not chosen[earlier[ends[row] : ends[row + 1]]].any()
    return chosen


def _look_within(rows: _Rows, numbers: np.ndarray, scores: np.ndarray, chosen: np.ndarray, nearest: _Nearest) -> None:
    """Offer each row of a block the rows that were chosen before it in the same block, where they can be nearest."""
    counts = np.tril(np.broadcast_to(chosen, scores.shape), -1)
    scores = np.where(counts, scores, -np.inf)
    least = np.maximum(scores.max(axis=1), nearest.cosine) - 2 * rows.float32_error
    place, earlier = np.nonzero(counts & (scores >= least[:, None]))
    nearest.offer(place, numbers[earlier], rows.cosines(numbers[place], numbers[earlier]))


def _recall(rows: _Rows, first: int, threshold: float, kept: np.ndarray) -> tuple[float, int]:
    """Return the share rejected of a sample's rows with a kept row before them at >= threshold, and their number."""
    count = len(kept)
    sample = np.sort(np.random.default_rng(1).choice(count, min(count, RECALL_SAMPLE), replace=False))
    unit, largest = rows.unit32(sample + first), np.full(len(sample), -1.0)
    kept_rows = np.concatenate([np.arange(first), np.flatnonzero(kept) + first])
    for block in _blocks(0, len(kept_rows)):
        numbers = kept_rows[block]
        later = slice(np.searchsorted(sample + first, numbers[0]), None)  # rows of the sample behind some of these
        scores = np.where(numbers < sample[later, None] + first, unit[later] @ rows.unit32(numbers).T, -1)
        np.maximum(largest[later], scores.max(axis=1), out=largest[later])
    rejected = ~kept[sample[largest >= threshold]]
    return float(rejected.mean()) if len(rejected) else float("nan"), len(rejected)
