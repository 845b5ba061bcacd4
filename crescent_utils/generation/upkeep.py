"""Recovery: save what can be read of a damaged generation store (or of one of an older format) in a new one."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .. import runs
from .generator import STORE_NAME
from .store import Completion, GenerationStore, Request, Sampling, StoreError, connect, expected_size, take_lock

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


@dataclass(frozen=True)
class Merged:
    """What a merge did: completions `added`, `same` ones that were there already, and `different` ones, of which the first stays."""

    added: int
    same: int
    different: int


def check(path: Path) -> list[str]:
    """Return what is wrong with a store, one line each; an empty list means that every completion is whole.

    Reads the whole file: SQLite's own structure, each request's key and each completion's checksum.
    """
    try:
        with GenerationStore(path, read_only=True) as store:
            trouble = [str(row[0]) for row in store._db.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
            if trouble:
                return [f"{path}: {line}" for line in trouble]
            stored = dict(
                store._db.execute("SELECT key, count(*) FROM requests JOIN completions ON id = request_id GROUP BY id")
            )
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
    """Write a store as one Parquet file, a row a completion, request fields and how it was made beside it; return the rows."""
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
    last, shared = None, {}
    made: tuple[int, str] = (-1, "")
    for request, sample, completion in store.completions():
        if request is not last:
            last, shared = request, {
                "key": request.key().hex(), "model": request.model, "messages": json.dumps(request.messages, ensure_ascii=False),
                "prefix": request.prefix, **asdict(request.sampling), "stop": list(request.sampling.stop),
            }  # fmt: skip
        if completion.batch != made[0]:
            made = completion.batch, json.dumps(store.batch(completion.batch))
        row = asdict(completion)
        del row["batch"]
        yield {**shared, **row, "sample": sample, "made_by": made[1]}


def merge_stores(into: Path, sources: list[Path]) -> Merged:
    """Add to the store `into` (made where it is missing) all that the stores `sources` hold; the sources stay as they are.

    Where both hold the same sample of the same request, the first stays; a different text is counted, for with engines that keep
    their guarantee there is none. Raises StoreError for a missing or damaged source before anything is written.
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
                known = target.models()
                for label, fingerprint in source.models().items():
                    if label not in known:
                        target.set_model(label, fingerprint)
                for rows in _chunks(source.completions(), CHUNK):
                    for one, two in _compared(target, rows):
                        same, different = same + (one == two), different + (one != two)
                    made = {number: source.batch(number) for number in {row[2].batch for row in rows}}
                    added += put_by_batch(target, made, rows)
    return Merged(added, same, different)


def _compared(target: GenerationStore, rows: Any) -> Iterator[tuple[Completion, Completion]]:
    for request, sample, completion in rows:
        there = target.get(request, sample + 1)[sample]
        if there is not None:
            yield there, completion


def _chunks(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def add_store_commands(commands: Any) -> None:
    """Add `crescent store check | export | recover | merge` to the command line's sub-commands."""
    keep = commands.add_parser("store", help="look after the generation store of a run")
    verbs = keep.add_subparsers(required=True, metavar="VERB")
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
            parser.add_argument(
                "-o", "--output", type=Path, help="where to (default: store.parquet in the run's folder)"
            )
        parser.set_defaults(do=_run, verb=verb)


def _run(arguments: argparse.Namespace) -> int:
    path = _find_store(arguments.run, missing_is_fine=arguments.verb == "merge")
    if arguments.verb == "check":
        trouble = check(path)
        print("\n".join(trouble) or f"{runs.shown_path(path)}: every completion is whole")
        return 1 if trouble else 0
    if arguments.verb == "export":
        target = arguments.output or path.with_suffix(".parquet")
        print(f"{runs.shown_path(target)}: {export(path, target):,} completions")
    elif arguments.verb == "recover":
        done = recover(path)
        print(f"{runs.shown_path(path)}: {done.saved:,} completions of {done.requests:,} requests saved, {done.lost:,} lost and sampled "
              f"again by the next run; the damaged file is kept as {runs.shown_path(done.kept_as)}")  # fmt: skip
    else:
        merged = merge_stores(path, [_find_store(name) for name in arguments.others])
        print(f"{runs.shown_path(path)}: {merged.added:,} completions added, {merged.same:,} were there already"
              + (f", {merged.different:,} were there with another text, which stays" if merged.different else ""))  # fmt: skip
    return 0


def _find_store(name: str, *, missing_is_fine: bool = False) -> Path:
    places = [Path(name), runs.ROOT / "outputs" / name]
    for place in places:
        path = place if place.suffix == ".sqlite" else place / STORE_NAME
        if path.is_file():
            return path
    if missing_is_fine and len(Path(name).parts) == 1:
        return places[1] / STORE_NAME
    outputs = runs.ROOT / "outputs"
    known = sorted(p.parent.relative_to(outputs).as_posix() for p in outputs.rglob(STORE_NAME))
    raise StoreError(f"{name}: no run of this name has a store; there: {', '.join(known) or 'none'}")
