"""Each notebook alone: opened first in a fresh clone, in any order; and what a replay says that it cannot answer."""

from __future__ import annotations

import pandas as pd
import pytest
from shared import REFERENCE, ROOT

from crescent_utils import runs
from crescent_utils.cli.kernel import Kernel


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with Kernel(tmp_path_factory.mktemp("kernel") / "kernel.log") as started:
        yield started


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


def test_a_parameter_that_the_store_cannot_answer_is_named_with_what_to_do(kernel, outputs):
    failure = execute(kernel, outputs, "vote", vote_temperature=0.9)
    assert "does not hold" in failure and "vote_temperature = 0.9 (recorded: 0.7)" in failure
    assert "take back" in failure and "engine: auto" in failure and "`run`" in failure


def test_a_vote_of_ones_own_is_not_mixed_with_the_recorded_training(kernel, outputs):
    assert execute(kernel, outputs, "vote", votes=3) == ""
    failure = execute(kernel, outputs, "evaluate")
    assert "03_vote of its own with votes = 3 (recorded: 8)" in failure
    assert "notebooks/04_finetune.ipynb first" in failure and "03_vote again without the change" in failure
    assert execute(kernel, outputs, "vote") == ""  # as it says
    assert execute(kernel, outputs, "finetune") == ""
