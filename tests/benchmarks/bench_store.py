"""What the generation store costs: time a completion, memory, look-up, iteration, and resuming a finished stage.

`python tests/benchmarks/bench_store.py [--completions 2000000] [--stage 50000]` writes completions of 200 tokens in
chunks of 256, as a run does, beside the plain alternative: lines of JSON in a file, flushed as often. A share of
generation time is given for engines of several speeds, since this machine's own is slow.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil

from crescent_utils.generation import generator, models
from crescent_utils.generation.store import Completion, GenerationStore, Request, Sampling
from crescent_utils.runs import costs, folders

TOKENS, VOTES = 200, 8


def vote_request(number: int) -> Request:
    """The request of question `number`."""
    content = f"Question {number}: " + "what is it? " * 12
    return Request.of("bench", [{"role": "user", "content": content}], Sampling(0.7, 1.0, 256, (), 1))


def completions(count: int) -> Iterator[tuple[Request, int, Completion]]:
    """Requests of a vote, eight samples each, with texts of about 200 tokens (800 characters) that differ."""
    chance = random.Random(1)
    paths = list(folders.read_table(folders.ROOT / "outputs" / "reference", "vote", "paths")["path"])
    for number in range(count // VOTES):
        request = vote_request(number)
        for sample in range(VOTES):
            text = f"{number} {sample} " + " ".join(chance.choices(paths, k=40))
            yield request, sample, Completion(text[:800], "stop", 60, TOKENS)


def chunks(rows: Iterator, size: int = generator.COMMIT_EVERY) -> Iterator[list]:
    """Rows in lists of `size`."""
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def memory() -> float:
    """Resident memory of this process, in MB."""
    return psutil.Process().memory_info().rss / 1e6


def write(path: Path, count: int) -> tuple[float, float, float]:
    """Seconds of `put`, and resident MB after a tenth and after all."""
    spent = early = 0.0
    with GenerationStore(path) as store:
        for number, chunk in enumerate(chunks(completions(count))):
            began = time.perf_counter()
            store.put(chunk, {"engine": "bench", "seconds": 1.0, "device_seconds": 1.0})
            spent += time.perf_counter() - began
            if number * len(chunk) >= count / 10 and not early:
                early = memory()
        late = memory()
    return spent, early, late


def write_lines(path: Path, count: int) -> float:
    """Seconds of the plain alternative."""
    spent = 0.0
    with open(path, "w", encoding="utf-8") as handle:
        for chunk in chunks(completions(count)):
            began = time.perf_counter()
            for request, sample, completion in chunk:
                handle.write(json.dumps({"request": asdict(request), "sample": sample, **asdict(completion)}) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
            spent += time.perf_counter() - began
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completions", type=int, default=2_000_000)
    parser.add_argument("--stage", type=int, default=50_000)
    options = parser.parse_args()
    count = options.completions // VOTES * VOTES
    print(costs.device_name())
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "store.sqlite"
        spent, early, late = write(path, count)
        each = spent / count
        print(f"put: {count:,} completions, {1e6 * each:.1f} us each; file {path.stat().st_size / 1e9:.2f} GB; "
              f"resident {early:.0f} MB after a tenth, {late:.0f} MB after all")  # fmt: skip
        lines = min(count, 100_000)
        print(f"plain lines of JSON: {1e6 * write_lines(Path(work) / 'lines', lines) / lines:.1f} us each")
        for speed in (300, 3_000, 30_000):
            print(f"  put's share of generation at {speed:>6,} tokens/s: {100 * each * speed / TOKENS:.2f} %")
        with GenerationStore(path, read_only=True) as store:
            asked = [row[0] for row in completions(count)][:: VOTES * 50] if count <= 200_000 else _some(count)
            before, began = memory(), time.perf_counter()
            pairs = [[(request, sample) for sample in range(VOTES)] for request in asked]
            found = sum(completion is not None for votes in pairs for completion in store.lookup(votes))
            spent = time.perf_counter() - began
            each = 1e6 * spent / len(asked)
            print(f"look-up: {len(asked):,} requests x {VOTES}, {each:.0f} us a request, {found:,} found")
            print(f"  resident {before:.0f} -> {memory():.0f} MB")
            before, began, peak, seen = memory(), time.perf_counter(), 0.0, 0
            for _ in store.completions():
                seen += 1
                if seen % 100_000 == 0:
                    peak = max(peak, memory())
            print(f"iteration: {seen:,} in {time.perf_counter() - began:.1f} s")
            print(f"  resident {before:.0f} MB, at most {peak:.0f} MB")
        stage = [(request, sample) for request, sample, _ in completions(min(options.stage, count))]
        with generator.Generator(
            GenerationStore(path), models.Model("base", "bench", lambda: path), 1, None
        ) as resumed:
            began = time.perf_counter()
            done = resumed.complete(stage)
            spent = time.perf_counter() - began
        print(f"resuming a finished stage: {len(done):,} completions in {spent:.2f} s, {resumed.cost.sampled} sampled")


def _some(count: int) -> list[Request]:
    return [vote_request(number) for number in random.Random(2).sample(range(count // VOTES), 5000)]


if __name__ == "__main__":
    main()
