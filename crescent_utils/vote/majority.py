"""Majority vote over final answers, and the choice of the winning path."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from ..answers import equality_class, normal_form

TIES = ("seeded", "first", "abstain")


@dataclass(frozen=True)
class Vote:
    """The outcome of a vote. `agreement` is votes / total, and `total` counts unreadable answers too."""

    answer: str | None  # normal form of the winner; None: abstained
    votes: int  # of the leading answer, also where the vote abstained
    total: int
    agreement: float
    tied: bool  # another answer had as many votes
    margin: float  # lead over the runner-up, as a share of total
    entropy: float  # of the readable answers, in bits
    reason: str  # why it abstained: no_answer | tie | min_agreement | min_margin


def majority_vote(
    answers: Sequence[str | None],
    min_agreement: float = 0.0,
    *,
    ties: str = "seeded",
    seed: int = 0,
    min_margin: float = 0.0,
    none_can_win: bool = False,
) -> Vote:
    """Return the outcome of a vote over final answers (Crescent's consensus, LMSI's self-consistency).

    Answers are grouped by `answers_equal`. "Could not be read" (None) counts in the total but is never a candidate,
    unless `none_can_win` (released code): then it can lead, and a win of None is no answer. Of tied answers, "seeded"
    draws one by `seed` whatever the order of the answers, "first" takes the one seen first (released), "abstain" none.
    """
    if ties not in TIES:
        raise ValueError(f"ties={ties!r}: allowed are {', '.join(TIES)}")
    for parameter, value in (("min_agreement", min_agreement), ("min_margin", min_margin)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{parameter}={value!r}: give a share from 0 to 1")
    counts: Counter[str | None] = Counter()
    first_spellings: dict[str | None, str] = {}
    for answer in answers:
        name = None if answer is None else equality_class(answer)
        counts[name] += 1
        if answer is not None and name not in first_spellings:
            first_spellings[name] = answer
    readable = {name: n for name, n in counts.items() if name is not None}
    candidates = counts if none_can_win else readable
    total = len(answers)
    votes, runner_up, *_ = [*sorted(candidates.values(), reverse=True), 0, 0]
    leaders = [name for name, n in candidates.items() if n == votes]
    tied = len(leaders) > 1
    agreement, margin = (votes / total, (votes - runner_up) / total) if total else (0.0, 0.0)
    winner = leaders[0] if leaders else None
    if tied and ties == "seeded":  # sorted first, so that the draw does not depend on the order of the paths
        winner = random.Random(seed).choice(sorted(leaders, key=lambda name: (name is None, name or "")))
    if tied and ties == "abstain":
        reason = "tie"
    elif winner is None:
        reason = "no_answer"
    elif agreement < min_agreement:
        reason = "min_agreement"
    else:
        reason = "min_margin" if margin < min_margin else ""
    label = None if reason else normal_form(first_spellings[winner])
    return Vote(label, votes, total, agreement, tied, margin, _entropy(list(readable.values())), reason)


def _entropy(counts: Sequence[int]) -> float:
    total = sum(counts)
    return abs(sum(n / total * log2(total / n) for n in sorted(counts))) if total else 0.0


def tie_seed(seed: int, question: int) -> int:
    """Return what draws a tie, or a path, for question number `question` of a run with this seed."""
    return seed * 1_000_003 + question


def choose_path(
    paths: Sequence[str],
    answers: Sequence[str | None],
    winner: str,
    rule: str,
    seed: int = 0,
    likelihoods: Sequence[float] | None = None,
) -> list[int]:
    """Return which of the paths that reach the winner become training targets, by position in ascending order.

    "first" is the released rule (the path seen first), "all" is LMSI's, "shortest", "random" and "most_likely" are
    ours. `likelihoods` are the paths' mean log-probabilities per token, in nats; "most_likely" alone needs them.
    """
    if rule == "most_likely" and likelihoods is None:
        raise ValueError("rule='most_likely' needs one of `likelihoods` for each path; 'shortest' needs none")
    name = equality_class(winner)
    won = [i for i, answer in enumerate(answers) if answer is not None and equality_class(answer) == name]
    if not won or rule == "all":
        return won
    if rule == "random":
        return [random.Random(seed).choice(won)]
    if rule == "most_likely" and likelihoods is not None:
        return [max(won, key=lambda i: (likelihoods[i], -i))]
    if rule == "first":
        return won[:1]
    return [min(won, key=lambda i: (len(paths[i]), i))]
