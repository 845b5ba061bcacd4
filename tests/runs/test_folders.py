"""Runs: a manifest means complete, a fingerprint means the same result, and nobody ever reads half a file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import threading

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT

from crescent_utils.runs import contents, domains, folders, layout, params
from crescent_utils.runs.costs import Cost
from crescent_utils.runs.folders import RunError


def settings_of(stage, folder, **values):
    return params.build_settings(stage, {"outputs": str(folder), "run": "r", "engine": "transformers", **values})


def complete(stage, folder, **values):
    """Work through the stages up to `stage`, the real way, with empty hands."""
    for name in params.STAGES[: params.STAGES.index(stage) + 1]:
        own = settings_of(name, folder, **params.parameters_of(name, values))
        folders.begin_stage(name, own).finish({"sampled": 3, "kept": 2, "rejected": 1})


def test_a_stage_is_complete_once_its_manifest_stands(tmp_path):
    own = settings_of("elicit", tmp_path)
    stage = folders.begin_stage("elicit", own)
    assert not contents.is_current("elicit", own)
    stage.write_table("questions", pd.DataFrame({"id": [1], "question": ["What is 3 + 4?"]}))
    assert not contents.is_current("elicit", own)
    manifest = stage.finish({"sampled": 1, "kept": 1, "rejected": 0}, models={"base": "abc"}, note="n")
    assert contents.is_current("elicit", own)
    assert folders.read_manifest(tmp_path / "r", "elicit") == manifest
    assert sorted(p.name for p in stage.folder.iterdir()) == ["manifest.json", "questions.parquet"]
    assert folders.read_table(tmp_path / "r", "elicit", "questions")["question"].tolist() == ["What is 3 + 4?"]


def test_the_manifest_says_what_made_the_result(tmp_path):
    stage = folders.begin_stage("elicit", settings_of("elicit", tmp_path, seed=7))
    manifest = stage.finish({"sampled": 0}, models={"base": "abc"}, cost=Cost(prompt_tokens=1, completion_tokens=2))
    assert {"parameters", "fingerprint", "upstream", "versions", "models", "git_commit", "seed", "counts", "tokens",
    "seconds",
            "peak_memory_bytes", "device"} <= manifest.keys()  # fmt: skip
    assert manifest["seed"] == manifest["parameters"]["seed"] == 7
    assert re.fullmatch(r"[0-9a-f]{16}", manifest["fingerprint"])
    assert manifest["tokens"] == {"prompt": 1, "completion": 2} and manifest["models"] == {"base": "abc"}
    assert manifest["peak_memory_bytes"] > 10**7 and manifest["seconds"] >= 0 and "cores" in manifest["device"]
    assert re.fullmatch(r"[0-9a-f]{40}\+?|", manifest["git_commit"])
    assert str(tmp_path) not in json.dumps(manifest)


def test_a_manifest_names_no_folder_of_this_machine(tmp_path):
    places = {
        "elicit": {"model": str(tmp_path / "llama"), "engine_args": {"download_dir": str(tmp_path / "hub"), "n": 1}},
        "vote": {"question_source": str(tmp_path / "questions.jsonl"), "benchmark_dir": str(tmp_path / "data")},
        "finetune": {"accelerate_args": ["--config_file", f"{tmp_path}/fsdp.yaml", f"--dir={tmp_path}/ds.json"]},
    }
    for stage, values in places.items():
        if stage == "vote":
            (tmp_path / "questions.jsonl").write_text("{}\n")
        own = {"outputs": str(tmp_path / "o"), "run": "r", "engine": "transformers", **values}
        manifest = folders.begin_stage(stage, params.build_settings(stage, own)).finish({})
        assert str(tmp_path) not in json.dumps(manifest), stage
        assert set(manifest["hidden"]) == {"outputs", *values}
    assert manifest["parameters"]["accelerate_args"] == ["--config_file", ".../fsdp.yaml", "--dir=.../ds.json"]


def test_a_path_inside_the_repository_is_kept_and_means_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "model": str(ROOT / "outputs" / "lmsi_cpu" / "finetune" / "model"),
        "domain": "./params/domains/commonsense.yaml",
    }
    own = {"outputs": str(tmp_path), "run": "r", "engine": "transformers", **given}
    manifest = folders.begin_stage("elicit", params.build_settings("elicit", own)).finish({})
    assert manifest["parameters"]["model"] == "outputs/lmsi_cpu/finetune/model"
    assert manifest["parameters"]["domain"] == "params/domains/commonsense.yaml"
    assert manifest["hidden"] == ["outputs"]


def test_a_domain_of_ones_own_is_recorded_whole(tmp_path):
    domain = tmp_path / "mine.yaml"
    lines = yaml.safe_load((ROOT / "params" / "domains" / "commonsense.yaml").read_text(encoding="utf-8"))
    domain.write_text(yaml.safe_dump(lines), encoding="utf-8")
    own = {"outputs": str(tmp_path / "o"), "run": "r", "domain": str(domain)}
    manifest = folders.begin_stage("elicit", params.build_settings("elicit", own)).finish({})
    assert manifest["parameters"]["domain"] == ".../mine.yaml"
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump({k: v for k, v in manifest["domain"].items() if k != "name"}), encoding="utf-8")
    assert domains.get_domain(str(again)).model_copy(update={"name": "mine"}) == domains.get_domain(str(domain))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100))
def test_kept_and_rejected_add_up_to_sampled_or_nothing_is_finished(tmp_path_factory, kept, rejected, sampled):
    own = settings_of("elicit", tmp_path_factory.mktemp("run"))
    stage = folders.begin_stage("elicit", own)
    counts = {"sampled": sampled, "kept": kept, "rejected": rejected}
    if kept + rejected == sampled:
        assert stage.finish(counts)["counts"] == counts
    else:
        with pytest.raises(RunError, match=f"kept {kept} .*rejected {rejected} .*sampled {sampled}"):
            stage.finish(counts)
        assert not (stage.folder / "manifest.json").exists()


def test_beginning_again_takes_the_old_manifest_away(tmp_path):
    complete("dedup", tmp_path)
    own = settings_of("elicit", tmp_path)
    assert contents.is_current("elicit", own)
    folders.begin_stage("elicit", own)
    assert not contents.is_current("elicit", own)
    assert not contents.is_current("dedup", settings_of("dedup", tmp_path)), "what it rests on is being made again"


@pytest.mark.parametrize("stage", [name for name in params.STAGES if layout.UPSTREAM[name]])
def test_a_missing_stage_before_is_named_with_its_notebook(tmp_path, stage):
    above = layout.UPSTREAM[stage][0]
    with pytest.raises(RunError) as caught:
        folders.begin_stage(stage, settings_of(stage, tmp_path))
    assert repr(above) in str(caught.value) and "'r'" in str(caught.value)
    assert f"notebooks/{folders.NOTEBOOKS[above]}.ipynb" in str(caught.value)
    assert not (tmp_path / "r" / stage).exists()


def test_notebooks_are_numbered_in_the_order_of_the_stages():
    assert list(folders.NOTEBOOKS) == list(params.STAGES) == list(params.STAGE_SETTINGS)
    assert [name[:3] for name in folders.NOTEBOOKS.values()] == ["01_", "02_", "03_", "04_", "05_", "06_"]
    for stage, above in layout.UPSTREAM.items():
        assert all(params.STAGES.index(name) < params.STAGES.index(stage) for name in above)


def test_a_changed_parameter_makes_its_stage_and_those_after_it_stale_and_no_other(tmp_path):
    complete("evaluate", tmp_path)
    current = {name: contents.is_current(name, settings_of(name, tmp_path)) for name in params.STAGES}
    assert all(current.values())
    assert contents.is_current("vote", settings_of("vote", tmp_path, engine="vllm"))
    assert not contents.is_current("vote", settings_of("vote", tmp_path, votes=3))
    folders.begin_stage("vote", settings_of("vote", tmp_path, votes=3)).finish({})
    now = {name: contents.is_current(name, settings_of(name, tmp_path)) for name in params.STAGES}
    assert now == {"elicit": True, "dedup": True, "vote": False, "finetune": False, "distil": False, "evaluate": True}
    folders.begin_stage("finetune", settings_of("finetune", tmp_path)).finish({})
    assert not contents.is_current("evaluate", settings_of("evaluate", tmp_path))


def test_a_stage_that_rests_on_a_stale_one_can_be_told(tmp_path):
    # is_current looks one floor up only: fingerprints chain, so the change reaches every floor when each is run in
    # turn.
    complete("vote", tmp_path)
    first = folders.read_manifest(tmp_path / "r", "vote")["fingerprint"]
    complete("vote", tmp_path, elicit_samples=5)
    assert folders.read_manifest(tmp_path / "r", "vote")["fingerprint"] != first
    complete("vote", tmp_path)
    assert folders.read_manifest(tmp_path / "r", "vote")["fingerprint"] == first


@pytest.mark.parametrize("content", ["", "{", '{"fingerprint": "x"'])
def test_a_damaged_manifest_is_named_with_the_cure(tmp_path, content):
    complete("elicit", tmp_path)
    (tmp_path / "r" / "elicit" / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match="manifest.json.*delete it"):
        contents.is_current("elicit", settings_of("elicit", tmp_path))


def test_a_missing_table_is_named_with_its_notebook(tmp_path):
    with pytest.raises(RunError, match=r"vote/qa\.parquet.*03_vote\.ipynb"):
        folders.read_table(tmp_path / "r", "vote", "qa")


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    stage = folders.begin_stage("elicit", settings_of("elicit", tmp_path))
    stage.write_table("questions", pd.DataFrame({"id": [1]}))
    with pytest.raises(Exception, match="."):
        stage.write_table("questions", pd.DataFrame({"id": [1, object()]}))
    assert stage.read_table("elicit", "questions")["id"].tolist() == [1]


def test_a_json_that_cannot_be_written_leaves_the_old_one_and_no_rubbish(tmp_path):
    path = folders.write_json(tmp_path / "a" / "x.json", {"ä": 1})
    with pytest.raises(TypeError):
        folders.write_json(path, {"bad": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": 1}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path = folders.write_json(tmp_path / "x.json", [0] * 5000)
    torn, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            value = json.loads(path.read_text(encoding="utf-8"))
            if len(value) != 5000 or len(set(value)) != 1:
                torn.append(value)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(60):
            folders.write_json(path, [number] * 5000)
    finally:
        stop.set()
        reader.join()
    assert not torn
    assert os.stat(path).st_mode & 0o777 == 0o644


def test_a_kill_before_the_last_line_leaves_an_incomplete_stage(tmp_path):
    code = f"""
        import os, signal, pandas as pd
        from crescent_utils import runs
        stage = runs.begin_stage("elicit", runs.build_settings("elicit", {{"outputs": {str(tmp_path)!r}, "run": "r"}}))
        stage.write_table("questions", pd.DataFrame({{"id": [1]}}))
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        stage.finish({{}})
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == -9
    own = settings_of("elicit", tmp_path)
    assert not contents.is_current("elicit", own)
    folders.begin_stage("elicit", own).finish({})
    assert contents.is_current("elicit", own)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab./\\~\0 ", max_size=8))
def test_no_run_name_leaves_the_folder_of_all_runs(run):
    try:
        own = params.build_settings("elicit", {"run": run, "outputs": "/o"})
    except params.ParameterError:
        return
    inside = os.path.normpath(folders.run_folder(own))
    assert inside.startswith("/o/"), run


def test_runs_stand_in_the_repositorys_outputs_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folders.run_folder(params.build_settings("elicit", {"run": "a/b"})) == params.ROOT / "outputs" / "a" / "b"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.run_folder(params.build_settings("elicit", {"outputs": "~/o"}), "c") == tmp_path / "o" / "c"
