"""Speed, memory and recall of the similarity search, each in a process of its own, with the plain alternative in the
same run.

`python tests/benchmarks/bench_dedup.py [PART …] [--rows N]` with the parts

- `exact`: 55,000 x 384 vectors, every pair; beside it a plain blocked loop in numpy.
- `semhash`: 100,000 vectors, every pair; beside it SemHash's index and self-deduplication
  (`pip install semhash`, measurement only).
- `million`: 1,000,000 vectors through FAISS; recall of the planted near-duplicates, each checked to be one.
- `embed`: 10,000 questions of GSM8K and ASDiv with MiniLM; beside it sentence-transformers at its own best batch size.

The vectors are MiniLM embeddings of GSM8K and ASDiv questions (of random points where the benchmarks are not there)
moved by noise so that a row's usual neighbour stands at a cosine of about 0.6, as a question's does; a tenth are
planted copies of an earlier row at cosines from 0.86 to 0.99. It prints a table; nothing is asserted. The machine
should be idle.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from crescent_utils.benchmarks import files, items  # noqa: E402
from crescent_utils.dedup import loop, similarity  # noqa: E402

SIZES = {"exact": 55_000, "semhash": 100_000, "million": 1_000_000, "embed": 10_000}
THRESHOLD, DIMENSION = 0.85, 384
FILES = Path(os.environ.get("CRESCENT_BENCHMARK_DIR") or ROOT.parent / "shared" / "data")
RANDOM = "--random" in sys.argv  # random centres: no model, no benchmark files


def questions(count: int) -> list[str]:
    """Different questions of GSM8K and ASDiv, in a random order; none where the files are not there."""
    if not FILES.is_dir():  # a folder without the files would send the loader to the hub
        return []
    try:
        benchmarks = [items.load_benchmark(name, folder=str(FILES)) for name in ("gsm8k", "asdiv")]
    except files.BenchmarkError:
        return []
    every = sorted({item.question for benchmark in benchmarks for item in (*benchmark.items, *benchmark.train)})
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))[:count]]


def centres() -> np.ndarray:
    """Embeddings of 2,000 real questions, kept between runs; random points without the benchmark files."""
    kept = Path(tempfile.gettempdir()) / "crescent_bench_centres.npy"
    if kept.exists() and not RANDOM:
        return np.load(kept)
    texts = [] if RANDOM else questions(2_000)
    if not texts:
        points = np.random.default_rng(0).normal(size=(2_000, DIMENSION)).astype(np.float32)
        return points / np.linalg.norm(points, axis=1, keepdims=True)
    np.save(kept, loop.SentenceEncoder().encode(texts))
    return np.load(kept)


def planted(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (count, 384) float32, and the numbers of the copied rows and of their copies behind them."""
    chance, middle = np.random.default_rng(1), centres()
    made = np.empty((count, DIMENSION), np.float32)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        noise = unit(chance.normal(size=(size, DIMENSION)))
        made[start : start + size] = unit(middle[chance.integers(len(middle), size=size)] + 0.8 * noise)
    copies = np.sort(chance.choice(np.arange(count // 2, count), count // 10, replace=False))
    copied = chance.integers(0, count // 2, size=len(copies))
    for start in range(0, len(copies), 20_000):
        part = slice(start, start + 20_000)
        noise = chance.normal(size=(len(copies[part]), DIMENSION))
        noise -= np.einsum("nd,nd->n", noise, made[copied[part]])[:, None] * made[copied[part]]
        cosine = chance.uniform(0.86, 0.99, size=(len(noise), 1))
        made[copies[part]] = cosine * made[copied[part]] + np.sqrt(1 - cosine**2) * unit(noise)
    return made, copied, copies


def plain(vectors: np.ndarray) -> np.ndarray:
    """The plain alternative: blocks of 1,024 against a float32 bank, numpy alone, no care for rounding."""
    bank, filled, kept = np.empty_like(vectors), 0, np.zeros(len(vectors), bool)
    for start in range(0, len(vectors), 1024):
        block = vectors[start : start + 1024]
        best = (block @ bank[:filled].T).max(axis=1) if filled else np.full(len(block), -1.0)
        inside, chosen = block @ block.T, []
        for row in range(len(block)):
            if best[row] < THRESHOLD and (not chosen or inside[row, chosen].max() < THRESHOLD):
                chosen.append(row)
        kept[start + np.array(chosen, int)] = True
        bank[filled : filled + len(chosen)] = block[chosen]
        filled += len(chosen)
    return kept


def peak_gb(reset: bool = False) -> float:
    """Largest resident memory of this process in GB (Linux), since it was last reset; vectors that are held count."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6


def timed(work) -> tuple[float, object]:
    """Seconds, and what `work()` returned."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def exact(count: int) -> dict[str, object]:
    """Every pair, ours alone (its peak memory), then the plain loop."""
    vectors, _, copies = planted(count)
    peak_gb(reset=True)
    seconds, found = timed(lambda: similarity.select_diverse(vectors, THRESHOLD))
    peak = peak_gb()
    other, kept = timed(lambda: plain(vectors))
    return {"ours": seconds, "plain numpy": other, "ratio": seconds / other, "peak GB": peak,
    "kept": int(found.kept.sum()),
            "kept by plain": int(kept.sum()), "planted found": float((~found.kept[copies]).mean())}  # fmt: skip


def semhash(count: int) -> dict[str, object]:
    """Every pair, and SemHash with its default backend, fed with the same vectors."""
    from semhash import SemHash

    vectors, _, copies = planted(count)

    class Given:
        def encode(self, texts: list[str], **_: object) -> np.ndarray:
            return vectors[[int(text) for text in texts]]

    seconds, found = timed(lambda: similarity.select_diverse(vectors, THRESHOLD))
    records = [str(row) for row in range(count)]
    index, hashed = timed(lambda: SemHash.from_records(records, model=Given()))
    dedupe, result = timed(lambda: hashed.self_deduplicate(threshold=THRESHOLD))
    left = {int(text) for text in result.selected}
    return {"ours": seconds, "SemHash": index + dedupe, "ratio": seconds / (index + dedupe),
    "kept": int(found.kept.sum()),
            "kept by SemHash": len(left), "planted found": float((~found.kept[copies]).mean()),
            "planted found by SemHash": float(np.mean([row not in left for row in copies]))}  # fmt: skip


def million(count: int) -> dict[str, object]:
    """Beyond the exact limit; recall over the planted pairs whose first half was kept (so that the copy must go)."""
    vectors, copied, copies = planted(count)
    similarity.EXACT_ROWS = count // 5
    peak_gb(reset=True)
    seconds, found = timed(lambda: similarity.select_diverse(vectors, THRESHOLD))
    peak = peak_gb()
    sure = found.kept[copied] & (np.einsum("nd,nd->n", vectors[copied], vectors[copies]) >= THRESHOLD)
    return {"ours": seconds, "peak GB": peak, "kept": int(found.kept.sum()),
            "recall of planted": float((~found.kept[copies[sure]]).mean()), "planted": int(sure.sum()),
            "recall stated": found.recall, "measured on": found.recall_rows}  # fmt: skip


def embed(count: int) -> dict[str, object]:
    """Our encoder on all questions, then sentence-transformers at the batch size that is fastest on a tenth of them."""
    texts = questions(count)
    if not texts:
        return {"skipped": "the benchmark files are not there"}
    encoder = loop.SentenceEncoder()

    def theirs(batch: int, what: list[str]) -> float:
        return timed(lambda: encoder._model.encode(what, batch_size=batch, normalize_embeddings=True))[0]

    theirs(64, texts[:200])  # warm up, past our memory of texts
    tries = {batch: theirs(batch, texts[: count // 10]) for batch in (8, 16, 32, 64, 128, 256)}
    best = min(tries, key=lambda batch: tries[batch])
    seconds, _ = timed(lambda: encoder.encode(texts))
    other = theirs(best, texts)
    return {"ours, a second": len(texts) / seconds, "sentence-transformers": len(texts) / other,
    "their batch size": best,
            "speed ratio": other / seconds, "tries": {k: round(v, 1) for k, v in tries.items()}}  # fmt: skip


def main() -> None:
    """Run the parts asked for, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(SIZES))
    parser.add_argument("--rows", type=int, default=0, help="rows instead of the usual number")
    parser.add_argument("--random", action="store_true", help="random centres instead of embedded questions")
    parser.add_argument("--here", action="store_true", help="one part in this process (used by itself)")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(globals()[asked.parts[0]](asked.rows)))
        return
    centres()
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}, {time.strftime('%Y-%m-%d')}")
    for part in asked.parts:
        rows = asked.rows or SIZES[part]
        if part == "semhash" and importlib.util.find_spec("semhash") is None:
            print("semhash: not installed, skipped")
            continue
        command = [sys.executable, __file__, part, "--here", "--rows", str(rows), *(["--random"] if RANDOM else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        print(f"{part}, n = {rows:,}")
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            print(f"  {name:<26} {value:.3f}" if isinstance(value, float) else f"  {name:<26} {value}")


if __name__ == "__main__":
    main()
