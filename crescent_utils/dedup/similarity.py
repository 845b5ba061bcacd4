"""Similarity: which vectors are far enough from those kept before, and which others stand nearest.

The cosine of two rows is that of their float64 unit vectors, rounded to 12 digits (float32 puts a repetition up to 6e-7 short of
1). Matrix products in float32 only find the few pairs that can matter; each of these is computed again in float64, so that the
outcome is the definition's, at a tenth of its time. numpy alone; FAISS is asked beyond `EXACT_ROWS` rows. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

DIGITS = 12  # of a cosine
EXACT_ROWS = 200_000  # rows up to which every pair is compared
RELEASED_BATCH, RELEASED_COSINE, RELEASED_SQUARED_L2 = 100, 0.85, 0.25  # Crescent, released scripts
MEMORY_MB = 512  # of working space, beside the vectors and one float32 copy of the rows that are kept
ROWS, PIECE, GROUP = 1024, 8192, 16  # rows asked, and kept rows compared, at a time; kept rows under one maximum


@dataclass(frozen=True)
class Selection:
    """Which rows were kept; for each row its nearest kept row before it (-1: none) and the cosine to it (-1: none).

    `recall` is the share of too-similar rows that the search recognised, measured on `recall_rows` such rows of a sample;
    1.0 and 0 where every pair was compared. An approximate `similarity` is a lower bound.
    """

    kept: np.ndarray
    nearest: np.ndarray
    similarity: np.ndarray
    recall: float = 1.0
    recall_rows: int = 0


class Rows:
    """Arrays of rows under one numbering. Unit rows are made when asked for, so that no whole copy is held."""

    def __init__(self, *parts: np.ndarray) -> None:
        """Take arrays (n_i, d) of one width; raise ValueError for another shape or a value that is not finite."""
        self._parts = [_matrix(part) for part in parts]
        if len({part.shape[1] for part in self._parts}) > 1:
            raise ValueError(
                f"pool: rows of {self._parts[0].shape[1]} numbers, those of vectors have {parts[-1].shape[1]}"
            )
        self._ends = np.cumsum([len(part) for part in self._parts])
        self._norms = np.concatenate([_norms(part) for part in self._parts])
        self.dimension = int(self._parts[0].shape[1])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def unit(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers as float64 unit vectors (a row of zeros stays one)."""
        made = np.empty((len(numbers), self.dimension))
        begin = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            here = (numbers >= begin) & (numbers < end)
            made[here] = part[numbers[here] - begin]
            begin = end
        made /= self._norms[numbers, None]
        return made

    def cosines(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the rounded cosine of each pair of row numbers, in pieces of 4,096 pairs."""
        found = np.empty(len(left))
        for start in range(0, len(left), 4096):
            part = slice(start, start + 4096)
            found[part] = np.einsum("nd,nd->n", self.unit(left[part]), self.unit(right[part]))
        return np.round(found, DIGITS)

    @property
    def margin(self) -> float:
        """How far a float32 product of two unit rows can be from the float64 one: gamma_n of the usual error analysis."""
        return (self.dimension + 8) * 2.0**-24


def _matrix(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"vectors: shape {vectors.shape} is not (rows, dimension)")
    return vectors


def _norms(vectors: np.ndarray) -> np.ndarray:
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), 4096):
        norms[start : start + 4096] = np.linalg.norm(np.asarray(vectors[start : start + 4096], np.float64), axis=1)
    if not np.isfinite(norms).all():
        raise ValueError(f"vectors: row {int(np.argmin(np.isfinite(norms)))} holds a value that is not finite")
    return np.where(norms > 0, norms, 1.0)


def select_diverse(
    vectors: np.ndarray,
    threshold: float,
    pool: np.ndarray | None = None,
    *,
    memory_mb: int = MEMORY_MB,
    exact_rows: int = EXACT_ROWS,
) -> Selection:
    """Keep row i iff its largest cosine to every row kept before is < threshold: greedy, first come.

    `vectors` is (n, d) with rows of any length; `pool` (m, d) holds rows kept earlier: they count as 0 … m-1 in `nearest` and the
    rows of `vectors` as m … m+n-1; of equal neighbours the first is named. Up to `exact_rows` rows in all every pair is
    compared, in working space of `memory_mb` MB; beyond, through FAISS, with the recall that was measured in the result. Ours.
    """
    vectors = _matrix(vectors)
    before = np.zeros((0, vectors.shape[1])) if pool is None else _matrix(pool)
    rows = Rows(before, vectors)
    if len(rows) > exact_rows:
        pass

        return select_approximately(rows, len(before), threshold)
    return walk(rows, len(before), threshold, Bank(rows), _step(len(rows), memory_mb))


class Bank:
    """The kept rows, in one float32 copy; every one of them is compared."""

    def __init__(self, rows: Rows) -> None:
        """Make room for all of `rows`; memory is taken as it fills."""
        self._rows, self._filled = rows, 0
        self._unit = np.zeros((len(rows), rows.dimension), np.float32)
        self._numbers = np.zeros(len(rows), np.int64)

    def add(self, numbers: np.ndarray, unit: np.ndarray) -> None:
        """Add rows (float32 unit vectors) of these numbers, which grow."""
        here = slice(self._filled, self._filled + len(numbers))
        self._unit[here], self._numbers[here] = unit, numbers
        self._filled += len(numbers)

    def nearest(self, own: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Largest cosine of each row `own` (unit vectors `block`), and the kept row's number (-inf and -1: none)."""
        return _nearest(self._rows, own, block, self._unit[: self._filled], self._numbers[: self._filled])


def walk(rows: Rows, offset: int, threshold: float, bank: Any, step: int) -> Selection:
    """Go through the rows from `offset` on, `step` at a time: compare with the bank and each other, add what is kept."""
    count = len(rows) - offset
    kept, nearest, similarity = np.zeros(count, bool), np.full(count, -1), np.full(count, -1.0)
    for start in range(0, offset, step):
        own = np.arange(start, min(start + step, offset))
        bank.add(own, rows.unit(own).astype(np.float32))
    for start in range(offset, len(rows), step):
        own = np.arange(start, min(start + step, len(rows)))
        block = rows.unit(own).astype(np.float32)
        value, index = bank.nearest(own, block)
        scores = block @ block.T
        chosen = _clear_of_each_other(rows, own, scores, value < threshold, threshold)
        _look_within(rows, own, scores, chosen, (value, index))
        here = own - offset
        kept[here], nearest[here], similarity[here] = chosen, index, np.where(index < 0, -1.0, value)
        bank.add(own[chosen], block[chosen])
    return Selection(kept, nearest, similarity)


def _step(count: int, memory_mb: int) -> int:
    """Rows to ask at a time, so that products and maxima (float32), and two squares of the rows, fit into the working space."""
    each = 4 * (PIECE + 2 * count // GROUP) + 12 * ROWS
    return min(ROWS, max(16, memory_mb * 1_000_000 // each))


def _nearest(
    rows: Rows, own: np.ndarray, block: np.ndarray, bank: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Largest cosine of each row `own` to the bank's rows, and that row's number (-inf and -1: none)."""
    value, index = np.full(len(own), -np.inf), np.full(len(own), -1)
    if not len(bank):
        return value, index
    tops = np.empty((-(-len(bank) // GROUP), len(own)), np.float32)
    scores = np.empty((min(PIECE, len(bank)), len(own)), np.float32)
    for start in range(0, len(bank), PIECE):
        piece = bank[start : start + PIECE]
        np.matmul(piece, block.T, out=scores[: len(piece)])
        whole, top = len(piece) // GROUP, start // GROUP
        scores[: whole * GROUP].reshape(whole, GROUP, len(own)).max(axis=1, out=tops[top : top + whole])
        if len(piece) % GROUP:
            scores[whole * GROUP : len(piece)].max(axis=0, out=tops[top + whole])
    floor = tops.max(axis=0) - np.float32(2 * rows.margin)
    groups, asked = np.nonzero(tops >= floor)
    for start in range(0, len(groups), 1024):
        part = slice(start, start + 1024)
        _settle(rows, own, block, bank, numbers, (groups[part], asked[part], floor), (value, index))
    return value, index


def _settle(
    rows: Rows,
    own: np.ndarray,
    block: np.ndarray,
    bank: np.ndarray,
    numbers: np.ndarray,
    candidates: tuple[np.ndarray, np.ndarray, np.ndarray],
    best: tuple[np.ndarray, np.ndarray],
) -> None:
    """Compute in float64 what may be a row's largest cosine, and keep the best; of equals the lowest number."""
    groups, asked, floor = candidates
    places = groups[:, None] * GROUP + np.arange(GROUP)
    inside = places < len(bank)
    places = np.minimum(places, len(bank) - 1)
    scores = np.matmul(bank[places], block[asked][:, :, None])[:, :, 0]
    near = inside & (scores >= floor[asked][:, None])
    row, other = asked[np.nonzero(near)[0]], numbers[places[near]]
    _keep_best(row, other, rows.cosines(own[row], other), best)


def _keep_best(row: np.ndarray, other: np.ndarray, cosine: np.ndarray, best: tuple[np.ndarray, np.ndarray]) -> None:
    """Put the largest cosine of each row, and whose it is, into `best` where it is larger; of equals the lowest number."""
    value, index = best
    order = np.lexsort((other, -cosine, row))
    first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
    row, other, cosine = row[first], other[first], cosine[first]
    better = (cosine > value[row]) | ((cosine == value[row]) & (other < index[row]))
    value[row[better]], index[row[better]] = cosine[better], other[better]


def _look_within(
    rows: Rows, own: np.ndarray, scores: np.ndarray, chosen: np.ndarray, best: tuple[np.ndarray, np.ndarray]
) -> None:
    """Compare each row with those chosen before it in its own block (`scores`: float32 products), where that can matter."""
    inside = np.where(np.tril(np.broadcast_to(chosen, scores.shape), -1), scores, np.float32(-2))
    floor = np.maximum(inside.max(axis=1), best[0]) - 2 * rows.margin
    row, column = np.nonzero(inside >= np.maximum(floor, -1.5)[:, None])  # above the -2 of what does not count
    _keep_best(row, own[column], rows.cosines(own[row], own[column]), best)


def _clear_of_each_other(
    rows: Rows, own: np.ndarray, scores: np.ndarray, free: np.ndarray, threshold: float
) -> np.ndarray:
    """Go through the rows `own` in order and choose each `free` one that is < threshold to those chosen before it (bool, n)."""
    left, right = np.nonzero(scores >= threshold - rows.margin)
    pairs = (left > right) & free[left] & free[right]
    left, right = left[pairs], right[pairs]
    near = scores[left, right] > threshold + rows.margin
    near[~near] = rows.cosines(own[left[~near]], own[right[~near]]) >= threshold
    left, right = left[near], right[near]
    chosen = free.copy()
    ends = np.searchsorted(left, np.arange(len(own) + 1))
    for row in np.unique(left):
        chosen[row] = not chosen[right[ends[row] : ends[row + 1]]].any()
    return chosen


@dataclass(frozen=True)
class Released:
    """What the authors' code would do with each row before any rewrite: `dropped`, `close` (sent to one rewrite), or kept.

    `nearest` is the row that decided (-1: none) and `similarity` the largest cosine that was looked at (-1: none).
    """

    dropped: np.ndarray
    close: np.ndarray
    nearest: np.ndarray
    similarity: np.ndarray


def select_released(vectors: np.ndarray) -> Released:
    """Select as the authors' public code does (Crescent, released scripts).

    In a batch of 100, of two rows with cosine >= 0.85 the earlier is dropped; of the others, a row with squared L2 distance
    < 0.25 to any row of an earlier batch (dropped or not) is close. Reads the embeddings alone, so it needs no rewrite.
    """
    rows = Rows(_matrix(vectors))
    unit = rows.unit(np.arange(len(rows)))
    made = Released(
        np.zeros(len(rows), bool), np.zeros(len(rows), bool), np.full(len(rows), -1), np.full(len(rows), -1.0)
    )
    for start in range(0, len(unit), RELEASED_BATCH):
        batch = unit[start : start + RELEASED_BATCH]
        later = np.where(np.triu(np.ones((len(batch), len(batch)), bool), 1), batch @ batch.T, -np.inf)
        past = batch @ unit[:start].T if start else np.full((len(batch), 1), -1.0)
        dropped = later.max(axis=1) >= RELEASED_COSINE
        close = ~dropped & (2 - 2 * past.max(axis=1) < RELEASED_SQUARED_L2)  # squared L2 distance of unit vectors
        here = slice(start, start + len(batch))
        made.dropped[here], made.close[here] = dropped, close
        made.similarity[here] = np.where(dropped, later.max(axis=1), past.max(axis=1))
        made.nearest[here] = np.where(dropped, start + later.argmax(axis=1), np.where(close, past.argmax(axis=1), -1))
    return made


def nearest_other(vectors: np.ndarray) -> np.ndarray:
    """Cosine of each row to its nearest *other* row (-1: there is none), to about six digits."""
    return _closest(vectors, vectors, same=True)[0]


def nearest_among(vectors: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each row of `vectors` to its nearest row of `others`, to about six digits, and that row's number (-1: none)."""
    return _closest(vectors, others, same=False)


def _closest(vectors: np.ndarray, others: np.ndarray, *, same: bool) -> tuple[np.ndarray, np.ndarray]:
    left, right = Rows(vectors), Rows(others)
    unit = right.unit(np.arange(len(right))).astype(np.float32)
    best, place = np.full(len(left), -1.0), np.full(len(left), -1)
    for start in range(0, len(left) if len(right) > same else 0, ROWS):
        own = np.arange(start, min(start + ROWS, len(left)))
        scores = left.unit(own).astype(np.float32) @ unit.T
        if same:
            scores[np.arange(len(own)), own] = -2
        place[own] = scores.argmax(axis=1)
        best[own] = np.clip(scores.max(axis=1), -1, 1)
    return best, place


def rethreshold(vectors: np.ndarray, thresholds: Sequence[float]) -> list[int]:
    """How many rows `select_diverse` keeps at each threshold, without sampling anything again."""
    return [int(select_diverse(vectors, threshold).kept.sum()) for threshold in thresholds]


STEP = 2048  # rows asked at a time; those of one step are compared with each other exactly
PROBES = 16  # lists searched for a row
PER_LIST, ROUNDS = 20, 6  # rows a list is trained on, rounds of k-means
SAMPLE = 2_000  # rows that the recall is measured on


def select_approximately(rows: Rows, offset: int, threshold: float) -> Selection:
    """Do what `similarity.select_diverse` does, finding neighbours approximately; the recall stands in the result.

    A row's nearest kept row is looked for in the 16 nearest of about 4 sqrt(n) lists (FAISS's guideline), with the vectors of
    the lists in half precision; its cosine is then computed in float64. Raises ImportError where FAISS is not installed.
    """
    selection = walk(rows, offset, threshold, _Lists(rows), STEP)
    recall, count = _recall(rows, offset, selection, threshold)
    return replace(selection, recall=recall, recall_rows=count)


class _Lists:
    """The kept rows in an inverted file."""

    def __init__(self, rows: Rows) -> None:
        try:
            import faiss
        except ImportError:
            raise ImportError(
                f"vectors: {len(rows)} rows are searched with FAISS, which is not installed; install faiss-cpu, or pass a larger "
                "`exact_rows` to compare every pair (time grows with the square)"
            ) from None
        lists = max(1, int(4 * len(rows) ** 0.5))
        self._rows, self._numbers = rows, np.zeros(0, np.int64)
        self._quantizer = faiss.IndexFlatIP(rows.dimension)
        self._index: Any = faiss.IndexIVFScalarQuantizer(
            self._quantizer, rows.dimension, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._index.nprobe, self._index.cp.niter, self._index.cp.min_points_per_centroid = PROBES, ROUNDS, 1
        picked = np.random.default_rng(0).choice(len(rows), min(len(rows), PER_LIST * lists), replace=False)
        self._index.train(rows.unit(np.sort(picked)).astype(np.float32))

    def add(self, numbers: np.ndarray, unit: np.ndarray) -> None:
        self._index.add(unit)
        self._numbers = np.concatenate([self._numbers, numbers])

    def nearest(self, own: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, index = np.full(len(own), -np.inf), np.full(len(own), -1)
        if len(self._numbers):
            places = self._index.search(block, 1)[1][:, 0]
            found = places >= 0
            index[found] = self._numbers[places[found]]
            value[found] = self._rows.cosines(own[found], index[found])
        return value, index


def _recall(rows: Rows, offset: int, selection: Selection, threshold: float) -> tuple[float, int]:
    """Share of a sample's rows with a kept row before them at >= threshold that were rejected, and how many there are."""
    count = len(selection.kept)
    sample = np.sort(np.random.default_rng(1).choice(count, min(count, SAMPLE), replace=False)) + offset
    asked = rows.unit(sample).astype(np.float32)
    largest = np.full(len(sample), -1.0, np.float32)
    bank = np.concatenate([np.arange(offset), np.flatnonzero(selection.kept) + offset])
    for start in range(0, len(bank), STEP):
        piece = bank[start : start + STEP]
        scores = np.where(piece < sample[:, None], asked @ rows.unit(piece).astype(np.float32).T, -1)
        np.maximum(largest, scores.max(axis=1), out=largest)
    near = largest >= threshold
    rejected = ~selection.kept[sample - offset]
    return (float(rejected[near].mean()) if near.any() else float("nan")), int(near.sum())
