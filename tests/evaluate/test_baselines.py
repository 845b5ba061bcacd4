"""Baselines: chosen on development items alone, asked as they were chosen, and paired with the tuned model."""

from __future__ import annotations

import pandas as pd
import pytest
import tiny

from crescent_utils import benchmarks
from crescent_utils.evaluate import baselines, evaluation, prompts
from crescent_utils.generation import models
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.generator import Generator
from crescent_utils.generation.store import GenerationStore
from crescent_utils.runs import contents, domains, params

DOMAIN = domains.get_domain("arithmetic").model_copy(update={"prompts": ("Say what {question} gives.",)})


def settings_of(**values):
    own = {
        "engine": "transformers",
        "eval_max_tokens": 3,
        "eval_prompts": ["solve"],
        "best_prompt": False,
        "matched_temperature": False,
        "evaluate_on": ["arithmetic"],
        "other_runs": [],
    }
    return params.build_settings("evaluate", {**own, **values})


class Watched(Generator):
    """A real generator that remembers what it was asked for."""

    def complete(self, pairs):
        self.pairs = [*getattr(self, "pairs", []), *pairs]
        return super().complete(pairs)


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    folder = tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model")
    words = models.load_tokenizer(folder)
    engine = TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, 512), batch_size=64)
    store = GenerationStore(tmp_path_factory.mktemp("store") / "s.sqlite")
    yield lambda label: Watched(store, models.Model(label, "tiny", lambda: None), 1, lambda: engine)
    store.close()


@pytest.mark.parametrize("name", ["arithmetic", "two_numbers_190_products_20"])
def test_what_is_chosen_is_chosen_on_development_items(generators, monkeypatch, name):
    monkeypatch.setattr(baselines, "DEVELOPMENT_ITEMS", 6)
    settings = settings_of(best_prompt=True, matched_temperature=True, evaluate_on=[name], benchmark_items=20)
    tested = {item.question for bench in benchmarks.load_evaluated(settings, DOMAIN) for item in bench.items}
    tables = []
    for label in ("base", "tuned", "student"):
        generator = generators(label)
        tables.append(baselines.answer_development(generator, settings, DOMAIN))
        for request, _ in getattr(generator, "pairs", []):
            assert not any(question in request.messages[-1][1] for question in tested)
    base, tuned, student = tables
    assert len(base) == 6 * (4 + 2 * 4) and len(tuned) == 6 * 2 and student.empty
    assert set(base.loc[base["temperature"] == 0, "prompt"]) == {"solve", "bare", "stock", "Say what {question} gives."}
    assert set(base["temperature"]) == {0, 0.2, 0.35, 0.5, 0.7} and set(tuned["temperature"]) == {0.7}
    choices = baselines.choose_baselines(pd.concat(tables, ignore_index=True), settings)
    assert set(choices.prompts) == set(choices.temperatures) == {name} and choices.items == {name: 6}
    nothing = baselines.answer_development(generators("base"), settings_of(), DOMAIN)
    assert nothing.empty and baselines.choose_baselines(nothing, settings_of()) == baselines.Choices()


def development(rights, agreements):
    """Development answers: `rights` per prompt of the base; share of agreeing pairs per (model, temperature)."""
    rows = [
        {"benchmark": "b", "model": "base", "prompt": prompt, "temperature": 0.0, "item": i, "sample": 0, "answer": "1",
         "symbolic": i < right}
        for prompt, right in rights.items() for i in range(10)
    ]  # fmt: skip
    rows += [
        {"benchmark": "b", "model": model, "prompt": "solve", "temperature": heat, "item": i, "sample": sample,
         "answer": "1" if sample == 0 or i < agree else None, "symbolic": False}
        for (model, heat), agree in agreements.items() for i in range(10) for sample in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_best_prompt_and_the_temperature_that_is_as_sharp():
    table = development(
        {"solve": 3, "bare": 6, "stock": 6, "Now: {question}": 5},
        {("base", 0.2): 9, ("base", 0.35): 7, ("base", 0.7): 2, ("tuned", 0.7): 6},
    )
    both = settings_of(best_prompt=True, matched_temperature=True)
    choices = baselines.choose_baselines(table, both)
    assert choices == baselines.Choices({"b": "bare"}, {"b": 0.35}, {"b": 10})
    summary = baselines.development_summary(table).set_index(["model", "prompt", "temperature"])
    assert (
        summary.loc[("base", "bare", 0.0), "right"] == 0.6 and summary.loc[("tuned", "solve", 0.7), "two agree"] == 0.6
    )
    assert baselines.choose_baselines(table, settings_of(best_prompt=True)).temperatures == {}


def test_the_base_answers_the_test_as_was_chosen(generators):
    settings = settings_of(best_prompt=True, matched_temperature=True, benchmark_items=20, eval_prompts=["bare"])
    bench = benchmarks.load_evaluated(settings, DOMAIN)[0]
    wording = DOMAIN.prompts[0]
    choices = baselines.Choices({"arithmetic": wording}, {"arithmetic": 0.35}, {"arithmetic": 6})
    generator = generators("base")
    rows = baselines.answer_baselines(generator, bench, settings, DOMAIN, choices)
    assert rows.groupby(["prompt", "decoding"]).size().to_dict() == {("bare", "matched"): 20, ("best", "greedy"): 20}
    assert list(rows.columns) == evaluation.SCORE_COLUMNS and not rows.drop(columns=["answer"]).isna().any().any()
    asked = {(request.messages, request.sampling.temperature) for request, _ in generator.pairs}
    for item in bench.items:
        assert ((("user", wording.replace("{question}", item.question)),), 0.0) in asked
        assert ((("user", item.question),), 0.35) in asked
    assert prompts.headline_scores(rows, "bare").empty, "a baseline is no evidence for a claim"
    assert baselines.answer_baselines(generator, bench, settings, DOMAIN, baselines.Choices()).empty


def answers(model, right, prompt="solve", decoding="greedy", seeds=(1, 2)):
    return pd.DataFrame([
        {"benchmark": "b", "model": model, "prompt": prompt, "shots": 0, "decoding": decoding, "item": i, "sample": 0,
         "seed": seed, "symbolic": i < right, "strict": False, "flexible": False}
        for seed in seeds for i in range(40)
    ])  # fmt: skip


def test_each_baseline_is_paired_with_the_tuned_model():
    scores = pd.concat([
        answers("base", 10), answers("base", 12, "own"), answers("base", 16, "best"),
        answers("base", 4, decoding="sampled"), answers("base", 8, decoding="matched"),
        answers("tuned", 24), answers("tuned", 26, "own"), answers("tuned", 20, decoding="sampled"),
        answers("tuned_random_labels", 6), answers("tuned_no_vote", 22),
    ], ignore_index=True)  # fmt: skip
    settings = settings_of(eval_prompts=["solve", "own"], compare_runs={"tuned_no_vote": ["x"]})
    choices = baselines.Choices({"b": "bare"}, {"b": 0.35}, {"b": 150})
    table = baselines.baseline_table(scores, settings, choices)
    found = {(row.baseline, row.tuned): (round(row.baseline_accuracy * 40), round(row.difference * 40))
             for row in table.itertuples()}  # fmt: skip
    assert found == {
        ("base, solve, greedy", "greedy"): (10, 14),
        ("base, own, greedy", "greedy"): (12, 12),
        ("base, best zero-shot prompt (chosen on dev, n = 150): 'bare'", "greedy"): (16, 8),
        ("random labels, greedy", "greedy"): (6, 18),
        ("tuned_no_vote, greedy", "greedy"): (22, 2),
        ("base, solve, greedy", "one sample at T = 0.7"): (10, 10),
        ("base, solve, one sample at T = 0.7", "one sample at T = 0.7"): (4, 16),
        ("base, solve, one sample at T = 0.35, as sharp as tuned", "one sample at T = 0.7"): (8, 12),
    }
    assert (table["low"] <= table["difference"]).all() and set(table["seeds"]) == {2} and set(table["n"]) == {40}
    without = baselines.baseline_table(scores[scores["model"] != "tuned_random_labels"], settings, choices)
    assert not without["baseline"].str.startswith("random").any() and len(without) == len(table) - 1
    by_prompt = baselines.prompt_table(scores, settings)
    assert by_prompt["prompt"].tolist() == ["solve", "own"] and by_prompt["difference"].tolist() == [14 / 40, 14 / 40]


def test_the_wordings_that_are_tried_change_no_model_but_the_choice():
    own = params.build_settings("evaluate", {"best_prompt": True})
    assert "prompts" in contents.stage_inputs("evaluate", own)
    assert "prompts" not in contents.stage_inputs("evaluate", params.build_settings("evaluate", {"best_prompt": False}))


def test_a_wording_without_the_question_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    text = (params.DOMAINS / "arithmetic.yaml").read_text(encoding="utf-8")
    path.write_text(text + "\nprompts: [Say it.]\n", encoding="utf-8")
    with pytest.raises(params.ParameterError, match=r"prompts.*'Say it\.' lacks \{question\}"):
        domains.get_domain(str(path))
    path.write_text(text, encoding="utf-8")
    before = contents.domain_content(str(path))
    path.write_text(text + '\nprompts: ["Say {question}"]\n', encoding="utf-8")
    assert domains.get_domain(str(path)).prompts == ("Say {question}",)
    assert contents.domain_content(str(path)) == before


def test_development_items_of_a_file_are_its_training_items(tmp_path):
    from shared import SAMPLES

    settings = settings_of(evaluate_on=["gsm8k", "bbh"], benchmark_dir=str(SAMPLES))
    (found,) = benchmarks.load_development(settings, DOMAIN, 4)
    loaded = benchmarks.load_benchmark("gsm8k", folder=str(SAMPLES))
    assert found.items == loaded.train[-4:] and not set(found.items) & set(loaded.items)
    alone = settings_of(evaluate_on=["bbh"], benchmark_dir=str(SAMPLES))
    with pytest.raises(benchmarks.BenchmarkError, match="bbh have no items beside the tested ones"):
        benchmarks.load_development(alone, DOMAIN, 4)
