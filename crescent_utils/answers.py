"""The final answer of a free-form solution: extraction, equality, and the rules of others to compare with.

`extract_answer` is ours; `released_answer` does what the authors' public code does, `strict_answer` and
`flexible_answer` what lm-evaluation-harness does on GSM8K (its filters strict-match and flexible-extract).
"""

from __future__ import annotations

import re

from crescent_utils import answer_readers as readers
from crescent_utils.normal_form import normal_form

__all__ = [
    "answers_equal",
    "extract_answer",
    "flexible_answer",
    "normal_form",
    "released_answer",
    "strict_answer",
]

KINDS = ("number", "choice")
_READERS = (
    readers.after_hashes,
    readers.boxed,
    readers.stated,
    readers.last_number,
    readers.last_words,
)


def extract_answer(text: str, kind: str = "number") -> str | None:
    r"""The final answer of a solution in normal form, None where there is none.

    Announced answers come first (`#### x`, `\boxed{x}`, "the answer is x", "Answer: x"), the last one winning; then
    the last sentence with a number: in bold, behind "=", behind "is", or its last number. kind="choice" reads a letter.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(KINDS)}")
    text = readers.solution(text)
    if kind == "choice":
        return readers.choice(text)
    for read in _READERS:
        found = read(text)
        if found is not None:
            return found or None  # an empty string: the text says that there is no answer
    return None


def answers_equal(a: str, b: str) -> bool:
    """Whether two answers are the same: an equivalence, since it compares normal forms."""
    return normal_form(a) == normal_form(b)


_RELEASED = re.compile(r"-?\d*\.?\d+")
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def released_answer(text: str) -> float | None:
    """The authors' released rule: the last match of -?\\d*\\.?\\d+ as a float (so "1,234" gives 234)."""
    last = None
    for last in _RELEASED.finditer(text):
        pass
    return float(last[0]) if last else None


def _cleaned(answer: str) -> str:
    return re.sub(r"\.$", "", answer.replace(",", "").replace("$", ""))


def strict_answer(text: str) -> str | None:
    """lm-evaluation-harness, gsm8k strict-match: the first `#### x`; None stands for its "[invalid]"."""
    match = _STRICT.search(text)
    return _cleaned(match[1]) if match else None


def flexible_answer(text: str) -> str | None:
    """lm-evaluation-harness, gsm8k flexible-extract: the last number-like run; None stands for "[invalid]"."""
    last = None
    for last in _FLEXIBLE.finditer(text):
        pass
    return _cleaned(last[0]) if last else None
