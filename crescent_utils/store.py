"""The generation store: every completion ever sampled, in one SQLite file.

A completion stands under (key of its request, sample number). The key covers the model's fingerprint (weights, tokenizer, chat
template), the messages, the prefilled start of the reply and the sampling settings with the run's seed. So to resume is to ask
again, and to replay is to ask a store that has no engine behind it. Ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (id INTEGER PRIMARY KEY, json TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (label TEXT PRIMARY KEY, fingerprint TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, model TEXT NOT NULL, settings_id INTEGER NOT NULL REFERENCES settings(id),
    messages TEXT NOT NULL, prefix TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS completions (
    request_id INTEGER NOT NULL REFERENCES requests(id), sample INTEGER NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL, batch_id INTEGER NOT NULL REFERENCES batches(id),
    PRIMARY KEY (request_id, sample)) WITHOUT ROWID;
"""


class StoreError(RuntimeError):
    """The store cannot be opened or written; the message says why and what to do."""


@dataclass(frozen=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy; `max_tokens` counts new tokens; `seed` is the run's seed."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0

    def canonical(self) -> Sampling:
        """Greedy decoding draws nothing, so its seed and top_p are no part of what it is."""
        return self if self.temperature > 0 else Sampling(0.0, 1.0, self.max_tokens, self.stop, 0)


@dataclass(frozen=True)
class Request:
    """One prompt to one model: messages as (role, content), and `prefix`, a start of the reply that the model continues."""

    model: str
    messages: tuple[tuple[str, str], ...]
    prefix: str = ""
    sampling: Sampling = Sampling()

    @classmethod
    def of(cls, model: str, messages: Sequence[dict[str, str]], sampling: Sampling, prefix: str = "") -> Request:
        """Build a request from chat messages."""
        return cls(model, tuple((m["role"], m["content"]) for m in messages), prefix, sampling.canonical())

    def key(self) -> bytes:
        """SHA-256 over all that the completion is a function of, but the sample number."""
        parts = {
            "model": self.model,
            "messages": self.messages,
            "prefix": self.prefix,
            "sampling": asdict(self.sampling.canonical()),
        }
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class Completion:
    """What the model wrote (without the prefix). `finish` is "stop" or "length"; token counts are of this sample."""

    text: str
    finish: str
    prompt_tokens: int
    tokens: int

    @property
    def truncated(self) -> bool:
        """True where the completion hit its token limit."""
        return self.finish == "length"


def sample_seed(request_key: bytes, sample: int, run_seed: int) -> int:
    """Seed of one sample, 0 <= seed < 2**62: a function of the run's seed, the request and the sample number. Ours."""
    digest = hashlib.sha256(request_key + sample.to_bytes(8, "big") + run_seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:8], "big") >> 2


class GenerationStore:
    """Completions by request and sample number. Safe under kill -9: what `put` returned from is there afterwards.

    One process at a time may write to a store; any number may read. `read_only` opens it without leaving a trace on disk.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._lock: IO[str] | None = None
        if read_only:
            if not self.path.exists():
                raise StoreError(f"{self.path}: there is no generation store here; sample first (engine: auto)")
            # immutable leaves no -wal or -shm file behind; it is only right where nobody is writing.
            writing = self.path.with_name(self.path.name + "-wal").exists()
            uri = f"{self.path.resolve().as_uri()}?mode=ro" + ("" if writing else "&immutable=1")
            self._db = self._connect(uri)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(self.path)
            self._db = self._connect(self.path.resolve().as_uri())
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
        self._settings: dict[str, int] = {}

    def _connect(self, uri: str) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(uri, uri=True, isolation_level=None)
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path}: is not a readable generation store ({error}); move it away, or restore a copy"
            ) from None
        return db

    def __enter__(self) -> GenerationStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Fold the write-ahead log back into the one file and let the next writer in."""
        if not self.read_only:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def get(self, request: Request, samples: int) -> list[Completion | None]:
        """Return samples 0 … samples-1 of `request`; None where one has not been sampled."""
        found: list[Completion | None] = [None] * samples
        rows = self._db.execute(
            "SELECT sample, text, finish, prompt_tokens, tokens FROM completions JOIN requests ON requests.id = request_id "
            "WHERE key = ? AND sample < ?",
            (request.key(), samples),
        )
        for sample, *values in rows:
            found[sample] = Completion(*values)
        return found

    def put(self, rows: Iterable[tuple[Request, int, Completion]], made_by: dict[str, Any] | None = None) -> int:
        """Add completions in one transaction; one that is there already stays as it is. Returns how many were new."""
        self._check_writable()
        added = 0
        self._db.execute("BEGIN IMMEDIATE")
        try:
            batch = self._db.execute("INSERT INTO batches (json) VALUES (?)", (json.dumps(made_by or {}),)).lastrowid
            for request, sample, completion in rows:
                values = (self._request_id(request), sample, *asdict(completion).values(), batch)
                added += self._db.execute("INSERT OR IGNORE INTO completions VALUES (?,?,?,?,?,?,?)", values).rowcount
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            self._settings.clear()  # ids of rows that the rollback took back
            raise
        return added

    def set_model(self, label: str, fingerprint: str) -> None:
        """Record which fingerprint a label (a hub id, "base", "tuned" …) stood for, so that replay needs no weights."""
        self._check_writable()
        self._db.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (label, fingerprint))

    def model(self, label: str) -> str | None:
        """Fingerprint that was recorded for `label`, if any."""
        row = self._db.execute("SELECT fingerprint FROM models WHERE label = ?", (label,)).fetchone()
        return row[0] if row else None

    def count(self) -> int:
        """Number of stored completions."""
        return int(self._db.execute("SELECT count(*) FROM completions").fetchone()[0])

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreError(
                f"{self.path}: was opened for reading only (engine: replay); choose another engine to sample"
            )

    def _request_id(self, request: Request) -> int:
        key = request.key()
        row = self._db.execute("SELECT id FROM requests WHERE key = ?", (key,)).fetchone()
        if row:
            return int(row[0])
        settings = json.dumps(asdict(request.sampling))
        if settings not in self._settings:
            self._db.execute("INSERT OR IGNORE INTO settings (json) VALUES (?)", (settings,))
            self._settings[settings] = self._db.execute(
                "SELECT id FROM settings WHERE json = ?", (settings,)
            ).fetchone()[0]
        cursor = self._db.execute(
            "INSERT INTO requests (key, model, settings_id, messages, prefix) VALUES (?,?,?,?,?)",
            (
                key,
                request.model,
                self._settings[settings],
                json.dumps(request.messages, ensure_ascii=False),
                request.prefix,
            ),
        )
        return int(cursor.lastrowid or 0)


def _take_lock(path: Path) -> IO[str]:
    """Hold <store>.lock for this process; the operating system lets go of it however the process ends."""
    lock_path = path.with_name(path.name + ".lock")
    handle = open(lock_path, "a+", encoding="utf-8")
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows has no flock: SQLite's own lock still keeps the file whole
        return handle
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise StoreError(
            f"{path}: {holder} is writing to this run; wait for it, stop it, or choose another `run`"
        ) from None
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}")
    handle.flush()
    return handle
