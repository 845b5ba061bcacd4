"""Recovery: save what can be read of a damaged generation store (or of one of an older format) in a new one."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .sqlite_file import StoreError, connect, expected_size, take_lock
from .store import Completion, GenerationStore, Request, Sampling

CHUNK = 10_000  # completions in memory at a time
_SHARED = ("seconds", "device_seconds", "energy_joules")  # of a batch: what each of its completions has a share of
_GIVE_UP = 20_000  # request numbers in a row that cannot be read; after so many a damaged file is taken to be over


@dataclass(frozen=True)
class Recovered:
    """What was saved of a damaged store, and where the damaged file is kept. `lost` counts what was seen but cannot be trusted."""

    saved: int
    requests: int
    lost: int
    kept_as: Path


def put_by_batch(
    target: GenerationStore, made: dict[int, dict[str, Any]], rows: Iterable[tuple[Request, int, Completion]]
) -> int:
    """Put rows batch by batch, so that each completion keeps the record of how it was made and its share of the seconds."""
    by_batch: dict[int, list[tuple[Request, int, Completion]]] = {}
    for row in rows:
        by_batch.setdefault(row[2].batch, []).append(row)
    added = 0
    for number, part in by_batch.items():
        record = made.get(number, {})
        share = len(part) / record["count"] if record.get("count") else 1.0
        taken = {name: record[name] * share for name in _SHARED if record.get(name) is not None}
        added += target.put(part, {**record, **taken})
    return added


def recover(path: Path) -> Recovered:
    """Copy what can be read of a damaged store (or one of an older format) into a new one in its place.

    The damaged file is kept beside it. Each request is checked by its key and each completion by its checksum, so that what is
    saved is right; what is lost is sampled again by the next run. Raises StoreError where nothing can be read.
    """
    if not path.exists():
        raise StoreError(f"{path}: there is no generation store here")
    with contextlib.closing(take_lock(path)):
        aside = _free_name(path)
        new = path.with_name(path.name + ".recovered")
        new.unlink(missing_ok=True)
        size = path.stat().st_size
        if expected_size(path) > size and not Path(f"{path}-wal").exists():
            os.truncate(
                path, expected_size(path)
            )  # SQLite refuses a short file whole; pages of zeros it refuses one by one
        db = connect(path, "mode=rw")
        try:
            saved, requests, lost = _copy_readable(db, path, new)
        except BaseException:
            for part in new.parent.glob(new.name + "*"):
                part.unlink()
            raise
        finally:
            db.close()
            os.truncate(path, size)
        for suffix in ("", "-wal"):  # a write-ahead log belongs to its file
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{aside}{suffix}")
        Path(f"{path}-shm").unlink(missing_ok=True)
        os.replace(new, path)
        Path(f"{new}.lock").unlink(missing_ok=True)
    return Recovered(saved, requests, lost, aside)


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside


def _copy_readable(db: sqlite3.Connection, path: Path, new: Path) -> tuple[int, int, int]:
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        checked = db.execute("PRAGMA user_version").fetchone()[0] > 1
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path}: nothing of it can be read ({error}); restore a copy, or move it away and sample again"
        ) from None
    settings = dict(_rows(db, "settings"))
    batches = {number: _parsed(text) or {} for number, text in _rows(db, "batches")}
    saved = requests = lost = 0
    pending: list[tuple[Request, int, Completion]] = []
    with GenerationStore(new) as target:
        for label, fingerprint in _readable(db, "SELECT label, fingerprint FROM models"):
            target.set_model(label, fingerprint)
        for number, key, model, setting, messages, prefix in _rows(db, "requests"):
            rows = list(_readable(db, "SELECT * FROM completions WHERE request_id = ?", (number,)))
            request = _request(model, messages, prefix, settings.get(setting))
            if request is None or request.key() != key:
                lost += len(rows)
                continue
            requests += 1
            for _, sample, text, finish, prompt_tokens, tokens, batch, *crc in rows:
                completion = Completion(text, finish, prompt_tokens, tokens, batch)
                if checked and completion.crc(sample) != crc[0]:
                    lost += 1
                    continue
                pending.append((request, sample, completion))
                saved += 1
            if len(pending) >= CHUNK:
                put_by_batch(target, batches, pending)
                pending = []
        put_by_batch(target, batches, pending)
    return saved, requests, lost


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):  # what a failing disk made of it
        return None


def _request(model: Any, messages: Any, prefix: Any, settings: Any) -> Request | None:
    try:
        chat = tuple((role, content) for role, content in _parsed(messages))
        return Request(model, chat, prefix, Sampling.stored(settings))
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a table with an `id`, one by one where a page between them cannot be read."""
    number = failures = 0
    while failures < _GIVE_UP:
        try:
            for row in db.execute(f"SELECT * FROM {table} WHERE id > ? ORDER BY id", (number,)):
                number, failures = row[0], 0
                yield row
            return
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            number, failures = number + 1, failures + 1  # step over what cannot be read


def _readable(db: sqlite3.Connection, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    with contextlib.suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        yield from db.execute(query, values)
