"""Speed, of what the kit does over the plain way to do it, in one table.

`python tests/benchmarks/run.py [FILE …] [--scale 1]` runs each `bench_*.py` in a process of its own, one after another,
and prints the table as Markdown. A whole run at scale 1 also writes it to `outputs/bench/`, with the rows and versions
as JSON beside it. A ratio is how many times as fast ours is; no time is asserted. The machine should be idle.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil
from measure import Row

from crescent_utils import generation
from crescent_utils.runs import ROOT, costs, folders, library_versions

RESULTS = ROOT / "outputs" / "bench"
LIMIT = 420  # seconds that one file may take
MARK = '["'  # begins a line of JSON with a row
HEAD = ("what", "ours", "alternative", "ratio [range]", "target", "n x rounds", "machine", "note")


@dataclass(frozen=True)
class Target:
    """The ratio that a row should reach at least, and why this one (all ours)."""

    least: float
    reason: str


PLAN: dict[str, dict[str, Target]] = {  # the rows of each file
    "bench_vllm": {
        "start to first completion": Target(0.9, "the same engine"),
        "sampling, vLLM": Target(0.97, "a store must cost next to nothing"),
    },
    "bench_transformers": {"sampling, transformers": Target(1.3, "prompts shared, batches that shrink")},
    "bench_training": {"training": Target(0.98, "checks must cost next to nothing")},
    "bench_answers": {
        "answers": Target(30, "a million paths in minutes"),
        "voting": Target(10, "the same, on short texts"),
        "scoring": Target(1, "three verdicts, not two"),
    },
    "bench_dedup": {
        "dedup, exact": Target(1, "float64 decides, at no cost"),
        "dedup, approximate": Target(3, "else not worth a recall below 1"),
        "dedup, over SemHash": Target(10, "a tenth of its time, at a recall of 99.5 % or more"),
        "embedding": Target(0.97, "the same model"),
    },
    "bench_store": {
        "store": Target(0.5, "a checksum and a hash each"),
        "resume, asking again": Target(1, "one query for all samples"),
        "resume, a second run": Target(5, "nothing is done twice"),
    },
    "bench_growth": {
        f"growth, {step}": Target(0.63, "an exponent of 1.2")
        for step in (
            *("reading questions", "store", "approximate dedup", "neighbours", "contamination"),
            *("vote", "labels", "figures", "evaluation", "report"),
        )
    },
}


def measured(file: str, scale: float) -> Iterator[tuple[str, Row]]:
    """Yield what a file measures, out of a process of its own; a row that is missing says why."""
    command = [sys.executable, __file__, file, "--scale", str(scale), "--here"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=LIMIT)
        trouble = next(reversed(errors.strip().splitlines()), f"ended with status {process.returncode}")
    except subprocess.TimeoutExpired:
        whole = psutil.Process(process.pid)
        generation.end_processes([*whole.children(recursive=True), whole])
        output, trouble = process.communicate()[0], f"was cut after {LIMIT} s"
    found = dict(json.loads(line) for line in output.splitlines() if line.startswith(MARK))
    missing = Row(seconds=time.perf_counter() - began, machine=costs.device_name(), why_not=trouble)
    for what in PLAN[file]:
        yield what, Row(**found[what]) if what in found else missing


def measure_here(file: str, scale: float) -> None:
    """Print the rows of one file as JSON, each when it is done; one that fails leaves the others."""
    for what, measure in importlib.import_module(file).ROWS.items():
        try:
            row = measure(scale)
        except Exception as error:
            row = Row(machine=costs.device_name(), why_not=f"{type(error).__name__}: {error}"[:300])
        print("\n" + json.dumps([what, dataclasses.asdict(row)]), flush=True)  # a progress bar may stand in the line


def line(what: str, row: Row, target: Target) -> str:
    """Return a row as a line of the table."""
    goal = f">= {target.least:g} ({target.reason})"
    if row.ratio is None:
        return _cells(what, "not measured", "", "", goal, "", row.machine, row.why_not)
    ours, alternative = (f"{value:,.{0 if value >= 100 else 2}f} {row.unit}" for value in (row.ours, row.alternative))
    reached = f"{row.ratio:.{0 if row.ratio >= 100 else 2}f} [{row.lowest:.2f}, {row.highest:.2f}]"
    if row.ratio < target.least:
        reached += ", **missed**"
    size = f"{row.n:,} x {row.rounds}"
    return _cells(what, ours, f"{alternative}, {row.against}", reached, goal, size, row.machine, row.note)


def _cells(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"


def main() -> None:
    """Run the files asked for, or one of them within this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"default: all of {', '.join(PLAN)}")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every size")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.files) - set(PLAN):
        parser.error(f"FILE: {', '.join(sorted(unknown))}: allowed are {', '.join(PLAN)}")
    if options.here:
        measure_here(options.files[0], options.scale)
        return
    whole = not options.files and options.scale == 1
    about = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": costs.device_name(),
        "load": round(os.getloadavg()[0], 2), "scale": options.scale, "commit": folders.git_commit(),
        "versions": library_versions(),
    }  # fmt: skip
    began = time.perf_counter()
    table = [_cells(*HEAD), _cells(*["---"] * len(HEAD))]
    print(*table, sep="\n", flush=True)
    rows = []
    for file in options.files or PLAN:
        for what, row in measured(file, options.scale):
            target = PLAN[file][what]
            rows.append({"what": what, **dataclasses.asdict(row), "target": target.least, "reason": target.reason})
            table.append(line(what, row, target))
            print(table[-1], flush=True)
    about["seconds"] = round(time.perf_counter() - began, 1)
    caption = f"{about['machine']}, {about['time']}, load {about['load']} before, {about['seconds']:.0f} s"
    print(f"\n{caption}")
    if whole:
        name = re.sub(r"[^a-z0-9]+", "-", f"{about['time'][:10]} {about['machine']}".lower()).strip("-")
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = folders.write_json(RESULTS / f"{name}.json", {**about, "rows": rows})
        path.with_suffix(".md").write_text("\n".join([*table, "", caption, ""]), encoding="utf-8")
        print(f"written: outputs/bench/{name}.json and .md")


if __name__ == "__main__":
    main()
