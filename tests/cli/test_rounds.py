"""Rounds: each goes on from the model before it, and what is watched; on the reference run's own tables."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny
from shared import REFERENCE, ROOT

from crescent_utils.benchmarks import items
from crescent_utils.cli import main, rounds
from crescent_utils.figures import finetune
from crescent_utils.generation import models
from crescent_utils.runs import domains, folders, params

CPU = ROOT / "params" / "cpu.yaml"
MODELS = ("base", "tuned")
ARITHMETIC = domains.get_domain("arithmetic")


def test_each_round_goes_on_from_the_model_that_the_one_before_tuned(tmp_path):
    planned = rounds.plan_rounds([CPU], [f"outputs={tmp_path}", "model=bundled"], 3)
    assert [parameters["run"] for parameters in planned] == ["cpu/round1", "cpu/round2", "cpu/round3"]
    assert planned[0]["model"] == "bundled"
    tuned = [tmp_path / f"cpu/round{number}/finetune/model" for number in (1, 2)]
    assert [Path(parameters["model"]) for parameters in planned[1:]] == tuned
    for count in (0, -1):
        with pytest.raises(params.ParameterError, match="--rounds"):
            rounds.plan_rounds([CPU], [], count)


def test_later_rounds_of_lmsi_sample_at_its_higher_temperature():
    lmsi = ROOT / "params" / "lmsi_cpu.yaml"
    temperatures = [parameters.get("vote_temperature") for parameters in rounds.plan_rounds([lmsi], [], 3)]
    assert temperatures == [0.7, 1.2, 1.2]
    fixed = rounds.plan_rounds([lmsi], ["vote_temperature=0.9"], 2)
    assert [parameters["vote_temperature"] for parameters in fixed] == [0.9, 0.9]
    crescent = rounds.plan_rounds([CPU], [], 2)
    assert crescent[0].get("vote_temperature") == crescent[1].get("vote_temperature"), "Crescent's is left alone"


def test_accumulating_rounds_learn_from_all_rounds_before_the_newest_first():
    planned = rounds.plan_rounds([CPU], [], 3, accumulate=True)
    names = [f"cpu_accumulating/round{number}" for number in (1, 2, 3)]
    assert [parameters["run"] for parameters in planned] == names, "beside the rounds that replace their data"
    assert [parameters.get("accumulate_runs", []) for parameters in planned] == [[], names[:1], names[1::-1]]
    replacing = rounds.plan_rounds([CPU], [], 3)
    assert not any("accumulate_runs" in parameters for parameters in replacing)
    same = [name for name in replacing[2] if name not in ("run", "model")]
    assert all(planned[2][name] == replacing[2][name] for name in same), "they differ in nothing but the data"
    named = rounds.plan_rounds([CPU], ["run=mine", "accumulate_runs=[cpu]"], 2, accumulate=True)
    assert named[1]["run"] == "mine/round2" and named[1]["accumulate_runs"] == ["mine/round1", "cpu"]


def test_each_round_makes_its_own_exemplars_with_its_own_model():
    planned = rounds.plan_rounds([CPU], ["vote_shots=own"], 2)
    assert [parameters["vote_shots"] for parameters in planned] == ["own", "own"]
    settings = [params.build_settings("vote", params.parameters_of("vote", values)) for values in planned]
    assert settings[0].model != settings[1].model and folders.run_folder(settings[0]) != folders.run_folder(settings[1])


def test_the_first_round_that_fails_ends_it(tmp_path, started):
    assert main.main(["rounds", str(CPU), "--rounds", "3", "-p", f"outputs={tmp_path}"]) == 1
    assert started == ["cpu/round1", "cpu/round2"]


def test_the_command_checks_before_anything_runs(capsys):
    assert main.main(["rounds", str(CPU), "--rounds", "2", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["cpu/round1", "cpu/round2"]
    assert main.main(["rounds", str(CPU), "--rounds", "2", "--accumulate", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["cpu_accumulating/round1", "cpu_accumulating/round2"]
    assert main.main(["rounds", str(CPU), "--rounds", "2", "-p", "engine=replay"]) == 2
    assert "has no weights to go on from" in capsys.readouterr().err


def headline_scores():
    """The reference's greedy answers to the prompt that decides, of its first seed."""
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet")
    return scores.query("decoding == 'greedy' and prompt == 'bare' and seed == 1")


def test_the_command_writes_and_prints_what_was_watched(tmp_path, leave_tables, capsys):
    leave_tables("elicit", "dedup", "vote", "evaluate")
    model = tiny.model_folder(tmp_path / "base", layers=1)
    changes = ["-p", f"outputs={tmp_path}", "-p", f"model={model}"]
    assert main.main(["rounds", str(CPU), "--rounds", "2", *changes]) == 0
    before, after = (f"{100 * headline_scores().query('model == @model')['symbolic'].mean():.1f}%" for model in MODELS)
    assert f"greedy accuracy {before} -> {after} -> {after} (n = 1500)" in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "cpu" / "rounds.parquet")) == 3
    assert (tmp_path / "cpu" / "rounds.png").stat().st_size > 5000


def test_the_monitors_of_the_reference_run(tmp_path):
    table = rounds.round_monitors([REFERENCE, REFERENCE], tmp_path, ARITHMETIC).set_index("round")
    scores = headline_scores()
    assert table.loc[0, "accuracy"] == pytest.approx(scores.query("model == 'base'")["symbolic"].mean())
    assert table.loc[1, "accuracy"] == pytest.approx(scores.query("model == 'tuned'")["symbolic"].mean())
    assert table["accuracy"].between(table["low"], table["high"], inclusive="neither").all()
    assert (table["n"] == 1500).all()
    counts = {stage: folders.read_manifest(REFERENCE, stage)["counts"] for stage in ("elicit", "dedup", "vote")}
    assert table.loc[1, "yield"] == pytest.approx(counts["elicit"]["kept"] / counts["elicit"]["sampled"])
    votes = pd.concat(
        [pd.read_parquet(REFERENCE / "vote" / f"{name}.parquet").drop_duplicates("id") for name in ("qa", "rejected")]
    )
    assert len(votes) == counts["vote"]["sampled"], "abstentions count"
    assert table.loc[1, "agreement"] == pytest.approx(votes["agreement"].mean())
    assert table.loc[1, "length"] == pytest.approx(
        pd.read_parquet(REFERENCE / "vote" / "paths.parquet")["path"].map(len).mean()
    )
    kept = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")["correct"].astype(bool)
    assert table.loc[1, "right"] == pytest.approx(kept.mean())
    assert 0.5 < table.loc[1, "right_low"] < table.loc[1, "right"] < table.loc[1, "right_high"] < 0.85
    assert table.loc[1, "labels"] == counts["vote"]["kept"]
    assert math.isnan(table.loc[1, "distance"]) and math.isnan(table.loc[0, "yield"])
    pd.testing.assert_series_equal(table.loc[1], table.loc[2], check_names=False)


def self_bias_by_counting():
    """How often two paths of the reference's vote give one answer, minus how often a path is right; readable ones."""
    tables = {name: pd.read_parquet(REFERENCE / "vote" / f"{name}.parquet") for name in ("paths", "qa", "rejected")}
    texts = pd.concat([tables["qa"], tables["rejected"]]).set_index("id")["question"].to_dict()
    differences = []
    for number, given in tables["paths"].groupby("question_id")["answer"]:
        gold = items.arithmetic_gold(texts[number])
        for answer in given.dropna():
            differences.append(((given == answer).sum() - 1) / (len(given) - 1) - (answer == gold))
    return sum(differences) / len(differences)


def test_the_self_bias_of_each_round_is_over_all_its_questions(tmp_path):
    table = rounds.round_monitors([REFERENCE], tmp_path, ARITHMETIC).set_index("round")
    assert table.loc[1, "self_bias"] == pytest.approx(self_bias_by_counting(), abs=1e-3)
    assert math.isnan(table.loc[0, "self_bias"]), "the untrained model has no vote"
    unknown = rounds.round_monitors([REFERENCE], tmp_path, domains.get_domain("math_word_problems"))
    assert unknown["self_bias"].isna().all(), "where only what won has a known right answer there is nothing to say"


def test_the_monitors_of_lmsi_leave_out_what_no_model_made(tmp_path):
    for stage in ("vote", "finetune", "evaluate"):  # 01 and 02 are left out: its questions are given, unlabelled
        shutil.copytree(REFERENCE / stage, tmp_path / stage)
    manifest = folders.read_manifest(REFERENCE, "vote")
    folders.write_json(tmp_path / "vote" / "manifest.json", manifest | {"upstream": {}})
    (lmsi, crescent) = (
        rounds.round_monitors([folder], tmp_path, ARITHMETIC).loc[1] for folder in (tmp_path, REFERENCE)
    )
    made_up = ["yield", "diversity", "words"]
    assert lmsi[made_up].isna().all() and crescent[made_up].notna().all()
    pd.testing.assert_series_equal(lmsi.drop(made_up), crescent.drop(made_up))


def test_the_table_and_the_figure_say_which_data_was_learned_from(tmp_path):
    for number, names in ((1, []), (2, ["cpu/round1"])):
        folder = tmp_path / f"round{number}"
        for stage in ("elicit", "dedup", "vote", "evaluate"):
            (folder / stage).parent.mkdir(parents=True, exist_ok=True)
            (folder / stage).symlink_to(REFERENCE / stage)
        training = {"parameters": {"accumulate_runs": names}, "counts": {"pairs": 155 * number}}
        folders.write_json(folder / "finetune" / "manifest.json", training)
    table = rounds.round_monitors([tmp_path / "round1", tmp_path / "round2"], tmp_path, ARITHMETIC)
    assert (table["data"] == "accumulated").all() and table["pairs"].tolist()[1:] == [155, 310]
    assert finetune.rounds_panels(table)[1].startswith("data accumulated; greedy accuracy")
    first = rounds.round_monitors([tmp_path / "round1"], tmp_path, ARITHMETIC)
    assert (first["data"] == "replaced").all() and math.isnan(first["pairs"][0])


def test_the_distance_of_two_models_is_that_of_their_weights(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    one = tiny.model_folder(tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    weights = load_file(two / "model.safetensors")
    changed = {name: value + 0.01 * torch.ones_like(value) for name, value in weights.items()}
    save_file(changed, two / "model.safetensors", metadata={"format": "pt"})
    flat = torch.cat([value.double().flatten() for value in weights.values()])
    after = torch.cat([value.double().flatten() for value in load_file(two / "model.safetensors").values()])
    assert rounds.weight_distance(one, two) == pytest.approx(float((after - flat).norm() / flat.norm()), rel=1e-9)
    assert rounds.weight_distance(one, one) == 0
    with pytest.raises(models.ModelError, match="one architecture"):
        rounds.weight_distance(one, tiny.model_folder(tmp_path / "more", layers=5))


def test_the_figure_says_its_numbers(tmp_path):
    figure, text = finetune.rounds_panels(rounds.round_monitors([REFERENCE], tmp_path, ARITHMETIC))
    shares = [headline_scores().query("model == @model")["symbolic"].mean() for model in MODELS]
    labels = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")["correct"].astype(bool)
    assert text.startswith(
        f"data replaced; greedy accuracy {100 * shares[0]:.1f}% -> {100 * shares[1]:.1f}% (n = 1500); "
        f"labels that are right {100 * labels.mean():.1f}% (n = {len(labels)}); "
    )
    assert figure.get_suptitle() == "Over the rounds, data replaced"
    assert text.endswith("distance from the base 0.0%"), "the reference holds no weights of round 1"
    assert len(figure._repr_png_()) > 5000
    assert finetune.rounds_panels(pd.DataFrame({"round": []}))[1] == "rounds: no data"
