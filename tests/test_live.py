"""One live miniature: the real small model through all six notebooks by the `crescent` command, cut once on its way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parent.parent
SMALL = {
    "run": "mini", "engine": "auto", "other_runs": [], "elicit_samples": 45, "votes": 3, "min_agreement": 0.0, "max_rewrites": 1,
    "epochs": 1.0, "student_epochs": 1.0, "benchmark_items": 12, "eval_samples": 1, "vote_max_tokens": 16, "eval_max_tokens": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "outputs": str(folder / "outputs")}))
    return path


def crescent(profile, *more):
    command = [sys.executable, "-m", "crescent_utils.reproduce", "run", str(profile), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def sampled(profile):
    store = profile.parent / "outputs" / "mini" / "store.sqlite"
    with sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True) as db:
        return db.execute("SELECT count(*) FROM completions").fetchone()[0]


def kill_in_stage(profile, stage):
    """Start the run, kill it and its kernel with -9 once `stage` has begun, and end the engine that is left over."""
    command = [sys.executable, "-m", "crescent_utils.reproduce", "run", str(profile)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    folder = profile.parent / "outputs" / "mini" / stage
    while not folder.exists() and process.poll() is None:
        time.sleep(0.2)
    time.sleep(3)
    import psutil

    for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def test_the_whole_method_runs_live_survives_a_kill_and_runs_again_at_once(profile):
    kill_in_stage(profile, "elicit")
    done = crescent(profile)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = profile.parent / "outputs" / "mini"
    assert "report:" in done.stdout and (folder / "report.html").stat().st_size < 3_000_000
    scores = pd.read_parquet(folder / "evaluate" / "scores.parquet")
    assert set(scores["model"]) == {"base", "tuned", "student", "student_tuned"}
    assert len(scores) == 4 * 12 * (1 + SMALL["eval_samples"])
    # What each stage asked for is in the store exactly once, the killed start included.
    rounds = pd.read_parquet(folder / "dedup" / "attempts.parquet")
    expected = SMALL["elicit_samples"] + int((rounds["round"] > 0).sum())
    expected += SMALL["votes"] * len(pd.read_parquet(folder / "dedup" / "questions.parquet")) + len(scores)
    assert sampled(profile) == expected

    again = crescent(profile)
    assert again.returncode == 0 and again.stdout.count("unchanged, skipped") == 6
    assert sampled(profile) == expected

    forced = crescent(profile, "--force", "--to", "vote")
    assert forced.returncode == 0 and sampled(profile) == expected, forced.stdout + forced.stderr
