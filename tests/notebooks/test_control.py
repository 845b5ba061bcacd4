"""The negative control through the notebooks: trained in 04, judged in 06, replayed and verified, on a tiny model."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import tiny
from shared import REFERENCE

from crescent_utils.cli import publish, verify
from crescent_utils.runs import folders, settings_from

CONTROL = "tuned_random_labels"
SMALL = {
    "random_label_control": True, "max_pairs": 12, "batch_size": 4, "micro_batch_size": 4, "epochs": 1.0,
    "student": "none", "other_runs": [],
    "benchmark_items": 6, "eval_max_tokens": 4, "eval_samples": 1, "eval_prompts": ["bare", "solve"], "resamples": 200,
}  # fmt: skip


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The run "live": the reference's questions and votes under the name of a tiny model, then 04 and 06 with it."""
    place = tmp_path_factory.mktemp("outputs")
    model = tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model")
    values = {**SMALL, "outputs": str(place), "run": "live", "engine": "transformers", "model": str(model)}
    for stage in ("elicit", "dedup"):
        shutil.copytree(REFERENCE / stage, place / "live" / stage)
    vote = folders.begin_stage("vote", settings_from("vote", values))
    for path in (REFERENCE / "vote").glob("*.parquet"):
        shutil.copyfile(path, vote.folder / path.name)
    vote.finish({"pairs": 1})
    for stage in ("finetune", "evaluate"):
        assert verify.replay_stage(stage, values) == ""
    for stage in ("elicit", "dedup", "vote"):
        shutil.copytree(place / "live" / stage, place / "replay" / stage)
    again = values | {"run": "replay", "replay_from": "live", "engine": "replay"}
    for stage in ("finetune", "evaluate"):
        assert verify.replay_stage(stage, again) == ""
    return place


def table(outputs, run, stage, name):
    return pd.read_parquet(outputs / run / stage / f"{name}.parquet")


def test_the_control_is_trained_beside_the_tuned_model_and_its_cost_counts(outputs):
    manifest = folders.read_manifest(outputs / "live", "finetune")
    assert list(manifest["models"]) == ["tuned", CONTROL] and len(set(manifest["models"].values())) == 2
    costs = [
        json.loads((outputs / "live" / "finetune" / place / "trained.json").read_text())["cost"]["seconds"]
        for place in (".", "control")
    ]
    assert manifest["cost"]["seconds"] == pytest.approx(sum(costs), abs=0.002) and min(costs) > 0
    logs = [table(outputs, "live", "finetune", name) for name in ("log", "control_log")]
    assert logs[0]["step"].tolist() == logs[1]["step"].tolist() and not logs[0].equals(logs[1])


def test_the_control_answers_greedily_and_stands_in_the_tables(outputs):
    scores = table(outputs, "live", "evaluate", "scores")
    asked = scores[scores["model"] == CONTROL].groupby(["prompt", "shots", "decoding"]).size()
    assert asked.to_dict() == {("bare", 0, "greedy"): 6}
    comparisons = table(outputs, "live", "evaluate", "comparisons")
    pairs = comparisons[["before", "after"]].drop_duplicates().to_records(index=False).tolist()
    assert pairs == [("base", "tuned"), ("base", CONTROL)]
    baselines = table(outputs, "live", "evaluate", "baselines").set_index("baseline")
    assert baselines.loc["random labels, greedy", "n"] == 6
    assert set(table(outputs, "live", "evaluate", "parts")["after"]) == {"tuned", CONTROL}
    assert list(folders.read_manifest(outputs / "live", "evaluate")["models"]) == ["base", "tuned", CONTROL]


def test_a_replay_and_verify_give_the_same(outputs):
    for stage in ("finetune", "evaluate"):
        for path in sorted((outputs / "live" / stage).glob("*.parquet")):
            pd.testing.assert_frame_equal(pd.read_parquet(path), table(outputs, "replay", stage, path.stem))
    for name in ("models", "counts"):
        live, replay = (folders.read_manifest(outputs / run, "finetune")[name] for run in ("live", "replay"))
        assert live == replay
    alone = outputs / "alone"
    for stage in ("finetune", "evaluate"):
        shutil.copytree(outputs / "live" / stage, alone / stage)
    shutil.copytree(outputs / "live" / "vote", alone / "vote")
    shutil.copyfile(outputs / "live" / "store.sqlite", alone / "store.sqlite")
    differences = verify.verify(alone)
    assert [difference.stage for difference in differences] == ["vote"], "the borrowed one, whose 02 is not there"


def test_a_replay_without_the_parameter_leaves_the_control_out(outputs):
    values = {**SMALL, "outputs": str(outputs), "run": "without", "replay_from": "live", "engine": "replay"}
    model = folders.read_manifest(outputs / "live", "vote")["parameters"]["model"]
    values |= {"model": model, "random_label_control": False}
    for stage in ("elicit", "dedup", "vote"):
        shutil.copytree(outputs / "live" / stage, outputs / "without" / stage)
    for stage in ("finetune", "evaluate"):
        assert verify.replay_stage(stage, values) == ""
    whole, without = (table(outputs, run, "evaluate", "scores") for run in ("live", "without"))
    expected = whole[whole["model"] != CONTROL].reset_index(drop=True)
    pd.testing.assert_frame_equal(without, expected)


def test_the_control_is_not_published(outputs, tmp_path):
    target = publish.export_run(outputs / "live", tmp_path / "out")
    weights = [path.read_bytes() for path in target.rglob("*.safetensors")]
    assert weights == [(outputs / "live" / "finetune" / "model" / "model.safetensors").read_bytes()]
