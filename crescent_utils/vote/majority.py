"""Majority vote over final answers, and the choice of the winning path."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from ..answers import equality_class, normal_form

TIES = ("seeded", "first", "abstain")
RULES = ("shortest", "random", "all", "first", "most_likely")
_UNREADABLE = None


@dataclass(frozen=True)
class Vote:
    """The outcome of a vote. `agreement` is votes / total, and `total` counts unreadable answers too."""

    answer: str | None  # normal form of the winner; None: abstained
    votes: int  # of the leading answer, also where the vote abstained
    total: int
    agreement: float
    tied: bool  # another answer had as many votes
    margin: float = 0.0  # lead over the runner-up, as a share of total
    entropy: float = 0.0  # of the readable answers, in bits
    unreadable: int = 0
    distinct: int = 0  # different readable answers
    reason: str = ""  # why it abstained: no_answer | tie | min_agreement | min_margin


def _check(ties: str, min_agreement: float, min_margin: float) -> None:
    if ties not in TIES:
        raise ValueError(f"ties={ties!r}: allowed are {', '.join(TIES)}")
    for name, value in (("min_agreement", min_agreement), ("min_margin", min_margin)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value!r}: give a share from 0 to 1")


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
    _check(ties, min_agreement, min_margin)
    counts: dict[str | None, int] = {}
    shown: dict[str | None, str | None] = {_UNREADABLE: None}
    for answer in answers:
        name = _UNREADABLE if answer is None else equality_class(answer)
        counts[name] = counts.get(name, 0) + 1
        if answer is not None and name not in shown:
            shown[name] = normal_form(answer)
    unreadable = counts.get(None, 0)
    readable = [n for form, n in counts.items() if form is not None]
    candidates = counts if none_can_win else {form: n for form, n in counts.items() if form is not None}
    total = len(answers)
    ranked = sorted(candidates.values(), reverse=True)
    votes = ranked[0] if ranked else 0
    leaders = [form for form, n in candidates.items() if n == votes]
    margin = (votes - (ranked[1] if len(ranked) > 1 else 0)) / total if total else 0.0
    agreement = votes / total if total else 0.0
    winner = _break_tie(leaders, ties, seed)
    reason = _reason(winner, leaders, ties, agreement < min_agreement, margin < min_margin)
    return Vote(
        answer=None if reason else shown[winner],
        votes=votes,
        total=total,
        agreement=agreement,
        tied=len(leaders) > 1,
        margin=margin,
        entropy=_entropy(readable),
        unreadable=unreadable,
        distinct=len(readable),
        reason=reason,
    )


def _break_tie(leaders: list[str | None], ties: str, seed: int) -> str | None:
    if not leaders or (len(leaders) > 1 and ties == "abstain"):
        return None
    if len(leaders) == 1 or ties == "first":
        return leaders[0]
    # Sorted first, so that the draw does not depend on the order in which the paths were sampled.
    return random.Random(seed).choice(sorted(leaders, key=lambda form: (form is None, form or "")))


def _reason(winner: str | None, leaders: list[str | None], ties: str, low: bool, narrow: bool) -> str:
    if len(leaders) > 1 and ties == "abstain":
        return "tie"
    if winner is None:
        return "no_answer"
    if low:
        return "min_agreement"
    return "min_margin" if narrow else ""


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
    rule: str = "shortest",
    seed: int = 0,
    likelihoods: Sequence[float] | None = None,
) -> list[int]:
    """Return which of the paths that reach the winner become training targets, by position in ascending order.

    "first" is the released rule (the path seen first), "all" is LMSI's, "shortest", "random" and "most_likely" are
    ours. `likelihoods` are the paths' mean log-probabilities per token, in nats; "most_likely" alone needs them.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}: allowed are {', '.join(RULES)}")
    if len(paths) != len(answers):
        raise ValueError(f"{len(paths)} paths but {len(answers)} answers: give one answer (or None) for each path")
    if rule == "most_likely" and (likelihoods is None or len(likelihoods) != len(paths)):
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
