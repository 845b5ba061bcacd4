"""The reference replay: the notebooks' own defaults, without a model, a network or a trace in the git tree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import make_readme
import pandas as pd
import pytest
from shared import REFERENCE, ROOT, made_once

from crescent_utils import runs
from crescent_utils.runs import params


@pytest.fixture(scope="session")
def replayed(tmp_path_factory, worker_id, kernel):
    return made_once(tmp_path_factory, worker_id, "outputs", partial(replay_the_reference, kernel)) / "replay"


def replay_the_reference(kernel, outputs):
    """Execute the notebooks as `crescent run` does, in one kernel; `make notebooks` starts one for each.

    Then 06 once more, in the run "alone", which has no student.
    """
    (outputs / "reference").symlink_to(REFERENCE)
    for stage in params.STAGES:
        name = f"{runs.NOTEBOOKS[stage]}.ipynb"
        assert kernel.execute(ROOT / "notebooks" / name, outputs / name, {"outputs": str(outputs)}, stage) == ""
    (outputs / "alone").mkdir()
    for stage in ("vote", "finetune"):  # and no distil
        (outputs / "alone" / stage).symlink_to(Path("..") / "replay" / stage)
    alone = {"outputs": str(outputs), "student": "none", "run": "alone", "resamples": 200, "other_runs": []}
    assert kernel.execute(ROOT / "notebooks" / "06_evaluate.ipynb", outputs / "alone.ipynb", alone, "evaluate") == ""


def table(folder, stage, name):
    return pd.read_parquet(folder / stage / f"{name}.parquet")


TABLES = sorted(
    path.relative_to(REFERENCE) for stage in params.STAGES for path in (REFERENCE / stage).glob("*.parquet")
)


@pytest.mark.parametrize("path", TABLES, ids=str)
def test_the_replay_gives_every_table_of_the_live_run(replayed, path):
    # A cosine is stored with four digits, and another processor may round its last one the other way.
    pd.testing.assert_frame_equal(
        pd.read_parquet(replayed / path), pd.read_parquet(REFERENCE / path), rtol=0, atol=2e-4
    )


def test_the_reference_has_the_tables_of_every_stage():
    assert {path.parts[0] for path in TABLES} == set(params.STAGES) and len(TABLES) >= 15


def test_the_replay_judges_the_claims_as_the_live_run_did(replayed):
    ledgers = [json.loads((run / "evaluate" / "claims.json").read_text()) for run in (replayed, REFERENCE)]
    for claims in ledgers:
        for claim in claims:
            del claim["command"]  # how a blank could be filled: advice, and no finding
    assert ledgers[0] == ledgers[1] and len(ledgers[0]) == 8


def test_without_a_student_the_evaluation_is_that_of_the_model_alone(replayed):
    own = table(replayed.parent / "alone", "evaluate", "scores")
    whole = table(replayed, "evaluate", "scores")
    expected = whole[~whole["model"].str.startswith("student")].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, expected)


def test_nothing_is_lost_from_sampled_to_kept(replayed):
    for stage in ("elicit", "dedup", "vote"):
        counts = json.loads((replayed / stage / "manifest.json").read_text())["counts"]
        assert counts["kept"] + counts["rejected"] == counts["sampled"]
    elicited = len(table(replayed, "elicit", "questions"))
    assert len(table(replayed, "dedup", "questions")) + len(table(replayed, "dedup", "rejected")) == elicited


def test_no_training_question_repeats_a_benchmark_item(replayed):
    from crescent_utils.benchmarks import items

    (name,) = runs.get_domain("arithmetic").benchmarks
    count = params.build_settings("evaluate", {}).benchmark_items
    held = [items.load_benchmark(name, split=split, items=count) for split in ("dev", "test")]
    assert len(held[1].items) == count
    assert not any(items.repeated_items(list(table(replayed, "vote", "qa")["question"]), held))


def test_the_reference_is_what_the_readme_says(replayed):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = make_readme.reference_table(replayed / "evaluate", REFERENCE)
    assert len(table.splitlines()) >= 4 and table in readme, "run python tests/make_readme.py"


def test_the_reference_is_small_and_names_no_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "outputs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    assert paths and sum(path.stat().st_size for path in paths) <= 10_000_000, "a sixth of it in git"
    for path in paths:
        content = path.read_bytes()
        assert str(ROOT).encode() not in content and str(Path.home()).encode() + b"/" not in content, path.name


def test_replay_leaves_the_git_tree_as_it_was(replayed):
    changed = subprocess.run(
        ["git", "status", "--porcelain", "outputs/reference"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert changed == ""


def test_a_tampered_number_in_a_committed_notebook_is_found(tmp_path):
    import nbformat

    notebook = nbformat.read(ROOT / "notebooks" / "01_elicit.ipynb", as_version=4)
    checked = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    nbformat.write(notebook, tmp_path / "as_committed.ipynb")
    last = checked[-1].outputs[0]
    assert any(character.isdigit() for character in last["text"])
    last["text"] = re.sub(r"\d", lambda found: str((int(found[0]) + 1) % 10), last["text"], count=1)
    nbformat.write(notebook, tmp_path / "tampered.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--nbval-lax", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    failed = re.findall(r"^FAILED (\S+)", ended.stdout, flags=re.MULTILINE)
    assert ended.returncode == 1 and len(failed) == 1 and "tampered.ipynb" in failed[0], ended.stdout
