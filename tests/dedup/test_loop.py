"""The selection against brute force in double precision, and the rejection loop on a real engine, to the last row."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import tiny
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from crescent_utils.dedup import loop as loop_module
from crescent_utils.dedup import similarity
from crescent_utils.dedup.loop import SentenceEncoder, diversify
from crescent_utils.generation import generator, models
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.store import GenerationStore
from crescent_utils.runs import domains, params

NEAR = 1e-5  # float32: closer to the threshold than this, the rounding of a library decides


def cosines(vectors):
    vectors = np.asarray(vectors, np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def brute_force(vectors, threshold, pool=0):
    """Greedy, first come, one pair at a time; the first `pool` rows are in the pool whatever they are."""
    similar, kept = cosines(vectors), list(range(pool))
    for row in range(pool, len(vectors)):
        if all(similar[row, other] < threshold for other in kept):
            kept.append(row)
    return kept


def clear_of(vectors, threshold):
    assume((np.abs(cosines(vectors) - threshold) > NEAR).all())


rows = st.integers(0, 40).flatmap(
    lambda n: some.arrays(np.int8, (n, 3), elements=st.integers(-3, 3)).filter(lambda a: (a != 0).any(axis=1).all())
)
thresholds = st.floats(0.02, 0.98)


def assert_is_greedy(vectors, threshold, got, pool=0):
    kept = brute_force(vectors, threshold, pool)
    new_rows = [row for row in kept if row >= pool]
    assert got.kept.dtype == bool and (np.flatnonzero(got.kept) + pool).tolist() == new_rows
    similar = cosines(vectors)
    for row in range(pool, len(vectors)):
        before = [other for other in kept if other < row]
        if not before:
            assert (got.nearest[row - pool], got.similarity[row - pool]) == (-1, -1)
            continue
        nearest = int(got.nearest[row - pool])
        assert nearest in before
        largest = similar[row, before].max()
        assert abs(similar[row, nearest] - largest) < NEAR
        assert abs(got.similarity[row - pool] - largest) < NEAR


@settings(max_examples=150, deadline=None)
@example(np.array([[1, 0, 0], [-1, 0, 0]], np.int8), 0.5, 2)  # opposite rows: a cosine of -1 is a neighbour too
@given(rows, thresholds, st.sampled_from([1, 2, 3, 7, 1024]))
def test_selects_what_brute_force_selects(vectors, threshold, block):
    clear_of(vectors, threshold) if len(vectors) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK", block)
        patch.setattr(similarity, "PIECE", block)
        assert_is_greedy(vectors, threshold, similarity.select_diverse(vectors.astype(np.float32), threshold))


@settings(max_examples=100, deadline=None)
@given(rows, thresholds, st.integers(0, 40), st.sampled_from([1, 3, 1024]))
def test_a_pool_is_rows_that_were_kept_before(vectors, threshold, cut, block):
    cut = min(cut, len(vectors))
    clear_of(vectors, threshold) if len(vectors) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK", block)
        patch.setattr(similarity, "PIECE", block)
        got = similarity.select_diverse(vectors[cut:], threshold, vectors[:cut])
        assert_is_greedy(vectors, threshold, got, pool=cut)
        first = similarity.select_diverse(vectors[:cut], threshold)
        then = similarity.select_diverse(vectors[cut:], threshold, vectors[:cut][first.kept])
        whole = similarity.select_diverse(vectors, threshold)
    assert np.concatenate([first.kept, then.kept]).tolist() == whole.kept.tolist()


def test_real_sized_vectors_across_real_blocks():
    chance = np.random.default_rng(1)
    centres = chance.normal(size=(300, 48))
    vectors = centres[chance.integers(300, size=2600)] + 0.35 * chance.normal(size=(2600, 48))
    got = similarity.select_diverse(vectors, 0.7)
    assert 200 < got.kept.sum() < 1500
    assert_is_greedy(vectors, 0.7, got)


@pytest.mark.parametrize("block", [1, 5, 1024])
def test_duplicates_and_opposites(monkeypatch, block):
    monkeypatch.setattr(similarity, "BLOCK", block)
    monkeypatch.setattr(similarity, "PIECE", block)
    one = np.array([[3.0, 4.0]])
    got = similarity.select_diverse(np.repeat(one, 30, axis=0), 0.9)
    assert got.kept.tolist() == [True] + [False] * 29
    assert got.nearest.tolist() == [-1] + [0] * 29
    assert similarity.select_diverse(np.concatenate([one, -one, one * 2, -one / 3]), 0.9).kept.tolist() == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_at_threshold_one_an_exact_repetition_still_goes(monkeypatch, block):
    # A cosine of 1 is not < 1, whatever float32 makes of the sum of 384 squares.
    monkeypatch.setattr(similarity, "BLOCK", block)
    monkeypatch.setattr(similarity, "PIECE", block)
    vectors = np.random.default_rng(2).normal(size=(200, 384)).astype(np.float32)
    got = similarity.select_diverse(np.concatenate([vectors, vectors]), 1.0)
    assert got.kept.tolist() == [True] * 200 + [False] * 200


def test_the_length_of_a_row_says_nothing():
    chance = np.random.default_rng(3)
    vectors = chance.normal(size=(60, 8))
    expected = similarity.select_diverse(vectors, 0.5)
    for scale in (1e-25, 1e25, 10.0 ** chance.uniform(-30, 30, size=(60, 1))):
        got = similarity.select_diverse(vectors * scale, 0.5)
        assert got.kept.tolist() == expected.kept.tolist()
        assert got.nearest.tolist() == expected.nearest.tolist()


def test_nothing_comes_in_nothing_goes_out():
    got = similarity.select_diverse(np.zeros((0, 4)), 0.5)
    assert got.kept.shape == got.nearest.shape == got.similarity.shape == (0,)
    with pytest.raises(ValueError, match="vectors.*shape"):
        similarity.select_diverse(np.zeros(4), 0.5)


# --- the loop -------------------------------------------------------------------------------------------------------


class Trigrams:
    """A real, deterministic encoder: counts of hashed character trigrams, as unit vectors."""

    def encode(self, texts):
        counts = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            padded = f"  {text} "
            for i in range(len(padded) - 2):
                counts[row, hashlib.sha256(padded[i : i + 3].encode()).digest()[0] % 64] += 1
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


class Recording(generator.Generator):
    """A real generator that remembers which (request, sample) pairs it was asked for."""

    pairs: list = []

    def complete(self, pairs, accepted=None):
        self.pairs = [*self.pairs, *pairs]
        return super().complete(pairs, accepted)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model", layers=2)
    words = models.load_tokenizer(folder)
    return TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, 512), batch_size=32)


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


# The tiny model writes noise: with this prefix about all of it is a question, and the cue makes some of it alike.
DOMAIN = domains.get_domain("math_word_problems", bait_prefixes=["How many are 3 and 4? ", "", "Tom has 5 "])
GATES = {"min_words": 1, "max_words": 60, "min_quantities": 1, "pattern": ""}
QUESTIONS = [f"What is {a} + {b}?" for a in range(1, 5) for b in (3, 4, 5)] + [
    "What is 1 + 3?",
    "What is 1 + 3?",
    "How far is it to Rome?",
]


def loop(engine, store_folder, texts=QUESTIONS, ids=None, name="s", **values):
    stage_settings = params.build_settings(
        "dedup", {"similarity_threshold": 0.7, "rewrite_max_tokens": 10, "engine": "transformers", **values}
    )
    recording = Recording(
        GenerationStore(store_folder / f"{name}.sqlite"), models.Model("base", "tiny", lambda: None), 1, lambda: engine
    )
    try:
        ids = list(range(100, 100 + len(texts))) if ids is None else ids
        return diversify(ids, texts, recording, Trigrams(), stage_settings, DOMAIN, GATES), recording
    finally:
        recording.store.close()  # not the engine: it serves the whole module


def assert_holds(result, ids, texts, rewrites):
    accepted, rejected, attempts = result.accepted, result.rejected, result.attempts
    assert sorted([*accepted["id"], *rejected["id"]]) == sorted(ids), "kept and rejected are what came in"
    vectors = Trigrams().encode(list(accepted["question"]))
    off_diagonal = (vectors @ vectors.T)[~np.eye(len(vectors), dtype=bool)]
    assert (off_diagonal < result.threshold).all(), "no two accepted questions are too similar"
    assert rejected["reason"].str.len().gt(0).all()
    texts = dict(zip(ids, texts, strict=True))
    for number, tries in attempts.groupby("id"):
        assert tries["round"].tolist() == list(range(len(tries))), "every attempt, in order"
        assert not tries["accepted"].iloc[:-1].any(), "an accepted question is left alone"
        assert tries["before"].iloc[0] == tries["after"].iloc[0] == texts[number]
        assert tries["before"].tolist()[1:] == tries["after"].tolist()[:-1]
        assert (tries["reason"] == "").tolist() == tries["accepted"].tolist()
        if tries["accepted"].iloc[-1]:
            kept = accepted[accepted["id"] == number].iloc[0]
            assert (kept["question"], kept["round"]) == (tries["after"].iloc[-1], len(tries) - 1)
        else:
            assert len(tries) == rewrites + 1, "a question is rejected once its tries have run out"


@pytest.mark.parametrize("rewrites", [1, 3])
def test_nothing_is_lost_and_nothing_alike_is_kept(engine, store_folder, rewrites):
    result, recording = loop(engine, store_folder, max_rewrites=rewrites)
    ids = list(range(100, 100 + len(QUESTIONS)))
    assert_holds(result, ids, QUESTIONS, rewrites)
    assert result.accepted["round"].max() >= 1, "some rewrite was accepted, else this shows nothing"
    first = result.attempts.query("round == 0")
    assert len(first) == len(QUESTIONS)
    assert 1 < first["accepted"].sum() < len(QUESTIONS)
    assert recording.cost.completions > 0


def test_rejected_questions_say_why_and_after_how_many_tries(engine, store_folder):
    everything_alike, _ = loop(engine, store_folder, similarity_threshold=0.01, max_rewrites=2)
    assert everything_alike.rejected["reason"].str.endswith("after 2 rewrites").all()
    assert everything_alike.rejected["reason"].str.startswith("too similar").any()
    single, _ = loop(engine, store_folder, similarity_threshold=0.01, max_rewrites=1)
    assert single.rejected["reason"].str.endswith("after 1 rewrite").all()


def test_without_rewrites_what_is_alike_is_dropped_and_nothing_is_asked(engine, store_folder):
    result, recording = loop(engine, store_folder, max_rewrites=0)
    assert_holds(result, list(range(100, 100 + len(QUESTIONS))), QUESTIONS, 0)
    assert set(result.rejected["reason"]) == {"too similar"}
    assert recording.pairs == []
    expected = similarity.select_diverse(Trigrams().encode(QUESTIONS), 0.7).kept
    assert result.accepted["question"].tolist() == [
        text for text, kept in zip(QUESTIONS, expected, strict=True) if kept
    ]


def test_no_two_candidates_ever_share_a_sample(engine, store_folder):
    copies = ["What is 3 + 4?"] * 9
    result, recording = loop(engine, store_folder, copies, max_rewrites=3)
    assert max(Counter((request.key(), sample) for request, sample in recording.pairs).values()) == 1
    assert len({request.key() for request, _ in recording.pairs}) < len(recording.pairs), (
        "copies do make equal requests"
    )
    assert_holds(result, list(range(100, 109)), copies, 3)


def test_each_rewrite_shows_the_question_and_its_neighbour(engine, store_folder):
    result, recording = loop(engine, store_folder, max_rewrites=2)
    first = result.attempts.query("round == 0 and not accepted")
    for (request, _), try_ in zip(recording.pairs, first.itertuples(), strict=False):
        assert try_.before in request.messages[-1][1] and try_.neighbour in request.messages[-1][1]
        assert try_.similarity >= 0.7
        assert request.sampling.max_tokens == 10 and request.sampling.temperature == 1.0


def test_the_outcome_does_not_depend_on_blocks_or_batches_or_on_being_run_again(engine, store_folder, monkeypatch):
    expected, recording = loop(engine, store_folder, max_rewrites=2, name="one")
    again, second = loop(engine, store_folder, max_rewrites=2, name="one")
    assert second.cost.sampled == 0 and recording.cost.sampled > 0
    monkeypatch.setattr(similarity, "BLOCK", 2)
    monkeypatch.setattr(engine, "_batch_size", 5)
    other, _ = loop(engine, store_folder, max_rewrites=2, name="two")
    for got in (again, other):
        assert got.accepted.equals(expected.accepted) and got.rejected.equals(expected.rejected)
        assert got.attempts.equals(expected.attempts)


@pytest.mark.parametrize("texts", [[], ["What is 3 + 4?"]])
def test_few_questions(engine, store_folder, texts):
    result, recording = loop(engine, store_folder, texts)
    assert result.accepted["question"].tolist() == texts
    assert len(result.rejected) == 0 and recording.pairs == []
    assert list(result.rejected.columns) == [*result.accepted.columns, "reason"]


def test_the_domains_threshold_stands_where_none_is_given(engine, store_folder):
    result, _ = loop(engine, store_folder, ["What is 3 + 4?"], similarity_threshold=0.0)
    assert result.threshold == DOMAIN.similarity_threshold


def test_the_released_protocol_drops_the_earlier_and_keeps_every_rewrite_unchecked(engine, store_folder):
    texts = [f"What is {a} + {b}?" for a in range(3, 14) for b in range(3, 14)] + ["Why?"] + QUESTIONS
    result, recording = loop(engine, store_folder, texts, ids=list(range(len(texts))), protocol="released")
    selection = similarity.select_released(Trigrams().encode(texts))
    assert 0 < selection.close.sum() and 0 < selection.dropped.sum() < len(texts) - selection.close.sum()
    assert result.rejected["id"].tolist() == np.flatnonzero(selection.dropped).tolist()
    assert set(result.rejected["reason"]) == {"a later one of its batch is too similar"}
    assert sorted(result.accepted["id"]) == np.flatnonzero(~selection.dropped).tolist()
    rewritten = result.accepted.query("round == 1")
    assert rewritten["id"].tolist() == np.flatnonzero(selection.close).tolist()
    assert len(recording.pairs) == len(rewritten), "one rewrite, whatever comes of it"
    second = result.attempts.query("round == 1")
    assert second["accepted"].all() and second["after"].tolist() == rewritten["question"].tolist()
    assert second["before"].tolist() == [texts[number] for number in second["id"]]


# --- saved vectors --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """Two models of sentence-transformers that differ in their weights: bags of words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as tokenizer_models

    folders = []
    for seed in (1, 2):
        tokenizer = Tokenizer(tokenizer_models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3}, "[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        weights = np.random.default_rng(seed).normal(size=(4, 16)).astype(np.float32)
        folders.append(tmp_path_factory.mktemp("bags") / str(seed))
        module = StaticEmbedding(tokenizer, embedding_weights=weights)
        SentenceTransformer(modules=[module]).save(str(folders[-1]))
    return folders


TEXTS = [f"{a} {b}" for a in ("one", "two", "three") for b in ("one", "two", "three")]


def test_a_process_embeds_a_text_once_for_all_encoders_of_a_model(bags, monkeypatch):
    monkeypatch.setattr(loop_module, "_KEPT", {})
    first = SentenceEncoder(str(bags[0]))
    expected = first.encode(TEXTS[:6])
    again, other = SentenceEncoder(str(bags[0])), SentenceEncoder(str(bags[1]))
    asked = []
    for encoder in (again, other):
        encode = encoder._model.encode
        watched = lambda texts, encode=encode, **more: asked.append(texts) or encode(texts, **more)  # noqa: E731
        monkeypatch.setattr(encoder._model, "encode", watched)
    assert (again.encode(TEXTS)[:6] == expected).all() and asked == [TEXTS[6:]]
    assert not np.allclose(other.encode(TEXTS)[:6], expected) and asked == [TEXTS[6:], TEXTS]
    monkeypatch.setattr(loop_module, "KEPT_TEXTS", len(TEXTS) + 2)
    for texts in (["one two three", "two one three", "three one two"],) * 2:
        assert len(SentenceEncoder(str(bags[0])).encode(texts)) == 3
    assert set(again._kept) == set(TEXTS), "no more than so many are kept"


class Counting(SentenceEncoder):
    """An encoder that counts the texts that its model embeds."""

    embedded = 0

    def _embed(self, texts):
        self.embedded += len(texts)
        return super()._embed(texts)


def test_a_saved_vector_is_read_and_what_is_new_is_embedded(bags, tmp_path, monkeypatch):
    monkeypatch.setattr("crescent_utils.dedup.loop.CHECKED_TEXTS", 2)
    first = SentenceEncoder(str(bags[0]), tmp_path / "vectors.npz")
    expected = first.encode(TEXTS)
    first.save(tmp_path / "vectors.npz")
    again = Counting(str(bags[0]), tmp_path / "vectors.npz")
    assert (again.encode([*TEXTS, "three one two"])[:9] == expected).all()
    assert again.embedded == 3 + 1, "three to check the file, one that is new"
    assert (again.encode(TEXTS[::-1]) == expected[::-1]).all() and again.embedded == 4
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npz"]
    SentenceEncoder(str(bags[0])).save(tmp_path / "none.npz")
    assert (SentenceEncoder(str(bags[0]), tmp_path / "none.npz").encode(TEXTS) == expected).all()


def test_vectors_of_another_model_are_not_used(bags, tmp_path):
    others = SentenceEncoder(str(bags[1]))
    others.encode(TEXTS)
    others.save(tmp_path / "vectors.npz")
    encoder = SentenceEncoder(str(bags[0]), tmp_path / "vectors.npz")
    with pytest.warns(UserWarning, match="not this model's"):
        got = encoder.encode(TEXTS)
    assert (got == SentenceEncoder(str(bags[0])).encode(TEXTS)).all()


def test_damaged_vectors_are_not_used(bags, tmp_path):
    whole = SentenceEncoder(str(bags[0]))
    expected = whole.encode(TEXTS)
    whole.save(tmp_path / "vectors.npz")
    content = (tmp_path / "vectors.npz").read_bytes()
    for number, damaged in enumerate((b"", content[:300], content[:400] + b"\0" * 40 + content[440:])):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged|not this model's"):
            got = SentenceEncoder(str(bags[0]), path).encode(TEXTS)
        assert (got == expected).all()
