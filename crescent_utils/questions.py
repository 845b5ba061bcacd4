"""From a raw completion to one question, or a named reason for rejecting it.

`extract_question` is ours; `released_clean` reproduces what the authors' public cleaner does, so that its cost can be
measured. Rule for several questions in one completion: sentences of one paragraph stay together (a word problem may ask
twice); of a list of separate problems, or of several paragraphs that each ask, the first is taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from crescent_utils import question_patterns as p

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
    if p.ANNOUNCES.match(segment) and rest.startswith("\n\n") and not p.BULLET.match(rest.lstrip()):
        return True
    return bool(p.GREETING.match(segment) or p.EXCLAIMS.match(segment) or p.CHAT.match(segment))


def _start(text: str) -> int:
    """Where the problem begins: behind chat, titles and labels."""
    at = 0
    for _ in range(10):
        at = _skip(text, at)
        mark = p.LABEL.match(text, at) or p.TITLE.match(text, at)
        if mark and text[mark.end() :].strip():
            at = mark.end()
            continue
        end = p.SEGMENT.search(text, at)
        comma = p.OPENING_WORD.match(text, at)
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
        mark = p.LABEL.match(text, at + line.end())
        if mark and text[mark.end() :].strip():
            return at if "?" in text[at : at + line.end()] else _skip(text, mark.end())
    return at


def _sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, break before) of each sentence; the break is "", "line" or "paragraph"."""
    start, before = 0, ""
    for end in p.SENTENCE_END.finditer(text):
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
    if p.SOLVED.match(sentence) or p.CLOSING.match(sentence) or p.ANOTHER.match(sentence):
        return False
    if gap == "paragraph":
        return bool(p.INSTRUCTS.match(sentence) or p.OPTION.match(sentence))
    if gap == "line":
        return bool(p.INSTRUCTS.match(sentence) or p.OPTION.match(sentence) or asks) and not p.BULLET.match(sentence)
    return not p.SOLVES.match(sentence)


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
        if not asked and start and (p.SOLVED.match(head) or p.ANOTHER.match(head)):
            break
        question = sentence.rstrip("\"'”’)*_ ]").endswith("?")
        if question or (not strong and p.IMPERATIVE.search(sentence)):
            end, asked, strong, gap = stop, True, strong or question, ""
        elif asked and (p.INSTRUCTS.match(head) or (gap and p.OPTION.match(head))):
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
        bullet = p.BULLET.match(text)
        text = text[bullet.end() :] if bullet else text
        text = _unquoted(text.strip())
        if text == before:
            break
    return p.BOLD.sub(r"\2", text)


def _unquoted(text: str) -> str:
    """Without a pair of quotes around the whole, or one whose partner was cut off with what followed."""
    for double in ("**", "__"):
        if text.startswith(double) and (text.endswith(double) or text.count(double) == 1) and len(text) > 4:
            return text[2:].removesuffix(double)
    closing = p.QUOTES.get(text[:1])
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
    foreign = sum(w in p.FOREIGN for w in words)
    return foreign < 2 or foreign <= sum(w in p.ENGLISH for w in words)


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
    if min_quantities and len(p.NUMBER.findall(text)) < min_quantities:
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
    text = text[:_READ].replace("\r\n", "\n").replace("\r", "\n").translate(p.DROPPED)
    header = p.HEADER.match(text.lstrip())
    text = text.lstrip()[header.end() :] if header else text
    text = p.TOKEN.split(text.lstrip(), maxsplit=1)[0] if "<" in text or "[" in text else text
    text = text.replace("```", "").strip()
    if not text:
        return Rejected("empty", "")
    if p.REFUSAL.match(text) and "?" not in text[:200]:
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
    return " ".join(s for s in sentences if s and not any(phrase in s.lower() for phrase in p.RELEASED_CHAT))
