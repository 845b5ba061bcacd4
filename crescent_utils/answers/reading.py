"""Reading: find the final answer in a text that a model wrote (ours).

`extract_answer` tries, in this order: what stands behind `####`, the last box, what is called the answer ("The answer
is 18", "Answer: 18"), the last sentences with a number, a number in words. The file goes from small to large: the
numbers in a text with their signs; which of the numbers of a sentence is its conclusion; the readers of announced
answers and of last sentences; `extract_answer`; and beside it the rules of others, for comparison (`released_answer`,
`strict_answer`, `flexible_answer`). Digits are searched first and read around, which is several times faster than one
pattern that starts anywhere, and every reader takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from .normal_form import NUMBER_WORDS, VALUE, grouped, is_number, normal_form, plain, value_of, without_latex

# --- the numbers in a text --------------------------------------------------------------------------------------------

_MOST_NUMBERS = 2_000  # ours: a stretch of text has no more numbers that matter
_VALUE = re.compile(VALUE, re.X | re.I)
_CONTINUED_DIRECTLY = r"[\d:/^×]|[*xeEhHtTmMbB]|[.,]\d"  # "3/4", "6:8", "2^5", "1e5", "5th"
_CONTINUED_LATER = r"[ ](?:[\d/:^*x×]|and (?:\d|an?[ ]|one[ -])|[hH]undred|[tT]housand|[mbtMBT]r?illion)"  # "5 million"
_COMPLETE = rf"(?!{_CONTINUED_DIRECTLY}|{_CONTINUED_LATER})"
_NO_SIGN_BEFORE = (
    r"(?<![$€£¥₹₽₱₩¢] [0-9])(?<![=:s]- [0-9])(?<![=:s] - [0-9])"  # "-$ 5", "= - 5", "is - 5"
    r"(?<!(?:ve|us|ep|EP|rt|on) [0-9])"  # "negative 5", "minus 5"; and the labels "step 5", "part 5", "equation 5"
)
_FREE = rf"(?:(?<=[ \n(=*+][0-9]){_NO_SIGN_BEFORE}|(?<=[^-]\$[0-9])|(?<=\A[0-9]))"
_FREE_BEHIND_WORDS = rf"(?<=[^\s] [0-9]){_NO_SIGN_BEFORE}"  # "the answer is 5.": no label, whatever stands behind it
# The next digit, or the whole number where it stands free: nothing before it can be its sign, nothing goes on behind
# it. That is the most frequent case by far; the empty group 1 marks it. The looks back stand behind the first digit, so
# that the search skips to digits.
_DIGIT = re.compile(
    rf"[0-9](?:(?:{_FREE}[0-9]{{0,14}}{_COMPLETE}(?=[ \n%$=*+-]|, |\Z)"
    rf"|{_FREE_BEHIND_WORDS}[0-9]{{0,14}}{_COMPLETE}(?=[.)](?:\s|\Z)))()|)"
)
_RUN = re.compile(r"[\w.,]*")
_WHOLE_NUMBER = re.compile(rf"[0-9]{{1,15}}{_COMPLETE}")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.I)
_LIST_LABEL = re.compile(r"[.)](?=\s+[A-Z*])")
_SPACED_MINUS = re.compile(r"(?:[=:]|\bis) ?- $")
_CURRENCY = "$€£¥₹₽₱₩¢"
_NEGATIVE = ("negative ", "is minus ", "= minus ", ": minus ")
_STEPS = ("step ", "Step ", "STEP ", "part ", "Part ", "equation ", "Equation ")
_BEHIND_NUMBERS = " %$/=*+-"  # the signs behind most numbers; no label ends so
_CJK = "\u2e80", "\ud7ff"  # scripts without spaces: a number may follow a word there directly


class Number(NamedTuple):
    """A number in a text: where it stands, and its value in normal form."""

    start: int
    end: int
    value: str


_new_number = partial(tuple.__new__, Number)  # the class's own constructor takes twice as long


def _numbers_in(text: str) -> list[Number]:
    """Return the numbers that can be an answer: no ordinals (unless behind "="), no labels of a list."""
    numbers: list[Number] = []
    is_ratio = ":" in text and "ratio" in text
    digit = _DIGIT.search(text)
    while digit and len(numbers) < _MOST_NUMBERS:
        if digit.lastindex:
            value, (start, end) = digit[0], digit.span()
            if value[0] == "0":
                value = value.lstrip("0") or "0"
            numbers.append(_new_number((start, end, value)))
            digit = _DIGIT.search(text, end)
            continue
        start = _number_start(text, digit.start())
        match = None if start < 0 else _WHOLE_NUMBER.match(text, start) or _VALUE.match(text, start)
        if match is None:
            digit = _DIGIT.search(text, _RUN.match(text, digit.start()).end())  # type: ignore[union-attr]
            continue
        end = match.end()
        if not _is_label(text, start, end):
            numbers.append(Number(start, end, _signed_value(match, _is_negative(text, start), is_ratio)))
        digit = _DIGIT.search(text, end)
    return numbers


def _number_start(text: str, digit: int) -> int:
    """Return where the number begins whose first digit this is; -1 if the digits belong to a word."""
    if not digit:
        return 0
    before = text[digit - 1]
    if before == "." and (digit < 2 or not (text[digit - 2].isalnum() or text[digit - 2] == ".")):
        return digit - 1
    if before.isalnum() and not _CJK[0] <= before <= _CJK[1]:
        return -1
    return -1 if before in "._" else digit


def _signed_value(match: re.Match[str], negative: bool, is_ratio: bool) -> str:
    if match.re is not _WHOLE_NUMBER:
        return value_of(match, negative, is_ratio)
    value = match[0].lstrip("0") or "0"
    return f"-{value}" if negative and value != "0" else value


def _is_negative(text: str, start: int) -> bool:
    """Return whether a minus before the number at `start` is a sign and not an operation."""
    at = start - 1
    if at > 0 and text[at] == " ":
        before = text[at - 1]
        if before == "-" and _SPACED_MINUS.search(text, max(0, at - 5), at + 1):
            return True
        if before.isalpha():
            return before in "es" and text.endswith(_NEGATIVE, 0, at + 1)
        if before in _CURRENCY:
            at -= 1
    if at > 0 and text[at] in _CURRENCY:
        at -= 1
    if at < 0 or text[at] != "-":
        return False
    before = text[at - 1] if at else " "
    return before == "$" or not (before.isalnum() or before in "_)]}%.")


def _is_label(text: str, start: int, end: int) -> bool:
    """Return whether a number counts something else: "Step 2:", "2. Then", "2nd"."""
    after = text[end : end + 1]
    if after in _BEHIND_NUMBERS:
        return False
    if after in ":.,)" and text.endswith(_STEPS, 0, start):
        return True
    if after in ".)":
        return not text[:start].strip() and _LIST_LABEL.match(text, end) is not None
    if after.isalpha() and _ORDINAL.match(text, end):
        return not text[max(0, start - 8) : start].rstrip().endswith("=")
    return False


# --- what a sentence concludes ----------------------------------------------------------------------------------------

_CONCLUSION = re.compile(
    r"\W*(?:so|therefore|thus|hence|finally|in total|in all|altogether|in conclusion|as a result|this means|that means"
    r"|which means|consequently)\b",
    re.I,
)
_CONDITION = re.compile(
    r"\W*(?:(?:so|and|but|now|then|thus|therefore|hence)\b,? )?(?:if|since|because|as|after|in|for|with|given|when|of"
    r"|out|at|by|to|on|from|before|among|during|over|within|while|although|assuming)\b",
    re.I,
)
_EXPLANATION = re.compile(
    r"\W*(?:explanation|reason|because|justification|note|steps?|solution|how|here is|here's"
    r"|this is (?:how|why|because))\b",
    re.I,
)
_CHECK = re.compile(
    r"\W*(?:(?:to|let's|let me|let us|we can|double[- ])? ?(?:check|verif|proof|prove)"
    r"|this is \S{1,12} (?:more|less|fewer)\b|here(?:'s| is) (?:how|why)\b)",
    re.I,
)
_ASIDE = re.compile(
    r"\W*(?:(?:a )?reminder|note|check|verif|let me|let's (?:check|verify)|remember|for example|this is an?\b|this can"
    r"|you can|we can|i hope|if you|hope|please|here|in this (?:example|joke|math|context)"
    r"|in (?:the context|math|mathematics|other words)\b|keep in mind|source|reference)",
    re.I,
)

_OPERATION = re.compile(r"[ ]?(?:[a-zA-Z$%]{0,12}[ ])?(?:[-+*/×÷x^] ?[\d$(]|(?:times|plus|minus|divided|multiplied)\b)")
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
_SO = re.compile(  # begins with a set of signs, which is searched for several times faster
    r"[hstwHSTW](?<!\w[hstwHSTW])(?i:(?<=s)o(?! (?:far|that(?!['’])|many|much|long|as)\b)"
    r"|(?<=t)h(?:erefore|us|at means|at['’]s|en)|(?<=h)ence|(?<=w)hich means)\b"
)
# Plain substrings that one of the two patterns needs: looking for them first is several times faster.
_BECAUSE_HINTS = ("ecause", "ince", "if ", "If ", "ompared", "nstead", "ather")
_SO_HINTS = ("so", "So", "herefore", "hus", "ence", "means", "that", "hen")
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
    "spent earn earns earned pay pays paid save saves saved total totals has have cost costs means require requires "
    "owe owes = ≈".split()
)
_VERB_PAIRS = frozenset(
    ["equal to", "equals to", "total of", "left with", "leave with", "comes to"]
    + ["amounts to", "adds to", "down to", "calculated as", "expressed as"]
)
_OPERATION_VERBS = frozenset(
    "add subtract multiply divide convert combine take consider use calculate solve find get perform".split()
)
_PURPOSE_VERBS = frozenset("find get give equal".split())  # "we multiply 4 by 2 to find 8"
_TRANSFER_VERBS = frozenset("take takes took cost costs give gives gave leave leaves left pay pays paid".split())
_RECEIVERS = frozenset("him her them me it".split())
_NEED_VERBS = frozenset("need needs needed has have had able must will would can should going".split())
_DETERMINERS = frozenset(
    "the a an his her their its my our those these all every each other last first next remaining original".split()
)
_OPERATORS = frozenset("+-*/×÷")
_PREPOSITIONS = frozenset(
    "in on at for after before from with within over during per than by out under since until between among through "
    "as every each".split()
)


def _has_one_of(text: str, hints: tuple[str, ...]) -> bool:
    for hint in hints:  # any(map(...)) takes twice as long
        if hint in text:
            return True
    return False


def _words_before(text: str, start: int) -> list[str]:
    """Return the words that lead to `start`, without hedges such as "about" at their end."""
    before = text[max(0, start - 60) : start].replace("*", " ").replace("_", " ").replace("$", " ")
    words = before.split()
    while words and words[-1].lower() in _HEDGES:
        words.pop()
    return words


def _end_on_statement(words: list[str]) -> bool:
    """Return whether words end on a verb that says what something amounts to, maybe with its indirect object."""
    last = words[-1].lower()
    second = words[-2].lower() if len(words) > 1 else ""
    if second == "to" and last.isalpha():
        # "she needs to sell 90 tickets to make $450", but not "we need to add 90"
        third = words[-3].lower() if len(words) > 2 else ""
        return last not in _OPERATION_VERBS if third in _NEED_VERBS else third != "" and last in _PURPOSE_VERBS
    if last == "take":  # "it would take 5 days", but not "now take 5 and add 3"
        return second in ("would", "will")
    if last in _VERBS or f"{second} {last}" in _VERB_PAIRS:
        return True
    if last == "as":  # "28 + 26 as 42"
        return second[-1:].isdigit()
    return second in _TRANSFER_VERBS and (last in _RECEIVERS or words[-1].istitle())


def _is_stated(text: str, start: int) -> bool:
    """Return whether the words before a number state it as a result: "is about 5", "gives **5**", "= 5"."""
    words = _words_before(text, start)
    return bool(words) and _end_on_statement(words)


_STATED = 2  # the largest weight


def _weight(text: str, number: Number) -> int:
    """Return how much speaks for a number to be the answer.

    2 (`_STATED`): it is stated; 1: nothing is against it; 0: it stands in a phrase of its own; -1: in a sum that nobody
    works out.
    """
    words = _words_before(text, number.start)
    if _SUM.match(text, number.end) or (words and words[-1] in _OPERATORS):
        return -1
    if not words:
        return 1
    if words[-2:] == ["which", "is"] and _COMPARED.match(text, number.end):
        return 0
    if _end_on_statement(words):
        return _STATED
    return int(not _end_on_phrase(words))


def _end_on_phrase(words: list[str]) -> bool:
    """Return whether words end on what makes a number part of a phrase: "in the last", "out of", "packs of", "to"."""
    has_determiner = len(words) > 1 and words[-1].lower() in _DETERMINERS
    while len(words) > 1 and words[-1].lower() in _DETERMINERS:
        words.pop()
    last = words[-1].lower()
    before = words[-2].lower() if len(words) > 1 else ""
    if last == "of":  # "a profit of 18", but "4 of 16", "out of 16", "of the 16", "packs of 8"
        return has_determiner or before[-1:].isdigit() or before == "out" or before[-1:] == "s"
    if before == "to":
        return True
    return last in _PREPOSITIONS and not before.startswith("result")


def _concluded(sentence: str) -> str | None:
    """Return the answer in a sentence without a mark, None where it has no number."""
    sentence = without_latex(sentence)
    numbers = _numbers_in(sentence)
    if not numbers:
        return None
    because = _BECAUSE.search(sentence) if _has_one_of(sentence, _BECAUSE_HINTS) else None
    if because:
        start, end = because.start(), sentence.find(", ", because.end())
        numbers = [number for number in numbers if number.start < start or number.start > end >= 0] or numbers
    if named := _named(sentence, numbers):
        return named.value
    if len(numbers) == 1:
        return numbers[0].value
    if "**" in sentence:
        bold_answers = [_concluded(bold[1]) for bold in _BOLD.finditer(sentence)]
        readable = [answer for answer in bold_answers if answer]
        if readable:
            return readable[-1]
    return _weighed(sentence, *_main_clause(sentence, numbers))


def _named(sentence: str, numbers: list[Number]) -> Number | None:
    """Return the number that the sentence calls its answer ("12 is the answer"), or to which it rounds."""
    may_name, may_round = " is " in sentence, "round" in sentence
    if not may_name and not may_round:
        return None
    for number in reversed(numbers):
        if may_name and _IS_ANSWER.match(sentence, number.end):
            return number
        rounds = _ROUNDS.search(sentence, max(0, number.start - 40), number.start) if may_round else None
        if rounds and not _PLACES.match(sentence, number.end):
            return number
    return None


def _main_clause(sentence: str, numbers: list[Number]) -> tuple[int, list[Number]]:
    """Return where the main clause begins, and its numbers: not in brackets, behind "so", behind a condition."""
    if "(" in sentence:
        spans = [brackets.span() for brackets in _BRACKETS.finditer(sentence)]
        outside = [number for number in numbers if not any(low < number.start < high for low, high in spans)]
        numbers = outside or numbers
    last_start = numbers[-1].start
    begin = 0
    if _has_one_of(sentence, _SO_HINTS):
        begin = max((so.end() for so in _SO.finditer(sentence) if so.end() < last_start), default=0)
    if sentence.find(", ", begin, last_start) >= 0:  # else a condition has no main clause behind it
        condition = _CONDITION.match(sentence, begin)
        comma = sentence.find(", ", condition.end()) if condition else -1
        if begin < comma < last_start:
            begin = comma
    return begin, [number for number in numbers if number.start >= begin] if begin else numbers


def _weighed(sentence: str, begin: int, numbers: list[Number]) -> str:
    """Return the number that most speaks for: behind "=", stated, the subject of what is left or needed."""
    first = numbers[0]
    equals = max(sentence.rfind("=", begin), sentence.rfind("≈", begin))
    if numbers[-1].end > equals >= 0:
        behind = [number for number in numbers if number.start > equals]
        if behind and not _OPERATION.match(sentence, behind[0].end):
            return behind[0].value
        is_left_side = first.end <= equals and sentence[: first.start].rstrip()[-1:] in ("", ":")
        if is_left_side and numbers[1].start > equals:
            return first.value  # "18 = 3 + 15"
    if _SUBJECT.match(sentence, first.end) and not any(_is_stated(sentence, number.start) for number in numbers):
        return first.value
    value, heaviest = "", -2
    for number in reversed(numbers):
        weight = _weight(sentence, number)
        if weight > heaviest:
            value, heaviest = number.value, weight
        if heaviest == _STATED:
            break
    return value


# --- announced answers ------------------------------------------------------------------------------------------------

_PAYLOAD = 400  # ours: how far behind its mark an announced answer may stand
_BOX = 4_000  # ours: the longest content of \boxed{} that is read
_TRIES = 24  # ours: how many marks of a kind are tried, the last one first
_NO_ANSWER = ""  # what a reader returns where the text says that there is no answer

_ANNOUNCED = re.compile(  # 'answer(s)** to the question "How many are left?" is: **therefore, '
    r"answers?(?:\(s\))?[*_'\"”]*"
    r"(?: (?:to|for|of|in) (?:[^\"\n]{0,60}\"[^\"\n]{1,200}\"|[^.:=\n]{0,80}?))?"
    r"\s*(?:(?:is|are|was|were|will be|would be|should be|must be|equals|becomes|=|:|⇒|→|->|=>)(?!\w)[\s*_:]{0,12}"
    r"|[*_#]{0,4}\s{0,8}\n\s{0,8}|of (?=[-$\d]))"
    r"(?:(?:thus|therefore|then|also|indeed|simply|just)\b[ ,:]*)?",
    re.I,
)
_SPOKEN = re.compile(
    rf"(?:negative |minus )?(?:an? )?{NUMBER_WORDS}(?:[ -](?:halves|half|thirds?|quarters?|fourths?|fifths?)\b)?", re.I
)
_SENTENCE = re.compile(
    r"\W*(?!(?:about|approximately|around|only|exactly|a total of|negative|minus|US|USD|Rs)\b)[^\W\d_]"
)
_UNIT_EQUALS = re.compile(r" [a-zA-Z]{2,20} ?= ?")  # "60 minutes = 1 hour" says the same twice
_PAIR = re.compile(r"[^a-zA-Z]{0,40} (?:and|or|to) [^a-zA-Z]{0,40}")
_SPACED_SIGN = re.compile(r"\A- (?=[$\d])")
_SEEKS = re.compile(r"\b(?:find|get|calculat|determin|comput|reach|obtain)[a-z]{0,3} (?:[a-z]{1,10} ){0,2}$", re.I)
_IS = re.compile(r" (?:is|are|was|were|would|will|should|must|equals|of|becomes)\b", re.I)
_VALUE_ALONE = re.compile(  # a number that is not the first of a sum: "18 apples", but not "48/2 = 24 clips"
    r"[\s$*_(\\\[\"'`]*(?:about |approximately |only )?[-+$€£ ]{0,3}[\d.,]*\d%?(?![\d.,]*\d)(?! ?[-+*/×÷x=] ?[\d$])"
)
_LABEL = re.compile(r"(?:^|\n)[ \t>*]{0,8}A(?:ns)?\*{0,2}[.:]\*{0,2}[ \t]{0,8}(?=\S)")
_LABEL_HINTS = ("A:", "A*", "A.", "Ans")  # plain substrings that a label needs
_CALLED = re.compile(  # "The final answer is: ", "Result"; nothing at all fits too
    r"[\s*_$:]*(?:(?:the )?(?:final )?(?:(?:answer|result)\b|solution\b(?=[ *]*:? *\S))(?: is)?[\s*_:]*)?", re.I
)
_UNKNOWN = re.compile(
    r"\s*\**(?:un(?:known|determined|defined|clear)\b|can ?not\b|can't\b|not (?:enough|possible|known|given"
    r"|determin)"
    r"|impossible\b|there is (?:no|not)\b|none\b|n/a\b|insufficient\b|indeterminate\b)",
    re.I,
)
_TITLES_AND_LABELS = r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\n\d\.)(?<!\n\d\d\.)"
_STOP = re.compile(  # begins with a plain set of signs, which is searched for several times faster
    rf"[.!?\n;](?:(?<=\n)|(?<=;)(?=\s)|(?=[\s\"')\]*]|$)(?<=[.!?]){_TITLES_AND_LABELS})"
)


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    """Return the last match, in constant space."""
    return next(iter(deque(matches, maxlen=1)), None)


def _positions(text: str, mark: str) -> list[int]:
    """Return where `mark` stands, the last place first."""
    places: list[int] = []
    at = text.rfind(mark)
    while at >= 0 and len(places) < _TRIES:
        places.append(at)
        at = text.rfind(mark, 0, at)
    return places


def _announced_value(payload: str) -> str | None:
    """Return the answer in the words behind a mark: their first number, or what a sum that stands there comes to."""
    if form := _symbolic_form(payload):
        return form
    payload = without_latex(payload)
    numbers = _numbers_in(payload)
    if not numbers:
        return _number_in_words(payload)
    first = numbers[0]
    lead = payload[: first.start]
    if _SENTENCE.match(lead):  # "Each of the 4 friends gets 6 cookies", "x = 5"
        is_refuted = len(numbers) > 1 and lead.rstrip(" $*").endswith("not")  # "not 20 but 18"
        return numbers[1].value if is_refuted else _concluded(payload)
    equals = max(payload.rfind("="), payload.rfind("≈"))
    behind = [number for number in numbers if number.start > equals >= 0]
    is_conversion = numbers[1:] == behind and _UNIT_EQUALS.match(payload, first.end)
    if behind and not is_conversion:
        return behind[0].value
    if _OPERATION.match(payload, first.end):
        return numbers[-1].value
    return first.value


def _symbolic_form(text: str) -> str | None:
    """Return the normal form of a short answer in LaTeX that is no plain number, such as twice a root."""
    expression = text.strip(" .*$")
    if "\\" not in expression or len(expression) > 200 or "boxed" in expression:
        return None
    form = normal_form(expression)
    if "\\" not in form or re.search(r"[a-z]{3,} [a-z]{2,}", without_latex(expression)):
        return None
    return form


def _number_in_words(text: str) -> str | None:
    form = normal_form(text)
    if is_number(form):
        return form
    spoken = _SPOKEN.search(text)
    return normal_form(spoken[0]) if spoken else None


def _after_hashes(text: str) -> str | None:
    """Return what GSM8K's own mark announces, `#### 18`, also `#### Answer: 18`; a Markdown heading is not one."""
    if "####" not in text:
        return None
    for start in _positions(text, "####"):
        line, _, rest = text[start + 4 : start + 4 + _PAYLOAD].lstrip("# \t\n").partition("\n")
        if "boxed{" in line:
            return _boxed(line)
        payload = _SPACED_SIGN.sub("-", line[_CALLED.match(line).end() :])  # type: ignore[union-attr]
        if payload == line and _SENTENCE.match(line) and _DIGIT.search(rest):
            continue  # a heading with a solution under it
        answer = _announced_value(payload)
        if answer is not None:
            return answer
        if payload.strip() and not rest.strip() and len(payload) <= 60:
            return _NO_ANSWER if _UNKNOWN.match(payload) else normal_form(payload) or None
    return None


def _boxed(text: str) -> str | None:
    """Return the answer in the last box (boxed in LaTeX) that has a content."""
    if "boxed{" not in text:
        return None
    for start in _positions(text, "boxed{"):
        content = _until_closing_brace(text[start + 6 : start + 6 + _BOX])
        if not content.strip():
            continue
        if _UNKNOWN.match(without_latex(content).strip()):
            return _NO_ANSWER
        content = content[:_PAYLOAD]
        form = normal_form(content)
        return form if is_number(form) or "\\" in form else _worded_box(content, form)
    return None


def _until_closing_brace(text: str) -> str:
    """Return the text before the brace that closes what was open; all of it where none does."""
    depth = 1
    for brace in re.finditer(r"[{}]", text):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return text[: brace.start()]
    return text


def _worded_box(content: str, form: str) -> str:
    """Return the number of a box that holds it among words, else its words or pair of numbers."""
    content = without_latex(content)
    has_words = re.search(r"[^\W\d_]{2}", content) and not _PAIR.fullmatch(content.strip())
    if has_words or "=" in content:
        return _announced_value(content) or form
    return form


def _called_answer(text: str) -> str | None:
    """Return what is called the answer: "The answer is 18", "Answer: 18": the last of them that holds an answer."""
    lower = text.lower() if text.isascii() else text
    for start in _positions(lower, "nswer"):
        mark = _ANNOUNCED.match(text, start - 1) if start else None
        if mark is None:
            continue
        payload = _sentence_from(text, mark.end())
        if _UNKNOWN.match(payload):
            return _NO_ANSWER
        is_heading = not _IS.search(mark[0]) and not lower.endswith("final ", 0, start - 1)
        is_sought = is_heading and _SEEKS.search(text, max(0, start - 40), start - 1)  # "let's find the answer:"
        if is_sought or (is_heading and _opens_solution(text, mark.end(), payload)):
            continue
        answer = _announced_value(payload if "\n" in mark[0] else _SPACED_SIGN.sub("-", payload))
        if answer is not None:
            return answer
    return _labelled_answer(text)


def _labelled_answer(text: str) -> str | None:
    """Return the answer behind the last label "A:" or "Ans." at the head of a line."""
    if "A" not in text or not _has_one_of(text, _LABEL_HINTS):
        return None
    label = _last(_LABEL.finditer(text))
    if label is None:
        return None
    payload = _sentence_from(text, label.end())
    return None if _opens_solution(text, label.end(), payload) else _announced_value(payload)


def _sentence_from(text: str, start: int) -> str:
    """Return the first sentence or line with something in it from `start` on."""
    window = text[start : start + _PAYLOAD].lstrip(" \t\n*_:>-" if text[start : start + 2] == "\n-" else " \t\n*_:>")
    stop = _STOP.search(window)
    while stop and stop.start() and not window[: stop.start()].strip(" $*\\[("):
        stop = _STOP.search(window, stop.end())
    return window[: stop.start()] if stop else window


def _opens_solution(text: str, start: int, payload: str) -> bool:
    """Return whether "Answer:" heads a whole solution, whose first sentence `payload` is not its answer."""
    rest = text[start : start + 2 * _PAYLOAD].partition(payload)[2] if payload else ""
    if "=" in payload and "=" in rest:  # one step of several
        return not _EXPLANATION.match(rest)
    begins_list = payload == "1" and "\n2" in rest
    if _VALUE_ALONE.match(payload) and not begins_list:
        return False
    return bool(_DIGIT.search(rest)) and not _EXPLANATION.match(rest)


# --- answers without a mark -------------------------------------------------------------------------------------------

_TAIL = 6_000  # ours: how far from the end an answer that no mark announces may stand
_LAST_STOP = re.compile(rf"(?s:.*){_STOP.pattern}(?s:(?=.))")  # greedy: reached from the end
_LAST_DIGIT = re.compile(r"(?s:.*)[0-9]")
_CUT_OFF = re.compile(
    r"(?:[-+*/×÷=(]|\b(?:is|are|equals|equal|to|by|and|of|the|an?|get|gives|with|(?<!sq )in|as|for|from|us|be|it))"
    r"\s*$"
)


def _last_number(text: str) -> str | None:
    """Return the answer of a text without a mark, from its last sentences."""
    answer, checked_answer = None, None
    cut_off = _is_cut_off(text)
    for sentence in _sentences_from_end(text, 4):
        value = _concluded(sentence)
        if value is None:
            continue
        if _CHECK.match(sentence):
            checked_answer = checked_answer or value
        elif answer is None:
            answer = value
            cut_off = cut_off and text.rstrip().endswith(sentence.rstrip())
            if not cut_off and ("=" in sentence or not _ASIDE.match(sentence)):
                return value
        elif cut_off or "=" in sentence or _CONCLUSION.match(sentence):
            return value
    return answer or checked_answer


def _is_cut_off(text: str) -> bool:
    last_sign = text[-20:].rstrip()[-1:]
    return (last_sign.isalpha() or last_sign in "-+*/×÷=(") and _CUT_OFF.search(text[-20:]) is not None


def _sentences_from_end(text: str, most: int) -> Iterator[str]:
    """Yield the last sentences that hold a digit, the last one first."""
    tail = text[-_TAIL:]
    for _ in range(most):
        until_digit = _LAST_DIGIT.match(tail)
        if not until_digit:
            return
        digit = until_digit.end() - 1
        near = max(0, digit - _PAYLOAD)  # most sentences begin nearby
        start = _sentence_start(tail, near, digit) or (near and _sentence_start(tail, 0, digit))
        stop = _STOP.search(tail, digit + 1)
        yield tail[start : stop.start() if stop else len(tail)]
        tail = tail[:start]


def _sentence_start(text: str, low: int, high: int) -> int:
    stop = _LAST_STOP.match(text, low, high + 1)
    return stop.end() if stop else 0


def _last_words(text: str) -> str | None:
    """Return a number in words, where the text has no digit at all."""
    tail = text[-_PAYLOAD:]
    stated = [spoken for spoken in _SPOKEN.finditer(tail) if not spoken.start() or _is_stated(tail, spoken.start())]
    return normal_form(stated[-1][0]) if stated else None


# --- the part of a text that can hold its answer ----------------------------------------------------------------------

_WINDOW = 50_000  # ours: a solution is read from so many characters before its end
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's "<<48/2=24>>"
_NEXT_QUESTION = re.compile(  # begins with a set of signs, as above
    r"[\n<](?:(?<=\n)\s{0,8}(?:#{1,4} )?(?:\*\*)?(?:Q|Question|Problem|Human|User|Example)(?: \d+)?(?:\*\*)?\s*:"
    r"|(?<=<)(?:\|(?:im_end|eot_id|im_start|end|endoftext)\|>|/s>))"
)
_MARK = re.compile(r"####|boxed\{|[aA]nswer|\nA:|\AA:")


def _solution(text: str) -> str:
    """Return what can hold the answer: without thoughts, annotations and next questions, of bounded length."""
    if "think>" in text and ("<think>" in text or "</think>" in text):  # thoughts that were cut off hold no answer
        text = text.rpartition("</think>")[2].partition("<think>")[0]
    if len(text) > _WINDOW:  # from its end, but never from within a number
        text = text[len(text[:-_WINDOW].rstrip("0123456789.,")) :]
    text = grouped(plain(text))
    if "<<" in text:
        text = _ANNOTATION.sub("", text)
    question = _NEXT_QUESTION.search(text) if ":" in text or "<" in text else None  # it needs one of these
    if question and _answers_before(text, question):
        text = text[: question.start()]
    return _before_next_problem(text)


def _answers_before(text: str, question: re.Match[str]) -> bool:
    """Return whether the answer stands before a next question, and not behind a problem that is only said again."""
    before = text[: question.start()]
    if _MARK.search(before) or question[0].lstrip().startswith("<"):
        return _DIGIT.search(before) is not None
    return "=" in before and not _MARK.search(text, question.end())


def _before_next_problem(text: str) -> str:
    """Return the text up to its first "#### 18" where a base model goes on with a problem of its own."""
    mark = text.find("####")
    if mark < 0:
        return text
    line_end = text.find("\n", mark)
    next_mark = text.find("####", line_end) if line_end >= 0 else -1
    if next_mark < 0 or line_end - mark > 40 or "?" not in text[line_end:next_mark]:
        return text
    return text[:line_end] if _VALUE_ALONE.match(text, mark + 4) else text


# --- the final answer of a text ---------------------------------------------------------------------------------------

_KINDS = ("number", "choice")
_READERS = (_after_hashes, _boxed, _called_answer, _last_number, _last_words)
_CHOICES = [  # how the letter of a choice is marked; the first of these that is found decides
    re.compile(r"boxed\{\s{0,8}(?:\\text\w{0,8}\{)?\s{0,8}\(?([A-Ja-j])\)?\W{0,8}\}|####\s{0,8}\(?([A-Ja-j])\)?(?!\w)"),
    re.compile(  # "The answer is **A**"; a small letter needs a sign behind it: not "answer: a dog"
        r"(?i:answer|choice|option)(?i:\s{1,8}(?:is|would be|should be|must be)|s?\s{0,8}[:=]|)[\s*_:]{0,12}"
        r"(?i:option |choice )?[\"'*]*"
        r"(?:\(([A-Ja-j])\)|([A-J])(?![\w'’])|([a-j])(?=\)|[.,:](?!\w)|[\"'*_.\s]{0,8}(?:$|\n)))"
    ),
    re.compile(  # "(A)", and a line of its own
        r"\(([A-J])\)|(?:^|\n)[ \t*_>(]{0,8}([A-J]|[a-j](?=[*_.)])|[a-j](?=\s{0,8}$))[ \t*_.)]{0,8}(?:$|\n)"
    ),
    re.compile(r"(?:^|\n)[ \t*]{0,8}([A-J])[.):]\s|\b([B-HJ])\b[.\s]{0,8}$"),  # "A. the first"; "So B.": A is a word
]


def extract_answer(text: str, kind: str = "number") -> str | None:
    r"""Return the final answer of a solution in normal form, None where there is none.

    Announced answers come first (`#### x`, `\boxed{x}`, "the answer is x", "Answer: x"), the last one winning; then
    the last sentence with a number: in bold, behind "=", behind "is", or its last number. kind="choice" reads a letter.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(_KINDS)}")
    text = _solution(text)
    if kind == "choice":
        return _choice(text)
    for read in _READERS:
        answer = read(text)
        if answer is not None:
            return answer or None  # an empty string: the text says that there is no answer
    return None


def _choice(text: str) -> str | None:
    """Return the letter of a multiple-choice answer: boxed, announced, in brackets, or alone on a line."""
    for pattern in _CHOICES:
        match = _last(pattern.finditer(text[-_TAIL:]))
        if match:
            return next(letter for letter in match.groups() if letter).upper()
    return None


# --- the rules of others ----------------------------------------------------------------------------------------------

_RELEASED = re.compile(r"-?\d*\.?\d+")
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Return the last match of a pattern that matches no space, from the text's end where that is enough."""
    tail_start = text.rfind(" ", 0, -_TAIL) + 1
    return _last(pattern.finditer(text, tail_start)) or _last(pattern.finditer(text, 0, tail_start))


def released_answer(text: str) -> float | None:
    r"""Return the answer by the authors' released rule: the last -?\d*\.?\d+ as a float (so "1,234" gives 234)."""
    match = _last_match(_RELEASED, text)
    return float(match[0]) if match else None


def strict_answer(text: str) -> str | None:
    """Return lm-evaluation-harness's gsm8k strict-match: the first `#### x`; None stands for its "[invalid]"."""
    match = _STRICT.search(text)
    return _without_signs(match[1]) if match else None


def flexible_answer(text: str) -> str | None:
    """Return lm-evaluation-harness's gsm8k flexible-extract: the last number-like run; None stands for "[invalid]"."""
    match = _last_match(_FLEXIBLE, text)
    return _without_signs(match[0]) if match else None


def _without_signs(answer: str) -> str:
    return answer.replace(",", "").replace("$", "").removesuffix(".")
