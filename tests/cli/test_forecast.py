"""A forecast counts and times what is not known before a run; no model is needed."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from shared import REFERENCE

from crescent_utils.cli import forecast
from crescent_utils.cli.forecast import Pace, Row
from crescent_utils.runs import folders, params, settings_from

COUNTS = {stage: folders.read_manifest(REFERENCE, stage)["counts"] for stage in params.STAGES}
QUESTIONS, POOL, PAIRS = (COUNTS[stage]["kept"] for stage in ("elicit", "dedup", "vote"))
REWRITES = folders.read_manifest(REFERENCE, "dedup")["cost"]["completions"]
OWN, VOTES = 60, 12  # questions asked zero-shot for exemplars of the model's own; votes
# The run's exemplars leave its vote: that of their questions is known. The rest is forecast as if it were asked too.
PAIRS_OF_ALL = round(PAIRS + (POOL - COUNTS["vote"]["questions"]) * PAIRS / COUNTS["vote"]["questions"])

# What two runs of params/cpu.yaml took on two cores, and the paces that `--plan` had probed just before each
# (2026-11-22; vLLM, other programs at work in between): seconds of sampling and training by stage, and of all of it.
BAITS, ANSWERS = Pace(0.0158, 0.4, 6.3), Pace(0.0485, 1.3, 29.5)
SMALL_BAITS, SMALL_ANSWERS = Pace(0.0289, 0.9, 6.8), Pace(0.0672, 2.3, 29.4)
DUE = [stage for stage in params.STAGES if stage != "distil"]
LAPTOP = {"vote": 155, "finetune": 161, "evaluate": 712}
SMALL = {"vote": 111, "finetune": 97, "evaluate": 226}


def settings_of(**values):
    values = {"engine": "vllm", "run": "none", "random_label_control": False, **values}
    return {stage: settings_from(stage, values) for stage in params.STAGES}


def rows_of(questions=QUESTIONS, recorded=REFERENCE, paces=None, engine="vllm", due=params.STAGES, **values):
    """The rows of a run by stage and model, and the facts."""
    paces = {"elicit": BAITS, "evaluate": ANSWERS} if paces is None else paces
    rows, facts = forecast.estimated_rows(
        settings_of(**values), due, ["elicit", "evaluate"], questions, paces, engine, recorded
    )
    return {(row.stage, row.model): row for row in rows}, "\n".join(facts)


@pytest.mark.parametrize(
    ("size", "paces", "questions", "asked_of_base", "taken", "whole"),
    [
        ({}, (BAITS, ANSWERS), 504, 4300, LAPTOP, 1096),
        ({"elicit_samples": 300, "benchmark_items": 150}, (SMALL_BAITS, SMALL_ANSWERS), 140, 1600, SMALL, 505),
    ],
    ids=["the laptop run", "a third of its baits, a tenth of its items"],
)
def test_two_runs_are_forecast_within_30_percent(size, paces, questions, asked_of_base, taken, whole):
    values = {**size, "student": "none", "random_label_control": True}
    rows, _ = rows_of(questions, paces=dict(zip(("elicit", "evaluate"), paces, strict=True)), due=DUE, **values)
    baits, answers = (
        pace.seconds(count)
        for pace, count in zip(paces, (size.get("elicit_samples", 1000), asked_of_base), strict=True)
    )
    every_row = [*rows.values(), Row("elicit", "base", 1, 0, 0, baits), Row("evaluate", "base", 1, 0, 0, answers)]
    for stage, seconds in taken.items():
        expected = sum(row.seconds for row in every_row if row.stage == stage)
        assert 0.7 * seconds <= expected <= 1.3 * seconds, (stage, expected)
    beside = forecast.seconds_beside(every_row, DUE, "vllm", 15.0)
    assert 0.75 * whole <= beside + sum(row.seconds for row in every_row) <= 1.25 * whole


def test_the_recorded_run_tells_what_stages_hand_on():
    rows, facts = rows_of()
    assert rows["dedup", "base"].count == REWRITES and rows["vote", "base"].count == (POOL + OWN) * VOTES
    pairs = rows["finetune", "tuned"].count
    assert pairs == pytest.approx(PAIRS_OF_ALL, abs=3)
    for stage, model in (("finetune", "tuned"), ("distil", "student_tuned")):
        assert rows[stage, model].tokens == pytest.approx(COUNTS[stage]["tokens"] * pairs / PAIRS, rel=0.01)
    assert {row.about for (stage, _), row in rows.items() if stage != "evaluate"} == {"~ "}
    assert (
        f"{REWRITES} rewrites, {POOL} questions to vote on, {pairs} pairs" in facts and "but it was made" not in facts
    )


def test_what_a_run_does_otherwise_is_counted_by_its_own_rules():
    assert ("dedup", "base") not in rows_of(max_rewrites=0)[0]
    everything, facts = rows_of(max_rewrites=0, similarity_threshold=1.1)
    more = everything["vote", "base"].count
    assert (POOL + OWN) * VOTES < more < (QUESTIONS + OWN) * VOTES and "similarity_threshold 0.0" in facts
    with_repeats = POOL + COUNTS["dedup"]["contaminated"]
    assert rows_of(decontaminate=False)[0]["vote", "base"].count == (with_repeats + OWN) * VOTES
    usual, strict, all_paths = (
        rows_of(**values)[0]["finetune", "tuned"].count
        for values in ({}, {"min_agreement": 0.9}, {"path_choice": "all"})
    )
    assert strict < usual < all_paths
    assert rows_of(votes=3)[0]["vote", "base"].count == (POOL + OWN) * 3
    assert rows_of(max_pairs=50)[0]["finetune", "tuned"].count == 50
    half = rows_of(epochs=1.5)[0]["finetune", "tuned"].seconds
    start = rows_of(epochs=1.0e-9)[0]["finetune", "tuned"].seconds
    assert half - start == pytest.approx((rows_of()[0]["finetune", "tuned"].seconds - start) / 2)
    assert "made with method 'lora'" in rows_of(method="full")[1]


def test_the_pairs_of_runs_that_accumulate_are_learned_too():
    earlier = [pd.read_parquet(REFERENCE / seed / "vote" / "qa.parquet") for seed in ("seed2", "seed3")]
    both = {"accumulate_runs": ["reference/seed2", "reference/seed3"]}
    own = rows_of()[0]["finetune", "tuned"].count
    assert rows_of(**both)[0]["finetune", "tuned"].count == own + sum(map(len, earlier))
    assert rows_of(**both, max_pairs=200)[0]["finetune", "tuned"].count == 200
    agreeing = sum(int((table["agreement"] >= 0.75).sum()) for table in earlier)
    alone, more = (rows_of(train_min_agreement=0.75, **values)[0]["finetune", "tuned"].count for values in ({}, both))
    assert more - alone == agreeing


def test_a_source_of_questions_is_read_for_how_many_there_are(tmp_path):
    path = tmp_path / "mine.jsonl"
    questions = [f"What is {a} + 1000?" for a in range(25)] + ["What is 3 + 1000?", ""]
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in questions), encoding="utf-8")
    for source in ({"question_source": str(path)}, {"question_source": str(path), "question_items": 2_000}):
        assert rows_of(0, **source, vote_shots="none")[0]["vote", "base"].count == 25 * VOTES


def test_a_budget_ends_the_vote_and_with_it_the_pairs():
    source = {"question_source": "arithmetic", "question_items": 1000}
    rows, _ = rows_of(0, **source, token_budget=10_000)
    assert 10_000 <= rows["vote", "base"].tokens < 10_000 + 2 * VOTES * 40
    assert rows["finetune", "tuned"].count < rows_of(0, **source)[0]["finetune", "tuned"].count


def test_own_exemplars_cost_a_vote_of_their_own_which_the_budget_pays():
    assert rows_of(vote_shots="none")[0]["vote", "base"].count == POOL * VOTES
    assert rows_of(own_questions=30)[0]["vote", "base"].count == (POOL + 30) * VOTES
    assert rows_of(10, recorded=None, own_questions=30)[0]["vote", "base"].count == 2 * 10 * VOTES
    source = {"question_source": "arithmetic", "question_items": 1000, "token_budget": 10_000}
    without, own = (rows_of(0, **source, **more)[0] for more in ({"vote_shots": "none"}, {"own_questions": 20}))
    assert own["vote", "base"].count == without["vote", "base"].count
    assert own["finetune", "tuned"].count < without["finetune", "tuned"].count


def test_a_control_is_trained_and_answers(tmp_path):
    plain, _ = rows_of()
    rows, _ = rows_of(random_label_control=True)
    tuned, control = rows["finetune", "tuned"], rows["finetune", "tuned_random_labels"]
    assert control.is_training and (control.count, control.seconds) == (tuned.count, tuned.seconds)
    assert tuned == plain["finetune", "tuned"]
    assert rows["evaluate", "tuned_random_labels"].count == 1500, "greedy answers alone"
    assert rows.keys() - plain.keys() == {("finetune", "tuned_random_labels"), ("evaluate", "tuned_random_labels")}
    starts = [forecast.seconds_beside(list(table.values()), [], "vllm", 10.0) for table in (plain, rows)]
    assert starts[1] - starts[0] == pytest.approx(3)
    recorded = tmp_path / "recorded"  # a run without a control: its 04 took the time of one training
    shutil.copytree(REFERENCE, recorded)
    path = recorded / "finetune" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert len(manifest["models"]) == 2, "the reference has a control"
    manifest["cost"]["seconds"] /= 2
    manifest["models"] = {"tuned": "a"}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert rows_of(recorded=recorded)[0]["finetune", "tuned"].seconds == pytest.approx(tuned.seconds)


def test_a_slower_machine_trains_slower_where_the_same_engine_tells():
    recorded = folders.read_manifest(REFERENCE, "elicit")
    each = recorded["cost"]["seconds"] / COUNTS["elicit"]["sampled"]

    def seconds(times, engine="vllm"):
        paces = {"elicit": Pace(times * each, 0.0, BAITS.length), "evaluate": ANSWERS}
        return rows_of(paces=paces, engine=engine)[0]["finetune", "tuned"].seconds

    assert seconds(3) == pytest.approx(3 * seconds(1)) and seconds(0.25) == pytest.approx(seconds(1) / 4)
    assert seconds(0.7) == seconds(1), "a probe is that much faster than a run"
    assert seconds(3, engine="server") == seconds(1)


def test_the_paces_of_an_idle_machine_are_the_recorded_ones():
    recorded = folders.read_manifest(REFERENCE, "elicit")
    each, length = recorded["cost"]["seconds"] / COUNTS["elicit"]["sampled"], recorded["tokens"]["completion"] / 1000
    usual, slow = ({"elicit": Pace(times * each, 0.0, length), "evaluate": ANSWERS} for times in (1.1, 20.0))
    for paces, is_busy in ((usual, False), ({"elicit": Pace(0.9 * each, 0.0, length)}, True)):
        assert forecast.idle_paces(paces, "vllm", REFERENCE, is_busy=is_busy) == (paces, [])
    for paces, is_busy in ((usual, True), (slow, False), (slow, True)):
        idle, (line,) = forecast.idle_paces(paces, "vllm", REFERENCE, is_busy=is_busy)
        assert idle["elicit"].each == pytest.approx(each) and idle["evaluate"].length == ANSWERS.length
        assert idle["evaluate"].each < 0.1 and line.startswith("this machine is busy now")
    assert forecast.idle_paces(slow, "vllm", None, is_busy=True) == (slow, []), "there is nothing else to go by"
    assert forecast.idle_paces(slow, "transformers", REFERENCE, is_busy=True) == (slow, []), "another engine"


def test_without_a_recorded_run_all_survives_and_training_is_unknown():
    rows, facts = rows_of(100, recorded=None)
    assert (rows["dedup", "base"].count, rows["vote", "base"].count) == (200, (100 + OWN) * VOTES)
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
    assert forecast.seconds_beside(rows, params.STAGES, "vllm", 10.0) == pytest.approx(beside + 10 + 5 * 3), (
        "one for 01 to 03; the base, the tuned model, the students, and the base as it was chosen"
    )
    assert forecast.seconds_beside([], [], "vllm", 0.0) == 0
    monkeypatch.setattr(forecast.generation, "best_device", lambda: "cuda")
    assert forecast.seconds_beside(rows, params.STAGES, "vllm", 10.0) == pytest.approx(beside + 7 * 10)
