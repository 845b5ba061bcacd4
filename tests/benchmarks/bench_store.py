"""The generation store over plain SQLite, and resuming: asking again for what is stored, and a run a second time."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from measure import REFERENCE, SECONDS, Row, compare, reference, row_of

from crescent_utils.generation import generator, models
from crescent_utils.generation.store import Completion, GenerationStore, Request, Sampling
from crescent_utils.runs import params

TOKENS, VOTES = 200, 8
Stored = list[tuple[Request, int, Completion]]


def in_a_folder(measure: Callable[[float, Path], Row]) -> Callable[[float], Row]:
    """Give a measurement a folder that is gone afterwards."""

    def measure_there(scale: float) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            return measure(scale, Path(folder))

    return measure_there


def completions(number: int) -> Stored:
    """Requests of a vote, eight samples each, with texts of about 200 tokens (800 characters) that differ."""
    chance, paths = random.Random(1), reference("vote", "paths", "path")
    made = []
    for question in range(number // VOTES):
        messages = [{"role": "user", "content": f"Question {question}: " + "what is it? " * 12}]
        request = Request.of("bench", messages, Sampling(0.7, 1.0, 256, (), 1))
        for sample in range(VOTES):
            text = f"{question} {sample} " + " ".join(chance.choices(paths, k=40))
            made.append((request, sample, Completion(text[:800], "stop", 60, TOKENS)))
    return made


def chunks(stored: Stored) -> Iterator[Stored]:
    """As many at a time as a run commits."""
    for start in range(0, len(stored), generator.COMMIT_EVERY):
        yield stored[start : start + generator.COMMIT_EVERY]


def put(path: Path, stored: Stored) -> int:
    """Write them as a run does, in chunks; return how many."""
    with GenerationStore(path) as store:
        for chunk in chunks(stored):
            store.put(chunk, {"engine": "bench", "seconds": 1.0, "device_seconds": 1.0})
    return len(stored)


def plain_key(request: Request) -> str:
    """What a plain table would be asked by."""
    return repr(request)


def put_plainly(path: Path, stored: Stored) -> int:
    """Write them into one table, as often to disk and in the same mode; return how many."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE completions (request, "
        "sample, text, finish, prompt_tokens, tokens, PRIMARY KEY (request, sample)) WITHOUT ROWID")  # fmt: skip
    for chunk in chunks(stored):
        rows = [(plain_key(request), i, c.text, c.finish, c.prompt_tokens, c.tokens) for request, i, c in chunk]
        database.execute("BEGIN")
        database.executemany("INSERT INTO completions VALUES (?,?,?,?,?,?)", rows)
        database.execute("COMMIT")
    database.close()
    return len(stored)


def writing(scale: float) -> Row:
    """A new file each time."""
    stored = completions(round(16_000 * scale))

    def into_new_file(write: Callable[[Path, Stored], int]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            return write(Path(folder) / "store.sqlite", stored)

    ways = (partial(into_new_file, put), partial(into_new_file, put_plainly))
    return compare("plain SQLite, executemany", "completions/s", *ways)


@in_a_folder
def asking_again(scale: float, folder: Path) -> Row:
    """A stage that is done, through a generator; a plain table asked for each row by its key."""
    stored = completions(round(16_000 * scale))
    pairs = [(request, sample) for request, sample, _ in stored]
    put(folder / "ours.sqlite", stored)
    put_plainly(folder / "plain.sqlite", stored)
    model = models.Model("base", "bench", lambda: folder)

    def ours() -> int:
        with generator.Generator(GenerationStore(folder / "ours.sqlite"), model, 1, None) as resumed:
            return len(resumed.complete(pairs))

    def plain() -> int:
        database = sqlite3.connect(folder / "plain.sqlite")
        query = "SELECT * FROM completions WHERE request = ? AND sample = ?"
        return len([database.execute(query, (plain_key(request), i)).fetchone() for request, i in pairs])

    return compare("plain SQLite, a SELECT each", "completions/s", ours, plain)


@in_a_folder
def second_run(_: float, folder: Path) -> Row:
    """01 to 03 of a replay of the reference, whose second run finds each of them done."""
    (folder / "reference").symlink_to(REFERENCE)
    command = [sys.executable, "-m", "crescent_utils.cli.main", "run", "params/cpu.yaml", "--to", "vote"]
    command += [f"-p{text}" for text in (f"outputs={folder}", "engine=replay", "run=bench")]
    rates = []
    for _ in range(2):
        began = time.perf_counter()
        done = subprocess.run(command, cwd=params.ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(" ".join((done.stderr or done.stdout).split())[-300:])
        rates.append(1 / (time.perf_counter() - began))
    first, second = rates
    return row_of("the first, a replay", SECONDS, [second], [first], 1, 1 / first + 1 / second)


ROWS = {"store": writing, "resume, asking again": asking_again, "resume, a second run": second_run}
