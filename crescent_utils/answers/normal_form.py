"""The normal form of an answer: one way to write what can be written in many (ours).

Two answers are equal where their normal forms are: "1,234", "$1234.00" and "1.234e3" are "1234", "1/2" is "0.5", "two
thirds" is "2/3", "50%" is "50" and not "0.5". Numbers are exact, never floats. An answer that is no number keeps its words
in lower case, a choice its letter, an expression its signs without spaces.

First Unicode and LaTeX are reduced to plain signs (`plain`, `grouped`, `without_latex`), then a number is recognised
(`VALUE`) and written out (`value_of`), in digits or in words; `normal_form` puts the two together.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from math import gcd, log10

_MINUS = dict.fromkeys(map(ord, "‐‑‒–—−﹣－⁻"), "-")
SPACES = dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000\t\n\r\x0b\x0c"), " ")
_DROP = dict.fromkeys([*range(0x09), *range(0x0E, 0x20), *map(ord, "\u200b\u200c\u200d\u2060\ufeff\ufe0f\x7f")], "")
_OTHER = {0x066B: ".", 0x066C: ",", 0xFF0C: ",", 0xFF0E: ".", 0xFF1A: ":", 0xFF04: "$", 0xFF05: "%", 0x66A: "%"}


_OTHER |= {0x2044: "/", 0x2215: "/", 0xFF0F: "/", 0x22C5: "*", 0xB7: "*", 0x2236: ":", 0xFF1D: "=", 0xFE69: "$"}


_DIGITS = {c: str(unicodedata.digit(chr(c))) for c in range(0x80, 0x1FBFA) if chr(c).isdecimal()}
_VULGAR = {
    c: " " + unicodedata.normalize("NFKC", chr(c)).replace("⁄", "/") + " "
    for c in [0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F)]
}
_PLAIN = _MINUS | _DROP | _OTHER | _DIGITS | _VULGAR
_TEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d.,]{1,60})\s*\}|(\d))\s*(?:\{\s*(-?[\d.,]{1,60})\s*\}|(\d))")
_TEX_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]{0,400})\}")
_TEX_DROP = re.compile(
    r"\\(?:left|right|displaystyle|[bB]igg?[lr]?|limits)(?![a-z])|\\[!,;: ()\[\]]|\\q?quad\b|\\(?=[$%#&])"
    r"|\^\s?\{?\s?\\circ\s?\}?"
    r"|\\degree\b"
)
_TEX_WORDS = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\approx": "≈", r"\dots": "...", r"\ldots": "..."}
_TEX_WORD = re.compile(r"\\(?:times|cdot|div|approx|dots|ldots)(?![a-z])")
_TEX_GROUP = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\ |\{\\,\})(?=\d{3})")


def plain(text: str) -> str:
    """Write Unicode digits, minus signs and vulgar fractions in ASCII; drop control and zero-width signs."""
    if text.isascii():  # by far the most texts
        return text if text.replace("\n", "").isprintable() else text.translate(_DROP)
    return _WIDE.sub(_narrow, _WIDE_GROUP.sub(",", text))


_WIDE = re.compile(r"[^\n -~]+")  # runs are few: looking only these up is several times faster than translating all


def _narrow(match: re.Match[str]) -> str:
    return match[0].translate(_PLAIN)


_SPACED_GROUP = re.compile(r"([$€£]|(?:####|[=:]|\bis) ?[$*]{0,3}|)(?<![\d.,])(\d{1,3}(?: \d{3}){1,4})(?!\d|[,/:]\d)")


def grouped(text: str) -> str:
    """Write "$400 000", "17 000" and "= 3 400" with commas; elsewhere a space between digits says "two numbers"."""
    return _SPACED_GROUP.sub(_with_commas, text) if _SPACED.search(text) else text


def _with_commas(match: re.Match[str]) -> str:
    stands_alone = match[1] or match[2].endswith(" 000")
    return match[1] + match[2].replace(" ", ",") if stands_alone else match[0]


_SPACED = re.compile(r" (?<=\d )\d{3}(?!\d)")
_WIDE_GROUP = re.compile("(?<=\\d)[\u00a0\u2009\u202f’](?=\\d{3}(?!\\d))")


def _tex_fraction(match: re.Match[str]) -> str:
    mixed = match.start() and match.string[match.start() - 1].isdigit()
    return f"{' ' if mixed else ''}{match[1] or match[2]}/{match[3] or match[4]} "


def without_latex(text: str) -> str:
    r"""Reduce the LaTeX of an answer to plain signs: \frac{1}{2} is 1/2, \text{cm} is cm, 1{,}234 is 1,234."""
    if "\\" not in text and "{," not in text:
        return text
    text = _TEX_GROUP.sub(",", text)
    text = _TEX_FRACTION.sub(_tex_fraction, text)
    text = _TEX_TEXT.sub(r" \1 ", text)
    text = _TEX_WORD.sub(lambda m: _TEX_WORDS[m[0]], text)
    return _TEX_DROP.sub("", text)


MAX_DIGITS = 300  # ours: the longest number that is expanded; a longer one is compared as text
_CACHED_LENGTH = 256  # longer strings are not cached: a million of them would not fit into memory
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {w: i for i, w in enumerate(_ONES)} | {w: 10 * i for i, w in enumerate(_TENS, 2)}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8}


_PARTS |= {"ninth": 9, "tenth": 10, "halve": 2}


def _any(words: object) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"  # type: ignore[call-overload]


_WORD = _any([*_SMALL, *_SCALES])
_BELOW_100 = rf"(?:{_any(_TENS)}(?:[ -]{_any(_ONES[1:10])}\b)?|{_any(_ONES)})"
NUMBER_WORDS = (
    rf"\b(?:(?:{_BELOW_100}[ -])?{_any(_SCALES)}(?:[ -]{_any(_SCALES)}\b)?"
    rf"(?:(?:,| and)?[ -]{_BELOW_100}\b(?:[ -]{_any(_SCALES)}\b){{0,2}}){{0,6}}|{_BELOW_100})\b"
)
_SHORT = r"(?:\d{1,3}(?:,\d{3}){1,12}(?!\d)(?:\.\d{1,60})?|\d{1,60}(?:\.\d{1,60})?|\.\d{1,60})"
VALUE = rf"""(?:
  (?P<whole>\d{{1,40}})(?:[ ]{{1,2}}|[ ]and[ ])(?P<top>\d{{1,40}})[ ]?/[ ]?(?P<under>\d{{1,40}})(?![\d/])
 |(?P<round>\d{{1,40}})[ ]and[ ](?:a|one)[ -](?P<part>half|third|quarter)\b
 |(?P<clock>\d{{1,12}}(?:(?::|[ ]:[ ])\d{{1,12}}){{1,3}})(?!\d|\.\d)
 |(?P<num>{_SHORT})[ ]?/[ ]?(?P<den>{_SHORT})(?!\d|,\d|/\d)
 |(?P<mantissa>{_SHORT})(?:[eE](?P<exp>[+-]?\d{{1,30}})(?![\w])
    |[ ]?[*x×][ ]?10[ ]?(?:\^|\*\*)[ ]?[{{(]?(?P<exp10>[+-]?\d{{1,30}})[)}}]?)
 |(?P<base>\d{{1,9}})[ ]?(?:\^|\*\*)[ ]?[{{(]?(?P<power>\d{{1,9}})[)}}]?(?![\d^*])
 |(?P<plain>\d{{1,3}}(?:,\d{{2,3}}){{0,12}},\d{{3}}(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
)(?:[ ]?(?P<scale>hundred|thousand|million|billion|trillion)\b)?"""
CURRENCY = r"(?:(?:\bUS|\bA|\bC|\bNZ|\bHK|\bS)?\$|[€£¥₹₽₱₩¢]|\b(?:Rs|USD|EUR|GBP|INR)\b\.?)"
_NUMBER = re.compile(rf"(?P<sign>[-+][ ]?)?{CURRENCY}?[ ]?(?P<inner>-)?{VALUE}", re.X | re.I)
_INTEGER = re.compile(r"-?[1-9]\d{0,30}|0", re.A)
_HUGE = re.compile(r"([-+]?)\s?[$€£]?\s?(\d[\d,]*)?(?:\.(\d*))?\s?%?\.?", re.A)
_UNIT = re.compile(  # possessive throughout: a long word can be read in one way only
    r"[ ]?(?:[$%°€£¥₹¢\"'′″]{1,2}+[ ]?)?"
    r"(?:[ ,-]{0,2}+(?!(?:pi|and|or|to|minus|plus|times|over|sqrt)\b)(?:per |/ ?)?[^\W\d_]{1,30}+[.’'\"]?+"
    r"(?:\^?\{?[23²³]\}?(?!\d))?+){0,12}+[ ]?(?:\([^()\d]{0,60}\))?[ .!,;]{0,4}"
)
_VARIABLE = re.compile(r"[xyznabkpqrtuvwi](?![^\W\d_])|pi\b", re.I)
_LEAD = re.compile(
    r"(?:(?:about|approximately|approx\.?|around|roughly|exactly|only|just|nearly|almost|a total of"
    r"|total of)\s"
    r"|[≈~≃]|[a-z](?:_\{?\w{1,8}\}?)?(?:\([a-z]\))?\s?=|=|\s){1,6}",
    re.I,
)
_SPOKEN = re.compile(rf"(?P<minus>negative |minus )?(?:an? )?(?P<number>{NUMBER_WORDS})(?P<rest>.*)", re.I | re.S)
_PART = re.compile(
    rf"(?P<minus>negative |minus )?(?:(?P<whole>{NUMBER_WORDS}|\d{{1,9}}) and )?"
    rf"(?:(?P<n>an?|{NUMBER_WORDS}|\d{{1,9}})[ -])?(?P<part>{_any(_PARTS)})s?(?P<rest> of .*)?",
    re.I | re.S,
)


def decimal(negative: bool, digits: str, exponent: int) -> str:
    """Write digits * 10**exponent as a decimal without needless zeros; with an e where it would be too long."""
    digits = digits.lstrip("0")
    stripped = digits.rstrip("0")
    exponent += len(digits) - len(stripped)
    if not stripped:
        return "0"
    sign = "-" if negative else ""
    if 0 <= exponent <= MAX_DIGITS:
        return sign + stripped + "0" * exponent
    if -MAX_DIGITS - len(stripped) <= exponent < 0:
        padded = stripped.rjust(1 - exponent, "0")
        return f"{sign}{padded[:exponent]}.{padded[exponent:]}"
    return f"{sign}{stripped}e{exponent}"


def rational(value: Fraction) -> str:
    """Write an exact fraction as a decimal where that ends, else in lowest terms."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    return decimal(value < 0, str(abs(value.numerator) * 10**places // value.denominator), -places)


def _split(number: str) -> tuple[str, int]:
    """Digits and exponent of a decimal such as 1,234.50."""
    whole, _, after = number.replace(",", "").partition(".")
    return whole + after, -len(after)


def _fraction(number: str) -> Fraction:
    digits, exponent = _split(number)
    return Fraction(int(digits), 10**-exponent)


def _clock(text: str, is_ratio: bool) -> str:
    """A time as it stands (without a leading zero), or a ratio in lowest terms."""
    parts = [p.strip().lstrip("0") or "0" for p in text.split(":")]
    later = [p.strip() for p in text.split(":")[1:]]
    if not is_ratio and len(parts[0]) <= 2 and int(parts[0]) <= 24 and all(len(p) == 2 and p < "60" for p in later):
        return parts[0] if not any(map(int, later)) else ":".join([parts[0], *later])
    divisor = gcd(*map(int, parts)) or 1
    return ":".join(str(int(p) // divisor) for p in parts)


def value_of(match: re.Match[str], negative: bool, is_ratio: bool = False) -> str:
    """Canonical value of a match of VALUE with its sign."""
    groups = match.groupdict()
    exponent = _SCALES[groups["scale"].lower()] if groups["scale"] else 0
    if groups["plain"]:
        digits, places = _split(groups["plain"])
        return decimal(negative, digits, places + exponent)
    if groups["clock"]:
        return _clock(groups["clock"], is_ratio)
    if groups["mantissa"]:
        digits, places = _split(groups["mantissa"])
        return decimal(negative, digits, places + int(groups["exp"] or groups["exp10"]) + exponent)
    if groups["base"]:
        return _power(negative, groups["base"], groups["power"], exponent)
    return _quotient(negative, groups, exponent)


def _power(negative: bool, base: str, power: str, exponent: int) -> str:
    if int(power) * (log10(int(base)) if int(base) else 0.0) > MAX_DIGITS:
        return f"{'-' if negative else ''}{int(base)}^{int(power)}" + f"e{exponent}" * bool(exponent)
    return decimal(negative, str(int(base) ** int(power)), exponent)


def _quotient(negative: bool, groups: dict[str, str], exponent: int) -> str:
    if groups["round"]:
        under = _PARTS[groups["part"].lower()]
        value: Fraction | None = int(groups["round"]) + Fraction(1, under)
    elif groups["whole"]:
        top, under = int(groups["whole"]) * int(groups["under"]) + int(groups["top"]), int(groups["under"])
        value = Fraction(top, under) if under else None
    else:
        below = _fraction(groups["den"])
        value = _fraction(groups["num"]) / below if below else None
    if value is None:  # a division by zero is no number: it equals only itself
        return re.sub(r"\s+", "", f"{'-' if negative else ''}{groups['num'] or groups['top']}/0")
    return rational(value * 10**exponent * (-1 if negative else 1))


def spoken_number(words: str) -> int:
    """The value of number words: "twenty-two" is 22, "two hundred and five" is 205."""
    total = group = 0
    for word in re.findall(_WORD, words.lower()):
        if word in _SMALL:
            group += _SMALL[word]
        elif word == "hundred":
            group = max(group, 1) * 100
        else:
            total, group = total + max(group, 1) * 10 ** _SCALES[word], 0
    return total + group


def _spoken(text: str) -> str | None:
    """Normal form of an answer in words, None if it is not a number in words."""
    if part := _PART.fullmatch(text):
        count = _count(part["n"]) if part["n"] else 1
        value = Fraction(count, _PARTS[part["part"].lower()]) + (_count(part["whole"]) if part["whole"] else 0)
        return rational(-value if part["minus"] else value)
    match = _SPOKEN.fullmatch(text)
    if not match or not _UNIT.fullmatch(match["rest"]):
        return None
    return decimal(bool(match["minus"]), str(spoken_number(match["number"])), 0)


def _count(text: str) -> int:
    if text.isdigit():
        return int(text)
    return 1 if text.lower() in ("a", "an") else spoken_number(text)


def _numeric(text: str) -> str | None:
    """Normal form of a number with at most a unit behind it, None if the text is not that."""
    match = _NUMBER.match(text)
    if not match:
        return None
    rest = text[match.end() :]
    if rest and (_VARIABLE.match(rest) or not _UNIT.fullmatch(rest)):
        return None
    return value_of(match, ("-" in (match["sign"] or "")) != bool(match["inner"]))


def _words(text: str) -> str:
    """Normal form of an answer that is no number: a choice letter, a symbolic expression, or words."""
    letter = re.fullmatch(r"\(?([A-Za-z])\)?", text)
    if letter:
        return letter[1].upper()
    if re.search(r"[\\^_=+*/<>|{}\d]", text):  # white space between digits, and after a comma, says "two numbers"
        bare = re.sub(r"[ $]+(?![\d ])|(?<!\d)[ $]+", "", text)
        return re.sub(r",(?=[^,])", ", ", bare)
    return re.sub(r"^(?:the|an?) ", "", re.sub(r"[^\w'%:/-]+", " ", text.casefold()).strip()) or text.strip()


def _normal_form(text: str) -> str:
    text = without_latex(plain(text).translate(SPACES)).strip(" \"'`*$“”‘’_")
    text = re.sub(r" {2,}", " ", text).removeprefix("(+)")
    while text[-1:] in ".,;!" and text:
        text = text[:-1].rstrip(" *$\"'")
    lead = _LEAD.match(text)
    core = text[lead.end() :] if lead else text
    if core.startswith("(") and core.endswith(")") and core.count("(") == 1 and "," not in core:
        core = core[1:-1].strip()
    found = _numeric(core) or _spoken(core)
    if found is None and "=" in core:
        found = _numeric(core.rpartition("=")[2].strip(" $"))
    return _words(text) if found is None else found


def _settled(text: str) -> str:
    """The normal form of a normal form is itself: what one pass uncovers (such as a lone letter), a next one reads."""
    for _ in range(4):
        text, before = _normal_form(text), text
        if text == before or is_integer(text):
            break
    return text


_cached = lru_cache(maxsize=1 << 16)(_settled)


def normal_form(text: str) -> str:
    """Return the canonical form of an answer; two answers are equal where their normal forms are."""
    if is_integer(text):
        return text
    if len(text) <= _CACHED_LENGTH:
        return _cached(text)
    huge = _HUGE.fullmatch(text.strip())
    if huge and (huge[2] or huge[3]):
        return decimal(huge[1] == "-", *_split(f"{huge[2] or ''}.{huge[3] or ''}"))
    return text.strip() if len(text) > 4 * _CACHED_LENGTH else _settled(text)


def is_integer(text: str) -> bool:
    """Whether a text is a whole number in normal form."""
    return _INTEGER.fullmatch(text) is not None


def is_number(form: str) -> bool:
    """Whether a normal form is settled: a decimal, a fraction, a time or a ratio."""
    return _SETTLED.fullmatch(form) is not None


_SETTLED = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+|[:/]\d+){0,4}", re.A)
