"""The harness's own tasks through the store: equal to plain lm-evaluation-harness to the item, resumed and replayed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import tiny
import yaml
from shared import GSM8K_FOLDERS, SAMPLES

from crescent_utils.benchmarks.files import Benchmark, BenchmarkError
from crescent_utils.benchmarks.items import load_benchmark
from crescent_utils.evaluate import evaluation, harness
from crescent_utils.generation import generator as generator_module
from crescent_utils.generation import models, store
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.generator import Generator, ReplayMiss, open_generator
from crescent_utils.runs import domains, params

TASK = {
    "task": "colours", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test",
    "training_split": "train",
    "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "{{options}}", "doc_to_target": "label",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}  # fmt: skip


def rows(shift):
    for i in range(12):
        options = ["red", "green and blue", "a very dark yellow"]
        yield {"question": f"What colour has number {i + shift}?", "options": options, "label": (i + shift) % 3}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with a multiple-choice task of the harness's own kind, and its data."""
    folder = tmp_path_factory.mktemp("tasks")
    for split, shift in (("test", 0), ("train", 100)):
        text = "\n".join(map(json.dumps, rows(shift)))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    files = {split: str(folder / f"{split}.jsonl") for split in ("test", "train")}
    written = {"task": "copies", "doc_to_target": "{{question}}", "output_type": "generate_until",
               "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
               "metric_list": [{"metric": "exact_match"}]}  # fmt: skip
    generated = {**{k: v for k, v in TASK.items() if k != "doc_to_choice"}, **written}
    (folder / "both.yaml").write_text(
        yaml.safe_dump({"group": "both", "task": ["colours", "copies"]}), encoding="utf-8"
    )
    for task in (TASK, generated):
        text = yaml.safe_dump({**task, "dataset_kwargs": {"data_files": files}})
        (folder / f"{task['task']}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model")


def settings_of(tasks, **values):
    own = {"engine": "transformers", "other_runs": [], "benchmark_dir": str(tasks), "general_tasks": ["colours"]}
    return params.build_settings("evaluate", {**own, **values})


@pytest.fixture
def generator(folder, tmp_path):
    words = models.load_tokenizer(folder)
    with Generator(
        store.GenerationStore(tmp_path / "store.sqlite"), models.Model("base", "tiny", lambda: folder), 1,
        lambda: TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, 512)),
    ) as made:  # fmt: skip
        yield made


def plain(folder, tasks, shots, name="colours", chat=False):
    """The same task by the harness's own model, without the kit."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=harness.BATCH)
    return harness.run_task(
        model, name, shots=shots, chat=chat, manager=TaskManager(include_path=str(tasks), include_defaults=False)
    )


def test_a_log_likelihood_task_equals_the_plain_harness_to_the_item(generator, folder, tasks, shots=2):
    settings = settings_of(tasks, general_shots=shots)
    table = harness.general_ability(generator, settings)
    expected = plain(folder, tasks, shots)["samples"]["colours"]
    assert len(table) == len(expected) == 12 and set(table["metric"]) == {"acc_norm"}
    for sample in expected:
        item = table[table["item"] == f"colours {sample['doc_id']}"]
        assert item["score"].tolist() == [sample["acc_norm"]]
    assert 0 < table["score"].mean() < 1, "else this shows nothing"
    asked = generator.store._db.execute("SELECT count(*) FROM completions").fetchone()[0]
    assert asked == 36, "each continuation of each item once"

    def never():
        raise AssertionError("a second time nothing is computed")

    generator._start = never
    silent = settings_of(tasks, general_shots=shots, engine="replay")
    assert harness.general_ability(generator, silent).equals(table), "a replay gives the same table without a model"


def test_the_kits_own_tasks_need_no_hub_and_no_index_of_the_harness(generator, monkeypatch):
    monkeypatch.setattr(harness, "_tasks", None)
    own = {"general_tasks": ["verb_agreement", "bbh_navigate"], "benchmark_dir": str(SAMPLES), "general_items": 6}
    table = harness.general_ability(generator, settings_of("", **own))
    assert table.groupby("benchmark").size().to_dict() == {"bbh_navigate": 2, "verb_agreement": 6}
    assert set(table["metric"]) == {"acc"} and set(table["score"]) <= {0.0, 1.0}
    asked = generator.store._db.execute("SELECT DISTINCT messages FROM requests").fetchall()
    contexts = {json.loads(messages)[0][1] for (messages,) in asked if "near the" in messages or "The " in messages}
    assert any(context.startswith("The ") for context in contexts)


def test_a_generated_task_equals_the_plain_harness_to_the_item(generator, folder, tasks):
    table = harness.general_ability(generator, settings_of(tasks, general_tasks=["copies", "colours"], general_items=5))
    assert table.groupby("benchmark")["decoding"].first().to_dict() == {"copies": "greedy", "colours": "log-likelihood"}
    assert table.groupby("benchmark").size().to_dict() == {"copies": 5, "colours": 5}
    expected = plain(folder, tasks, 0, "copies", chat=True)["samples"]["copies"]
    ours = {
        json.loads(messages)[-1][1]: text.split("\n")[0]
        for messages, text in generator.store._db.execute(
            "SELECT messages, text FROM completions JOIN requests ON requests.id = request_id WHERE settings_id IN "
            "(SELECT id FROM settings WHERE json LIKE '%\"max_tokens\": 8%' OR json LIKE '%\"max_tokens\":8%')"
        )
    }
    theirs = {sample["doc"]["question"]: sample["resps"][0][0] for sample in expected[:5]}
    assert (
        len(ours) == 5
        and {q.removeprefix("Question: ").removesuffix("\nAnswer:"): t for q, t in ours.items()} == theirs
    )


def test_log_likelihoods_survive_a_kill(generator, folder, tasks, monkeypatch):
    monkeypatch.setattr(harness, "CHUNK", 10)
    monkeypatch.setattr(generator_module, "COMMIT_EVERY", 4)
    from lm_eval.models.huggingface import HFLM

    calls, real = [], HFLM.loglikelihood

    def dies(self, requests, disable_tqdm=False):
        calls.append(len(requests))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, requests, disable_tqdm)

    monkeypatch.setattr(HFLM, "loglikelihood", dies)
    with pytest.raises(KeyboardInterrupt):
        harness.general_ability(generator, settings_of(tasks))
    table = harness.general_ability(generator, settings_of(tasks))
    assert calls == [10, 10, 10, 10, 6], "of 36, the 20 that were done are not computed again"
    monkeypatch.setattr(HFLM, "loglikelihood", real)
    assert table["score"].tolist() == [s["acc_norm"] for s in plain(folder, tasks, 0)["samples"]["colours"]]


def test_no_program_is_started_to_describe_the_machine(generator, tasks, monkeypatch):
    described = []
    monkeypatch.setattr("torch.utils.collect_env.get_pretty_env_info", lambda: described.append(1))
    harness.general_ability(generator, settings_of(tasks))
    assert not described


def test_general_scores_become_comparisons(generator, tasks):
    table = harness.general_ability(generator, settings_of(tasks))
    both = pd.concat([table, table.assign(model="tuned")], ignore_index=True)
    scores = both.iloc[:0].assign(strict=False, flexible=False, symbolic=False)
    found = evaluation.comparison_table(scores, both, settings_of(tasks, resamples=200))
    row = found.iloc[0]
    assert (len(found), row["scoring"], row["difference"], row["n"]) == (1, "acc_norm", 0.0, 12)
    assert row["before_accuracy"] == table["score"].mean()


def test_what_cannot_be_asked_is_named(generator, tasks):
    with pytest.raises(BenchmarkError, match="general_tasks: .* no task 'colors'. Did you mean 'colours'"):
        harness.general_ability(generator, settings_of(tasks, general_tasks=["colors"]))
    with pytest.raises(BenchmarkError, match="general_tasks: 'both' mixes"):
        harness.general_ability(generator, settings_of(tasks, general_tasks=["both"]))
    with pytest.raises(BenchmarkError, match="engine 'server' gives no log-likelihoods"):
        harness.general_ability(generator, settings_of(tasks, engine="server", base_urls=["http://localhost:1/v1"]))
    with pytest.raises(ReplayMiss, match="does not hold"):
        harness.general_ability(generator, settings_of(tasks, engine="replay"))


@pytest.mark.slow
@pytest.mark.live
def test_vllm_gives_the_log_likelihoods_of_transformers(tasks, tmp_path):
    from crescent_utils.generation.engines import vllm

    if trouble := vllm.why_not():
        pytest.skip(trouble)
    folder = models.bundled_folder()  # vLLM on CPU has no attention for the tiny model's heads of 16
    found = {}
    for engine in ("transformers", "vllm"):
        settings = settings_of(tasks, engine=engine, dtype="float32", max_model_len=512)
        with Generator(
            store.GenerationStore(tmp_path / f"{engine}.sqlite"),
            models.Model("base", "bundled", lambda: folder),
            1,
            None,
        ) as made:
            harness.general_ability(made, settings)
            rows = made.store._db.execute(
                "SELECT messages, text FROM completions JOIN requests ON requests.id = request_id"
            ).fetchall()
        found[engine] = {messages: json.loads(text)[0] for messages, text in rows}
    assert found["transformers"].keys() == found["vllm"].keys() and len(found["vllm"]) == 36
    for messages, value in found["transformers"].items():
        assert found["vllm"][messages] == pytest.approx(value, rel=1e-3)


# --- GSM8K: the tiny and the bundled model ------------------------------------------------

GSM8K = {  # lm-evaluation-harness's gsm8k, its filters and metric, with the kit's wording of the question
    "task": "gsm8k_plain", "dataset_path": "json", "output_type": "generate_until", "test_split": "test",
    "training_split": "train",
    "fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}, "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": [], "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True,
                     "ignore_punctuation": False, "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}],
    "filter_list": [
        {"name": "strict-match",
            "filter": [{"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}, {"function": "take_first"}]},
        {"name": "flexible-extract", "filter": [
            {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"},
            {"function": "take_first"}]},
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("data", GSM8K_FOLDERS)
@pytest.mark.parametrize(
    ("which", "items", "tokens"), [("tiny", 12, 64), pytest.param("bundled", 64, 160, marks=pytest.mark.live)]
)
def test_gsm8k_equals_plain_lm_eval_to_the_item(folder, tmp_path, data, which, items, tokens):
    """Plain `lm_eval` on the command line and the kit, the first items: same answers, same verdicts."""
    folder = folder if which == "tiny" else models.bundled_folder()
    domain = domains.get_domain("math_word_problems")
    data_files = {split: str(data / f"gsm8k_{split}.jsonl") for split in ("test", "train")}
    task = {
        **GSM8K,
        "dataset_kwargs": {"data_files": data_files},
        "generation_kwargs": {**GSM8K["generation_kwargs"], "max_gen_toks": tokens},
        "doc_to_text": domain.solve_prompt.replace("{question}", "{{question}}"),
    }
    (tmp_path / "gsm8k_plain.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    arguments = f"pretrained={folder},dtype=float32,max_length=2048"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", arguments]
    command += ["--tasks", "gsm8k_plain", "--include_path", str(tmp_path), "--limit", str(items)]
    command += ["--apply_chat_template", "--device", "cpu", "--batch_size", "8"]
    command += ["--log_samples", "--output_path", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    logged = next((tmp_path / "out").rglob("samples_*.jsonl")).read_text(encoding="utf-8").splitlines()
    expected = {(row["doc_id"], row["filter"]): row for row in map(json.loads, logged)}

    whole = load_benchmark("gsm8k", folder=str(data))
    bench = Benchmark("gsm8k", whole.items[:items], whole.train, whole.source)
    settings = params.build_settings("evaluate", {"engine": "transformers", "domain": domain.name,
                                                    "eval_samples": 0, "eval_max_tokens": tokens,
                                         "model": str(folder), "max_model_len": 2048,
                                         "other_runs": [], "outputs": str(tmp_path), "run": "r"})  # fmt: skip
    with open_generator(settings) as generator:
        ours = evaluation.answer_benchmark(generator, bench, settings, domain)
    for row in ours.itertuples():
        for name, scoring in (("strict-match", row.strict), ("flexible-extract", row.flexible)):
            plain_row = expected[row.item, name]
            assert row.completion == plain_row["resps"][0][0], row.item
            assert scoring == bool(plain_row["exact_match"]), (row.item, name)
    assert len(ours) == len(bench.items) >= 12 and len(expected) == 2 * len(ours)
    print(ours[["strict", "flexible", "symbolic"]].sum())
