"""The benchmark of the similarity search still runs, on a small number of random vectors; no time is judged."""

import subprocess
import sys

import pytest
from shared import ROOT


@pytest.mark.parametrize("part, found", [("exact", "planted found              1.000"), ("million", "recall stated")])
def test_it_runs(part, found):
    if part == "million":
        pytest.importorskip("faiss")
    command = [sys.executable, "tests/benchmarks/bench_dedup.py", part, "--rows", "2000", "--random"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert found in done.stdout
