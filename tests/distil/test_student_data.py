"""What a student could learn from instead of the pairs: raw samples and an augmented seed set, at the same budget."""

from __future__ import annotations

import pandas as pd
import pytest
import tiny
from shared import REFERENCE

from crescent_utils.benchmarks import files, items
from crescent_utils.distil import student_data
from crescent_utils.finetune import masks, training
from crescent_utils.generation import models
from crescent_utils.generation.generator import Generator, ReplayMiss
from crescent_utils.generation.store import Completion, GenerationStore
from crescent_utils.runs import domains, folders, params

DOMAIN = domains.get_domain("arithmetic")
WORDS = tiny.tokenizer()


def settings(**values):
    return params.build_settings("distil", {"engine": "auto", **values})


def test_raw_samples_are_one_path_of_each_question_whatever_its_answer():
    paths, asked = (
        pd.read_parquet(REFERENCE / stage / f"{name}.parquet")
        for stage, name in (("vote", "paths"), ("dedup", "questions"))
    )
    drawn = student_data.raw_samples(paths, asked, 1)
    assert drawn["id"].is_unique and len(drawn) == paths["question_id"].nunique()
    known = set(zip(paths["question_id"], paths["path"], strict=True))
    assert all((row.id, row.path) in known for row in drawn.itertuples())
    texts = asked.set_index("id")["question"]
    assert (drawn["question"] == drawn["id"].map(texts)).all()
    assert student_data.raw_samples(paths, asked, 1).equals(drawn) and not student_data.raw_samples(
        paths, asked, 2
    ).equals(drawn)
    won = paths[paths["won"]].set_index("question_id")["path"]
    shared = drawn[drawn["id"].isin(won.index)]
    assert 0.1 < (shared["path"] == shared["id"].map(won)).mean() < 0.9, "winners and losers alike"


def test_a_budget_holds_examples_and_tokens():
    rows = pd.DataFrame({"question": [f"What is {i} + 1?" for i in range(30)], "path": ["x" * 40] * 30})
    pairs = training.training_pairs(rows.assign(path="x").head(10), DOMAIN)
    size = [len(masks.loss_mask(WORDS, pair)) for pair in training.training_pairs(rows, DOMAIN)]
    budget = sum(len(masks.loss_mask(WORDS, pair)) for pair in pairs)
    chosen = student_data.within_budget(rows, pairs, DOMAIN, "", WORDS)
    assert chosen == training.training_pairs(rows, DOMAIN)[: len(chosen)] and len(chosen) < 10
    assert sum(size[: len(chosen)]) <= budget < sum(size[: len(chosen) + 1])
    assert len(student_data.within_budget(rows.assign(path=""), pairs, DOMAIN, "", WORDS)) == 10
    assert student_data.within_budget(rows.head(0), pairs, DOMAIN, "", WORDS) == []


def test_the_seed_set_is_labelled_and_apart_from_what_is_tested():
    own = settings(seed_items=40)
    seeds = student_data.seed_items(own, DOMAIN)
    assert len(seeds) == 40 and all(items.arithmetic_gold(seed.question) == seed.gold for seed in seeds)
    held = [items.load_benchmark("arithmetic", split=split, items=350, seed=2025) for split in ("dev", "test")]
    assert not any(items.repeated_items([seed.question for seed in seeds], held))
    assert (
        student_data.seed_items(own, DOMAIN)
        == seeds
        != student_data.seed_items(settings(seed_items=40, seed=2), DOMAIN)
    )
    with pytest.raises(files.BenchmarkError, match="unknown"):
        student_data.seed_items(settings(seed_set="gsm9k"), DOMAIN)


class Recorder:
    """An engine that gives the reference model's own recorded completions: questions to who asks for one, paths to who asks to solve."""

    name, guarantee, devices = "recorded", "", 1

    def __init__(self):
        with GenerationStore(REFERENCE / "store.sqlite", read_only=True) as store:
            self.paths = [c.text for r, _, c in store.completions() if DOMAIN.solve_system in r.messages[0][1]][:500]
        found = pd.read_parquet(REFERENCE / "elicit" / "questions.parquet")["question"].drop_duplicates()
        self.questions = [text.removeprefix("What is") for text in found]
        self.asked = []

    def sample(self, jobs):
        for index, job in enumerate(jobs):
            self.asked.append(job.request)
            texts = self.questions if "Write" in job.request.messages[-1][1] else self.paths
            yield index, Completion(texts[job.seed % len(texts)], "stop", 10, 5)

    def close(self):
        pass


def test_a_seed_set_is_rephrased_extended_and_voted_on(tmp_path):
    engine = Recorder()
    voted = {"parameters": {**params.build_settings("vote", {"votes": 4, "min_agreement": 0.25}).model_dump()}}
    with Generator(
        GenerationStore(tmp_path / "s.sqlite"), models.Model("base", "m", lambda: tmp_path), 1, lambda: engine
    ) as generator:
        rows, rejected = student_data.seed_augmented(generator, settings(seed_items=6), DOMAIN, voted, 14)
        again, _ = student_data.seed_augmented(generator, settings(seed_items=6), DOMAIN, voted, 14)
    assert rows.equals(again), "asked again it comes from the store"
    assert (
        len(rows) == 14
        and (rows["source"] == "seed").sum() == 6
        and set(rows["source"]) == {"seed", "rephrased", "extended"}
    )
    assert rows["question"].is_unique
    held = [items.load_benchmark("arithmetic", split=split, items=350, seed=2025) for split in ("dev", "test")]
    assert not any(items.repeated_items(list(rows["question"]), held))
    assert {"arithmetic", "repeats a question"} & set(rejected["reason"])
    asked = [request for request in engine.asked if "Write" in request.messages[-1][1]]
    assert all(request.prefix == "What is" for request in asked)
    solved = next(request for request in engine.asked if "Write" not in request.messages[-1][1])
    question = solved.messages[-1][1].split("?")[0] + "?"
    assert solved.messages == tuple((m["role"], m["content"]) for m in domains.solve_messages(DOMAIN, question)), (
        "asked as in the vote"
    )
    assert solved.sampling.temperature == 0.7


def test_enough_seeds_need_no_teacher(tmp_path):
    voted = {"parameters": params.build_settings("vote", {}).model_dump()}
    with Generator(
        GenerationStore(tmp_path / "s.sqlite"), models.Model("base", "m", lambda: tmp_path), 1, None
    ) as generator:
        rows, rejected = student_data.seed_augmented(generator, settings(seed_items=9), DOMAIN, voted, 5)
        assert len(rows) == 5 and rejected.empty
        with pytest.raises(ReplayMiss):
            student_data.seed_augmented(generator, settings(seed_items=2), DOMAIN, voted, 5)


def test_a_benchmark_without_a_training_split_is_no_seed_set(tmp_path):
    (tmp_path / "ASDiv.xml").write_text(
        "<P><Problem><Body>a</Body><Question>b?</Question><Answer>1</Answer></Problem></P>"
    )
    with pytest.raises(files.BenchmarkError, match="seed_set: asdiv has no training split"):
        student_data.seed_items(settings(seed_set="asdiv", benchmark_dir=str(tmp_path)), DOMAIN)
    assert folders.UPSTREAM["distil"] == ("vote",)
