"""Each notebook alone: opened first in a fresh clone, in any order; what a replay cannot answer; what a session goes on
with; and the experiments that the notebooks offer.
"""

from __future__ import annotations

import ast
import re

import nbformat
import pandas as pd
import papermill
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from shared import REFERENCE, ROOT, experiments, parameters_in

from crescent_utils import runs
from crescent_utils.runs import params


@pytest.fixture
def outputs(tmp_path):
    """A folder of runs that holds the reference alone, as in a fresh clone."""
    (tmp_path / "reference").symlink_to(REFERENCE)
    return tmp_path


def execute(kernel, outputs, stage, **parameters):
    """Execute one notebook; return how it failed, "" if not."""
    name = f"{runs.NOTEBOOKS[stage]}.ipynb"
    return kernel.execute(ROOT / "notebooks" / name, outputs / name, {"outputs": str(outputs), **parameters}, stage)


@pytest.mark.parametrize("stage", runs.STAGES)
def test_a_notebook_that_is_opened_first_replays_by_itself(kernel, outputs, stage):
    assert execute(kernel, outputs, stage) == ""
    assert [path.name for path in (outputs / "replay").iterdir()] == [stage]
    for path in (REFERENCE / stage).glob("*.parquet"):
        replayed = pd.read_parquet(outputs / "replay" / stage / path.name)
        pd.testing.assert_frame_equal(replayed, pd.read_parquet(path), rtol=0, atol=2e-4)


def test_papermill_alone_replays_a_notebook_on_a_kernel_of_its_own(outputs):
    source, target = ROOT / "notebooks" / "01_elicit.ipynb", outputs / "01.ipynb"
    values = {"outputs": str(outputs)}
    papermill.execute_notebook(source, target, parameters=values, progress_bar=False, kernel_name="python3")
    replayed = pd.read_parquet(outputs / "replay" / "elicit" / "questions.parquet")
    pd.testing.assert_frame_equal(replayed, pd.read_parquet(REFERENCE / "elicit" / "questions.parquet"))


def test_a_name_that_no_notebook_has_stops_papermill_and_one_of_another_notebook_does_not(kernel, outputs):
    failure = execute(kernel, outputs, "elicit", elicit_sample=250)
    assert "ParameterError: elicit_sample: no notebook" in failure and "Did you mean 'elicit_samples'?" in failure
    assert not (outputs / "replay").exists()
    assert execute(kernel, outputs, "elicit", votes=3) == ""


def test_a_name_that_no_notebook_has_in_the_parameters_cell_stops_the_notebook(outputs, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "01_elicit.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = cell.source.replace("elicit_samples: int = 1000", "elicit_sample: int = 250")
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(outputs)}})
    with pytest.raises(CellExecutionError, match="elicit_sample: no notebook .* Did you mean 'elicit_samples'"):
        client.execute()


def test_a_parameter_that_the_store_cannot_answer_is_named_with_what_to_do(kernel, outputs):
    failure = execute(kernel, outputs, "vote", vote_temperature=0.9)
    assert "does not hold" in failure and "vote_temperature = 0.9 (recorded: 0.8)" in failure
    assert "take back" in failure and "engine: auto" in failure and "`run`" in failure
    assert "profile = 'params/replay.yaml'" in failure


def test_a_vote_of_ones_own_is_not_mixed_with_the_recorded_training(kernel, outputs):
    assert execute(kernel, outputs, "vote", min_agreement=0.75) == ""
    failure = execute(kernel, outputs, "evaluate")
    assert "03_vote of its own with min_agreement = 0.75 (recorded: 0.58)" in failure
    assert "notebooks/04_finetune.ipynb first" in failure and "03_vote again without the change" in failure
    assert execute(kernel, outputs, "vote") == ""  # as it says
    assert execute(kernel, outputs, "finetune") == ""


# ---- a session


def execute_by_hand(place, stage, **lines):
    """Execute a notebook as a person does who changed lines of its parameters cell, each notebook on its own kernel."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{runs.NOTEBOOKS[stage]}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in lines.items():
        cell.source, count = re.subn(rf"^({name}: \w+) = .*$", rf"\1 = {value!r}", cell.source, flags=re.MULTILINE)
        assert count == 1
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    return "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )


def test_a_notebook_goes_on_with_the_run_that_01_began_in_this_session(outputs, monkeypatch):
    monkeypatch.setenv("CRESCENT_CACHE", str(outputs / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (outputs / "mine").symlink_to(outputs / "reference")  # a run of one's own: the recorded one is not gone on with
    execute_by_hand(outputs, "elicit", run="early", outputs=str(outputs), replay_from="mine")
    printed = execute_by_hand(outputs, "finetune")
    assert "goes on with the run 'early' that 01_elicit began in this session" in printed
    assert "read from the recorded run 'mine', since run 'early' has none: 02_dedup, 03_vote" in printed
    assert runs.read_manifest(outputs / "early", "finetune") is not None


# ---- what the notebooks offer to try


@pytest.mark.parametrize("stage", runs.STAGES)
def test_the_experiment_in_a_replay_works_and_leaves_the_default_run_alone(kernel, outputs, stage):
    code, _ = experiments(stage)
    values = parameters_in(code)
    source = ROOT / "notebooks" / f"{runs.NOTEBOOKS[stage]}.ipynb"
    if values is None:  # lines for a cell at the end
        notebook = nbformat.read(source, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell(code))
        source = outputs / "with_a_cell.ipynb"
        nbformat.write(notebook, source)
    else:
        assert values["run"] != "replay" and len(values) > 1
        params.build_settings(stage, values)
    given = {"outputs": str(outputs), **(values or {"run": "tried"})}
    assert kernel.execute(source, outputs / "tried.ipynb", given, stage) == ""
    assert sorted(path.name for path in outputs.iterdir() if path.is_dir()) == sorted(["reference", given["run"]])


def test_the_live_experiments_are_one_run_that_is_begun_in_01():
    for stage in runs.STAGES:
        values = parameters_in(experiments(stage)[1])
        settings = runs.settings_from(stage, values)
        assert (settings.profile, settings.run, settings.engine) == ("params/cpu_small.yaml", "mine", "auto")
        assert len(values) > 2 and ast.literal_eval(repr(values)) == values
