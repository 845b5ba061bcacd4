"""Speed of reading answers: extraction, normal form and vote of a million stored paths; against Math-Verify on each;
hostile texts.

    python tests/benchmarks/bench_answers.py [--paths 1000000] [--math-verify 1000] [--hostile 100000] [--processes 2]

The paths are those of the committed reference store and, where CRESCENT_BENCHMARK_DIR (or ../shared/data) has GSM8K,
its solutions in the endings of several models. Each is repeated with other numbers: every digit is turned by a shift
of its own repetition, so that no text stands twice and a cache of normal forms cannot answer for them. (Answers are
short, so the normal forms of a million of them do repeat; that part of the cache's work is real, and the share of
hits is printed.) Paths are read in chunks of eight, a question each, in a process pool; the parent's and the
children's peak memory is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from crescent_utils.answers import equality, reading  # noqa: E402
from crescent_utils.answers.normal_form import _cached_form  # noqa: E402
from crescent_utils.vote import majority  # noqa: E402

VOTES = 8
CHUNK = 250  # questions that go to a process at once
ENDINGS = (
    "{s}\n#### {g}",
    "{s}\n\nThe answer is {g}.",
    "{s}\n\n**Final Answer:** ${g}",
    "{s}",
    "{s} So \\boxed{{{g}}}",
)


def material(gsm8k: bool = True) -> list[str]:
    """Real texts to repeat: the reference store's paths, and GSM8K's solutions where they are."""
    texts = list(pd.read_parquet(ROOT / "outputs/reference/vote/paths.parquet")["path"])
    folder = Path(os.environ.get("CRESCENT_BENCHMARK_DIR", ROOT / "../shared/data"))
    path = next(
        (p for p in (folder, Path("/") / "work" / "shared" / "data") if (p / "gsm8k_train.jsonl").exists()), None
    )
    if gsm8k and path:
        for number, line in enumerate((path / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()):
            solution, _, gold = json.loads(line)["answer"].rpartition("####")
            texts.append(ENDINGS[number % len(ENDINGS)].format(s=solution.strip(), g=gold.strip()))
    random.Random(0).shuffle(texts)
    return texts


def ballots(texts: list[str], n: int) -> Iterator[list[str]]:
    """`n` paths in lists of eight: each repetition of the material turns its digits by another shift."""
    made = 0
    while made < n:
        shift = made // len(texts)
        digits = "".join(str((d * (1 + 2 * (shift % 5)) + shift + 1) % 10) for d in range(10))
        table = str.maketrans("0123456789", digits)
        row = []
        for i in range(made, min(n, made + VOTES)):
            text = texts[i % len(texts)].translate(table)
            row.append(f"{text[:40]} {shift}\n{text[40:]}" if shift >= 10 else text)
        made += len(row)
        yield row


def voted(rows: list[list[str]]) -> tuple[int, int, int, int]:
    """Read and vote; return questions, readable answers, and the hits and misses of the normal form's cache."""
    before = _cached_form.cache_info()
    readable = 0
    for seed, row in enumerate(rows):
        read = [reading.extract_answer(path) for path in row]
        readable += sum(answer is not None for answer in read)
        majority.majority_vote(read, 0.5, seed=seed)
    after = _cached_form.cache_info()
    return len(rows), readable, after.hits - before.hits, after.misses - before.misses


def chunks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    """The ballots in lists that are worth sending to another process."""
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def peak_mb() -> float:
    """Peak resident memory of this process and, a child each, of its finished children."""
    own, child = (resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + 2 * child) / 1024


def throughput(texts: list[str], n: int, processes: int) -> float:
    """Print and return the seconds for `n` paths; making the paths is part of them."""
    start = time.perf_counter()
    total = [0, 0, 0, 0]
    with ProcessPoolExecutor(processes) as pool:
        waiting = []
        for chunk in chunks(ballots(texts, n)):
            waiting.append(pool.submit(voted, chunk))
            if len(waiting) > 4 * processes:  # bounded: a million paths are never in memory together
                total = [a + b for a, b in zip(total, waiting.pop(0).result(), strict=True)]
        for job in waiting:
            total = [a + b for a, b in zip(total, job.result(), strict=True)]
    spent = time.perf_counter() - start
    hits = total[2] / max(1, total[2] + total[3])
    print(
        f"extraction + normal form + vote: {n:,} paths, {total[0]:,} questions, {total[1]:,} readable, "
        f"{processes} processes"
    )
    print(
        f"  {spent:.1f} s, {1e6 * spent / n:.0f} us a path, peak memory {peak_mb():.0f} MB, "
        f"cache of normal forms {hits:.0%} hits"
    )
    return spent


def against_math_verify(texts: list[str], n: int) -> None:
    """Print the processor time of a verdict (is the answer 42?) by ours and by Math-Verify on the same texts."""
    try:
        from math_verify import parse, verify
    except ImportError:
        print("Math-Verify is not installed: nothing to compare with")
        return
    sample = [row[0] for row in islice(ballots(texts, n * VOTES), n)]
    gold = parse("42")
    start = time.process_time()
    for text in sample:
        verify(gold, parse(text))
    theirs = time.process_time() - start
    _cached_form.cache_clear()
    start = time.process_time()
    for text in sample:
        found = reading.extract_answer(text)
        found is not None and equality.answers_equal(found, "42")
    ours = time.process_time() - start
    print(f"one process, {len(sample):,} verdicts: Math-Verify {1e6 * theirs / n:.0f} us a text, "
          f"ours {1e6 * ours / n:.0f} us, "
          f"ratio {theirs / ours:.0f}")  # fmt: skip


def hostile(seed: int) -> str:
    """One hostile text: pieces that nest, repeat and pile up, some of them very long."""
    draw = random.Random(seed)
    pieces = [
        "\\frac{", "\\boxed{", "{", "}", "^{9", "^9", "9", "1,", "1:", "1/", "\0", "#### ", "the answer is ", "\n",
        "=", "**", "½", "١",
        "\\text{", "<<", "</think>", "<think>", "Answer:\n", "\nA: ", "- ", "e9", "(", ")", "because ", "so ", ". ",
        "$", " is 5 ", "x",
        "twenty-",
        "\\sqrt{", "999999999^999999999", "1e999999999", "\u202f", "I", "'", "nswer", "round to ", " of the ",
        "to find ", "_", "%", "5 5",
    ]  # fmt: skip
    text = "".join(draw.choice(pieces) * draw.choice((1, 1, 2, 3, 30, 300)) for _ in range(draw.randint(1, 12)))
    if draw.random() < 0.002:
        text = draw.choice(pieces) * (10**6 // 3)
    if draw.random() < 0.001:
        text = "9" * 10**6
    return text if draw.random() < 0.5 else f"\\boxed{{{text}}} 5"


def fuzz(n: int, seed: int = 0) -> tuple[int, float, str]:
    """Read `n` hostile texts; return the number of exceptions, the slowest text's seconds and its beginning."""
    errors, slowest, which = 0, 0.0, ""
    for i in range(n):
        text = hostile(seed + i)
        spent = []
        for _ in range(3):  # the best of three: other work on the machine disturbs a single timing
            start = time.process_time()
            try:
                reading.extract_answer(text)
                reading.extract_answer(text, "choice")
            except Exception as error:
                errors += 1
                print(f"{type(error).__name__} on seed {seed + i}: {text[:60]!r}")
            spent.append(time.process_time() - start)
            if spent[-1] < 0.1:
                break
        if min(spent) > slowest:
            slowest, which = min(spent), f"seed {seed + i}, {len(text):,} characters: {text[:40]!r}"
    return errors, slowest, which


def main() -> None:
    """Run the three measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--math-verify", type=int, default=1_000)
    parser.add_argument("--hostile", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    own = parser.parse_args()
    texts = material()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
          f"material: {len(texts):,} texts, "
          f"{sum(map(len, texts)) / len(texts):.0f} characters on average")  # fmt: skip
    if own.paths:
        throughput(texts, own.paths, own.processes)
    if own.math_verify:
        against_math_verify(texts, own.math_verify)
    if own.hostile:
        start = time.perf_counter()
        errors, slowest, which = fuzz(own.hostile)
        print(f"{own.hostile:,} hostile texts in {time.perf_counter() - start:.0f} s: {errors} exceptions, ", end="")
        print(f"slowest {1e3 * slowest:.1f} ms ({which})")


if __name__ == "__main__":
    main()
