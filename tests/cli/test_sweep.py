"""Sweeps and rounds: which runs they make, what these share, and what is said about them; on the reference run's own tables."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny
from shared import ROOT

from crescent_utils.cli import main, rounds, sweep
from crescent_utils.figures import finetune
from crescent_utils.generation import models
from crescent_utils.generation.generator import STORE_NAME
from crescent_utils.generation.store import GenerationStore
from crescent_utils.runs import folders, params

REFERENCE = ROOT / "outputs" / "reference"
CPU = ROOT / "params" / "cpu.yaml"
ABLATIONS = ROOT / "params" / "ablations"


def jobs(tmp_path, overlays=("no_vote", "seed_augmentation"), seeds=(1, 2)):
    paths = [ABLATIONS / f"{name}.yaml" for name in overlays]
    return sweep.sweep_jobs([CPU], paths, seeds, [f"outputs={tmp_path}"])


# --- sweeps ---------------------------------------------------------------------------------------------------------------------


def test_a_sweep_is_the_profile_and_each_overlay_with_each_seed(tmp_path):
    made = jobs(tmp_path)
    assert [job.values["run"] for job in made] == [
        f"cpu/{name}-seed{seed}" for seed in (1, 2) for name in ("whole", "no_vote", "seed_augmentation")
    ]
    assert [job.values["seed"] for job in made] == [1, 1, 1, 2, 2, 2]
    assert made[1].values["votes"] == 1 and "votes" not in made[0].values
    assert made[0].folder == tmp_path / "cpu" / "whole-seed1"


@pytest.mark.parametrize(
    ("overlays", "seeds", "message"), [(["no_vote"] * 2, [1], "--overlays: no_vote"), ([], [3, 3], "--seeds: 3")]
)
def test_what_stands_twice_is_refused(tmp_path, overlays, seeds, message):
    with pytest.raises(params.ParameterError, match=message):
        jobs(tmp_path, overlays, seeds)


def test_every_ablation_can_be_swept(tmp_path):
    names = sorted(path.stem for path in ABLATIONS.glob("*.yaml"))
    assert {"no_dedup", "no_vote", "no_rewrite", "released_code", "votes_1", "votes_3", "votes_5", "votes_9", "data_size",
            "random_labels"} <= set(names)  # fmt: skip
    own = [job.values for job in jobs(tmp_path, names, [1])]
    without = [{k: v for k, v in values.items() if k not in ("run", "other_runs")} for values in own]
    assert all(without.count(values) == 1 for values in without), "each changes something, and something else"


def test_a_stage_in_common_is_sampled_once_and_seeds_keep_apart(tmp_path):
    made = jobs(tmp_path)
    made[0].folder.mkdir(parents=True)
    shutil.copyfile(REFERENCE / "store.sqlite", made[0].folder / STORE_NAME)
    assert sweep.share_samples(made[0], []) == 0
    with GenerationStore(made[0].folder / STORE_NAME, read_only=True) as store:
        everything = store.count()
    assert sweep.share_samples(made[1], made[:1]) == everything > 2000
    assert sweep.share_samples(made[2], made[:2]) == everything, "what two runs hold comes once"
    assert sweep.share_samples(made[3], made[:3]) == 0 and not made[3].folder.exists(), (
        "another seed asks other requests"
    )


def finish(job, stages):
    """Leave behind what finished stages leave: their manifest, and weights where they have any."""
    for stage in stages:
        made = folders.begin_stage(stage, params.build_settings(stage, params.parameters_of(stage, job.values)))
        if stage in ("finetune", "distil"):
            (made.folder / "model").mkdir(exist_ok=True)
            (made.folder / "model" / "model.safetensors").write_bytes(stage.encode())
        (made.folder / "config.json").write_text(job.values["run"])
        made.finish({"pairs": 1}, note="n")


def test_stages_in_common_are_done_once(tmp_path):
    whole, no_vote, seeded, *other_seed = jobs(tmp_path)
    assert sweep.share_stages(whole, []) == []
    finish(whole, params.STAGES)
    assert sweep.share_stages(no_vote, [whole]) == ["elicit", "dedup"], "its vote is another, and all that rests on it"
    finish(no_vote, params.STAGES[2:])
    assert sweep.share_stages(seeded, [whole, no_vote]) == ["elicit", "dedup", "vote", "finetune"]
    assert sweep.share_stages(seeded, [whole, no_vote]) == [], "they are there"
    assert sweep.share_stages(other_seed[0], [whole, no_vote, seeded]) == []
    manifest = folders.read_manifest(seeded.folder, "finetune")
    assert manifest["run"] == seeded.values["run"] and manifest["note"] == f"n; taken from {whole.values['run']}"
    weights = [job.folder / "finetune" / "model" / "model.safetensors" for job in (whole, seeded)]
    assert weights[0].samefile(weights[1])
    finish(seeded, ["distil"])
    assert (whole.folder / "distil" / "model" / "model.safetensors").read_bytes() == b"distil"
    assert not (whole.folder / "vote" / "config.json").samefile(seeded.folder / "vote" / "config.json")


def test_the_first_run_that_fails_ends_a_sweep(tmp_path):
    done = []

    def run_one(values):
        done.append(values["run"])
        return 1 if len(done) == 2 else 0

    assert sweep.run_sweep(jobs(tmp_path), run_one) == 1 and len(done) == 2
    assert sweep.run_sweep(jobs(tmp_path), lambda values: 0) == 0


def test_what_an_overlay_changed_is_paired_with_the_method_as_it_is(tmp_path):
    made = jobs(tmp_path, ["no_vote", "seed_augmentation"], [1, 2, 3])
    sources = {1: REFERENCE, 2: REFERENCE / "seed2", 3: REFERENCE / "seed3"}
    for job in made:  # real scores; an overlay is given those of another seed's run, under its own seed
        table = pd.read_parquet(
            sources[job.seed if job.overlay == "whole" else job.seed % 3 + 1] / "evaluate" / "scores.parquet"
        )
        (job.folder / "evaluate").mkdir(parents=True)
        table.assign(seed=job.seed).to_parquet(job.folder / "evaluate" / "scores.parquet")
    scores = sweep.sweep_scores(made)
    assert set(scores["model"]) == {"base", "tuned", "student", "student_tuned", "tuned_no_vote", "student_tuned_no_vote",
                                    "tuned_seed_augmentation", "student_seed"}  # fmt: skip
    table = sweep.sweep_comparisons(scores, resamples=200).query("decoding == 'greedy'").set_index("before")
    assert (table["seeds"] == 3).all() and (table["n"] == 350).all()
    row = table.loc["tuned_no_vote"]
    assert row["after"] == "tuned"
    by_hand = scores.query("decoding == 'greedy'").groupby("model")["symbolic"].mean()
    assert row["difference"] == pytest.approx(by_hand["tuned"] - by_hand["tuned_no_vote"])
    assert table.loc["student_seed", "after"] == "student_tuned"


def test_the_commands_check_before_anything_runs(tmp_path, capsys):
    assert (
        main.main(["sweep", str(CPU), "--overlays", str(ABLATIONS / "no_vote.yaml"), "--seeds", "1", "2", "--list"])
        == 0
    )
    assert capsys.readouterr().out.split() == [
        "cpu/whole-seed1",
        "cpu/no_vote-seed1",
        "cpu/whole-seed2",
        "cpu/no_vote-seed2",
    ]
    assert main.main(["rounds", str(CPU), "--rounds", "2", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["cpu/round1", "cpu/round2"]
    assert main.main(["rounds", str(CPU), "--rounds", "2", "-p", "engine=replay"]) == 2
    assert "has no weights to go on from" in capsys.readouterr().err
    assert main.main(["sweep", str(CPU), "--overlays", str(tmp_path / "none.yaml")]) == 2
    assert main.main(["publish", "reference", "--public"]) == 2


# --- rounds ---------------------------------------------------------------------------------------------------------------------


def test_each_round_goes_on_from_the_model_that_the_one_before_tuned(tmp_path):
    chain = rounds.round_parameters([CPU], [f"outputs={tmp_path}", "model=bundled"], 3)
    assert [values["run"] for values in chain] == ["cpu/round1", "cpu/round2", "cpu/round3"]
    assert chain[0]["model"] == "bundled"
    assert [Path(values["model"]) for values in chain[1:]] == [
        tmp_path / f"cpu/round{n}/finetune/model" for n in (1, 2)
    ]
    for bad in (0, -1):
        with pytest.raises(params.ParameterError, match="--rounds"):
            rounds.round_parameters([CPU], [], bad)
    seen = []
    assert (
        rounds.run_rounds(chain, lambda values: (seen.append(values["run"]), len(seen) == 2)[1]) == 1 and len(seen) == 2
    )


def test_the_monitors_of_the_reference_run(tmp_path):
    table = rounds.round_monitors([REFERENCE, REFERENCE], tmp_path).set_index("round")
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet").query("decoding == 'greedy'")
    assert table.loc[0, "accuracy"] == pytest.approx(scores.query("model == 'base'")["symbolic"].mean())
    assert table.loc[1, "accuracy"] == pytest.approx(scores.query("model == 'tuned'")["symbolic"].mean())
    assert (
        (table["low"] < table["accuracy"]).all()
        and (table["accuracy"] < table["high"]).all()
        and (table["n"] == 350).all()
    )
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
    assert 0.5 < table.loc[1, "right_low"] < table.loc[1, "right"] < table.loc[1, "right_high"] < 0.7, (
        "some four in ten are wrong"
    )
    assert table.loc[1, "labels"] == counts["vote"]["kept"]
    assert math.isnan(table.loc[1, "distance"]) and math.isnan(table.loc[0, "yield"])
    pd.testing.assert_series_equal(table.loc[1], table.loc[2], check_names=False)


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
    figure, text = finetune.rounds_panels(rounds.round_monitors([REFERENCE], tmp_path))
    assert text.startswith("greedy accuracy 38.9% -> 41.1% (n = 350); labels that are right 58.4% (n = 209); ")
    assert text.endswith("distance from the base 0.0%"), "the reference holds no weights of round 1"
    assert len(figure._repr_png_()) > 5000
    assert finetune.rounds_panels(pd.DataFrame({"round": []}))[1] == "rounds: no data"
