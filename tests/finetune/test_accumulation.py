"""Pairs of earlier runs: which are learned, why the others are left out, and runs that cannot be learned together."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import REFERENCE

from crescent_utils.cli import verify
from crescent_utils.finetune import accumulation, training
from crescent_utils.finetune.masks import TrainingError
from crescent_utils.runs import folders, params

SOURCES = {"one": REFERENCE, "two": REFERENCE / "seed2", "three": REFERENCE / "seed3"}


def settings_of(stage, outputs, **values):
    return params.build_settings(stage, {"outputs": str(outputs), "run": "one", "engine": "transformers", **values})


def leave_vote(outputs, run, table, **values):
    """Leave what a run up to its vote leaves: the manifests of 01 to 03, and `table` as its `qa`."""
    for stage in ("elicit", "dedup", "vote"):
        known = params.parameters_of(stage, {"run": run, **values})
        begun = folders.begin_stage(stage, settings_of(stage, outputs, **known))
        if stage == "vote":
            begun.write_table("qa", table)
        begun.finish({})


@pytest.fixture
def outputs(tmp_path):
    """The votes of the three recorded runs, as runs that can be learned together."""
    for name, source in SOURCES.items():
        leave_vote(tmp_path, name, pd.read_parquet(source / "vote" / "qa.parquet"))
    return tmp_path


def learned(outputs, **values):
    return accumulation.learned_rows(folders.begin_stage("finetune", settings_of("finetune", outputs, **values)))


def test_alone_a_run_learns_what_it_did_and_says_what_it_left_out(outputs):
    own = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")
    rows, left_out = learned(outputs)
    pd.testing.assert_frame_equal(rows.drop(columns="run"), own)
    assert left_out.empty and set(rows["run"]) == {"this run"}
    few = {"train_min_agreement": 0.75, "max_pairs": 20, "seed": 3}
    rows, left_out = learned(outputs, **few)
    expected = training.chosen_rows(own, params.build_settings("finetune", few))
    pd.testing.assert_frame_equal(rows.drop(columns="run"), expected)
    below = int((own["agreement"] < 0.75).sum())
    assert left_out["reason"].value_counts().to_dict() == {
        "train_min_agreement": below, "max_pairs": len(own) - below - 20}  # fmt: skip


def test_earlier_pairs_are_learned_too_each_question_once_and_the_newest_label_counts(outputs):
    rows, left_out = learned(outputs, accumulate_runs=["two", "three"])
    tables = {name: pd.read_parquet(source / "vote" / "qa.parquet") for name, source in SOURCES.items()}
    tables["this run"] = tables.pop("one")
    answer_of, run_of = {}, {}
    for name in ("three", "two", "this run"):  # a later one takes the place of an earlier one
        for row in tables[name].itertuples():
            answer_of[row.question.casefold()], run_of[row.question.casefold()] = row.path, name
    assert dict(zip(rows["question"].str.casefold(), rows["path"], strict=True)) == answer_of
    assert dict(zip(rows["question"].str.casefold(), rows["run"], strict=True)) == run_of
    assert rows["id"].is_unique and rows["run"].unique().tolist() == ["this run", "two", "three"]
    assert len(left_out) > 30 and set(left_out["reason"]) == {"repeats a question"}
    for row in left_out.itertuples():
        there = tables[row.run].set_index("id").loc[row.id]
        assert (there["question"], there["agreement"]) == (row.question, row.agreement), "an id of its own run"
    counts = accumulation.learned_counts(rows, left_out).set_index("run")
    assert counts["candidates"].to_dict() == {name: len(table) for name, table in tables.items()}
    assert (counts["learned"] + counts["repeats a question"] == counts["candidates"]).all()
    assert counts.loc["this run", "repeats a question"] == 0


ROWS = st.lists(
    st.tuples(st.sampled_from(["What is 1 + 2?", "what is  1 + 2?", "3 x 4?", "7 - 5?", "9 + 9?"]), st.integers(0, 4)),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(0, 4), st.integers(0, 5))
def test_every_candidate_is_learned_or_left_out_for_the_right_reason(tmp_path_factory, tables, threshold, most):
    outputs = tmp_path_factory.mktemp("outputs")
    names = ["one", "two", "three"][: len(tables)]
    for name, rows in zip(names, tables, strict=True):
        texts = {"question": [text for text, _ in rows], "path": [f"{name} {number}" for number in range(len(rows))]}
        agreement = [votes / 4 for _, votes in rows]
        leave_vote(outputs, name, pd.DataFrame({"id": range(len(rows)), **texts, "agreement": agreement}))
    values = {"accumulate_runs": names[1:], "train_min_agreement": threshold / 4, "max_pairs": most}
    rows, left_out = learned(outputs, **values)
    taken, may, reasons = {}, [], {}
    for name, table in zip(names, tables, strict=True):  # the rule, row by row
        for number, (text, votes) in enumerate(table):
            wording = " ".join(text.lower().split())
            if votes < threshold:
                reasons[name, number] = "train_min_agreement"
            elif taken.setdefault(wording, name) != name:
                reasons[name, number] = "repeats a question"
            else:
                may.append(f"{name} {number}")
    assert len(rows) == (min(most, len(may)) if most else len(may)) and set(rows["path"]) <= set(may)
    assert len(rows) + len(left_out) == sum(map(len, tables)), "kept and rejected are all candidates"
    for row in left_out.itertuples():
        assert row.reason == reasons.get((row.run.replace("this run", "one"), row.id), "max_pairs")
    counts = accumulation.learned_counts(rows, left_out)
    assert counts["candidates"].sum() == len(rows) + len(left_out) and counts["learned"].sum() == len(rows)


def test_a_run_without_a_finished_vote_is_named_before_anything_is_learned(outputs):
    with pytest.raises(folders.RunError, match=r"accumulate_runs: run 'four' has no finished vote.*--to vote"):
        learned(outputs, accumulate_runs=["two", "four"])
    for names in (["one"], ["two", "two"]):
        with pytest.raises(params.ParameterError, match="accumulate_runs: .*other runs than this one, each once"):
            settings_of("finetune", outputs, accumulate_runs=names)


@pytest.mark.parametrize("stage", ["dedup", "vote"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("system_prompt", "s"), ("protocol", "strict"), ("decontaminate", False), ("evaluate_on", ["gsm8k"]),
     ("benchmark_items", 20), ("benchmark_seed", 3), ("domain", "math_word_problems")],
)  # fmt: skip
def test_runs_that_were_asked_or_decontaminated_otherwise_are_not_learned_together(outputs, stage, name, value):
    begun = folders.begin_stage(stage, settings_of(stage, outputs, run="two", **{name: value}))
    begun.finish({})
    pd.read_parquet(SOURCES["two"] / "vote" / "qa.parquet").to_parquet(outputs / "two" / "vote" / "qa.parquet")
    with pytest.raises(TrainingError, match=f"accumulate_runs: {stage} of 'two' was made with {name} "):
        learned(outputs, accumulate_runs=["two"])


def test_what_may_differ_is_the_model_the_seed_and_what_the_vote_cost(outputs):
    table = pd.read_parquet(SOURCES["two"] / "vote" / "qa.parquet")
    leave_vote(outputs, "two", table, seed=7, votes=3, vote_shots="exemplars", model="org/other", min_agreement=0.9)
    rows, _ = learned(outputs, accumulate_runs=["two"])
    assert set(rows["run"]) == {"this run", "two"}
    leave_vote(outputs, "two", table, solve_prompt="{question} Think.")
    with pytest.raises(TrainingError, match="vote of 'two' was made with solve_prompt '{question} Think.'"):
        learned(outputs, accumulate_runs=["two"], train_prompt="solve")
    assert len(learned(outputs, accumulate_runs=["two"], train_prompt="bare")[0]) == len(rows)


def test_another_set_of_benchmark_files_is_another_decontamination(outputs):
    path = outputs / "two" / "vote" / "manifest.json"
    manifest = json.loads(path.read_text())
    for files, raises in (({}, False), ({"gsm8k_test.jsonl": "a"}, False), ({"gsm8k_test.jsonl": "b"}, True)):
        own = outputs / "one" / "vote" / "manifest.json"
        with_files = json.loads(own.read_text())
        with_files["inputs"]["benchmarks"] = {"gsm8k_test.jsonl": "a"}
        own.write_text(json.dumps(with_files))
        manifest["inputs"]["benchmarks"] = files
        path.write_text(json.dumps(manifest))
        if raises:
            with pytest.raises(TrainingError, match=r"benchmarks \['gsm8k_test.jsonl'\].*of another content"):
                learned(outputs, accumulate_runs=["two"])
        else:
            learned(outputs, accumulate_runs=["two"])


def twelve_rows_each():
    """12 rows of each vote: up to six questions that "one" and "two" are both sure of, and its least and most sure."""
    tables = {name: pd.read_parquet(source / "vote" / "qa.parquet") for name, source in SOURCES.items()}
    sure = [set(tables[name].query("agreement >= 0.6")["question"]) for name in ("one", "two")]
    both = sorted(sure[0] & sure[1])[:6]
    assert both, "the recorded runs have no question in common"
    few = {}
    for name, table in tables.items():
        again = table[table["question"].isin(both)]
        own = table.drop(again.index).sort_values("agreement", kind="stable")
        few[name] = pd.concat([again, own.head(3), own.tail(9 - len(again))], ignore_index=True)
    assert few["one"]["agreement"].min() < 0.6, "nothing of the run itself would be left out"
    return few


def test_the_notebook_learns_them_and_a_replay_learns_the_same_and_no_others(tmp_path):
    model = tiny.model_folder(tmp_path / "model", layers=1)
    tables = twelve_rows_each()
    for name, table in {**tables, "again": tables["one"]}.items():
        leave_vote(tmp_path, name, table, model=str(model))
    values = {"outputs": str(tmp_path), "model": str(model), "train_prompt": "solve", "random_label_control": False,
              "accumulate_runs": ["two", "three"], "epochs": 1.0,
              "train_min_agreement": 0.6,  # so that rows of the run itself are left out, too
              "max_length": 400, "held_out": 0.0}  # fmt: skip
    assert verify.replay_stage("finetune", {**values, "run": "one", "engine": "transformers"}) == ""
    counts = folders.read_manifest(tmp_path / "one", "finetune")["counts"]
    left_out = pd.read_parquet(tmp_path / "one" / "finetune" / "left_out.parquet")
    assert 2 < counts["pairs"] == 36 - len(left_out) and {"this run", "two"} <= set(left_out["run"])
    assert set(left_out["reason"]) == {"train_min_agreement", "repeats a question"}
    replay = {**values, "run": "again", "engine": "replay", "replay_from": "one"}
    assert verify.replay_stage("finetune", replay) == ""
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "again" / "finetune" / "left_out.parquet"), left_out)
    assert "other pairs" in verify.replay_stage("finetune", {**replay, "accumulate_runs": ["three"]})
    two = Path(tmp_path / "two" / "vote" / "qa.parquet")
    pd.read_parquet(two).head(3).to_parquet(two)
    assert "other pairs" in verify.replay_stage("finetune", replay)
