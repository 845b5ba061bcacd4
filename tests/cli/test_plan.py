"""A plan counts what a run asks for; its probe is the run's own and stays in the store."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys

import pandas as pd
import pytest
import tiny
import yaml
from shared import REFERENCE

from crescent_utils import evaluate, generation
from crescent_utils.cli import main, plan
from crescent_utils.evaluate import baselines
from crescent_utils.generation import generator as generator_module
from crescent_utils.generation.store import TOO_LONG, Completion, GenerationStore
from crescent_utils.runs import costs, domains, folders, params, settings_from


class Clock:
    """A clock that stands still unless an engine works."""

    now = 0.0

    def monotonic(self):
        return self.now


class Engine:
    """Answers with a question of four tokens after 0.02 s, and needs 0.2 s for each batch and 10 s to start."""

    name, guarantee, devices = "vllm", "none", 1

    def __init__(self, clock):
        self.clock, self.sampled = clock, []
        clock.now += 10

    def sample(self, jobs):
        self.clock.now += 0.2
        for index, job in enumerate(jobs):
            self.clock.now += 0.02
            self.sampled.append((job.request.key(), job.sample))
            yield index, Completion("1 plus 2?" if len(self.sampled) % 2 else "", "stop", 9, 4)

    def close(self):
        pass


@pytest.fixture
def values(tmp_path):
    folder = tiny.model_folder(tmp_path / "model", layers=1)
    place = {"run": "r", "outputs": str(tmp_path / "outputs"), "engine": "vllm", "model": str(folder)}
    size = {"elicit_samples": 145, "benchmark_items": 12, "elicit_max_tokens": 6, "max_rewrites": 2, "votes": 3}
    asked = {"vote_shots": "none", "train_prompt": "solve", "eval_prompts": ["solve"], "evaluate_on": ["arithmetic"]}
    plain = {"best_prompt": False, "matched_temperature": False, "random_label_control": False}
    return place | size | asked | plain | {"other_runs": []}


@pytest.fixture
def engines(monkeypatch):
    """The engines that were started."""
    started, clock = [], Clock()

    def start(settings, model):
        started.append(Engine(clock))
        return started[-1]

    monkeypatch.setattr(generator_module, "start_engine", start)
    monkeypatch.setattr(plan, "time", clock)
    monkeypatch.setattr(costs, "time", clock)
    monkeypatch.setattr(plan, "GROUPS", (8, 16, 32))
    return started


def by_stage(a_plan):
    return {(row.stage, row.model): row for row in a_plan.rows}


def test_a_plan_counts_requests_and_what_the_store_holds(values, engines, tmp_path):
    first = plan.estimate_run(values, params.STAGES)
    rows = by_stage(first)
    elicit = rows["elicit", "base"]
    assert (elicit.count, elicit.stored, elicit.tokens) == (145, 58, 145 * 4), "2 to warm up, then 8, 16 and 32"
    assert elicit.prompt_tokens > 145 * 50
    assert elicit.seconds == pytest.approx(0.2 + 87 * 0.02), "the clock's speed"
    assert rows["evaluate", "base"].count == rows["evaluate", "base"].stored == rows["evaluate", "tuned"].count == 24
    assert rows["evaluate", "student"].count == 12
    assert rows["vote", "base"].about == "≤ " and rows["vote", "base"].count % 3 == 0
    assert rows["finetune", "tuned"].seconds is None, "no recorded run has this model"
    assert "elicit: probe of 56, 20.0 ms and 4.0 tokens a completion" in first.facts
    assert any("29 of 58 completions were questions: 50 % [3" in fact for fact in first.facts)
    with GenerationStore(tmp_path / "outputs" / "r" / "store.sqlite", read_only=True) as store:
        assert store.count() == 58 + 24


def test_nothing_is_probed_twice_and_what_is_stored_costs_nothing(values, engines, tmp_path):
    for stored in (58, 116, 145, 145):
        elicit = by_stage(plan.estimate_run(values, params.STAGES))["elicit", "base"]
        assert elicit.stored == stored and (elicit.seconds > 0) == (stored < 145)
    sampled = [pair for engine in engines for pair in engine.sampled]
    assert len(engines) == 3 and len(set(sampled)) == len(sampled) == 145 + 24


def test_a_probe_ends_with_the_group_that_took_long_enough(values, engines, monkeypatch):
    monkeypatch.setattr(plan, "LONG_ENOUGH", 0.5)
    assert by_stage(plan.estimate_run(values, params.STAGES))["elicit", "base"].stored == 2 + 8 + 16


def test_what_was_probed_before_is_not_probed_again(values, engines, tmp_path):
    probes = plan.Probes()
    first = plan.estimate_run(values, params.STAGES, probes)
    again = plan.estimate_run(values | {"run": "other", "seed": 2, "learning_rate": 0.5}, params.STAGES, probes)
    assert len(engines) == 1 and len(engines[0].sampled) == 58 + 24
    one, other = by_stage(first), by_stage(again)
    assert other["elicit", "base"].stored == 0
    assert other["elicit", "base"].seconds == pytest.approx(0.2 + 145 * 0.02), "at the pace of the first probe"
    start = 10 + 0.2 + plan.WARM_UP * 0.02  # as it was measured; here 06 has to start the base, too
    assert again.beside - first.beside == pytest.approx(plan.forecast.FURTHER_START * start)
    assert other["evaluate", "tuned"].seconds == one["evaluate", "tuned"].seconds
    assert "elicit: probed before, 20.0 ms and 4.0 tokens a completion" in again.facts
    for number, change in enumerate(({"elicit_max_tokens": 7}, {"max_model_len": 512}, {"bait": ["Ask: "]}), start=1):
        plan.estimate_run(values | {"run": f"r{number}"} | change, params.STAGES, probes)
        assert len(engines) == 1 + number, "other lengths, another engine, other prompts"


def test_parts_of_a_study_that_ask_alike_are_probed_once(values, engines, tmp_path, capsys):
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump({name: value for name, value in values.items() if name != "run"}))
    parts = {
        name: {"purpose": name, "profile": [str(profile)], "parameters": {"student": "none"} | change}
        for name, change in {"one": {}, "slow": {"learning_rate": 0.1}, "long": {"elicit_max_tokens": 7}}.items()
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"name": "small", "parts": parts}, sort_keys=False))
    assert main.main(["study", str(file), "--plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    measured = [line for line in lines if line.startswith("measuring how fast ")]
    assert [line.rpartition(": ")[2] for line in measured] == [
        "small/runs/one/whole-seed1",
        "small/runs/long/whole-seed1",
    ]
    assert len(engines) == 2 and len(lines) == len(measured) + len(parts) + 1
    with GenerationStore(tmp_path / "outputs" / "small" / "runs" / "slow" / "whole-seed1" / "store.sqlite") as store:
        assert store.count() == 58 + 24, "what was sampled for the part before serves this one too"
    times = {line.split()[0]: line.partition("about ")[2] for line in lines if "runs, about" in line}
    assert times["one"] == times["slow"]


def test_a_plan_shows_one_line_and_its_table_and_the_engines_lines_are_in_the_log(
    values, engines, tmp_path, monkeypatch, capfd
):
    class Loud(Engine):
        def sample(self, jobs):
            os.write(2, b"Loading safetensors checkpoint shards: 100%\n")
            print("INFO a library", file=sys.stderr)
            yield from super().sample(jobs)

        def close(self):
            os.write(2, b"engine is shut down\n")

    monkeypatch.setattr(generator_module, "start_engine", lambda settings, model: Loud(plan.time))
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(values))
    with open(2, "w", closefd=False, buffering=1) as standard_error:  # as in a terminal: pytest's own goes elsewhere
        monkeypatch.setattr(sys, "stderr", standard_error)
        assert main.main(["run", str(path), "--plan"]) == 0
        print("told after it", file=sys.stderr)
    out, err = capfd.readouterr()
    assert err == "told after it\n"
    log = (tmp_path / "outputs" / "r" / "plan.log").read_text()
    assert all(text in log for text in ("checkpoint shards", "INFO a library", "engine is shut down", "completions"))
    lines = out.splitlines()
    assert lines[1].startswith("measuring how fast ") and lines[1].endswith(" samples for elicit, evaluate: r")
    assert lines[2].split()[:2] == ["stage", "model"]


@pytest.mark.filterwarnings("ignore:max_model_len")  # the generator's own, which stand in plan.log
def test_prompts_that_are_too_long_are_named(values, engines, monkeypatch):
    def nothing(self, jobs):
        for index, _ in enumerate(jobs):
            yield index, Completion("", TOO_LONG, 2000, 0)

    monkeypatch.setattr(Engine, "sample", nothing)
    facts = plan.estimate_run(values, params.STAGES).facts
    assert any(
        "elicit: 58 prompts of the probe did not fit into max_model_len 1024: raise it" in fact for fact in facts
    )


def test_a_finished_pool_is_voted_on_as_it_is_and_finished_stages_cost_nothing(values, engines, tmp_path, monkeypatch):
    for stage in ("elicit", "dedup"):
        shutil.copytree(REFERENCE / stage, tmp_path / "outputs" / "r" / stage)
    monkeypatch.setattr(plan.runs, "is_current", lambda stage, settings: stage in ("elicit", "dedup"))
    manifest = json.loads((REFERENCE / "dedup" / "manifest.json").read_text())
    rows = by_stage(plan.estimate_run(values, params.STAGES[1:]))
    assert ("elicit", "base") not in rows
    assert rows["dedup", "base"].count == rows["dedup", "base"].stored == manifest["cost"]["completions"]
    assert rows["dedup", "base"].seconds == 0
    votes = rows["vote", "base"]
    assert (votes.count, votes.about) == (manifest["counts"]["kept"] * 3, "") and votes.prompt_tokens > 0
    assert votes.seconds == pytest.approx(0.2 + (votes.count - 58) * 0.02)


def test_a_plan_counts_each_number_of_shots_and_no_student_where_there_is_none(values, engines):
    rows = by_stage(plan.estimate_run({**values, "shots": [0, 2], "student": "none"}, params.STAGES))
    evaluated = {model: row.count for (stage, model), row in rows.items() if stage == "evaluate"}
    assert evaluated == {"base": 24, "base, shots": 24, "tuned": 48}, "each number of shots, of the tuned model too"


def test_a_plan_counts_what_06_asks_with_further_prompts_and_chosen_baselines(values, engines, monkeypatch, tmp_path):
    for module in (evaluate, baselines):
        monkeypatch.setattr(module, "DEVELOPMENT_ITEMS", 4)
    values |= {"eval_prompts": ["bare", "solve"], "best_prompt": True, "matched_temperature": True, "student": "none"}
    values |= {"benchmark_items": 3}
    rows = by_stage(plan.estimate_run(values, params.STAGES))
    planned = {model: row for (stage, model), row in rows.items() if stage == "evaluate"}
    settings = settings_from("evaluate", values)
    domain = domains.get_domain(settings.domain)
    (benchmark,) = evaluate.load_evaluated(settings, domain)
    development = []
    for label in ("base", "tuned"):
        with generation.open_generator(settings, label=label) as generator:
            scores = evaluate.answer_benchmark(generator, benchmark, settings, domain)
            development.append(evaluate.answer_development(generator, settings, domain))
        assert planned[label].count == len(scores) + len(development[-1]) > 9
        if label == "base":
            with GenerationStore(tmp_path / "outputs" / "r" / "store.sqlite", read_only=True) as store:
                assert store.count() == 58 + planned["base"].count, "the probe asked nothing else"
    choices = evaluate.choose_baselines(pd.concat(development), settings)
    with generation.open_generator(settings) as generator:
        chosen = evaluate.answer_baselines(generator, benchmark, settings, domain, choices)
    assert len(chosen) == planned["base, chosen"].count == 6 and planned["base, chosen"].about == "≤ "


def test_further_prompts_are_planned_where_the_first_has_shots(values, engines):
    more = {"eval_prompts": ["solve", "bare", "stock"], "shots": [2], "student": "none"}
    rows = by_stage(plan.estimate_run({**values, **more}, params.STAGES))
    evaluated = {model: row.count for (stage, model), row in rows.items() if stage == "evaluate"}
    assert evaluated == {"base": 24, "base, shots": 24, "tuned": 48}


def test_own_exemplars_that_are_not_made_yet_are_planned_beside_what_is_known(values, engines):
    more = {"eval_prompts": ["own"], "vote_shots": "own", "matched_temperature": True, "student": "none"}
    rows = by_stage(plan.estimate_run({**values, **more}, params.STAGES))
    evaluated = {model: row.count for (stage, model), row in rows.items() if stage == "evaluate"}
    dev = evaluate.DEVELOPMENT_ITEMS
    assert evaluated == {"base, own": 24 + 8 * dev, "base, chosen": 12, "tuned": 24 + 2 * dev}


def test_baits_that_may_stop_before_are_counted_at_most(values, engines):
    assert by_stage(plan.estimate_run(values, params.STAGES))["elicit", "base"].about == ""
    assert by_stage(plan.estimate_run({**values, "elicit_until": 9}, params.STAGES))["elicit", "base"].about == "≤ "


def test_a_plan_of_questions_from_elsewhere_stays_within_its_budget(values, engines):
    values |= {"question_source": "arithmetic", "question_items": 30, "decontaminate": False, "student": "none"}
    stages = [stage for stage in params.STAGES if stage not in folders.left_out_stages(values)]
    rows = by_stage(plan.estimate_run(values, stages))
    assert set(rows) == {("vote", "base"), ("finetune", "tuned"), ("evaluate", "base"), ("evaluate", "tuned")}
    assert rows["vote", "base"].count == 30 * 3
    short = by_stage(plan.estimate_run({**values, "token_budget": 100}, stages))["vote", "base"]
    assert 100 <= short.tokens < 100 + 2 * 3 * 4


def test_a_busy_machine_is_named(values, engines, monkeypatch):
    for load, named in ((100_000.0, True), (0.5, False)):
        monkeypatch.setattr(plan.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert ("other programs were at work" in plan.plan_text(plan.estimate_run(values, params.STAGES))) == named


def test_a_first_group_that_waited_only_warms_up(values, engines, monkeypatch):
    seconds = iter([10.0, 30.0])  # of the start and of the first group

    def seconds_of(generator, samples, measured=plan._seconds_of):
        return max(next(seconds, 0.0), measured(generator, samples))

    monkeypatch.setattr(plan, "_seconds_of", seconds_of)
    a_plan = plan.estimate_run(values, params.STAGES)
    assert "elicit: probe of 56, 20.0 ms and 4.0 tokens a completion" in a_plan.facts
    assert by_stage(a_plan)["elicit", "base"].stored == 2 + 8 + 56


def test_on_a_busy_machine_the_recorded_paces_count(values, engines, monkeypatch, tmp_path):
    """The probe takes 20 ms a bait; in the recorded run it took 1 ms."""
    manifest = json.loads((REFERENCE / "elicit" / "manifest.json").read_text(encoding="utf-8"))
    recorded = tmp_path / "recorded"
    shutil.copytree(REFERENCE, recorded)
    monkeypatch.setattr(plan.forecast, "find_recorded", lambda settings: recorded)
    monkeypatch.setattr(plan.os, "getloadavg", lambda: (0.5, 0.0, 0.0))

    def planned(milliseconds, load=0.5):
        monkeypatch.setattr(plan.os, "getloadavg", lambda: (load, 0.0, 0.0))
        cost = manifest["cost"] | {"seconds": milliseconds / 1000 * manifest["counts"]["sampled"]}
        (recorded / "elicit" / "manifest.json").write_text(json.dumps(manifest | {"cost": cost}), encoding="utf-8")
        values["run"] = f"r{milliseconds}{load}"
        a_plan = plan.estimate_run(values, params.STAGES)
        return a_plan, by_stage(a_plan)["finetune", "tuned"].seconds, plan.plan_text(a_plan)

    idle, training, text = planned(20)
    assert "busy now" not in text and "a training takes 1.0" in text
    half, slower, text = planned(10)
    assert "busy now" not in text and slower == pytest.approx(2 * training, rel=0.02), (
        "another machine may be this slow"
    )
    for milliseconds, load in ((1, 0.5), (10, 100_000.0)):
        busy, as_recorded, text = planned(milliseconds, load)
        assert as_recorded == pytest.approx(training, rel=0.02) and "this machine is busy now: a bait took " in text
        assert "times are those of an idle machine" in text and "AMD EPYC, 2 cores" in text
        assert "a training takes 1.00 times" in text and busy.seconds < half.seconds
        assert "other programs were at work" not in text, "one sentence says it"
        assert busy.idle in text and not half.idle


def test_a_replay_has_nothing_to_plan(values):
    nothing = plan.estimate_run({**values, "engine": "replay"}, params.STAGES)
    assert plan.plan_text(nothing) == "engine: replay samples nothing"


def test_the_text_is_one_table_one_time_and_what_it_rests_on(values, engines, monkeypatch):
    text = plan.plan_text(plan.estimate_run(values, params.STAGES))
    assert (
        text.count("in all ") == 1
        and "in all about" in text
        and "at most" not in text
        and "finetune, distil, unknown" in text
    )
    monkeypatch.setattr(plan.forecast, "find_recorded", lambda settings: REFERENCE)
    text = plan.plan_text(plan.estimate_run(values, params.STAGES))
    assert "in all about" in text and "unknown" not in text and "pairs to learn from" in text
    assert [plan.duration(seconds) for seconds in (90, 250, 800, 9000)] == ["90 s", "4.2 min", "13 min", "2.5 h"]


def test_the_command_prints_the_plan_and_runs_nothing(values, tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(values | {"engine": "transformers", "elicit_samples": 12}))
    assert main.main(["run", str(path), "--plan"]) == 0
    out = capsys.readouterr().out
    assert "elicit    base" in out and "of 12 completions were questions" in out and "in all about" in out
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
    monkeypatch.setattr(logging, "raiseExceptions", False)  # of handlers whose stream ended with another test
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(values | {"engine": "transformers"} | change))
    assert main.main(["run", str(path), "--plan"]) == status
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("crescent: ")]
    assert len(lines) == 1 and named in lines[0] and "Traceback" not in err
