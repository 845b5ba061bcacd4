"""Similarity: which vectors are far enough from those kept before, and which other vectors stand nearest.

The cosine of two rows is that of their float64 unit vectors, rounded to 12 digits: float32 puts a repetition up to
6e-7 short of 1, and an unrounded sum leaves ties to its last bit. Float32 products name the few rows that can be
nearest; their cosines are then computed in float64, so that decisions and neighbours are those of this definition. As
many pairs as `EXACT_ROWS` rows have among them are all compared; where there are more, a row is compared with those of
the nearest of many lists (`inverted_lists.py`), and the recall is measured. Ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .inverted_lists import InvertedLists, Products

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 12  # of a cosine
EXACT_ROWS = 60_000  # above the paper's 55,000, which take 8 s on two cores; 100,000 take 25 s exactly, 4 s by lists
RELEASED_BATCH, RELEASED_COSINE, RELEASED_SQUARED_L2 = 100, 0.85, 0.25  # Crescent, released scripts
BLOCK, PIECE = 1024, 8192  # rows that are looked up, and rows of the index that they are compared with, at a time
PAIRS = 256  # pairs of rows whose cosine is computed at a time: few, so that they stay in the processor's cache
CANDIDATES = 4  # rows of a list that are looked at for each row, unless float32 tells the nearest
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
    return (
        _select_exactly(rows, first, threshold) if pairs <= exact_rows**2 else _select_by_lists(rows, first, threshold)
    )


def _select_exactly(rows: _Rows, first: int, threshold: float) -> Selection:
    """Select from the rows behind the `first` ones, which were kept before: every pair is compared."""
    index = _Index(rows, first)
    kept = np.zeros(len(rows) - first, bool)
    nearest = _Nearest(len(kept))
    for numbers in _blocks(first, len(rows)):
        unit = rows.unit32(numbers)
        block_nearest = index.nearest(numbers, unit)
        scores = unit @ unit.T
        free = block_nearest.cosine < threshold
        later, earlier = np.nonzero(np.tril(scores >= threshold - rows.float32_error, -1))
        chosen = _choose(rows, numbers, (later, earlier, scores[later, earlier]), free, threshold)
        _look_within(rows, numbers, scores, chosen, block_nearest)
        index.add(numbers[chosen], unit[chosen])
        kept[numbers - first] = chosen
        nearest.put(numbers - first, block_nearest)
    return Selection(kept, nearest.number, nearest.cosine)


def _select_by_lists(rows: _Rows, first: int, threshold: float) -> Selection:
    """Select from the rows behind the `first` ones, which were kept before: pairs of the nearest lists are compared.

    A chunk of rows meets first what was kept before it, then its own rows that this left.
    """
    lists = InvertedLists(rows.all_unit32())
    is_kept = np.arange(len(rows)) < first
    nearest = _Nearest(len(rows) - first)
    for numbers in lists.chunks(first):
        chunk_nearest = _Nearest(len(numbers))
        _look(rows, numbers, lists.products(numbers, is_kept), chunk_nearest)
        free = chunk_nearest.cosine < threshold
        is_free = np.zeros(len(rows), bool)
        is_free[numbers[free]] = True
        within = [_before(numbers, products) for products in lists.products(numbers, is_free)]
        pairs = _pairs_above(within, threshold - rows.float32_error, numbers[0])
        chosen = _choose(rows, numbers, pairs, free, threshold)
        is_kept[numbers] = chosen
        for _, members, products in within:
            products[:, ~is_kept[members]] = _NOTHING
        _look(rows, numbers, within, chunk_nearest)
        nearest.put(numbers - first, chunk_nearest)
    kept = is_kept[first:]
    return Selection(kept, nearest.number, nearest.cosine, *_recall(rows, lists.unit, first, threshold, kept))


def select_released(vectors: np.ndarray, exact_rows: int = EXACT_ROWS) -> Released:
    """Select as the authors' public code does (Crescent, released scripts).

    In a batch of 100, of two rows with cosine >= 0.85 the earlier is dropped; of the others, a row with squared L2
    distance < 0.25 to any row of an earlier batch (dropped or not) is close. Reads the embeddings alone, so it needs
    no rewrite. More than `exact_rows` rows are searched approximately.
    """
    rows = _Rows(vectors)
    earlier = _nearest_in_earlier_batches(rows, exact=len(rows) <= exact_rows)
    dropped, close = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    nearest, similarity = np.full(len(rows), -1), np.full(len(rows), -1.0)
    for batch in _blocks(0, len(rows), RELEASED_BATCH):
        unit = rows.unit(batch)
        cosines = np.round(unit @ unit.T, DIGITS)
        later_cosines = np.where(np.triu(np.ones_like(cosines, bool), 1), cosines, -np.inf)
        dropped[batch] = later_cosines.max(axis=1) >= RELEASED_COSINE
        squared_distance = 2 - 2 * earlier.cosine[batch]  # of unit vectors
        close[batch] = ~dropped[batch] & (squared_distance < RELEASED_SQUARED_L2)
        similarity[batch] = np.where(dropped[batch], later_cosines.max(axis=1), earlier.cosine[batch])
        nearest_earlier = np.where(close[batch], earlier.number[batch], -1)
        nearest[batch] = np.where(dropped[batch], batch[0] + later_cosines.argmax(axis=1), nearest_earlier)
    return Released(dropped, close, nearest, similarity)


def _nearest_in_earlier_batches(rows: _Rows, exact: bool) -> _Nearest:
    """Return the nearest of the rows of earlier batches (of 100) for each row."""
    nearest = _Nearest(len(rows))
    if exact:
        index = _Index(rows, 0)
        for batch in _blocks(0, len(rows), RELEASED_BATCH):
            unit = rows.unit32(batch)
            nearest.put(batch, index.nearest(batch, unit))
            index.add(batch, unit)
        return nearest
    numbers = np.arange(len(rows))
    first_of_batch = numbers // RELEASED_BATCH * RELEASED_BATCH
    lists = InvertedLists(rows.all_unit32())
    products = lists.products(numbers, np.ones(len(rows), bool))
    _look(rows, numbers, (_before(first_of_batch, part) for part in products), nearest)
    return nearest


def nearest_other(vectors: np.ndarray, exact_rows: int = EXACT_ROWS) -> np.ndarray:
    """Return the cosine of each row to its nearest *other* row (-1: there is none).

    More than `exact_rows` rows are searched approximately; a cosine is then a lower bound.
    """
    rows = _Rows(vectors)
    nearest = _Nearest(len(rows))
    if len(rows) <= exact_rows:
        index = _Index(rows, len(rows))
        for numbers in _blocks(0, len(rows)):
            nearest.put(numbers, index.nearest(numbers, rows.unit32(numbers), itself=False))
        return nearest.cosine
    numbers = np.arange(len(rows))
    lists = InvertedLists(rows.all_unit32())
    products = lists.products(numbers, np.ones(len(rows), bool))
    _look(rows, numbers, (_without_itself(numbers, part) for part in products), nearest)
    return nearest.cosine


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
        for start in range(0, len(vectors), PAIRS):
            here = slice(start, start + PAIRS)
            self._norms[here] = np.linalg.norm(vectors[here].astype(np.float64), axis=1)
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
        unit: np.ndarray = self._vectors[numbers].astype(np.float64)
        unit /= self._norms[numbers, None]
        return unit

    def unit32(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers as float32 unit vectors."""
        return self.unit(numbers).astype(np.float32)

    def all_unit32(self) -> np.ndarray:
        """Return all rows as float32 unit vectors, from float32 without a detour: `float32_error` allows for that."""
        unit = np.empty(self._vectors.shape, np.float32)
        is_short = self._vectors.dtype == np.float32 and self._norms.min(initial=1) > 1e-15
        for start in range(0, len(self), PIECE):
            here = slice(start, start + PIECE)
            if is_short and self._norms[here].max() < 1e15:
                np.multiply(self._vectors[here], (1 / self._norms[here, None]).astype(np.float32), out=unit[here])
            else:
                unit[here] = self._vectors[here] / self._norms[here, None]
        return unit

    def cosines(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the rounded cosine of each pair of row numbers."""
        cosines = np.empty(len(left))
        for pairs in _blocks(0, len(left), PAIRS):
            cosines[pairs] = np.einsum("nd,nd->n", self.unit(left[pairs]), self.unit(right[pairs]))
        return np.round(cosines, DIGITS)


class _Nearest:
    """The nearest row so far of each row of a block: its `number` and `cosine` (-1 and -1: none)."""

    def __init__(self, count: int) -> None:
        self.number, self.cosine = np.full(count, -1), np.full(count, -1.0)

    def put(self, place: np.ndarray, nearest: _Nearest) -> None:
        """Take over the neighbours of the rows at these places."""
        self.number[place], self.cosine[place] = nearest.number, nearest.cosine

    def offer(self, place: np.ndarray, number: np.ndarray, cosine: np.ndarray) -> None:
        """Offer neighbours to the rows at these places: the largest cosine stays; of equals, the lowest number."""
        order = np.lexsort((number, -cosine, place))
        best = order[np.flatnonzero(np.diff(place[order], prepend=-1))]  # the first of each place
        place, number, cosine = place[best], number[best], cosine[best]
        nearer = (self.number[place] < 0) | (cosine > self.cosine[place])
        nearer |= (cosine == self.cosine[place]) & (number < self.number[place])
        self.number[place[nearer]], self.cosine[place[nearer]] = number[nearer], cosine[nearer]


class _Index:
    """Rows to find neighbours in: every pair is compared."""

    def __init__(self, rows: _Rows, count: int) -> None:
        """Begin with the first `count` rows."""
        self._rows, self._size = rows, 0
        self._numbers = np.empty(len(rows), np.int64)
        self._unit = np.empty((len(rows), rows.dimension), np.float32)  # memory is taken as it fills
        for numbers in _blocks(0, count):
            self.add(numbers, rows.unit32(numbers))

    def add(self, numbers: np.ndarray, unit: np.ndarray) -> None:
        """Add the rows of these numbers, given as float32 unit vectors."""
        here = slice(self._size, self._size + len(numbers))
        self._numbers[here], self._unit[here] = numbers, unit
        self._size += len(numbers)

    def nearest(self, numbers: np.ndarray, unit: np.ndarray, itself: bool = True) -> _Nearest:
        """Return the nearest row in the index of each of these rows (`unit`: as float32 unit vectors).

        Without `itself`, a row is not its own neighbour; that is for indexes of all rows.
        """
        nearest = _Nearest(len(numbers))
        if self._size:
            place, position = self._candidates(unit, None if itself else numbers)
            neighbour = self._numbers[position]
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


_NOTHING = np.float32(-2)  # the product of two rows of which one must not find the other: below any cosine


def _before(limits: np.ndarray, products: Products) -> Products:
    """Return products in which a row finds the members with a number below its limit alone."""
    places, members, values = products
    values[np.searchsorted(members, limits[places])[:, None] <= np.arange(len(members))] = _NOTHING
    return products


def _without_itself(numbers: np.ndarray, products: Products) -> Products:
    """Return products in which no row finds itself."""
    places, members, values = products
    column = np.minimum(np.searchsorted(members, numbers[places]), len(members) - 1)
    itself = np.flatnonzero(members[column] == numbers[places])
    values[itself, column[itself]] = _NOTHING
    return products


def _look(rows: _Rows, numbers: np.ndarray, lists: Iterable[Products], nearest: _Nearest) -> None:
    """Offer the rows of these numbers what float32 cannot tell from the nearest member in the products of each list."""
    tolerance = np.float32(2 * rows.float32_error)
    largest = nearest.cosine.astype(np.float32)
    candidates = [(np.empty(0, int), np.empty(0, int), np.empty(0, np.float32))]
    for places, members, products in lists:
        largest[places] = np.maximum(largest[places], products.max(axis=1))
        row, column = np.divmod(np.flatnonzero(products >= (largest[places] - tolerance)[:, None]), len(members))
        if len(row) > CANDIDATES * len(places):  # of many that are alike, such as repetitions, any will do
            row, column = np.arange(len(places)), products.argmax(axis=1)
        candidates.append((places[row], members[column], products[row, column]))
    place, number, product = (np.concatenate(part) for part in zip(*candidates, strict=True))
    near = (product >= largest[place] - tolerance) & (product > _NOTHING)  # a later list may hold larger ones
    place, number = place[near], number[near]
    nearest.offer(place, number, rows.cosines(numbers[place], number))


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # places in a block of a row and one before it, and their product


def _pairs_above(lists: Iterable[Products], least: float, first: int) -> Pairs:
    """Return the pairs with a product of at least so much, by row; numbers less `first` are places."""
    pairs = [(np.empty(0, int), np.empty(0, int), np.empty(0, np.float32))]
    for places, members, products in lists:
        row, column = np.divmod(np.flatnonzero(products >= least), len(members))
        pairs.append((places[row], members[column] - first, products[row, column]))
    later, earlier, product = (np.concatenate(part) for part in zip(*pairs, strict=True))
    order = np.argsort(later, kind="stable")
    return later[order], earlier[order], product[order]


def _choose(rows: _Rows, numbers: np.ndarray, pairs: Pairs, free: np.ndarray, threshold: float) -> np.ndarray:
    """Choose, in order, each `free` row of a block whose cosine to those chosen before is < threshold (bool, n).

    `pairs` have float32 products, by row; where these are too close to the threshold, float64 decides.
    """
    later, earlier, products = pairs
    in_question = free[later] & free[earlier]
    later, earlier, products = later[in_question], earlier[in_question], products[in_question]
    similar = products > threshold + rows.float32_error
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


def _recall(rows: _Rows, unit: np.ndarray, first: int, threshold: float, kept: np.ndarray) -> tuple[float, int]:
    """Return the share rejected of a sample's rows with a kept row before them at >= threshold, and their number.

    What was rejected has such a row. What was kept is compared with every kept row before it (`unit`: all, float32).
    """
    sample = np.sort(np.random.default_rng(1).choice(len(kept), min(len(kept), RECALL_SAMPLE), replace=False))
    rejected = int((~kept[sample]).sum())
    sample = sample[kept[sample]] + first
    sample_unit, largest = unit[sample], np.full(len(sample), -1.0)
    kept_rows = np.concatenate([np.arange(first), np.flatnonzero(kept) + first])
    for block in _blocks(0, len(kept_rows)):
        numbers = kept_rows[block]
        later = slice(np.searchsorted(sample, numbers[0]), None)  # rows of the sample behind some of these
        scores = sample_unit[later] @ unit[numbers].T
        inside = slice(0, np.searchsorted(sample[later], numbers[-1], side="right"))  # not behind all of these
        scores[inside][numbers >= sample[later][inside, None]] = -1
        np.maximum(largest[later], scores.max(axis=1), out=largest[later])
    too_similar = rejected + int((largest >= threshold).sum())
    return rejected / too_similar if too_similar else float("nan"), too_similar
