"""Reading: find the final answer in a text that a model wrote (ours).

`extract_answer` tries, in this order: what stands behind `####`, the last box, what is called the answer ("The answer is
18", "Answer: 18"), the last sentences with a number, a number in words. The file goes from small to large: the numbers in
a text with their signs; which of the numbers of a sentence is its conclusion; the readers of announced answers and of last
sentences; `extract_answer`; and beside it the rules of others, for comparison (`released_answer`, `strict_answer`,
`flexible_answer`). Digits are found first and read around, which is several times faster than one pattern that starts
anywhere, and every reader takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from .normal_form import NUMBER_WORDS, VALUE, grouped, is_number, normal_form, plain, value_of, without_latex

# --- the numbers in a text --------------------------------------------------------------------------------------------

_MOST = 2_000  # ours: a stretch of text has no more numbers that matter
_VALUE = re.compile(VALUE, re.X | re.I)
_CONTINUED = (  # what makes more of a number than its digits: a fraction, ratio, power, "million"
    r"(?![\d:/^×]|[*xeEhHtTmMbB]|[.,]\d|[ ](?:[\d/:^*x×]|and (?:\d|an?[ ]|one[ -])|[hH]undred|[tT]housand|[mbtMBT]r?illion))"
)
# The next digit, and in group 1 the whole number where it stands free: nothing before it can be its sign, nothing goes on behind it.
# That is the most frequent case by far. The looks back stand behind the first digit, so that the search can skip to digits.
_DIGIT = re.compile(
    rf"([0-9](?:(?<=[ \n(=*+][0-9])(?<![$€£¥₹₽₱₩¢] [0-9])(?<![=:s]- [0-9])(?<![=:s] - [0-9])"
    r"(?<!(?:ve|us|ep|EP|rt|on) [0-9])|(?<=[^-]\$[0-9])|(?<=\A[0-9]))"
    rf"[0-9]{{0,14}}{_CONTINUED}(?=[ %$=*+-]|, |\Z))|[0-9]"
)
_RUN = re.compile(r"[\w.,]*")
_WHOLE = re.compile(rf"[0-9]{{1,15}}{_CONTINUED}")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.I)
_LIST_LABEL = re.compile(r"[.)](?=\s+[A-Z*])")
_SPACED_MINUS = re.compile(r"(?:[=:]|\bis) ?- $")
_CURRENCY = "$€£¥₹₽₱₩¢"
_NEGATIVE = ("negative ", "is minus ", "= minus ", ": minus ")
_STEPS = ("step ", "Step ", "STEP ", "part ", "Part ", "equation ", "Equation ")
_GOES_ON = " %$/=*+-"  # behind most numbers; no label ends so
_CJK = "\u2e80", "\ud7ff"  # scripts without spaces: a number may follow a word there directly


class Found(NamedTuple):
    """A number in a text: where it stands, and its value in normal form."""

    start: int
    end: int
    value: str


_new = partial(tuple.__new__, Found)  # the class's own constructor takes twice as long


def _is_negative(text: str, at: int) -> bool:
    """Whether a minus before the number at `at` is a sign and not an operation."""
    at -= 1
    if at > 0 and text[at] == " ":
        before = text[at - 1]
        if before == "-" and _SPACED_MINUS.search(text, max(0, at - 5), at + 1):
            return True
        if before.isalpha():
            return before in "es" and text.endswith(_NEGATIVE, 0, at + 1)
    if at > 0 and text[at] == " " and text[at - 1] in _CURRENCY:
        at -= 1
    if at > 0 and text[at] in _CURRENCY:
        at -= 1
    if at < 0 or text[at] != "-":
        return False
    before = text[at - 1] if at else " "
    return before == "$" or not (before.isalnum() or before in "_)]}%.")


def _start(text: str, digit: int) -> int:
    """Where the number begins whose first digit this is; -1 if the digits belong to a word."""
    if not digit:
        return 0
    before = text[digit - 1]
    if before == "." and (digit < 2 or not (text[digit - 2].isalnum() or text[digit - 2] == ".")):
        return digit - 1
    if before.isalnum() and not _CJK[0] <= before <= _CJK[1]:
        return -1
    return -1 if before in "._" else digit


def numbers(text: str) -> list[Found]:
    """The numbers of a text that can be an answer: no ordinals (unless behind "="), no labels of a list."""
    found: list[Found] = []
    is_ratio = ":" in text and "ratio" in text
    digit = _DIGIT.search(text)
    while digit and len(found) < _MOST:
        if free := digit[1]:
            end = digit.end()
            found.append(_new((digit.start(), end, free if free[0] != "0" else free.lstrip("0") or "0")))
            digit = _DIGIT.search(text, end)
            continue
        start = _start(text, digit.start())
        match = None if start < 0 else _WHOLE.match(text, start) or _VALUE.match(text, start)
        if match is None:
            run = _RUN.match(text, digit.start())
            digit = _DIGIT.search(text, run.end() if run else digit.end())
            continue
        end = match.end()
        if not _is_label(text, start, end):
            negative = _is_negative(text, start)
            if match.re is _WHOLE:
                value = match[0].lstrip("0") or "0"
                value = f"-{value}" if negative and value != "0" else value
            else:
                value = value_of(match, negative, is_ratio)
            found.append(Found(start, end, value))
        digit = _DIGIT.search(text, end)
    return found


def _is_label(text: str, start: int, end: int) -> bool:
    after = text[end : end + 1]
    if not after or after in _GOES_ON:
        return False
    if after in ":.,)" and text.endswith(_STEPS, 0, start):
        return True
    if after in ".)":
        return not text[:start].strip() and _LIST_LABEL.match(text, end) is not None
    if after.isalpha() and _ORDINAL.match(text, end):
        return not text[max(0, start - 8) : start].rstrip().endswith("=")
    return False


# --- what a sentence concludes ----------------------------------------------------------------------------------------

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


# --- announced answers and last sentences -----------------------------------------------------------------------------

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


# --- the final answer of a text ---------------------------------------------------------------------------------------

KINDS = ("number", "choice")
_READERS = (after_hashes, boxed, stated, last_number, last_words)
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
        match = last(pattern.finditer(text[-_TAIL:]))
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
    text = solution(text)
    if kind == "choice":
        return _choice(text)
    for read in _READERS:
        found = read(text)
        if found is not None:
            return found or None  # an empty string: the text says that there is no answer
    return None


# --- the rules of others ----------------------------------------------------------------------------------------------

_RELEASED = re.compile(r"-?\d*\.?\d+")
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def _last_match(pattern: re.Pattern[str], text: str, signs: str) -> re.Match[str] | None:
    """The last match of a pattern whose matches hold only these signs, from the end of the text where that is enough."""
    begin = len(text[:-_TAIL].rstrip(signs))
    return last(pattern.finditer(text, begin)) or (last(pattern.finditer(text)) if begin else None)


def released_answer(text: str) -> float | None:
    r"""The authors' released rule: the last match of -?\d*\.?\d+ as a float (so "1,234" gives 234)."""
    match = _last_match(_RELEASED, text, "-.0123456789") if text.isascii() else None
    match = match or last(_RELEASED.finditer(text))  # \d also means the digits of other scripts
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
