"""Protocols: what the paper, the released code and our strict gates each do with the same questions before any rewrite.

All of it follows from the questions and their embeddings, so that a replay can show it. What a question would be
rewritten to cannot be told without sampling, and is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from .. import elicit
from ..benchmarks import Benchmark
from .contamination import find_contamination
from .loop import Encoder
from .similarity import EXACT_ROWS, nearest_other, select_diverse, select_released

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("protocol", "read", "damaged", "kept", "near-duplicates left"),
    *("to rewrite", "dropped", "rewrite checked", "contaminated"),
]


def damage_of_released_cleaner(texts: Sequence[str]) -> pd.DataFrame:
    """Return what the released cleaner makes of each question: columns `question`, `cleaned`, `damage`.

    `damage` is "" (unchanged but for white space), "lost" (an empty string), "cut" (only the end is gone) or "signs" (a
    sign such as + / $ % is gone, or a number was torn apart).
    """
    import pandas as pd

    cleaned_texts = [elicit.released_clean(text) for text in texts]
    damages = [_damage(text, cleaned) for text, cleaned in zip(texts, cleaned_texts, strict=True)]
    return pd.DataFrame({"question": texts, "cleaned": cleaned_texts, "damage": damages})


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
    texts: Sequence[str],
    encoder: Encoder,
    threshold: float,
    held_out: Sequence[Benchmark],
    exact_rows: int = EXACT_ROWS,
) -> pd.DataFrame:
    """Return what each protocol does with the raw questions `texts`: one row per protocol, counts of questions.

    - `read`: questions that its cleaner leaves; `damaged`: of these, with signs or parts lost.
    - `kept`: in the pool before any rewrite; `near-duplicates left`: of these, with another kept one at >= `threshold`.
    - `to rewrite`: sent back to the model; `dropped`: gone for good; `rewrite checked`: whether it is looked at again.
    - `contaminated`: of the kept, with any sign of `find_contamination`; "strict" removes them.

    More than `exact_rows` questions are searched approximately.
    """
    import pandas as pd

    vectors = encoder.encode(texts)
    kept = select_diverse(vectors, threshold, exact_rows=exact_rows).kept
    flaws = _flaws(list(compress(texts, kept)), vectors[kept], encoder, threshold, held_out, exact_rows)
    paper = {"read": len(texts), "damaged": 0, "to rewrite": (~kept).sum(), "dropped": 0, "rewrite checked": True}

    cleaning = damage_of_released_cleaner(texts)
    cleaned = list(cleaning.loc[cleaning["damage"] != "lost", "cleaned"])
    vectors = encoder.encode(cleaned)
    selection = select_released(vectors, exact_rows)
    kept = ~selection.dropped & ~selection.close
    released_flaws = _flaws(list(compress(cleaned, kept)), vectors[kept], encoder, threshold, held_out, exact_rows)
    released = {
        "read": len(cleaned),
        "damaged": cleaning["damage"].isin(["signs", "cut"]).sum(),
        "to rewrite": selection.close.sum(),
        "dropped": selection.dropped.sum(),
        "rewrite checked": False,
    }
    rows = [
        {"protocol": "paper", **paper, **_counts(flaws)},
        {"protocol": "released", **released, **_counts(released_flaws)},
        {"protocol": "strict", **paper, **_counts(flaws[~flaws["contaminated"]])},
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _flaws(
    pool: Sequence[str],
    vectors: np.ndarray,
    encoder: Encoder,
    threshold: float,
    held_out: Sequence[Benchmark],
    exact_rows: int,
) -> pd.DataFrame:
    """Return for each question of a pool whether it has a near-duplicate in it (`near`), and is `contaminated`."""
    import pandas as pd

    matches = find_contamination(range(len(pool)), pool, held_out, encoder, closeness=threshold)
    contaminated = np.isin(np.arange(len(pool)), matches["id"].astype(int))
    return pd.DataFrame({"near": nearest_other(vectors, exact_rows) >= threshold, "contaminated": contaminated})


def _counts(flaws: pd.DataFrame) -> dict[str, int]:
    """Return how many questions a pool with these flaws holds, and how many have each flaw."""
    return {
        "kept": len(flaws),
        "near-duplicates left": flaws["near"].sum(),
        "contaminated": flaws["contaminated"].sum(),
    }
