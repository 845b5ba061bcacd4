"""What is learned of a pair: the prompt's tokens are those of sampling, and the coloured tokens cannot do harm."""

from __future__ import annotations

import html
import re

import pandas as pd
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.finetune import masks, training
from crescent_utils.finetune.masks import TrainingError
from crescent_utils.generation import models
from crescent_utils.generation.store import Request, Sampling
from crescent_utils.runs import domains

DOMAIN = domains.get_domain("arithmetic")
WORDS = tiny.tokenizer()


def pair(question, path, system=""):
    (made,) = training.training_pairs(pd.DataFrame({"question": [question], "path": [path]}), DOMAIN, system)
    return made


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["", "Be brief.", "Ünïcode 🙂"]))
def test_the_prompt_that_is_trained_is_the_one_that_is_sampled(question, path, system):
    made = pair(question, path, system)
    masks.check_pairs(WORDS, [made], 10_000)
    # Independent of the check: what an engine is given for the vote's own request.
    request = Request.of("m", domains.solve_messages(DOMAIN, question, system), Sampling(max_tokens=8))
    asked = models.prompt_token_ids(WORDS, request, 10_000)
    mask = masks.loss_mask(WORDS, made)
    assert sum(not learned for _, learned in mask) == len(asked)
    whole = WORDS.apply_chat_template(made["prompt"] + made["completion"], return_dict=True)["input_ids"]
    assert whole[: len(asked)] == asked and len(whole) == len(mask)


def test_a_template_that_says_something_else_to_a_trainer_is_refused():
    words = tiny.tokenizer()
    # Tokenised by itself the rendered text is another: sampling would ask without the first token, training with it.
    words.add_tokens(["assistant\n0"])
    with pytest.raises(TrainingError, match="renders a prompt differently"):
        masks.check_pairs(words, [pair("What is 1 + 1?", "0 + 2")], 500)


def test_every_pair_is_looked_at_and_the_cut_ones_are_counted():
    pairs = [pair("What is 1 + 1?", "2" * n) for n in (1, 200, 300)]
    with pytest.raises(TrainingError, match="max_length: 250 cuts 2 of 3 pairs"):
        masks.check_pairs(WORDS, pairs, 250)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30))
def test_coloured_tokens_show_the_text_and_escape_it(path):
    table = masks.token_table(WORDS, [pair("What is <b>1</b> + 1?", path), pair("x", "y")])
    page = masks.coloured(table)
    inner = re.sub(r"</?(?:div|pre|span)(?: style=\"[^\"<>]*\")?>", "", page)
    assert "<" not in inner and ">" not in inner, "no markup but ours"
    shown = html.unescape(inner).replace("⏎\n", "\n").replace("⇥", "\t").replace("␍", "\r")
    text = "".join(table["token"])
    if not set(path) & set("⏎⇥␍"):
        assert shown.endswith(text)
    assert page.count("<pre") == 2


def test_markup_in_a_models_words_is_text():
    page = masks.coloured(masks.token_table(WORDS, [pair("Is it <script>alert(1)</script>?", "<img src=x onerror=y>")]))
    assert "<script" not in page and "<img" not in page and "&lt;" in page


def test_no_tokens_make_an_empty_page():
    assert "context" in masks.coloured(masks.token_table(WORDS, []))
