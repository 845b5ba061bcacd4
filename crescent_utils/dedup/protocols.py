"""Protocols: what the paper, the released code and our strict gates each do with the same questions before any rewrite.

All of it follows from the questions and their embeddings, so that a replay can show it. What a question would be
rewritten to cannot be told without sampling, and is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import elicit
from ..benchmarks import Benchmark
from .contamination import find_contamination
from .loop import Encoder
from .similarity import nearest_other, select_diverse, select_released

if TYPE_CHECKING:
    import pandas as pd


def damage_of_released_cleaner(texts: Sequence[str]) -> pd.DataFrame:
    """Return what the released cleaner makes of each question: columns `question`, `cleaned`, `damage`.

    `damage` is "" (unchanged but for white space), "lost" (an empty string), "cut" (only the end is gone) or "signs" (a
    sign such as + / $ % is gone, or a number was torn apart).
    """
    import pandas as pd

    rows = []
    for text in texts:
        cleaned = elicit.released_clean(text)
        rows.append((text, cleaned, _damage(text, cleaned)))
    return pd.DataFrame(rows, columns=["question", "cleaned", "damage"])


def _damage(text: str, cleaned: str) -> str:
    if not cleaned:
        return "lost"
    signs, cleaned_signs = "".join(text.split()), "".join(cleaned.split())
    numbers, cleaned_numbers = _numbers(text), _numbers(cleaned)
    if (signs, numbers) == (cleaned_signs, cleaned_numbers):
        return ""
    if signs.startswith(cleaned_signs) and numbers[: len(cleaned_numbers)] == cleaned_numbers:
        return "cut"
    return "signs"


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,/:]\d+)*", text)


def compare_protocols(
    texts: Sequence[str], encoder: Encoder, threshold: float, held_out: Sequence[Benchmark]
) -> pd.DataFrame:
    """Return what each protocol does with the raw questions `texts`: one row per protocol, counts of questions.

    - `read`: questions that its cleaner leaves; `damaged`: of these, with signs or parts lost.
    - `kept`: in the pool before any rewrite; `near-duplicates left`: of these, with another kept one at >= `threshold`.
    - `to rewrite`: sent back to the model; `dropped`: gone for good; `rewrite checked`: whether it is looked at again.
    - `contaminated`: of the kept, with any sign of `find_contamination`; "strict" removes them.
    """
    import pandas as pd

    paper, strict = _paper_and_strict(texts, encoder, threshold, held_out)
    released = _released(texts, encoder, threshold, held_out)
    return pd.DataFrame([paper, released, strict])


def _paper_and_strict(
    texts: Sequence[str], encoder: Encoder, threshold: float, held_out: Sequence[Benchmark]
) -> tuple[dict[str, Any], dict[str, Any]]:
    vectors = encoder.encode(texts)
    kept = select_diverse(vectors, threshold).kept
    near, contaminated = _flaws(list(compress(texts, kept)), vectors[kept], encoder, threshold, held_out)
    paper = {
        "protocol": "paper",
        "read": len(texts),
        "damaged": 0,
        "kept": int(kept.sum()),
        "near-duplicates left": int(near.sum()),
        "to rewrite": int((~kept).sum()),
        "dropped": 0,
        "rewrite checked": True,
        "contaminated": int(contaminated.sum()),
    }
    strict = paper | {
        "protocol": "strict",
        "kept": int((~contaminated).sum()),
        "near-duplicates left": int(near[~contaminated].sum()),
        "contaminated": 0,
    }
    return paper, strict


def _released(
    texts: Sequence[str], encoder: Encoder, threshold: float, held_out: Sequence[Benchmark]
) -> dict[str, Any]:
    table = damage_of_released_cleaner(texts)
    cleaned = list(table.loc[table["damage"] != "lost", "cleaned"])
    vectors = encoder.encode(cleaned)
    selection = select_released(vectors)
    kept = ~selection.dropped & ~selection.close
    near, contaminated = _flaws(list(compress(cleaned, kept)), vectors[kept], encoder, threshold, held_out)
    return {
        "protocol": "released",
        "read": len(cleaned),
        "damaged": int(table["damage"].isin(["signs", "cut"]).sum()),
        "kept": int(kept.sum()),
        "near-duplicates left": int(near.sum()),
        "to rewrite": int(selection.close.sum()),
        "dropped": int(selection.dropped.sum()),
        "rewrite checked": False,
        "contaminated": int(contaminated.sum()),
    }


def _flaws(
    pool: Sequence[str], vectors: np.ndarray, encoder: Encoder, threshold: float, held_out: Sequence[Benchmark]
) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks over the questions of a pool: those with a near-duplicate in it, and the contaminated."""
    matches = find_contamination(range(len(pool)), pool, held_out, encoder, closeness=threshold)
    contaminated = np.isin(np.arange(len(pool)), matches["id"].astype(int))
    return nearest_other(vectors) >= threshold, contaminated
