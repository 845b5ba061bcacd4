"""LMSI's questions and formats: where they come from, what is held out, what is learned, and that a budget is kept."""

from __future__ import annotations

import json
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import REFERENCE

from crescent_utils import figures, runs
from crescent_utils.benchmarks import files, items
from crescent_utils.cli import verify
from crescent_utils.finetune import training
from crescent_utils.generation import models
from crescent_utils.generation.generator import Generator
from crescent_utils.generation.store import TOO_LONG, Completion, GenerationStore, Sampling
from crescent_utils.runs import domains, folders, params
from crescent_utils.vote import formats, labels, tables, unlabelled

FORMATS = ["few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct"]


def of_vote(**values):
    return params.build_settings("vote", {"min_agreement": 0.0, **values})


def test_generated_questions_repeat_no_benchmark_item_and_differ():
    held = [items.load_benchmark("arithmetic", split=split) for split in ("dev", "test")]
    found = unlabelled.load_unlabelled(of_vote(question_source="arithmetic", question_items=500), held)
    assert len(found.questions) + len(found.rejected) == 500 and len(found.rejected) > 0
    assert not any(items.repeated_items(list(found.questions["question"]), held))
    assert all(items.repeated_items(list(found.rejected["question"]), held))
    keys = [items.overlap_key(text) for text in [*found.questions["question"], *found.rejected["question"]]]
    assert len(set(keys)) == 500
    assert "500 of 1,820 different questions drawn" in found.source
    assert found.questions["gold"].tolist() == [items.arithmetic_gold(q) for q in found.questions["question"]]
    again = unlabelled.load_unlabelled(of_vote(question_source="arithmetic", question_items=500), held)
    assert again.questions.equals(found.questions)
    other = unlabelled.load_unlabelled(of_vote(question_source="arithmetic", question_items=500, seed=2), held)
    assert not other.questions.equals(found.questions)
    kept = unlabelled.load_unlabelled(
        of_vote(question_source="arithmetic", question_items=500, decontaminate=False), held
    )
    assert len(kept.questions) == 500


ROWS = [
    {"question": "Tom has 3 apples and eats 1. How many?", "answer": "3 - 1 = 2\n#### 2"},
    {"question": "Why?", "answer": "no idea"},
    {"question": "  ", "answer": "4"},
    {"question": "Why?", "answer": "7"},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_file_of_questions(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    table = pd.DataFrame(ROWS)
    {".jsonl": lambda: table.to_json(path, orient="records", lines=True), ".json": lambda: table.to_json(path,
    orient="records"),
     ".csv": lambda: table.to_csv(path, index=False), ".parquet": lambda: table.to_parquet(path)}[suffix]()  # fmt: skip
    for own in ({"question_source": str(path)}, {"question_source": path.name, "benchmark_dir": str(tmp_path)}):
        found = unlabelled.load_unlabelled(of_vote(**own), [])
        assert found.questions["question"].tolist() == [ROWS[0]["question"], "Why?"]
        assert found.questions["gold"].tolist()[0] == "2" and pd.isna(found.questions["gold"].iloc[1])
        rejected = dict(zip(found.rejected["question"], found.rejected["reason"], strict=True))
        assert rejected == {"Why?": "repeats a question", "": "empty"}
        assert sorted([*found.questions["id"], *found.rejected["id"]]) == [0, 1, 2, 3]


WORDINGS = ["What is 1 + 2?", "what is  1 plus 2?", "What is 9 - 4?", "Why?", "why", "How many, then?", " ", "", None]


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.sampled_from(WORDINGS), min_size=1, max_size=14),
    most=st.integers(0, 4),
    on_benchmark=st.booleans(),
)
def test_every_row_of_a_source_is_kept_or_rejected_with_its_reason(tmp_path_factory, rows, most, on_benchmark):
    path = tmp_path_factory.mktemp("source") / "rows.parquet"
    pd.DataFrame({"question": pd.Series(rows, dtype=object)}).to_parquet(path)
    benchmark = files.Benchmark("mine", (files.Item("What is 9 - 4?", "5"),), (), "by hand")
    own = of_vote(question_source=str(path), question_items=most)
    found = unlabelled.load_unlabelled(own, [benchmark] * on_benchmark)
    texts = [text.strip() for text in rows if isinstance(text, str) and text.strip()]
    first_of: dict[str, str] = {}  # the rule, row by row
    for text in texts:
        first_of.setdefault(items.overlap_key(text), text)
    kept, rejected = found.questions["question"].tolist(), found.rejected.groupby("reason")["question"].apply(list)
    on_test = rejected.get("repeats a benchmark item", [])
    drawn = set(map(items.overlap_key, [*kept, *on_test]))
    assert len(drawn) == len(kept) + len(on_test) == min(most or len(first_of), len(first_of))
    assert {first_of[key] for key in drawn} == {*kept, *on_test}
    assert set(on_test) == ({"What is 9 - 4?"} & {first_of[key] for key in drawn} if on_benchmark else set())
    of_drawn = [text for text in texts if items.overlap_key(text) in drawn]
    again = Counter(of_drawn) - Counter(first_of[key] for key in drawn)
    assert Counter(rejected.get("repeats a question", [])) == again
    assert rejected.get("empty", []) == [""] * (len(rows) - len(texts))
    assert len(kept) + len(found.rejected) == len(of_drawn) + len(rows) - len(texts)
    ids = [*found.questions["id"], *found.rejected["id"]]
    assert sorted(ids) == list(range(len(ids))), "each row has an id of its own"
    if len(drawn) < len(first_of):
        assert f"{len(drawn)} of {len(first_of)} different questions drawn" in found.source


def test_the_notebook_keeps_what_a_source_repeats_or_leaves_empty_beside_what_it_rejects(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arithmetic = domains.get_domain("arithmetic")
    model = models.Model("base", "f", lambda: tmp_path)
    with Generator(GenerationStore(tmp_path / "source" / "store.sqlite"), model, 1, None) as source:
        for text, answers in ((ROWS[0]["question"], "222"), ("Why?", "345")):
            request = source.request(domains.solve_messages(arithmetic, text), Sampling(0.8, 1.0, 40))
            paths = [(request, i, Completion(f"It is {a}.", "stop", 9, 4)) for i, a in enumerate(answers)]
            source.store.put(paths, {"engine": "test"})
    values = {"run": "own", "replay_from": "source", "outputs": str(tmp_path), "votes": 3, "vote_shots": "none",
              "question_source": str(path)}  # fmt: skip
    assert verify.replay_stage("vote", values) == ""
    counts = folders.read_manifest(tmp_path / "own", "vote")["counts"]
    assert (counts["questions"], counts["sampled"], counts["kept"], counts["rejected"]) == (2, 4, 1, 3)
    rejected = folders.read_table(tmp_path / "own", "vote", "rejected")
    assert sorted(rejected["reason"]) == ["empty", "min_agreement", "repeats a question"]


def test_what_cannot_be_had_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "Why?"}) + "\n")
    (tmp_path / "y.json").write_text("{")
    for source, message in {
        "gsm": "question_source: 'gsm' is unknown.*gsm8k", "none.jsonl": "'none.jsonl' is no file",
        "x.jsonl": "no column `question`.*text",
        "y.json": "y.json cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(files.BenchmarkError, match=message):
            unlabelled.load_unlabelled(of_vote(question_source=source, benchmark_dir=str(tmp_path)), [])


def test_a_vote_on_other_questions_needs_no_pool(tmp_path):
    own = of_vote(question_source="arithmetic", question_items=20, outputs=str(tmp_path))
    stage = folders.begin_stage("vote", own)
    found = unlabelled.questions_of_stage(stage, domains.get_domain("arithmetic"))
    assert len(found.questions) + len(found.rejected) == 20
    stage.finish({"sampled": 20})
    assert runs.is_current("vote", own)
    with pytest.raises(folders.RunError, match="'dedup'"):
        folders.begin_stage("vote", of_vote(outputs=str(tmp_path)))


def test_the_four_formats_are_learned_as_they_are_written():
    settings = of_vote(path_choice="all", path_formats=FORMATS)
    paths = [["3 + 4 = 7", "It is 8.", "The answer is 7."]]
    question = pd.DataFrame({"id": [5], "question": ["What is 3 + 4?"]})
    arithmetic, word_problems = domains.get_domain("arithmetic"), domains.get_domain("math_word_problems")
    qa, sampled, _ = tables.vote_tables(question, paths, settings, arithmetic)
    assert len(qa) == 8 and qa["format"].tolist() == FORMATS * 2 and sampled["won"].tolist() == [True, False, True]
    pairs = training.training_pairs(qa, domains.get_domain("arithmetic"), "Be brief.")
    assert [m["role"] for m in pairs[0]["prompt"]] == ["system", "user"]
    texts = formats.lmsi_formats("What is 3 + 4?", "3 + 4 = 7", "7", domains.get_domain("arithmetic").exemplars)
    assert [p["prompt"][-1]["content"] for p in pairs[:4]] == [text["prompt"] for text in texts]
    assert [p["completion"][0]["content"] for p in pairs[:4]] == ["3 + 4 = 7", "The answer is 7."] * 2
    assert "22" in pairs[0]["prompt"][-1]["content"], "the exemplars stand before the question"
    some, _, _ = tables.vote_tables(question, paths, of_vote(path_formats=["zero_shot_cot"]), word_problems)
    assert some["format"].tolist() == ["zero_shot_cot"]


def test_the_exemplars_are_right():
    for name in ("arithmetic", "math_word_problems"):
        for example in domains.get_domain(name).exemplars:
            assert tables.answers.extract_answer(example.path) == example.answer
    for example in domains.get_domain("arithmetic").exemplars:
        assert items.arithmetic_gold(example.question) == example.answer


def test_a_token_budget_asks_whole_questions_until_it_is_spent(tmp_path):
    store = GenerationStore(tmp_path / "store.sqlite")
    generator = Generator(store, models.Model("base", "f", lambda: tmp_path), 1, None)
    requests = [generator.request([{"role": "user", "content": f"{i}?"}], Sampling()) for i in range(200)]
    made = {"engine": "test"}
    store.put([(r, s, Completion("7", "stop", 5, 10)) for r in requests for s in range(3)], made)
    assert len(tables.sampled_paths(generator, requests, 3)) == 200
    for budget, questions in {1: 8, 64 * 30: 64, 64 * 30 + 1: 65, 150 * 30 - 1: 150, 10**6: 200}.items():
        fresh = Generator(store, models.Model("base", "f", lambda: tmp_path), 1, None)
        found = tables.sampled_paths(fresh, requests, 3, budget)
        assert len(found) == questions and all(len(row) == 3 for row in found)
        assert fresh.cost.completion_tokens == questions * 30


def test_the_budget_can_be_that_of_another_run(tmp_path):
    settings = params.build_settings("vote", {"outputs": str(tmp_path), "budget_of": "whole"})
    for stage, tokens in (("elicit", 100), ("dedup", 20), ("vote", 3)):
        with pytest.raises(folders.RunError, match=f"budget_of: run 'whole' has no finished {stage}"):
            tables.token_budget(settings)
        folders.write_json(
            tmp_path / "whole" / stage / "manifest.json", {"tokens": {"prompt": 7, "completion": tokens}}
        )
    assert tables.token_budget(settings) == 123
    with pytest.raises(params.ParameterError, match="token_budget: 5 and budget_of: 'whole' contradict"):
        tables.token_budget(settings.model_copy(update={"token_budget": 5}))
    assert tables.token_budget(params.build_settings("vote", {"token_budget": 9})) == 9
    shipped = params.load_profile([params.ROOT / "params" / "lmsi_cpu.yaml"], [])
    lmsi = params.build_settings("vote", params.parameters_of("vote", shipped))
    manifests = [json.loads((REFERENCE / stage / "manifest.json").read_text()) for stage in ("elicit", "dedup", "vote")]
    assert lmsi.budget_of == "reference" and lmsi.token_budget == 0
    assert tables.token_budget(lmsi) == sum(manifest["tokens"]["completion"] for manifest in manifests) > 0


def test_a_margin_is_asked_for():
    paths = [["7", "7", "8"]]
    for margin, kept in ((0.33, 1), (0.34, 0)):
        question = pd.DataFrame({"id": [1], "question": ["?"]})
        qa, _, rejected = tables.vote_tables(
            question, paths, of_vote(min_margin=margin), domains.get_domain("arithmetic")
        )
        assert len(qa) == kept and rejected["reason"].tolist() == ["min_margin"] * (1 - kept)


def test_every_question_that_is_not_kept_stands_in_one_table_with_its_reason():
    questions = pd.DataFrame({"id": [1, 2, 3], "question": ["a", "b", "c"], "round": [0, 0, 1]})
    _, _, outvoted = tables.vote_tables(
        questions.head(2), [["x"], ["y"]], of_vote(), domains.get_domain("math_word_problems")
    )
    repeats = pd.DataFrame({"id": [9], "question": ["d"], "gold": ["4"], "reason": ["repeats a benchmark item"]})
    rejected = tables.all_rejected(outvoted, [2], questions.tail(1), repeats)
    assert rejected["id"].tolist() == [1, 2, 3, 9]
    assert rejected["reason"].tolist() == ["no_answer", TOO_LONG, "token_budget", "repeats a benchmark item"]
    assert list(rejected) == list(tables.REJECTED_COLUMNS)
    alone = tables.all_rejected(outvoted, [], questions.head(0), repeats.head(0))
    assert alone.equals(outvoted), "an empty part adds nothing, not even a column"
    nothing = tables.all_rejected(outvoted.head(0), [], questions.head(0), repeats.head(0))
    assert list(nothing) == list(outvoted) and nothing.empty


# What the cells of notebook 03 call, on a source in which some answers are missing or cannot be read.
GAPS = [
    {"question": "Tom has 3 apples and eats 1. How many?", "answer": "3 - 1 = 2\n#### 2"},
    {"question": "Why?", "answer": "no idea"},
    {"question": "How?", "answer": None},
]


def through_the_cells(questions, protocol="paper"):
    """Vote on `questions` as notebook 03 does; return qa and the two tables that golds judge."""
    settings, domain = of_vote(protocol=protocol), domains.get_domain("math_word_problems")
    paths_of_three = [["It is 2.", "2", "3"], ["4", "4", "x"], ["5", "no", "no"]]
    qa, paths, _ = tables.vote_tables(questions, paths_of_three[: len(questions)], settings, domain)
    golds = tables.known_golds(questions, domain)
    labels.kept_by_threshold(qa)
    labels.agreement_by_group(qa, labels.length_groups(qa["question"]))
    for draw in (figures.agreement_histogram, figures.reliability):
        draw(qa)
    figures.threshold_sweep(labels.kept_by_threshold(qa))
    assert labels.accuracy_by_agreement(qa)["known"].sum() == len(golds)
    return qa, labels.votes_needed(paths, golds), labels.cost_of_released(paths, golds)


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_question_without_a_gold_is_voted_on_and_not_judged(tmp_path, suffix, protocol):
    path, table = tmp_path / f"gaps{suffix}", pd.DataFrame(GAPS)
    {".jsonl": lambda: table.to_json(path, orient="records", lines=True), ".csv": lambda: table.to_csv(path,
    index=False),
     ".parquet": lambda: table.to_parquet(path)}[suffix]()  # fmt: skip
    questions = unlabelled.load_unlabelled(of_vote(question_source=str(path)), []).questions
    qa, curve, cost = through_the_cells(questions, protocol)
    assert qa["correct"].tolist()[0] is True and qa["correct"].iloc[1:].isna().all()
    assert curve["n"].tolist() == [1, 1] and curve["right"].tolist() == pytest.approx([2 / 3, 1.0])
    assert cost["n"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_missing_gold_is_read_alike_however_a_table_holds_it(missing):
    golds = pd.Series(["2", missing, missing], dtype=object)
    questions = pd.DataFrame({"id": range(3), "question": [row["question"] for row in GAPS], "gold": golds})
    assert tables.known_golds(questions, domains.get_domain("arithmetic")) == {0: "2"}
    qa, curve, _ = through_the_cells(questions)
    assert qa["correct"].tolist()[0] is True and curve["n"].tolist() == [1, 1]
    _, curve, cost = through_the_cells(questions.assign(gold=missing))
    assert curve.empty and cost["n"].tolist() == [0, 0, 0]


def test_a_file_may_mark_missing_answers_as_pandas_does(tmp_path):
    answers = pd.array([2, None, None], dtype="Int64")
    pd.DataFrame(GAPS).assign(answer=answers).to_parquet(tmp_path / "gaps.parquet")
    found = unlabelled.load_unlabelled(of_vote(question_source=str(tmp_path / "gaps.parquet")), []).questions
    assert tables.known_golds(found, domains.get_domain("arithmetic")) == {0: "2"}


def test_a_model_folder_of_a_run_is_found_from_any_folder(tmp_path, monkeypatch):
    folder = tmp_path / "outputs" / "first" / "finetune" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    assert models.resolve_model("outputs/first/finetune/model").locate() == folder
