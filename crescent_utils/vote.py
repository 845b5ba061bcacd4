"""Majority vote over final answers, choice of the winning path, and LMSI's four path formats."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from crescent_utils.answers import equality_class, normal_form

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
    """Vote over final answers (Crescent's consensus, LMSI's self-consistency).

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
    """Which of the paths that reach the winner become training targets, by position.

    "first" is the released rule (the path seen first), "all" is LMSI's, "shortest", "random" and "most_likely" are ours.
    `likelihoods` are the paths' mean log-probabilities a token, in nats; "most_likely" alone needs them.
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
    return [won[0] if rule == "first" else min(won, key=lambda i: (len(paths[i]), i))]


Message = dict[str, str]
STEP_BY_STEP = "Let's think step by step."  # Kojima et al. 2022, as LMSI uses it
LMSI_FORMATS = ("few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct")


@dataclass(frozen=True)
class Exemplar:
    """A worked example for LMSI's few-shot formats."""

    question: str
    path: str
    answer: str


# Worked by us, as the house wants it; LMSI's own exemplars are those of Wei et al. (2022).
EXEMPLARS: dict[str, tuple[Exemplar, ...]] = {
    "arithmetic": (
        Exemplar("What is 14 + 8?", "14 + 8 is 14 + 6 + 2, which is 22. The answer is 22.", "22"),
        Exemplar("What is 31 - 9?", "31 - 9 is 31 - 10 + 1, which is 22. The answer is 22.", "22"),
        Exemplar("What is 6 * 7?", "6 * 7 is 6 * 6 + 6, which is 42. The answer is 42.", "42"),
    ),
    "math_word_problems": (
        Exemplar(
            "A baker fills 6 trays with 8 rolls each and sells 35 rolls before noon. How many rolls are left?",
            "The baker makes 6 * 8 = 48 rolls. After 35 are sold, 48 - 35 = 13 are left. The answer is 13.",
            "13",
        ),
        Exemplar(
            "Mira saves 4 dollars a week and her uncle adds 10 dollars once. After how many weeks can she buy a lamp "
            "for 42 dollars?",
            "Without the gift she needs 42 - 10 = 32 dollars. At 4 dollars a week that takes 32 / 4 = 8 weeks. "
            "The answer is 8.",
            "8",
        ),
        Exemplar(
            "A tank holds 90 litres and is two thirds full. A pump takes out 15 litres. How many litres remain?",
            "Two thirds of 90 litres are 90 / 3 * 2 = 60 litres. After the pump, 60 - 15 = 45 litres remain. "
            "The answer is 45.",
            "45",
        ),
    ),
}


@dataclass(frozen=True)
class FormattedPath:
    """One training text of LMSI: the format's name, the prompt, and the completion to learn."""

    format: str
    prompt: str
    completion: str

    @property
    def messages(self) -> list[Message]:
        """The same as a chat of two turns."""
        return [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.completion}]


def lmsi_formats(question: str, path: str, answer: str, exemplars: Sequence[Exemplar]) -> list[FormattedPath]:
    """LMSI's four formats of one path: few-shot CoT, few-shot direct, zero-shot CoT cue, zero-shot direct."""
    direct = f"The answer is {answer}."

    def few_shot(completions: Sequence[str]) -> str:
        shown = [f"Q: {e.question}\nA: {text}\n\n" for e, text in zip(exemplars, completions, strict=True)]
        return "".join(shown) + f"Q: {question}\nA:"

    prompts = (
        few_shot([e.path for e in exemplars]),
        few_shot([f"The answer is {e.answer}." for e in exemplars]),
        f"Q: {question}\nA: {STEP_BY_STEP}",
        f"Q: {question}\nA:",
    )
    completions = (path, direct, path, direct)
    return [FormattedPath(*row) for row in zip(LMSI_FORMATS, prompts, completions, strict=True)]
