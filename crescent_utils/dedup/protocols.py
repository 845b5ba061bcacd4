"""Protocols: what the paper, the released code and our strict gates each do with the same raw questions, before any rewrite.

All of it follows from the questions and their embeddings, so that a replay can show it. What a question would be rewritten to
cannot be told without sampling, and is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .. import elicit
from ..benchmarks import Benchmark
from . import contamination, similarity

if TYPE_CHECKING:
    import pandas as pd


class _Encoder(Protocol):
    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


def damage_of_released_cleaner(texts: Sequence[str]) -> pd.DataFrame:
    """Say what the released cleaner makes of each question: columns `question`, `cleaned`, `damage`.

    `damage` is "" (unchanged but for white space), "lost" (an empty string), "signs" (a sign such as + / $ % is gone, or a number
    was torn apart) or "cut" (the rest).
    """
    import pandas as pd

    rows = []
    for text in texts:
        cleaned = elicit.released_clean(text)
        before, after = "".join(text.split()), "".join(cleaned.split())
        if not cleaned:
            kind = "lost"
        elif before == after and _numbers(text) == _numbers(cleaned):
            kind = ""
        else:
            kind = (
                "cut"
                if before.startswith(after) and _numbers(text)[: len(_numbers(cleaned))] == _numbers(cleaned)
                else "signs"
            )
        rows.append((text, cleaned, kind))
    return pd.DataFrame(rows, columns=["question", "cleaned", "damage"])


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,/:]\d+)*", text)


def compare_protocols(
    texts: Sequence[str], encoder: _Encoder, threshold: float, held: Sequence[Benchmark]
) -> pd.DataFrame:
    """Apply each protocol to the raw questions `texts`: a row a protocol, counts of questions.

    - `read`: questions that its cleaner leaves; `damaged`: of these, with signs or parts lost.
    - `kept`: in the pool before any rewrite; `near-duplicates left`: of these, with another kept one at >= `threshold`.
    - `to rewrite`: sent back to the model; `dropped`: gone for good; `rewrite checked`: whether it is looked at again.
    - `contaminated`: of the kept, with any sign of `contamination.hits`; "strict" removes them.
    """
    import pandas as pd

    table = damage_of_released_cleaner(texts)
    cleaned = list(table.loc[table["damage"] != "lost", "cleaned"])
    ours, theirs = encoder.encode(texts), encoder.encode(cleaned)
    selection, released = similarity.select_diverse(ours, threshold), similarity.select_released(theirs)
    kept = {"paper": selection.kept, "released": ~released.dropped & ~released.close}
    rows = []
    for protocol, mine, vectors in (("paper", texts, ours), ("released", cleaned, theirs), ("strict", texts, ours)):
        mask = kept.get(protocol, selection.kept)
        left = [text for text, chosen in zip(mine, mask, strict=True) if chosen]
        found = contamination.find_contamination(range(len(left)), left, held, encoder, closeness=threshold)
        near = similarity.nearest_other(vectors[mask]) >= threshold
        if protocol == "strict":
            near = np.delete(near, found["id"].unique().astype(int))
        rows.append({
            "protocol": protocol, "read": len(mine),
            "damaged": int((table["damage"].isin(["signs", "cut"])).sum()) if protocol == "released" else 0,
            "kept": len(near), "near-duplicates left": int(near.sum()),
            "to rewrite": int(released.close.sum() if protocol == "released" else (~mask).sum()),
            "dropped": int(released.dropped.sum()) if protocol == "released" else 0,
            "rewrite checked": protocol != "released", "contaminated": 0 if protocol == "strict" else int(found["id"].nunique()),
        })  # fmt: skip
    return pd.DataFrame(rows)
