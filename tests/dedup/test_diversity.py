"""Measures of diversity against their definitions, computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.dedup import diversity


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10_000))
def test_the_vendi_score_is_the_entropy_of_the_kernels_eigenvalues(count, width, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # The definition, with the n x n kernel and scipy's general solver; the kit takes the smaller matrix and numpy's.
    share = np.clip(scipy.linalg.eigvals(unit @ unit.T / count).real, 0, None)
    expected = np.exp(scipy.stats.entropy(share / share.sum()))
    assert diversity.vendi_score(vectors) == pytest.approx(expected, rel=1e-6)
    assert 1 - 1e-9 <= diversity.vendi_score(vectors) <= min(count, width) + 1e-6


def test_the_vendi_score_of_many_rows_is_that_of_their_blocks_together(monkeypatch):
    vectors = np.random.default_rng(3).normal(size=(50, 5)).astype(np.float32)
    vectors[7] = 0
    whole = diversity.vendi_score(vectors)
    monkeypatch.setattr(diversity, "BLOCK", 8)
    assert diversity.vendi_score(vectors) == pytest.approx(whole, rel=1e-12)


def test_the_vendi_score_counts_kinds():
    assert diversity.vendi_score(np.eye(7)) == pytest.approx(7)
    assert diversity.vendi_score(np.ones((9, 4))) == pytest.approx(1)
    assert diversity.vendi_score(np.repeat(np.eye(3), 5, axis=0)) == pytest.approx(3)
    assert diversity.vendi_score(np.zeros((0, 4))) == diversity.vendi_score(np.zeros((2, 4))) == 0
    assert diversity.vendi_score(np.vstack([np.eye(2), np.zeros((3, 2))])) == pytest.approx(2)


def test_the_plane_is_the_one_of_most_variance():
    vectors = np.random.default_rng(1).normal(size=(200, 6)) * [9, 5, 1, 1, 1, 1]
    places, shown = diversity.principal_plane(vectors)
    _, singular, axes = scipy.linalg.svd(vectors - vectors.mean(axis=0))
    assert np.abs(places) == pytest.approx(np.abs((vectors - vectors.mean(axis=0)) @ axes[:2].T), abs=1e-8)
    assert shown == pytest.approx((singular[:2] ** 2).sum() / (singular**2).sum())
    again, _ = diversity.principal_plane(vectors[:, ::-1])
    assert np.abs(again) == pytest.approx(np.abs(places), abs=1e-8)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (4, 1)])
def test_a_plane_of_little(shape):
    places, shown = diversity.principal_plane(np.ones(shape))
    assert places.shape == (shape[0], 2) and not places.any() and 0 <= shown <= 1


def test_openings_and_names():
    texts = [
        "What is 3 + 4?",
        "What is 5 plus 6?",
        "Tom's dog ate. How many did Anna and Anna's cat eat?",
        "",
        "On Monday, Li met Bob.",
    ]
    assert diversity.count_openings([*texts, "What is 3, Tom?"]) == {
        "What is 3": 2,
        "What is 5": 1,
        "Tom's dog ate": 1,
        "": 1,
        "On Monday Li": 1,
    }
    assert diversity.count_names([*texts, "Ünal and Émile met NASA people."]) == {"Anna": 1, "Bob": 1, "Émile": 1}
