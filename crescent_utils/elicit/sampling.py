"""Elicit: bait prompts, prefilled starts and temperatures take turns, until enough is sampled (Crescent, section 2).

How many completions are taken is fixed beforehand, or decided while sampling: until so many different questions are there, or
until the last chunk gave too few new ones. Either way the same parameters ask for the same completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import runs
from ..generation import TOO_LONG, Request, Sampling
from ..runs import Elicit
from . import questions

if TYPE_CHECKING:
    import pandas as pd

    from ..generation import Generator


@dataclass(frozen=True)
class Turn:
    """One bait request: which bait (number), the prefilled start of its reply, the temperature, and the messages."""

    bait: int
    prefix: str
    temperature: float
    messages: list[runs.Message]


@dataclass(frozen=True)
class Elicited:
    """Raw completions with their prefix, how each ended, the turn that it came from (number), and why sampling stopped."""

    texts: list[str]
    finishes: list[str]
    turns: list[int]
    stopped: str


def bait_turns(domain: runs.Domain, settings: Elicit) -> list[Turn]:
    """Return the different bait requests in the order of their turns: prefixes change fastest, then baits, then temperatures."""
    made = []
    for temperature in settings.elicit_temperatures or [settings.elicit_temperature]:
        for number in range(runs.bait_count(domain)):
            messages, prefix = runs.bait_messages(domain, number, settings.system_prompt)
            made.append(Turn(number // len(domain.bait_prefixes), prefix, temperature, messages))
    return made


def bait_requests(
    generator: Generator, domain: runs.Domain, settings: Elicit, start: int, count: int
) -> list[tuple[Request, int]]:
    """Return completions `start` … `start + count - 1` as (request, sample number): what `Generator.complete` takes.

    Completion i is of turn i mod T (T turns), as its sample i div T.
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
    """Sample `elicit_samples` completions, or fewer: see `elicit_until` and `elicit_min_yield`, checked every `elicit_chunk`.

    What counts for both is a question that passes the domain's gates and that no earlier completion gave word for word.
    """
    early = bool(settings.elicit_until or settings.elicit_min_yield)
    step = settings.elicit_chunk if early else settings.elicit_samples
    gates = runs.validity_gates(domain)
    texts: list[str] = []
    finishes: list[str] = []
    seen: set[str] = set()
    stopped = f"{settings.elicit_samples} completions"
    while len(texts) < settings.elicit_samples:
        asked = bait_requests(generator, domain, settings, len(texts), min(step, settings.elicit_samples - len(texts)))
        completions = generator.complete(asked, lambda text: is_question(text, gates, settings.protocol))
        fresh = [request.prefix + completion.text for (request, _), completion in zip(asked, completions, strict=True)]
        texts += fresh
        finishes += [completion.finish for completion in completions]
        if not early:
            continue
        before = len(seen)
        seen.update(read_questions(fresh, [0] * len(fresh), [""] * len(fresh), gates, settings.protocol)[0]["question"])
        gained = (len(seen) - before) / len(fresh)
        if settings.elicit_until and len(seen) >= settings.elicit_until:
            stopped = f"{len(seen)} different questions"
            break
        if gained < settings.elicit_min_yield:
            stopped = f"{gained:.1%} of the last {len(fresh)} were new questions"
            break
    count = len(bait_turns(domain, settings))
    return Elicited(texts, finishes, [i % count for i in range(len(texts))], stopped)


def _read(text: str, gates: dict[str, Any], protocol: str) -> questions.Question | questions.Rejected:
    if protocol != "released":
        return questions.extract_question(text, **gates)
    cleaned = questions.released_clean(text)
    return questions.Question(cleaned) if cleaned else questions.Rejected("empty", text)


def is_question(text: str, gates: dict[str, Any], protocol: str) -> bool:
    """Tell whether `read` would keep a completion (prefix included)."""
    return isinstance(_read(text, gates, protocol), questions.Question)


def read_questions(
    texts: Sequence[str],
    baits: Sequence[int],
    prefixes: Sequence[str],
    gates: dict[str, Any],
    protocol: str = "paper",
    finishes: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn raw completions (prefix included) into the tables `questions` and `rejected`; their lengths add up to len(texts).

    With protocol "released" the authors' cleaner takes the place of ours, and an empty string is its only rejection.
    `finishes` tells which prompts did not fit the model: these are rejected as such.
    """
    import pandas as pd

    kept, rejected = [], []
    for number, (text, bait, prefix) in enumerate(zip(texts, baits, prefixes, strict=True)):
        result = _read(text, gates, protocol)
        if finishes is not None and finishes[number] == TOO_LONG:
            result = questions.Rejected(TOO_LONG, text)
        row = {"id": number, "bait": bait, "prefix": prefix}
        if isinstance(result, questions.Question):
            kept.append({**row, "question": result.text})
        else:
            rejected.append({**row, "text": text, "reason": result.reason})
    columns = ["id", "question", "bait", "prefix"]
    return pd.DataFrame(kept, columns=columns), pd.DataFrame(
        rejected, columns=["id", "text", "bait", "prefix", "reason"]
    )


def yield_table(elicited: Elicited, table: pd.DataFrame, made: Sequence[Turn], by: Sequence[str]) -> pd.DataFrame:
    """Count by bait, prefix or temperature (`by`): completions, questions kept, different ones, and the share kept.

    `table` is the table of questions that `read` made; `made` are the `turns`.
    """
    import pandas as pd

    rows = pd.DataFrame(
        [{"bait": made[turn].bait, "prefix": made[turn].prefix, "temperature": made[turn].temperature} for turn in elicited.turns],
        columns=["bait", "prefix", "temperature"],
    )  # fmt: skip
    rows["question"] = pd.Series(table["question"].to_numpy(), index=table["id"].to_numpy(), dtype=object)
    counted = rows.groupby(list(by), sort=False).agg(
        sampled=("bait", "size"), kept=("question", "count"), different=("question", "nunique")
    )
    counted["yield"] = (counted["kept"] / counted["sampled"]).round(3)
    return counted.reset_index()
