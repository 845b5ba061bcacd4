"""Scoring: does a completion end on the gold answer? Three rules side by side, for each form that a gold can have.

`strict` wants the form that the prompt prescribes (GSM8K's `#### x`), `flexible` takes what stands last, `symbolic` is
ours: what the text announces as its answer, equal as a value. For numbers the first two are lm-evaluation-harness's
strict-match and flexible-extract, compared as text like there. The rules for the other forms are ours:

- list (ASDiv's "6 (cm); 15 (cm)"): all golds must stand among the numbers, in any order;
- text (a name, a ratio, a time, yes or no): the gold's words must stand there, whole and in order, whatever the case;
- choice (BIG-Bench Hard): the letter;
- none (GSM-Plus's critical thinking): the text must say that there is no answer; an empty or unfinished text does not.
"""

from __future__ import annotations

import functools
import re
from collections import Counter

from .. import answers

SCORINGS = ("strict", "flexible", "symbolic")
FORMS = ("number", "list", "text", "choice", "none")
NO_ANSWER = (  # how a text says that there is no answer
    r"\b(?:can(?:no|')t|can not|could not|impossible to|unable to|not possible to) (?:be )?"
    r"(?:determined?|calculated?|answer(?:ed)?|solved?|know|known|find|found|say|said|tell|told)\b",
    r"\b(?:do not|don't) (?:know|have enough|have sufficient)\b",
    r"\b(?:not|no) (?:enough|sufficient) (?:information|data|detail)",
    r"\b(?:insufficient|missing) (?:information|data)",
    r"\b(?:is|are|was) (?:unknown|undetermined|indeterminate|none|not (?:given|specified|provided|stated|known))\b",
    r"^\W*(?:none|unknown)\b",
)
_NO_ANSWER = re.compile("|".join(NO_ANSWER), re.I)
_HASHES = re.compile(r"####[ \t]*([^\n]{1,300})")
_ANNOUNCED = re.compile(r"(?i:\banswers?\b[ \t]*(?:is|are|was|would be|:|=)+|####|\\boxed\{)[ \t*:]*([^\n]{1,300})")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_LETTER = re.compile(r"\(([A-Z])\)")


def score_answer(completion: str, gold: str, form: str = "number") -> dict[str, bool]:
    """Return for each scoring whether `completion` ends on the answer `gold`. An unreadable answer is wrong.

    `form` is the item's; one that is not in `FORMS` raises ValueError.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown: allowed are {', '.join(FORMS)}")
    if form == "number":
        announced = _announced(completion, form)
        return {
            "strict": answers.strict_answer(completion) == gold,
            "flexible": answers.flexible_answer(completion) == gold,
            "symbolic": announced is not None and answers.answers_equal(announced, gold),
        }
    after_hashes = _after_hashes(completion)
    if form == "choice":
        letters = (_last_letter(after_hashes), _last_letter(completion), _announced(completion, form))
        return {scoring: letter == gold for scoring, letter in zip(SCORINGS, letters, strict=True)}
    states = {"list": _states_numbers, "text": _states_words, "none": _states_no_answer}[form]
    passages = (after_hashes, _last_sentence(completion), final_statement(completion))
    return {scoring: states(passage, gold) for scoring, passage in zip(SCORINGS, passages, strict=True)}


def read_scored_answer(completion: str, form: str = "number") -> str | None:
    """Return what the symbolic scoring read: an answer in normal form, a letter, else the final statement.

    None: there is nothing to read.
    """
    if form in ("number", "choice"):
        return _announced(completion, form)
    return final_statement(completion) or None


@functools.lru_cache(maxsize=64)  # what was just scored is shown next: the same text is read twice in a row
def _announced(completion: str, form: str) -> str | None:
    return answers.extract_answer(completion, form)


def final_statement(completion: str) -> str:
    """Return what the text announces last as its answer, to the end of the line; else its last sentence.

    An answer is announced by "the answer is …", by `####` or by a box.
    """
    announced = _ANNOUNCED.findall(completion)
    return announced[-1].strip() if announced else _last_sentence(completion)


def _after_hashes(completion: str) -> str:
    match = _HASHES.search(completion)
    return match[1].strip() if match else ""


def _last_sentence(completion: str) -> str:
    lines = [line.strip() for line in completion.splitlines() if line.strip()]
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", lines[-1])[-1] if lines else ""


def _last_letter(text: str) -> str | None:
    letters = _LETTER.findall(text)
    return letters[-1] if letters else None


def _states_numbers(text: str, gold: str) -> bool:
    """Whether all gold numbers stand in the text, each as often as in the gold."""
    numbers = Counter(answers.normal_form(number) for number in _NUMBER.findall(text))
    return Counter(map(answers.normal_form, gold.split(";"))) <= numbers


def _states_words(text: str, gold: str) -> bool:
    """Whether the gold's words stand in the text, whole and in order."""
    words = _words(gold)
    return bool(words) and f" {words} " in f" {_words(text)} "


def _words(text: str) -> str:
    text = re.sub(r"(\d)\s*(?::|\bto\b)\s*(?=\d)", r"\1:", text.lower())  # the ratio "3 to 4" is 3:4
    text = re.sub(r"(?<=\b[ap])\.\s?m\b\.?", "m", text)  # 5 p.m. is 5 pm
    return " ".join(re.findall(r"[\w:]+|[^\w\s.,!?*\"'’]", text))


def _states_no_answer(text: str, gold: str) -> bool:
    return _NO_ANSWER.search(text) is not None
