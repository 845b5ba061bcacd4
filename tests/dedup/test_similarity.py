"""The similarity search: float32 finds, float64 decides; approximate beyond; the released rule as it is described."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from crescent_utils.dedup import inverted_lists, similarity

rows = st.integers(1, 60).flatmap(
    lambda n: some.arrays(np.int8, (n, 3), elements=st.integers(-3, 3)).filter(lambda a: (a != 0).any(axis=1).all())
)


def definition(vectors, threshold):
    """The definition, row by row in float64: cosines rounded to 12 digits, of equal neighbours the first."""
    unit = np.asarray(vectors, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    kept, nearest, value = [], [], []
    for row in range(len(unit)):
        cosines = np.round([np.dot(unit[row], unit[other]) for other in kept], similarity.DIGITS)
        nearest.append(kept[int(cosines.argmax())] if kept else -1)
        value.append(float(cosines.max()) if kept else -1.0)
        if not kept or value[-1] < threshold:
            kept.append(row)
    return np.isin(np.arange(len(unit)), kept), np.array(nearest), np.array(value)


def assert_is_the_definition(vectors, threshold, got):
    kept, nearest, value = definition(vectors, threshold)
    assert got.kept.tolist() == kept.tolist()
    assert got.nearest.tolist() == nearest.tolist()
    assert np.abs(got.similarity - value).max() <= 2e-12


@settings(max_examples=200, deadline=None)
@given(rows, st.floats(0.02, 1.0), st.sampled_from([1, 3, 1024]))
def test_ties_and_all_are_the_definitions(vectors, threshold, block):
    # Whole numbers in three dimensions: most cosines tie, many stand exactly on a threshold such as 0.5 or 1.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK", block)
        patch.setattr(similarity, "PIECE", 5)
        got = similarity.select_diverse(vectors, threshold)
    kept, nearest, value = definition(vectors, threshold)
    unit = vectors / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    on_edge = np.abs(unit @ unit.T - threshold) < 1e-11  # there the last bit of the oracle's own sum decides
    if not on_edge.any():
        assert_is_the_definition(vectors, threshold, got)
    assert len(kept) == len(nearest) == len(value) == len(got.kept)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_a_cosine_on_the_threshold_is_too_similar(threshold):
    # (1, 0), (1/2, sqrt(3)/2): the cosine is 0.5 but for the last bit, which rounding takes away.
    vectors = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [3, 0, 0, 0]])
    assert similarity.select_diverse(vectors, threshold).kept.tolist() == [True, threshold == 1.0, False]


def test_what_float32_cannot_tell_apart_is_told_apart():
    # Neighbours whose cosines differ in the ninth digit: a float32 product orders them by chance.
    chance = np.random.default_rng(5)
    centre = chance.normal(size=384)
    near = centre + 3e-1 * chance.normal(size=384)
    off = chance.normal(size=384)
    bank = [near + step * 1e-8 * off for step in chance.permutation(400)]
    # They repeat each other, so they come in as a pool, which takes all rows as they are.
    got = similarity.select_diverse(centre[None], 0.999, np.array(bank))
    unit = np.array(bank) / np.linalg.norm(bank, axis=1, keepdims=True)
    exact = np.round(unit @ (centre / np.linalg.norm(centre)), similarity.DIGITS)
    assert len(np.unique(exact)) > 100, "else this shows nothing"
    assert abs(exact[got.nearest[0]] - exact.max()) <= 1e-12 and abs(got.similarity[0] - exact.max()) <= 1e-12


@pytest.mark.parametrize("kind", ["clusters", "chain", "copies", "zeros"])
def test_adversarial_sets(kind):
    chance = np.random.default_rng(7)
    base = chance.normal(size=(1500, 24))
    if kind == "clusters":
        base = base[:40][chance.integers(40, size=1500)] + 0.3 * base
    elif kind == "chain":  # each row close to the one before: a greedy choice depends on all earlier ones
        base = np.cumsum(0.25 * base, axis=0)
    elif kind == "copies":
        base = base[:10][chance.integers(10, size=1500)]
    else:
        base[::2] = 0
    got = similarity.select_diverse(base, 0.8)
    unit = base / np.where((norm := np.linalg.norm(base, axis=1, keepdims=True)) > 0, norm, 1)
    cosines, kept = np.round(unit @ unit.T, similarity.DIGITS), []
    for row in range(len(base)):
        if not kept or cosines[row, kept].max() < 0.8:
            kept.append(row)
    assert np.flatnonzero(got.kept).tolist() == kept


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_by_its_row(bad):
    vectors = np.ones((3, 2))
    vectors[1, 0] = bad
    with pytest.raises(ValueError, match="row 1 .*not finite"):
        similarity.select_diverse(vectors, 0.5)
    with pytest.raises(ValueError, match="pool.*3 numbers.*2"):
        similarity.select_diverse(np.ones((1, 2)), 0.5, np.ones((1, 3)))


# --- beyond the exact limit -----------------------------------------------------------------------------------------


def clustered(count):
    chance = np.random.default_rng(9)
    return chance.normal(size=(60, 32))[chance.integers(60, size=count)] + 0.45 * chance.normal(size=(count, 32))


def test_the_approximate_selection_states_its_recall():
    pytest.importorskip("faiss")
    vectors = clustered(5000)
    exact = similarity.select_diverse(vectors, 0.85)
    got = similarity.select_diverse(vectors, 0.85, exact_rows=4999)
    assert (exact.recall, exact.recall_rows) == (1.0, 0)
    assert got.recall_rows > 500 and 0.95 < got.recall <= 1.0
    assert (got.kept == exact.kept).mean() > 0.95
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    named = got.nearest >= 0
    # What it names is a kept row before it, with its true cosine; and what it keeps is below the threshold of that.
    assert (got.nearest[named] < np.flatnonzero(named)).all() and got.kept[got.nearest[named]].all()
    true = np.einsum("nd,nd->n", unit[named], unit[got.nearest[named]])
    assert np.abs(got.similarity[named] - true).max() < 1e-9
    assert (got.similarity[got.kept] < 0.85).all()


@settings(max_examples=100, deadline=None)
@given(rows, rows, st.floats(0.02, 1.0), st.sampled_from([1, 40, 4000]))
def test_rows_that_look_into_every_list_are_compared_with_every_row(pool, vectors, threshold, most):
    # The same chunks, lists and ties as always, but nothing can be missed: all must be as in the exact search.
    pytest.importorskip("faiss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverted_lists, "LISTS_SEARCHED", 1000)
        patch.setattr(inverted_lists, "MOST_PRODUCTS", most)
        patch.setattr(inverted_lists, "FEWEST_ROWS", 3)
        patch.setattr(similarity, "CANDIDATES", 1000)
        got = similarity.select_diverse(vectors, threshold, pool, exact_rows=0)
        others = similarity.nearest_other(vectors, exact_rows=0)
        released = similarity.select_released(np.repeat(vectors, 4, axis=0), exact_rows=0)
    exact = similarity.select_diverse(vectors, threshold, pool)
    for name in ("kept", "nearest", "similarity"):
        assert getattr(got, name).tolist() == getattr(exact, name).tolist()
    assert got.recall == 1.0 or got.recall_rows == 0
    assert others.tolist() == similarity.nearest_other(vectors).tolist()
    exact_released = similarity.select_released(np.repeat(vectors, 4, axis=0))
    for name in ("dropped", "close", "nearest", "similarity"):
        assert getattr(released, name).tolist() == getattr(exact_released, name).tolist()


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_float32_rows_of_any_length_are_as_near_to_length_1_as_is_allowed_for(kind, scale):
    vectors = (clustered(50) * scale).astype(kind)
    rows = similarity._Rows(vectors)
    error = np.abs(rows.all_unit32().astype(float) - rows.unit(np.arange(50)))
    assert (error <= 3 * 2.0**-24 * np.abs(rows.unit(np.arange(50)))).all()


def test_many_repetitions_do_not_fill_the_memory():
    # All rows stand in one list; each finds thousands that are alike.
    pytest.importorskip("faiss")
    vectors = np.repeat(clustered(2), 3000, axis=0)
    got = similarity.select_diverse(vectors, 0.99, exact_rows=0)
    assert np.flatnonzero(got.kept).tolist() == [0, 3000] and got.recall == 1.0
    assert (similarity.nearest_other(vectors, exact_rows=0) == 1).all()
    largest = max(products.size for _, _, products in inverted_lists.InvertedLists(
        np.asarray(vectors, np.float32)).products(np.arange(6000), np.ones(6000, bool)))  # fmt: skip
    assert largest <= inverted_lists.MOST_PRODUCTS


def test_an_approximate_pool_counts_as_kept_before():
    pytest.importorskip("faiss")
    vectors = clustered(3000)
    expected = similarity.select_diverse(vectors[1000:], 0.85, vectors[:1000])
    got = similarity.select_diverse(vectors[1000:], 0.85, vectors[:1000], exact_rows=10)
    assert (got.kept == expected.kept).mean() > 0.95
    assert got.nearest.min() >= 0 and got.nearest.max() < 3000


@pytest.mark.parametrize("count", [0, 1, 2, 10])
def test_few_rows_can_be_searched_approximately(count):
    pytest.importorskip("faiss")
    vectors = clustered(10)[:count]
    got = similarity.select_diverse(vectors, 0.85, exact_rows=0)
    assert got.kept.tolist() == similarity.select_diverse(vectors, 0.85).kept.tolist()


def test_a_few_rows_against_a_large_pool_are_compared_with_each_of_it():
    vectors = clustered(3000)
    got = similarity.select_diverse(vectors[2900:], 0.85, vectors[:2900], exact_rows=1000)
    assert got.recall_rows == 0 and got.recall == 1.0
    assert similarity.select_diverse(vectors[1000:], 0.85, vectors[:1000], exact_rows=1000).recall_rows > 0


def test_a_search_that_finds_nothing_is_not_called_good(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(inverted_lists.InvertedLists, "products", lambda self, numbers, is_member: iter(()))
    monkeypatch.setattr(similarity, "BLOCK", 64)
    got = similarity.select_diverse(clustered(2000), 0.85, exact_rows=10)
    assert got.recall < 0.5 and got.recall_rows > 500


def test_without_faiss_the_fix_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="install faiss-cpu, or raise exact_rows"):
        similarity.select_diverse(np.eye(5), 0.5, exact_rows=4)


# --- the released rule ----------------------------------------------------------------------------------------------


def released_plainly(vectors):
    """The rule of the released scripts read off its description, one pair at a time."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    fate = []
    for row in range(len(unit)):
        batch = row // 100 * 100
        if any(unit[row] @ unit[other] >= 0.85 for other in range(row + 1, min(batch + 100, len(unit)))):
            fate.append("dropped")
        elif any(((unit[row] - unit[other]) ** 2).sum() < 0.25 for other in range(batch)):
            fate.append("close")
        else:
            fate.append("kept")
    return fate


def test_the_released_rule_is_what_its_description_says():
    chance = np.random.default_rng(10)
    vectors = chance.normal(size=(30, 12))[chance.integers(30, size=260)] + 0.35 * chance.normal(size=(260, 12))
    got = similarity.select_released(vectors)
    fate = np.where(got.dropped, "dropped", np.where(got.close, "close", "kept")).tolist()
    assert fate == released_plainly(vectors) and set(fate) == {"dropped", "close", "kept"}
    assert (got.nearest[got.dropped] > np.flatnonzero(got.dropped)).all()
    assert (got.nearest[got.close] < np.flatnonzero(got.close) // 100 * 100).all()
    assert len(similarity.select_released(np.zeros((0, 3))).dropped) == 0


# --- neighbours and thresholds --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(rows, rows, st.sampled_from([1, 7, 1024]))
def test_nearest_other_and_among(left, right, block):
    unit = [part / np.linalg.norm(part.astype(float), axis=1, keepdims=True) for part in (left, right)]
    within, across = unit[0] @ unit[0].T, unit[0] @ unit[1].T
    np.fill_diagonal(within, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK", block)
        patch.setattr(similarity, "PIECE", 3)
        assert np.abs(similarity.nearest_other(left) - within.max(axis=1)).max() < 2e-12
        value, place = similarity.nearest_among(left, right)
    assert np.abs(value - across.max(axis=1)).max() < 1e-6
    assert np.abs(across[np.arange(len(left)), place] - across.max(axis=1)).max() < 1e-6


def test_approximate_neighbours_are_nearly_all_the_nearest():
    pytest.importorskip("faiss")
    vectors = clustered(5000)
    exact, got = similarity.nearest_other(vectors), similarity.nearest_other(vectors, exact_rows=4999)
    assert (got <= exact + 1e-12).all() and (got < 1 - 1e-9).all(), "a lower bound, and no row is its own neighbour"
    assert (got == exact).mean() > 0.95
    rules = [similarity.select_released(vectors, exact_rows) for exact_rows in (5000, 4999)]
    assert rules[0].dropped.tolist() == rules[1].dropped.tolist()
    assert rules[0].close.sum() > 500 and 0.95 * rules[0].close.sum() < rules[1].close.sum() <= rules[0].close.sum()
    kept = similarity.select_diverse(vectors, 0.85, exact_rows=4999).kept
    assert similarity.rethreshold(vectors, [0.85], 4999) == [kept.sum()]


def test_neighbours_of_nothing():
    assert similarity.nearest_other(np.zeros((0, 3))).tolist() == []
    assert similarity.nearest_other(np.ones((1, 3))).tolist() == [-1]
    value, place = similarity.nearest_among(np.ones((2, 3)), np.zeros((0, 3)))
    assert value.tolist() == [-1, -1] and place.tolist() == [-1, -1]


def test_rethreshold_is_the_selection_at_each_threshold():
    vectors = clustered(400)
    levels = [0.3, 0.6, 0.9, 1.0]
    counted = similarity.rethreshold(vectors, levels)
    assert counted == [int(definition(vectors, level)[0].sum()) for level in levels]
    assert counted[0] < counted[-1] == 400


def test_examples_stand_on_either_side_of_each_threshold():
    vectors = clustered(300)
    questions = [f"question {row}" for row in range(300)]
    levels = [0.3, 0.6, 0.9, 1.0]
    table = similarity.threshold_examples(questions, vectors, levels, examples=3, first=250)
    assert table["total"].tolist() == [250] * 4
    for row in table.to_dict("records"):
        kept, nearest, value = definition(vectors[:250], row["threshold"])
        assert row["kept"] == kept.sum()
        for name, side in (("leaving", ~kept), ("staying", kept)):
            closest = sorted(abs(value[side & (nearest >= 0)] - row["threshold"]))[:3]
            assert [abs(cosine - row["threshold"]) for *_, cosine in row[name]] == pytest.approx(closest, abs=1e-9)
            for question, neighbour, cosine in row[name]:
                place = questions.index(question)
                assert side[place] and neighbour == questions[nearest[place]]
                assert cosine == pytest.approx(value[place], abs=2e-12)
    assert table["leaving"].map(len).max() == 3 == table["staying"].map(len).max()


def test_examples_do_not_repeat_a_pair_and_need_a_vector_each():
    vectors = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    table = similarity.threshold_examples(["a", "a", "a", "b"], vectors, [0.9])
    assert table.iloc[0].tolist() == [0.9, 2, 4, [("a", "a", 1.0)], [("b", "a", 0.0)]]
    with pytest.raises(ValueError, match="questions: 1, but vectors has 4 rows"):
        similarity.threshold_examples(["a"], vectors, [0.9])
