"""Where the final answer of a solution stands, and how it is read there (ours).

One reader for each way of giving an answer; `answers.extract_answer` asks them in turn. Every reader looks at a bounded
stretch of text at a bounded number of places, so that hostile texts cost linear time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from crescent_utils.conclusions import OPERATOR, concluded, is_stated
from crescent_utils.normal_form import NUMBER_WORDS, is_number, normal_form
from crescent_utils.number_scan import numbers
from crescent_utils.plain_text import grouped, plain, without_latex

_WINDOW = 50_000  # ours: a solution is read from so many characters before its end
_TAIL = 6_000  # ours: how far from the end an answer that no mark announces may stand
_PAYLOAD = 400  # ours: how far behind its mark an announced answer may stand
_BOX = 4_000  # ours: the longest content of \boxed{} that is read
_TRIES = 24  # ours: how many marks of a kind are tried, the last one first
_NONE = ""  # an answer that says there is none

_SPOKEN = re.compile(
    rf"(?:negative |minus )?(?:an? )?{NUMBER_WORDS}(?:[ -](?:halves|half|thirds?|quarters?|fourths?|fifths?)\b)?", re.I
)
_SENTENCE = re.compile(
    r"\W*(?!(?:about|approximately|around|only|exactly|a total of|negative|minus|US|USD|Rs)\b)[^\W\d_]"
)
_UNIT_EQUALS = re.compile(r" [a-zA-Z]{2,20} ?= ?")  # "60 minutes = 1 hour" says the same twice
_PAIR = re.compile(r"[^a-zA-Z]{0,40} (?:and|or|to) [^a-zA-Z]{0,40}")
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")
_NEXT_QUESTION = re.compile(
    r"\n\s{0,8}(?:#{1,4} )?(?:\*\*)?(?:Q|Question|Problem|Human|User|Example)(?: \d+)?(?:\*\*)?\s*:"
    r"|<\|(?:im_end|eot_id|im_start|end|endoftext)\|>|</s>"
)
_MARK = re.compile(r"####|boxed\{|[aA]nswer|\nA:|\AA:")
_ANNOUNCED = re.compile(
    r"answers?(?:\(s\))?[*_'\"”]*(?: (?:to|for|of|in) (?:[^\"\n]{0,60}\"[^\"\n]{1,200}\"|[^.:=\n]{0,80}?))?\s*"
    r"(?:(?:is|are|was|will be|would be|should be|must be|equals|becomes|=|:|⇒|→|->|=>)(?!\w)[\s*_:]{0,12}"
    r"|[*_#]{0,4}\s{0,8}\n\s{0,8}|of (?=[-$\d]))"
    r"(?:(?:thus|therefore|then|also|indeed|simply|just)\b[ ,:]*)?",
    re.I,
)
_MINUS = re.compile(r"\A- (?=[$\d])")
_SEEKS = re.compile(r"\b(?:find|get|calculat|determin|comput|reach|obtain)[a-z]{0,3} (?:[a-z]{1,10} ){0,2}$", re.I)
_IS = re.compile(r" (?:is|are|was|were|would|will|should|must|equals|of|becomes)\b", re.I)
_VALUE_ALONE = re.compile(  # a number that is not the first of a sum: "18 apples", but not "48/2 = 24 clips"
    r"[\s$*_(\\\[\"'`]*(?:about |approximately |only )?[-+$€£ ]{0,3}[\d.,]*\d%?(?![\d.,]*\d)(?! ?[-+*/×÷x=] ?[\d$])"
)
_EXPLAINS = re.compile(
    r"\W*(?:explanation|reason|because|justification|note|steps?|solution|how|here is|here's|this is (?:how|why|because))\b",
    re.I,
)
_LABEL = re.compile(r"(?:^|\n)[ \t>*]{0,8}A(?:ns)?\*{0,2}[.:]\*{0,2}[ \t]{0,8}(?=\S)")
_HEADING = re.compile(r"\s*(?:step|part)\s*\d|\s*\d+[.)]\s+\S", re.I)
_CALLED = re.compile(
    r"[\s*_$:]*(?:(?:the )?(?:final )?(?:(?:answer|result)\b|solution\b(?=[ *]*:? *\S))(?: is)?[\s*_:]*)?", re.I
)
_STOP = re.compile(  # begins with a plain set of signs, which is searched for several times faster
    r"[.!?\n;](?:(?<=\n)|(?<=;)(?=\s)|(?=[\s\"')\]*]|$)(?<=[.!?])"
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\n\d\.)(?<!\n\d\d\.))"
)
_LAST_STOP = re.compile(rf"(?s:.*){_STOP.pattern}(?s:(?=.))")  # greedy: found from the end
_LAST_DIGIT = re.compile(r"(?s:.*)[0-9]")
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
_CHECK = re.compile(
    r"\W*(?:(?:to|let's|let me|let us|we can|double[- ])? ?(?:check|verif|proof|prove)|this is \S{1,12} (?:more|less|fewer)\b"
    r"|here(?:'s| is) (?:how|why)\b)",
    re.I,
)
_CUT_OFF = re.compile(
    r"(?:[-+*/×÷=(]|\b(?:is|are|equals|equal|to|by|and|of|the|an?|get|gives|with|(?<!sq )in|as|for|from|us|be|it))\s*$"
)


def last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    """The last of some matches, found in constant space."""
    final = deque(matches, maxlen=1)
    return final[0] if final else None


def _symbolic(text: str) -> str | None:
    """A short answer in LaTeX that is no plain number, such as twice a root."""
    inner = text.strip(" .*$")
    if "\\" not in inner or len(inner) > 200 or "boxed" in inner:
        return None
    form = normal_form(inner)
    return form if "\\" in form and not re.search(r"[a-z]{3,} [a-z]{2,}", without_latex(inner)) else None


def _announced(payload: str) -> str | None:
    """The answer in the words behind a mark: their first number, or what a sum that stands there comes to."""
    if form := _symbolic(payload):
        return form
    payload = without_latex(payload)
    found = numbers(payload)
    if not found:
        form = normal_form(payload)
        spoken = None if is_number(form) else _SPOKEN.search(payload)
        return form if is_number(form) else normal_form(spoken[0]) if spoken else None
    lead = payload[: found[0].start]
    if _SENTENCE.match(lead):  # "Each of the 4 friends gets 6 cookies", "x = 5"
        refuted = len(found) > 1 and lead.rstrip(" $*").endswith("not")
        return found[1].value if refuted else concluded(payload)
    equals = max(payload.rfind("="), payload.rfind("≈"))
    behind = [m for m in found if m.start > equals]
    converted = found[0].end < equals and found[1:] == behind and _UNIT_EQUALS.match(payload, found[0].end)
    if equals >= 0 and behind and not converted:
        return behind[0].value
    return found[-1 if OPERATOR.match(payload, found[0].end) else 0].value


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
    for at in _positions(text, "####") if "####" in text else ():
        line, _, rest = text[at + 4 : at + 4 + _PAYLOAD].lstrip("# \t\n").partition("\n")
        if "boxed{" in line:
            return boxed(line)
        if _HEADING.match(line):
            continue
        payload = _MINUS.sub("-", line[_CALLED.match(line).end() :])  # type: ignore[union-attr]
        called = payload != line
        if not called and _SENTENCE.match(line) and any(c in rest for c in "0123456789"):
            continue  # a heading with a solution under it
        found = _announced(payload if payload.strip(" *") else rest.strip().partition("\n")[0] if called else "")
        if found is not None:
            return found
        if payload.strip() and not rest.strip() and len(payload) <= 60:
            return _NONE if _UNKNOWN.match(payload) else normal_form(payload) or None
    return None


def boxed(text: str) -> str | None:
    """The content of the last box (boxed in LaTeX) that has one."""
    for at in _positions(text, "boxed{") if "boxed{" in text else ():
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
    words = re.search(r"[^\W\d_]{2}", simple) and not _PAIR.fullmatch(simple.strip())
    return (_announced(simple) or form) if words or "=" in simple else form


def stated(text: str) -> str | None:
    """What is called the answer: "The answer is 18", "Answer: 18", "A: 18": the last of them that holds an answer."""
    lower = text.lower() if text.isascii() else text
    for at in _positions(lower, "nswer") if "nswer" in lower else ():
        mark = _ANNOUNCED.match(text, at - 1) if at else None
        if mark:
            payload = _sentence_from(text, mark.end())
            if _UNKNOWN.match(payload):
                return _NONE
            heading = not _IS.search(mark[0]) and not lower.endswith("final ", 0, at - 1)
            if heading and (_SEEKS.search(text, max(0, at - 40), at - 1) or _opens_solution(text, mark.end(), payload)):
                continue
            found = _announced(payload if "\n" in mark[0] else _MINUS.sub("-", payload))
            if found is not None:
                return found
    may = "A:" in text or "A*" in text or "A." in text or "Ans" in text  # a label has one of these
    label = last(_LABEL.finditer(text)) if may else None
    if label is None:
        return None
    payload = _sentence_from(text, label.end())
    return None if _opens_solution(text, label.end(), payload) else _announced(payload)


def _opens_solution(text: str, start: int, payload: str) -> bool:
    """Whether "Answer:" is the heading of a whole solution, whose first sentence `payload` is not its answer."""
    rest = text[start : start + 2 * _PAYLOAD].partition(payload)[2] if payload else ""
    if "=" in payload and "=" in rest:  # one step of several
        return not _EXPLAINS.match(rest)
    if _VALUE_ALONE.match(payload) and not (payload == "1" and "\n2" in rest):  # a list begins there
        return False
    return any(c in rest for c in "0123456789") and not _EXPLAINS.match(rest)


def _sentence_start(text: str, low: int, high: int) -> int:
    stop = _LAST_STOP.match(text, low, high + 1)
    return stop.end() if stop else 0


def _sentences_from_end(text: str, most: int) -> Iterator[str]:
    """The last sentences that hold a digit, the last one first."""
    tail = text[-_TAIL:]
    for _ in range(most):
        until = _LAST_DIGIT.match(tail)
        if not until:
            return
        digit = until.end() - 1
        near = max(0, digit - _PAYLOAD)  # most sentences begin nearby
        start = _sentence_start(tail, near, digit) or (near and _sentence_start(tail, 0, digit))
        end = _STOP.search(tail, digit + 1)
        yield tail[start : end.start() if end else len(tail)]
        tail = tail[:start]


def _is_cut_off(text: str) -> bool:
    end = text[-20:].rstrip()[-1:]
    return (end.isalpha() or end in "-+*/×÷=(") and _CUT_OFF.search(text[-20:]) is not None


def last_number(text: str) -> str | None:
    """The answer of a text without a mark, from its last sentences."""
    first, spare, cut_off = None, None, _is_cut_off(text)
    for sentence in _sentences_from_end(text, 4):
        found = concluded(sentence)
        if found is None:
            continue
        if _CHECK.match(sentence):
            spare = spare or found
        elif first is None:
            first = found
            cut_off = cut_off and text.rstrip().endswith(sentence.rstrip())
            if not cut_off and ("=" in sentence or not _ASIDE.match(sentence)):
                return found
        elif cut_off or _CUE.match(sentence) or "=" in sentence:
            return found
    return first or spare


def last_words(text: str) -> str | None:
    """A number in words, where the text has no digit at all."""
    tail = text[-_PAYLOAD:]
    stated = [m for m in _SPOKEN.finditer(tail) if m.start() == 0 or is_stated(tail, m.start())]
    return normal_form(stated[-1][0]) if stated else None


def solution(text: str) -> str:
    """The part that can hold the answer: without thoughts, annotations and next questions, of bounded length."""
    if "think>" in text and ("<think>" in text or "</think>" in text):  # thoughts that were cut off hold no answer
        text = text.rpartition("</think>")[2].partition("<think>")[0]
    if len(text) > _WINDOW:  # from its end, but never from within a number
        text = text[len(text[:-_WINDOW].rstrip("0123456789.,")) :]
    text = grouped(plain(text))
    if "<<" in text:
        text = _ANNOTATION.sub("", text)
    cut = _NEXT_QUESTION.search(text) if _may_go_on(text) else None
    return _before_next_problem(text[: cut.start()] if cut and _answers_before(text, cut) else text)


def _may_go_on(text: str) -> bool:
    """Whether a substring that `_NEXT_QUESTION` needs stands anywhere: spelt out, which takes half of the time of a loop."""
    return (
        "Q" in text or "<|" in text or "Problem" in text or "User" in text or "Human" in text
        or "Example" in text or "</s>" in text
    )  # fmt: skip


def _before_next_problem(text: str) -> str:
    """A base model goes on after its "#### 18" with a problem of its own, and solves that too."""
    first = text.find("####")
    end = text.find("\n", first) if first >= 0 else -1
    again = text.find("####", end) if end >= 0 else -1
    if again < 0 or "?" not in text[end:again] or end - first > 40:
        return text
    return text[:end] if _VALUE_ALONE.match(text, first + 4) else text


def _answers_before(text: str, cut: re.Match[str]) -> bool:
    """Whether the answer stands before a next question, and not behind a problem that is only said again."""
    before = text[: cut.start()]
    if _MARK.search(before) or cut[0].lstrip().startswith("<"):
        return any(c in before for c in "0123456789")
    return "=" in before and not _MARK.search(text, cut.end())
