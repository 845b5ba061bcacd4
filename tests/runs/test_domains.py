"""A domain of one's own: one file, every wrong line named before anything loads; the one that is shipped is whole."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT

from crescent_utils.cli import main
from crescent_utils.elicit import questions
from crescent_utils.runs import contents, domains, params
from crescent_utils.vote import tables

SHIPPED = "params/domains/commonsense.yaml"
WHOLE = yaml.safe_load((ROOT / SHIPPED).read_text(encoding="utf-8"))
ASKED = "What do people put on their feet before shoes?\nA) socks\nB) a hat\nC) gloves"


def refused(folder, values):
    path = folder / "mine.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(params.ParameterError) as caught:
        domains.get_domain(str(path))
    assert "mine.yaml" in str(caught.value)
    return str(caught.value)


def test_the_shipped_domain_is_whole_and_its_gate_reads_its_own_form():
    domain = domains.get_domain(SHIPPED)
    assert (domain.name, domain.answer_type) == ("commonsense", "choice")
    assert len(domain.bait_prefixes) > 1 and domain.bait
    gates = domains.validity_gates(domain)
    assert questions.extract_question(f"{ASKED}\n\nAnswer: A", **gates) == questions.Question(ASKED)
    for broken in (ASKED.split("\nC)", maxsplit=1)[0], ASKED.replace("?", "."), "What is 3 + 4?"):
        assert isinstance(questions.extract_question(broken, **gates), questions.Rejected)
    # An example of the bait is no new question.
    copy = next(part for part in domain.bait[0].split("\n\n") if part.startswith("3. ")).removeprefix("3. ")
    found = questions.extract_question(copy, **gates)
    assert isinstance(found, questions.Rejected) and found.reason == "copies_bait"


def test_what_a_parameter_gives_takes_the_place_of_the_files():
    domain = domains.get_domain(SHIPPED, bait=["b"], solve="? {question}")
    assert (domain.bait, domain.solve_prompt) == (("b",), "? {question}")
    with pytest.raises(ValueError, match="solve_prompt"):
        domains.get_domain(SHIPPED, solve="no place")


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"baits": ["a"]}, ["'baits'", "Did you mean 'bait'?"]), ({"bait": []}, ["bait", "at least 1"]),
        ({"bait": "one"}, ["bait", "list"]),
        ({"bait": ["  "]}, ["bait", "empty"]), ({"rewrite_prompt": "{question}"}, ["rewrite_prompt", "{neighbour}"]),
        ({"solve_prompt": "Answer."}, ["solve_prompt", "{question}"]),
        ({"answer_type": "letter"}, ["answer_type", "'choice'"]),
        ({"similarity_threshold": 1.5}, ["similarity_threshold", "less than or equal to 1"]),
        ({"similarity_threshold": 0.0}, ["greater than 0"]),
        ({"gates": {"pattern": "("}}, ["gates.pattern", "regular expression"]),
        ({"gates": {"min_word": 3}}, ["gates.min_word"]),
        ({"gates": {"min_words": 9, "max_words": 3}}, ["gates", "min_words 9"]),
        ({"gates": {"min_words": "3"}}, ["gates.min_words", "'3'"]),
        ({1: 2}, ["1"]),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, change, expected):
    message = refused(tmp_path, {**WHOLE, **change})
    for part in expected:
        assert part in message


@pytest.mark.parametrize("name", ["bait", "rewrite_prompt", "solve_prompt"])
def test_a_missing_line_is_named(tmp_path, name):
    assert name in refused(tmp_path, {key: value for key, value in WHOLE.items() if key != name})


@pytest.mark.parametrize("text", ["- a\n", "bait: [", "just words", ""])
def test_a_file_that_is_no_domain_is_named(tmp_path, text):
    refused(tmp_path, text)


def test_a_missing_file_is_named_with_those_that_are_there(tmp_path):
    with pytest.raises(params.ParameterError, match=r"params/domains/common\.yaml.*commonsense\.yaml"):
        domains.get_domain("params/domains/common.yaml")
    with pytest.raises(
        ValueError, match=r"allowed: arithmetic, commonsense, math_word_problems, three_terms, or a \.yaml file"
    ):
        domains.get_domain("common")


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(domains.Domain.model_fields)),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_no_file_ends_in_anything_but_a_domain_or_a_named_error(values):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.yaml"
        path.write_text(yaml.safe_dump({**WHOLE, **values}), encoding="utf-8")
        try:
            domain = domains.get_domain(str(path))
        except params.ParameterError as error:
            assert any(name in str(error) for name in values)
        else:
            assert domain.name == "any" and domain.bait


def test_settings_read_no_file_and_a_changed_file_is_another_run(tmp_path):
    path = tmp_path / "mine.yaml"
    made = params.build_settings("elicit", {"domain": str(path)})  # not there yet
    path.write_text(yaml.safe_dump(WHOLE), encoding="utf-8")
    first = contents.stage_fingerprint("elicit", made)
    path.write_text(yaml.safe_dump({**WHOLE, "bait": ["another"]}), encoding="utf-8")
    assert contents.stage_fingerprint("elicit", made) != first
    copy = tmp_path / "moved" / "mine.yaml"
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(WHOLE), encoding="utf-8")
    assert contents.stage_fingerprint("elicit", params.build_settings("elicit", {"domain": str(copy)})) == first, (
        "where it lies says nothing"
    )


def test_letters_are_voted_on():
    paths = ["The answer is B.", "B) a hat", "I would say\n(A)", "no idea", "Answer: (b) a hat", "The answer is E"]
    own = params.build_settings("vote", {"domain": SHIPPED, "min_agreement": 0.0})
    qa, sampled, rejected = tables.vote_tables(
        pd.DataFrame({"id": [1], "question": [ASKED]}), [paths], own, domains.get_domain("commonsense")
    )
    assert sampled["answer"].fillna("").tolist() == ["B", "B", "A", "", "B", "E"]
    assert qa["answer"].tolist() == ["B"] and len(rejected) == 0 and qa["gold"].isna().all()


def test_the_command_names_a_bad_file_before_anything_loads(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**WHOLE, "answer_typ": "choice"}), encoding="utf-8")
    status = main.main(["run", str(ROOT / "params/cpu.yaml"), "-p", f"domain={path}", "-p", f"outputs={tmp_path}"])
    assert status == main.BAD_INPUT
    assert "Did you mean 'answer_type'?" in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine.yaml"], "no run was begun"
