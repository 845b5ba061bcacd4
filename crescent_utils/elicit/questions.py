"""What chat, labels, solutions and closing words around an elicited question look like (ours).

Only the head of a completion is compared with the patterns of chat, and only what follows a question with those of
solutions and closings, so that a problem's own sentences are left alone. No pattern repeats an unbounded part within
another, and each is tried at one place or on one sentence: the whole is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

THING = r"(?:problem|question|puzzle|challenge|exercise|riddle|brain ?teaser|rewrite|revision|version|example)s?"
OPENING = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|great|yes|no problem|gladly"
    r"|definitely|"
    r"thanks?(?: you)?|got it|so|well|understood|hello|hi(?: there)?|hey(?: there)?|wow|excellent|perfect)"
)
EXCLAIMS = re.compile(r"[^\d?:.\n]{1,60}!+\W*$")  # a short sentence without a number: "Challenge accepted!"
ANNOUNCES = re.compile(r"[^\d?]{1,160}:\W*$")
OPENING_WORD = re.compile(rf"{OPENING}, ", re.I)
GREETING = re.compile(rf"\W*{OPENING}\W*$", re.I)
CHAT = re.compile(
    rf"\W*(?:{OPENING}\b[^\w\n]{{0,4}})?(?:"
    r"(?:here (?:it|they) (?:is|are|goes)\b|here(?:[’']s| is| are| you (?:go|are)| we go|[’']re)\b"
    rf"(?=[^\n]*(?:\b{THING}|\b(?:one|go|thing|for you"
    rf"|request(?:ed)?)\b|:\W*$))"
    r"|i(?:[’']d| would) be (?:happy|glad|delighted)|(?:happy|glad) to\b|with pleasure"
    r"|how about\b(?=[^\n]*[:!]|\s*$)"
    r"|i(?:[’']ve| have| will|[’']ll| can| came| think| created| made| wrote| hope|[’']m)\b"
    rf"(?=[^\n]*\b(?:{THING}|one|you|this|idea)\b)"
    r"|i can help\b"
    rf"|let me\b|let[’']s\b(?=[^\n]*\b(?:{THING}|one|this)\b)|let[’']s (?:go|dive in|begin|start)"
    rf"|consider (?:this|the following)\b(?=[^\n]*:)"
    rf"|try this\b|as (?:an ai|requested|you)\b|based on (?:your|the) request|that[’']s (?:a"
    rf"|an) [^\n]*\b{THING}\b"
    rf"|what an? [^\n]{{0,40}}\b(?:{THING}|idea|request)\b|(?:below|following|above) is\b"
    rf"|(?:the|this|a|an|my|your|one|another)\b(?=[^\n]*\b{THING}\b[^\n]*:\W*$)"
    rf"|[^\n:]{{0,80}}\b{THING}[^\n:]{{0,60}}:\W*$))",
    re.I,
)
LABEL = re.compile(
    r"[\s#>*_]*(?:(?:(?:the|a|my|your|unique|special|diverse|creative|math(?:ematics|ematical|s)?|word"
    r"|high[- ]school|level|new|"
    r"modified|rewritten|revised|changed|original|sample|practice|challenge|algebra|geometry"
    r"|arithmetic)[ -]){0,6}"
    r"(?:problem|question|puzzle|challenge|exercise|task)(?: statement)?|Q|assistant)(?: ?(?:#|no\.? |number )? ?1)?"
    r"\s*[*_]*(?:[:：](?!\d)|[—–](?=\s)|(?<=1)[.)](?=\s)|(?=\n))[ *_]*",
    re.I,
)
TITLE = re.compile(
    r"\s*(?:#{1,6}[ \t]+[^\n?]{1,90}|\*\*[^*\n?.!]{1,80}\*\*:?|__[^_\n?.!]{1,80}__:?"
    r"|title: [^\n?]{1,80})[ \t]*\n",
    re.I,
)
SEGMENT = re.compile(r"[.!?:]{1,6}[\"'”’)*_]{0,6}(?=\s|$)|[:,!]\s?(?=\n)|\n")
ANOTHER = re.compile(
    r"[\s#>*_-]*(?:(?:problem|question|puzzle|challenge|exercise|example|variation|version|Q) ?(?:#"
    r"|no\.?)? ?(?:[2-9]|1\d)\b"
    r"|\(?(?:[2-9]|1\d)[.)]\s+[A-Z\d*\"]|another (?:one|problem|question)\W*[:\n]|bonus (?:question|problem"
    r"|challenge)|(?:question|problem)\s*:)",
    re.I,
)
SOLVED = re.compile(
    r"[\s#>*_(\[-]*(?:(?:the |a |your |my |possible |sample |detailed |correct |final )*"
    r"(?:solutions?|answers?(?: key| choices)?|ans|explanations?|hints?|steps?"
    r"|step[- ]by[- ]step[^:\n]{0,30}|working|"
    r"approach|reasoning|calculations?|equations?|response|difficulty|level|topic|skills?|category"
    r"|grade)(?: \d+)?"
    r"\s*[*_]*\s*(?:[:：]|\n|$|(?<=\d)[.)])"
    r"|A ?[:.]\s|(?i:the) (?:correct |final )?(?:answer|solution) (?:is|to)\b|assistant\b|user\b|human\s*:"
    r"|\\boxed|####|-{3,})",
    re.I,
)
SOLVES = re.compile(
    r"[\s#>*_-]*(?:to (?:solve|find|answer|calculate|determine|figure|get)\b"
    r"|let(?:[’']s| us) |let \$?\\?[a-z]\b|(?:first|firstly|next|since|so|therefore|thus|in order to)\b"
    r"|we (?:know|can|need|have|start|are|will|must|should)\b|\$?[a-z]\$? ?= ?\S)",
    re.I,
)
CLOSING = re.compile(
    r"\W*(?:let me know\b|(?:i|we) (?:really )?hope\b|hope (?:this|you|that)\b|feel free\b|good luck\b"
    r"|have fun\b|enjoy\b|"
    r"happy (?:solving|learning|calculating|math)|please (?!round|express|give|show your answer|write)|"
    r"(?:can|could|are) you (?:(?:able|ready|up) )?(?:to |for )?(?:solve|figure|handle|crack|help|tackle"
    r"|the challenge|find (?:the|a) "
    r"(?:answer|solution))\b|would you like\b|do you (?:want|need|have|think you|like)\b|what do you think\b"
    r"|does this\b|"
    rf"is (?:this|there anything)\b|how(?:[’']s| is| was) (?:this|that)\b|try (?:to solve|solving|it|this)\b"
    rf"|take your time\b|give it a\b|"
    rf"(?:this|that|the(?: above)?) (?:math |word |new |unique )*{THING}\b|this (?:requires|involves|tests"
    rf"|should|one|is)\b|"
    r"i(?:[’']ll|[’']d|[’']m|[’']ve| will| would| am| can| have| tried| made| look| chose| changed| kept)\b|"
    r"if you(?:[’']d| would| need| have any| want|[’']re stuck| get stuck)\b|(?:show|explain) your (?:work"
    r"|reasoning)|"
    r"don[’']t forget\b|looking forward|thank you|thanks\b|note: (?:this|the|you|i)\b|\(?note that (?:this"
    r"|the)\b|ready\b|"
    r"it (?:requires|involves|tests|combines)\b|remember to\b|as always\b|and there you|there you (?:go"
    r"|have))",
    re.I,
)
REFUSAL = re.compile(
    r"\W*(?:i(?:[’']m| am) (?:sorry|unable|not able|afraid)|sorry|i (?:cannot|can[’']t|apologi[sz]e)"
    r"|unfortunately|as an ai)\b",
    re.I,
)
IMPERATIVE = re.compile(
    r"(?:^\W*(?:(?:please|then|now|also|and|hence)\b,? ?)?|[,;:] (?:and |then |please )?|\band )"
    r"(?:calculate|find|determine|compute|solve|evaluate|simplify|estimate|express|convert|prove|show that"
    r"|work out|figure out"
    r"|how (?:many|much|long|far|old|fast|tall|big)|what (?:is|are|was|will|would|fraction|percent))\b"
    r"|^\W*(?:write|name|list|give|state|identify|divide|add|subtract|multiply|compare|choose|factor|round"
    r"|complete|fill)\b"
    r"|\bhow (?:many|much) (?:[a-z]+ )?(?:did|does|do|would|will|is|are|was|were)\b",
    re.I,
)
INSTRUCTS = re.compile(
    r"\W*(?:(?:please )?(?:round|assume|express|give your|use|write (?:your|the)|suppose|ignore|state your"
    r"|leave|do not)\b"
    r"|remember (?:that )?(?:there|that)\b|note: (?:assume|round)|consider\b)|\((?!note)",
    re.I,
)
OPTION = re.compile(r"\s*(?:\(?[A-Ea-e1-5][).:]|\([a-e]\))\s+\S")
SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bsq)(?<!\bSq)[.!?]{1,6}[\"'”’)*_\]]{0,6}(?=\s|$)"
    r"|\)(?=\s+(?:I|Let|Good|This|Hope|Can|Do|Would|Try)\b)|\n"
)
BULLET = re.compile(r"[ \t]*(?:[-*•]\s+|>\s*|#{1,6}\s+|\(?1[.)]\s+(?=\S))")
BOLD = re.compile(r"(?<!\w)(\*\*|__)(?=\S)([^*_\n]{1,2000}?)(?<=\S)\1(?!\w)")
QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "`": "`", "*": "*", "_": "_"}
HEADER = re.compile(r"(?:<\|[a-z_]{2,40}\|>\s*(?:assistant|system)?\s*){1,6}", re.I)
TOKEN = re.compile(r"<\|[a-z_]{2,40}\|>|</s>|\[/?INST\]|<(?:end|start)_of_turn>")
DROPPED = dict.fromkeys([*range(9), *range(11, 32), 127, 0x200B, 0x2060, 0xFEFF])
NUMBER = re.compile(
    r"\d+(?:[.,:/]\d+)*|[½⅓⅔¼¾⅕⅛]|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|thirteen|fourteen|"
    r"fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    r"|hundreds?|"
    r"thousands?|millions?|half|halves|third|thirds|quarters?|fourths?|fifths?|twice|thrice|double[ds]?"
    r"|triple[ds]?|dozens?|"
    r"couple|pair|first|second|once)\b",
    re.I,
)
ENGLISH = frozenset(
    "the a an of to and in is are was were be he she it they his her their has have had how many much what "
    "who which "
    "if each on for with at by from there than more does do did will would can you i find calculate".split()
)
FOREIGN = frozenset(
    "el la los las un una de del que en y es son cuántas cuántos cuánto tiene le les des et est une du dans "
    "combien der die das "
    "und ein eine ist sind wie viele hat il gli che di per quanti quante ha o os uma um quantos quantas não "
    "tem em zu mit von "
    "het een van hoeveel heeft jest ile och att har".split()
)
# The four phrases that the description of the released code names, then ours to make up its "some two dozen".
RELEASED_CHAT = (
    "of course", "word problem", "answer", "i need", "sure", "here is", "heres", "certainly", "math "
    "problem", "let me know",
    "i hope", "feel free", "good luck", "happy to help", "id be happy", "solution", "high school", "can you "
    "solve",
    "absolutely", "great question", "challenging problem", "unique problem", "thank you", "im sorry",
)  # fmt: skip
REASONS = (
    "empty",
    "refusal",
    "not_english",
    "no_question",
    "unfinished",
    "too_short",
    "too_long",
    "too_few_quantities",
    "copies_bait",
    "off_pattern",
)
_CHATTER = 400  # ours: the longest sentence that can be chat
_SENTENCES = 400  # ours: a problem has no more sentences
_READ = 20_000  # ours: a question stands within so many characters; what comes later is not read


@dataclass(frozen=True)
class Question:
    """A question taken from a completion."""

    text: str


@dataclass(frozen=True)
class Rejected:
    """A completion that gave no question: why (one of REASONS), and what was left of it."""

    reason: str
    text: str = ""


def _skip(text: str, at: int) -> int:
    """Past white space, rules and emoji."""
    while at < len(text) and (
        text[at].isspace() or _is_emoji(text[at]) or text.startswith(("---", "***\n", "==="), at)
    ):
        at += 3 if text[at] in "-=*" else 1
    return at


def _is_emoji(sign: str) -> bool:
    return sign > "\u2190" and (unicodedata.category(sign) in ("So", "Sk", "Cs") or sign in "\ufe0f\u200d")


def _is_chat(segment: str, rest: str) -> bool:
    """Whether the first words of a completion talk to the user instead of stating the problem."""
    if len(segment) > _CHATTER or not rest.strip():
        return False
    if ANNOUNCES.match(segment) and rest.startswith("\n\n") and not BULLET.match(rest.lstrip()):
        return True
    return bool(GREETING.match(segment) or EXCLAIMS.match(segment) or CHAT.match(segment))


def _start(text: str) -> int:
    """Where the problem begins: behind chat, titles and labels."""
    at = 0
    for _ in range(10):
        at = _skip(text, at)
        mark = LABEL.match(text, at) or TITLE.match(text, at)
        if mark and text[mark.end() :].strip():
            at = mark.end()
            continue
        end = SEGMENT.search(text, at)
        comma = OPENING_WORD.match(text, at)
        stop = end.end() if end else len(text)
        if _is_chat(text[at:stop].strip(), text[stop:]):
            at = stop
        elif comma:
            at = comma.end()
        else:
            break
    return _later_label(text, at)


def _later_label(text: str, at: int) -> int:
    """Behind a label such as "Problem:" that stands on a later line, unless a question came before it."""
    for line in re.finditer(r"\n(?=[ \t#>*_]*[A-Za-z])", text[at : at + 1500]):
        mark = LABEL.match(text, at + line.end())
        if mark and text[mark.end() :].strip():
            return at if "?" in text[at : at + line.end()] else _skip(text, mark.end())
    return at


def _sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, break before) of each sentence; the break is "", "line" or "paragraph"."""
    start, before = 0, ""
    for end in SENTENCE_END.finditer(text):
        if text[start : end.end()].strip():
            yield start, end.end() - (end[0] == "\n"), before
            before = "line" if end[0] == "\n" else ""
        elif end[0] == "\n":
            before = "paragraph" if before else "line"
        start = end.end()
    if text[start:].strip():
        yield start, len(text), before


def _goes_on(sentence: str, asks: bool, gap: str) -> bool:
    """Whether a sentence behind the one that asks still belongs to the problem."""
    if SOLVED.match(sentence) or CLOSING.match(sentence) or ANOTHER.match(sentence):
        return False
    if gap == "paragraph":
        return bool(INSTRUCTS.match(sentence) or OPTION.match(sentence))
    if gap == "line":
        return bool(INSTRUCTS.match(sentence) or OPTION.match(sentence) or asks) and not BULLET.match(sentence)
    return not SOLVES.match(sentence)


def _end(text: str) -> tuple[int, bool]:
    """Where the problem ends, and whether it asks anything: behind the last question of the first asking "
    "paragraph.
    """
    end, asked, strong, gap = 0, False, False, ""
    reached = 0
    for start, stop, before in islice(_sentences(text), _SENTENCES):
        sentence = text[start:stop].strip()
        head = sentence[:_CHATTER]
        gap = "paragraph" if "paragraph" in (gap, before) else before or gap
        if asked and not _goes_on(head, "?" in sentence, gap):
            break
        if not asked and start and (SOLVED.match(head) or ANOTHER.match(head)):
            break
        question = sentence.rstrip("\"'”’)*_ ]").endswith("?")
        if question or (not strong and IMPERATIVE.search(sentence)):
            end, asked, strong, gap = stop, True, strong or question, ""
        elif asked and (INSTRUCTS.match(head) or (gap and OPTION.match(head))):
            end, gap = stop, ""
        elif not asked:
            gap, reached = "", stop
    if asked:
        return end, True
    return reached, False


def _unwrapped(text: str) -> str:
    """Without list marks, bold and emoji at the ends, and without quotes around the whole."""
    text = text.strip()
    for _ in range(4):
        before = text
        stop = len(text)
        while stop and (_is_emoji(text[stop - 1]) or text[stop - 1].isspace()):
            stop -= 1
        start = 0
        while start < stop and _is_emoji(text[start]):
            start += 1
        text = text[start:stop]
        bullet = BULLET.match(text)
        text = text[bullet.end() :] if bullet else text
        text = _unquoted(text.strip())
        if text == before:
            break
    return BOLD.sub(r"\2", text)


def _unquoted(text: str) -> str:
    """Without a pair of quotes around the whole, or one whose partner was cut off with what followed."""
    for double in ("**", "__"):
        if text.startswith(double) and (text.endswith(double) or text.count(double) == 1) and len(text) > 4:
            return text[2:].removesuffix(double)
    closing = QUOTES.get(text[:1])
    if closing and text[0] in '"“«' and text.endswith((closing, closing + ".")) and len(text) > 2:
        return text[1:].rstrip(".").removesuffix(closing)
    if closing and len(text) > 2 and closing not in text[1:-1] and (text[-1] == closing or text[1:2].isupper()):
        return text[1:].removesuffix(closing)
    if text[-1:] in ("*", "_", "”", '"') and text.count(text[-1]) == 1 and "“" not in text:
        return text[:-1]
    return text


def _is_english(text: str) -> bool:
    """Mostly Latin letters, and more English than other European function words."""
    letters = [c for c in text[:4000] if c.isalpha()]
    if letters and sum(c > "\u024f" and not "\u0370" <= c <= "\u03ff" for c in letters) > 0.3 * len(letters):
        return False
    words = re.findall(r"[^\W\d_]+", text[:4000].lower())
    foreign = sum(w in FOREIGN for w in words)
    return foreign < 2 or foreign <= sum(w in ENGLISH for w in words)


@lru_cache(maxsize=64)
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4)))


def _copies(text: str, bait: str) -> bool:
    """Half of its runs of five words stand in the bait (ours)."""
    words = re.findall(r"\w+", text.lower())
    runs = {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}
    return bool(words) and 2 * len(runs & _runs(bait)) >= len(runs)


def _gate(
    text: str, min_quantities: int, min_words: int, max_words: int, pattern: str, bait: str
) -> Question | Rejected:
    """The validity gates of a domain."""
    words = len(text.split())
    if words < min_words:
        return Rejected("too_short", text)
    if words > max_words:
        return Rejected("too_long", text)
    if bait and _copies(text, bait):
        return Rejected("copies_bait", text)
    if min_quantities and len(NUMBER.findall(text)) < min_quantities:
        return Rejected("too_few_quantities", text)
    if pattern and not re.fullmatch(pattern, text):
        asking = f"{text.rstrip('.')}?"  # a sampler that stops at the question mark does not return it
        return Question(asking) if re.fullmatch(pattern, asking) else Rejected("off_pattern", text)
    return Question(text)


def extract_question(
    completion: str,
    *,
    min_quantities: int = 0,
    min_words: int = 3,
    max_words: int = 300,
    pattern: str = "",
    bait: str = "",
) -> Question | Rejected:
    """One question from a completion: chat, labels, Markdown, solutions and what follows are cut off.

    The gates of a domain are the keywords; `pattern` is a regular expression that the whole question must match, and
    `bait` a text that it must not copy.
    """
    text = completion[completion.rfind("</think>") + 8 :] if "</think>" in completion else completion
    text = text[:_READ].replace("\r\n", "\n").replace("\r", "\n").translate(DROPPED)
    header = HEADER.match(text.lstrip())
    text = text.lstrip()[header.end() :] if header else text
    text = TOKEN.split(text.lstrip(), maxsplit=1)[0] if "<" in text or "[" in text else text
    text = text.replace("```", "").strip()
    if not text:
        return Rejected("empty", "")
    if REFUSAL.match(text) and "?" not in text[:200]:
        return Rejected("refusal", text)
    text = text[_start(text) :]
    end, asks = _end(text)
    found = _unwrapped(text[:end])
    if not _is_english(found or text):
        return Rejected("not_english", found or text)
    if not asks:
        finished = re.search(r"[.!?][\"'”’)*_\]]*\s*$", text)
        return Rejected("no_question" if finished else "unfinished", found or text)
    return _gate(found, min_quantities, min_words, max_words, pattern, bait)


def released_clean(completion: str) -> str:
    """The authors' cleaner (DESIGN.md, protocol `released`): it damages `3/4 of $5.50` into `34 of 5. 50`.

    Keeps letters, digits, white space and . , : ; ? ! only, cuts behind the first "?" (no "?": empty string), and drops
    the sentences that hold a chat phrase; a point inside a number ends a sentence too.
    """
    kept = "".join(c for c in completion if c.isalnum() or c.isspace() or c in ".,:;?!")
    before, mark, _ = kept.partition("?")
    if not mark:
        return ""
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])", before + mark)]
    return " ".join(s for s in sentences if s and not any(phrase in s.lower() for phrase in RELEASED_CHAT))
