"""A forecast counts and times what is not known before a run; no model is needed."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from shared import REFERENCE

from crescent_utils.cli import forecast
from crescent_utils.cli.forecast import Pace, Row
from crescent_utils.runs import params, settings_from

# What two runs on the machine of these paces took, an engine of vLLM in their process (2026-11-21): seconds of sampling
# and training by stage, and the time of the whole run.
BAITS, ANSWERS = Pace(0.0203, 2.2, 6.6), Pace(0.0349, 0.7, 18.9)
CPU = {"dedup": 44, "vote": 215, "finetune": 71, "distil": 37, "evaluate": 58}
NINTH = {"vote": 39, "finetune": 18, "distil": 13, "evaluate": 8}


def settings_of(**values):
    values = {"engine": "vllm", "run": "none", "random_label_control": False, **values}
    return {stage: settings_from(stage, values) for stage in params.STAGES}


def rows_of(questions=1313, recorded=REFERENCE, paces=None, engine="vllm", due=params.STAGES, **values):
    """The rows of a run by stage and model, and the facts."""
    paces = {"elicit": BAITS, "evaluate": ANSWERS} if paces is None else paces
    rows, facts = forecast.estimated_rows(
        settings_of(**values), due, ["elicit", "evaluate"], questions, paces, engine, recorded
    )
    return {(row.stage, row.model): row for row in rows}, "\n".join(facts)


@pytest.mark.parametrize(
    ("size", "baits", "answers", "questions", "taken", "whole"),
    [({}, 2700, 700, 1313, CPU, 581), ({"elicit_samples": 300, "benchmark_items": 40}, 300, 80, 140, NINTH, 151)],
    ids=["the laptop run", "a ninth of it"],
)
def test_each_stage_of_two_recorded_runs_is_forecast_within_30_percent(size, baits, answers, questions, taken, whole):
    rows, _ = rows_of(questions, **size)
    for stage, seconds in taken.items():
        expected = sum(row.seconds for row in rows.values() if row.stage == stage)
        assert 0.7 * seconds <= expected <= 1.3 * seconds, (stage, expected)
    known = [Row("elicit", "base", baits, 0, 0, BAITS.seconds(baits))]
    known.append(Row("evaluate", "base", answers, 0, 0, ANSWERS.seconds(answers)))
    every_row = [*rows.values(), *known]
    beside = forecast.seconds_beside(every_row, params.STAGES, "vllm", 15.0)
    assert 0.8 * whole <= beside + sum(row.seconds for row in every_row) <= 1.2 * whole


def test_the_recorded_run_tells_what_stages_hand_on():
    rows, facts = rows_of()
    assert rows["dedup", "base"].count == 1310 and rows["vote", "base"].count == 597 * 8
    assert rows["finetune", "tuned"].count == 155 and round(rows["finetune", "tuned"].tokens) == 23808
    assert round(rows["distil", "student_tuned"].tokens) == 15904
    assert {row.about for (stage, _), row in rows.items() if stage != "evaluate"} == {"~ "}
    assert "1,310 rewrites, 597 questions to vote on, 155 pairs" in facts and "but it was made" not in facts


def test_what_a_run_does_otherwise_is_counted_by_its_own_rules():
    assert ("dedup", "base") not in rows_of(max_rewrites=0)[0]
    everything, facts = rows_of(max_rewrites=0, similarity_threshold=1.1)
    assert 597 * 8 < everything["vote", "base"].count < 1313 * 8 and "similarity_threshold 0.0" in facts
    assert rows_of(decontaminate=False)[0]["vote", "base"].count == 801 * 8
    strict, all_paths = rows_of(min_agreement=0.9)[0], rows_of(path_choice="all")[0]
    assert strict["finetune", "tuned"].count < 155 < all_paths["finetune", "tuned"].count
    assert rows_of(votes=3)[0]["vote", "base"].count == 597 * 3
    assert rows_of(max_pairs=50)[0]["finetune", "tuned"].count == 50
    half = rows_of(epochs=1.5)[0]["finetune", "tuned"].seconds
    start = rows_of(epochs=1.0e-9)[0]["finetune", "tuned"].seconds
    assert half - start == pytest.approx((rows_of()[0]["finetune", "tuned"].seconds - start) / 2)
    assert "made with method 'lora'" in rows_of(method="full")[1]


def test_the_pairs_of_runs_that_accumulate_are_learned_too():
    earlier = [pd.read_parquet(REFERENCE / seed / "vote" / "qa.parquet") for seed in ("seed2", "seed3")]
    both = {"accumulate_runs": ["reference/seed2", "reference/seed3"]}
    assert rows_of(**both)[0]["finetune", "tuned"].count == 155 + sum(map(len, earlier))
    assert rows_of(**both, max_pairs=200)[0]["finetune", "tuned"].count == 200
    agreeing = sum(int((table["agreement"] >= 0.75).sum()) for table in earlier)
    alone, more = (rows_of(train_min_agreement=0.75, **values)[0]["finetune", "tuned"].count for values in ({}, both))
    assert more - alone == agreeing


def test_a_budget_ends_the_vote_and_with_it_the_pairs():
    source = {"question_source": "arithmetic", "question_items": 1000}
    rows, _ = rows_of(0, **source, token_budget=10_000)
    assert 10_000 <= rows["vote", "base"].tokens < 10_000 + 2 * 8 * 40
    assert rows["finetune", "tuned"].count < rows_of(0, **source)[0]["finetune", "tuned"].count


def test_own_exemplars_cost_a_vote_of_their_own_which_the_budget_pays():
    assert rows_of(vote_shots="own", own_questions=30)[0]["vote", "base"].count == (597 + 30) * 8
    assert rows_of(10, recorded=None, vote_shots="own", own_questions=30)[0]["vote", "base"].count == 2 * 10 * 8
    source = {"question_source": "arithmetic", "question_items": 1000, "token_budget": 10_000}
    without, own = (rows_of(0, **source, **more)[0] for more in ({}, {"vote_shots": "own", "own_questions": 20}))
    assert own["vote", "base"].count == without["vote", "base"].count
    assert own["finetune", "tuned"].count < without["finetune", "tuned"].count


def test_a_control_is_trained_and_answers(tmp_path):
    plain, _ = rows_of()
    rows, _ = rows_of(random_label_control=True)
    tuned, control = rows["finetune", "tuned"], rows["finetune", "tuned_random_labels"]
    assert control.is_training and (control.count, control.seconds) == (tuned.count, tuned.seconds)
    assert tuned == plain["finetune", "tuned"]
    assert rows["evaluate", "tuned_random_labels"].count == 350, "greedy answers alone"
    assert rows.keys() - plain.keys() == {("finetune", "tuned_random_labels"), ("evaluate", "tuned_random_labels")}
    starts = [forecast.seconds_beside(list(table.values()), [], "vllm", 10.0) for table in (plain, rows)]
    assert starts[1] - starts[0] == pytest.approx(3)
    recorded = tmp_path / "recorded"  # a run with a control: its 04 took the time of two trainings
    shutil.copytree(REFERENCE, recorded)
    path = recorded / "finetune" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["cost"]["seconds"] *= 2 / len(manifest["models"])
    manifest["models"] = {"tuned": "a", "tuned_random_labels": "b"}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert rows_of(recorded=recorded)[0]["finetune", "tuned"].seconds == pytest.approx(tuned.seconds)


def test_a_slower_machine_trains_slower_where_the_same_engine_tells():
    slow = {"elicit": Pace(0.0406, 4.4, 6.6), "evaluate": ANSWERS}
    usual, twice = (rows_of(paces=paces)[0]["finetune", "tuned"].seconds for paces in (None, slow))
    assert twice == pytest.approx(2 * usual)
    assert rows_of(paces=slow, engine="server")[0]["finetune", "tuned"].seconds == pytest.approx(usual, rel=0.05)


def test_without_a_recorded_run_all_survives_and_training_is_unknown():
    rows, facts = rows_of(100, recorded=None)
    assert (rows["dedup", "base"].count, rows["vote", "base"].count) == (200, 800)
    assert rows["vote", "base"].about == "≤ " and rows["finetune", "tuned"].seconds is None
    assert "training is unknown" in facts


def test_a_finished_stage_costs_nothing():
    rows, _ = rows_of(due=["evaluate"])
    assert all(row.seconds == 0 and row.stored == row.count for (stage, _), row in rows.items() if stage != "evaluate")


def test_the_recorded_run_is_one_of_the_same_kind(tmp_path):
    assert forecast.find_recorded(settings_of(outputs=str(tmp_path))) == REFERENCE, "the kit's own, wherever one writes"
    for other in ({"domain": "math_word_problems"}, {"protocol": "strict"}, {"replay_from": "none"}):
        assert forecast.find_recorded(settings_of(**other)) is None


def test_a_sum_goes_on_like_its_last_quarter():
    values = [1] * 6 + [0, 1]
    assert [forecast.extended_sum(values, count) for count in (0, 3, 8, 12)] == [0, 3, 7, 9]
    assert forecast.extended_sum([], 5) == 0


def test_a_pace_is_the_slope_of_groups_of_several_sizes():
    pace = forecast.fitted_pace([(32, 1.64), (64, 2.28), (128, 3.56)], 10.0)
    assert (pace.each, pace.batch) == (pytest.approx(0.02), pytest.approx(1.0))
    assert pace.seconds(100, batches=2) == pytest.approx(4.0) and pace.seconds(0) == 0
    assert pace.of_length(28.0).each == pytest.approx(0.04)
    assert forecast.fitted_pace([(32, 3.2)], 10.0) == Pace(pytest.approx(0.1), 0.0, 10.0)
    assert forecast.fitted_pace([(32, 5.0), (64, 5.1)], 10.0).each == pytest.approx(5.1 / 64 / 2), "noise has bounds"
    jammed = forecast.fitted_pace([(32, 1.4), (64, 2.1), (128, 3.0), (256, 16.1)], 10.0)
    assert jammed.each == pytest.approx(3.0 / 128), "as another program made it on the last group"


def test_starts_are_counted_by_engine_and_machine(monkeypatch):
    rows = list(rows_of()[0].values())
    beside = sum(forecast.BESIDE.values())
    assert forecast.seconds_beside(rows, params.STAGES, "vllm", 10.0) == pytest.approx(beside + 10 + 3 * 3)
    assert forecast.seconds_beside([], [], "vllm", 0.0) == 0
    monkeypatch.setattr(forecast.generation, "best_device", lambda: "cuda")
    assert forecast.seconds_beside(rows, params.STAGES, "vllm", 10.0) == pytest.approx(beside + 5 * 10)
