"""Questions: read one question out of a completion, or say why it holds none.

A chat model wraps the problem it was asked for: "Sure! Here is a problem: … Solution: … Let me know if …".
`extract_question` finds where the problem begins (behind chat, titles and labels) and where it ends (behind its last
question, before a solution, a further problem or closing words), unwraps it, and holds it against the validity gates of
a domain. `released_clean` is the authors' cleaner, for comparison.

What the wrapping looks like stands in lists of phrases, all ours; the tests hold examples of each line. Only the head
of a completion is compared with chat, and only what follows a question with solutions and closing words, so that a
problem's own sentences are left alone. No expression repeats an unbounded part within another, and each is tried at one
place or on one sentence: the time is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

REASONS = (
    "empty",  # no text
    "refusal",  # "I'm sorry, but …"
    "not_english",
    "no_question",  # whole sentences that ask nothing
    "unfinished",  # cut off within a sentence, before it asks anything
    "too_short",  # from here on, the gates of a domain: fewer words than it allows
    "too_long",
    "too_few_quantities",
    "copies_bait",
    "off_pattern",  # not of the domain's form, such as "What is 3 + 4?"
)
MOST_CHARACTERS = 20_000  # ours: a question stands within so many characters; what comes later is not read
MOST_SENTENCES = 400  # ours: no problem has more
MOST_PREAMBLES = 10  # ours: labels, titles and sentences of chat before a problem
LONGEST_CHAT = 400  # ours: characters of a sentence that can be chat
LATEST_LABEL = 1500  # ours: characters before a label such as "Problem:" on a later line
QUESTION_OF_REFUSAL = 200  # ours: what asks something within so many characters is no refusal
DEEPEST_WRAPPING = 4  # ours: quotes within bold within a list

SAME_LINE, NEXT_LINE, NEXT_PARAGRAPH = range(3)  # what stands between two sentences


@dataclass(frozen=True)
class Question:
    """A question taken from a completion."""

    text: str


@dataclass(frozen=True)
class Rejected:
    """A completion that gave no question: why (one of REASONS), and what remained of it."""

    reason: str
    text: str = ""


class Phrases:
    """A regular expression that ignores case: one of several parts, between `before` and `after`."""

    def __init__(self, *parts: str, before: str = "", after: str = "") -> None:
        self.parts, self.before, self.after = parts, before, after
        expression = re.compile(f"{before}(?:{'|'.join(parts)}){after}", re.IGNORECASE)
        self.match, self.search, self.findall = expression.match, expression.search, expression.findall


# --- before the problem ---

THING = r"(?:problem|question|puzzle|challenge|exercise|riddle|brain ?teaser|rewrite|revision|version|example)s?"
OPENING = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|great|yes|no problem|gladly|definitely"
    r"|thanks?(?: you)?|got it|so|well|understood|hello|hi(?: there)?|hey(?: there)?|wow|excellent|perfect)"
)
HERE_IS = r"here(?:[’']s| is| are| you (?:go|are)| we go|[’']re)\b"
I_DO = r"i(?:[’']ve| have| will|[’']ll| can| came| think| created| made| wrote| hope|[’']m)\b"
CHAT = Phrases(
    r"here (?:it|they) (?:is|are|goes)\b",
    rf"{HERE_IS}(?=[^\n]*(?:\b{THING}|\b(?:one|go|thing|for you|request(?:ed)?)\b|:\W*$))",
    r"i(?:[’']d| would) be (?:happy|glad|delighted)|(?:happy|glad) to\b|with pleasure",
    r"how about\b(?=[^\n]*[:!]|\s*$)",
    rf"{I_DO}(?=[^\n]*\b(?:{THING}|one|you|this|idea)\b)",
    r"i can help\b",
    r"let me\b",
    rf"let[’']s\b(?=[^\n]*\b(?:{THING}|one|this)\b)|let[’']s (?:go|dive in|begin|start)",
    r"consider (?:this|the following)\b(?=[^\n]*:)",
    r"try this\b",
    r"as (?:an ai|requested|you)\b|based on (?:your|the) request",
    rf"that[’']s (?:a|an) [^\n]*\b{THING}\b|what an? [^\n]{{0,40}}\b(?:{THING}|idea|request)\b",
    r"(?:below|following|above) is\b",
    rf"(?:the|this|a|an|my|your|one|another)\b(?=[^\n]*\b{THING}\b[^\n]*:\W*$)",
    rf"[^\n:]{{0,80}}\b{THING}[^\n:]{{0,60}}:\W*$",
    before=rf"\W*(?:{OPENING}\b[^\w\n]{{0,4}})?",
)
GREETING = re.compile(rf"\W*{OPENING}\W*$", re.IGNORECASE)  # "Sure thing!"
OPENING_WORD = re.compile(rf"{OPENING}, ", re.IGNORECASE)  # "Okay, Tom has 5 apples."
EXCLAMATION = re.compile(r"[^\d?:.\n]{1,60}!+\W*$")  # a short sentence without a number: "Challenge accepted!"
ANNOUNCEMENT = re.compile(r"[^\d?]{1,160}:\W*$")  # "What I thought of:"
LABEL_WORD = (
    r"(?:the|a|my|your|unique|special|diverse|creative|math(?:ematics|ematical|s)?|word|high[- ]school|level|new"
    r"|modified|rewritten|revised|changed|original|sample|practice|challenge|algebra|geometry|arithmetic)"
)
LABEL_NAME = (
    rf"(?:(?:{LABEL_WORD}[ -]){{0,6}}(?:problem|question|puzzle|challenge|exercise|task)(?: statement)?|Q|assistant)"
    r"(?: ?(?:#|no\.? |number )? ?1)?"
)
LABEL = Phrases(
    r"[:：](?!\d)",
    r"[—–](?=\s)",
    r"(?<=1)[.)](?=\s)",
    r"(?=\n)",
    before=rf"[\s#>*_]*{LABEL_NAME}\s*[*_]*",
    after=r"[ *_]*",
)
TITLE = Phrases(
    r"#{1,6}[ \t]+[^\n?]{1,90}",
    r"\*\*[^*\n?.!]{1,80}\*\*:?",
    r"__[^_\n?.!]{1,80}__:?",
    r"title: [^\n?]{1,80}",
    before=r"\s*",
    after=r"[ \t]*\n",
)
SEGMENT_END = re.compile(r"[.!?:]{1,6}[\"'”’)*_]{0,6}(?=\s|$)|[:,!]\s?(?=\n)|\n")
REFUSAL = Phrases(
    r"i(?:[’']m| am) (?:sorry|unable|not able|afraid)",
    r"sorry",
    r"i (?:cannot|can[’']t|apologi[sz]e)",
    r"unfortunately",
    r"as an ai",
    before=r"\W*",
    after=r"\b",
)

# --- the problem ---

COMMAND = (
    r"(?:calculate|find|determine|compute|solve|evaluate|simplify|estimate|express|convert|prove|show that|work out"
    r"|figure out|how (?:many|much|long|far|old|fast|tall|big)|what (?:is|are|was|will|would|fraction|percent))\b"
)
FIRST_COMMAND = (
    r"(?:write|name|list|give|state|identify|divide|add|subtract|multiply|compare|choose|factor|round|complete|fill)\b"
)
TASK = Phrases(  # what asks without a question mark
    rf"^\W*(?:(?:please|then|now|also|and|hence)\b,? ?)?{COMMAND}",
    rf"[,;:] (?:and |then |please )?{COMMAND}",
    rf"\band {COMMAND}",
    rf"^\W*{FIRST_COMMAND}",
    r"\bhow (?:many|much) (?:[a-z]+ )?(?:did|does|do|would|will|is|are|was|were)\b",
)
INSTRUCTION = Phrases(  # how to answer: it belongs to the problem, though it stands behind the question
    r"\W*(?:please )?(?:round|assume|express|give your|use|write (?:your|the))\b",
    r"\W*(?:please )?(?:suppose|ignore|state your|leave|do not)\b",
    r"\W*(?:remember (?:that )?(?:there|that)\b|note: (?:assume|round)|consider\b)",
    r"\((?!note)",
)
OPTION = re.compile(r"\s*(?:\(?[A-Ea-e1-5][).:]|\([a-e]\))\s+\S")  # "A) 5 kg"
SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bsq)(?<!\bSq)[.!?]{1,6}[\"'”’)*_\]]{0,6}(?=\s|$)"
    r"|\)(?=\s+(?:I|Let|Good|This|Hope|Can|Do|Would|Try)\b)|\n"
)
FINISHED = re.compile(r"[.!?][\"'”’)*_\]]*\s*$")  # a text that ends with a sentence
QUANTITY = Phrases(
    r"\d+(?:[.,:/]\d+)*",
    r"[½⅓⅔¼¾⅕⅛]",
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b",
    r"\b(?:thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy)\b",
    r"\b(?:eighty|ninety|hundreds?|thousands?|millions?|half|halves|third|thirds|quarters?|fourths?|fifths?)\b",
    r"\b(?:twice|thrice|double[ds]?|triple[ds]?|dozens?|couple|pair|first|second|once)\b",
)

# --- behind the problem ---

SOLUTION_WORD = (
    r"(?:solutions?|answers?(?: key| choices)?|ans|explanations?|hints?|steps?|step[- ]by[- ]step[^:\n]{0,30}|working"
    r"|approach|reasoning|calculations?|equations?|response|difficulty|level|topic|skills?|category|grade)"
)
SOLUTION_NAME = rf"(?:the |a |your |my |possible |sample |detailed |correct |final )*{SOLUTION_WORD}(?: \d+)?"
SOLUTION = Phrases(  # what begins a solution, wherever it stands
    rf"{SOLUTION_NAME}\s*[*_]*\s*(?:[:：]|\n|$|(?<=\d)[.)])",
    r"A ?[:.]\s",
    r"the (?:correct |final )?(?:answer|solution) (?:is|to)\b",
    r"assistant\b|user\b|human\s*:",
    r"\\boxed|####|-{3,}",
    before=r"[\s#>*_(\[-]*",
)
WORKING = Phrases(  # what begins a solution on the line of the question
    r"to (?:solve|find|answer|calculate|determine|figure|get)\b",
    r"let(?:[’']s| us) |let \$?\\?[a-z]\b",
    r"(?:first|firstly|next|since|so|therefore|thus|in order to)\b",
    r"we (?:know|can|need|have|start|are|will|must|should)\b",
    r"\$?[a-z]\$? ?= ?\S",
    before=r"[\s#>*_-]*",
)
PROBLEM_NAME = r"(?:problem|question|puzzle|challenge|exercise|example|variation|version|Q)"
FURTHER_PROBLEM = Phrases(
    rf"{PROBLEM_NAME} ?(?:#|no\.?)? ?(?:[2-9]|1\d)\b",
    r"\(?(?:[2-9]|1\d)[.)]\s+[A-Z\d*\"]",
    r"another (?:one|problem|question)\W*[:\n]",
    r"bonus (?:question|problem|challenge)",
    r"(?:question|problem)\s*:",
    before=r"[\s#>*_-]*",
)
SOLVE_IT = r"(?:solve|figure|handle|crack|help|tackle|the challenge|find (?:the|a) (?:answer|solution))\b"
CLOSING = Phrases(
    r"let me know\b|feel free\b",
    r"if you(?:[’']d| would| need| have any| want|[’']re stuck| get stuck)\b",
    r"(?:i|we) (?:really )?hope\b|hope (?:this|you|that)\b",
    r"good luck\b|have fun\b|enjoy\b|happy (?:solving|learning|calculating|math)",
    r"please (?!round|express|give|show your answer|write)",
    rf"(?:can|could|are) you (?:(?:able|ready|up) )?(?:to |for )?{SOLVE_IT}",
    r"would you like\b|do you (?:want|need|have|think you|like)\b|what do you think\b|does this\b",
    r"is (?:this|there anything)\b|how(?:[’']s| is| was) (?:this|that)\b",
    r"try (?:to solve|solving|it|this)\b|take your time\b|give it a\b|ready\b",
    r"remember to\b|don[’']t forget\b|(?:show|explain) your (?:work|reasoning)",
    rf"(?:this|that|the(?: above)?) (?:math |word |new |unique )*{THING}\b",
    r"this (?:requires|involves|tests|should|one|is)\b|it (?:requires|involves|tests|combines)\b",
    r"note: (?:this|the|you|i)\b|\(?note that (?:this|the)\b",
    r"i(?:[’']ll|[’']d|[’']m|[’']ve| will| would| am| can| have| tried| made| look| chose| changed| kept)\b",
    r"looking forward|thank you|thanks\b|as always\b",
    r"and there you|there you (?:go|have)",
    before=r"\W*",
)

# --- around the problem ---

BULLET = re.compile(r"\A[ \t]*(?:[-*•]\s+|>\s*|#{1,6}\s+|\(?1[.)]\s+(?=\S))")
BOLD = re.compile(r"(?<!\w)(\*\*|__)(?=\S)([^*_\n]{1,2000}?)(?<=\S)\1(?!\w)")
QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "`": "`", "*": "*", "_": "_"}
CHAT_HEADER = re.compile(r"\A(?:<\|[a-z_]{2,40}\|>\s*(?:assistant|system)?\s*){1,6}", re.IGNORECASE)
CHAT_TOKEN = re.compile(r"<\|[a-z_]{2,40}\|>|</s>|\[/?INST\]|<(?:end|start)_of_turn>")
INVISIBLE = dict.fromkeys([*range(9), *range(11, 32), 127, 0x200B, 0x2060, 0xFEFF])  # control signs, zero-width signs

ENGLISH_WORDS = frozenset(
    "the a an of to and in is are was were be he she it they his her their has have had how many much what who which "
    "if each on for with at by from there than more does do did will would can you i find calculate".split()
)
FOREIGN_WORDS = frozenset(
    "el la los las un una de del que en y es son cuántas cuántos cuánto tiene le les des et est une du dans combien "
    "der die das und ein eine ist sind wie viele hat il gli che di per quanti quante ha o os uma um quantos quantas "
    "não tem em zu mit von het een van hoeveel heeft jest ile och att har".split()
)
RELEASED_CHAT = (  # the four phrases that the description of the released code names, then ours, to make up two dozen
    "of course, word problem, answer, i need, "
    "sure, here is, heres, certainly, math problem, let me know, i hope, feel free, good luck, happy to help, "
    "id be happy, solution, high school, can you solve, absolutely, great question, challenging problem, "
    "unique problem, thank you, im sorry"
).split(", ")


def extract_question(
    completion: str,
    *,
    min_quantities: int = 0,
    min_words: int = 3,
    max_words: int = 300,
    pattern: str = "",
    bait: str = "",
) -> Question | Rejected:
    """Return the one question of a completion: chat, labels, Markdown, solutions and what follows are cut off.

    The keywords are the gates of a domain; `pattern` is a regular expression that the whole question must match, and
    `bait` a text that it must not copy.
    """
    text = _reply(completion)
    if not text:
        return Rejected("empty")
    if REFUSAL.match(text) and "?" not in text[:QUESTION_OF_REFUSAL]:
        return Rejected("refusal", text)
    text = text[_problem_start(text) :]
    end, asks = _problem_end(text)
    problem = _unwrapped(text[:end])
    if not _is_english(problem or text):
        return Rejected("not_english", problem or text)
    if not asks:
        return Rejected("no_question" if FINISHED.search(text) else "unfinished", problem or text)
    words = len(problem.split())
    if words < min_words:
        return Rejected("too_short", problem)
    if words > max_words:
        return Rejected("too_long", problem)
    if bait and _copies(problem, bait):
        return Rejected("copies_bait", problem)
    if min_quantities and len(QUANTITY.findall(problem)) < min_quantities:
        return Rejected("too_few_quantities", problem)
    if not pattern or re.fullmatch(pattern, problem):
        return Question(problem)
    closed = f"{problem.rstrip('.')}?"  # a sampler that stops at the question mark does not return it
    return Question(closed) if re.fullmatch(pattern, closed) else Rejected("off_pattern", problem)


def released_clean(completion: str) -> str:
    """Return what the authors' cleaner makes of a completion: it damages `3/4 of $5.50` into `34 of 5. 50`.

    It keeps letters, digits, white space and . , : ; ? ! only, cuts behind the first "?" (no "?": empty string), and
    drops the sentences that hold a phrase of chat; a point inside a number ends a sentence too.
    """
    plain = "".join(sign for sign in completion if sign.isalnum() or sign.isspace() or sign in ".,:;?!")
    before, mark, _ = plain.partition("?")
    if not mark:
        return ""
    sentences = [sentence.strip() for sentence in re.split(r"(?<=[.!?])", before + mark)]
    return " ".join(
        sentence for sentence in sentences if sentence and not any(chat in sentence.lower() for chat in RELEASED_CHAT)
    )


def _reply(completion: str) -> str:
    """Return the reply in a completion, without thoughts before it, chat tokens, control signs and code fences."""
    text = completion.rpartition("</think>")[2]
    text = text[:MOST_CHARACTERS].replace("\r\n", "\n").replace("\r", "\n").translate(INVISIBLE).lstrip()
    return CHAT_TOKEN.split(CHAT_HEADER.sub("", text), maxsplit=1)[0].replace("```", "").strip()


# --- where the problem begins ---


def _problem_start(text: str) -> int:
    """Return where the problem begins: behind chat, titles and labels."""
    start = 0
    for _ in range(MOST_PREAMBLES):
        start = _behind_ornaments(text, start)
        end = _preamble_end(text, start)
        if end is None:
            break
        start = end
    return _behind_later_label(text, start)


def _behind_ornaments(text: str, start: int) -> int:
    """Return the first place from `start` on that is no white space, rule or emoji."""
    while start < len(text):
        if text.startswith(("---", "***\n", "==="), start):
            start += 3
        elif text[start].isspace() or _is_emoji(text[start]):
            start += 1
        else:
            break
    return start


def _is_emoji(sign: str) -> bool:
    return sign > "\u2190" and (unicodedata.category(sign) in ("So", "Sk", "Cs") or sign in "\ufe0f\u200d")


def _preamble_end(text: str, start: int) -> int | None:
    """Return where the label, title or chat that begins at `start` ends; None if there is none."""
    heading = LABEL.match(text, start) or TITLE.match(text, start)
    if heading and text[heading.end() :].strip():
        return heading.end()
    segment_end = SEGMENT_END.search(text, start)
    end = segment_end.end() if segment_end else len(text)
    if _is_chat(text[start:end].strip(), text[end:]):
        return end
    opening = OPENING_WORD.match(text, start)
    return opening.end() if opening else None


def _is_chat(segment: str, rest: str) -> bool:
    """Tell whether the first words of a completion talk to the user instead of stating the problem."""
    if len(segment) > LONGEST_CHAT or not rest.strip():
        return False
    if ANNOUNCEMENT.match(segment) and rest.startswith("\n\n") and not BULLET.match(rest.lstrip()):
        return True
    return bool(GREETING.match(segment) or EXCLAMATION.match(segment) or CHAT.match(segment))


def _behind_later_label(text: str, start: int) -> int:
    """Return where a label such as "Problem:" on a later line ends; `start` if a question comes first, or no label."""
    for line in re.finditer(r"\n(?=[ \t#>*_]*[A-Za-z])", text[start : start + LATEST_LABEL]):
        line_start = start + line.end()
        label = LABEL.match(text, line_start)
        if label and text[label.end() :].strip():
            return start if "?" in text[start:line_start] else _behind_ornaments(text, label.end())
    return start


# --- where it ends ---


def _problem_end(text: str) -> tuple[int, bool]:
    """Return where the problem ends, and whether it asks anything.

    It ends behind the last question of the first paragraph that asks, and behind the instructions and options that
    follow it. If nothing asks, it ends before a solution or a further problem.
    """
    end = 0
    asks = has_question_mark = False
    gap = SAME_LINE  # the widest one since `end`
    for start, stop, gap_before in islice(_sentences(text), MOST_SENTENCES):
        sentence = text[start:stop].strip()
        head = sentence[:LONGEST_CHAT]
        gap = max(gap, gap_before)
        if asks and not _belongs_to_problem(head, "?" in sentence, gap):
            break
        if not asks and start > 0 and (SOLUTION.match(head) or FURTHER_PROBLEM.match(head)):
            break
        is_question = sentence.rstrip("\"'”’)*_ ]").endswith("?")
        if is_question or (not has_question_mark and TASK.search(sentence)):
            asks, has_question_mark = True, has_question_mark or is_question
        elif asks and not (INSTRUCTION.match(head) or (gap and OPTION.match(head))):
            continue  # it belongs to the problem only if a question or instruction follows
        end, gap = stop, SAME_LINE
    return end, asks


def _sentences(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield where each sentence starts and ends, and the gap before it: SAME_LINE, NEXT_LINE or NEXT_PARAGRAPH."""
    start, gap = 0, SAME_LINE
    for end in SENTENCE_END.finditer(text):
        is_line_end = end[0] == "\n"
        if text[start : end.end()].strip():
            yield start, end.end() - is_line_end, gap
            gap = NEXT_LINE if is_line_end else SAME_LINE
        elif is_line_end:
            gap = NEXT_PARAGRAPH if gap else NEXT_LINE
        start = end.end()
    if text[start:].strip():
        yield start, len(text), gap


def _belongs_to_problem(sentence: str, asks: bool, gap: int) -> bool:
    """Tell whether a sentence behind the one that asks still belongs to the problem."""
    if SOLUTION.match(sentence) or CLOSING.match(sentence) or FURTHER_PROBLEM.match(sentence):
        return False
    if gap == SAME_LINE:
        return not WORKING.match(sentence)
    is_addition = bool(INSTRUCTION.match(sentence) or OPTION.match(sentence))
    if gap == NEXT_PARAGRAPH:
        return is_addition
    return (is_addition or asks) and not BULLET.match(sentence)


# --- what stands around it ---


def _unwrapped(text: str) -> str:
    """Return a problem without list marks, bold, emoji at the ends and quotes around the whole."""
    text = text.strip()
    for _ in range(DEEPEST_WRAPPING):
        emoji = "".join(filter(_is_emoji, set(text)))
        spaces = "".join(filter(str.isspace, set(text)))
        inner = text.lstrip(emoji).rstrip(emoji + spaces)
        inner = _unquoted(BULLET.sub("", inner).strip())
        if inner == text:
            break
        text = inner
    return BOLD.sub(r"\2", text)


def _unquoted(text: str) -> str:
    """Return a text without a pair of quotes around it, or without one quote whose partner was cut off."""
    for bold in ("**", "__"):
        if text.startswith(bold) and (text.endswith(bold) or text.count(bold) == 1) and len(text) > 4:
            return text[2:].removesuffix(bold)
    closing = QUOTES.get(text[:1])
    if closing and len(text) > 2:
        if text[0] in '"“«' and text.endswith((closing, closing + ".")):
            return text[1:].rstrip(".").removesuffix(closing)
        if closing not in text[1:-1] and (text[-1] == closing or text[1].isupper()):
            return text[1:].removesuffix(closing)
    if text[-1:] in ("*", "_", "”", '"') and text.count(text[-1]) == 1 and "“" not in text:
        return text[:-1]
    return text


# --- whether it is valid ---


def _is_english(text: str) -> bool:
    """Tell whether letters are mostly Latin or Greek, and function words mostly not of other European languages."""
    beginning = text[:4000]
    letters = [sign for sign in beginning if sign.isalpha()]
    other_letters = sum(sign > "\u024f" and not "\u0370" <= sign <= "\u03ff" for sign in letters)
    if other_letters > 0.3 * len(letters):
        return False
    words = re.findall(r"[^\W\d_]+", beginning.lower())
    foreign = sum(word in FOREIGN_WORDS for word in words)
    return foreign < 2 or foreign <= sum(word in ENGLISH_WORDS for word in words)


def _copies(text: str, bait: str) -> bool:
    """Tell whether half of a text's runs of five words stand in the bait (ours)."""
    runs = _runs_of_five(text)
    return bool(runs) and 2 * len(runs & _runs_of_five(bait)) >= len(runs)


@lru_cache(maxsize=64)
def _runs_of_five(text: str) -> frozenset[tuple[str, ...]]:
    """Return all runs of five words; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        return frozenset()
    return frozenset(tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4)))
