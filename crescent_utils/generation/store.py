"""The generation store: every completion that was sampled, in one SQLite file, found by its request and sample number.

A request is one prompt to one model with its sampling settings; its key is a hash over all of that, and together with a
sample number it names one completion. The file has one writer at a time and any number of readers. What `put` returned
from survives kill -9, and a row that a disk has changed is found by its checksum when it is read. From top to bottom:
the file and its lock, then requests and completions, then the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ..runs import InputError

VERSION = 2  # of the file's format; 1 had no checksums
STOP, LENGTH, TOO_LONG = "stop", "length", "prompt too long"  # how a completion ends: its `finish`
RECOVER = "`crescent store recover` saves what can be read"
_SCHEMA = f"""
PRAGMA user_version={VERSION};
CREATE TABLE IF NOT EXISTS settings (id INTEGER PRIMARY KEY, json TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (label TEXT PRIMARY KEY, fingerprint TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, model TEXT NOT NULL,
    settings_id INTEGER NOT NULL REFERENCES settings(id), messages TEXT NOT NULL, prefix TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS completions (
    request_id INTEGER NOT NULL REFERENCES requests(id), sample INTEGER NOT NULL, text TEXT NOT NULL,
    finish TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL,
    batch_id INTEGER NOT NULL REFERENCES batches(id), crc INTEGER NOT NULL,
    PRIMARY KEY (request_id, sample)) WITHOUT ROWID;
"""
_ROW = "sample, text, finish, prompt_tokens, tokens, batch_id, crc"
# A stored completion stays as it is, unless it only says that the prompt was too long then.
_INSERT = f"""
INSERT INTO completions VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
    text = excluded.text, finish = excluded.finish, prompt_tokens = excluded.prompt_tokens, tokens = excluded.tokens,
    batch_id = excluded.batch_id, crc = excluded.crc
WHERE finish = '{TOO_LONG}' AND excluded.finish != '{TOO_LONG}'
"""


class StoreError(InputError, RuntimeError):
    """A store that cannot be opened or written; the message says why and what to do."""


def connect(path: Path, options: str = "mode=rwc") -> sqlite3.Connection:
    """Open an SQLite file in autocommit mode."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True, isolation_level=None)


def expected_size(path: Path) -> int:
    """Return the bytes that a file should have by its header, 0 where it is no SQLite file.

    SQLite itself finds a missing page only when it needs it.
    """
    with open(path, "rb") as handle:
        header = handle.read(100)
    if not header.startswith(b"SQLite format 3\0"):
        return 0
    page = int.from_bytes(header[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")


def take_lock(path: Path) -> IO[str]:
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


@dataclass(frozen=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy; `max_tokens` counts new tokens; `seed` is the run's seed."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0

    @classmethod
    def stored(cls, text: str) -> Sampling:
        """Read what the store keeps of it: JSON, in which a tuple is a list."""
        values = json.loads(text)
        return cls(**{**values, "stop": tuple(values["stop"])})

    def canonical(self) -> Sampling:
        """Greedy decoding draws nothing, so its seed and top_p are no part of what it is."""
        return self if self.temperature > 0 else Sampling(0.0, 1.0, self.max_tokens, self.stop, 0)


@dataclass(frozen=True)
class Request:
    """One prompt to one model: messages as (role, content), and the start of the reply that the model continues."""

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
            "sampling": vars(self.sampling.canonical()),
        }
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class Completion:
    """What the model wrote, without the prefix.

    Token counts are of this sample; `batch` is the store's record of how it was sampled. `finish` is "stop", "length"
    (cut at its token limit) or "prompt too long": prompt and completion do not fit the model's context, and the text is
    empty.
    """

    text: str
    finish: str
    prompt_tokens: int
    tokens: int
    batch: int = field(default=0, compare=False)

    @property
    def truncated(self) -> bool:
        """True where the completion hit its token limit."""
        return self.finish == LENGTH

    def crc(self, sample: int) -> int:
        """Checksum of a stored row: a bit that flips on a disk is found when the row is read."""
        return zlib.crc32(
            f"{sample}|{self.text}|{self.finish}|{self.prompt_tokens}|{self.tokens}".encode("utf-8", "replace")
        )


def sample_seed(request_key: bytes, sample: int, run_seed: int) -> int:
    """Seed of one sample, 0 <= seed < 2**62: a function of the run's seed, the request and the sample number. Ours."""
    digest = hashlib.sha256(request_key + sample.to_bytes(8, "big") + run_seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:8], "big") >> 2


class GenerationStore:
    """Completions by request and sample number. Safe under kill -9: what `put` returned from is there afterwards.

    One process at a time may write to a store; any number may read. `read_only` opens it without leaving a trace on
    disk.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        if read_only and not self.path.exists():
            raise StoreError(f"{self.path}: there is no generation store here; sample first (engine: auto)")
        with contextlib.ExitStack() as held:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(take_lock(self.path))
            self._db = self._open()
            self._lock = held.pop_all()  # kept where the file could be opened, else let go of

    def _open(self) -> sqlite3.Connection:
        size = self.path.stat().st_size if self.path.exists() else 0
        log = self.path.with_name(self.path.name + "-wal")
        if size and not log.exists() and size < (expected := expected_size(self.path)):
            raise StoreError(f"{self.path}: is truncated: {size:,} of {expected:,} bytes; {RECOVER}")
        with self._damage_named():
            if self.read_only:
                # immutable leaves no -wal or -shm file behind; it is only right where nobody is writing.
                db = connect(self.path, "mode=ro" if log.exists() else "mode=ro&immutable=1")
            else:
                db = connect(self.path)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if size and version != VERSION and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreError(
                    f"{self.path}: has format {version}, this kit writes {VERSION}; "
                    "`crescent store recover` copies it into a new one"
                )
            if not self.read_only:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                db.executescript(_SCHEMA)
        return db

    @contextlib.contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "full" in str(error) or "readonly" in str(error) or "locked" in str(error):
                raise StoreError(f"{self.path}: cannot be written ({error})") from error
            raise StoreError(f"{self.path}: is damaged ({error}); {RECOVER}") from error

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
        self._lock.close()

    def lookup(self, pairs: Sequence[tuple[Request, int]]) -> list[Completion | None]:
        """Return the completion of each (request, sample number), None where it has not been sampled.

        Of each request only the rows from the first to the last number are read. Raises StoreError on a damaged one.
        """
        numbers: dict[Request, list[int]] = {}
        for request, sample in pairs:
            numbers.setdefault(request, []).append(sample)
        query = (
            f"SELECT {_ROW} FROM completions JOIN requests ON requests.id = request_id "
            "WHERE key = ? AND sample BETWEEN ? AND ?"
        )
        completions: dict[tuple[Request, int], Completion] = {}
        with self._damage_named():
            for request, samples in numbers.items():
                for row in self._db.execute(query, (request.key(), min(samples), max(samples))):
                    completions[request, row[0]] = self._checked(row)
        return [completions.get(pair) for pair in pairs]

    def _checked(self, row: tuple[Any, ...]) -> Completion:
        sample, *values, crc = row
        completion = Completion(*values)
        if completion.crc(sample) != crc:
            raise StoreError(f"{self.path}: is damaged (a completion does not match its checksum); {RECOVER}")
        return completion

    def completions(self) -> Iterator[tuple[Request, int, Completion]]:
        """Iterate over all that is stored, request by request, in constant memory."""
        settings = {number: Sampling.stored(text) for number, text in self._db.execute("SELECT id, json FROM settings")}
        with self._damage_named():
            rows = self._db.execute(
                f"SELECT requests.id, model, settings_id, messages, prefix, {_ROW} FROM requests "
                "JOIN completions ON requests.id = request_id ORDER BY requests.id, sample"
            )
            last, request = None, None
            for number, model, setting, messages, prefix, *row in rows:
                if number != last or request is None:
                    chat = tuple((role, content) for role, content in json.loads(messages))
                    last, request = number, Request(model, chat, prefix, settings[setting])
                yield request, row[0], self._checked(tuple(row))

    def batch(self, number: int) -> dict[str, Any]:
        """Return how a batch of completions was made: engine, versions, time, and `count` with what these took."""
        row = self._db.execute("SELECT json FROM batches WHERE id = ?", (number,)).fetchone()
        value: dict[str, Any] = json.loads(row[0]) if row else {}
        return value

    def put(self, rows: Iterable[tuple[Request, int, Completion]], made_by: dict[str, Any] | None = None) -> int:
        """Add completions in one transaction; one that is there already stays as it is. Returns how many were new.

        `made_by` says how: engine, versions, time, seconds. A "prompt too long" gives way to a completion.
        """
        if self.read_only:
            raise StoreError(
                f"{self.path}: was opened for reading only (engine: replay); choose another engine to sample"
            )
        added = 0
        with self._damage_named():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                batch = self._db.execute("INSERT INTO batches (json) VALUES ('{}')").lastrowid
                for request, sample, done in rows:
                    row = (sample, done.text, done.finish, done.prompt_tokens, done.tokens, batch, done.crc(sample))
                    added += self._db.execute(_INSERT, (self._request_id(request), *row)).rowcount
                text = json.dumps({**(made_by or {}), "count": added})
                self._db.execute("UPDATE batches SET json = ? WHERE id = ?", (text, batch))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        return added

    def set_model(self, label: str, fingerprint: str) -> None:
        """Record which fingerprint a label ("base", "tuned" …) stood for, so that replay needs no weights."""
        self._db.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (label, fingerprint))

    def models(self) -> dict[str, str]:
        """Return the fingerprint of each label that was recorded."""
        return dict(self._db.execute("SELECT label, fingerprint FROM models"))

    def count(self) -> int:
        """Number of stored completions."""
        with self._damage_named():
            return int(self._db.execute("SELECT count(*) FROM completions").fetchone()[0])

    def _request_id(self, request: Request) -> int:
        key = request.key()
        row = self._db.execute("SELECT id FROM requests WHERE key = ?", (key,)).fetchone()
        if row:
            return int(row[0])
        sampling = json.dumps(asdict(request.sampling))
        messages = json.dumps(request.messages, ensure_ascii=False)
        self._db.execute("INSERT OR IGNORE INTO settings (json) VALUES (?)", (sampling,))
        insert = (
            "INSERT INTO requests (key, model, settings_id, messages, prefix) "
            "SELECT ?, ?, id, ?, ? FROM settings WHERE json = ?"
        )
        return int(self._db.execute(insert, (key, request.model, messages, request.prefix, sampling)).lastrowid or 0)
