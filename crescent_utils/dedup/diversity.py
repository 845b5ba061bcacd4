"""Diversity: how many kinds of questions a pool holds, what they begin with and whom they name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

BLOCK = 8192  # rows at a time: no float64 copy of all of them is held
_WORD = re.compile(r"\w+(?:['’]\w+)?")
# A word that does not begin a sentence: what stands before it on its line ends in no full stop.
_WORD_INSIDE = re.compile(r"(?<=[\w,;:\"”“'’] )[^\W\d_]{3,}")
_NO_NAMES = frozenset(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday "
    "January February March April May June July August September October November December "
    "English Spanish French Chinese American Find What How".split()
)


def vendi_score(vectors: np.ndarray) -> float:
    """Return the effective number of different rows, from 1 (all alike) to n (all orthogonal); 0 without rows.

    It is the exponential of the entropy of the eigenvalues of K / n, where K holds the cosines of the rows (n, d):
    Friedman & Dieng 2023, equation 1. With n > d the d x d matrix of the same non-zero eigenvalues is taken. A row of
    zeros counts as nothing.
    """
    vectors = np.asarray(vectors)
    count, dimension = vectors.shape
    if count <= dimension:
        unit = _unit_rows(vectors)
        rows, matrix = len(unit), unit @ unit.T
    else:
        rows, matrix = 0, np.zeros((dimension, dimension))
        for start in range(0, count, BLOCK):
            unit = _unit_rows(vectors[start : start + BLOCK])
            rows += len(unit)
            matrix += unit.T @ unit
    if not rows:
        return 0.0
    eigenvalues = np.linalg.eigvalsh(matrix / rows)
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return the rows as float64 vectors of length 1, without those of zeros."""
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    unit: np.ndarray = vectors[norms > 0] / norms[norms > 0, None]
    return unit


def principal_plane(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the rows (n, d) on their two principal axes as (n, 2), and the share of the variance that these show.

    The sign of an axis is fixed by its largest coefficient, so that a picture is the same on any machine.
    """
    vectors = np.asarray(vectors, np.float64)
    if not len(vectors):
        return np.zeros((0, 2)), 0.0
    centred = vectors - vectors.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)  # in ascending order
    axes = axes[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    places = np.zeros((len(vectors), 2))  # of vectors with one dimension, the second stays 0
    places[:, : axes.shape[1]] = centred @ axes
    total = float(variances.sum())
    return places, float(variances[-2:].sum() / total) if total > 0 else 1.0


def count_openings(texts: Sequence[str]) -> Counter[str]:
    """Count the first three words of the texts."""
    return Counter(" ".join(_WORD.findall(text)[:3]) for text in texts)


def count_names(texts: Sequence[str]) -> Counter[str]:
    """Count in how many texts each word stands that looks like a name: in capitals and within a sentence.

    A rough measure, ours.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        words = set(_WORD_INSIDE.findall(text)) - _NO_NAMES
        counts.update(sorted(word for word in words if word.istitle()))
    return counts
