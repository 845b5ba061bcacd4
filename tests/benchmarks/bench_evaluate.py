"""How fast a published run is re-scored and verified.

`python tests/benchmarks/bench_evaluate.py [ANSWERS] [--no-verify]` scores ANSWERS (10,000) stored answers in all three
ways, beside lm-evaluation-harness's own two filters and metric in the same run, and verifies outputs/reference. The
answers are those of the committed reference, over and over; with benchmark files (CRESCENT_BENCHMARK_DIR or
../shared/data) also GSM8K's written solutions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from crescent_utils.benchmarks import scoring
from crescent_utils.cli import verify

ROOT = Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "outputs" / "reference"


def recorded() -> Iterator[tuple[str, str]]:
    """Completions of the reference's models with the golds of their items."""
    for run in (".", "seed2", "seed3"):
        scores = pd.read_parquet(REFERENCE / run / "evaluate" / "scores.parquet")
        yield from scores[["completion", "gold"]].itertuples(index=False, name=None)


def written(folder: Path) -> Iterator[tuple[str, str]]:
    """GSM8K's training solutions, some four times as long."""
    for line in (folder / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines():
        solution, _, gold = json.loads(line)["answer"].rpartition("#### ")
        yield f"{solution}#### {gold}", gold.replace(",", "")


def plain() -> Callable[[str, str], list[bool]]:
    """lm-evaluation-harness's strict-match and flexible-extract with its exact_match."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    filters = [RegexFilter(r"#### (\-?[0-9\.\,]+)"), RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)]
    ignored = [",", "\\$", "(?s).*#### ", "\\.$"]

    def judge(completion: str, gold: str) -> list[bool]:
        texts = [next(iter(one.apply([[completion]], [{}])))[0] for one in filters]
        return [
            bool(exact_match_hf_evaluate([text], [gold], regexes_to_ignore=ignored, ignore_case=True)["exact_match"])
            for text in texts
        ]

    return judge


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", nargs="?", type=int, default=10_000)
    parser.add_argument("--no-verify", action="store_true")
    options = parser.parse_args()
    folder = Path(os.environ.get("CRESCENT_BENCHMARK_DIR") or ROOT.parent / "shared" / "data")
    sources = {"recorded answers of the reference": list(recorded())}
    if (folder / "gsm8k_train.jsonl").exists():
        sources["GSM8K's written solutions"] = list(written(folder))
    judge = plain()
    judge("1", "1")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'what':<36}{'n':>8}{'ours, 3 ways':>14}{'lm_eval, 2':>12}{'ratio':>8}")
    for name, pairs in sources.items():
        some = list(itertools.islice(itertools.cycle(pairs), options.answers))
        kit = seconds(lambda some=some: [scoring.score_answer(*pair) for pair in some])
        harness = seconds(lambda some=some: [judge(*pair) for pair in some])
        print(f"{name:<36}{len(some):>8,}{kit:>12.2f} s{harness:>10.2f} s{harness / kit:>8.1f}")
    if not options.no_verify:
        differences: list[verify.Difference] = []
        took = seconds(lambda: differences.extend(verify.verify(REFERENCE)))
        print(f"verify of outputs/reference: {took:.1f} s, {len(differences)} differences")


if __name__ == "__main__":
    main()
