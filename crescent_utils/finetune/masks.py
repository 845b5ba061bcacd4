"""Masks: what training learns of a pair and what is only context, told by the chat template, and shown as coloured tokens."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from .. import generation
from ..generation import Request, Sampling

if TYPE_CHECKING:
    import pandas as pd

_CONTEXT, _LEARNED = "background:#e8e8e8;color:#555", "background:#cfe8fa;color:#003a5d"
_SHOWN = {"\n": "⏎\n", "\t": "⇥", "\r": "␍"}


class TrainingError(RuntimeError):
    """Training that cannot start or has failed; the message says why and what to change."""


def loss_mask(tokenizer: Any, pair: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return a pair's tokens as text, each with whether the loss counts it: context first, then what is learned.

    Raises TrainingError where the template's tokens for the prompt are no start of those for the pair.
    """
    whole, start = _masked(tokenizer, pair)
    return [(tokenizer.decode([token]), place >= start) for place, token in enumerate(whole)]


def check_pairs(tokenizer: Any, pairs: list[dict[str, Any]], limit: int) -> None:
    """Raise TrainingError unless each pair's prompt is, token for token, the vote's request, and the pair fits `limit` tokens.

    TRL renders a pair by the chat template in one way, sampling (`models.render`) in another: a BOS that only one of them writes,
    or a template that strips the system prompt once there is an answer, would train on prompts that nobody ever asks. A longer
    pair TRL would cut, and with it the end of turn that has to be learned, or drop, without a word.
    """
    long, longest = 0, 0
    for pair in pairs:
        whole, start = _masked(tokenizer, pair)
        request = Request.of("", pair["prompt"], Sampling(max_tokens=0))
        asked = generation.prompt_token_ids(tokenizer, request)
        if asked != whole[:start]:
            raise TrainingError(
                f"the prompt is {start} tokens in training and {len(asked)} in sampling, or others, for "
                f"{pair['prompt'][-1]['content'][:80]!r}; the model would learn to answer what it is never asked"
            )
        long, longest = long + (len(whole) > limit), max(longest, len(whole))
    if long:
        raise TrainingError(f"max_length: {limit} cuts {long} of {len(pairs)} pairs; the longest has {longest} tokens")


def token_table(tokenizer: Any, pairs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the tokens of `pairs`, a row each: `pair` (its number), `token` (text), `learned` (whether the loss counts it)."""
    import pandas as pd

    rows = [
        {"pair": number, "token": text, "learned": learned}
        for number, pair in enumerate(pairs)
        for text, learned in loss_mask(tokenizer, pair)
    ]
    return pd.DataFrame(rows, columns=["pair", "token", "learned"])


def coloured(tokens: pd.DataFrame) -> str:
    """Return a `token_table` as HTML, a block a pair: grey is context, blue is learned. The text is escaped: a model wrote it."""
    blocks = []
    for _, part in tokens.groupby("pair", sort=True):
        spans = [
            f'<span style="{_LEARNED if learned else _CONTEXT};margin-right:1px">{_visible(text)}</span>'
            for text, learned in zip(part["token"], part["learned"], strict=True)
        ]
        blocks.append(f'<pre style="white-space:pre-wrap;line-height:1.7">{"".join(spans)}</pre>')
    legend = f'<span style="{_CONTEXT}"> context </span> <span style="{_LEARNED}"> learned </span>'
    return f"<div>{legend}{''.join(blocks)}</div>"


def _visible(text: str) -> str:
    return html.escape("".join(_SHOWN.get(character, character) for character in text))


def _masked(tokenizer: Any, pair: dict[str, Any]) -> tuple[list[int], int]:
    """Return the pair's token ids, as TRL makes them, and where the completion begins."""
    context = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(pair["prompt"] + pair["completion"], return_dict=True)["input_ids"]
    if whole[: len(context)] != context:
        raise TrainingError(
            "the chat template renders a prompt differently once it is answered, so the loss cannot be masked by it"
        )
    if tokenizer.eos_token_id not in whole[len(context) :]:
        raise TrainingError(
            f"the end-of-turn token {tokenizer.eos_token!r} is not in what is learned: the model would never stop"
        )
    return whole, len(context)
