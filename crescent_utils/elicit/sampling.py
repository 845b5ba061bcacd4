"""Sampling of bait prompts: baits, prefilled starts and temperatures take turns (Crescent, section 2).

How many completions are sampled is fixed beforehand, or decided while sampling: until there are enough different
questions, or until the last chunk gave too few new ones. Either way the same parameters ask for the same completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import runs
from ..generation import TOO_LONG, Request, Sampling
from ..runs import Elicit
from .questions import Question, Rejected, extract_question, released_clean

if TYPE_CHECKING:
    import pandas as pd

    from ..generation import Generator


@dataclass(frozen=True)
class Turn:
    """One bait request: the bait's number, the prefilled start of its reply, the temperature, and the messages."""

    bait: int
    prefix: str
    temperature: float
    messages: list[runs.Message]


@dataclass(frozen=True)
class Elicited:
    """Raw completions (prefix included), how each ended, the number of its turn, and why sampling stopped."""

    texts: list[str]
    finishes: list[str]
    turns: list[int]
    stopped: str


def bait_turns(domain: runs.Domain, settings: Elicit) -> list[Turn]:
    """Return the different bait requests in their order: prefixes change fastest, then baits, then temperatures."""
    turns = []
    for temperature in settings.elicit_temperatures or [settings.elicit_temperature]:
        for number in range(runs.bait_count(domain)):
            messages, prefix = runs.bait_messages(domain, number, settings.system_prompt)
            turns.append(Turn(number // len(domain.bait_prefixes), prefix, temperature, messages))
    return turns


def bait_requests(
    generator: Generator, domain: runs.Domain, settings: Elicit, start: int, count: int
) -> list[tuple[Request, int]]:
    """Return completions `start` … `start + count - 1` as (request, sample number): what `Generator.complete` takes.

    With T turns, completion i is sample number i div T of turn i mod T.
    """
    requests = [
        generator.request(
            turn.messages,
            Sampling(turn.temperature, settings.elicit_top_p, settings.elicit_max_tokens, domain.bait_stop),
            turn.prefix,
        )
        for turn in bait_turns(domain, settings)
    ]
    return [(requests[i % len(requests)], i // len(requests)) for i in range(start, start + count)]


def sample_completions(generator: Generator, domain: runs.Domain, settings: Elicit) -> Elicited:
    """Sample `elicit_samples` completions, or fewer if `elicit_until` or `elicit_min_yield` stops it after a chunk.

    What counts for both is a question that passes the domain's gates and that no earlier completion gave word for word.
    """
    gates = runs.validity_gates(domain)
    may_stop_early = bool(settings.elicit_until or settings.elicit_min_yield)
    chunk_size = settings.elicit_chunk if may_stop_early else settings.elicit_samples
    texts: list[str] = []
    finishes: list[str] = []
    different_questions: set[str] = set()
    stopped = ""
    while len(texts) < settings.elicit_samples and not stopped:
        count = min(chunk_size, settings.elicit_samples - len(texts))
        pairs = bait_requests(generator, domain, settings, len(texts), count)
        completions = generator.complete(pairs, lambda text: is_question(text, gates, settings.protocol))
        chunk = [request.prefix + completion.text for (request, _), completion in zip(pairs, completions, strict=True)]
        texts += chunk
        finishes += [completion.finish for completion in completions]
        if may_stop_early:
            results = [_read(text, gates, settings.protocol) for text in chunk]
            new_questions = {result.text for result in results if isinstance(result, Question)} - different_questions
            different_questions |= new_questions
            stopped = _stop_reason(settings, len(different_questions), len(new_questions), len(chunk))
    turn_count = len(bait_turns(domain, settings))
    turns = [number % turn_count for number in range(len(texts))]
    return Elicited(texts, finishes, turns, stopped or f"{settings.elicit_samples} completions")


def _stop_reason(settings: Elicit, different: int, new: int, sampled: int) -> str:
    """Return why sampling stops after a chunk of `sampled` completions with `new` questions; "" if it goes on."""
    if settings.elicit_until and different >= settings.elicit_until:
        return f"{different} different questions"
    if new / sampled < settings.elicit_min_yield:
        return f"{new / sampled:.1%} of the last {sampled} were new questions"
    return ""


def _read(text: str, gates: dict[str, Any], protocol: str) -> Question | Rejected:
    """Return the question in a completion as the protocol reads it; the released cleaner rejects only what is empty."""
    if protocol != "released":
        return extract_question(text, **gates)
    cleaned = released_clean(text)
    return Question(cleaned) if cleaned else Rejected("empty", text)


def is_question(text: str, gates: dict[str, Any], protocol: str) -> bool:
    """Tell whether `read_questions` would keep a completion (prefix included)."""
    return isinstance(_read(text, gates, protocol), Question)


def read_questions(
    texts: Sequence[str],
    baits: Sequence[int],
    prefixes: Sequence[str],
    gates: dict[str, Any],
    protocol: str = "paper",
    finishes: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn raw completions (prefix included) into the tables `questions` and `rejected`; each stands in one of them.

    With protocol "released" the authors' cleaner takes the place of ours, and an empty string is its only rejection.
    `finishes` tells which prompts did not fit the model: these are rejected as such.
    """
    import pandas as pd

    kept, rejected = [], []
    for number, (text, bait, prefix) in enumerate(zip(texts, baits, prefixes, strict=True)):
        result = _read(text, gates, protocol)
        if finishes is not None and finishes[number] == TOO_LONG:
            result = Rejected(TOO_LONG, text)
        row = {"id": number, "bait": bait, "prefix": prefix}
        if isinstance(result, Question):
            kept.append({**row, "question": result.text})
        else:
            rejected.append({**row, "text": text, "reason": result.reason})
    questions = pd.DataFrame(kept, columns=["id", "question", "bait", "prefix"])
    return questions, pd.DataFrame(rejected, columns=["id", "text", "bait", "prefix", "reason"])


def yield_table(elicited: Elicited, questions: pd.DataFrame, turns: Sequence[Turn], by: Sequence[str]) -> pd.DataFrame:
    """Count by bait, prefix or temperature (`by`): completions, questions kept, different ones, and the share kept.

    `questions` is the table of `read_questions`, and `turns` those of `bait_turns`.
    """
    import pandas as pd

    rows = pd.DataFrame([vars(turns[number]) for number in elicited.turns], columns=["bait", "prefix", "temperature"])
    rows["question"] = pd.Series(questions["question"].to_numpy(), index=questions["id"].to_numpy(), dtype=object)
    counts = rows.groupby(list(by), sort=False).agg(
        sampled=("bait", "size"), kept=("question", "count"), different=("question", "nunique")
    )
    counts["yield"] = (counts["kept"] / counts["sampled"]).round(3)
    return counts.reset_index()
