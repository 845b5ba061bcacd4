"""Upkeep of generation stores: what `crescent store check | export | recover | merge` does.

`check` reads a store wholly and says what is wrong with it, `export` writes it as Parquet, `recover` saves what can be
read of a damaged one, and `merge_stores` adds the completions of several runs to one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from .. import runs
from .generator import STORE_NAME
from .store import Completion, GenerationStore, Request, Sampling, StoreError, connect, expected_size, take_lock

StoredRow = tuple[Request, int, Completion]  # request, sample number, completion
CHUNK = 10_000  # completions in memory at a time
_SHARED = ("seconds", "device_seconds", "energy_joules")  # of a batch: each of its completions has a share of these
_GIVE_UP = 20_000  # so many request numbers in a row that cannot be read are taken for the end of a damaged file


def check(path: Path) -> list[str]:
    """Return what is wrong with a store, one line each; an empty list means that every completion is whole.

    Reads the whole file: SQLite's own structure, each request's key and each completion's checksum.
    """
    try:
        with GenerationStore(path, read_only=True) as store:
            trouble = [str(row[0]) for row in store._db.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
            if trouble:
                return [f"{path}: {line}" for line in trouble]
            counts = "SELECT key, count(*) FROM requests JOIN completions ON id = request_id GROUP BY id"
            stored = dict(store._db.execute(counts))
            last = None
            for request, _, _ in store.completions():
                if request is not last and request.key() not in stored:
                    return [f"{path}: a request does not match its key"]
                last = request
            orphans = store.count() - sum(stored.values())
            return [f"{path}: {orphans} completions have no request"] if orphans else []
    except (StoreError, sqlite3.DatabaseError, ValueError) as error:
        return [str(error)]


def export(path: Path, target: Path) -> int:
    """Write a store as one Parquet file, one row per completion with its request; return the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    with GenerationStore(path, read_only=True) as store:
        schema = _parquet_schema(pa)
        writer = pq.ParquetWriter(temporary, schema)
        try:
            for rows in _chunks(_export_rows(store), CHUNK):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
        except BaseException:
            writer.close()
            temporary.unlink()
            raise
        writer.close()
    os.replace(temporary, target)
    return count


def _parquet_schema(pa: Any) -> Any:
    text, number, real = pa.string(), pa.int64(), pa.float64()
    return pa.schema([
        ("key", text), ("model", text), ("messages", text), ("prefix", text), ("temperature", real), ("top_p", real),
        ("max_tokens", number), ("stop", pa.list_(text)), ("seed", number), ("sample", number), ("text", text),
        ("finish", text), ("prompt_tokens", number), ("tokens", number), ("made_by", text),
    ])  # fmt: skip


def _export_rows(store: GenerationStore) -> Iterator[dict[str, Any]]:
    last_request, request_columns = None, {}
    last_batch, record = -1, ""
    for request, sample, completion in store.completions():
        if request is not last_request:
            last_request, request_columns = request, _request_columns(request)
        if completion.batch != last_batch:
            last_batch, record = completion.batch, json.dumps(store.batch(completion.batch))
        columns = asdict(completion)
        del columns["batch"]
        yield {**request_columns, **columns, "sample": sample, "made_by": record}


def _request_columns(request: Request) -> dict[str, Any]:
    return {
        "key": request.key().hex(),
        "model": request.model,
        "messages": json.dumps(request.messages, ensure_ascii=False),
        "prefix": request.prefix,
        **asdict(request.sampling),
        "stop": list(request.sampling.stop),
    }


def _chunks(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, size)):
        yield chunk


@dataclass(frozen=True)
class Recovered:
    """What was saved of a damaged store, and where that is kept. `lost` counts what was seen but cannot be trusted."""

    saved: int
    requests: int
    lost: int
    kept_as: Path


def recover(path: Path) -> Recovered:
    """Copy what can be read of a damaged store (or one of an older format) into a new one in its place.

    The damaged file is kept beside it, and its write-ahead log too, both as they were: SQLite opens a copy of them.
    Each request is checked by its key and each completion by its checksum, so that what is saved is right; what is lost
    is sampled again by the next run. Raises StoreError where nothing can be read.
    """
    if not path.exists():
        raise StoreError(f"{path}: there is no generation store here")
    with contextlib.closing(take_lock(path)), tempfile.TemporaryDirectory(dir=path.parent) as work:
        copy, new = Path(work) / "copy", Path(work) / "new"
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        expected = expected_size(copy)
        if expected > copy.stat().st_size:
            os.truncate(copy, expected)  # SQLite refuses a short file whole; pages of zeros it refuses one by one
        with contextlib.closing(connect(copy, "mode=rw")) as db:
            saved, requests, lost = _copy_readable(db, path, new)
        aside = _free_name(path)
        for suffix in ("", "-wal"):  # a write-ahead log belongs to its file
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{aside}{suffix}")
        Path(f"{path}-shm").unlink(missing_ok=True)
        os.replace(new, path)
    return Recovered(saved, requests, lost, aside)


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside


def _copy_readable(db: sqlite3.Connection, path: Path, new: Path) -> tuple[int, int, int]:
    """Put what is right in `db` into a store at `new`; return how many completions, requests, and lost ones."""
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        checked = db.execute("PRAGMA user_version").fetchone()[0] > 1
    except sqlite3.DatabaseError as error:
        hint = "restore a copy, or move it away and sample again"
        raise StoreError(f"{path}: nothing of it can be read ({error}); {hint}") from None
    settings = dict(_rows(db, "settings"))
    batches = {number: _parsed(text) or {} for number, text in _rows(db, "batches")}
    saved = requests = lost = 0
    pending: list[StoredRow] = []
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
                _put_by_batch(target, batches, pending)
                pending = []
        _put_by_batch(target, batches, pending)
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
    """Yield the rows of a table with an `id`, one by one where a page between them cannot be read."""
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


@dataclass(frozen=True)
class Merged:
    """What a merge did: completions `added`, `same` ones, and `different` ones, of which the first stays."""

    added: int
    same: int
    different: int


def merge_stores(into: Path, sources: list[Path]) -> Merged:
    """Add to the store `into` (new where it is missing) all that the stores `sources` hold; these stay as they are.

    Where both hold the same sample of the same request, the first stays; a different text is counted, for with engines
    that keep their guarantee there is none. Raises StoreError for a missing or damaged source before anything is
    written.
    """
    if missing := [path for path in sources if not path.exists()]:
        raise StoreError(f"{missing[0]}: there is no generation store here")
    if into.resolve() in {path.resolve() for path in sources}:
        raise StoreError(f"{into}: cannot be merged into itself; name each store once")
    for path in sources:
        if trouble := check(path):
            raise StoreError(trouble[0])
    added = same = different = 0
    with GenerationStore(into) as target:
        for path in sources:
            with GenerationStore(path, read_only=True) as source:
                recorded = target.models()
                for label, fingerprint in source.models().items():
                    if label not in recorded:
                        target.set_model(label, fingerprint)
                for rows in _chunks(source.completions(), CHUNK):
                    for stored, offered in _in_both(target, rows):
                        same, different = same + (stored == offered), different + (stored != offered)
                    batches = {number: source.batch(number) for number in {row[2].batch for row in rows}}
                    added += _put_by_batch(target, batches, rows)
    return Merged(added, same, different)


def _in_both(target: GenerationStore, rows: list[StoredRow]) -> Iterator[tuple[Completion, Completion]]:
    """Yield the stored and the offered completion of each row that `target` has. Rows come ordered by request."""
    for request, of_request in groupby(rows, key=lambda row: row[0]):
        offered = {sample: completion for _, sample, completion in of_request}
        first = min(offered)
        for sample, stored in enumerate(target.samples(request.key(), first, max(offered) + 1), start=first):
            if stored is not None and sample in offered:
                yield stored, offered[sample]


def _put_by_batch(target: GenerationStore, batches: dict[int, dict[str, Any]], rows: Iterable[StoredRow]) -> int:
    """Put rows batch by batch, so that each keeps the record of its sampling and its share of the batch's seconds."""
    by_batch: dict[int, list[StoredRow]] = {}
    for row in rows:
        by_batch.setdefault(row[2].batch, []).append(row)
    added = 0
    for number, part in by_batch.items():
        record = batches.get(number, {})
        share = len(part) / record["count"] if record.get("count") else 1.0
        spent = {name: record[name] * share for name in _SHARED if record.get(name) is not None}
        added += target.put(part, {**record, **spent})
    return added


def add_store_commands(commands: Any) -> None:
    """Add `crescent store check | export | recover | merge` to the command line's sub-commands."""
    store = commands.add_parser("store", help="look after the generation store of a run")
    verbs = store.add_subparsers(required=True, metavar="VERB")
    helps = {
        "check": "read it all and say whether every completion is whole",
        "export": "write it as one Parquet file",
        "recover": "save what can be read of a damaged one; the damaged file is kept",
        "merge": "add to the first run's store all that the others' hold",
    }
    for verb, text in helps.items():
        parser = verbs.add_parser(verb, help=text)
        parser.add_argument("run", metavar="RUN", help="name of a run under outputs/, or its folder")
        if verb == "merge":
            parser.add_argument("others", nargs="+", metavar="OTHER", help="runs whose stores are read")
        if verb == "export":
            where = "where to (default: store.parquet in the run's folder)"
            parser.add_argument("-o", "--output", type=Path, help=where)
        parser.set_defaults(do=_run, verb=verb)


def _run(arguments: argparse.Namespace) -> int:
    path = _find_store(arguments.run, missing_is_fine=arguments.verb == "merge")
    shown = runs.shown_path(path)
    if arguments.verb == "check":
        trouble = check(path)
        print("\n".join(trouble) or f"{shown}: every completion is whole")
        return 1 if trouble else 0
    if arguments.verb == "export":
        target = arguments.output or path.with_suffix(".parquet")
        print(f"{runs.shown_path(target)}: {export(path, target):,} completions")
    elif arguments.verb == "recover":
        done = recover(path)
        print(f"{shown}: {done.saved:,} completions of {done.requests:,} requests saved, {done.lost:,} lost")
        print(f"the next run samples these again; the damaged file is kept as {runs.shown_path(done.kept_as)}")
    else:
        merged = merge_stores(path, [_find_store(name) for name in arguments.others])
        other_text = f", {merged.different:,} were there with another text, which stays" if merged.different else ""
        print(f"{shown}: {merged.added:,} completions added, {merged.same:,} were there already{other_text}")
    return 0


def _find_store(name: str, *, missing_is_fine: bool = False) -> Path:
    outputs = runs.ROOT / "outputs"
    for place in (Path(name), outputs / name):
        path = place if place.suffix == ".sqlite" else place / STORE_NAME
        if path.is_file():
            return path
    if missing_is_fine and len(Path(name).parts) == 1:
        return outputs / name / STORE_NAME
    stores = sorted(path.parent.relative_to(outputs).as_posix() for path in outputs.rglob(STORE_NAME))
    raise StoreError(f"{name}: no run of this name has a store; there: {', '.join(stores) or 'none'}")
