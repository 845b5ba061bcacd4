"""Replays: what a run lacks is read from the run that it replays; what does not belong together is not mixed."""

from __future__ import annotations

import pytest

from crescent_utils.runs import contents, folders, layout, params, replays

RECORDED = {"votes": 8, "max_rewrites": 2}  # what the tests change


def settings_of(stage, outputs, run="mine", engine="replay", **values):
    names = {"outputs": str(outputs), "run": run, "engine": engine, "replay_from": "done"}
    return params.build_settings(stage, {**names, **params.parameters_of(stage, {**RECORDED, **values})})


def complete(outputs, run, engine="replay", stages=params.STAGES, **values):
    for stage in stages:
        folders.begin_stage(stage, settings_of(stage, outputs, run, engine, **values)).finish({})


@pytest.fixture
def outputs(tmp_path):
    complete(tmp_path, "done", engine="transformers")
    return tmp_path


@pytest.mark.parametrize("stage", params.STAGES)
def test_a_replay_begins_anywhere_and_a_live_run_does_not(outputs, stage):
    begun = folders.begin_stage(stage, settings_of(stage, outputs))
    assert set(begun.upstream) == set(layout.UPSTREAM[stage])
    assert replays.borrowed_stages(stage, begun.settings) == replays.all_stages_before(stage, begun.settings)
    begun.finish({})
    assert contents.is_current(stage, begun.settings)
    if layout.UPSTREAM[stage]:
        with pytest.raises(layout.RunError, match="is not complete"):
            folders.begin_stage(stage, settings_of(stage, outputs, "live", "transformers"))


def test_what_the_run_has_of_its_own_comes_first(outputs):
    complete(outputs, "mine", stages=["elicit", "dedup"])
    settings = settings_of("evaluate", outputs)
    assert layout.run_of_stage("dedup", settings) == outputs / "mine"
    assert layout.run_of_stage("vote", settings) == outputs / "done"
    assert replays.borrowed_stages("evaluate", settings) == ["vote", "finetune", "distil"]
    assert replays.all_stages_before("evaluate", settings) == ["elicit", "dedup", "vote", "finetune", "distil"]


def test_two_histories_are_not_mixed(outputs):
    complete(outputs, "mine", stages=["vote"], votes=3)
    folders.begin_stage("finetune", settings_of("finetune", outputs)).finish({})  # made from that vote: 04 checks it
    with pytest.raises(layout.RunError, match=r"03_vote of its own with votes = 3 \(recorded: 8\).*05_distil"):
        folders.begin_stage("evaluate", settings_of("evaluate", outputs))
    folders.begin_stage("evaluate", settings_of("evaluate", outputs, student="none"))


def test_what_a_replay_changed_is_named_without_places_and_paces(outputs):
    assert replays.changes_of_replay(settings_of("dedup", outputs, max_rewrites=0, concurrency=2)) == [
        "max_rewrites = 0 (recorded: 2)"
    ]
    complete(outputs, "mine", stages=["dedup"], max_rewrites=0)
    assert replays.changes_of_replay(settings_of("vote", outputs, votes=9)) == [
        "votes = 9 (recorded: 8)",
        "02_dedup of this run has max_rewrites = 0 (recorded: 2)",
    ]
    assert replays.changes_of_replay(settings_of("vote", outputs, engine="transformers", votes=9)) == []
