"""Contamination: which questions repeat, quote or resemble an item of a benchmark that will be evaluated.

There are three signs, from the surest to the weakest: the same problem (`benchmarks.overlap_key`), n-gram overlap (at
least 70 % of the 8-grams, as PaLM did: Chowdhery et al. 2022, section 8), and embeddings that are close (ours).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..benchmarks import Benchmark, overlap_key
from ..runs import Dedup
from .loop import Diversified, Encoder
from .similarity import nearest_among

if TYPE_CHECKING:
    import pandas as pd

NGRAM = 8  # words; PaLM, section 8
REASONS = {
    "repeats": "repeats a benchmark item",
    "n-grams": "quotes a benchmark item",
    "neighbour": "is close to a benchmark item",
}
SIGNS = tuple(REASONS)  # from the surest to the weakest
COLUMNS = ["id", "question", "sign", "score", "benchmark", "item", "item_question"]


class _Match(NamedTuple):
    """A question (`row`) that shares something with a benchmark item (`place` in the list of all items)."""

    row: int
    sign: str
    score: float
    place: int


def find_contamination(
    ids: Sequence[int],
    texts: Sequence[str],
    held_out: Sequence[Benchmark],
    encoder: Encoder,
    *,
    overlap: float = 0.7,
    closeness: float,
) -> pd.DataFrame:
    """Return the questions that share something with a benchmark item: one row per question and sign, with the item.

    `score` is 1 for a repetition, the share of the shorter text's 8-grams that the other has (>= `overlap`), or the
    cosine (>= `closeness`). The item named is the one with the highest score.
    """
    import pandas as pd

    items = [(bench.name, number, item.question) for bench in held_out for number, item in enumerate(bench.items)]
    item_texts = [question for _, _, question in items]
    matches = _repetitions(texts, item_texts)
    matches += _quotations(texts, item_texts, overlap)
    matches += _neighbours(texts, item_texts, encoder, closeness)
    matches.sort(key=lambda match: match.row)  # the signs of a row stay in their order
    rows = [(ids[row], texts[row], sign, round(score, 4), *items[place]) for row, sign, score, place in matches]
    return pd.DataFrame(rows, columns=COLUMNS)


def split_contaminated(
    result: Diversified, contaminated: pd.DataFrame, settings: Dedup
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the accepted questions that stay in the pool, and all that are rejected, each in order.

    With `decontaminate`, a repetition leaves the pool, its surest sign the reason. What merely quotes or resembles an
    item leaves it in protocol "strict" alone. The rejected are those of the loop and these, in order of id.
    """
    import pandas as pd

    if not settings.decontaminate:
        leaving = contaminated.head(0)
    elif settings.protocol == "strict":
        leaving = contaminated.drop_duplicates("id")
    else:
        leaving = contaminated[contaminated["sign"] == "repeats"]
    leaves = result.accepted["id"].isin(leaving["id"])
    reasons = leaving.set_index("id")["sign"].map(REASONS)
    removed = result.accepted[leaves].assign(reason=lambda table: table["id"].map(reasons))
    parts = [table for table in (result.rejected, removed) if len(table)] or [result.rejected]
    rejected = pd.concat(parts).sort_values("id", kind="stable")
    return result.accepted[~leaves].reset_index(drop=True), rejected.reset_index(drop=True)


def _repetitions(texts: Sequence[str], item_texts: Sequence[str]) -> list[_Match]:
    """Return the questions that are the same problem as an item; of several such items, the first is named."""
    item_keys = [overlap_key(text) for text in item_texts]
    first_places = {key: place for place, key in reversed(list(enumerate(item_keys)))}
    keys = [overlap_key(text) for text in texts]
    return [_Match(row, "repeats", 1.0, first_places[key]) for row, key in enumerate(keys) if key in first_places]


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1)}


def _quotations(texts: Sequence[str], item_texts: Sequence[str], overlap: float) -> list[_Match]:
    """Return the questions that share enough 8-grams with an item. A text of under 8 words has none to share."""
    item_grams = [_grams(item_text) for item_text in item_texts]
    places_of_gram: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, grams in enumerate(item_grams):
        for gram in grams:
            places_of_gram[gram].append(place)
    matches = []
    for row, text in enumerate(texts):
        grams = _grams(text)
        common = Counter(place for gram in grams for place in places_of_gram.get(gram, ()))
        # Of the shorter text: an item inside a longer question is as bad as a question cut out of an item.
        shares = {place: count / min(len(grams), len(item_grams[place])) for place, count in common.items()}
        best = min(shares, key=lambda place: (-shares[place], place), default=None)
        if best is not None and shares[best] >= overlap:
            matches.append(_Match(row, "n-grams", shares[best], best))
    return matches


def _neighbours(texts: Sequence[str], item_texts: Sequence[str], encoder: Encoder, closeness: float) -> list[_Match]:
    """Return the questions whose nearest item is at `closeness` or nearer."""
    cosines, places = nearest_among(encoder.encode(texts), encoder.encode(item_texts))
    rows = np.flatnonzero(cosines >= closeness).tolist()
    return [_Match(row, "neighbour", float(cosines[row]), int(places[row])) for row in rows]
