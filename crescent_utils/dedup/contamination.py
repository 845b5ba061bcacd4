"""Contamination: which questions repeat, quote or resemble an item of a benchmark that will be evaluated.

Three signs, from the surest to the weakest: the same problem (`benchmarks.overlap_key`), n-gram overlap (at least 70 % of the
8-grams, as PaLM did: Chowdhery et al. 2022, section 8), and a neighbour in the space of the embeddings (ours).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..benchmarks import Benchmark, overlap_key
from . import similarity

if TYPE_CHECKING:
    import pandas as pd

NGRAM = 8  # words; PaLM, section 8
SIGNS = ("repeats", "n-grams", "neighbour")
COLUMNS = ["id", "question", "sign", "score", "benchmark", "item", "item_question"]


class _Encoder(Protocol):
    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


def find_contamination(
    ids: Sequence[int],
    texts: Sequence[str],
    held: Sequence[Benchmark],
    encoder: _Encoder | None,
    *,
    overlap: float = 0.7,
    closeness: float = 0.85,
) -> pd.DataFrame:
    """List each question that shares something with a benchmark item: one row a question and sign, with the item.

    `score` is 1 for a repetition, the share of the shorter text's 8-grams that the other has (>= `overlap`), or the cosine
    (>= `closeness`; without an `encoder` it is not looked at). The item named is the one with the highest score.
    """
    import pandas as pd

    items = [(bench.name, number, item.question) for bench in held for number, item in enumerate(bench.items)]
    rows = [(row, "repeats", 1.0, place) for row, place in _repeated(texts, items)]
    rows += [(row, "n-grams", score, place) for row, score, place in _quoted(texts, items, overlap)]
    if encoder is not None and items and len(texts):
        rows += [(row, "neighbour", score, place) for row, score, place in _close(texts, items, encoder, closeness)]
    rows.sort(key=lambda found: (found[0], SIGNS.index(found[1])))
    made = [(ids[row], texts[row], sign, round(score, 4), *items[place]) for row, sign, score, place in rows]
    return pd.DataFrame(made, columns=COLUMNS)


def split_contaminated(
    table: pd.DataFrame, found: pd.DataFrame, protocol: str, remove: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split `table` (columns id, question …) into what stays in the pool and what leaves it, with the sign as `reason`.

    Repetitions leave wherever `remove` holds; what merely quotes or resembles an item leaves in protocol "strict" as well.
    """
    counted = found if protocol == "strict" else found[found["sign"] == "repeats"]
    sign = counted.drop_duplicates("id").set_index("id")["sign"] if remove else counted.iloc[:0].set_index("id")["sign"]
    words = {
        "repeats": "repeats a benchmark item",
        "n-grams": "quotes a benchmark item",
        "neighbour": "is close to a benchmark item",
    }
    gone = table["id"].isin(sign.index)
    removed = table[gone].assign(reason=[words[sign[number]] for number in table.loc[gone, "id"]])
    return table[~gone].reset_index(drop=True), removed.reset_index(drop=True)


def _repeated(texts: Sequence[str], items: Sequence[tuple[str, int, str]]) -> list[tuple[int, int]]:
    keys: dict[str, int] = {}
    for place, (_, _, question) in enumerate(items):
        keys.setdefault(overlap_key(question), place)
    return [(row, keys[key]) for row, key in enumerate(map(overlap_key, texts)) if key in keys]


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


def _quoted(
    texts: Sequence[str], items: Sequence[tuple[str, int, str]], overlap: float
) -> list[tuple[int, float, int]]:
    """(row, share, item) of the item with the largest share of common 8-grams. A text of under 8 words has none."""
    where: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes = []
    for place, (_, _, question) in enumerate(items):
        grams = _grams(question)
        sizes.append(len(grams))
        for gram in grams:
            where[gram].append(place)
    found = []
    for row, text in enumerate(texts):
        grams = _grams(text)
        shared = Counter(place for gram in grams for place in where.get(gram, ()))
        # Of the shorter text: an item inside a longer question is as bad as a question cut out of an item.
        share, place = max(
            ((count / min(len(grams), sizes[place]), -place) for place, count in shared.items()), default=(0.0, 0)
        )
        if share >= overlap:
            found.append((row, share, -place))
    return found


def _close(
    texts: Sequence[str], items: Sequence[tuple[str, int, str]], encoder: _Encoder, closeness: float
) -> list[tuple[int, float, int]]:
    value, place = similarity.nearest_among(encoder.encode(texts), encoder.encode([item[2] for item in items]))
    return [(int(row), float(value[row]), int(place[row])) for row in np.flatnonzero(value >= closeness)]
