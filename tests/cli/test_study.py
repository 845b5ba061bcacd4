"""Studies: which runs they make, what these share, sizes, failures and the ledger, on the reference's tables."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import tiny
import yaml
from shared import REFERENCE, ROOT

from crescent_utils import generation, runs
from crescent_utils.cli import main, study, sweep
from crescent_utils.runs import folders

SOURCES = {1: REFERENCE, 2: REFERENCE / "seed2", 3: REFERENCE / "seed3"}
PARTS = {
    "method": {
        "purpose": "the method",
        "profile": ["params/cpu.yaml"],
        "parameters": {"resamples": 100, "student": "without_4_layers", "eval_prompts": ["bare"]},
        "arms": {"no_vote": {}, "seed_augmentation": {}},
        "same_size": ["no_vote"],
        "seeds": [1, 2],
        "claims": ["C1", "C4", "C6"],
    },
    "sizes": {
        "purpose": "less to learn from",
        "profile": ["params/cpu.yaml"],
        "parameters": {"student": "none"},
        "arms": {"few": {"max_pairs": 25}},
    },
}


@pytest.fixture
def place(tmp_path):
    """Write a study of some parts; return its file and where its results go."""

    def write(parts=PARTS, **more):
        path = tmp_path / "small.yaml"
        path.write_text(
            yaml.safe_dump({"name": "small", "preflight_items": 20, "parts": parts, **more}, sort_keys=False)
        )
        return path, tmp_path / "outputs" / "small"

    return write


class Runs:
    """In the place of real runs: each stage leaves the reference's tables of its seed, and a manifest of its own."""

    def __init__(self, failing=()):
        self.started, self.held, self.failing = [], {}, failing

    def __call__(self, parameters, stages):
        name = parameters["run"]
        if any(part in name for part in self.failing):
            return 1
        path = runs.run_folder(runs.settings_from("elicit", parameters)) / generation.STORE_NAME
        with generation.GenerationStore(path) as store:
            asked = generation.Request("tiny", (("user", name),))
            store.put([(asked, 0, generation.Completion(name, "stop", 3, 2))])
        for stage in stages:
            settings = runs.settings_from(stage, parameters)
            if stage in runs.left_out_stages(parameters) or runs.is_current(stage, settings):
                continue
            self.started.append((name.removeprefix("small/runs/"), stage))
            made = folders.begin_stage(stage, settings)
            source = SOURCES[parameters["seed"]] / stage
            for path in source.glob("*.parquet"):
                table = pd.read_parquet(path)
                if stage == "vote" and path.stem == "qa" and "no_vote" not in name and "seed1" in name:
                    table = table.head(100)
                if "seed" in table and len(table):
                    table = table[table["seed"] == table["seed"].iloc[0]].assign(seed=parameters["seed"])
                table.to_parquet(made.folder / path.name)
            if stage == "finetune":
                runs.write_json(made.folder / "model" / "config.json", {"tuned_by": name})
            made.finish({"pairs": 1}, models={"tuned": name} if stage == "finetune" else None)
        return 0


@pytest.fixture
def leave(monkeypatch):
    """Put fake runs, and fake preflights that foretell a known headroom, in the place of real ones."""

    def use(failing=()):
        made = Runs(failing)
        monkeypatch.setattr(main, "_run_profile", made)

        def record(values, questions, *, with_likelihoods):
            folder = runs.run_folder(runs.settings_from("vote", values)) / runs.PREFLIGHT
            folder.mkdir(parents=True, exist_ok=True)
            row = {"quantity": "headroom", "estimate": 0.1, "low": 0.0, "high": 0.2, "n": len(questions.table)}
            pd.DataFrame([row]).to_parquet(folder / "headroom.parquet")
            end = study.preflight.decisive_parameters(values)
            runs.write_json(folder / "verdict.json", {"parameters": end})
            made.started.append((values["run"].removeprefix("small/runs/"), "preflight"))
            with generation.GenerationStore(folder.parent / generation.STORE_NAME, read_only=True) as store:
                made.held[values["run"].removeprefix("small/runs/")] = store.count()
            return (type("End", (), {"line": "go"}),)

        monkeypatch.setattr(study.preflight, "record", record)
        return made

    return use


def run_study(path, outputs, *more):
    return main.main(["study", str(path), "-p", f"outputs={outputs.parent}", *more])


def test_the_kits_study_names_every_claim_and_its_runs_are_all_different(tmp_path):
    kit = study.load_study(ROOT / "params" / "study.yaml")
    planned = {name: study.plan_part(kit, name, [f"outputs={tmp_path}"]) for name in kit.parts}
    names = [run.parameters["run"] for part in planned.values() for run in part]
    assert len(names) == len(set(names)) > 30
    assert {claim for part in kit.parts.values() for claim in part.claims} | set(kit.blanks) == set(study.CLAIMS)
    for name, part in kit.parts.items():
        assert len(part.seeds) == (3 if part.claims else 1), "three seeds for a claim's arms, one for the others"
        settings = {run.overlay: run.settings("finetune").model_dump() for run in planned[name]}
        assert len(settings) == (len(part.arms) + 1 if part.rounds == 1 else part.rounds)
    wholes = [planned[name][0] for name in ("crescent", "thresholds", "data_size", "votes")]
    prints = {runs.stage_fingerprint("vote", run.settings("vote")) for run in wholes}
    assert len(prints) == 1, "what they have in common is one vote"
    controlled = {run.overlay for run in planned["crescent"] if run.settings("finetune").random_label_control}
    assert controlled == {"whole", "seed_augmentation"}, "one control a seed: the other shares the whole's training"


def test_what_an_arm_changes_wins_over_its_part(place):
    arms = {"no_vote": {"learning_rate": 0.5}, "fast": {"epochs": 1.0}}
    part = {**PARTS["sizes"], "parameters": {"votes": 12, "epochs": 2.0}, "arms": arms}
    loaded = study.load_study(place({"p": part})[0])
    whole, no_vote, fast = (run.parameters for run in study.plan_part(loaded, "p"))
    assert (whole["votes"], no_vote["votes"], fast["votes"]) == (12, 1, 12)
    assert (whole["epochs"], no_vote["epochs"], fast["epochs"]) == (2.0, 2.0, 1.0)
    assert no_vote["learning_rate"] == 0.5 and "learning_rate" not in whole
    assert fast["run"] == "small/runs/p/fast-seed1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claims": ["C9"]}, "no claim 'C9'"),
        ({"same_size": ["none"]}, "'none' is no arm"),
        ({"arms": {"nothing": {}}}, "nothing: changes nothing"),
        ({"arms": {"a": {"vots": 3}}}, "vots"),
        ({"rounds": 2}, "neither arms nor claims"),
        ({"accumulate": True}, "accumulate: true is for rounds"),
        ({"seeds": [1, 1]}, "each seed once"),
        (
            {"arms": {"a": {"eval_prompts": ["solve"]}}},
            "p: arm a: eval_prompts: the first is 'solve', of the whole 'bare'",
        ),
        ({"arms": {"a": {"shots": [5]}}}, "p: arm a: shots: [5] have none in common with [0]"),
        ({"overlays": []}, "overlays"),
        ({"profile": ["params/none.yaml"]}, "none.yaml"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_runs(place, leave, capsys, change, message):
    made = leave()
    path, outputs = place({"p": {**PARTS["sizes"], **change}})
    assert run_study(path, outputs) == 2
    assert message in capsys.readouterr().err and not made.started
    assert main.main(["study", str(path.with_name("other.yaml"))]) == 2


def test_a_study_is_run_once_shares_what_is_in_common_and_fills_its_claims(place, leave, capsys):
    made = leave()
    path, outputs = place(blanks={"C3": "no hub here"})
    assert run_study(path, outputs) == 0
    out = capsys.readouterr().out
    elicited = [name for name, stage in made.started if stage == "elicit"]
    assert elicited == ["method/whole-seed1", "method/whole-seed2"], "each other run took over the stage"
    trained = [name for name, stage in made.started if stage == "finetune"]
    assert "sizes/whole-seed1" not in trained and "method/seed_augmentation-seed1" not in trained
    first_training = [stage for _, stage in made.started].index("finetune")
    voted = {name for name, stage in made.started[:first_training] if stage == "vote"}
    assert voted == {f"method/{arm}-seed{seed}" for arm in ("whole", "no_vote") for seed in (1, 2)}
    rows = {row["id"]: row for row in json.loads((outputs / "claims.json").read_text())}
    assert list(rows) == list(study.CLAIMS)
    assert {name for name, row in rows.items() if row["n"]} == {"C1", "C4", "C6"}
    assert rows["C1"]["seeds"] == 2 and rows["C1"]["domain"] == "arithmetic" and rows["C1"]["part"] == "method"
    assert rows["C3"]["reason"] == "no hub here" and rows["L1"]["reason"] == "no part of the study fills it"
    comparisons = pd.read_parquet(outputs / "comparisons.parquet")
    assert set(comparisons["part"]) == {"method", "sizes"}
    assert "## method" in out and "no hub here" in out
    again = leave()
    assert run_study(path, outputs) == 0 and not again.started, "all is there"
    assert sum(p.stat().st_size for p in outputs.iterdir() if p.is_file()) < 500_000


def test_arms_of_one_size_learn_from_as_many_pairs_as_the_smallest(place, leave):
    leave()
    path, outputs = place({"method": PARTS["method"]})
    assert run_study(path, outputs) == 0
    sizes = pd.read_parquet(outputs / "sizes.parquet").set_index(["arm", "seed"])
    full = [len(pd.read_parquet(SOURCES[seed] / "vote" / "qa.parquet")) for seed in (1, 2)]
    assert sizes["pairs"].to_dict() == {("whole", 1): 100, ("no_vote", 1): full[0], ("whole", 2): full[1],
                                        ("no_vote", 2): full[1]}  # fmt: skip
    assert sizes.loc[("no_vote", 1), "learned"] == sizes.loc[("whole", 1), "learned"] == 100
    for arm, seed, limit in (("no_vote", 1, 100), ("whole", 1, 0), ("no_vote", 2, 0)):
        manifest = folders.read_manifest(outputs / "runs" / "method" / f"{arm}-seed{seed}", "finetune")
        assert manifest["parameters"]["max_pairs"] == limit


def test_a_run_that_fails_is_named_and_the_others_go_on(place, leave, capsys):
    leave(failing=["method/no_vote-seed2"])
    path, outputs = place()
    assert run_study(path, outputs) == 1
    assert "failed: small/runs/method/no_vote-seed2: exit status 1" in capsys.readouterr().out
    rows = {row["id"]: row for row in json.loads((outputs / "claims.json").read_text())}
    assert rows["C6"]["n"] == 0 and rows["C6"]["reason"] == "failed: no_vote-seed2"
    assert rows["C1"]["n"] == 1500 and rows["C1"]["seeds"] == 2
    leave()
    assert run_study(path, outputs) == 0, "the same command goes on"
    rows = {row["id"]: row for row in json.loads((outputs / "claims.json").read_text())}
    assert rows["C6"]["n"] == 1500


def test_a_preflight_that_fails_stops_nothing_and_its_paths_are_not_published(place, leave, monkeypatch, capsys):
    leave()
    record = study.preflight.record

    def fail_once(values, questions, *, with_likelihoods):
        if values["run"].endswith("method/whole-seed1"):
            raise ValueError(f"no such folder: '/elsewhere/models/m1',\n  nor {ROOT}/outputs/m2; see https://a.b/c")
        return record(values, questions, with_likelihoods=with_likelihoods)

    monkeypatch.setattr(study.preflight, "record", fail_once)
    path, outputs = place()
    assert run_study(path, outputs) == 1
    failed = "small/runs/method/whole-seed1, preflight: ValueError: no such folder: "
    assert f"failed: {failed}" in capsys.readouterr().out
    text = (outputs / "study.md").read_text(encoding="utf-8")
    assert f"- {failed}'.../m1', nor outputs/m2; see https://a.b/c" in text
    rows = {row["id"]: row for row in json.loads((outputs / "claims.json").read_text())}
    assert rows["C1"]["n"] == 1500, "its run went on"
    verdict = outputs / "runs" / "method" / "no_vote-seed1" / "preflight" / "verdict.json"
    verdict.write_text("{", encoding="utf-8")
    again = leave()
    assert run_study(path, outputs) == 0
    asked = [name for name, stage in again.started if stage == "preflight"]
    assert asked == ["method/whole-seed1", "method/no_vote-seed1"], "what is there and can be read is not asked again"


def test_every_setting_that_learns_from_votes_is_foretold_once(place, leave):
    made = leave()
    path, outputs = place()
    assert run_study(path, outputs) == 0
    table = pd.read_parquet(outputs / "foretelling.parquet")
    settings = list(zip(table["part"], table["arm"], strict=True))  # not one that changes the student
    assert settings == [("method", "whole"), ("method", "no_vote"), ("sizes", "few")]
    assert (table["predicted"] == 0.1).all() and (table["questions"] == 20).all()
    scores = pd.concat(
        [pd.read_parquet(SOURCES[seed] / "evaluate" / "scores.parquet").query("seed == @seed") for seed in (1, 2)]
    ).query("decoding == 'greedy' and shots == 0 and prompt == 'bare'")
    accuracy = scores.groupby("model")["symbolic"].mean()
    assert table["realised"].iloc[0] == pytest.approx(accuracy["tuned"] - accuracy["base"])
    assert table["seeds"].tolist()[:2] == [2, 2] and (table["n"] == 1500).all()
    asked = [name for name, stage in made.started if stage == "preflight"]
    assert all(name.endswith("seed1") for name in asked)
    voted = [name for name, stage in made.started if name.startswith("method/") and stage == "vote"]
    assert len(voted) == 4 and made.held["method/whole-seed1"] == 3, (
        "a preflight has what every run of its seed sampled"
    )


def test_rounds_run_in_order_and_the_first_that_fails_ends_them(place, leave, monkeypatch, tmp_path):
    made = leave(failing=["round2"])
    path, outputs = place({"three": {**PARTS["sizes"], "arms": {}, "rounds": 3, "seeds": [1, 2]}})
    assert run_study(path, outputs, "--list") == 0
    assert run_study(path, outputs) == 1
    assert [name for name, stage in made.started if stage == "vote"] == ["three/seed1/round1", "three/seed2/round1"]
    assert [name for name, stage in made.started if stage == "preflight"] == [
        "three/seed1/round1",
        "three/seed2/round1",
    ]
    table = pd.read_parquet(outputs / "foretelling.parquet")
    assert table["arm"].tolist() == ["round1"] and table["seeds"].tolist() == [2]


def test_rounds_that_accumulate_share_with_those_that_replace_what_both_have_in_common(place, leave, tmp_path):
    made = leave()
    model = str(tiny.model_folder(tmp_path / "base", layers=1))
    rounds = {**PARTS["sizes"], "parameters": {"student": "none", "model": model}, "arms": {}, "rounds": 3}
    path, outputs = place({"replacing": rounds, "accumulating": {**rounds, "accumulate": True}})
    assert run_study(path, outputs) == 0
    trained = [name for name, stage in made.started if stage == "finetune"]
    first = [f"replacing/seed1/round{number}" for number in (1, 2, 3)]
    assert trained == [*first, "accumulating/seed1/round2", "accumulating/seed1/round3"]
    runs_of = {}
    for name in ("replacing", "accumulating"):
        manifests = [
            folders.read_manifest(outputs / "runs" / name / "seed1" / f"round{n}", "finetune") for n in (1, 2, 3)
        ]
        runs_of[name] = [manifest["parameters"]["accumulate_runs"] for manifest in manifests]
    place_of = "small/runs/accumulating/seed1/round"
    assert runs_of["accumulating"] == [[], [f"{place_of}1"], [f"{place_of}2", f"{place_of}1"]]
    assert runs_of["replacing"] == [[], [], []]
    table = pd.read_parquet(outputs / "rounds.parquet")
    assert table.groupby("part")["data"].unique().map(list).to_dict() == {
        "accumulating": ["accumulated"], "replacing": ["replaced"]}  # fmt: skip
    assert "accumulated" in (outputs / "study.md").read_text()


def test_a_plan_counts_the_longer_trainings_of_rounds_that_accumulate(place, monkeypatch):
    rows = [study.plan.Row("vote", "base", 1, 0, 0.0, 100.0), study.plan.Row("finetune", "tuned", 1, 0, 0.0, 60.0)]
    monkeypatch.setattr(study.plan, "estimate_run", lambda values, stages, probes: study.plan.Plan(rows, 40.0, []))
    rounds = {**PARTS["sizes"], "arms": {}, "rounds": 3, "seeds": [1, 2]}
    loaded = study.load_study(place({"replacing": rounds, "accumulating": {**rounds, "accumulate": True}})[0])
    text = study.plan_text(loaded, {name: study.plan_part(loaded, name) for name in loaded.parts})
    lasting = [study.plan.duration(seconds) for seconds in (6 * 200, 6 * 200 + 2 * (1 + 2) * 60)]
    assert [line.rpartition("about ")[2] for line in text.splitlines()[:2]] == lasting


def test_the_tables_of_rounds_come_together_with_part_and_seed(tmp_path):
    paths = [tmp_path / "runs" / "three" / f"seed{seed}" / "rounds.parquet" for seed in (1, 3)]
    for path in paths:
        path.parent.mkdir(parents=True)
        pd.DataFrame({"round": [0, 1], "accuracy": [0.2, 0.3]}).to_parquet(path)
    table = study._rounds_table(paths, tmp_path)
    assert table["seed"].tolist() == [1, 1, 3, 3] and set(table["part"]) == {"three"}


def test_only_arms_with_all_seeds_of_the_whole_are_compared():
    made = [sweep.SweepRun(arm, seed, {}) for arm, seed in
            (("whole", 1), ("whole", 2), ("a", 1), ("b", 1), ("b", 2), ("b", 3))]  # fmt: skip
    kept = [(run.overlay, run.seed) for run in study.complete_arms(made)]
    assert kept == [("whole", 1), ("whole", 2), ("b", 1), ("b", 2)]
    assert study.complete_arms(made[2:]) == []


def test_the_readme_has_the_table_of_the_recorded_claims():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    inside = readme.split("<!-- claims -->\n")[1].split("<!-- end of claims -->")[0]
    source, rows = study.recorded_claims(ROOT / "outputs")
    assert inside.strip() == study.claims_markdown(rows), "run python tests/make_readme.py"
    assert len(rows) >= len(study.CLAIMS) and all(row["n"] or row["reason"] for row in rows), source


def test_a_ledger_as_text():
    blank = {"id": "C2", "hypothesis": "few", "n": 0, "verdict": "no run", "reason": "none asked"}
    filled = {"id": "C1", "hypothesis": "up", "domain": "three_terms", "n": 1400, "seeds": 3, "verdict": "reproduced",
              "effect": 0.1, "low": -0.02, "high": 0.3}  # fmt: skip
    lines = study.claims_markdown([filled, blank]).splitlines()[2:]
    assert lines[0] == "| C1: up | three terms | +10.0 [−2.0, +30.0] | 1,400 | 3 | reproduced |"
    assert lines[1] == "| C2: few |  | | | | no run: none asked |"
