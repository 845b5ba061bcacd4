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
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.runs import folders, params
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
    assert not folders.is_current("elicit", own)
    stage.write_table("questions", pd.DataFrame({"id": [1], "question": ["What is 3 + 4?"]}))
    assert not folders.is_current("elicit", own)
    manifest = stage.finish({"sampled": 1, "kept": 1, "rejected": 0}, models={"base": "abc"}, note="n")
    assert folders.is_current("elicit", own)
    assert folders.read_manifest(tmp_path / "r", "elicit") == manifest
    assert sorted(p.name for p in stage.folder.iterdir()) == ["manifest.json", "questions.parquet"]
    assert folders.read_table(tmp_path / "r", "elicit", "questions")["question"].tolist() == ["What is 3 + 4?"]


def test_the_manifest_says_what_made_the_result(tmp_path):
    stage = folders.begin_stage("elicit", settings_of("elicit", tmp_path, seed=7))
    manifest = stage.finish({"sampled": 0}, models={"base": "abc"}, cost=Cost(prompt_tokens=1, completion_tokens=2))
    assert {"parameters", "fingerprint", "upstream", "versions", "models", "git_commit", "seed", "counts", "tokens", "seconds",
            "peak_memory_bytes", "device"} <= manifest.keys()  # fmt: skip
    assert manifest["seed"] == manifest["parameters"]["seed"] == 7
    assert re.fullmatch(r"[0-9a-f]{16}", manifest["fingerprint"])
    assert manifest["tokens"] == {"prompt": 1, "completion": 2} and manifest["models"] == {"base": "abc"}
    assert manifest["peak_memory_bytes"] > 10**7 and manifest["seconds"] >= 0 and "cores" in manifest["device"]
    assert re.fullmatch(r"[0-9a-f]{40}\+?|", manifest["git_commit"])
    assert str(tmp_path) not in json.dumps(manifest)


def test_no_folder_of_this_machine_stands_in_a_manifest(tmp_path):
    folders.begin_stage("elicit", settings_of("elicit", tmp_path)).finish({})
    manifest = folders.begin_stage(
        "dedup", settings_of("dedup", tmp_path, benchmark_dir=str(tmp_path / "data"))
    ).finish({})
    assert str(tmp_path) not in json.dumps(manifest)
    own = settings_of("elicit", tmp_path, model=str(tmp_path / "llama"), base_urls=["http://me:hunter2@host:8000/v1"])
    manifest = folders.begin_stage("elicit", own).finish({})
    assert str(tmp_path) not in json.dumps(manifest) and "hunter2" not in json.dumps(manifest)
    assert manifest["parameters"]["model"] == ".../llama"
    assert manifest["parameters"]["base_urls"] == ["http://host:8000/v1"]


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
    assert folders.is_current("elicit", own)
    folders.begin_stage("elicit", own)
    assert not folders.is_current("elicit", own)
    assert not folders.is_current("dedup", settings_of("dedup", tmp_path)), "what it rests on is being made again"


@pytest.mark.parametrize("stage", [name for name in params.STAGES if folders.UPSTREAM[name]])
def test_a_missing_stage_before_is_named_with_its_notebook(tmp_path, stage):
    above = folders.UPSTREAM[stage][0]
    with pytest.raises(RunError) as caught:
        folders.begin_stage(stage, settings_of(stage, tmp_path))
    assert repr(above) in str(caught.value) and "'r'" in str(caught.value)
    assert f"notebooks/{folders.NOTEBOOKS[above]}.ipynb" in str(caught.value)
    assert not (tmp_path / "r" / stage).exists()


def test_notebooks_are_numbered_in_the_order_of_the_stages():
    assert list(folders.NOTEBOOKS) == list(params.STAGES) == list(params.STAGE_SETTINGS)
    assert [name[:3] for name in folders.NOTEBOOKS.values()] == ["01_", "02_", "03_", "04_", "05_", "06_"]
    for stage, above in folders.UPSTREAM.items():
        assert all(params.STAGES.index(name) < params.STAGES.index(stage) for name in above)


# Every parameter with another value than its default, and whether the result may differ by it.
CHANGED = {
    "run": "other", "replay_from": "other", "outputs": "/elsewhere", "engine": "vllm", "engine_args": {"a": 1}, "base_urls": ["u"],
    "benchmark_dir": "/b", "micro_batch_size": 4, "model": "m", "domain": "math_word_problems", "protocol": "strict", "seed": 2,
    "system_prompt": "s", "dtype": "float32", "max_model_len": 99, "other_runs": ["seed2"], "path_choice": "all", "method": "full",
    "lr_schedule": "cosine", "benchmark_split": "dev", "decontaminate": False, "student": "s", "embedder": "e",
    "path_formats": ["zero_shot_cot"],
    "elicit_temperatures": [0.5],
    "served_names": {"base": "b"}, "label_source": "random", "packing": True, "gradient_checkpointing": True,
    "report_to": ["wandb"], "student_data": "on_policy", "shots": [5], "general_tasks": ["piqa"], "claims_of": "lmsi",
    "compare_runs": {"tuned_no_vote": ["r"]},
}  # fmt: skip
WHERE = {"run", "replay_from", "outputs", "engine", "engine_args", "base_urls", "benchmark_dir", "micro_batch_size",
         "served_names", "concurrency", "gradient_checkpointing", "checkpoint_steps", "processes",
         "accelerate_args", "report_to"}  # fmt: skip


def another(name, field):
    default = field.get_default(call_default_factory=True)
    made = {str: "x {question} {neighbour}", int: 777, float: 0.5 if default != 0.5 else 0.25, list: ["x"]}
    return CHANGED[name] if name in CHANGED else made[type(default)]


@pytest.mark.parametrize("stage", params.STAGES)
def test_the_fingerprint_changes_with_what_can_change_the_result_and_with_nothing_else(tmp_path, stage):
    upstream = {name: {"fingerprint": "f"} for name in folders.UPSTREAM[stage]}
    plain = params.build_settings(stage, {})
    seen = {folders.stage_fingerprint(stage, plain, upstream)}
    for name, field in type(plain).model_fields.items():
        got = folders.stage_fingerprint(stage, params.build_settings(stage, {name: another(name, field)}), upstream)
        if name in WHERE:
            assert got == folders.stage_fingerprint(stage, plain, upstream), name
        else:
            assert got not in seen, name
            seen.add(got)
    for above in upstream:
        got = folders.stage_fingerprint(stage, plain, {**upstream, above: {"fingerprint": "g"}})
        assert got not in seen, above
        seen.add(got)
    assert folders.stage_fingerprint(stage, params.build_settings(stage, {}), dict(reversed(upstream.items()))) in seen


def test_the_kits_version_is_in_the_fingerprint(monkeypatch):
    own = params.build_settings("elicit", {})
    before = folders.stage_fingerprint("elicit", own, {})
    monkeypatch.setattr(folders, "__version__", "0.0.0")
    assert folders.stage_fingerprint("elicit", own, {}) != before


def test_a_changed_parameter_makes_its_stage_and_those_after_it_stale_and_no_other(tmp_path):
    complete("evaluate", tmp_path)
    current = {name: folders.is_current(name, settings_of(name, tmp_path)) for name in params.STAGES}
    assert all(current.values())
    assert folders.is_current("vote", settings_of("vote", tmp_path, engine="vllm"))
    assert not folders.is_current("vote", settings_of("vote", tmp_path, votes=3))
    folders.begin_stage("vote", settings_of("vote", tmp_path, votes=3)).finish({})
    now = {name: folders.is_current(name, settings_of(name, tmp_path)) for name in params.STAGES}
    assert now == {"elicit": True, "dedup": True, "vote": False, "finetune": False, "distil": False, "evaluate": True}
    folders.begin_stage("finetune", settings_of("finetune", tmp_path)).finish({})
    assert not folders.is_current("evaluate", settings_of("evaluate", tmp_path))


def test_a_stage_that_rests_on_a_stale_one_can_be_told(tmp_path):
    # is_current looks one floor up only: fingerprints chain, so the change reaches every floor when each is run in turn.
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
        folders.is_current("elicit", settings_of("elicit", tmp_path))


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
    assert not folders.is_current("elicit", own)
    folders.begin_stage("elicit", own).finish({})
    assert folders.is_current("elicit", own)


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


def test_hash_json_does_not_depend_on_order_but_on_all_else():
    assert folders.hash_json({"a": 1, "b": [1, 2]}) == folders.hash_json({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": [1]}, {"a": None}, {"b": 1}, {"a": True}, {"a": "ä"}]
    assert len({folders.hash_json(value) for value in different}) == len(different)
