"""Pooling: which runs may stand beside another, as seeds and as ablations, and what they fill there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from shared import REFERENCE

from crescent_utils import runs
from crescent_utils.evaluate import claims, evaluation, pooling
from crescent_utils.runs import folders, params


def settings_of(**values):
    return params.build_settings("evaluate", {"engine": "transformers", "other_runs": [], **values})


def scores(seed, questions=("a", "b"), benchmark="x"):
    return pd.DataFrame(
        [
            {"benchmark": benchmark, "model": "base", "question": text, "seed": seed, "symbolic": True}
            for text in questions
        ]
    )


def write(folder, run, frame):
    (folder / run / "evaluate").mkdir(parents=True)
    frame.to_parquet(folder / run / "evaluate" / "scores.parquet")


def test_other_seeds_are_pooled(tmp_path):
    write(tmp_path, "two", scores(2))
    write(tmp_path, "three", scores(3, ("b", "a")))
    both = settings_of(outputs=str(tmp_path), seed=1, other_runs=["two", "three"])
    whole = pooling.pooled_scores(scores(1), both)
    assert sorted(zip(whole["seed"], whole["question"], strict=True)) == [(s, q) for s in (1, 2, 3) for q in "ab"]
    assert pooling.pooled_scores(scores(1), settings_of()).equals(scores(1))


@pytest.mark.parametrize(
    "others, own_seed, why",
    [
        ({"two": scores(2, ("a", "c"))}, 1, "'two' answered other items"),
        ({"two": scores(2, ("a",))}, 1, "'two' answered other items"),
        ({"two": scores(2, benchmark="y")}, 1, "'two' answered other items"),
        ({"two": scores(1)}, 1, "'two' has seed 1 as well"),
        ({"two": scores(2), "three": scores(2)}, 1, "'three' has seed 2 as well"), ({}, 1, "06_evaluate"),
    ],
)  # fmt: skip
def test_what_cannot_be_pooled_is_refused(tmp_path, others, own_seed, why):
    for run, frame in others.items():
        write(tmp_path, run, frame)
    own = settings_of(outputs=str(tmp_path), seed=own_seed, other_runs=list(others) or ["missing"])
    with pytest.raises(folders.RunError, match=why):
        pooling.pooled_scores(scores(own_seed), own)


@pytest.mark.parametrize(
    "name, theirs",
    [("eval_max_tokens", 41), ("eval_temperature", 0.8), ("eval_samples", 2), ("system_prompt", "Think."),
     ("domain", "math_word_problems"), ("solve_prompt", "{question}!")],
)  # fmt: skip
def test_runs_that_were_judged_in_another_way_are_neither_pooled_nor_compared(tmp_path, name, theirs):
    own = settings_of(outputs=str(tmp_path), seed=1, other_runs=["two"])
    write(tmp_path, "two", scores(2))
    folders.write_json(tmp_path / "two" / "evaluate" / "manifest.json", {"parameters": own.model_dump()})
    assert len(pooling.pooled_scores(scores(1), own)) == 4
    folders.write_json(
        tmp_path / "two" / "evaluate" / "manifest.json", {"parameters": {**own.model_dump(), name: theirs}}
    )
    with pytest.raises(folders.RunError, match=f"other_runs: 'two' was judged with {name} = "):
        pooling.pooled_scores(scores(1), own)
    compared = own.model_copy(update={"other_runs": [], "compare_runs": {"tuned_other": ["two"]}})
    with pytest.raises(folders.RunError, match=f"compare_runs: 'two' was judged with {name} = "):
        pooling.pooled_scores(scores(1), compared)


def test_runs_with_other_shots_or_decodings_are_not_pooled(tmp_path):
    own = settings_of(outputs=str(tmp_path), other_runs=["two"])
    for column, value in (("shots", 5), ("decoding", "sampled")):
        usual = {"shots": 0, "decoding": "greedy"}
        write(tmp_path / column, "two", scores(2).assign(**{**usual, column: value}))
        with pytest.raises(folders.RunError, match="'two' answered other shots or decodings"):
            pooling.pooled_scores(scores(1).assign(**usual), own.model_copy(update={"outputs": str(tmp_path / column)}))


def record(outputs, run, seed, inputs=(), hidden=(), **changes):
    """Write the manifests of all stages before 06 as a run with these parameters would have left them."""
    for stage in params.STAGES[:-1]:
        values = {"run": run, "seed": seed, **changes}
        recorded = params.build_settings(stage, params.parameters_of(stage, values)).model_dump()
        names = [name for name in hidden if name in recorded]
        recorded |= {name: f".../{Path(recorded[name]).name}" for name in names}
        manifest = {"parameters": recorded, "hidden": names, "inputs": dict(inputs)}
        folders.write_json(outputs / run / stage / "manifest.json", manifest)


MAKES_THE_MODEL = {
    "elicit_samples": 10, "similarity_threshold": 0.5, "votes": 3, "min_agreement": 0.9, "path_choice": "first",
    "protocol": "strict", "method": "full", "lora_rank": 4, "lora_targets": ["k_proj"], "learning_rate": 1.0e-4,
    "epochs": 1.0,
    "batch_size": 8, "max_pairs": 50, "train_min_agreement": 0.75,
    "student_learning_rate": 1.0e-3,
    "student_data": "self_samples", "max_rewrites": 0, "vote_temperature": 1.0, "decontaminate": False,
    "model": "other/model",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), MAKES_THE_MODEL.items(), ids=MAKES_THE_MODEL)
def test_runs_are_pooled_only_if_all_that_makes_the_model_but_the_seed_is_the_same(tmp_path, name, value):
    settings = settings_of(outputs=str(tmp_path), run="one", seed=1, other_runs=["two"])
    record(tmp_path, "one", 1)
    write(tmp_path, "two", scores(2))
    record(tmp_path, "two", 2, engine="transformers", micro_batch_size=1)
    assert len(pooling.pooled_scores(scores(1), settings)) == 4, "where and how fast does not count"
    record(tmp_path, "two", 2, **{name: value})
    with pytest.raises(folders.RunError, match=f"other_runs: 'two' was made with {name} = .* differ in nothing but"):
        pooling.pooled_scores(scores(1), settings)
    compared = settings.model_copy(update={"other_runs": [], "compare_runs": {"tuned_ablated": ["two"]}})
    assert len(pooling.pooled_scores(scores(1), compared)) == 2, "an ablation may differ in all of it"


def test_what_is_read_counts_by_its_content_and_a_hidden_place_says_nothing(tmp_path):
    settings = settings_of(outputs=str(tmp_path), run="one", seed=1, other_runs=["two"], model="/here/model")
    record(tmp_path, "one", 1, inputs={"model": "abc"}, hidden=["model"], model="/here/model")
    write(tmp_path, "two", scores(2))
    record(tmp_path, "two", 2, inputs={"model": "abc"}, hidden=["model"], model="/there/copy")
    assert len(pooling.pooled_scores(scores(1), settings)) == 4
    record(tmp_path, "two", 2, inputs={"model": "xyz"}, hidden=["model"], model="/here/model")
    named = r"'two' was made with model = '\.\.\./model' of another content, this run with '\.\.\./model'\."
    with pytest.raises(folders.RunError, match=named):
        pooling.pooled_scores(scores(1), settings)


def test_a_run_whose_making_is_not_recorded_is_not_pooled(tmp_path):
    record(tmp_path, "one", 1)
    write(tmp_path, "two", scores(2))
    settings = settings_of(outputs=str(tmp_path), run="one", seed=1, other_runs=["two"])
    with pytest.raises(folders.RunError, match="'two' has no manifest of elicit"):
        pooling.pooled_scores(scores(1), settings)


def test_the_reference_pools_its_seeds():
    settings = params.build_settings("evaluate", {"run": "reference"})
    assert settings.other_runs == [f"reference/seed{number}" for number in range(2, 6)]
    whole = pooling.pooled_scores(folders.read_table(REFERENCE, "evaluate", "scores"), settings)
    assert sorted(whole["seed"].unique()) == [1, 2, 3, 4, 5]
    sizes = whole.groupby(["model", "seed"]).size().unstack()
    assert (sizes.loc[["base", "tuned", runs.CONTROL]].nunique(axis=1) == 1).all()
    assert sizes.loc["student_tuned"].notna().tolist() == [True] + 4 * [False], "the first run alone has a student"
    with pytest.raises(folders.RunError, match="eval_max_tokens"):
        pooling.pooled_scores(whole, settings.model_copy(update={"eval_max_tokens": 41}))


def full(seed, tuned, items=60):
    """A whole scores table: base wrong on every item, `tuned` right on that share of them."""
    flags = {"base": 0.0, "tuned": tuned, "student": 0.0, "student_tuned": tuned / 2}
    return pd.DataFrame([
        {"benchmark": "arithmetic", "kind": "", "model": model, "shots": 0, "decoding": "greedy", "item": i,
            "sample": 0, "seed": seed,
         "question": f"What is {i} + 1?", "gold": str(i + 1), "form": "number", "completion": "", "answer": None,
         "strict": False, "flexible": i < share * items, "symbolic": i < share * items, "truncated": False}
        for model, share in flags.items() for i in range(items)
    ])  # fmt: skip


def test_ablated_models_of_other_runs_fill_their_claims(tmp_path):
    own = full(1, 0.9)
    for run, seed, tuned in (("no_dedup", 1, 0.2), ("no_vote", 1, 0.9), ("seed_data", 1, 0.3)):
        write(tmp_path, run, full(seed, tuned))
    values = {"tuned_no_dedup": ["no_dedup"], "tuned_no_vote": ["no_vote"], "student_seed": ["seed_data"]}
    settings = settings_of(outputs=str(tmp_path), compare_runs=values, resamples=200)
    whole = pooling.pooled_scores(own, settings)
    assert set(whole["model"]) == {"base", "tuned", "student", "student_tuned", *values}
    assert whole.loc[whole["model"] == "student_seed", "symbolic"].sum() == 9, (
        "the student's answers, not the tuned model's"
    )
    found = evaluation.comparison_table(whole, pd.DataFrame(), settings)
    ledger = {claim.id: claim for claim in claims.claims_ledger(found)}
    assert ledger["C5"].verdict == "reproduced" and ledger["C5"].effect == pytest.approx(0.7)
    assert ledger["C4"].verdict == "reproduced" and ledger["C4"].effect == pytest.approx(0.3)
    assert ledger["C6"].effect == 0 and ledger["C6"].verdict != "reproduced"
    twice = settings_of(outputs=str(tmp_path), compare_runs={"tuned_no_vote": ["no_vote", "no_dedup"]})
    with pytest.raises(folders.RunError, match="tuned_no_vote: 'no_dedup' has seed 1 as well"):
        pooling.pooled_scores(own, twice)


def test_without_a_student_the_base_and_the_tuned_model_are_all(tmp_path):
    write(tmp_path, "other", full(2, 0.9))
    settings = settings_of(outputs=str(tmp_path), run="r", student="none", other_runs=["other"], resamples=200)
    own = full(1, 0.5).query("model in ('base', 'tuned')")
    whole = pooling.pooled_scores(own, settings)
    assert set(whole["model"]) == {"base", "tuned"} and set(whole["seed"]) == {1, 2}
    found = evaluation.comparison_table(whole, pd.DataFrame(), settings)
    assert set(found["after"]) == {"tuned"} and evaluation.compared_pairs(settings, whole) == [("base", "tuned")]
    folders.write_json(tmp_path / "r" / "finetune" / "trained.json", {"fingerprint": "of-finetune"})
    assert list(evaluation.models_to_evaluate(settings)) == ["base", "tuned"]


def test_controls_are_pooled_over_the_seeds_that_have_one(tmp_path):
    def controlled(seed, tuned, control):
        scores = full(seed, tuned).query("model in ('base', 'tuned')")
        extra = full(seed, control).query("model == 'tuned'").assign(model="tuned_random_labels")
        return pd.concat([scores, extra], ignore_index=True)

    settings = settings_of(outputs=str(tmp_path), run="one", student="none", other_runs=["two", "three"], resamples=200)
    record(tmp_path, "one", 1, random_label_control=True)
    record(tmp_path, "two", 2, random_label_control=True)
    record(tmp_path, "three", 3)  # the method's own model is the same with and without a control
    write(tmp_path, "two", controlled(2, 0.8, 0.2))
    write(tmp_path, "three", full(3, 0.7))
    whole = pooling.pooled_scores(controlled(1, 0.9, 0.1), settings)
    assert whole.groupby("model")["seed"].nunique().to_dict() == {"base": 3, "tuned": 3, "tuned_random_labels": 2}
    found = evaluation.comparison_table(whole, pd.DataFrame(), settings).query("scoring == 'symbolic'")
    found = found.set_index("after")
    assert found["before"].to_dict() == {"tuned": "base", "tuned_random_labels": "base"}
    assert found.loc["tuned_random_labels", "difference"] == pytest.approx(0.15)
    assert found["seeds"].to_dict() == {"tuned": 3, "tuned_random_labels": 2}
    ledger = {claim.id: claim for claim in claims.claims_ledger(found.reset_index())}
    assert ledger["C1"].effect == pytest.approx(0.8), "the control is no evidence for a claim"
    parts = evaluation.parts_summary(evaluation.parts_table(whole, settings))
    assert set(parts["after"]) == {"tuned", "tuned random labels"}


@pytest.mark.parametrize("label", ["tuned", "base", "student_tuned", "no_dedup", "tuned_", "student"])
def test_a_label_says_whose_model_it_is(label):
    with pytest.raises(params.ParameterError, match="compare_runs.*is no label of an ablated model"):
        settings_of(compare_runs={label: ["x"]})
