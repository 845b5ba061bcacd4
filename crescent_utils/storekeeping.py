"""Storekeeping: check, recover, export and merge generation stores, each in constant memory.

A store is one file per run folder; these are what its owner does with it beside sampling: look whether it is whole, save what can be
read of a damaged one, hand it on as Parquet, and join the stores of several machines.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from . import recovery, runs
from .generate import STORE_NAME
from .sqlite_file import StoreError
from .store import Completion, GenerationStore


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
            for rows in _chunks(_export_rows(store), recovery.CHUNK):
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


def merge(into: Path, sources: list[Path]) -> Merged:
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
                for rows in _chunks(source.completions(), recovery.CHUNK):
                    for one, two in _compared(target, rows):
                        same, different = same + (one == two), different + (one != two)
                    made = {number: source.batch(number) for number in {row[2].batch for row in rows}}
                    added += recovery.put_by_batch(target, made, rows)
    return Merged(added, same, different)


def _compared(target: GenerationStore, rows: Any) -> Iterator[tuple[Completion, Completion]]:
    for request, sample, completion in rows:
        there = target.get(request, sample + 1)[sample]
        if there is not None:
            yield there, completion


def _chunks(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def add_commands(commands: Any) -> None:
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
        print("\n".join(trouble) or f"{runs.shown(path)}: every completion is whole")
        return 1 if trouble else 0
    if arguments.verb == "export":
        target = arguments.output or path.with_suffix(".parquet")
        print(f"{runs.shown(target)}: {export(path, target):,} completions")
    elif arguments.verb == "recover":
        done = recovery.recover(path)
        print(f"{runs.shown(path)}: {done.saved:,} completions of {done.requests:,} requests saved, {done.lost:,} lost and sampled "
              f"again by the next run; the damaged file is kept as {runs.shown(done.kept_as)}")  # fmt: skip
    else:
        merged = merge(path, [_find_store(name) for name in arguments.others])
        print(f"{runs.shown(path)}: {merged.added:,} completions added, {merged.same:,} were there already"
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
