"""Where the final answer of a solution stands, and how it is read there (ours).

One reader for each way of giving an answer; `answers.extract_answer` asks them in turn. Every reader looks at a bounded
stretch of text at a bounded number of places, so that hostile texts cost linear time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from crescent_utils.normal_form import NUMBER_WORDS, is_number, normal_form
from crescent_utils.number_scan import Found, is_stated, numbers
from crescent_utils.plain_text import plain, without_latex

_WINDOW = 50_000  # ours: a solution is read from so many characters before its end
_TAIL = 6_000  # ours: how far from the end an answer that no mark announces may stand
_PAYLOAD = 400  # ours: how far behind its mark an announced answer may stand
_BOX = 4_000  # ours: the longest content of \boxed{} that is read
_TRIES = 24  # ours: how many marks of a kind are tried, the last one first
_NONE = ""  # an answer that says there is none

_SPOKEN = re.compile(
    rf"(?:negative |minus )?(?:an? )?{NUMBER_WORDS}(?:[ -](?:halves|half|thirds?|quarters?|fourths?|fifths?)\b)?", re.I
)
_OPERATOR = re.compile(r"[ ]?(?:[a-zA-Z$%]{0,12}[ ])?(?:[-+*/×÷x^] ?[\d$(]|(?:times|plus|minus|divided|multiplied)\b)")
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")
_NEXT_QUESTION = re.compile(
    r"\n\s{0,8}(?:#{1,4} )?(?:\*\*)?(?:Q|Question|Problem|Human|User|Example)(?: \d+)?(?:\*\*)?\s*:"
    r"|<\|(?:im_end|eot_id|im_start|end|endoftext)\|>|</s>"
)
_ANNOUNCED = re.compile(
    r"answers?(?:\(s\))?[*_'\"”]*(?: (?:to|for|of|in) (?:[^\"\n]{0,60}\"[^\"\n]{1,200}\"|[^.:=\n]{0,80}?))?\s*"
    r"(?:(?:is|are|was|will be|would be|should be|must be|equals|becomes|=|:|⇒|→|->|=>)(?!\w)[\s*_:]{0,12}"
    r"|[*_#]{0,4}\s{0,8}\n\s{0,8}|of (?=[-$\d]))"
    r"(?:(?:thus|therefore|then|also|indeed|simply|just)\b[ ,:]*)?",
    re.I,
)
_LABEL = re.compile(r"(?:^|\n)[ \t>*]{0,8}A(?:ns)?\*{0,2}[.:]\*{0,2}[ \t]{0,8}(?=\S)")
_HEADING = re.compile(r"\s*(?:step|part)\s*\d|\s*\d+[.)]\s+\S", re.I)
_CALLED = re.compile(r"[\s*_$:]*(?:(?:the )?(?:final )?(?:answer|result|solution)\b(?: is)?[\s*_:]*)?", re.I)
_STOP = re.compile(  # begins with a plain set of signs, which is searched for several times faster
    r"[.!?\n;](?:(?<=\n)|(?<=;)(?=\s)|(?=[\s\"')\]*]|$)(?<=[.!?])"
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\n\d\.)(?<!\n\d\d\.))"
)
_UNKNOWN = re.compile(
    r"\s*\**(?:un(?:known|determined|defined|clear)\b|can ?not\b|can't\b|not (?:enough|possible|known|given"
    r"|determin)"
    r"|impossible\b|there is (?:no|not)\b|none\b|n/a\b|insufficient\b|indeterminate\b)",
    re.I,
)
_CUE = re.compile(
    r"\W*(?:so|therefore|thus|hence|finally|in total|in all|altogether|in conclusion|as a result|this means|"
    r"that means|which means|consequently)\b",
    re.I,
)
_ASIDE = re.compile(
    r"\W*(?:(?:a )?reminder|note|check|verif|let me|let's (?:check|verify)|remember|for example|this is an?\b|this can"
    r"|you can|we can|"
    r"i hope|if you|hope|please|here|in this (?:example|joke|math|context)"
    r"|in (?:the context|math|mathematics|other words)\b|keep in mind|source|reference)",
    re.I,
)
_CUT_OFF = re.compile(
    r"(?:[-+*/×÷=(,]|\b(?:is|are|equals|equal|to|by|and|of|the|an?|get|gives|with|in|as|for|from|us|be|it))\s*$"
)
_BECAUSE = re.compile(r"(?<!and )(?<!, )\b(?:because|since)\b", re.I)
_IS_ANSWER = re.compile(
    r"[^.\d]{0,20}\bis (?:indeed )?(?:the|your|our) (?:correct |final )?(?:answer|result|solution)\b", re.I
)
_ROUNDS = re.compile(r"\bround(?:s|ed|ing)?(?: (?:up|down|off|it|this|that))* to (?:about )?$", re.I)
_PLACES = re.compile(r" (?:decimal|significant|place|digit)", re.I)
_BOLD = re.compile(r"\*\*([^*\n]{1,120})\*\*")


def last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    """The last of some matches, found in constant space."""
    final = deque(matches, maxlen=1)
    return final[0] if final else None


def _symbolic(text: str) -> str | None:
    """A short answer in LaTeX that is no plain number, such as twice a root."""
    inner = text.strip(" .*").removeprefix("\\(").removesuffix("\\)").strip(" $.")
    if "\\" not in inner or len(inner) > 200:
        return None
    form = normal_form(inner)
    return form if "\\" in form and not re.search(r"[a-z]{3,} [a-z]{2,}", without_latex(inner)) else None


def _announced(payload: str) -> str | None:
    """The answer in the words behind a mark: behind their last "=", or the last of a sum, or the first."""
    if form := _symbolic(payload):
        return form
    payload = without_latex(payload)
    found = numbers(payload)
    if not found:
        spoken = _SPOKEN.search(payload)
        return normal_form(spoken[0]) if spoken else None
    equals = max(payload.rfind("="), payload.rfind("≈"))
    behind = [m for m in found if m.start > equals]
    if equals >= 0 and behind:
        return behind[0].value
    if _OPERATOR.match(payload, found[0].end):
        return found[-1].value
    refuted = len(found) > 1 and payload[: found[0].start].rstrip(" $*").endswith("not")
    return found[1 if refuted else 0].value


def _sentence_from(text: str, start: int) -> str:
    """The first sentence or line with something in it from `start` on."""
    window = text[start : start + _PAYLOAD].lstrip(" \t\n*_:>-" if text[start : start + 2] == "\n-" else " \t\n*_:>")
    stop = _STOP.search(window)
    while stop and stop.start() and not window[: stop.start()].strip(" $*\\[("):
        stop = _STOP.search(window, stop.end())
    first = window[: stop.start()] if stop else window
    if first.rstrip().endswith((":", "\\[", "$$")) and stop:
        return first + " " + _sentence_from(window, stop.end())
    return first


def _positions(text: str, mark: str) -> Iterator[int]:
    """Where `mark` stands, the last place first."""
    at = len(text)
    for _ in range(_TRIES):
        at = text.rfind(mark, 0, at)
        if at < 0:
            return
        yield at


def after_hashes(text: str) -> str | None:
    """GSM8K's own form, `#### 18`, also `#### Answer: 18`; a Markdown heading is not one."""
    for at in _positions(text, "####"):
        line, _, rest = text[at + 4 : at + 4 + _PAYLOAD].lstrip("# \t\n").partition("\n")
        if _HEADING.match(line):
            continue
        payload = line[_CALLED.match(line).end() :]  # type: ignore[union-attr]
        called = payload != line
        found = _announced(payload if payload.strip(" *") else rest.strip().partition("\n")[0] if called else "")
        if found is not None:
            return found
        if payload.strip() and not rest.strip() and len(payload) <= 60:
            return _NONE if _UNKNOWN.match(payload) else normal_form(payload) or None
    return None


def boxed(text: str) -> str | None:
    """The content of the last box (boxed in LaTeX) that has one."""
    for at in _positions(text, "boxed{"):
        depth = 1
        content = text[at + 6 : at + 6 + _BOX]
        for brace in re.finditer(r"[{}]", content):
            depth += 1 if brace[0] == "{" else -1
            if not depth:
                content = content[: brace.start()]
                break
        if not content.strip():
            continue
        if _UNKNOWN.match(without_latex(content).strip()):
            return _NONE
        form = normal_form(content if len(content) <= _PAYLOAD else content[:_PAYLOAD])
        return form if is_number(form) or "\\" in form else _words_or_number(content, form)
    return None


def _words_or_number(content: str, form: str) -> str:
    """A box that holds a number among words is that number, else its words or pair of numbers."""
    simple = without_latex(content[:_PAYLOAD])
    one = len(numbers(simple)) == 1 and re.search(r"[^\W\d_]{2}", simple)
    return (_announced(simple) or form) if one or "=" in simple else form


def stated(text: str) -> str | None:
    """What is called the answer: "The answer is 18", "Answer: 18", "A: 18": the last of them that holds an answer."""
    lower = text.lower() if text.isascii() else text
    for at in _positions(lower, "nswer"):
        mark = _ANNOUNCED.match(text, at - 1) if at else None
        if mark:
            payload = _sentence_from(text, mark.end())
            if _UNKNOWN.match(payload):
                return _NONE
            found = _announced(payload)
            if found is not None:
                return found
    label = last(_LABEL.finditer(text)) if "A" in text else None
    return _announced(_sentence_from(text, label.end())) if label else None


def _concluded(sentence: str) -> str | None:
    """The answer in a sentence without a mark: in bold, behind "=", behind "is", or its last number."""
    sentence = without_latex(sentence)
    found = numbers(sentence)
    if not found:
        return None
    because = _BECAUSE.search(sentence)
    found = [m for m in found if because and m.start < because.start()] or found
    if named := _named(sentence, found):
        return named.value
    if len(found) == 1:
        return found[0].value
    bold = [m for m in _BOLD.finditer(sentence) if numbers(m[1])]
    if bold:
        return _announced(bold[-1][1])
    equals = max(sentence.rfind("="), sentence.rfind("≈"))
    if equals >= 0:
        behind = [m for m in found if m.start > equals]
        if behind and not _OPERATOR.match(sentence, behind[0].end):
            return behind[0].value
    stated = [m for m in found if is_stated(sentence, m.start)]
    return (stated or found)[-1].value


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


def _sentence_start(text: str, low: int, high: int) -> int:
    return max((m.end() for m in _STOP.finditer(text, low, high + 1) if m.end() <= high), default=0)


def _sentences_from_end(text: str, most: int) -> Iterator[str]:
    """The last sentences that hold a digit, the last one first."""
    tail = text[-_TAIL:]
    for _ in range(most):
        digit = max(map(tail.rfind, "0123456789"))
        if digit < 0:
            return
        near = max(0, digit - _PAYLOAD)  # most sentences begin nearby
        start = _sentence_start(tail, near, digit) or (near and _sentence_start(tail, 0, digit))
        end = _STOP.search(tail, digit + 1)
        yield tail[start : end.start() if end else len(tail)]
        tail = tail[:start]


def last_number(text: str) -> str | None:
    """The answer of a text without a mark, from its last sentences."""
    first, cut_off = None, _CUT_OFF.search(text[-20:]) is not None
    for sentence in _sentences_from_end(text, 4):
        found = _concluded(sentence)
        if found is None:
            continue
        if first is None:
            first = found
            cut_off = cut_off and text.rstrip().endswith(sentence.rstrip())
            if not cut_off and ("=" in sentence or not _ASIDE.match(sentence)):
                return found
        elif cut_off or _CUE.match(sentence) or "=" in sentence:
            return found
    return first


def last_words(text: str) -> str | None:
    """A number in words, where the text has no digit at all."""
    tail = text[-_PAYLOAD:]
    stated = [m for m in _SPOKEN.finditer(tail) if m.start() == 0 or is_stated(tail, m.start())]
    return normal_form(stated[-1][0]) if stated else None


def solution(text: str) -> str:
    """The part that can hold the answer: without thoughts, annotations and next questions, of bounded length."""
    text = text[text.rfind("</think>") + 8 :] if "</think>" in text else text
    if len(text) > _WINDOW:  # from its end, but never from within a number
        text = text[len(text[:-_WINDOW].rstrip("0123456789.,")) :]
    text = plain(text)
    if "<<" in text:
        text = _ANNOTATION.sub("", text)
    cut = _NEXT_QUESTION.search(text) if "\n" in text or "<" in text else None
    return text[: cut.start()] if cut and any(c in text[: cut.start()] for c in "0123456789") else text
