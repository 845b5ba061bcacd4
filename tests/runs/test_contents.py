"""Contents: a finished stage is stale as soon as something that it reads says something else, wherever that lies."""

from __future__ import annotations

import json
import os
import shutil

import pandas as pd
import pytest
import yaml
from shared import ROOT

from crescent_utils import benchmarks
from crescent_utils.benchmarks import files
from crescent_utils.runs import contents, folders, params


def settings_of(stage, outputs, **values):
    return params.build_settings(stage, {"outputs": str(outputs), "run": "r", "engine": "transformers", **values})


def finish(stage, outputs, tables=(), **values):
    """Begin and finish a stage with these parameters; each of `tables` is written with its name in it."""
    begun = folders.begin_stage(stage, settings_of(stage, outputs, **values))
    for name in tables:
        begun.write_table(name, pd.DataFrame({"text": [name]}))
    begun.finish({})
    return begun


def model_in(folder, weights):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


def is_current(stage, outputs, **values):
    return contents.is_current(stage, settings_of(stage, outputs, **values))


def test_a_model_folder_counts_by_its_weights_not_its_name(tmp_path):
    model = model_in(tmp_path / "round1" / "model", b"first")
    finish("elicit", tmp_path, model=model)
    assert is_current("elicit", tmp_path, model=model)
    copy = model_in(tmp_path / "moved" / "model", b"first")
    assert is_current("elicit", tmp_path, model=copy), "where it lies says nothing"
    model_in(tmp_path / "round1" / "model", b"trained again with another learning rate")
    assert not is_current("elicit", tmp_path, model=model)


@pytest.mark.parametrize(("stage", "name"), [("dedup", "embedder"), ("distil", "student")])
def test_so_do_an_embedder_and_a_student(tmp_path, stage, name):
    for above in params.STAGES[: params.STAGES.index(stage)]:
        finish(above, tmp_path)
    folder = model_in(tmp_path / "other", b"first")
    finish(stage, tmp_path, **{name: folder})
    assert is_current(stage, tmp_path, **{name: folder})
    model_in(tmp_path / "other", b"second")
    assert not is_current(stage, tmp_path, **{name: folder})


def test_a_question_file_counts_by_its_content(tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "What is 3 + 4?"}\n')
    finish("vote", tmp_path, question_source=str(questions))
    assert is_current("vote", tmp_path, question_source=str(questions))
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(questions.read_bytes())
    assert is_current("vote", tmp_path, question_source=str(moved))
    questions.write_text('{"question": "What is 3 + 5?"}\n')
    assert not is_current("vote", tmp_path, question_source=str(questions))


@pytest.mark.parametrize("how", ["parameter", "environment"])
def test_benchmark_files_count_by_their_content(tmp_path, monkeypatch, how):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "gsm8k_test.jsonl").write_text("{}\n")
    values = {"evaluate_on": ["gsm8k"]}
    if how == "parameter":
        values["benchmark_dir"] = str(folder)
    else:
        monkeypatch.setenv("CRESCENT_BENCHMARK_DIR", str(folder))
    finish("elicit", tmp_path)
    finish("dedup", tmp_path, **values)
    (folder / "svamp_test.jsonl").write_text("{}\n")
    assert is_current("dedup", tmp_path, **values), "a file that this stage does not read"
    (folder / "gsm8k_test.jsonl").write_text('{"question": "another"}\n')
    assert not is_current("dedup", tmp_path, **values)


@pytest.mark.parametrize("values", [{"other_runs": ["seed2"]}, {"compare_runs": {"tuned_no_vote": ["seed2"]}}])
def test_other_runs_count_by_their_scores_not_their_names(tmp_path, values):
    def score(run, right):
        (tmp_path / run / "evaluate").mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"symbolic": [right]}).to_parquet(tmp_path / run / "evaluate" / "scores.parquet")

    for above in params.STAGES[:-1]:
        finish(above, tmp_path)
    score("seed2", True)
    finish("evaluate", tmp_path, **values)
    assert is_current("evaluate", tmp_path, **values)
    score("seed2", False)
    assert not is_current("evaluate", tmp_path, **values)
    score("renamed", True)
    renamed = json.loads(json.dumps(values).replace("seed2", "renamed"))
    assert is_current("evaluate", tmp_path, **renamed)


@pytest.mark.parametrize("stage", ["finetune", "distil"])
def test_runs_that_accumulate_count_by_their_pairs_not_their_names(tmp_path, stage):
    def vote(run, path):
        (tmp_path / run / "vote").mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"path": [path]}).to_parquet(tmp_path / run / "vote" / "qa.parquet")

    for above in ("elicit", "dedup", "vote"):
        finish(above, tmp_path)
    vote("round1", "3 + 4 = 7")
    finish(stage, tmp_path, accumulate_runs=["round1"])
    assert is_current(stage, tmp_path, accumulate_runs=["round1"]) and not is_current(stage, tmp_path)
    vote("renamed", "3 + 4 = 7")
    assert is_current(stage, tmp_path, accumulate_runs=["renamed"])
    vote("round1", "3 + 4 = 8")
    assert not is_current(stage, tmp_path, accumulate_runs=["round1"])


def test_a_token_budget_counts_by_what_that_run_spent(tmp_path):
    for stage in ("elicit", "dedup", "vote"):
        finish(stage, tmp_path)
    values = {"run": "lmsi", "question_source": "arithmetic", "budget_of": "r"}
    finish("vote", tmp_path, **values)
    assert is_current("vote", tmp_path, **values)
    path = tmp_path / "r" / "elicit" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tokens"]["completion"] += 5
    path.write_text(json.dumps(manifest))
    assert not is_current("vote", tmp_path, **values)


def test_a_table_that_was_edited_makes_what_reads_it_stale(tmp_path):
    finish("elicit", tmp_path, tables=["questions"])
    finish("dedup", tmp_path)
    assert is_current("dedup", tmp_path)
    pd.DataFrame({"text": ["by hand"]}).to_parquet(tmp_path / "r" / "elicit" / "questions.parquet")
    assert not is_current("dedup", tmp_path)
    assert is_current("elicit", tmp_path)


def test_the_notebooks_code_counts_and_its_prose_and_parameters_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(params, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").symlink_to(ROOT / "params")

    def write(code="stage.finish({})", prose="why", seed=1):
        cells = [{"cell_type": "markdown", "source": [prose], "metadata": {}},
                 {"cell_type": "code", "source": f"seed: int = {seed}  # s", "metadata": {"tags": ["parameters"]}},
                 {"cell_type": "code", "source": [code], "metadata": {}, "outputs": [prose]}]  # fmt: skip
        (tmp_path / "notebooks" / "01_elicit.ipynb").write_text(json.dumps({"cells": cells}))

    write()
    finish("elicit", tmp_path)
    write(prose="because", seed=2)
    assert is_current("elicit", tmp_path)
    write(code="stage.finish({'kept': 1})")
    assert not is_current("elicit", tmp_path)


def test_the_kits_own_domain_counts_by_its_content_too(tmp_path, monkeypatch):
    monkeypatch.setattr(params, "DOMAINS", tmp_path)
    lines = yaml.safe_load((ROOT / "params" / "domains" / "arithmetic.yaml").read_text(encoding="utf-8"))
    (tmp_path / "arithmetic.yaml").write_text(yaml.safe_dump(lines))
    finish("elicit", tmp_path)
    (tmp_path / "arithmetic.yaml").write_text(yaml.safe_dump(lines | {"bait": ["Another bait."]}))
    assert not is_current("elicit", tmp_path)


def test_a_stage_that_runs_again_leaves_nothing_of_its_earlier_run_but_what_training_goes_on_from(tmp_path):
    for above in ("elicit", "dedup", "vote"):
        finish(above, tmp_path)
    begun = finish("distil", tmp_path, tables=["rejected", "learned", "log"])
    (begun.folder / "claims.json").write_text("[]")
    (begun.folder / "trained.json").write_text("{}")
    model_in(begun.folder / "model", b"w")
    model_in(begun.folder / "adapter", b"w")
    model_in(begun.folder / "trainer" / "checkpoint-7", b"w")
    finish("distil", tmp_path, tables=["log"], student_data="on_policy")
    assert {path.name for path in begun.folder.iterdir()} == {
        "log.parquet", "manifest.json", "trained.json", "model", "adapter", "trainer",
    }  # fmt: skip
    assert (begun.folder / "trainer" / "checkpoint-7" / "config.json").exists()


def test_a_run_is_not_replayed_into_itself(tmp_path):
    begun = finish("elicit", tmp_path, tables=["questions"])
    with pytest.raises(folders.RunError, match="replay of 'r' into itself"):
        folders.begin_stage("elicit", settings_of("elicit", tmp_path, engine="replay", replay_from="r"))
    assert sorted(path.name for path in begun.folder.iterdir()) == ["manifest.json", "questions.parquet"]


# Every parameter with another value than its default, and whether the result may differ by it.
CHANGED = {
    "run": "other", "replay_from": "other", "outputs": "/elsewhere", "engine": "vllm", "engine_args": {"a": 1},
    "base_urls": ["u"],
    "benchmark_dir": "/b", "micro_batch_size": 4, "model": "m", "domain": "math_word_problems", "protocol": "strict",
    "seed": 2,
    "system_prompt": "s", "dtype": "float32", "max_model_len": 99, "other_runs": ["seed2"], "path_choice": "all",
    "method": "full",
    "lr_schedule": "cosine", "benchmark_split": "dev", "decontaminate": False, "student": "s", "embedder": "e",
    "path_formats": ["zero_shot_cot"],
    "elicit_temperatures": [0.5],
    "served_names": {"base": "b"}, "random_label_control": False, "train_prompt": "solve", "packing": True,
    "vote_shots": "exemplars", "eval_prompts": ["bare"], "best_prompt": False, "matched_temperature": False,
    "gradient_checkpointing": True,
    "report_to": ["wandb"], "student_data": "on_policy", "shots": [5], "general_tasks": ["piqa"], "claims_of": "lmsi",
    "compare_runs": {"tuned_no_vote": ["r"]},
}  # fmt: skip
WHERE = {"profile", "run", "replay_from", "outputs", "save_to", "engine", "engine_args", "base_urls", "benchmark_dir",
         "micro_batch_size", "served_names", "concurrency", "gradient_checkpointing", "checkpoint_steps", "processes",
         "accelerate_args", "report_to"}  # fmt: skip


def another(name, field):
    default = field.get_default(call_default_factory=True)
    examples = {str: "x {question} {neighbour}", int: 777, float: 0.5 if default != 0.5 else 0.25, list: ["x"]}
    value = CHANGED[name] if name in CHANGED else examples[type(default)]
    assert value != default, f"{name}: {value!r} is the default, so nothing is changed by it"
    return value


@pytest.mark.parametrize("stage", params.STAGES)
def test_the_fingerprint_changes_with_what_can_change_the_result_and_with_nothing_else(stage):
    base = {"run": "none such", "engine": "transformers"} | ({"other_runs": []} if stage == "evaluate" else {})
    plain = params.build_settings(stage, base)
    unchanged = contents.stage_fingerprint(stage, plain)
    seen = {unchanged}
    for name, field in type(plain).model_fields.items():
        fingerprint = contents.stage_fingerprint(
            stage, params.build_settings(stage, base | {name: another(name, field)})
        )
        if name in WHERE:
            assert fingerprint == unchanged, name
        else:
            assert fingerprint not in seen, name
            seen.add(fingerprint)


def test_the_kits_version_is_in_the_fingerprint(monkeypatch):
    elicit = params.build_settings("elicit", {})
    before = contents.stage_fingerprint("elicit", elicit)
    monkeypatch.setattr(contents, "__version__", "0.0.0")
    assert contents.stage_fingerprint("elicit", elicit) != before


def test_a_hub_id_counts_by_the_commit_in_the_cache_and_needs_none_to_be_current(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = tmp_path / "hub" / "models--org--name" / "refs" / "main"
    begun = folders.begin_stage("elicit", settings_of("elicit", tmp_path, model="org/name"))
    commit.parent.mkdir(parents=True)
    commit.write_text("c1")  # fetched while the stage samples
    assert begun.finish({})["inputs"]["model"] == "org/name@c1"
    assert is_current("elicit", tmp_path, model="org/name")
    commit.write_text("c2")
    assert not is_current("elicit", tmp_path, model="org/name")
    commit.unlink()  # another machine, to which the run was copied
    assert is_current("elicit", tmp_path, model="org/name")
    assert not is_current("elicit", tmp_path, model="org/other")


def test_a_replay_takes_the_model_that_the_replayed_run_recorded(tmp_path):
    model = model_in(tmp_path / "a" / "model", b"weights that are gone by then")
    finish("elicit", tmp_path, model=model)
    recorded = folders.read_manifest(tmp_path / "r", "elicit")["inputs"]["model"]
    shutil.rmtree(tmp_path / "a")
    replay = settings_of("elicit", tmp_path, run="again", engine="replay", replay_from="r", model=model)
    assert folders.begin_stage("elicit", replay).finish({})["inputs"]["model"] == recorded


def test_parameters_are_compared_by_content(tmp_path):
    model = model_in(tmp_path / "one" / "model", b"weights")
    finish("elicit", tmp_path, model=model)
    manifest = folders.read_manifest(tmp_path / "r", "elicit")
    assert manifest["parameters"]["model"] == ".../model"
    names = ("model", "domain", "system_prompt")
    copy = model_in(tmp_path / "two" / "model", b"weights")
    assert folders.differing_parameters(manifest, settings_of("elicit", tmp_path, model=copy), names) == []
    another = model_in(tmp_path / "three" / "model", b"of the second round")
    different = folders.differing_parameters(manifest, settings_of("elicit", tmp_path, model=another), names)
    assert different == [("model", "'.../model' of another content", "'.../model'")]
    other = settings_of("elicit", tmp_path, model=copy, system_prompt="Be brief.")
    assert folders.differing_parameters(manifest, other, names) == [("system_prompt", "''", "'Be brief.'")]


def test_a_file_of_questions_is_compared_by_content_wherever_it_lies(tmp_path):
    places = [tmp_path / name / "mine.jsonl" for name in ("one", "copy", "other")]
    for path, text in zip(places, ("a", "a", "b"), strict=True):
        path.parent.mkdir()
        path.write_text(text)
    sources = [settings_of("vote", tmp_path, question_source=str(path)) for path in places]
    folders.begin_stage("vote", sources[0]).finish({})
    manifest = folders.read_manifest(tmp_path / "r", "vote")
    names = ("question_source", "votes")
    assert folders.differing_parameters(manifest, sources[1], names) == []
    different = [("question_source", "'.../mine.jsonl' of another content", "'.../mine.jsonl'")]
    assert folders.differing_parameters(manifest, sources[2], names) == different


A_MANIFEST = {"parameters": {"model": "org/m", "votes": 3, "budget_of": "whole"}, "hidden": [], "inputs": {}}


ANOTHER = "'org/m' of another content"
TWO_SIDES = {
    "a value": ({"parameters": {"votes": 3}}, {"parameters": {"votes": 5}}, [("votes", "3", "5")]),
    "not recorded": ({"parameters": {"votes": 3}}, {"parameters": {"votes": None}}, []),
    "content": ({"inputs": {"model": "abc"}}, {"inputs": {"model": "xyz"}}, [("model", ANOTHER, "'org/m'")]),
    "the same content": ({"inputs": {"model": "a"}}, {"inputs": {"model": "a"}, "parameters": {"model": "here/m"}}, []),
    "not fetched yet": ({"inputs": {"model": "org/m@"}}, {"inputs": {"model": "org/m@c1"}}, []),
    "another commit": (
        {"inputs": {"model": "org/m@c2"}},
        {"inputs": {"model": "org/m@c1"}},
        [("model", ANOTHER, "'org/m'")],
    ),
    "hidden": ({"inputs": {"model": "abc"}}, {"parameters": {"model": ".../m"}, "hidden": ["model"]}, []),
    "only one content": ({"inputs": {"model": "abc"}}, {"parameters": {"model": "m2"}}, [("model", "'org/m'", "'m2'")]),
    "the budget of a copy": (
        {"inputs": {"budget": [1, 2]}},
        {"inputs": {"budget": [1, 2]}, "parameters": {"budget_of": "copy"}},
        [],
    ),
    "another budget": (
        {"inputs": {"budget": [1, 2]}},
        {"inputs": {"budget": [1, 3]}, "parameters": {"budget_of": "new"}},
        [("budget_of", "'whole'", "'new'")],
    ),
    "files": (
        {"inputs": {"benchmarks": {"a": "1"}}},
        {"inputs": {"benchmarks": {"a": "2"}}},
        [("benchmarks", "['a'] of another content", "['a']")],
    ),
    "no files": ({"inputs": {"benchmarks": {"a": "1"}}}, {"inputs": {"benchmarks": {}}}, []),
}


@pytest.mark.parametrize(("of_one", "of_other", "different"), TWO_SIDES.values(), ids=TWO_SIDES)
def test_two_finished_stages_are_compared_by_content_where_both_record_it(of_one, of_other, different):
    sides = [{**A_MANIFEST, **side, "parameters": A_MANIFEST["parameters"] | side.get("parameters", {})}
             for side in (of_one, of_other)]  # fmt: skip
    for side in sides:
        side["parameters"] = {name: value for name, value in side["parameters"].items() if value is not None}
    names = ("model", "votes", "budget_of", "benchmarks")
    assert folders.differing_parameters(*sides, names) == different
    turned = [name for name, _, _ in folders.differing_parameters(*reversed(sides), names)]
    assert turned == [name for name, _, _ in different], "whichever side comes first"


def test_every_benchmark_has_its_files_here():
    assert {"arithmetic", *contents.BENCHMARK_FILES} == set(benchmarks.benchmark_names())
    listed = {pattern for patterns in contents.BENCHMARK_FILES.values() for pattern in patterns}
    assert listed == {*files.FILES, "bbh/*.json"}


def test_a_file_is_read_once_unless_it_changed(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = contents.file_sha256(path)
    path.write_bytes(b"two")
    assert contents.file_sha256(path) != first, "a change within the clock's resolution is seen"
    os.utime(path, (1, 1))
    settled = contents.file_sha256(path)
    before = contents._read_sha256.cache_info().hits
    assert contents.file_sha256(path) == settled
    assert contents._read_sha256.cache_info().hits == before + 1


def test_hash_json_does_not_depend_on_order_but_on_all_else():
    assert contents.hash_json({"a": 1, "b": [1, 2]}) == contents.hash_json({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": [1]}, {"a": None}, {"b": 1}, {"a": True}, {"a": "ä"}]
    assert len({contents.hash_json(value) for value in different}) == len(different)
