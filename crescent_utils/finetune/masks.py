"""Masks: what of a pair is learned and what is only context, by the chat template; shown as coloured tokens."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from .. import generation
from ..generation import Request, Sampling

if TYPE_CHECKING:
    import pandas as pd

_CONTEXT, _LEARNED = "background:#e8e8e8;color:#555", "background:#cfe8fa;color:#003a5d"
_SHOWN = str.maketrans({"\n": "⏎\n", "\t": "⇥", "\r": "␍"})


class TrainingError(RuntimeError):
    """Training that cannot start or has failed; the message says why and what to change."""


def loss_mask(tokenizer: Any, pair: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return a pair's tokens as text, each with whether the loss counts it: context first, then what is learned.

    Raises TrainingError where the template's tokens for the prompt are no start of those for the pair.
    """
    tokens, start = _masked(tokenizer, pair)
    return [(tokenizer.decode([token]), place >= start) for place, token in enumerate(tokens)]


def check_pairs(tokenizer: Any, pairs: list[dict[str, Any]], limit: int) -> None:
    """Raise TrainingError unless each prompt is the vote's request, token for token, and each pair fits `limit` tokens.

    TRL renders a pair by the chat template in one way, sampling (`prompt_token_ids`) in another. A BOS that only one of
    them writes, or a template that strips the system prompt once there is an answer, would train on prompts that nobody
    ever asks. A pair that is too long TRL would cut, and with it the end of turn that has to be learned, or drop,
    without a word.
    """
    lengths = []
    for pair in pairs:
        tokens, start = _masked(tokenizer, pair)
        request = Request.of("", pair["prompt"], Sampling(max_tokens=0))
        sampling_prompt = generation.prompt_token_ids(tokenizer, request)
        if sampling_prompt != tokens[:start]:
            raise TrainingError(
                f"the prompt is {start} tokens in training and {len(sampling_prompt)} in sampling, or others, for "
                f"{pair['prompt'][-1]['content'][:80]!r}; the model would learn to answer what it is never asked"
            )
        lengths.append(len(tokens))
    too_long = sum(length > limit for length in lengths)
    if too_long:
        raise TrainingError(
            f"max_length: {limit} cuts {too_long} of {len(pairs)} pairs; the longest has {max(lengths)} tokens"
        )


def token_table(tokenizer: Any, pairs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the tokens of `pairs`, one row each: `pair` (a number), `token` (text), `learned` (true or false)."""
    import pandas as pd

    rows = [(number, *token) for number, pair in enumerate(pairs) for token in loss_mask(tokenizer, pair)]
    return pd.DataFrame(rows, columns=["pair", "token", "learned"])


def coloured(tokens: pd.DataFrame) -> str:
    """Return a `token_table` as HTML, one block per pair: grey is context, blue is learned.

    The text is escaped: a model wrote it.
    """
    blocks = []
    for _, of_pair in tokens.groupby("pair", sort=True):
        spans = ""
        for text, learned in zip(of_pair["token"], of_pair["learned"], strict=True):
            style, visible = _LEARNED if learned else _CONTEXT, html.escape(text.translate(_SHOWN))
            spans += f'<span style="{style};margin-right:1px">{visible}</span>'
        blocks.append(f'<pre style="white-space:pre-wrap;line-height:1.7">{spans}</pre>')
    legend = f'<span style="{_CONTEXT}"> context </span> <span style="{_LEARNED}"> learned </span>'
    return f"<div>{legend}{''.join(blocks)}</div>"


def _masked(tokenizer: Any, pair: dict[str, Any]) -> tuple[list[int], int]:
    """Return the pair's token ids, as TRL makes them, and where the reply begins."""
    messages = pair["prompt"] + pair["completion"]
    context = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    context_text = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, tokenize=False)
    whole_text = tokenizer.apply_chat_template(messages, tokenize=False)
    if whole[: len(context)] != context or not whole_text.startswith(context_text):
        raise TrainingError(
            "the chat template renders a prompt differently once it is answered, so the loss cannot be masked by it"
        )
    _check_reply(tokenizer, whole_text.removeprefix(context_text), pair["completion"][0]["content"].strip())
    return whole, len(context)


def _check_reply(tokenizer: Any, reply: str, completion: str) -> None:
    """Raise TrainingError unless the template makes the completion and an end of turn of a reply, and nothing else.

    The end is whatever the template itself writes behind a reply: a token of the vocabulary that ordinary text cannot
    become, the tokenizer's eos or another one (Gemma's <end_of_turn>), with white space around it.
    """
    before, kept_completion, end = reply.partition(completion) if completion else ("", "", reply)
    words_of_end = end
    for token in {tokenizer.eos_token, *(str(token) for token in tokenizer.added_tokens_decoder.values())}:
        words_of_end = words_of_end.replace(token, "")
    if kept_completion == completion and words_of_end.strip() == end.strip():
        raise TrainingError(
            f"the chat template writes no end-of-turn token behind a reply, but {end!r}: the model would never stop"
        )
    if kept_completion != completion or before.strip() or words_of_end.strip():
        raise TrainingError(
            f"the chat template makes {reply[:200]!r} of the reply {completion[:80]!r}: more or less than the "
            "completion and an end of turn would be learned; choose a model whose template keeps replies as they are"
        )
