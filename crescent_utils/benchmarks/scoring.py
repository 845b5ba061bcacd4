"""Scoring: does a completion end on the gold answer? Three rules side by side, for each form that a gold can have.

`strict` wants the asked-for form (GSM8K's `#### x`), `flexible` takes what stands last, `symbolic` is ours: what the text announces
as its answer, equal as a value. For numbers the first two are lm-evaluation-harness's strict-match and flexible-extract, compared as
text like there. The rules for the other forms are ours:

- list (ASDiv's "6 (cm); 15 (cm)"): all golds must stand among the numbers, in any order;
- text (a name, a ratio, a time, yes or no): the gold's words must stand there, whole and in order, whatever the case;
- choice (BIG-Bench Hard): the letter;
- none (GSM-Plus's critical thinking): the text must say that there is no answer; to write nothing, or to be cut, is no such thing.
"""

from __future__ import annotations

import re
from collections import Counter

from .. import answers

SCORINGS = ("strict", "flexible", "symbolic")
FORMS = ("number", "list", "text", "choice", "none")
_HASHES = re.compile(r"####[ \t]*([^\n]{1,300})")
_ANNOUNCED = re.compile(r"(?i:\banswers?\b[ \t]*(?:is|are|was|would be|:|=)+|####|\\boxed\{)[ \t*:]*([^\n]{1,300})")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_LETTER = re.compile(r"\(([A-Z])\)")
_NO_ANSWER = re.compile(
    r"\b(?:can(?:no|')t|can not|could not|impossible to|unable to|not possible to) (?:be )?(?:determined?|calculated?|answer(?:ed)?"
    r"|solved?|know|known|find|found|say|said|tell|told)\b|\b(?:do not|don't) (?:know|have enough|have sufficient)\b"
    r"|\b(?:not|no) (?:enough|sufficient) (?:information|data|detail)|\binsufficient (?:information|data)|\bmissing (?:information|data)"
    r"|\b(?:is|are|was) (?:unknown|undetermined|indeterminate|none|not (?:given|specified|provided|stated|known))\b|^\W*(?:none|unknown)\b",
    re.I,
)


def score_answer(completion: str, gold: str, form: str = "number") -> dict[str, bool]:
    """Say for each scoring whether `completion` ends on the answer `gold`. An unreadable answer is wrong."""
    if form == "number":
        strict, flexible = answers.strict_answer(completion), answers.flexible_answer(completion)
        symbolic = answers.extract_answer(completion)
        equal = symbolic is not None and answers.answers_equal(symbolic, gold)
        return {"strict": strict == gold, "flexible": flexible == gold, "symbolic": equal}
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown: allowed are {', '.join(FORMS)}")
    hashes, last, said = _after_hashes(completion), _last_sentence(completion), final_statement(completion)
    if form == "choice":
        letters = (_letter(hashes), _letter(completion), answers.extract_answer(completion, "choice"))
        return {name: letter == gold for name, letter in zip(SCORINGS, letters, strict=True)}
    holds = {"list": _holds_numbers, "text": _holds_words, "none": _says_none}[form]
    return {name: holds(text, gold) for name, text in zip(SCORINGS, (hashes, last, said), strict=True)}


def read_scored_answer(completion: str, form: str = "number") -> str | None:
    """What the symbolic scoring read: an answer in normal form, a letter, else the final statement; None: nothing."""
    if form in ("number", "choice"):
        return answers.extract_answer(completion, form)
    return final_statement(completion) or None


def final_statement(completion: str) -> str:
    """What the text last announces as its answer ("the answer is …", `####`, a box), to the end of the line; else its last sentence."""
    found = None
    for found in _ANNOUNCED.finditer(completion):  # noqa: B007 - the last one counts
        pass
    return found[1].strip() if found else _last_sentence(completion)


def _after_hashes(completion: str) -> str:
    found = _HASHES.search(completion)
    return found[1].strip() if found else ""


def _last_sentence(completion: str) -> str:
    lines = [line.strip() for line in completion.splitlines() if line.strip()]
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", lines[-1])[-1] if lines else ""


def _letter(text: str) -> str | None:
    found = _LETTER.findall(text)
    return found[-1] if found else None


def _holds_numbers(text: str, gold: str) -> bool:
    there = Counter(answers.normal_form(number) for number in _NUMBER.findall(text))
    return Counter(map(answers.normal_form, gold.split(";"))) <= there


def _holds_words(text: str, gold: str) -> bool:
    words = _words(gold)
    return bool(words) and f" {words} " in f" {_words(text)} "


def _words(text: str) -> str:
    text = re.sub(r"(\d)\s*(?::|\bto\b)\s*(?=\d)", r"\1:", text.lower())  # the ratio "3 to 4" is 3:4
    text = re.sub(r"(?<=\b[ap])\.\s?m\b\.?", "m", text)  # 5 p.m. is 5 pm
    return " ".join(re.findall(r"[\w:]+|[^\w\s.,!?*\"'’]", text))


def _says_none(text: str, gold: str) -> bool:
    return _NO_ANSWER.search(text) is not None
