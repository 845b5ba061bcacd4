"""What a student could learn from instead of the pairs: raw samples and an augmented seed set, at the same budget."""

from __future__ import annotations

import functools
import json

import pandas as pd
import pytest
import tiny
from shared import REFERENCE

from crescent_utils.benchmarks import files, items
from crescent_utils.distil import students
from crescent_utils.finetune import masks, training
from crescent_utils.generation import models
from crescent_utils.generation.generator import Generator, ReplayMiss
from crescent_utils.generation.store import LENGTH, Completion, GenerationStore
from crescent_utils.runs import domains, folders, layout, params
from crescent_utils.vote import tables as vote_tables
from crescent_utils.vote import unlabelled

DOMAIN = domains.get_domain("arithmetic")
WORDS = tiny.tokenizer()


def settings(**values):
    return params.build_settings("distil", {"engine": "auto", **values})


def held_out():
    """The items that the domain is judged on, in both splits."""
    size, seed = settings().benchmark_items, settings().benchmark_seed
    splits = [(name, split) for name in DOMAIN.benchmarks for split in ("dev", "test")]
    return [items.load_benchmark(name, split=split, items=size, seed=seed) for name, split in splits]


def tables_of_reference():
    return {name: pd.read_parquet(REFERENCE / "vote" / f"{name}.parquet") for name in ("qa", "rejected", "paths")}


def test_raw_samples_are_one_path_of_each_question_whatever_its_answer():
    tables = tables_of_reference()
    paths = tables["paths"]
    drawn, rejected = students.raw_samples(tables, 1, [], DOMAIN)
    assert drawn["id"].is_unique and len(drawn) + len(rejected) == paths["question_id"].nunique()
    sampled = set(zip(paths["question_id"], paths["path"], strict=True))
    assert all((row.id, row.path) in sampled for row in drawn.itertuples())
    texts = pd.read_parquet(REFERENCE / "dedup" / "questions.parquet").set_index("id")["question"]
    assert (drawn["question"] == drawn["id"].map(texts)).all()
    assert students.raw_samples(tables, 1, [], DOMAIN)[0].equals(drawn)
    assert not students.raw_samples(tables, 2, [], DOMAIN)[0].equals(drawn)
    won = paths[paths["won"]].set_index("question_id")["path"]
    shared = drawn[drawn["id"].isin(won.index)]
    assert 0.1 < (shared["path"] == shared["id"].map(won)).mean() < 0.9, "winners and losers alike"


def test_raw_samples_of_lmsi_are_asked_in_its_formats():
    tables = tables_of_reference()
    formats = ["few_shot_cot", "zero_shot_direct"]
    rows, _ = students.raw_samples(tables, 1, formats, DOMAIN)
    bare, _ = students.raw_samples(tables, 1, [], DOMAIN)
    assert set(rows["id"]) == set(bare["id"]) and rows["prompt"].str.endswith("A:").all()
    cot = rows[rows["format"] == "few_shot_cot"].set_index("id")
    assert (cot["path"] == bare.set_index("id")["path"]).all()
    direct = rows[rows["format"] == "zero_shot_direct"]
    answers = tables["paths"].dropna(subset="answer").groupby("question_id")["answer"].apply(set)
    assert all(row.path[len("The answer is ") : -1] in answers[row.id] for row in direct.itertuples())
    assert len(direct) < len(cot), "a path without a readable answer has no direct format"
    pairs = training.training_pairs(rows, DOMAIN)
    assert [pair["prompt"][-1]["content"] for pair in pairs] == rows["prompt"].tolist()


def lmsi_stage(tmp_path, **values):
    """The stage 05 of an LMSI run: it leaves 01 and 02 out, so there is no folder `dedup` to read from."""
    own = {"outputs": str(tmp_path), "run": "lmsi"}
    vote_settings = params.build_settings("vote", {**own, "question_source": "arithmetic", "question_items": 30})
    stage = folders.begin_stage("vote", vote_settings)
    questions = unlabelled.questions_of_stage(stage, DOMAIN).questions
    paths = [[f"It is {n % 7}.", f"It is {n % 5}."] for n in range(len(questions))]
    qa, sampled, rejected = vote_tables.vote_tables(questions, paths, vote_settings, DOMAIN)
    for name, table in (("qa", qa), ("paths", sampled), ("rejected", rejected)):
        stage.write_table(name, table)
    stage.finish({"questions": len(questions)})
    model = tiny.model_folder(tmp_path / "model")
    return folders.begin_stage("distil", settings(**own, model=str(model), **values))


def test_in_lmsi_the_questions_come_from_where_the_vote_took_them(tmp_path):
    stage = lmsi_stage(tmp_path, student_data="self_samples")
    qa = stage.read_table("vote", "qa")
    learned = students.student_pairs(stage, DOMAIN, qa)
    assert 0 < len(learned.pairs) <= len(qa) and not learned.sampled_by
    voted_on = {*qa["question"], *stage.read_table("vote", "rejected")["question"]}
    assert set(learned.rows["question"]) == voted_on


def test_a_budget_holds_examples_and_tokens():
    rows = pd.DataFrame({"question": [f"What is {i} + 1?" for i in range(30)], "path": ["x" * 40] * 30})
    pairs = training.training_pairs(rows.assign(path="x").head(10), DOMAIN)
    size = [len(masks.loss_mask(WORDS, pair)) for pair in training.training_pairs(rows, DOMAIN)]
    budget = sum(len(masks.loss_mask(WORDS, pair)) for pair in pairs)
    chosen = students.within_budget(rows, pairs, DOMAIN, "", WORDS)
    assert chosen == training.training_pairs(rows, DOMAIN)[: len(chosen)] and len(chosen) < 10
    assert sum(size[: len(chosen)]) <= budget < sum(size[: len(chosen) + 1])
    assert len(students.within_budget(rows.assign(path=""), pairs, DOMAIN, "", WORDS)) == 10
    assert students.within_budget(rows.head(0), pairs, DOMAIN, "", WORDS) == []
    bare = students.within_budget(rows, pairs, DOMAIN, "", WORDS, "bare")
    assert bare == training.training_pairs(rows, DOMAIN, train_prompt="bare")[: len(bare)] and len(bare) == 10


def test_the_seed_set_is_labelled_and_apart_from_what_is_tested():
    own = settings(seed_items=40)
    seeds = students.seed_items(own, DOMAIN)
    assert len(seeds) == 40 and all(items.arithmetic_gold(seed.question) == seed.gold for seed in seeds)
    assert not any(items.repeated_items([seed.question for seed in seeds], held_out()))
    assert students.seed_items(own, DOMAIN) == seeds != students.seed_items(settings(seed_items=40, seed=2), DOMAIN)
    with pytest.raises(files.BenchmarkError, match="unknown"):
        students.seed_items(settings(seed_set="gsm9k"), DOMAIN)


@functools.cache
def recorded_texts():
    """Paths and questions of the reference run, in its order."""
    with GenerationStore(REFERENCE / "store.sqlite", read_only=True) as store:
        paths = [c.text for r, _, c in store.completions() if DOMAIN.solve_system in r.messages[0][1]][:500]
    questions = pd.read_parquet(REFERENCE / "elicit" / "questions.parquet")["question"].drop_duplicates()
    return paths, [text.removeprefix("What is") for text in questions]


class Recorder:
    """An engine that gives the reference model's recorded completions: to "Write …" a question, else a path."""

    name, guarantee, devices = "recorded", "", 1

    def __init__(self):
        self.paths, self.questions = recorded_texts()
        self.requests = []

    def sample(self, jobs):
        for index, job in enumerate(jobs):
            self.requests.append(job.request)
            texts = self.questions if "Write" in job.request.messages[-1][1] else self.paths
            yield index, Completion(texts[job.seed % len(texts)], "stop", 10, 5)

    def close(self):
        pass


def augmented(tmp_path, engine, examples, vote_values, exemplars=(), **values):
    vote_settings = params.build_settings("vote", vote_values)
    store, model = GenerationStore(tmp_path / "s.sqlite"), models.Model("base", "m", lambda: tmp_path)
    with Generator(store, model, 1, engine and (lambda: engine)) as generator:
        return students.seed_augmented(generator, settings(**values), DOMAIN, vote_settings, examples, exemplars)


FOUR_VOTES = {"votes": 4, "min_agreement": 0.25, "vote_temperature": 0.7}


def test_a_seed_set_is_rephrased_extended_and_voted_on(tmp_path):
    engine = Recorder()
    rows, rejected = augmented(tmp_path, engine, 40, FOUR_VOTES, seed_items=6)
    again, _ = augmented(tmp_path, None, 40, FOUR_VOTES, seed_items=6)
    assert rows.equals(again), "asked again it comes from the store"
    assert len(rows) == 40 and (rows["source"] == "seed").sum() == 6
    assert set(rows["source"]) == {"seed", "rephrased", "extended"}
    assert rows["question"].is_unique
    assert not any(items.repeated_items(list(rows["question"]), held_out()))
    assert {*DOMAIN.benchmarks, "repeats a question"} & set(rejected["reason"])
    variants = [request for request in engine.requests if "Write" in request.messages[-1][1]]
    assert all(request.prefix == "What is" for request in variants)
    solved = next(request for request in engine.requests if "Write" not in request.messages[-1][1])
    question = solved.messages[-1][1].split("?")[0] + "?"
    messages = tuple((m["role"], m["content"]) for m in domains.solve_messages(DOMAIN, question))
    assert solved.messages == messages, "asked as in the vote"
    assert solved.sampling.temperature == 0.7


def test_a_cut_answer_teaches_nothing(tmp_path):
    class Cut(Recorder):
        """Its paths are cut at the token limit."""

        def sample(self, jobs):
            for index, done in super().sample(jobs):
                is_path = "Write" not in jobs[index].request.messages[-1][1]
                yield index, Completion(done.text, LENGTH if is_path else "stop", 10, 5)

    rows, rejected = augmented(tmp_path, Cut(), 14, FOUR_VOTES, seed_items=6)
    assert set(rows["source"]) == {"seed"} and "no_answer" in set(rejected["reason"])


def test_a_seed_set_is_voted_on_with_the_votes_exemplars(tmp_path):
    engine = Recorder()
    augmented(tmp_path, engine, 14, FOUR_VOTES, DOMAIN.exemplars, seed_items=6)
    solved = [request for request in engine.requests if "Write" not in request.messages[-1][1]]
    assert solved
    for request in solved:
        question = request.messages[-1][1].split("?")[0] + "?"
        asked = domains.solve_messages(DOMAIN, question, exemplars=DOMAIN.exemplars)
        assert request.messages == tuple((m["role"], m["content"]) for m in asked)


def test_each_question_of_all_rounds_has_an_id_of_its_own(tmp_path):
    rows, _ = augmented(tmp_path, Recorder(), 60, FOUR_VOTES, seed_items=6)
    assert len(rows) == 60 and rows["id"].is_unique


def test_what_the_run_is_judged_on_is_kept_out_of_the_seed_set(tmp_path):
    plain, _ = augmented(tmp_path / "plain", Recorder(), 30, FOUR_VOTES, seed_items=6)
    made = plain[plain["source"] != "seed"]["question"].iloc[0]
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    # A benchmark that the domain does not have: one item, which is the very question that the teacher made.
    line = json.dumps({"Body": "", "Question": made, "Answer": "7"})
    (folder / "svamp_test.jsonl").write_text(line + "\n")
    (folder / "svamp_train.jsonl").write_text(line.replace(made, "Why?") + "\n")
    judged_on = {**FOUR_VOTES, "evaluate_on": ["svamp"]}
    rows, rejected = augmented(tmp_path / "judged", Recorder(), 30, judged_on, seed_items=6, benchmark_dir=str(folder))
    assert made not in set(rows["question"])
    assert set(rejected[rejected["text"] == made]["reason"]) == {"svamp"}


def test_a_seed_set_for_lmsi_is_asked_in_its_formats(tmp_path):
    formats = ["few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct"]
    lmsi = {**FOUR_VOTES, "path_formats": formats}
    rows, _ = augmented(tmp_path, Recorder(), 50, lmsi, seed_items=6)
    assert rows["prompt"].map(type).eq(str).all() and len(rows) == 50
    assert rows[rows["source"] == "seed"]["format"].tolist() == formats * 6
    assert set(rows["source"]) > {"seed"}
    pairs = training.training_pairs(rows, DOMAIN)
    assert [pair["prompt"][-1]["content"] for pair in pairs] == rows["prompt"].tolist()


def test_enough_seeds_need_no_teacher(tmp_path):
    rows, rejected = augmented(tmp_path, None, 5, {}, seed_items=9)
    assert len(rows) == 5 and rejected.empty
    with pytest.raises(ReplayMiss):
        augmented(tmp_path, None, 5, {}, seed_items=2)


def test_a_benchmark_without_a_training_split_is_no_seed_set(tmp_path):
    (tmp_path / "ASDiv.xml").write_text(
        "<P><Problem><Body>a</Body><Question>b?</Question><Answer>1</Answer></Problem></P>"
    )
    with pytest.raises(files.BenchmarkError, match="seed_set: asdiv has no training split"):
        students.seed_items(settings(seed_set="asdiv", benchmark_dir=str(tmp_path)), DOMAIN)
    assert layout.UPSTREAM["distil"] == ("vote",)
