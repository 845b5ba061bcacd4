"""crescent preflight: what is asked, of which questions, what stands in the tables, and the line before a training."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
import tiny
from shared import REFERENCE, SAMPLES

from crescent_utils import benchmarks, generation, runs, vote
from crescent_utils.cli import main as main_module
from crescent_utils.cli import preflight
from crescent_utils.generation import generator as generator_module
from crescent_utils.generation.store import Completion


class Engine:
    """Adds right at every second sample and greedily wrong; the last sample of each question is cut."""

    name, guarantee, devices = "transformers", "none", 1

    def __init__(self):
        self.asked = []

    def sample(self, jobs):
        for index, job in enumerate(jobs):
            self.asked.append(job)
            question = job.request.messages[-1][1]
            gold = benchmarks.arithmetic_gold(re.search(r"What is .*?\?", question)[0])
            right = job.request.sampling.temperature > 0 and job.sample % 2 == 0
            finish = "length" if job.sample == 3 else "stop"
            yield index, Completion(f"It is {gold if right else 1000 + job.sample}", finish, 9, 4)

    def close(self):
        pass


@pytest.fixture
def engine(monkeypatch):
    made = Engine()
    monkeypatch.setattr(generator_module, "start_engine", lambda settings, model: made)
    return made


@pytest.fixture
def profile(tmp_path):
    folder = tiny.model_folder(tmp_path / "model", layers=1)
    path = tmp_path / "p.yaml"
    lines = [f"run: r\nengine: transformers\nmodel: {folder}\noutputs: {tmp_path / 'outputs'}\nvotes: 4\n"]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def run(capsys, *arguments):
    status = main_module.main(["preflight", *map(str, arguments)])
    return (status, *capsys.readouterr())


def test_dev_items_are_asked_greedily_and_as_often_as_the_vote_asks(capsys, profile, engine, tmp_path):
    status, out, _ = run(capsys, profile, "-n", "30")
    assert status == 0
    folder = tmp_path / "outputs" / "r" / "preflight"
    samples, greedy = (pd.read_parquet(folder / f"{name}.parquet") for name in ("samples", "greedy"))
    assert len(samples) == 120 and len(greedy) == 30 and set(greedy["prompt"]) == {"vote"}
    dev = {item.question for item in benchmarks.load_benchmark("arithmetic", split="dev").items}
    test = {item.question for item in benchmarks.load_benchmark("arithmetic", split="test").items}
    assert set(samples["question"]) <= dev and not set(samples["question"]) & test
    assert samples["right"].astype(bool).sum() == 60 and not greedy["right"].astype(bool).any()
    assert samples.groupby("id")["answer"].count().unique().tolist() == [3], "a cut path cannot win"
    assert samples["log_path"].notna().all() and (samples["log_answer"].dropna() <= 0).all()
    table = pd.read_parquet(folder / "headroom.parquet").set_index("quantity")
    assert table.estimate["headroom"] == 1.0 and table.estimate["cut"] == 0.25 and table.n["gap_log_path"] == 30
    expected = vote.headroom_table(
        samples.assign(question=samples["id"]), greedy.assign(question=greedy["id"]), seed=1, min_agreement=0.5
    )
    assert expected.set_index("quantity").estimate["auroc"] == table.estimate["auroc"] or table.n["auroc"] == 0
    line = out.rstrip().splitlines()[-1]
    assert line.startswith("go: the majority is 100.0 points") and "vote_max_tokens; 25% of the samples are cut" in line
    assert json.loads((folder / "verdict.json").read_text())["line"] == line
    assert "30 questions (arithmetic, dev split) x 4 samples at T = 0.7" in out


def test_what_is_stored_is_not_asked_again(capsys, profile, engine):
    assert run(capsys, profile, "-n", "10", "--no-likelihoods")[0] == 0
    asked = len(engine.asked)
    assert asked == 50
    assert run(capsys, profile, "-n", "10", "--no-likelihoods")[0] == 0
    assert len(engine.asked) == asked
    settings = runs.load_profile([profile], [])
    replay = {"run": "again", "replay_from": "r", "engine": "replay", "outputs": settings["outputs"]}
    more = [part for name, value in replay.items() for part in ("-p", f"{name}={value}")]
    status, _, err = run(capsys, profile, "-n", "11", *more)
    assert status == 2 and "Replay samples nothing" in err
    assert run(capsys, profile, "-n", "10", *more)[0] == 0


def test_the_evaluations_prompt_is_asked_besides_where_it_is_another(capsys, profile, engine, tmp_path):
    assert run(capsys, profile, "-n", "5", "-p", "eval_max_tokens=50", "--no-likelihoods")[0] == 0
    folder = tmp_path / "outputs" / "r" / "preflight"
    assert pd.read_parquet(folder / "greedy.parquet")["prompt"].value_counts().to_dict() == {"vote": 5, "evaluated": 5}
    assert "evaluated" in set(pd.read_parquet(folder / "headroom.parquet")["quantity"])
    assert len({job.request.sampling.max_tokens for job in engine.asked}) == 2


def test_the_runs_own_questions(capsys, profile, engine, tmp_path):
    status, _, err = run(capsys, profile, "--questions", "own")
    assert status == 2 and "dedup/questions.parquet is not in run" in err, "02 comes first"
    status, out, _ = run(capsys, profile, "--questions", "own", "-n", "7", "-p", "question_source=arithmetic")
    assert status == 0 and "7 questions (generated with seed 1)" in out
    samples = pd.read_parquet(tmp_path / "outputs" / "r" / "preflight" / "samples.parquet")
    assert samples["gold"].notna().all() and len(samples) == 28


def test_a_benchmark_without_a_dev_split_lends_its_training_items():
    values = {"domain": "math_word_problems", "evaluate_on": ["gsm8k"], "benchmark_dir": str(SAMPLES)}
    found = preflight.chosen_questions(values, 2)
    train = {item.question for item in benchmarks.load_benchmark("gsm8k", folder=str(SAMPLES)).train}
    assert found.source == "gsm8k, training items" and set(found.table["question"]) <= train
    assert found.available == len(train) and len(found.table) == 2
    assert preflight.chosen_questions(values, 2).table.equals(found.table), "drawn by the seed"


@pytest.mark.parametrize("arguments", [["-n", "0"], ["-p", "votez=3"], ["-p", "evaluate_on=[gsm8]"]])
def test_bad_input_is_named_before_anything_is_asked(capsys, profile, engine, tmp_path, arguments):
    status, _, err = run(capsys, profile, *arguments)
    assert status == 2 and arguments[-1].partition("=")[0] in err
    assert not engine.asked and not (tmp_path / "outputs").exists()


def test_the_line_before_a_training_is_the_preflights_if_it_is_of_these_parameters(capsys, profile, engine):
    assert run(capsys, profile, "-n", "12", "--no-likelihoods")[0] == 0
    values = runs.load_profile([profile], [])
    line = preflight.line_before_training(values)
    assert line.startswith("go: ") and line.endswith("(preflight on 12 questions: arithmetic, dev split)")
    assert preflight.line_before_training(values | {"votes": 3}) == "", "and this run has no votes of its own"


def test_without_a_preflight_it_is_that_of_the_votes(tmp_path, monkeypatch, capsys):
    (tmp_path / "r").symlink_to(REFERENCE)
    values = {"run": "r", "outputs": str(tmp_path), "engine": "auto"}
    line = preflight.line_before_training(values)
    assert line.startswith("cannot be told with n = 596: there are no greedy answers") and "crescent preflight" in line
    right = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")["correct"].astype(bool).mean()
    shown = re.search(r"([\d.]+) % \[[\d., ]+\] of the labels that are learned from are right", line)
    assert float(shown[1]) == pytest.approx(100 * right, abs=1), "here a tie counts with its chance"
    main_module._say_headroom(values)
    assert capsys.readouterr().out == f"  headroom     {line}\n"
    main_module._say_headroom(values | {"engine": "replay"})
    assert capsys.readouterr().out == "", "a replay trains nothing"


def test_the_store_names_what_was_scored(capsys, profile, engine, tmp_path):
    assert run(capsys, profile, "-n", "3")[0] == 0
    with generation.GenerationStore(tmp_path / "outputs" / "r" / "store.sqlite", read_only=True) as store:
        roles = [request.messages[-1][0] for request, _, _ in store.completions()]
    assert roles.count("answer") == 9, "two of four samples are alike, and read once"
    assert roles.count("user") == 15


def test_worked_examples_stand_before_the_question_and_greedy_is_asked_as_the_evaluation_asks(
    capsys, profile, engine, tmp_path
):
    arguments = ["-n", "12", "-p", "vote_shots=own", "-p", "own_shots=2", "--no-likelihoods"]
    status, out, _ = run(capsys, profile, *arguments)
    folder = tmp_path / "outputs" / "r" / "preflight"
    samples, greedy, exemplars = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("samples", "greedy", "exemplars")
    )
    assert status == 0 and "worked examples before each question" in out
    assert len(exemplars) == 2 and not set(exemplars["question"]) & set(samples["question"])
    assert greedy["prompt"].value_counts().to_dict() == {"vote": 10, "evaluated": 10}
    lengths = {len(job.request.messages) for job in engine.asked}
    assert lengths == {2, 6}, "two turns for each example"
    evaluated = [job for job in engine.asked if job.request.sampling.temperature == 0]
    assert sorted(len(job.request.messages) for job in evaluated) == [2] * 10 + [6] * 10
    before = len(engine.asked)
    assert run(capsys, profile, *arguments)[0] == 0 and len(engine.asked) == before, "chosen alike again"
