"""Similarity search: exact over SemHash or a plain numpy loop, approximate over exact and over SemHash; embedding.

The vectors are embeddings of the reference's questions, moved by noise so that a row's usual neighbour stands at a
cosine of about 0.6, as a question's does; a tenth are planted copies of an earlier row at cosines from 0.86 to 0.99.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import replace

import numpy as np
from measure import Row, compare, reference

from crescent_utils.dedup import loop, similarity

THRESHOLD, DIMENSION = 0.85, 384


@functools.cache
def encoder() -> loop.SentenceEncoder:
    """The kit's encoder, loaded once."""
    return loop.SentenceEncoder()


def questions() -> list[str]:
    """Different questions that the reference's models wrote, as they came."""
    return list(dict.fromkeys(reference("elicit", "questions", "question")))


@functools.cache
def centres() -> np.ndarray:
    """What the vectors lie around."""
    return encoder().encode(questions())


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows at length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (count, 384) float32, and the numbers of the copied rows and of their copies behind them."""
    chance, middles = np.random.default_rng(1), centres()
    vectors = np.empty((count, DIMENSION), np.float32)
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        noise = unit(chance.normal(size=(size, DIMENSION)))
        vectors[start : start + size] = unit(middles[chance.integers(len(middles), size=size)] + 0.8 * noise)
    copies = np.sort(chance.choice(np.arange(count // 2, count), count // 10, replace=False))
    copied = chance.integers(0, count // 2, size=len(copies))
    for start in range(0, len(copies), 20_000):
        part = slice(start, start + 20_000)
        noise = chance.normal(size=(len(copies[part]), DIMENSION))
        noise -= np.einsum("nd,nd->n", noise, vectors[copied[part]])[:, None] * vectors[copied[part]]
        cosine = chance.uniform(0.86, 0.99, size=(len(noise), 1))
        vectors[copies[part]] = cosine * vectors[copied[part]] + np.sqrt(1 - cosine**2) * unit(noise)
    return vectors, copied, copies


def plain(vectors: np.ndarray) -> int:
    """Blocks of 1,024 against a float32 bank, numpy alone, no care for rounding; the number of rows."""
    bank, filled = np.empty_like(vectors), 0
    for start in range(0, len(vectors), 1024):
        block = vectors[start : start + 1024]
        best = (block @ bank[:filled].T).max(axis=1) if filled else np.full(len(block), -1.0)
        inside, chosen = block @ block.T, []
        for row in range(len(block)):
            if best[row] < THRESHOLD and (not chosen or inside[row, chosen].max() < THRESHOLD):
                chosen.append(row)
        bank[filled : filled + len(chosen)] = block[chosen]
        filled += len(chosen)
    return len(vectors)


def semhash(vectors: np.ndarray) -> np.ndarray:
    """Which rows SemHash keeps with its default backend, fed with the same vectors."""
    from semhash import SemHash

    class Given:
        def encode(self, texts: list[str], **_: object) -> np.ndarray:
            return vectors[[int(text) for text in texts]]

    index = SemHash.from_records([str(row) for row in range(len(vectors))], model=Given())
    kept = np.zeros(len(vectors), bool)
    kept[[int(text) for text in index.self_deduplicate(threshold=THRESHOLD).selected]] = True
    return kept


def exact(scale: float) -> Row:
    """Every pair."""
    count = round(20_000 * scale)
    vectors, _, copies = planted(count)
    there = importlib.util.find_spec("semhash") is not None
    other, name = (
        (lambda rows: len(semhash(rows)), "SemHash")
        if there
        else (plain, "a plain numpy loop (SemHash is not installed)")
    )
    selections = []

    def ours() -> int:
        selections.append(similarity.select_diverse(vectors, THRESHOLD, exact_rows=count))
        return count

    row = compare(name, "rows/s", ours, lambda: other(vectors))
    return replace(row, note=f"finds {(~selections[0].kept[copies]).mean():.1%} of the planted")


def approximate(scale: float) -> Row:
    """The search that takes over beyond `exact_rows`, and its recall of pairs whose first row stays."""
    count = round(80_000 * scale)
    vectors, copied, copies = planted(count)
    selections = {}

    def search(exact_rows: int) -> int:
        selections[exact_rows] = similarity.select_diverse(vectors, THRESHOLD, exact_rows=exact_rows)
        return count

    row = compare("exact", "rows/s", lambda: search(0), lambda: search(count), rounds=2)
    kept, stated = selections[0].kept, selections[0].recall
    sure = kept[copied] & (np.einsum("nd,nd->n", vectors[copied], vectors[copies]) >= THRESHOLD)
    return replace(row, note=f"finds {(~kept[copies[sure]]).mean():.1%} of the planted, states {stated:.1%}")


def over_semhash(scale: float) -> Row:
    """The same search over SemHash, which is approximate as well, and the planted copies that each recognises."""
    if importlib.util.find_spec("semhash") is None:
        raise ImportError("SemHash is not installed; pip install semhash")
    count = round(100_000 * scale)
    vectors, copied, copies = planted(count)
    too_similar = np.einsum("nd,nd->n", vectors[copied], vectors[copies]) >= THRESHOLD
    kept = {}

    def ours() -> int:
        kept["ours"] = similarity.select_diverse(vectors, THRESHOLD, exact_rows=0).kept
        return count

    def theirs() -> int:
        kept["SemHash"] = semhash(vectors)
        return count

    row = compare("SemHash", "rows/s", ours, theirs, rounds=2)
    missed = {name: (rows[copied] & rows[copies])[too_similar].mean() for name, rows in kept.items()}
    return replace(row, note=", ".join(f"{name} recognises {1 - share:.2%}" for name, share in missed.items()))


def embedding(scale: float) -> Row:
    """Different texts to unit vectors, what was embedded before forgotten."""
    texts = questions()[: round(1_000 * scale)]

    def ours() -> int:
        encoder()._remembered.clear()
        encoder()._kept.clear()
        return len(encoder().encode(texts))

    def theirs() -> int:
        return len(encoder()._model.encode(texts, normalize_embeddings=True, show_progress_bar=False))

    theirs()  # to warm up
    return compare("sentence-transformers' encode", "texts/s", ours, theirs)


ROWS = {
    "dedup, exact": exact,
    "dedup, approximate": approximate,
    "dedup, over SemHash": over_semhash,
    "embedding": embedding,
}
