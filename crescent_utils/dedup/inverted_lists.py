"""Inverted lists: rows that lie near each other stand in one list, and a row looks for neighbours in the nearest lists.

This is FAISS's IVF index, the other way round: not one row after another goes through its lists, but all rows that look
into a list are compared with those that stand in it by one matrix product, which takes a fraction of the time. Which
lists are nearest is decided in the few directions in which the rows differ most. Ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

LISTS_SEARCHED = 6  # of about 4 sqrt(n) lists (FAISS's guideline)
DIRECTIONS = 128  # that tell the lists apart
ROWS_PER_LIST, TRAINING_ROUNDS = 10, 3  # what the lists' centres are computed from, and the rounds of k-means
DIRECTION_ROWS = 8_000  # what the directions are computed from
MOST_PRODUCTS = 1 << 23  # that are held at a time: 32 MB
FEWEST_ROWS = 1024  # of a chunk
SCREEN = 8192  # rows that are assigned to lists at a time

Products = tuple[np.ndarray, np.ndarray, np.ndarray]  # places of rows (r), numbers of members (m), products (r, m)


class InvertedLists:
    """Lists of float32 unit vectors `unit` (n, d); `nearest` (n, few) names the lists that a row looks into.

    A row stands in the first of them. Raises ImportError where FAISS is not installed.
    """

    def __init__(self, unit: np.ndarray) -> None:
        self.unit = unit
        self.nearest = _nearest_lists(unit)
        self._count = int(self.nearest.max(initial=-1)) + 1
        own = self.nearest[:, 0]
        self._order = np.argsort(own, kind="stable")  # the rows of each list in turn, by number
        self._ends = np.searchsorted(own[self._order], np.arange(self._count + 1))

    def products(self, numbers: np.ndarray, is_member: np.ndarray) -> Iterator[Products]:
        """Yield the products of the rows of these numbers (ascending) and the members that they find, list by list.

        `is_member` (bool, n) says which rows can be found. A place counts `numbers`; places and members ascend.
        """
        looked_into = self.nearest[numbers]
        order = np.argsort(looked_into, axis=None, kind="stable")
        ends = np.searchsorted(looked_into.ravel()[order], np.arange(self._count + 1))
        places_by_list = order // looked_into.shape[1]
        for number in np.flatnonzero(np.diff(ends)):
            members = self._order[self._ends[number] : self._ends[number + 1]]
            members = members[is_member[members]]
            places = places_by_list[ends[number] : ends[number + 1]]
            if not len(members):
                continue
            found = self.unit[members].T
            step = max(1, MOST_PRODUCTS // len(members))
            for begin in range(0, len(places), step):
                part = places[begin : begin + step]
                yield part, members, self.unit[numbers[part]] @ found

    def chunks(self, start: int) -> Iterator[np.ndarray]:
        """Yield the numbers from `start` on, as many at a time as have few enough products with each other to hold."""
        while start < len(self.unit):
            size = len(self.unit) - start
            while size > FEWEST_ROWS and self._products_among(slice(start, start + size)) > MOST_PRODUCTS:
                size = -(-size // 2)
            yield np.arange(start, start + size)
            start += size

    def _products_among(self, rows: slice) -> int:
        """Return how many products these rows have with those of them that stand in the lists that they look into."""
        looking = np.bincount(self.nearest[rows].ravel(), minlength=self._count)
        standing = np.bincount(self.nearest[rows, 0], minlength=self._count)
        return int(looking @ standing)


def _nearest_lists(unit: np.ndarray) -> np.ndarray:
    """Return the numbers of the lists that each row looks into (n, few), the nearest first."""
    faiss = _faiss()
    count = max(1, min(len(unit), int(4 * len(unit) ** 0.5)))
    searched = min(LISTS_SEARCHED, count)
    nearest = np.empty((len(unit), searched), np.int32)
    if not len(unit):
        return nearest
    directions = _main_directions(unit)
    clustering = faiss.Clustering(directions.shape[1], count)
    clustering.niter, clustering.spherical, clustering.min_points_per_centroid = TRAINING_ROUNDS, True, 1
    centres = faiss.IndexFlatIP(directions.shape[1])
    clustering.train(_along(unit[_sample(len(unit), ROWS_PER_LIST * count)], directions), centres)
    for start in range(0, len(unit), SCREEN):
        rows = slice(start, start + SCREEN)
        nearest[rows] = centres.search(_along(unit[rows], directions), searched)[1]
    return nearest


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ImportError(
            "exact_rows: so many questions are searched with FAISS, which is not installed; install faiss-cpu, or "
            "raise exact_rows to compare every pair"
        ) from None
    return faiss


def _sample(count: int, most: int) -> np.ndarray:
    """Return the numbers of at most so many of `count` rows."""
    return np.sort(np.random.default_rng(0).choice(count, min(count, most), replace=False))


def _main_directions(unit: np.ndarray) -> np.ndarray:
    """Return the directions (d, few) that hold most of the rows' length: the last eigenvectors of their products."""
    sample = unit[_sample(len(unit), DIRECTION_ROWS)]
    _, directions = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    return np.asarray(directions[:, -DIRECTIONS:], np.float32)


def _along(unit: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the rows in these directions, at length 1 (a row of zeros stays one)."""
    rows: np.ndarray = unit @ directions
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-30))
    return rows
