"""Which number of a sentence is the one that it concludes on, where no mark announces an answer (ours).

"After 5 weeks she has $90 left of her $200" concludes on 90: what a sentence says its subject is, has or costs counts for
more than what stands behind a preposition, in brackets, or in a clause that only says why or when.
"""

from __future__ import annotations

import re

from crescent_utils.number_scan import Found, numbers
from crescent_utils.plain_text import without_latex

OPERATOR = re.compile(r"[ ]?(?:[a-zA-Z$%]{0,12}[ ])?(?:[-+*/×÷x^] ?[\d$(]|(?:times|plus|minus|divided|multiplied)\b)")
_SUM = re.compile(r" ?(?:[a-z]{1,12} )?[-+*×÷] ?[\d$(]")
_BECAUSE = re.compile(
    r"(?<!and )(?<!, )\b(?:because|since|if)\b|\b(?:compared (?:to|with)|instead of|rather than)\b", re.I
)
_IS_ANSWER = re.compile(
    r"[^.\d]{0,20}\bis (?:indeed )?(?:the|your|our) (?:correct |final )?(?:answer|result|solution)\b", re.I
)
_ROUNDS = re.compile(r"\bround(?:s|ed|ing)?(?: (?:up|down|off|it|this|that))* to (?:about )?$", re.I)
_PLACES = re.compile(r" (?:decimal|significant|place|digit)", re.I)
_BOLD = re.compile(r"\*\*([^*\n]{1,120})\*\*")
_BRACKETS = re.compile(r"\([^()\n]{0,200}[a-zA-Z=][^()\n]{0,200}\)")
_SO = re.compile(
    r"\b(?:so(?! (?:far|that(?!['’])|many|much|long|as)\b)|therefore|thus|hence|which means|that means|that['’]s|then)\b",
    re.I,
)
# Plain substrings that one of the two patterns needs: looking for them first is several times faster.
_BECAUSE_HINTS = ("ecause", "ince", "if ", "If ", "ompared", "nstead", "ather")
_SO_HINTS = ("so", "So", "herefore", "hus", "ence", "means", "that", "hen")
_OPENING = re.compile(
    r"\W*(?:(?:so|and|but|now|then|thus|therefore|hence)\b,? )?(?:if|since|because|as|after|in|for|with|given|when|of"
    r"|out|at|by|to|on|from|before|among|during|over|within|while|although|assuming)\b",
    re.I,
)
_SUBJECT = re.compile(  # "13 packs are needed for 100 guests", "18 apples remain"
    r"(?: [a-z]{1,20}){0,3} (?:(?:are|is|were|was|will be) (?:left|needed|required|remaining|enough|what\b"
    r"|the (?:total|amount|number|final|correct|result|sum|cost|price|most|least|minimum|maximum)\b)"
    r"|remains?\b|remained\b|left\b)"
)
_COMPARED = re.compile(
    r"[ %]{0,2}(?:[a-z]{1,12} ){0,2}(?:more|less|fewer|older|younger|longer|shorter|greater|higher|lower)\b"
)

_HEDGES = frozenset("about approximately only still exactly now then us you just at least".split())
_VERBS = frozenset(
    "is are was were be equals get gets give gives make makes making leaves yields takes need needs spend spends "
    "spent earn earns earned pay pays paid save saves saved total totals has have cost costs means require requires owe owes = ≈".split()
)
_PAIRS = frozenset(
    ["equal to", "equals to", "total of", "left with", "leave with", "comes to"]
    + ["amounts to", "adds to", "down to", "calculated as", "expressed as"]
)
_COMPUTE = frozenset(
    "add subtract multiply divide convert combine take consider use calculate solve find get perform".split()
)
_TO_WHOM = frozenset("take takes took cost costs give gives gave leave leaves left pay pays paid".split())
_WHOM = frozenset("him her them me it".split())
_MUST = frozenset("need needs needed has have had able must will would can should going".split())
_DETERMINERS = frozenset(
    "the a an his her their its my our those these all every each other last first next remaining original".split()
)
_OPERATORS = frozenset("+-*/×÷")
_PREPOSITIONS = frozenset(
    "in on at for after before from with within over during per than by out under since until between among through "
    "as every each".split()
)


def _words_before(text: str, start: int) -> list[str]:
    before = text[max(0, start - 60) : start].replace("*", " ").replace("_", " ").replace("$", " ")
    words = before.split()
    while words and words[-1].lower() in _HEDGES:
        words.pop()
    return words


def _states(words: list[str]) -> bool:
    """Whether words end on a verb that says what something is or amounts to, maybe with its indirect object."""
    last, pair = words[-1].lower(), [word.lower() for word in words[-3:]]
    if len(pair) > 1 and pair[-2] == "to" and last.isalpha():
        # "she needs to sell 90 tickets to make $450", but not "we need to add 90"
        return last not in _COMPUTE if pair[0] in _MUST else len(pair) > 2 and last in ("find", "get", "give", "equal")
    if last == "take":  # "it would take 5 days", but not "now take 5 and add 3"
        return pair[-2:-1] in (["would"], ["will"])
    if last in _VERBS or " ".join(pair[-2:]) in _PAIRS:
        return True
    if last == "as":  # "28 + 26 as 42"
        return len(pair) > 1 and pair[-2][-1:].isdigit()
    if len(pair) > 1 and pair[-2] in _TO_WHOM and (last in _WHOM or words[-1].istitle()):
        return True
    return False


def is_stated(text: str, start: int) -> bool:
    """Whether the words before a number state it as a result: "is about 5", "gives **5**", "= 5"."""
    words = _words_before(text, start)
    return bool(words) and _states(words)


def _standing(text: str, number: Found) -> int:
    """How much speaks for a number: 2 it is stated, 1 nothing against it, 0 it stands in a phrase of its own."""
    words = _words_before(text, number.start)
    if _SUM.match(text, number.end) or (words and words[-1] in _OPERATORS):
        return -1  # of a sum that nobody works out
    if not words:
        return 1
    if words[-2:] == ["which", "is"] and _COMPARED.match(text, number.end):
        return 0
    if _states(words):
        return 2
    bare = len(words)
    while len(words) > 1 and words[-1].lower() in _DETERMINERS:
        words.pop()
    last, before = words[-1].lower(), words[-2].lower() if len(words) > 1 else ""
    if last == "of":  # "a profit of 18", but not "4 of 16", "out of 16", "of the 16", "packs of 8"
        return int(len(words) == bare and not before[-1:].isdigit() and before != "out" and before[-1:] != "s")
    return int(before != "to" and (last not in _PREPOSITIONS or before.startswith("result")))


def concluded(sentence: str) -> str | None:
    """The answer in a sentence without a mark, None where it has no number."""
    sentence = without_latex(sentence)
    found = numbers(sentence)
    if not found:
        return None
    because = _BECAUSE.search(sentence) if any(map(sentence.__contains__, _BECAUSE_HINTS)) else None
    if because:
        end = sentence.find(", ", because.end())
        found = [m for m in found if m.start < because.start() or m.start > end >= 0] or found
    if named := _named(sentence, found):
        return named.value
    if len(found) == 1:
        return found[0].value
    bold = [number for m in _BOLD.finditer(sentence) if (number := concluded(m[1]))]
    return bold[-1] if bold else _weighed(sentence, *_main_clause(sentence, found))


def _weighed(sentence: str, begin: int, found: list[Found]) -> str:
    """The value of the number that most speaks for: behind "=", stated, the subject of what is left or needed."""
    equals = max(sentence.rfind("=", begin), sentence.rfind("≈", begin))
    if found[-1].end > equals >= 0:
        behind = [m for m in found if m.start > equals]
        if behind and not OPERATOR.match(sentence, behind[0].end):
            return behind[0].value
        if found[0].end <= equals and sentence[: found[0].start].rstrip()[-1:] in ("", ":") and found[1].start > equals:
            return found[0].value  # "18 = 3 + 15"
    first = found[0]
    if _SUBJECT.match(sentence, first.end) and not any(is_stated(sentence, m.start) for m in found):
        return first.value
    standing = [_standing(sentence, m) for m in found]
    best = max(standing)
    return [m for m, weight in zip(found, standing, strict=True) if weight == best][-1].value


def _main_clause(sentence: str, found: list[Found]) -> tuple[int, list[Found]]:
    """Where the main clause begins, and its numbers: not in brackets, behind "so", behind a clause that says why or when."""
    if "(" in sentence:
        spans = [m.span() for m in _BRACKETS.finditer(sentence)]
        found = [n for n in found if not any(low < n.start < high for low, high in spans)] or found
    begin = 0
    if any(map(sentence.__contains__, _SO_HINTS)):
        begin = max((m.end() for m in _SO.finditer(sentence) if m.end() < found[-1].start), default=0)
    opening = _OPENING.match(sentence, begin)
    comma = sentence.find(", ", opening.end()) if opening else -1
    begin = comma if begin < comma < found[-1].start else begin
    return begin, [n for n in found if n.start >= begin]


def _named(sentence: str, found: list[Found]) -> Found | None:
    """The number that the sentence calls its answer ("12 is the answer"), or to which it rounds."""
    answer, rounds = " is " in sentence, "round" in sentence
    for number in reversed(found) if answer or rounds else ():
        if answer and _IS_ANSWER.match(sentence, number.end):
            return number
        before = _ROUNDS.search(sentence, max(0, number.start - 40), number.start) if rounds else None
        if before and not _PLACES.match(sentence, number.end):
            return number
    return None
