"""Likelihoods of paths: against one path at a time by hand, on a tiny real model; what a replay can give."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

from crescent_utils.answers import normal_form
from crescent_utils.generation import models
from crescent_utils.generation.store import Request, Sampling
from crescent_utils.runs import domains, folders, params
from crescent_utils.vote import likelihood, tables

PATHS = [["3 + 4 = 7", "The answer is 7.", ""], ["9", "I do not know, maybe 12 or so"]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return models.from_folder(tiny.model_folder(tmp_path_factory.mktemp("tiny")), "base")


def requests(base):
    return [
        Request.of(base.fingerprint, [{"role": "user", "content": text}], Sampling())
        for text in ("What is 3 + 4?", "Why?")
    ]


def by_hand(base, request, path):
    tokenizer = models.load_tokenizer(base.locate())
    model = AutoModelForCausalLM.from_pretrained(base.locate(), dtype=torch.float32).eval()
    ids = models.prompt_token_ids(tokenizer, request, 1024)
    total, written = 0.0, tokenizer(path, add_special_tokens=False)["input_ids"]
    for token in written:
        with torch.inference_mode():
            total += float(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
        ids = [*ids, token]
    return total / len(written)


def test_a_question_whose_prompt_was_too_long_has_no_likelihood_and_ends_nothing(base):
    settings = params.build_settings("vote", {"engine": "auto", "dtype": "float32", "max_model_len": 200})
    too_long = Request.of(base.fingerprint, [{"role": "user", "content": "How many? " * 40}], Sampling())
    short = Request.of(base.fingerprint, [{"role": "user", "content": "Why?"}], Sampling(max_tokens=10))
    (unread,), (likelihood_of_short,) = likelihood.path_likelihoods(settings, base, [too_long, short], [[""], ["9"]])
    assert unread == float("-inf") < likelihood_of_short


def test_likelihoods_are_those_of_one_path_at_a_time(base):
    found = likelihood.path_likelihoods(
        params.build_settings("vote", {"engine": "auto", "dtype": "float32"}), base, requests(base), PATHS
    )
    assert [len(row) for row in found] == [3, 2]
    assert found[0][2] == float("-inf")
    for request, row, values in zip(requests(base), PATHS, found, strict=True):
        for path, value in zip(row, values, strict=True):
            if path:
                assert value == pytest.approx(by_hand(base, request, path), abs=1e-4)


def plain_scores(model, prompt, path):
    """One forward pass over prompt and path, nothing kept and nothing padded."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *path]])).logits[0].log_softmax(-1)
    return [float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(path)]


@pytest.fixture(scope="module")
def model(base):
    return AutoModelForCausalLM.from_pretrained(base.locate(), dtype=torch.float32).eval()


@pytest.mark.parametrize("most_tokens", [1, 150, likelihood.BATCH_TOKENS])
@pytest.mark.parametrize("paths_together", [1, likelihood.PATHS_TOGETHER])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_scores_are_those_of_a_plain_forward_pass(model, monkeypatch, data, most_tokens, paths_together):
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", most_tokens)
    monkeypatch.setattr(likelihood, "PATHS_TOGETHER", paths_together)
    token = st.integers(0, 255)
    beginnings = [[], data.draw(st.lists(token, min_size=30, max_size=60))]  # worked examples, which prompts share
    prompts = data.draw(st.lists(st.tuples(st.sampled_from(beginnings), st.lists(token, min_size=1, max_size=9)),
                                 min_size=1, max_size=4))  # fmt: skip
    job = st.tuples(st.sampled_from([[*start, *rest] for start, rest in prompts]), st.lists(token, max_size=40))
    jobs = data.draw(st.lists(job, min_size=1, max_size=8))
    found = list(likelihood._token_scores(model, jobs))
    assert sorted(number for number, _ in found) == list(range(len(jobs))), "each of them, once"
    for number, of_path in found:
        assert of_path == pytest.approx(plain_scores(model, *jobs[number]), abs=2e-4)


class Counted(torch.nn.Module):
    """The model, which writes down how many tokens each forward pass reads and at how many places it predicts."""

    def __init__(self, model):
        super().__init__()
        self.model, self.device, self.passes = model, model.device, []

    def forward(self, input_ids, **options):
        out = self.model(input_ids=input_ids, **options)
        self.passes.append((tuple(input_ids.shape), tuple(out.logits.shape[:2])))
        return out


def test_what_prompts_share_is_read_once_and_a_prompt_once_for_all_its_paths(model):
    examples = list(range(100))
    prompts = [[*examples, 200, 1, 2, 3], [*examples, 201, 1, 2, 3], [*examples, 202, 4]]
    paths = [[7] * 10, [8] * 9, [9] * 10, [7] * 10, []]
    counted = Counted(model)
    assert len(list(likelihood._token_scores(counted, [(prompt, path) for prompt in prompts for path in paths]))) == 15
    assert counted.passes == [
        ((1, 100), (1, 1)),  # the examples
        ((2, 3), (2, 1)), ((6, 10), (6, 10)),  # two questions of one length without their last tokens, then their paths
        ((1, 1), (1, 1)), ((3, 10), (3, 10)),
    ]  # fmt: skip


def test_scores_come_while_others_are_still_to_be_read(model):
    counted = Counted(model)
    scores = likelihood._token_scores(counted, [([1, 2, number], [5] * (1 + place)) for number in range(100)
                                                for place in range(12)])  # fmt: skip
    ready = [next(scores) for _ in range(20)]
    assert len(ready) == 20 and sum(rows for (rows, width), _ in counted.passes if width > 1) <= 96, "two groups of 48"


def test_a_model_with_a_sliding_window_forgets_the_same():
    torch.manual_seed(0)
    sizes = {"vocab_size": 80, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8}
    config = Gemma3TextConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, sliding_window=8,
                              layer_types=["sliding_attention", "full_attention"] * 2)  # fmt: skip
    model = Gemma3ForCausalLM(config).eval()
    start = list(range(30))
    jobs = [([*start, n, 5], [n + place for place in range(length)]) for n in (40, 41) for length in (1, 12, 20)]
    for number, of_path in likelihood._token_scores(model, jobs):
        assert of_path == pytest.approx(plain_scores(model, *jobs[number]), abs=1e-4)


def test_a_server_is_refused_by_name(base):
    with pytest.raises(folders.RunError, match="most_likely.*server.*shortest"):
        likelihood.path_likelihoods(params.build_settings("vote", {"engine": "server"}), base, [], [])


def test_a_replay_reads_what_was_recorded_and_nothing_else(base, tmp_path):
    own = {"outputs": str(tmp_path), "replay_from": "old", "path_choice": "most_likely", "min_agreement": 0.0}
    settings = params.build_settings("vote", own)
    values = [[-0.5, -0.1, -9.0], [-2.0, -1.0]]
    paths = [["It is 7.", "7.", "8"], ["1", "The answer is 1."]]
    questions = pd.DataFrame({"id": [1, 2], "question": ["a", "b"]})
    qa, table, _ = tables.vote_tables(questions, paths, settings, domains.get_domain("math_word_problems"), values)
    assert qa["path"].tolist() == ["7.", "The answer is 1."]
    (tmp_path / "old" / "vote").mkdir(parents=True)
    table.to_parquet(tmp_path / "old" / "vote" / "paths.parquet")
    assert likelihood.path_likelihoods(settings, base, [], paths) == values
    for changed in (table.drop(columns="likelihood"), pd.concat([table, table])):
        changed.to_parquet(tmp_path / "old" / "vote" / "paths.parquet")
        with pytest.raises(folders.RunError, match="most_likely.*'old'.*engine: auto"):
            likelihood.path_likelihoods(settings, base, [], paths)


def test_where_an_answer_was_written():
    def text_of(path, answer):
        span = likelihood.answer_span(path, answer)
        return span and path[slice(*span)]

    assert text_of("3 + 4 = 7, so 7 it is", "7") == "7" and likelihood.answer_span("7, so 7", "7") == (6, 7)
    assert text_of("In all $1,234.", "1234") == "$1,234"
    assert text_of("3/4 of it, that is 0.75", normal_form("0.75")) == "0.75"
    assert text_of("The answer is (B).", "B") == "B"
    assert text_of("no number here", "7") is None and text_of("7", None) is None
    assert text_of("it is 2\\sqrt{3}", "2\\sqrt{3}") == "2\\sqrt{3}"


def test_verifiers_read_each_path_once_and_find_it_in_the_store(base, tmp_path, monkeypatch):
    own = {"engine": "transformers", "dtype": "float32", "outputs": str(tmp_path), "run": "r"}
    settings = params.build_settings("vote", own)
    read = [["7", "7", None], ["9", None]]
    found = likelihood.verifier_likelihoods(settings, base, requests(base), PATHS, read)
    for request, row, values in zip(requests(base), PATHS, found, strict=True):
        for path, (log_path, _) in zip(row, values, strict=True):
            if path:  # the tiny tokenizer has a token for each byte
                assert log_path == pytest.approx(by_hand(base, request, path) * len(path), abs=1e-3)
    nothing_after = by_hand(base, requests(base)[0], "3 + 4 = ") * 8
    assert found[0][0][1] == pytest.approx(found[0][0][0] - nothing_after, abs=1e-3), "log p of the 7 alone"
    assert found[1][0][0] == pytest.approx(found[1][0][1]), "the path is its answer"
    assert math.isnan(found[0][2][0]) and math.isnan(found[1][1][1]) and not math.isnan(found[1][1][0])
    monkeypatch.setattr(likelihood, "_load", lambda *_: pytest.fail("computed a second time"))
    assert str(likelihood.verifier_likelihoods(settings, base, requests(base), PATHS, read)) == str(found)
    replay = params.build_settings("vote", {"outputs": str(tmp_path), "replay_from": "r"})
    assert str(likelihood.verifier_likelihoods(replay, base, requests(base), PATHS, read)) == str(found)
    unheard = likelihood.verifier_likelihoods(replay, base, requests(base)[:1], [["8 it is"]], [["8"]])
    assert all(math.isnan(value) for value in unheard[0][0]), "a replay computes nothing"


def test_without_weights_or_a_record_nothing_is_known(base, tmp_path):
    server = params.build_settings("vote", {"engine": "server", "outputs": str(tmp_path)})
    assert all(math.isnan(a) and math.isnan(b) for row in likelihood.verifier_likelihoods(
        server, base, requests(base), PATHS, [["7"] * 3, ["9"] * 2]) for a, b in row)  # fmt: skip
