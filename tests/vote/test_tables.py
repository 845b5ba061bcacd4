"""Tables: what came in goes out, kept or rejected with a reason; the protocols on cases that were worked by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crescent_utils.answers import equality
from crescent_utils.runs import domains, params
from crescent_utils.vote import tables

ARITHMETIC = domains.validity_gates(domains.get_domain("arithmetic"))
WORDS = domains.validity_gates(domains.get_domain("math_word_problems"))
PIECES = [
    "The answer is 7.", "The answer is 7", "#### 7", "seven", "7.0", "It is 1,234.", "3/4", "0.75", "I do not know.",
    "", "-0.0", "50%",
    "9" * 400, "1e5", "What is 3 + 4?", "Sure! ", "\n", "?", "½", "\\boxed{8}", "$5.50", "x", "٣",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=3).map("".join)
PROTOCOLS = ("paper", "released", "strict")


def of_vote(**values):
    return params.build_settings("vote", {"min_agreement": 0.0, **values})


def vote_on(ids, texts, paths, own, domain, **more):
    questions = pd.DataFrame({"id": ids, "question": texts})
    return tables.vote_tables(questions, paths, own, domains.get_domain(domain), **more)


# --- voted ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(texts, min_size=1, max_size=6), max_size=4), st.sampled_from(PROTOCOLS), st.sampled_from([0.0,
    0.5, 1.0]),
    st.sampled_from(["shortest", "random", "first", "all"]), st.sampled_from(["arithmetic", "math_word_problems"]),
)  # fmt: skip
@example([["9" * 400, "1"]], "released", 0.0, "shortest", "arithmetic")
@example([["-0.0", "0"]], "released", 0.0, "all", "arithmetic")
def test_every_question_and_every_path_is_accounted_for(paths, protocol, least, choice, domain):
    ids = [10 + i for i in range(len(paths))]
    own = of_vote(protocol=protocol, min_agreement=least, path_choice=choice)
    qa, sampled, rejected = vote_on(ids, ["What is 3 + 4?"] * len(paths), paths, own, domain)
    assert sorted([*qa["id"].unique(), *rejected["id"]]) == ids
    places = [(i, sample) for i, row in zip(ids, paths, strict=True) for sample in range(len(row))]
    assert list(zip(sampled["question_id"], sampled["sample"], strict=True)) == places
    assert sampled["path"].tolist() == [path for row in paths for path in row]
    assert (rejected["reason"] != "").all()
    won = sampled[sampled["won"].astype(bool)]
    assert won["path"].tolist() == qa["path"].tolist(), "each winning path is a pair, and nothing else is"
    for row in qa.itertuples():
        own_paths = sampled[sampled["question_id"] == row.id]
        reach = sum(
            not pd.isna(answer) and equality.answers_equal(answer, row.answer) for answer in own_paths["answer"]
        )
        assert reach == row.votes and row.total == len(own_paths)
        assert row.agreement == round(row.votes / row.total, 4) and (
            protocol == "released" or row.votes / row.total >= least
        )
        if domain == "arithmetic":
            assert row.gold == "7" and row.correct == equality.answers_equal(row.answer, "7")
        else:
            assert pd.isna(row.gold) and pd.isna(row.correct)
        assert len(own_paths[own_paths["won"].astype(bool)]) == (row.votes if choice == "all" else 1)


def voted(paths, question="What is 3 + 4?", **values):
    qa, sampled, rejected = vote_on([1], [question], [paths], of_vote(**values), "arithmetic")
    return (qa["answer"].tolist(), qa["path"].tolist(), rejected["reason"].tolist(), sampled["answer"].tolist())


@pytest.mark.parametrize(
    "path, paper, released",
    [("It costs 1,234 dollars.", "1234", "234"), ("So it is 3/4.", "3/4", "4"), ("No idea.", None, None),
     ("The answer is 5. That took 2 steps.", "5", "2"), ("It is 7.0.", "7", "7")],
)  # fmt: skip
def test_how_each_protocol_reads_a_path(path, paper, released):
    for protocol, expected in (("paper", paper), ("strict", paper), ("released", released)):
        (got,) = voted([path], protocol=protocol)[3]
        assert pd.isna(got) if expected is None else equality.answers_equal(got, expected)


def test_a_tie_goes_to_the_first_to_a_seeded_draw_or_to_nobody():
    paths = ["The answer is 3.", "The answer is 4."]
    assert voted(paths, protocol="released")[:3] == (["3"], [paths[0]], [])
    assert voted(paths[::-1], protocol="released")[0] == ["4"]
    assert voted(paths, protocol="strict")[:3] == ([], [], ["tie"])
    drawn = {seed: voted(paths, protocol="paper", seed=seed)[0][0] for seed in range(30)}
    assert set(drawn.values()) == {"3", "4"}
    assert drawn == {seed: voted(paths[::-1], protocol="paper", seed=seed)[0][0] for seed in range(30)}, (
        "whatever the order"
    )


def test_no_number_can_win_in_the_released_protocol_alone():
    paths = ["No idea.", "The answer is 7.", "Nothing."]
    assert voted(paths, protocol="released")[:3] == ([], [], ["no_answer"])
    assert voted(paths, protocol="paper")[0] == voted(paths, protocol="strict")[0] == ["7"]
    assert voted(["No idea."], protocol="paper")[2] == ["no_answer"]


def test_agreement_counts_the_unreadable_in_the_total():
    paths = ["The answer is 7.", "The answer is 7.", "No idea.", "Nothing."]
    assert voted(paths, min_agreement=0.5)[0] == ["7"]
    assert voted(paths, min_agreement=0.51)[2] == ["min_agreement"]
    assert voted(paths, min_agreement=0.51, protocol="released")[0] == ["7"], "the released code knows no threshold"


def test_a_domain_of_choices_votes_on_letters():
    paths = [["The answer is (B), which has 3 sides.", "B", "I say C, of 2."]]
    qa, _, _ = vote_on([1], ["Which?"], paths, of_vote(), "commonsense")
    assert qa["answer"].tolist() == ["B"] and qa["votes"].tolist() == [2]


def test_which_path_is_learned():
    paths = ["Let me see. The answer is 7.", "The answer is 8.", "It is 7.", "Seven is right, 7."]
    assert voted(paths, path_choice="first")[1] == [paths[0]]
    assert voted(paths, path_choice="shortest")[1] == [paths[2]]
    assert voted(paths, path_choice="all")[1] == [paths[0], paths[2], paths[3]]
    drawn = {voted(paths, path_choice="random", seed=seed)[1][0] for seed in range(30)}
    assert drawn == {paths[0], paths[2], paths[3]}
    assert voted(paths, path_choice="random", seed=4) == voted(paths, path_choice="random", seed=4)


def test_the_gold_judges_a_label_and_never_makes_it():
    paths = ["The answer is 8.", "The answer is 8.", "The answer is 7."]
    qa, _, _ = vote_on([1, 2], ["What is 3 + 4?", "How far is it?"], [paths, paths], of_vote(), "arithmetic")
    assert qa["answer"].tolist() == ["8", "8"]
    assert qa["gold"].iloc[0] == "7" and not qa["correct"].iloc[0]
    assert qa[["gold", "correct"]].iloc[1].isna().all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.tuples(texts, st.booleans()), min_size=1, max_size=6), min_size=1, max_size=3),
    st.sampled_from(PROTOCOLS), st.sampled_from(["shortest", "random", "all"]),
)  # fmt: skip
@example([[("The answer is 8.", True), ("The answer is 8.", True), ("The answer is 7.", False)]], "paper", "shortest")
def test_a_cut_path_counts_in_the_total_and_never_wins(written, protocol, choice):
    paths, cut = ([[part[k] for part in row] for row in written] for k in (0, 1))
    ids, own = list(range(len(paths))), of_vote(protocol=protocol, path_choice=choice)
    qa, sampled, rejected = vote_on(ids, ["What is 3 + 4?"] * len(paths), paths, own, "arithmetic", cut=cut)
    assert sampled["cut"].tolist() == [flag for row in cut for flag in row]
    silent = paths if protocol == "released" else [
        ["" if is_cut else text for text, is_cut in row] for row in written
    ]  # fmt: skip
    expected_qa, expected, expected_rejected = vote_on(ids, ["What is 3 + 4?"] * len(paths), silent, own, "arithmetic")
    pd.testing.assert_frame_equal(rejected, expected_rejected)
    pd.testing.assert_frame_equal(qa, expected_qa)
    assert sampled["won"].tolist() == expected["won"].tolist()
    assert sampled["path"].tolist() == [path for row in paths for path in row], "what was sampled is kept as it is"
    assert protocol == "released" or not (sampled["won"].astype(bool) & sampled["cut"]).any()
    assert qa["total"].tolist() == [len(paths[number]) for number in qa["id"]]


def test_empty_in_empty_out():
    qa, sampled, rejected = vote_on([], [], [], of_vote(), "arithmetic")
    assert list(qa.columns) == tables.QA_COLUMNS
    assert len(qa) == len(sampled) == len(rejected) == 0
