"""Evaluation: the harness on a real (tiny) model against our own scores, every item and every sample accounted for."""

from __future__ import annotations

import pandas as pd
import pytest
import tiny
from shared import REFERENCE

from crescent_utils.answers import reading
from crescent_utils.benchmarks import files, scoring
from crescent_utils.benchmarks.files import Benchmark, Item
from crescent_utils.evaluate import evaluation, prompts
from crescent_utils.generation import models
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.generator import Generator
from crescent_utils.generation.store import GenerationStore, Sampling
from crescent_utils.runs import domains, folders, params

DOMAIN = domains.get_domain("arithmetic")
EXAMPLES = (
    Item("What is 1 + 1?", "2", "1 + 1 = 2"),
    Item("What is 2 + 2?", "4", "2 + 2 = 4"),
    Item("What is 9 + 9?", "18"),
)


@pytest.mark.parametrize("table", ["comparisons", "prompts", "baselines", "sources"])
def test_a_summary_shows_what_the_table_holds(table):
    """Every accuracy, difference and p-value of the reference stands in what a notebook shows of it."""
    rows = pd.read_parquet(REFERENCE / "evaluate" / f"{table}.parquet")
    shown = evaluation.comparison_summary(rows)
    assert len(shown) == len(rows) and not any("_" in f"{name}" for name in shown)
    for row, line in zip(rows.to_dict("records"), shown.to_dict("records"), strict=True):
        change = "difference" if "difference" in row else "gain"
        low, value, high = (100 * row[name] for name in ("low", change, "high"))
        words = line[f"{change} (points)"]
        told = [float(text) for text in words.replace("[", "").replace("]", "").replace(",", "").split()]
        assert told == pytest.approx([value, low, high], abs=0.051)
        if "p_value" in row:
            assert line["p"] == "<0.001" if row["p_value"] < 0.001 else abs(float(line["p"]) - row["p_value"]) < 6e-4
        for name in (name for name in row if name.endswith("_accuracy") and row[name] == row[name]):
            assert float(line[name.replace("_", " ")].rstrip("%")) == pytest.approx(100 * row[name], abs=0.051)


def test_the_parts_of_a_gain_are_shown_with_their_intervals():
    rows = pd.read_parquet(REFERENCE / "evaluate" / "parts.parquet").query("before == 'base'")
    shown = evaluation.parts_summary(rows)
    place = rows["reasoning_low"].first_valid_index()
    value, low = 100 * rows.loc[place, ["reasoning", "reasoning_low"]]
    assert shown.loc[place, "right value"].startswith(f"{value:+.1f} [{low:+.1f}, ")
    assert (shown["right value"] == "+0.0").any(), "a part without any spread has no interval"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model")
    words = models.load_tokenizer(folder)
    return TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, 512), batch_size=64)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    # One store for the module: what one test sampled is there for the next.
    made = GenerationStore(tmp_path_factory.mktemp("store") / "s.sqlite")
    yield made
    made.close()


class Watched(Generator):
    """A real generator that remembers what it was asked for."""

    def complete(self, pairs, accepted=None):
        self.pairs = [*getattr(self, "pairs", []), *pairs]
        return super().complete(pairs, accepted)


@pytest.fixture
def generator(engine, store):
    return Watched(store, models.Model("base", "tiny", lambda: None), 1, lambda: engine)


@pytest.fixture(scope="module")
def benchmark(engine, store):
    """Items whose golds the tiny model hits about half the time: its own greedy answers, and others."""
    asked = [f"What is {i} + {i % 3}?" for i in range(10)]
    made = Generator(store, models.Model("base", "tiny", lambda: None), 1, lambda: engine)
    greedy = Sampling(0.0, 1.0, 40)
    texts = [
        row[0].text
        for row in made.generate([made.request(domains.solve_messages(DOMAIN, text), greedy) for text in asked])
    ]
    own = [reading.extract_answer(text) for text in texts]
    assert sum(answer is not None for answer in own[::2]) >= 2, "the tiny model writes some numbers"
    golds = [answer if answer is not None and i % 2 == 0 else str(1000 + i) for i, answer in enumerate(own)]
    return Benchmark("tiny", tuple(Item(text, gold) for text, gold in zip(asked, golds, strict=True)), EXAMPLES, "here")


@pytest.fixture
def harness(monkeypatch):
    """Results that lm-evaluation-harness itself worked out."""
    import lm_eval

    results, real = [], lm_eval.simple_evaluate

    def watched(**arguments):
        results.append(real(**arguments))
        return results[-1]

    monkeypatch.setattr(lm_eval, "simple_evaluate", watched)
    return results


def settings_of(**values):
    own = {
        "engine": "transformers",
        "eval_samples": 3,
        "eval_max_tokens": 40,
        "eval_temperature": 1.0,
        "eval_prompts": ["solve"],
        "best_prompt": False,
        "matched_temperature": False,
        "other_runs": [],
    }
    return params.build_settings("evaluate", {**own, **values})


def means(result, name):
    return {how: result["results"][name][f"{how},all"] for how in scoring.SCORINGS}


def test_the_harness_and_our_rows_say_the_same(generator, benchmark, harness):
    rows = evaluation.answer_benchmark(generator, benchmark, settings_of(), DOMAIN)
    greedy, sampled = rows[rows["decoding"] == "greedy"], rows[rows["decoding"] == "sampled"]
    for result, part in zip(harness, (greedy, sampled), strict=True):
        assert means(result, "tiny") == pytest.approx({how: part[how].mean() for how in scoring.SCORINGS})
    assert 0 < greedy["symbolic"].mean() < 1, "else this shows nothing"
    for row in rows.itertuples():
        assert scoring.score_answer(row.completion, row.gold) == {name: getattr(row, name) for name in scoring.SCORINGS}
        read = reading.extract_answer(row.completion)
        assert pd.isna(row.answer) if read is None else row.answer == read


def test_no_item_and_no_sample_is_lost(generator, benchmark):
    rows = evaluation.answer_benchmark(generator, benchmark, settings_of(seed=1), DOMAIN)
    greedy, sampled = rows[rows["decoding"] == "greedy"], rows[rows["decoding"] == "sampled"]
    assert greedy["item"].tolist() == list(range(10)) and set(greedy["sample"]) == {0}
    assert list(zip(sampled["item"], sampled["sample"], strict=True)) == [(i, s) for i in range(10) for s in range(3)]
    for part in (greedy, sampled.query("sample == 2")):
        assert part["question"].tolist() == [item.question for item in benchmark.items]
        assert part["gold"].tolist() == [item.gold for item in benchmark.items]
    assert (rows["benchmark"] == "tiny").all() and (rows["model"] == "base").all() and (rows["seed"] == 1).all()
    assert set(rows["truncated"]) <= {True, False} and rows["truncated"].any()


def test_repeats_are_different_samples_and_the_greedy_answer_is_one(generator, benchmark):
    rows = evaluation.answer_benchmark(generator, benchmark, settings_of(), DOMAIN)
    sampled = rows[rows["decoding"] == "sampled"]
    assert (sampled.groupby("item")["completion"].nunique() == 3).all()
    pairs = [(request.key(), sample) for request, sample in generator.pairs]
    assert len(pairs) == len(set(pairs)) == 10 + 30
    temperatures = [request.sampling.temperature for request, _ in generator.pairs]
    assert sorted(temperatures) == [0.0] * 10 + [1.0] * 30
    alone = evaluation.answer_benchmark(generator, benchmark, settings_of(eval_samples=0), DOMAIN)
    assert (
        alone["completion"].tolist() == rows[rows["decoding"] == "greedy"]["completion"].tolist() and len(alone) == 10
    )


def test_an_item_is_asked_as_the_vote_asks_it(generator, benchmark):
    # Same words, same system prompt, same tokens: what training taught is what is asked for.
    domain = domains.get_domain("arithmetic", solve="  {question}\n\nThink step by step:\n")
    for system in ("", "Be brief."):
        generator.pairs = []
        evaluation.answer_benchmark(
            generator, benchmark, settings_of(eval_samples=0, system_prompt=system, eval_max_tokens=3), domain
        )
        expected = {
            generator.request(domains.solve_messages(domain, item.question, system), Sampling(0.0, 1.0, 3)).key()
            for item in benchmark.items
        }
        assert {request.key() for request, _ in generator.pairs} == expected


def test_worked_examples_stand_in_the_chat_as_turns(generator, benchmark):
    evaluation.answer_benchmark(generator, benchmark, settings_of(shots=[2], eval_samples=0, eval_max_tokens=3), DOMAIN)
    assert len(generator.pairs) == 10
    for (request, _), item in zip(generator.pairs, benchmark.items, strict=True):
        expected = [
            ("system", DOMAIN.solve_system),
            ("user", DOMAIN.solve_prompt.format(question="What is 1 + 1?")), ("assistant", "1 + 1 = 2"),
            ("user", DOMAIN.solve_prompt.format(question="What is 2 + 2?")), ("assistant", "2 + 2 = 4"),
            ("user", DOMAIN.solve_prompt.format(question=item.question)),
        ]  # fmt: skip
        assert list(request.messages) == expected


def test_the_chat_that_is_shown_is_the_chat_that_is_asked(generator, benchmark):
    for shots in ([0], [0, 2]):
        generator.pairs = []
        settings = settings_of(shots=shots, eval_samples=0, eval_max_tokens=3)
        rows = evaluation.answer_benchmark(generator, benchmark, settings, DOMAIN)
        assert rows.groupby("shots").size().to_dict() == dict.fromkeys(shots, 10)
        shown = prompts.first_prompts(benchmark, settings, DOMAIN)["solve"]
        last = generator.pairs[-10][0].messages  # the first item, with the most examples
        assert [(turn["role"], turn["content"]) for turn in shown] == list(last)
    worded = Benchmark("worded", benchmark.items, benchmark.train, "here", solve="Now: {question}")
    generator.pairs = []
    evaluation.answer_benchmark(generator, worded, settings, DOMAIN)
    assert generator.pairs[0][0].messages == (("user", f"Now: {benchmark.items[0].question}"),)
    assert prompts.first_prompts(worded, settings, DOMAIN)["solve"][0]["role"] == "user"


EXEMPLARS = [turn for example in DOMAIN.exemplars for turn in (
    ("user", DOMAIN.solve_prompt.format(question=example.question)), ("assistant", example.path))]  # fmt: skip
SYSTEM = ("system", DOMAIN.solve_system)
CHATS = {  # in which "What is 1 + 1?" is asked
    "solve": [SYSTEM, ("user", DOMAIN.solve_prompt.format(question="What is 1 + 1?"))],
    "bare": [("user", "What is 1 + 1?")],
    "stock": [("user", "Question: What is 1 + 1?\nAnswer:")],
    "exemplars": [SYSTEM, *EXEMPLARS, ("user", DOMAIN.solve_prompt.format(question="What is 1 + 1?"))],
    "own": [SYSTEM, ("user", DOMAIN.solve_prompt.format(question="What is 2 * 3?")), ("assistant", "2 * 3 = 6"),
            ("user", DOMAIN.solve_prompt.format(question="What is 1 + 1?"))],
}  # fmt: skip


def own_exemplars(folder, run="r"):
    """Write the exemplars that a vote would have made itself."""
    (folder / run / "vote").mkdir(parents=True)
    rows = [{"question": "What is 2 * 3?", "path": "2 * 3 = 6", "answer": "6"}]
    pd.DataFrame(rows).to_parquet(folder / run / "vote" / "exemplars.parquet")


def test_each_prompt_is_asked_in_its_own_words_and_shown_as_it_is_asked(generator, tmp_path):
    own_exemplars(tmp_path)
    one = Benchmark("one", (Item("What is 1 + 1?", "2"),), EXAMPLES, "here")
    for first in CHATS:
        generator.pairs = []
        names = [first, *(name for name in CHATS if name != first)]
        settings = settings_of(eval_prompts=names, eval_samples=2, eval_max_tokens=3, outputs=str(tmp_path), run="r")
        rows = evaluation.answer_benchmark(generator, one, settings, DOMAIN)
        asked = {name: request.messages for name, (request, _) in zip(
            [first] * 3 + names[1:], generator.pairs, strict=True)}  # fmt: skip
        assert {name: list(chat) for name, chat in asked.items()} == CHATS
        shown = prompts.first_prompts(one, settings, DOMAIN)
        assert {name: [(turn["role"], turn["content"]) for turn in chat] for name, chat in shown.items()} == CHATS
        counts = rows.groupby(["prompt", "decoding"]).size().to_dict()
        others = {(name, "greedy"): 1 for name in names[1:]}
        assert counts == {(first, "greedy"): 1, (first, "sampled"): 2, **others}
        headline = prompts.headline_scores(rows, first)
        assert len(headline) == 3 and set(headline["prompt"]) == {first}


def test_the_bare_question_is_what_training_on_it_teaches_and_examples_stand_as_the_vote_has_them(generator):
    question, words = "What is 1 + 1?", DOMAIN.solve_prompt
    bare = domains.bare_messages(question)
    assert [tuple(turn.values()) for turn in bare] == CHATS["bare"]
    voted = domains.solve_messages(DOMAIN, question, exemplars=DOMAIN.exemplars)
    assert [tuple(turn.values()) for turn in voted] == CHATS["exemplars"] and "{question}" in words


def test_the_stock_prompt_ends_where_a_next_question_begins(generator, benchmark):
    settings = settings_of(eval_prompts=["solve", "stock"], eval_samples=0, eval_max_tokens=3)
    evaluation.answer_benchmark(generator, benchmark, settings, DOMAIN)
    stops = {request.messages[-1][1].startswith("Question:"): request.sampling.stop for request, _ in generator.pairs}
    assert stops == {False: (), True: ("Question:",)}


@pytest.mark.parametrize("system", ["", "  Be brief.\n"])
def test_a_replay_reads_what_the_harness_asked_for_without_starting_it(
    generator, store, benchmark, monkeypatch, tmp_path, system
):
    import lm_eval

    own_exemplars(tmp_path)
    text = "  Each of 2 {boxes} holds “3” pens?\n\nHow many pens are there?  "
    items = (*benchmark.items[:4], Item(text, "6", kind="words"), benchmark.items[1])  # one stands there twice
    mixed = Benchmark("mixed", items, EXAMPLES, "here", solve="Now: {question}\n")
    prompt = {"eval_prompts": list(CHATS), "shots": [0, 2], "eval_max_tokens": 7, "system_prompt": system}
    values = prompt | {"outputs": str(tmp_path), "run": "r"}
    asked_by_harness = evaluation.answer_benchmark(generator, mixed, settings_of(**values), DOMAIN)
    assert len(asked_by_harness) == 6 * (2 * (1 + 3) + 4) and asked_by_harness["completion"].nunique() > 20

    monkeypatch.setattr(lm_eval, "simple_evaluate", None)
    replayed = Watched(store, models.Model("base", "tiny", lambda: None), 1, None)
    rows = evaluation.answer_benchmark(replayed, mixed, settings_of(engine="replay", **values), DOMAIN)
    pd.testing.assert_frame_equal(rows, asked_by_harness)
    assert replayed.pairs == generator.pairs and replayed.cost.completions == generator.cost.completions


def test_a_student_is_asked_the_headline_alone(engine, store, benchmark):
    student = Watched(store, models.Model("student", "tiny", lambda: None), 1, lambda: engine)
    settings = settings_of(eval_prompts=["bare", "solve", "stock"], eval_max_tokens=3)
    rows = evaluation.answer_benchmark(student, benchmark, settings, DOMAIN)
    assert set(rows["prompt"]) == {"bare"} and len(rows) == len(benchmark.items)


def test_prompts_that_cannot_be_asked_are_refused(generator, benchmark, tmp_path):
    settings = settings_of(eval_prompts=["solve", "own"], eval_samples=0, eval_max_tokens=3, outputs=str(tmp_path))
    with pytest.raises(folders.RunError, match=r"vote/exemplars\.parquet.*vote_shots: own"):
        evaluation.answer_benchmark(generator, benchmark, settings, DOMAIN)
    settings = settings_of(eval_prompts=["exemplars"], eval_samples=0, eval_max_tokens=3)
    with pytest.raises(files.BenchmarkError, match="eval_prompts: 'exemplars'.*arithmetic.*write `exemplars`"):
        evaluation.answer_benchmark(generator, benchmark, settings, DOMAIN.model_copy(update={"exemplars": ()}))
    for wrong in ({"eval_prompts": ["own"], "shots": [0, 5]}, {"eval_prompts": ["solve", "solve"]},
                  {"eval_prompts": []}, {"eval_prompts": ["solved"]}):  # fmt: skip
        with pytest.raises(params.ParameterError, match="eval_prompts"):
            settings_of(**wrong)


def test_an_example_without_a_solution_shows_its_gold(generator, benchmark):
    evaluation.answer_benchmark(generator, benchmark, settings_of(shots=[3], eval_samples=0, eval_max_tokens=3), DOMAIN)
    assert generator.pairs[0][0].messages[6] == ("assistant", "18")


@pytest.mark.parametrize("train", [(), EXAMPLES[:1]])
def test_worked_examples_are_never_taken_from_the_tested_items(generator, benchmark, train):
    # The harness would fall back to the test split: the model would see answers of the very items, or their siblings.
    bare = Benchmark("bare", benchmark.items, train, "here")
    with pytest.raises(files.BenchmarkError, match="shots: 2"):
        evaluation.answer_benchmark(generator, bare, settings_of(shots=[2], eval_samples=0, eval_max_tokens=3), DOMAIN)
    assert not getattr(generator, "pairs", [])


def test_a_question_that_stands_twice_is_scored_as_the_harness_scores_it(generator, benchmark, harness):
    # ASDiv has such a pair.
    double = Benchmark("double", (*benchmark.items, benchmark.items[0], benchmark.items[2]), (), "here")
    rows = evaluation.answer_benchmark(generator, double, settings_of(), DOMAIN)
    assert len(rows) == 12 + 36 and rows["item"].nunique() == 12
    sampled = rows[rows["decoding"] == "sampled"]
    assert means(harness[1], "double") == pytest.approx({how: sampled[how].mean() for how in scoring.SCORINGS})
    for name, sample in {
        (request.key(), sample) for request, sample in generator.pairs if request.sampling.temperature == 0
    }:
        assert sample == 0, f"a greedy answer is sampled once ({name.hex()[:8]})"
    logged = [text for doc in harness[1]["samples"]["double"] for text in doc["resps"][0]]
    assert sorted(sampled["completion"]) == sorted(logged), "the rows hold what the harness scored"


@pytest.mark.parametrize(
    "completion, gold, strict, flexible, symbolic",
    [
        ("3 + 4 = 7\n#### 7", "7", True, True, True), ("The answer is 7.", "7", False, True, True),
        ("The answer is 7. That took 2 steps.", "7", False, False, True), ("#### 8", "7", False, False, False),
        ("No idea.", "7", False, False, False), ("", "", False, False, False), ("#### 1,234", "1234", True, True, True),
        ("It is 3/4.", "0.75", False, False, True), ("", "none", False, False, False),
    ],
)  # fmt: skip
def test_three_scorings_side_by_side(completion, gold, strict, flexible, symbolic):
    assert scoring.score_answer(completion, gold) == {"strict": strict, "flexible": flexible, "symbolic": symbolic}


def test_who_is_compared(tmp_path, monkeypatch):
    replayed = evaluation.models_to_evaluate(settings_of(engine="replay"))
    answered = folders.read_table(REFERENCE, "evaluate", "scores").query("seed == 1")["model"].unique()
    assert list(replayed) == list(answered) and set(replayed.values()) == {None}
    assert list(replayed) == ["base", "tuned", "tuned_random_labels", "student", "student_tuned"]
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path / "cache"))
    for stage in ("finetune", "distil"):
        folders.write_json(tmp_path / "r" / stage / "trained.json", {"fingerprint": f"of-{stage}"})
    for student, missing in (("half", "every-second-layer"), ("without_4_layers", "without-4-layers")):
        live = evaluation.models_to_evaluate(settings_of(outputs=str(tmp_path), run="r", student=student))
        assert {label: model.fingerprint for label, model in live.items()} == {
            "base": models.BUNDLED_FINGERPRINT, "tuned": "of-finetune",
            "student": f"{models.BUNDLED_FINGERPRINT}-{missing}",
            "student_tuned": "of-distil",
        }  # fmt: skip
        assert all(model.label == label for label, model in live.items())
    folders.write_json(tmp_path / "r" / "finetune" / "control" / "trained.json", {"fingerprint": "of-control"})
    own = settings_of(outputs=str(tmp_path), run="r")
    assert evaluation.models_to_evaluate(own).keys() == live.keys(), "one that an earlier 04 of the run has left"
    replay = settings_of(outputs=str(tmp_path), run="r", engine="replay")
    made = {"models": {"tuned": "of-finetune"}}
    folders.write_json(tmp_path / "r" / "finetune" / "manifest.json", made)
    for settings in (own, replay):
        assert list(evaluation.models_to_evaluate(settings)) == ["base", "tuned", "student", "student_tuned"]
    made = {"models": {"tuned": "of-finetune", "tuned_random_labels": "of-control"}}
    folders.write_json(tmp_path / "r" / "finetune" / "manifest.json", made)
    with_control = evaluation.models_to_evaluate(own)
    assert list(with_control) == ["base", "tuned", "tuned_random_labels", "student", "student_tuned"]
    control = with_control["tuned_random_labels"]
    assert (control.label, control.fingerprint) == ("tuned_random_labels", "of-control")
    assert list(evaluation.models_to_evaluate(replay)) == list(with_control)


def test_the_control_answers_the_headline_prompt_greedily(engine, store, benchmark):
    control = Watched(store, models.Model("tuned_random_labels", "tiny", lambda: None), 1, lambda: engine)
    settings = settings_of(eval_prompts=["bare", "solve"], shots=[0, 2], general_tasks=["copying"])
    rows = evaluation.answer_benchmark(control, benchmark, settings, DOMAIN)
    assert rows.groupby(["prompt", "shots", "decoding"]).size().to_dict() == {
        ("bare", 0, "greedy"): 10, ("bare", 2, "greedy"): 10}  # fmt: skip
