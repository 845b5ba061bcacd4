"""crescent preflight: what is asked, of which questions, what stands in the tables, and the line before a training."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import tiny
from shared import REFERENCE, SAMPLES

from crescent_utils import benchmarks, evaluate, generation, runs, vote
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
    lines.append("vote_shots: none\nvote_temperature: 0.7\nmin_agreement: 0.5\neval_prompts: [solve]\n")
    lines.append("evaluate_on: [arithmetic]\nbenchmark_items: 350\n")
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
    assert not samples.loc[samples["cut"], "right"].any(), "nor is it right: as in the vote's own table"
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
    assert status == 2 and "a replay samples nothing" in err
    assert run(capsys, profile, "-n", "10", *more)[0] == 0


def test_the_evaluations_prompt_is_asked_besides_where_it_is_another(capsys, profile, engine, tmp_path):
    assert run(capsys, profile, "-n", "5", "-p", "eval_max_tokens=50", "--no-likelihoods")[0] == 0
    folder = tmp_path / "outputs" / "r" / "preflight"
    assert pd.read_parquet(folder / "greedy.parquet")["prompt"].value_counts().to_dict() == {"vote": 5, "evaluated": 5}
    assert "evaluated" in set(pd.read_parquet(folder / "headroom.parquet")["quantity"])
    assert len({job.request.sampling.max_tokens for job in engine.asked}) == 2


@pytest.mark.parametrize("prompt", ["solve", "bare", "stock", "exemplars"])
def test_what_the_evaluation_asks_first_is_asked_in_its_very_words(profile, engine, prompt):
    arguments = ["-p", f"eval_prompts=[{prompt}]", "-p", "benchmark_split=dev"]
    assert main_module.main(["preflight", str(profile), "-n", "6", "--no-likelihoods", *arguments]) == 0
    before = len(engine.asked)
    assert before == 6 * (5 if prompt == "solve" else 6), "the vote's prompt is asked once"
    values = runs.load_profile([profile], arguments[1::2])
    settings = runs.settings_from("evaluate", values | {"eval_samples": 0})
    domain = runs.get_domain(settings.domain)
    asked = set(pd.read_parquet(runs.run_folder(settings) / "preflight" / "greedy.parquet")["question"])
    (dev,) = evaluate.load_evaluated(settings, domain)
    dev = replace(dev, items=tuple(item for item in dev.items if item.question in asked))
    with generation.open_generator(settings) as generator:
        scores = evaluate.answer_benchmark(generator, dev, settings, domain)
    assert len(scores) == 6 and len(engine.asked) == before, "06 finds its answers in the store"


def test_a_benchmarks_own_wording_is_the_evaluations(profile, engine):
    values = runs.load_profile([profile], [])
    letters = benchmarks.Benchmark("letters", (), (), "", "{question} Give a letter.")
    rows = [(0, "What is 1 + 2?", "3", "letters"), (1, "What is 3 + 4?", "7", "")]
    questions = preflight.Questions(
        pd.DataFrame(rows, columns=["id", "question", "gold", "benchmark"]),
        "two",
        2,
        {"letters": letters, "": preflight.OWN},
    )
    with generation.open_generator(runs.settings_from("vote", values)) as generator:
        first, second = preflight.evaluated_requests(generator, values, questions, [])
        by_hand = runs.solve_messages(runs.get_domain("arithmetic"), "What is 3 + 4?")
        assert first.messages[-1][1] == "What is 1 + 2? Give a letter."
        assert [list(message) for message in second.messages] == [list(message.values()) for message in by_hand]


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
    changes = ["-p", "evaluate_on=[]"]
    assert run(capsys, profile, "-n", "12", "--no-likelihoods", *changes)[0] == 0
    values = runs.load_profile([profile], changes[1::2])
    line = preflight.line_before_training(values)
    name = "two_numbers_190_products_20"
    assert line.startswith("go: ") and line.endswith(f"(preflight on 12 questions: {name}, dev split)")
    assert preflight.line_before_training(values | {"eval_prompts": ["solve", "bare"]}) == line, "the first decides"
    assert preflight.line_before_training(values | {"evaluate_on": [name]}) == line, "the domain's own"
    assert preflight.line_before_training(values | {"evaluate_on": ["two_numbers_190"]}) == "", "other dev items"
    assert preflight.line_before_training(values | {"votes": 3}) == "", "and this run has no votes of its own"
    assert preflight.line_before_training(values | {"eval_prompts": ["bare"]}) == "", "another pupil"
    place = runs.run_folder(runs.settings_from("vote", values)) / "preflight" / "verdict.json"
    verdict = json.loads(place.read_text())
    del verdict["parameters"]["eval_prompts"]
    place.write_text(json.dumps(verdict))
    assert preflight.line_before_training(values) == "", "of before there were several prompts"
    place.write_text("{")
    assert preflight.line_before_training(values) == "", "cut while it was written"


def majority_over_one_sample():
    """How much more often the majority is right than one sample in the reference run's vote, by counting."""
    tables = {name: pd.read_parquet(REFERENCE / "vote" / f"{name}.parquet") for name in ("paths", "qa", "rejected")}
    texts = pd.concat([tables["qa"], tables["rejected"]]).set_index("id")["question"].to_dict()
    gaps = []
    for number, given in tables["paths"].groupby("question_id")["answer"]:
        gold, counts = benchmarks.arithmetic_gold(texts[number]), Counter(given.dropna())
        leaders = [answer for answer, count in counts.items() if count == max(counts.values())]
        gaps.append((leaders.count(gold) / len(leaders) if leaders else 0) - counts[gold] / len(given))
    return sum(gaps) / len(gaps)


def test_without_a_preflight_it_is_that_of_the_votes(tmp_path, monkeypatch, capsys):
    (tmp_path / "r").symlink_to(REFERENCE)
    values = {"run": "r", "outputs": str(tmp_path), "engine": "auto"}
    line = preflight.line_before_training(values, "crescent preflight params/cpu.yaml -p seed=1")
    asked = runs.read_manifest(REFERENCE, "vote")["counts"]["questions"]
    why = "there are no greedy answers to compare the majority with"
    assert line.startswith(f"cannot be told with n = {asked}: {why}. ")
    assert "`crescent preflight params/cpu.yaml -p seed=1`" in line and "What the vote alone shows: " in line
    right = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")["correct"].astype(bool).mean()
    shown = re.search(r"([\d.]+) % \[[\d., ]+\] of the labels that are learned from are right", line)
    assert float(shown[1]) == pytest.approx(100 * right, abs=1), "here a tie counts with its chance"
    gap = re.search(r"([+-][\d.]+) points \[[^]]+\] for the majority over a single sample \(n = \d+ with", line)
    assert float(gap[1]) == pytest.approx(100 * majority_over_one_sample(), abs=0.1)
    main_module._say_headroom(values, "crescent preflight params/cpu.yaml -p seed=1")
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
    assert run(capsys, profile, *arguments, "-p", "eval_prompts=[own]")[0] == 0 and len(engine.asked) == before
    assert set(pd.read_parquet(folder / "greedy.parquet")["prompt"]) == {"vote"}, "06 would show the same examples"


def test_a_run_names_the_very_command_that_tells(profile, monkeypatch):
    given = {}
    monkeypatch.setattr(main_module, "_run_stages", lambda *_, **options: given.update(options) or 0)
    assert main_module.main(["run", str(profile), "-p", "seed=2", "-p", "system_prompt=Be brief."]) == 0
    assert given["told_by"] == f"crescent preflight {profile} -p seed=2 -p 'system_prompt=Be brief.'"
