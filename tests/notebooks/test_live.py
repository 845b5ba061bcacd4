"""One live miniature: the real small model through all six notebooks by the `crescent` command, cut once on its way."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pandas as pd
import papermill
import pytest
import yaml
from shared import ROOT, experiments, parameters_in

from crescent_utils import runs
from crescent_utils.runs import params

pytestmark = pytest.mark.live
SMALL = {
    "run": "mini", "engine": "auto", "other_runs": [], "elicit_samples": 45, "votes": 3, "min_agreement": 0.0,
    "max_rewrites": 1,
    # Without a warm-up: of a training of one step it is all, at a rate of zero, and model and control stay the same.
    "epochs": 1.0, "warmup_ratio": 0.0, "student_epochs": 1.0, "benchmark_items": 12, "eval_samples": 1,
    "vote_max_tokens": 16, "eval_max_tokens": 16, "random_label_control": True,
    # One prompt and no search for the base's best: hundreds of dev items would be most of what is asked.
    "own_questions": 12, "eval_prompts": ["bare"], "best_prompt": False, "matched_temperature": False,
}  # fmt: skip


TRANSFORMERS = ["-p", "engine=transformers"]


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "outputs": str(folder / "outputs")}))
    return path


def crescent(profile, *more):
    command = [sys.executable, "-m", "crescent_utils.cli.main", "run", str(profile), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def sampled(profile, run="mini"):
    store = profile.parent / "outputs" / run / "store.sqlite"
    with sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True) as db:
        return db.execute("SELECT count(*) FROM completions").fetchone()[0]


def kill_in_stage(profile, stage, *more, run="mini", after=3.0):
    """Start the run and kill it, its kernel and its engine with -9 so many seconds after `stage` has begun."""
    import psutil

    command = [sys.executable, "-m", "crescent_utils.cli.main", "run", str(profile), *more]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    folder = profile.parent / "outputs" / run / stage
    while not folder.exists() and process.poll() is None:
        time.sleep(0.2)
    time.sleep(after)

    for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def test_the_whole_method_runs_live_survives_a_kill_and_runs_again_at_once(profile):
    # vLLM where it works for the first stage, transformers for the others: an engine is no part of what a result is.
    kill_in_stage(profile, "elicit")
    first = crescent(profile, "--to", "elicit")
    assert first.returncode == 0, first.stdout + first.stderr
    done = crescent(profile, *TRANSFORMERS)
    assert done.stdout.count("unchanged, skipped") == 1
    assert done.returncode == 0, done.stdout + done.stderr
    folder = profile.parent / "outputs" / "mini"
    assert "report:" in done.stdout and (folder / "report.html").stat().st_size < 3_000_000
    scores = pd.read_parquet(folder / "evaluate" / "scores.parquet")
    assert set(scores["model"]) == {"base", "tuned", "tuned_random_labels", "student", "student_tuned"}
    assert len(scores) == 12 * (5 + 2 * SMALL["eval_samples"])  # students and control are judged greedily alone
    # What each stage asked for is in the store exactly once, the killed start included.
    rounds = pd.read_parquet(folder / "dedup" / "attempts.parquet")
    expected = SMALL["elicit_samples"] + int((rounds["round"] > 0).sum())
    voted = json.loads((folder / "vote" / "manifest.json").read_text())["counts"]
    assert voted["zero_shot_sampled"] == SMALL["votes"] * SMALL["own_questions"]
    expected += voted["zero_shot_sampled"] + voted["paths"] + len(scores)
    assert sampled(profile) == expected

    again = crescent(profile)
    assert again.returncode == 0 and again.stdout.count("unchanged, skipped") == 6
    assert sampled(profile) == expected

    forced = crescent(profile, "--force", "--to", "vote")
    assert forced.returncode == 0 and sampled(profile) == expected, forced.stdout + forced.stderr


@pytest.mark.slow
def test_a_run_killed_in_each_stage_ends_like_an_uncut_one(profile):
    assert crescent(profile, *TRANSFORMERS, "-p", "run=uncut").returncode == 0
    for stage in params.STAGES:
        kill_in_stage(profile, stage, *TRANSFORMERS, "-p", "run=cut", run="cut", after=6.0)
        folder = profile.parent / "outputs" / "cut" / stage
        assert not (folder / "manifest.json").exists(), f"{stage} was over before the kill"
    assert crescent(profile, *TRANSFORMERS, "-p", "run=cut").returncode == 0
    outputs = profile.parent / "outputs"
    tables = sorted(path.relative_to(outputs / "uncut") for path in (outputs / "uncut").glob("*/*.parquet"))
    assert len(tables) >= 12
    for table in tables:
        pd.testing.assert_frame_equal(
            pd.read_parquet(outputs / "cut" / table), pd.read_parquet(outputs / "uncut" / table)
        )
    assert sampled(profile, "cut") == sampled(profile, "uncut")


@pytest.mark.slow
def test_the_live_experiments_of_the_notebooks_are_a_run(tmp_path):
    smaller = {**SMALL, "outputs": str(tmp_path), "engine": "transformers"}
    del smaller["run"], smaller["max_rewrites"]
    for stage in params.STAGES:
        values = {**params.parameters_of(stage, smaller), **parameters_in(experiments(stage)[1])}
        for name, most in {"elicit_samples": 45, "votes": 4, "eval_samples": 2}.items():
            values |= {name: min(values[name], most)} if name in values else {}
        if stage == "finetune":
            values["train_min_agreement"] = 0.25  # three votes seldom agree
        name = f"{runs.NOTEBOOKS[stage]}.ipynb"
        papermill.execute_notebook(
            ROOT / "notebooks" / name, tmp_path / name, parameters=values, progress_bar=False, kernel_name="python3"
        )
        assert runs.read_manifest(tmp_path / "mine", stage) is not None
