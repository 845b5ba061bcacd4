"""The final answer of a free-form solution: extraction, equality, and the rules of others to compare with.

`extract_answer` is ours; `released_answer` does what the authors' public code does, `strict_answer` and
`flexible_answer` what lm-evaluation-harness does on GSM8K (its filters strict-match and flexible-extract).
"""

from __future__ import annotations

import re

from crescent_utils import answer_readers as readers
from crescent_utils.normal_form import is_integer, is_number, normal_form
from crescent_utils.symbolic import is_expression, symbolic_name

__all__ = ["answers_equal", "extract_answer", "flexible_answer", "normal_form", "released_answer", "strict_answer"]

KINDS = ("number", "choice")
_READERS = (readers.after_hashes, readers.boxed, readers.stated, readers.last_number, readers.last_words)


_TAIL = 6_000  # ours: how far from the end a letter may stand
_CHOICES = [
    re.compile(r"boxed\{\s{0,8}(?:\\text\w{0,8}\{)?\s{0,8}\(?([A-Ja-j])\)?\W{0,8}\}|####\s{0,8}\(?([A-Ja-j])\)?(?!\w)"),
    re.compile(
        r"(?i:answer|choice|option)(?i:\s{1,8}(?:is|would be|should be|must be)|s?\s{0,8}[:=]|)[\s*_:]{0,12}(?i:option "
        r"|choice )?"
        r"[\"'*]*(?:\(([A-Ja-j])\)|([A-J])(?![\w'’])|([a-j])(?=\)|[.,:](?!\w)|[\"'*_.\s]{0,8}(?:$|\n)))"  # not "answer: a dog"
    ),
    re.compile(r"\(([A-J])\)|(?:^|\n)[ \t*_>(]{0,8}([A-J]|[a-j](?=[*_.)])|[a-j](?=\s{0,8}$))[ \t*_.)]{0,8}(?:$|\n)"),
    re.compile(r"(?:^|\n)[ \t*]{0,8}([A-J])[.):]\s|\b([B-HJ])\b[.\s]{0,8}$"),
]


def _choice(text: str) -> str | None:
    """The letter of a multiple-choice answer: boxed, announced, in brackets, or alone on a line."""
    for pattern in _CHOICES:
        match = readers.last(pattern.finditer(text[-_TAIL:]))
        if match:
            return next(letter for letter in match.groups() if letter).upper()
    return None


def extract_answer(text: str, kind: str = "number") -> str | None:
    r"""The final answer of a solution in normal form, None where there is none.

    Announced answers come first (`#### x`, `\boxed{x}`, "the answer is x", "Answer: x"), the last one winning; then
    the last sentence with a number: in bold, behind "=", behind "is", or its last number. kind="choice" reads a letter.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(KINDS)}")
    text = readers.solution(text)
    if kind == "choice":
        return _choice(text)
    for read in _READERS:
        found = read(text)
        if found is not None:
            return found or None  # an empty string: the text says that there is no answer
    return None


def equality_class(answer: str) -> str:
    """The name of an answer's class: its normal form, or what a symbolic expression amounts to."""
    form = normal_form(answer)
    return normal_form(symbolic_name(form)) if is_expression(form) else form


def answers_equal(a: str, b: str) -> bool:
    """Whether two answers are the same; an equivalence, since it compares the names of their classes."""
    if is_integer(a) and is_integer(b):  # by far the most frequent case
        return a == b
    one, other = normal_form(a), normal_form(b)
    if one == other or (is_number(one) and is_number(other)):
        return one == other
    return equality_class(a) == equality_class(b)


_RELEASED = re.compile(r"-?\d*\.?\d+")
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def _last_match(pattern: re.Pattern[str], text: str, signs: str) -> re.Match[str] | None:
    """The last match of a pattern whose matches hold only these signs, from the end of the text where that is enough."""
    begin = len(text[:-_TAIL].rstrip(signs))
    return readers.last(pattern.finditer(text, begin)) or (readers.last(pattern.finditer(text)) if begin else None)


def released_answer(text: str) -> float | None:
    r"""The authors' released rule: the last match of -?\d*\.?\d+ as a float (so "1,234" gives 234)."""
    match = _last_match(_RELEASED, text, "-.0123456789") if text.isascii() else None
    match = match or readers.last(_RELEASED.finditer(text))  # \d also means the digits of other scripts
    return float(match[0]) if match else None


def _cleaned(answer: str) -> str:
    return re.sub(r"\.$", "", answer.replace(",", "").replace("$", ""))


def strict_answer(text: str) -> str | None:
    """lm-evaluation-harness, gsm8k strict-match: the first `#### x`; None stands for its "[invalid]"."""
    match = _STRICT.search(text)
    return _cleaned(match[1]) if match else None


def flexible_answer(text: str) -> str | None:
    """lm-evaluation-harness, gsm8k flexible-extract: the last number-like run; None stands for "[invalid]"."""
    match = _last_match(_FLEXIBLE, text, "-$.,0123456789")
    return _cleaned(match[0]) if match else None
