"""Sweeps: which runs they make, what these share, and what is said about them; on the reference run's own tables."""

from __future__ import annotations

import json
import re
import shutil

import pandas as pd
import pytest
import yaml
from shared import REFERENCE, ROOT

from crescent_utils import runs
from crescent_utils.cli import main, sweep
from crescent_utils.evaluate import claims
from crescent_utils.generation.generator import STORE_NAME
from crescent_utils.generation.store import GenerationStore
from crescent_utils.runs import folders, params

CPU = ROOT / "params" / "cpu.yaml"
ABLATIONS = ROOT / "params" / "ablations"


def planned(tmp_path, overlays=("no_vote", "seed_augmentation"), seeds=(1, 2), *more):
    paths = [ABLATIONS / f"{name}.yaml" for name in overlays]
    return sweep.plan_sweep([CPU], paths, seeds, [f"outputs={tmp_path}", "student=without_4_layers", *more])


def test_a_sweep_is_the_profile_and_each_overlay_with_each_seed(tmp_path):
    sweep_runs = planned(tmp_path)
    assert [run.parameters["run"] for run in sweep_runs] == [
        f"cpu/{name}-seed{seed}" for seed in (1, 2) for name in ("whole", "no_vote", "seed_augmentation")
    ]
    assert [run.parameters["seed"] for run in sweep_runs] == [1, 1, 1, 2, 2, 2]
    assert sweep_runs[1].parameters["votes"] == 1 and "votes" not in sweep_runs[0].parameters
    assert sweep_runs[0].folder == tmp_path / "cpu" / "whole-seed1"


@pytest.mark.parametrize(
    ("overlays", "seeds", "message"), [(["no_vote"] * 2, [1], "--overlays: no_vote"), ([], [3, 3], "--seeds: 3")]
)
def test_what_is_given_twice_is_refused(tmp_path, overlays, seeds, message):
    with pytest.raises(params.ParameterError, match=message):
        planned(tmp_path, overlays, seeds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_prompts": ["solve", "bare"]}, "eval_prompts: the first is 'solve', of the whole 'bare'"),
        ({"shots": [5]}, r"shots: \[5\] have none in common with \[0\] of the whole"),
        ({"evaluate_on": ["gsm8k"]}, r"evaluate_on: \['gsm8k'\] have none in common with \['two_numbers"),
        (
            {"domain": "three_terms"},
            "domain: 'three_terms', whose benchmarks .*three_terms_25_sums.* have none in common",
        ),
        ({"benchmark_seed": 3}, "benchmark_seed: 3, of the whole 2025"),
        ({"benchmark_items": 20}, "benchmark_items: 20, of the whole 1500"),
        ({"benchmark_split": "dev"}, "benchmark_split: 'dev', of the whole 'test'"),
        ({"system_prompt": "Think."}, "system_prompt: 'Think.', of the whole ''"),
        ({"eval_temperature": 0.9}, "eval_temperature: 0.9, of the whole 0.7"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_overlay_that_is_judged_otherwise_is_refused_before_anything_runs(
    tmp_path, started, capsys, change, message
):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump(change))
    assert main.main(["sweep", str(CPU), "--overlays", str(overlay), "-p", f"outputs={tmp_path}"]) == 2
    assert started == []
    told = capsys.readouterr().err
    assert re.search(f"overlay mine: {message}", told) and "take this parameter out, or set it for all runs" in told


@pytest.mark.parametrize(
    "change",
    [{"eval_prompts": ["bare"]}, {"shots": [0, 5]}, {"solve_prompt": "{question}!"}, {"eval_samples": 0}],
    ids=str,
)
def test_what_does_not_touch_the_comparison_may_differ(tmp_path, change):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump(change))
    whole, mine = sweep.plan_sweep([CPU], [overlay], [1], [f"outputs={tmp_path}"])
    assert whole.settings("evaluate").eval_prompts[0] == "bare" and change.items() <= mine.parameters.items()
    if "solve_prompt" in change:
        with pytest.raises(params.ParameterError, match="overlay mine: solve_prompt: '{question}!', of the whole ''"):
            sweep.plan_sweep([CPU], [overlay], [1], [f"outputs={tmp_path}", "eval_prompts=[solve]"])


def test_models_without_a_row_in_common_are_named(tmp_path):
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet").query("model in ('base', 'tuned')")
    other = scores.query("model == 'tuned'").assign(model="tuned_other", shots=5)
    with pytest.raises(runs.RunError, match="tuned_other and tuned .*no row in common"):
        sweep.sweep_comparisons(pd.concat([scores, other]), 100)
    with pytest.raises(runs.RunError, match="no two models to compare"):
        sweep.sweep_comparisons(scores.query("model == 'base'"), 100)


def test_every_ablation_can_be_swept(tmp_path):
    names = sorted(path.stem for path in ABLATIONS.glob("*.yaml"))
    assert {"no_dedup", "no_vote", "no_rewrite", "released_code", "votes_1", "data_size"} <= set(names)
    parameters = [run.parameters for run in planned(tmp_path, names, [1])]
    changes = [{k: v for k, v in values.items() if k not in ("run", "other_runs")} for values in parameters]
    assert all(changes.count(values) == 1 for values in changes), "each changes something, and something else"


def test_a_stage_in_common_is_sampled_once_and_seeds_keep_apart(tmp_path):
    sweep_runs = planned(tmp_path)
    sweep_runs[0].folder.mkdir(parents=True)
    shutil.copyfile(REFERENCE / "store.sqlite", sweep_runs[0].folder / STORE_NAME)
    assert sweep.share_samples(sweep_runs[0], []) == 0
    with GenerationStore(sweep_runs[0].folder / STORE_NAME, read_only=True) as store:
        everything = store.count()
    assert sweep.share_samples(sweep_runs[1], sweep_runs[:1]) == everything > 2000
    assert sweep.share_samples(sweep_runs[2], sweep_runs[:2]) == everything, "what two runs hold comes once"
    assert sweep.share_samples(sweep_runs[3], sweep_runs[:3]) == 0, "another seed asks other requests"
    assert not sweep_runs[3].folder.exists()


def finish(run, stages):
    """Leave behind what finished stages leave: their manifest, and weights where they have any."""
    for stage_name in stages:
        stage = folders.begin_stage(stage_name, run.settings(stage_name))
        if stage_name in ("finetune", "distil"):
            (stage.folder / "model").mkdir(exist_ok=True)
            (stage.folder / "model" / "model.safetensors").write_bytes(stage_name.encode())
        (stage.folder / "config.json").write_text(run.parameters["run"])
        stage.finish({"pairs": 1}, note="n")


def test_stages_in_common_are_done_once(tmp_path):
    whole, no_vote, seeded, *other_seed = planned(tmp_path)
    assert sweep.share_stages(whole, []) == []
    finish(whole, params.STAGES)
    assert sweep.share_stages(no_vote, [whole]) == ["elicit", "dedup"], "its vote is another, and all that rests on it"
    finish(no_vote, params.STAGES[2:])
    assert sweep.share_stages(seeded, [whole, no_vote]) == ["elicit", "dedup", "vote", "finetune"]
    assert sweep.share_stages(seeded, [whole, no_vote]) == [], "they are there"
    assert sweep.share_stages(other_seed[0], [whole, no_vote, seeded]) == []
    manifest = folders.read_manifest(seeded.folder, "finetune")
    assert manifest["run"] == seeded.parameters["run"]
    assert manifest["note"] == f"n; taken from {whole.parameters['run']}"
    weights = [run.folder / "finetune" / "model" / "model.safetensors" for run in (whole, seeded)]
    assert weights[0].samefile(weights[1])
    finish(seeded, ["distil"])
    assert (whole.folder / "distil" / "model" / "model.safetensors").read_bytes() == b"distil"
    assert not (whole.folder / "vote" / "config.json").samefile(seeded.folder / "vote" / "config.json")


def test_the_first_run_that_fails_ends_a_sweep(tmp_path, started):
    assert main.main(["sweep", str(CPU), "--seeds", "1", "2", "3", "-p", f"outputs={tmp_path}"]) == 1
    assert started == ["cpu/whole-seed1", "cpu/whole-seed2"]


def test_what_an_overlay_changed_is_paired_with_the_method_as_it_is(tmp_path):
    sweep_runs = planned(tmp_path, ["no_vote", "seed_augmentation"], [1, 2, 3])
    sources = {1: REFERENCE, 2: REFERENCE / "seed2", 3: REFERENCE / "seed3"}
    of_students = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet").query("model.str.startswith('student')")
    for run in sweep_runs:  # real scores; an overlay is given those of another seed's run, under its own seed
        source = sources[run.seed if run.overlay == "whole" else run.seed % 3 + 1]
        scores = pd.read_parquet(source / "evaluate" / "scores.parquet").query("model in ('base', 'tuned')")
        scores = pd.concat(
            [scores, of_students], ignore_index=True
        )  # the reference trained one in its first seed alone
        greedy = scores.query("model == 'base' and decoding == 'greedy'")  # and a control, that learned nothing
        scores = pd.concat([scores, greedy.assign(model="tuned_random_labels")], ignore_index=True)
        (run.folder / "evaluate").mkdir(parents=True)
        scores.assign(seed=run.seed).to_parquet(run.folder / "evaluate" / "scores.parquet")
    scores = sweep.sweep_scores(sweep_runs)
    own_models = {"base", "tuned", "tuned_random_labels", "student", "student_tuned"}
    overlay_models = {"tuned_no_vote", "student_tuned_no_vote", "tuned_seed_augmentation", "student_seed"}
    assert set(scores["model"]) == own_models | overlay_models
    comparisons = sweep.sweep_comparisons(scores, 200).query("decoding == 'greedy'").set_index("before")
    control = comparisons[comparisons["after"] == "tuned_random_labels"]
    assert control.index.tolist() == ["base"] and control["difference"].tolist() == [0]
    assert (comparisons["seeds"] == 3).all() and (comparisons["n"] == 1500).all()
    no_vote = comparisons.loc["tuned_no_vote"]
    assert no_vote["after"] == "tuned"
    accuracy = scores.query("decoding == 'greedy'").groupby("model")["symbolic"].mean()
    assert no_vote["difference"] == pytest.approx(accuracy["tuned"] - accuracy["tuned_no_vote"])
    assert comparisons.loc["student_seed", "after"] == "student_tuned"


def test_a_model_that_an_overlay_left_as_it_is_is_not_compared_with_itself(tmp_path):
    sweep_runs = planned(tmp_path, ["no_vote", "seed_augmentation"], [1])
    for run in sweep_runs:
        shutil.copytree(REFERENCE / "evaluate", run.folder / "evaluate")
        for stage, is_own in (("finetune", run.overlay == "no_vote"), ("distil", run.overlay != "whole")):
            manifest = json.loads((REFERENCE / stage / "manifest.json").read_text(encoding="utf-8"))
            manifest["fingerprint"] = run.overlay if is_own else manifest["fingerprint"]
            (run.folder / stage).mkdir()
            (run.folder / stage / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    models = set(sweep.sweep_scores(sweep_runs)["model"])
    assert {"tuned", "tuned_no_vote", "student_seed"} <= models and "tuned_seed_augmentation" not in models


def test_general_tasks_fill_claim_c3(tmp_path):
    sweep_runs = planned(tmp_path, ["no_vote"], [1, 2])
    for run in sweep_runs:
        (run.folder / "evaluate").mkdir(parents=True)
        rows = [
            {"benchmark": task, "model": model, "shots": 0, "decoding": "log-likelihood", "metric": "acc", "item": item,
             "seed": run.seed, "score": float(item % 3 > 0 or (model == "tuned" and item == 0))}
            for task in ("copying", "word_classes") for model in ("base", "tuned") for item in range(40)
        ]  # fmt: skip
        pd.DataFrame(rows).to_parquet(run.folder / "evaluate" / "general.parquet")
    general = sweep.sweep_general(sweep_runs)
    assert len(general) == 2 * 160, "of the profile's own runs alone"
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet")
    comparisons = sweep.sweep_comparisons(scores, 100, general)
    claim = next(claim for claim in claims.claims_ledger(comparisons) if claim.id == "C3")
    assert claim.n == 80 and claim.seeds == 2 and claim.effect == pytest.approx(1 / 40)
    without = sweep.sweep_comparisons(scores, 100, sweep.sweep_general(sweep_runs[1:2]))
    assert {claim.id for claim in claims.claims_ledger(without) if claim.n} == {"C1"}


def test_the_command_checks_before_anything_runs(tmp_path, capsys):
    overlays = ["--overlays", str(ABLATIONS / "no_vote.yaml")]
    assert main.main(["sweep", str(CPU), *overlays, "--seeds", "1", "2", "--list"]) == 0
    names = ["cpu/whole-seed1", "cpu/no_vote-seed1", "cpu/whole-seed2", "cpu/no_vote-seed2"]
    assert capsys.readouterr().out.split() == names
    assert main.main(["sweep", str(CPU), "--overlays", str(tmp_path / "none.yaml")]) == 2


@pytest.fixture
def swept(tmp_path, leave_tables):
    """Run `crescent sweep` with the reference run's scores in the place of each run; return the ledger it wrote."""

    def run(profile, overlay):
        leave_tables("evaluate")
        overlays = ["--overlays", str(ABLATIONS / f"{overlay}.yaml")]
        parameters = ["-p", f"outputs={tmp_path}", "-p", "resamples=100", "-p", "eval_prompts=[bare]"]
        assert main.main(["sweep", str(ROOT / "params" / profile), *overlays, *parameters]) == 0
        text = (tmp_path / profile.removesuffix(".yaml") / "claims.json").read_text()
        return {claim["id"]: claim for claim in json.loads(text)}

    return run


def test_a_sweep_of_lmsi_is_judged_by_lmsis_claims(swept):
    ledger = swept("lmsi_cpu.yaml", "no_cot_formats")
    assert {name for name, claim in ledger.items() if claim["verdict"] != claims.NO_RUN} == {"L1", "L2"}


def test_a_sweep_is_judged_by_crescents_claims_and_names_its_own_profile(swept):
    ledger = swept("cpu_full.yaml", "no_vote")
    assert {name for name, claim in ledger.items() if claim["verdict"] != claims.NO_RUN} == {"C1", "C6"}
    assert "params/cpu_full.yaml" in ledger["C2"]["command"] and "params/cpu.yaml" not in ledger["C2"]["command"]
