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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from operator import itemgetter
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
            trouble = [row[0] for row in store._db.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
            if trouble:
                return [f"{path}: {line}" for line in trouble]
            keys = {row[0] for row in store._db.execute("SELECT key FROM requests")}
            if any(request.key() not in keys for request, _ in groupby(store.completions(), itemgetter(0))):
                return [f"{path}: a request does not match its key"]
            query = "SELECT count(*) FROM completions WHERE request_id NOT IN (SELECT id FROM requests)"
            orphans = store._db.execute(query).fetchone()[0]
            return [f"{path}: {orphans} completions have no request"] if orphans else []
    except (StoreError, sqlite3.DatabaseError, ValueError) as error:
        return [str(error)]


def export(path: Path, target: Path) -> int:
    """Write a store as one Parquet file, one row per completion with its request; return the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number, real = pa.string(), pa.int64(), pa.float64()
    schema = pa.schema([
        ("key", text), ("model", text), ("messages", text), ("prefix", text), ("temperature", real), ("top_p", real),
        ("max_tokens", number), ("stop", pa.list_(text)), ("seed", number), ("sample", number), ("text", text),
        ("finish", text), ("prompt_tokens", number), ("tokens", number), ("made_by", text),
    ])  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with GenerationStore(path, read_only=True) as store, tempfile.TemporaryDirectory(dir=target.parent) as work:
        with pq.ParquetWriter(f"{work}/store", schema) as writer:
            rows = _export_rows(store)
            while chunk := list(islice(rows, CHUNK)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
        os.replace(f"{work}/store", target)
        return store.count()


def _export_rows(store: GenerationStore) -> Iterator[dict[str, Any]]:
    batches = dict(store._db.execute("SELECT id, json FROM batches"))
    for request, rows in groupby(store.completions(), itemgetter(0)):
        columns = {
            "key": request.key().hex(),
            "model": request.model,
            "messages": json.dumps(request.messages, ensure_ascii=False),
            "prefix": request.prefix,
            **asdict(request.sampling),
        }
        for _, sample, completion in rows:
            made_by = batches.get(completion.batch, "{}")
            yield {**columns, **asdict(completion), "sample": sample, "made_by": made_by}


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
        _with_its_log(shutil.copyfile, path, copy)
        expected = expected_size(copy)
        if expected > copy.stat().st_size:
            os.truncate(copy, expected)  # SQLite refuses a short file whole; pages of zeros it refuses one by one
        with contextlib.closing(connect(copy, "mode=rw")) as db:
            saved, requests, lost = _copy_readable(db, path, new)
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        _with_its_log(os.replace, path, aside)
        Path(f"{path}-shm").unlink(missing_ok=True)
        os.replace(new, path)
    return Recovered(saved, requests, lost, aside)


def _with_its_log(move: Callable[[str, str], Any], source: Path, target: Path) -> None:
    """Copy or move a store together with its write-ahead log, where it has one."""
    move(str(source), str(target))
    with contextlib.suppress(FileNotFoundError):
        move(f"{source}-wal", f"{target}-wal")


def _copy_readable(db: sqlite3.Connection, path: Path, new: Path) -> tuple[int, int, int]:
    """Put what is right in `db` into a store at `new`; return how many completions, requests, and lost ones."""
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        checked = db.execute("PRAGMA user_version").fetchone()[0] > 1
    except sqlite3.DatabaseError as error:
        hint = "restore a copy, or move it away and sample again"
        raise StoreError(f"{path}: nothing of it can be read ({error}); {hint}") from None
    batches = {}
    for number, text in _rows(db, "batches"):
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # what a failing disk made of it
            batches[number] = json.loads(text)
    settings = dict(_rows(db, "settings"))
    requests = lost = 0

    def whole_rows() -> Iterator[StoredRow]:
        nonlocal requests, lost
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
                else:
                    yield request, sample, completion

    merged = Merged()
    with GenerationStore(new) as target:
        for label, fingerprint in _readable(db, "SELECT label, fingerprint FROM models"):
            target.set_model(label, fingerprint)
        _add(target, whole_rows(), lambda number: batches.get(number) or {}, merged)
    return merged.added, requests, lost


def _request(model: Any, messages: Any, prefix: Any, settings: Any) -> Request | None:
    try:
        chat = tuple((role, content) for role, content in json.loads(messages))
        return Request(model, chat, prefix, Sampling.stored(settings))
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table with an `id`, one by one where a page between them cannot be read."""
    number = failures = 0
    while failures < _GIVE_UP:
        try:
            for row in db.execute(f"SELECT * FROM {table} WHERE id > ? ORDER BY id", (number,)):
                if row[0] <= number:  # a page of zeros can pass for rows numbered 0: never go back to what was read
                    raise sqlite3.DatabaseError(f"{table}: row {row[0]} after row {number}")
                number, failures = row[0], 0
                yield row
            return
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            number, failures = number + 1, failures + 1  # step over what cannot be read


def _readable(db: sqlite3.Connection, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    with contextlib.suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        yield from db.execute(query, values)


@dataclass
class Merged:
    """What a merge did: completions `added`, `same` ones, and `different` ones, of which the first stays."""

    added: int = 0
    same: int = 0
    different: int = 0


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
    merged = Merged()
    with GenerationStore(into) as target:
        for path in sources:
            with GenerationStore(path, read_only=True) as source:
                for label, fingerprint in (source.models() | target.models()).items():
                    target.set_model(label, fingerprint)
                _add(target, source.completions(), source.batch, merged)
    return merged


def holds_more(store: Path, than: Path) -> bool:
    """Return whether a store has completions that another lacks: a merge reads all of it, this compares keys alone."""
    if not than.exists():
        return True
    query = (
        "SELECT 1 FROM more.completions AS one JOIN more.requests AS asked ON asked.id = one.request_id "
        "LEFT JOIN main.requests AS known ON known.key = asked.key "
        "LEFT JOIN main.completions AS two ON two.request_id = known.id AND two.sample = one.sample "
        "WHERE two.sample IS NULL LIMIT 1"
    )
    try:
        with contextlib.closing(connect(than, "mode=ro")) as db:
            db.execute("ATTACH ? AS more", (f"{store.resolve().as_uri()}?mode=ro",))
            return db.execute(query).fetchone() is not None
    except sqlite3.DatabaseError:  # damaged: the merge says how
        return True


def _add(
    target: GenerationStore, rows: Iterator[StoredRow], batch: Callable[[int], dict[str, Any]], merged: Merged
) -> None:
    """Put rows into `target` and count in `merged` what became of them.

    They are put batch by batch: each keeps the record of its sampling, `batch(number)`, and its share of the seconds.
    """
    while chunk := list(islice(rows, CHUNK)):
        stored = target.lookup([(request, sample) for request, sample, _ in chunk])
        same = sum(old == row[2] for old, row in zip(stored, chunk, strict=True))
        merged.same += same
        merged.different += len(chunk) - same - stored.count(None)
        by_batch: dict[int, list[StoredRow]] = {}
        for row in chunk:
            by_batch.setdefault(row[2].batch, []).append(row)
        for number, part in by_batch.items():
            record = batch(number)
            share = len(part) / record["count"] if record.get("count") else 1.0
            spent = {name: record[name] * share for name in _SHARED if record.get(name) is not None}
            merged.added += target.put(part, {**record, **spent})


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
