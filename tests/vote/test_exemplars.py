"""Exemplars: which questions serve, that no cut path and no gold decides, that each zero-shot path is accounted for.

On the reference run's real completions, among them hundreds that were cut at the token limit.
"""

from __future__ import annotations

import json
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared import REFERENCE

from crescent_utils.answers import answers_equal, extract_answer
from crescent_utils.benchmarks import items
from crescent_utils.cli import verify
from crescent_utils.generation import generator
from crescent_utils.generation.store import LENGTH, TOO_LONG, Completion, GenerationStore, Sampling
from crescent_utils.runs import domains, folders, layout, params
from crescent_utils.vote import exemplars, tables

ARITHMETIC = domains.get_domain("arithmetic")
POOL = pd.read_parquet(REFERENCE / "dedup" / "questions.parquet")


def of_vote(**values):
    return params.build_settings("vote", {"vote_shots": "own", **values})


RECORDED = of_vote()  # the reference run's settings
SAMPLING = Sampling(RECORDED.vote_temperature, RECORDED.vote_top_p, RECORDED.vote_max_tokens)
ASKED = exemplars.drawn_questions(POOL, RECORDED.own_questions, RECORDED.seed)  # those with recorded zero-shot paths


def from_reference(questions=POOL, domain=ARITHMETIC, **values):
    own = of_vote(**values)
    with generator.open_generator(own) as recorded:
        return exemplars.worked_examples(recorded, questions, own, domain)


# --- which questions serve ------------------------------------------------------------------------------------------


def test_a_form_is_a_question_without_its_numbers():
    for same in ("What is 3 + 4?", "what is 12+5?", "What  is 1,234 + 0.5 ?"):
        assert exemplars.question_form(same) == "what is N + N ?"
    assert exemplars.question_form("What is 3 - 4?") != exemplars.question_form("What is 3 + 4?")


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.sampled_from([0.25, 0.5, 1.0])), max_size=12),
    st.integers(1, 5),
)
def test_the_most_common_forms_serve_each_with_its_surest_question(asked, shots):
    forms, agreements = [form for form, _ in asked], [share for _, share in asked]
    chosen = exemplars.chosen_examples(forms, agreements, shots)
    expected = []
    for _ in range(shots):  # the best of what is left, looked for one by one
        best = None
        for i, (form, share) in enumerate(asked):
            if share is None or form in [forms[j] for j in expected]:
                continue
            if best is None or (forms.count(form), share) > (forms.count(forms[best]), agreements[best]):
                best = i
        expected += [] if best is None else [best]
    assert chosen == expected


def test_where_every_form_is_unique_the_surest_questions_serve():
    assert exemplars.chosen_examples(list("abcde"), [0.5, 1.0, None, 0.75, 1.0], 3) == [1, 4, 3]


def test_the_questions_are_drawn_by_seed_and_stay_in_order():
    drawn = [exemplars.drawn_questions(POOL, 40, seed)["id"].tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    order = POOL["id"].tolist()
    assert [order.index(number) for number in drawn[0]] == sorted(order.index(number) for number in drawn[0])
    assert exemplars.drawn_questions(POOL, 9999, 1)["id"].tolist() == order


# --- on the reference's completions ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples():
    return from_reference()


def recorded_paths(question):
    """The reference's zero-shot completions of a question, read from the store by themselves."""
    with generator.open_generator(params.build_settings("vote", {})) as recorded:
        messages = domains.solve_messages(ARITHMETIC, question)
        return recorded.generate([recorded.request(messages, SAMPLING)], RECORDED.votes)[0]


def test_the_reference_run_recorded_these_exemplars(examples):
    assert len(ASKED) == RECORDED.own_questions
    for name, made in (("exemplars", examples.table), ("zero_shot", examples.zero_shot)):
        pd.testing.assert_frame_equal(made, layout.read_table(REFERENCE, "vote", name))
    assert domains.own_exemplars(REFERENCE) == examples.exemplars
    rejected = layout.read_table(REFERENCE, "vote", "rejected")
    serving = rejected[rejected["reason"] == exemplars.SERVES]
    assert set(serving["id"]) == set(examples.left_out["id"])
    assert examples.counts.items() <= layout.read_manifest(REFERENCE, "vote")["counts"].items()


def test_an_exemplar_is_the_shortest_complete_path_of_its_majority(examples):
    assert len(examples.exemplars) == len(examples.table) == 4
    forms = [exemplars.question_form(text) for text in examples.table["question"]]
    common = Counter(exemplars.question_form(text) for text in ASKED["question"]).most_common(4)
    assert forms == [form for form, _ in common]
    for exemplar, row in zip(examples.exemplars, examples.table.itertuples(), strict=True):
        assert (exemplar.question, exemplar.path, exemplar.answer) == (row.question, row.path, row.answer)
        complete = [path.text for path in recorded_paths(row.question) if path.finish != LENGTH]
        winning = [
            text for text in complete if extract_answer(text) and answers_equal(extract_answer(text), row.answer)
        ]
        assert row.path == min(winning, key=len) and len(winning) == row.votes
        assert row.agreement == round(row.votes / RECORDED.votes, 4) and row.total == RECORDED.votes
        assert row.correct == answers_equal(row.answer, row.gold)


def test_no_question_of_the_form_was_surer(examples):
    for row in examples.table.itertuples():
        form = exemplars.question_form(row.question)
        for text in ASKED["question"][ASKED["question"].map(exemplars.question_form) == form]:
            read = [extract_answer(path.text) for path in recorded_paths(text) if path.finish != LENGTH]
            counts = Counter(answer for answer in read if answer is not None).most_common(2)
            is_tied = len(counts) == 2 and counts[0][1] == counts[1][1]
            assert not counts or is_tied or counts[0][1] <= row.votes


def test_every_zero_shot_path_is_kept_or_rejected_with_a_reason(examples):
    paths = examples.zero_shot
    assert len(paths) == RECORDED.own_questions * RECORDED.votes == examples.counts["zero_shot_sampled"]
    assert examples.counts["zero_shot_kept"] + examples.counts["zero_shot_rejected"] == len(paths)
    assert (paths["kept"] == (paths["reason"] == "")).all()
    kept = paths[paths["kept"]].set_index("question_id")["path"]
    assert kept.to_dict() == examples.table.set_index("id")["path"].to_dict()
    cut = sum(path.finish == LENGTH for text in ASKED["question"] for path in recorded_paths(text))
    is_cut = paths["reason"] == "cut at the token limit"
    assert is_cut.sum() == cut > 100 and paths[is_cut]["answer"].isna().all()


def test_what_serves_is_not_voted_on(examples):
    keys = set(map(items.overlap_key, examples.table["question"]))
    assert set(examples.left_out["id"]) >= set(examples.table["id"])
    assert set(map(items.overlap_key, examples.left_out["question"])) == keys, "also not in other words"
    assert not keys & set(map(items.overlap_key, examples.questions["question"]))
    assert sorted([*examples.questions["id"], *examples.left_out["id"]]) == sorted(POOL["id"])
    assert set(examples.left_out["reason"]) == {"serves as an exemplar"}


def test_golds_choose_nothing():
    plain = from_reference(ASKED)
    misled = from_reference(ASKED.assign(gold="0"))
    unknown = from_reference(ASKED.assign(gold=None))
    assert plain.exemplars == misled.exemplars == unknown.exemplars
    assert not misled.table["correct"].any() and unknown.table["correct"].isna().all()


# --- the three ways -------------------------------------------------------------------------------------------------


def test_without_shots_nothing_is_sampled_and_nothing_left_out():
    found = exemplars.worked_examples(None, POOL, of_vote(vote_shots="none"), ARITHMETIC)
    assert found.exemplars == [] and found.table.empty and found.left_out.empty
    assert found.questions.equals(POOL) and found.zero_shot.empty and found.counts == {}


def test_exemplars_by_hand_are_the_domains_and_their_questions_are_not_voted_on():
    repeated = pd.concat([POOL.head(5), POOL.head(1).assign(id=-1, question="what is 14+8 ?")], ignore_index=True)
    found = exemplars.worked_examples(None, repeated, of_vote(vote_shots="exemplars"), ARITHMETIC)
    assert found.exemplars == list(ARITHMETIC.exemplars) and found.counts == {} and found.zero_shot.empty
    assert found.table["question"].tolist() == [exemplar.question for exemplar in ARITHMETIC.exemplars]
    assert found.left_out["id"].tolist() == [-1] and found.questions.equals(POOL.head(5))


def test_a_domain_without_exemplars_is_named():
    without = ARITHMETIC.model_copy(update={"name": "mine", "exemplars": ()})
    with pytest.raises(params.ParameterError, match="vote_shots: 'exemplars', but domain 'mine' has none"):
        exemplars.worked_examples(None, POOL, of_vote(vote_shots="exemplars"), without)


@pytest.mark.filterwarnings("ignore:max_model_len")
def test_a_model_that_agrees_on_nothing_makes_no_exemplars(tmp_path):
    own = of_vote(engine="auto", outputs=str(tmp_path), votes=2)
    questions = POOL.head(3)
    finishes = {"no answer": ("I do not know.", "stop"), "cut": ("It is 7.", LENGTH), "long": ("", TOO_LONG)}
    for name, (text, finish) in finishes.items():
        store = GenerationStore(tmp_path / name / "store.sqlite")
        made = generator.Generator(store, generator.models.Model("base", "f", lambda: tmp_path), 1, None)
        for question in questions["question"]:
            request = made.request(domains.solve_messages(ARITHMETIC, question), SAMPLING)
            store.put([(request, sample, Completion(text, finish, 5, 5)) for sample in range(2)], {"engine": "test"})
        with pytest.raises(folders.RunError, match="vote_shots: 'own', but for none of 3 questions"):
            exemplars.worked_examples(made, questions, own, ARITHMETIC)
        made.close()


@pytest.mark.parametrize("shots", ["none", "exemplars", "own"])
def test_what_a_run_was_asked_with_is_read_from_it(tmp_path, shots):
    written = pd.DataFrame([("What is 9 - 2?", "It is 7.", "7")], columns=["question", "path", "answer"])
    own = of_vote(vote_shots=shots)
    if shots == "own":
        with pytest.raises(layout.RunError, match="made no exemplars of its own"):
            exemplars.recorded_exemplars(own, ARITHMETIC, tmp_path)
    (tmp_path / "vote").mkdir()
    written.to_parquet(tmp_path / "vote" / "exemplars.parquet")
    found = exemplars.recorded_exemplars(own, ARITHMETIC, tmp_path)
    expected = {"none": [], "exemplars": list(ARITHMETIC.exemplars)}
    assert found == expected.get(shots, [domains.Exemplar(question="What is 9 - 2?", path="It is 7.", answer="7")])


# --- the notebook ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook_run(tmp_path_factory):
    """Run notebook 03 with own exemplars, on a store in which few-shot requests got the recorded zero-shot paths."""
    outputs = tmp_path_factory.mktemp("outputs")
    questions = ASKED
    for run in ("source", "own"):
        (outputs / run / "dedup").mkdir(parents=True)
        questions.to_parquet(outputs / run / "dedup" / "questions.parquet", index=False)
        manifest = json.loads((REFERENCE / "dedup" / "manifest.json").read_text())
        folders.write_json(outputs / run / "dedup" / "manifest.json", manifest)
    with GenerationStore(REFERENCE / "store.sqlite", read_only=True) as recorded:
        fingerprint = recorded.models()["base"]
    examples = from_reference(questions, own_questions=30)
    model = generator.models.Model("base", fingerprint, lambda: outputs)
    with generator.Generator(GenerationStore(outputs / "source" / "store.sqlite"), model, 1, None) as source:
        for text in questions["question"]:
            paths = recorded_paths(text)
            for shots in ([], examples.exemplars):
                messages = domains.solve_messages(ARITHMETIC, text, exemplars=shots)
                request = source.request(messages, SAMPLING)
                source.store.put([(request, i, path) for i, path in enumerate(paths)], {"engine": "test"})
    values = {"run": "own", "replay_from": "source", "outputs": str(outputs), "vote_shots": "own", "own_questions": 30}
    assert verify.replay_stage("vote", values) == ""
    return outputs / "own", examples


def test_the_notebook_leaves_the_exemplars_and_accounts_for_everything(notebook_run):
    folder, examples = notebook_run
    assert domains.own_exemplars(folder) == examples.exemplars
    counts = layout.read_manifest(folder, "vote")["counts"]
    assert counts["sampled"] == len(ASKED) == counts["kept"] + counts["rejected"]
    zero_shot = 30 * RECORDED.votes
    assert counts["zero_shot_sampled"] == zero_shot == counts["zero_shot_kept"] + counts["zero_shot_rejected"]
    rejected = layout.read_table(folder, "vote", "rejected")
    serving = rejected[rejected["reason"] == "serves as an exemplar"]
    assert set(serving["question"]) >= {exemplar.question for exemplar in examples.exemplars}
    voted_on = len(ASKED) - len(serving)
    assert counts["paths"] == voted_on * RECORDED.votes == len(layout.read_table(folder, "vote", "paths"))
    assert list(rejected.columns) == tables.REJECTED_COLUMNS
    pd.testing.assert_frame_equal(layout.read_table(folder, "vote", "zero_shot"), examples.zero_shot)


def test_a_vote_that_makes_none_leaves_no_exemplars_of_an_earlier_one(notebook_run):
    folder, _ = notebook_run
    values = {"run": "own", "replay_from": "source", "outputs": str(folder.parent), "vote_shots": "none"}
    assert verify.replay_stage("vote", values) == ""
    with pytest.raises(layout.RunError, match="vote_shots: own"):
        domains.own_exemplars(folder)
