"""What the tests of sweeps and rounds share: something small in the place of each of their runs."""

from __future__ import annotations

import shutil

import pytest
from shared import REFERENCE

from crescent_utils.cli import main


@pytest.fixture
def started(monkeypatch):
    """The names of the runs that were started, of which the second fails."""
    names = []

    def run_profile(parameters):
        names.append(parameters["run"])
        return 1 if len(names) == 2 else 0

    monkeypatch.setattr(main, "_run_profile", run_profile)
    return names


@pytest.fixture
def leave_tables(monkeypatch, tmp_path):
    """Let every run under `tmp_path` leave the reference run's tables of the `stages` that are named."""

    def use(*stages):
        def run_profile(parameters):
            for stage in stages:
                shutil.copytree(REFERENCE / stage, tmp_path / parameters["run"] / stage)
            return 0

        monkeypatch.setattr(main, "_run_profile", run_profile)

    return use
