"""The benchmarks still run, at a small size: a table with a row for each measurement. No time is judged."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from shared import ROOT


@pytest.fixture
def bench(monkeypatch):
    """Import a module of this folder as the benchmarks do."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    return importlib.import_module


def test_two_ways_begin_in_turns_and_the_ratio_is_the_median(bench):
    order, seconds = [], {"ours": iter([1, 2, 4, 4]), "plain": iter([2, 2, 2, 2])}

    def way(name):
        return lambda: (order.append(name), (10, next(seconds[name])))[1]

    row = bench("measure").compare("plain", "s", way("ours"), way("plain"), rounds=4)
    assert order == ["ours", "plain", "plain", "ours"] * 2
    assert (row.ratio, row.lowest, row.highest) == (0.75, 0.5, 2.0)
    assert (row.n, row.rounds, row.alternative) == (10, 4, 0.2)


def test_every_row_has_a_target(bench):
    for file, targets in bench("run").PLAN.items():
        assert list(bench(file).ROWS) == list(targets)


def test_what_is_not_possible_here_is_a_row_that_says_why(bench, capsys, monkeypatch):
    vllm, run = bench("bench_vllm"), bench("run")
    monkeypatch.setattr(vllm.engine_module, "why_not", lambda: "vLLM is not installed")
    run.measure_here("bench_vllm", 1.0)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line]
    assert [what for what, _ in rows] == list(run.PLAN["bench_vllm"])
    for what, row in rows:
        text = run.line(what, bench("measure").Row(**row), run.PLAN["bench_vllm"][what])
        assert "not measured" in text and "vLLM is not installed" in text


def test_a_file_that_dies_leaves_rows_that_say_why(bench, monkeypatch):
    run = bench("run")
    monkeypatch.setitem(run.PLAN, "bench_gone", {"this": run.Target(1, "none"), "that": run.Target(1, "none")})
    rows = dict(run.measured("bench_gone", 1.0))
    assert all("bench_gone" in row.why_not and row.ratio is None for row in rows.values()) and len(rows) == 2


def test_a_whole_run_is_written(bench, monkeypatch, tmp_path):
    run, row = bench("run"), bench("measure").row_of("plain", "s", [0.5], [1.0], 3, 1.0)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "bench")
    monkeypatch.setattr(run, "PLAN", {"bench_answers": {"answers": run.Target(1, "ours")}})
    monkeypatch.setattr(run, "measured", lambda file, scale: iter([("answers", row)]))
    monkeypatch.setattr(sys, "argv", ["run.py"])
    run.main()
    table, rows = sorted((tmp_path / "bench").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert "| answers | " in table.read_text() and json.loads(rows.read_text())["rows"][0]["ratio"] == row.ratio


def test_the_similarity_search_finds_what_was_planted(bench, monkeypatch):
    dedup = bench("bench_dedup")
    points = np.random.default_rng(0).normal(size=(2_000, dedup.DIMENSION))
    monkeypatch.setattr(dedup, "centres", lambda: dedup.unit(points))
    assert "100.0% of the planted" in dedup.exact(0.1).note
    assert "states" in dedup.approximate(0.03).note


def test_the_table_is_printed():
    command = [sys.executable, "tests/benchmarks/run.py", "bench_answers", "--scale", "0.02"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("| what | ours | alternative | ratio [range] | target |")
    assert "| answers |" in done.stdout and "not measured" not in done.stdout
