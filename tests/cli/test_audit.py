"""crescent audit: each format as its tool writes it, errors that name line and field, the same table as a preflight."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from shared import REFERENCE, SAMPLES

from crescent_utils import answers, vote
from crescent_utils.cli import audit
from crescent_utils.cli import main as main_module
from crescent_utils.runs import domains

FILES = SAMPLES / "audit"


def run(capsys, *arguments):
    status = main_module.main(["audit", *map(str, arguments)])
    return (status, *capsys.readouterr())


def answers_of(samples):
    answers = samples.table.assign(answer=samples.table["answer"].fillna("none"))
    return answers.groupby(["round", "question"], sort=False)["answer"].agg(list).to_dict()


def test_our_own_format():
    samples = audit.read_samples(FILES / "crescent.jsonl")
    assert samples.format == "crescent" and samples.golds == 2
    assert list(answers_of(samples).values()) == [["7", "7", "8"], ["42", "42", "none"], ["3", "4", "none"]]
    assert samples.table["right"].tolist() == [True, True, False, True, True, False, None, None, None]
    assert samples.table["log_path"].dropna().tolist() == [-0.7]
    assert samples.table["log_answer"].dropna().tolist() == [-0.1]
    assert samples.greedy["answer"].tolist() == ["8", "42", "3"]
    assert samples.greedy["right"].tolist() == [False, True, None]


def test_lm_evals_log_counts_an_item_once_though_each_filter_logs_it():
    samples = audit.read_samples(FILES / "lm_eval.jsonl")
    assert samples.format == "lm-eval" and samples.golds == 2 and len(samples.greedy) == 0
    assert answers_of(samples) == {(0, 0): ["11", "11", "12"], (0, 1): ["6", "7", "6"]}
    assert samples.table["right"].tolist() == [True, True, False, False, True, False]


def test_vllms_batches_have_no_golds_but_log_p_and_cuts():
    samples = audit.read_samples(FILES / "vllm_batch.jsonl")
    assert samples.format == "vllm" and samples.golds == 0
    assert answers_of(samples) == {(0, "sum-1"): ["4", "4", "none"], (0, "sum-2"): ["5", "6", "6"]}
    assert samples.table["log_path"].tolist() == [-0.75, -2.0, -2.0, -0.1, -3.0, -3.5]
    assert samples.table["cut"].tolist() == [False, False, True, False, False, False]


def test_vllms_request_outputs():
    samples = audit.read_samples(FILES / "vllm_outputs.jsonl")
    assert samples.format == "vllm" and samples.golds == 2
    assert list(answers_of(samples).values()) == [["4", "5"], ["none", "5"]]
    assert samples.table["log_path"].tolist() == [-0.75, -2.5, -4.0, -0.5]
    assert samples.greedy["right"].tolist() == [True, False]


def test_a_ttrl_log_is_put_together_by_step_and_prompt(capsys):
    samples = audit.read_samples(FILES / "ttrl.jsonl")
    assert samples.format == "ttrl" and samples.golds == 4
    assert [len(row) for row in answers_of(samples).values()] == [3] * 4
    assert samples.table.groupby("round")["right"].sum().tolist() == [2, 3], "by the right answer, not by the reward"
    status, out, _ = run(capsys, FILES / "ttrl.jsonl", "--json")
    rows = {row["quantity"]: row for row in json.loads(out)["quantities"]}
    assert status == 0 and rows["agreement"]["n"] == 4
    assert rows["self_bias@1"]["estimate"] == pytest.approx((0.5 * 2 - 1 + 0.5 * 2 - 1) / 6)
    assert rows["self_bias@2"]["estimate"] == pytest.approx((3 - 0 + 3 - 3) / 6)


def test_greedy_answers_may_stand_in_a_file_of_their_own(capsys, tmp_path):
    greedy = tmp_path / "greedy.jsonl"
    lines = [json.loads(line) for line in (FILES / "lm_eval.jsonl").read_text().splitlines()]
    greedy.write_text("\n".join(json.dumps(line | {"resps": [["The answer is 7."]]}) for line in lines))
    samples = audit.read_samples(FILES / "lm_eval.jsonl", greedy_path=greedy)
    assert samples.greedy["answer"].tolist() == ["7", "7"] and samples.greedy["right"].tolist() == [False, True]
    greedy.write_text(json.dumps({"doc_id": 99, "resps": [["7"]]}))
    status, _, err = run(capsys, FILES / "lm_eval.jsonl", "--greedy", greedy)
    assert status == 2 and "greedy.jsonl: none of its questions stands in lm_eval.jsonl" in err


GOOD = json.dumps({"question": "a", "samples": ["1"], "gold": "1"})
BAD = [
    ("", ["is empty"]),
    ("{", ["line 1", "is not JSON"]),
    ("[1]", ["line 1", "is a list"]),
    ('{"prompt": "a", "text": "b"}', ["line 1", "prompt, text", "question, samples", "doc_id, resps"]),
    (GOOD + "\n\n" + '{"question": "b"}', ["line 3", "samples: is missing", "a list of texts"]),
    ('{"question": "b", "samples": "1"}', ["line 1", 'samples: is "1"', "a list of texts"]),
    ('{"question": "b", "samples": [1]}', ["samples[0]: is 1"]),
    ('{"question": "b", "samples": [{"cut": true}]}', ["samples[0].text: is missing"]),
    ('{"question": "b", "samples": [{"text": "1", "cut": 1}]}', ["samples[0].cut: is 1", "true or false"]),
    ('{"question": "b", "samples": [{"text": "1", "log_path": true}]}', ["samples[0].log_path: is true"]),
    ('{"question": null, "samples": []}', ["question: is null"]),
    ('{"question": "b", "samples": [], "gold": [1]}', ["gold: is [1]"]),
    ('{"question": "b", "samples": []}', ["holds no sample"]),
    (GOOD + "\n" + GOOD.replace('"gold": "1"', '"gold": "2"'), ["line 2", "gold: '2' differs from '1'"]),
    ('{"doc_id": 0, "resps": [[["-1.5", "False"]], [["-2", "True"]]]}', ["resps[0][0]", "log-likelihood"]),
    ('{"custom_id": "a", "response": null, "error": {"code": 400}}', ["error", "the request failed"]),
    ('{"custom_id": "a", "response": {"body": {"choices": [3]}}}', ["response.body.choices[0]: is a int"]),
    (
        '{"custom_id": "a", "response": {"body": {"choices": [{"text": "1"}]}}}\n{"custom_id": "b"}',
        ["line 2", "response: is a NoneType; an object is wanted"],
    ),
    ('{"input": "a", "output": 3}', ["output: is 3", "the sample's text"]),
]


@pytest.mark.parametrize(("content", "named"), BAD, ids=[content[:60] for content, _ in BAD])
def test_an_error_names_file_line_and_field(capsys, tmp_path, content, named):
    path = tmp_path / "samples.jsonl"
    path.write_text(content, encoding="utf-8")
    status, out, err = run(capsys, path)
    assert status == 2 and out == "" and "Traceback" not in err
    assert all(part in err for part in ["samples.jsonl", *named]), err


def test_what_others_leave_out_or_write_otherwise_ends_in_a_table(capsys, tmp_path):
    """An empty answer is none, rounds may have numbers and names, and log-probabilities may be of another form."""
    path = tmp_path / "samples.jsonl"
    lines = [
        {"question": "a", "samples": [{"answer": ""}, {"answer": " "}, {"answer": "1"}], "round": 1},
        {"question": "b", "samples": ["1", "2", ""], "round": "last"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert list(answers_of(audit.read_samples(path)).values()) == [["none", "none", "1"], ["1", "2", "none"]]
    status, out, _ = run(capsys, path, "--json")
    quantities = [row["quantity"] for row in json.loads(out)["quantities"]]
    assert status == 0 and "self_bias@1" in quantities and "self_bias@last" in quantities
    choice = {"text": "1", "logprobs": {"content": ["one token"]}}
    path.write_text(json.dumps({"custom_id": "a", "response": {"body": {"choices": [choice]}}}))
    assert audit.read_samples(path).table["log_path"].isna().all()


def test_a_file_that_cannot_be_read_is_named(capsys, tmp_path):
    status, _, err = run(capsys, tmp_path / "none.jsonl")
    assert status == 2 and "none.jsonl: cannot be read" in err
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in run(capsys, tmp_path / "binary.jsonl")[2]
    assert "--min-agreement 2.0" in run(capsys, FILES / "crescent.jsonl", "--min-agreement", "2")[2]


def test_the_help_documents_every_format(capsys):
    with pytest.raises(SystemExit):
        main_module.main(["audit", "--help"])
    text = capsys.readouterr().out
    assert all(field in text for fields, _ in audit.FORMATS.values() for field in fields)


def test_the_text_ends_in_the_verdict(capsys):
    status, out, _ = run(capsys, FILES / "crescent.jsonl")
    assert status == 0 and "3 questions, 9 samples, right answers of 2, greedy answers of 3" in out
    assert out.rstrip().splitlines()[-1].startswith(("go", "no headroom", "cannot be told"))


def test_the_reference_runs_paths_give_the_same_table_as_its_vote(capsys, tmp_path):
    """Real completions, through a file and from the run's own tables."""
    paths = pd.read_parquet(REFERENCE / "vote" / "paths.parquet")
    paths["answer"] = paths["path"].map(answers.extract_answer)  # the file does not say which paths were cut
    pool = pd.read_parquet(REFERENCE / "dedup" / "questions.parquet").set_index("id")
    golds = vote.known_golds(pool.reset_index(), domains.get_domain("arithmetic"))
    lines = [
        {"question": pool["question"][number], "samples": list(rows["path"]), "gold": golds[number]}
        for number, rows in paths.groupby("question_id", sort=False)
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    status, out, _ = run(capsys, path, "--json")
    found = json.loads(out)
    count = paths["question_id"].nunique()
    assert status == 0 and (found["questions"], found["samples"], found["golds"]) == (count, len(paths), count)
    assert found["verdict"] == "cannot be told", "nobody asked greedily"
    rows = {row["quantity"]: row for row in found["quantities"]}
    assert rows["headroom"]["estimate"] is None
    curve = vote.votes_needed(paths, golds, 1)
    assert rows["majority@12"]["estimate"] == pytest.approx(curve["right"].iloc[-1], abs=1e-9)
    assert rows["one_sample"]["estimate"] == pytest.approx(curve["right"].iloc[0], abs=1e-9)
    assert sum(row["n"] for row in found["reliability"]) == count
