"""A plan counts what a run asks for; its probe is the run's own and stays in the store."""

from __future__ import annotations

import pytest
import tiny
import yaml

from crescent_utils.cli import main, plan
from crescent_utils.generation.store import GenerationStore
from crescent_utils.runs import folders, params


@pytest.fixture
def values(tmp_path):
    folder = tiny.model_folder(tmp_path / "model", layers=1)
    place = {"run": "r", "outputs": str(tmp_path / "outputs"), "engine": "transformers", "model": str(folder)}
    size = {"elicit_samples": 45, "benchmark_items": 12, "elicit_max_tokens": 6, "max_rewrites": 2, "votes": 3}
    return place | size | {"other_runs": []}


def by_stage(a_plan):
    return {(row.stage, row.model): row for row in a_plan.rows}


def test_a_plan_counts_requests_and_what_the_store_holds(values, tmp_path):
    first = plan.estimate_run(values, params.STAGES)
    rows = by_stage(first)
    elicit = rows["elicit", "base"]
    assert (elicit.completions, elicit.stored) == (45, 10), "the probe takes turns with the evaluation"
    assert elicit.prompt_tokens > 45 * 50 and 0 < elicit.length <= 6
    assert 0 < first.speed.fast <= first.speed.slow and elicit.missing_tokens == 35 * elicit.length
    assert rows["evaluate", "base"].completions == rows["evaluate", "tuned"].completions == 24
    assert rows["evaluate", "student"].completions == 12
    assert rows["vote", "base"].prompt_tokens is None and rows["vote", "base"].completions % 3 == 0
    with GenerationStore(tmp_path / "outputs" / "r" / "store.sqlite", read_only=True) as store:
        assert store.count() == 20
    again = by_stage(plan.estimate_run(values, params.STAGES))
    assert again["elicit", "base"].stored == again["evaluate", "base"].stored == 20
    last = by_stage(plan.estimate_run(values, params.STAGES))
    assert (last["elicit", "base"].stored, last["evaluate", "base"].stored) == (36, 24)
    assert last["evaluate", "base"].missing_tokens == 0 and last["elicit", "base"].missing_tokens > 0


def test_a_plan_counts_each_number_of_shots_and_no_student_where_there_is_none(values):
    rows = by_stage(plan.estimate_run({**values, "shots": [0, 2], "student": "none"}, params.STAGES))
    evaluated = {model: row.completions for (stage, model), row in rows.items() if stage == "evaluate"}
    assert evaluated == {"base": 24, "base, shots": 24, "tuned": 48}, "each number of shots, of the tuned model too"


def test_a_plan_of_questions_from_elsewhere_stays_within_its_budget(values):
    values |= {"question_source": "arithmetic", "question_items": 30, "student": "none"}
    stages = [stage for stage in params.STAGES if stage not in folders.left_out_stages(values)]
    rows = by_stage(plan.estimate_run(values, stages))
    assert set(rows) == {("vote", "base"), ("evaluate", "base"), ("evaluate", "tuned")}
    assert rows["vote", "base"].completions == 30 * 3
    short = by_stage(plan.estimate_run({**values, "token_budget": 100}, stages))["vote", "base"]
    assert 100 <= short.missing_tokens < 100 + 4 * 40 and short.completions < 90


def test_a_replay_has_nothing_to_plan(values):
    nothing = plan.estimate_run({**values, "engine": "replay"}, params.STAGES)
    assert plan.plan_text(nothing) == "engine: replay samples nothing"


def test_the_command_prints_the_plan_and_runs_nothing(values, tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(values))
    assert main.main(["run", str(path), "--plan"]) == 0
    out = capsys.readouterr().out
    assert "elicit    base" in out and "of 10 completions were questions" in out and "at most about" in out
    assert not (tmp_path / "outputs" / "r" / "elicit" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"engine": "server", "base_urls": ["http://127.0.0.1:9/v1"]}, 1, "127.0.0.1:9"),
        pytest.param(
            {"engine": "vllm", "engine_args": {"no_such_argument": 1}}, 1, "no_such_argument", marks=pytest.mark.slow
        ),
        ({"model": "no/such-model"}, 2, "no/such-model"),
        ({"domain": "math_word_problems", "evaluate_on": ["gsm8k"], "benchmark_dir": "none"}, 2, "gsm8k"),
    ],
    ids=["a server that does not answer", "an engine that does not start", "no such model", "no benchmark file"],
)
def test_what_keeps_a_plan_from_being_made_is_one_line(values, tmp_path, capsys, monkeypatch, change, status, named):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(values | change))
    assert main.main(["run", str(path), "--plan"]) == status
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("crescent: ")]
    assert len(lines) == 1 and named in lines[0] and "Traceback" not in err
