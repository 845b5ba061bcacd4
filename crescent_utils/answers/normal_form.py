"""The normal form of an answer: one way to write what can be written in many (ours).

Two answers are equal where their normal forms are: "1,234", "$1234.00" and "1.234e3" are "1234", "1/2" is "0.5", "two
thirds" is "2/3", "50%" is "50" and not "0.5". Numbers are exact, never floats. An answer that is no number keeps its
words in lower case, a choice its letter, an expression its signs without spaces.

First Unicode and LaTeX are reduced to plain signs (`plain`, `without_latex`), then a number is recognised and written
out, in digits (`NUMBER_FORMS` has the ways to write one) or in words; `normal_form` puts the two together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from math import gcd, log10

# --- plain signs ------------------------------------------------------------------------------------------------------

_MINUS_SIGNS = dict.fromkeys(map(ord, "‐‑‒–—−﹣－⁻"), "-")
_SPACE_SIGNS = dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000\t\n\r\x0b\x0c"), " ")
_DROPPED_SIGNS = dict.fromkeys(
    [*range(0x09), *range(0x0E, 0x20), 0x7F, *map(ord, "\u200b\u200c\u200d\u2060\ufeff\ufe0f")], ""
)
_WIDE_SIGNS = dict(zip(map(ord, "٫٬，．：＄％٪⁄∕／⋅·∶＝﹩"), ".,,.:$%%///**:=$", strict=True))
_DIGIT_SIGNS = {code: str(unicodedata.digit(chr(code))) for code in range(0x80, 0x1FBFA) if chr(code).isdecimal()}
_VULGAR_FRACTIONS = {  # "½" is " 1/2 "
    code: " " + unicodedata.normalize("NFKC", chr(code)).replace("⁄", "/") + " "
    for code in [*map(ord, "¼½¾"), *range(0x2150, 0x215F)]
}
_ALL_SIGNS = _MINUS_SIGNS | _DROPPED_SIGNS | _WIDE_SIGNS | _DIGIT_SIGNS | _VULGAR_FRACTIONS
_WIDE_RUN = re.compile(r"[^\n -~]+")  # runs are few: looking only these up is several times faster than translating all
_WIDE_GROUP = re.compile("(?<=\\d)[\u00a0\u2009\u202f’](?=\\d{3}(?!\\d))")  # the narrow space in "1 234"
# Most texts need no change. Their bytes say so in a fraction of the time that a pattern takes.
_DROPPED_BYTES = bytes(code for code in _DROPPED_SIGNS if code < 0x80)
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")

_SPACED_GROUP = re.compile(r"([$€£]|(?:####|[=:]|\bis) ?[$*]{0,3}|)(?<![\d.,])(\d{1,3}(?: \d{3}){1,4})(?!\d|[,/:]\d)")


def plain(text: str) -> str:
    """Return the text with Unicode digits, minus signs and vulgar fractions in ASCII, without control signs."""
    if not text.isascii():
        return _WIDE_RUN.sub(lambda run: run[0].translate(_ALL_SIGNS), _WIDE_GROUP.sub(",", text))
    signs = text.encode()
    kept_signs = signs.translate(None, _DROPPED_BYTES)
    return text if len(kept_signs) == len(signs) else kept_signs.decode()


def grouped(text: str) -> str:
    """Return the text with "$400 000", "17 000" and "= 3 400" in commas; other digits with a space are two numbers."""
    if b"0 000" not in text.encode(errors="replace").translate(_DIGITS_AS_ZERO):
        return text
    return _SPACED_GROUP.sub(_with_commas, text)


def _with_commas(match: re.Match[str]) -> str:
    before, digits = match.groups()
    is_one_number = before or digits.endswith(" 000")
    return before + digits.replace(" ", ",") if is_one_number else match[0]


# --- LaTeX ------------------------------------------------------------------------------------------------------------

_TEX_GROUP = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\ |\{\\,\})(?=\d{3})")  # the comma in 1{,}234
_TEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d.,]{1,60})\s*\}|(\d))\s*(?:\{\s*(-?[\d.,]{1,60})\s*\}|(\d))")
_TEX_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]{0,400})\}")
_TEX_SIGNS = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\approx": "≈", r"\dots": "...", r"\ldots": "..."}
_TEX_SIGN = re.compile(r"\\(?:times|cdot|div|approx|dots|ldots)(?![a-z])")
_TEX_LAYOUT = re.compile(  # what only says how mathematics is set: \left( 5 \right), \, and \quad, degrees
    r"\\(?:left|right|displaystyle|[bB]igg?[lr]?|limits)(?![a-z])|\\[!,;: ()\[\]]|\\q?quad\b|\\(?=[$%#&])"
    r"|\^\s?\{?\s?\\circ\s?\}?"
    r"|\\degree\b"
)


def without_latex(text: str) -> str:
    r"""Return the text with its LaTeX in plain signs: \frac{1}{2} is 1/2, \text{cm} is cm, 1{,}234 is 1,234."""
    if "\\" not in text and "{," not in text:
        return text
    text = _TEX_GROUP.sub(",", text)
    text = _TEX_FRACTION.sub(_plain_fraction, text)
    text = _TEX_TEXT.sub(r" \1 ", text)
    text = _TEX_SIGN.sub(lambda sign: _TEX_SIGNS[sign[0]], text)
    return _TEX_LAYOUT.sub("", text)


def _plain_fraction(match: re.Match[str]) -> str:
    numerator, denominator = match[1] or match[2], match[3] or match[4]
    is_mixed = match.start() > 0 and match.string[match.start() - 1].isdigit()
    return f" {numerator}/{denominator} " if is_mixed else f"{numerator}/{denominator} "


# --- numbers in words -------------------------------------------------------------------------------------------------

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: number for number, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8}
_PARTS |= {"ninth": 9, "tenth": 10, "halve": 2}


def _any(words: Iterable[str]) -> str:
    """Return a pattern of one of the words; longer ones come first, so that "sixteen" is not read as "six"."""
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_SCALE = _any(_SCALES)
_BELOW_100 = rf"(?:{_any(_TENS)}(?:[ -]{_any(_ONES[1:10])}\b)?|{_any(_ONES)})"  # "ninety-nine"
_HUNDREDS = rf"(?:{_BELOW_100}[ -])?{_SCALE}(?:[ -]{_SCALE}\b)?"  # "three hundred thousand", "hundred"
_AND_MORE = rf"(?:(?:,| and)?[ -]{_BELOW_100}\b(?:[ -]{_SCALE}\b){{0,2}})"  # " and five", ", two hundred"
NUMBER_WORDS = rf"\b(?:{_HUNDREDS}{_AND_MORE}{{0,6}}|{_BELOW_100})\b"
_NUMBER_WORD = re.compile(_any([*_SMALL, *_SCALES]))
_SPOKEN = re.compile(rf"(?P<minus>negative |minus )?(?:an? )?(?P<number>{NUMBER_WORDS})(?P<rest>.*)", re.I | re.S)
_SPOKEN_PART = re.compile(  # "two thirds", "3 and a half", "minus one quarter of the cake"
    rf"(?P<minus>negative |minus )?(?:(?P<whole>{NUMBER_WORDS}|\d{{1,9}}) and )?"
    rf"(?:(?P<count>an?|{NUMBER_WORDS}|\d{{1,9}})[ -])?(?P<part>{_any(_PARTS)})s?(?P<rest> of .*)?",
    re.I | re.S,
)


def _spoken_form(text: str) -> str | None:
    """Return the normal form of a number in words with at most a unit behind it, None if the text is not that."""
    if part := _SPOKEN_PART.fullmatch(text):
        whole = _count(part["whole"]) if part["whole"] else 0
        count = _count(part["count"]) if part["count"] else 1
        value = whole + Fraction(count, _PARTS[part["part"].lower()])
        return _rational(-value if part["minus"] else value)
    match = _SPOKEN.fullmatch(text)
    if not match or not _UNIT.fullmatch(match["rest"]):
        return None
    return _decimal(bool(match["minus"]), str(_spoken_number(match["number"])), 0)


def _count(text: str) -> int:
    if text.isdigit():
        return int(text)
    if text.lower() in ("a", "an"):
        return 1
    return _spoken_number(text)


def _spoken_number(words: str) -> int:
    """Return the value of number words: "twenty-two" is 22, "two hundred and five" is 205."""
    total = group = 0
    for word in _NUMBER_WORD.findall(words.lower()):
        if word in _SMALL:
            group += _SMALL[word]
        elif word == "hundred":
            group = max(group, 1) * 100
        else:
            total += max(group, 1) * 10 ** _SCALES[word]
            group = 0
    return total + group


# --- numbers in digits ------------------------------------------------------------------------------------------------

_MAX_DIGITS = 300  # ours: the longest number that is expanded; a longer one is compared as text
_SHORT = r"(?:\d{1,3}(?:,\d{3}){1,12}(?!\d)(?:\.\d{1,60})?|\d{1,60}(?:\.\d{1,60})?|\.\d{1,60})"
NUMBER_FORMS = {  # white space in a pattern does not count; the first that fits is read
    "mixed number": r"(?P<whole>\d{1,40})(?:[ ]{1,2}|[ ]and[ ])(?P<top>\d{1,40})[ ]?/[ ]?(?P<under>\d{1,40})(?![\d/])",
    "number and a part": r"(?P<round>\d{1,40})[ ]and[ ](?:a|one)[ -](?P<part>half|third|quarter)\b",
    "time or ratio": r"(?P<clock>\d{1,12}(?:(?::|[ ]:[ ])\d{1,12}){1,3})(?!\d|\.\d)",
    "fraction": rf"(?P<dividend>{_SHORT})[ ]?/[ ]?(?P<divisor>{_SHORT})(?!\d|,\d|/\d)",
    "power of ten": rf"(?P<mantissa>{_SHORT})(?:[eE](?P<exp>[+-]?\d{{1,30}})(?![\w])"
    r"|[ ]?[*x×][ ]?10[ ]?(?:\^|\*\*)[ ]?[{(]?(?P<exp10>[+-]?\d{1,30})[)}]?)",
    "power": r"(?P<base>\d{1,9})[ ]?(?:\^|\*\*)[ ]?[{(]?(?P<power>\d{1,9})[)}]?(?![\d^*])",
    "plain number": r"(?P<plain>\d{1,3}(?:,\d{2,3}){0,12},\d{3}(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)",
}
VALUE = rf"(?:{'|'.join(NUMBER_FORMS.values())})(?:[ ]?(?P<scale>{_SCALE})\b)?"
_CURRENCY = r"(?:(?:\bUS|\bA|\bC|\bNZ|\bHK|\bS)?\$|[€£¥₹₽₱₩¢]|\b(?:Rs|USD|EUR|GBP|INR)\b\.?)"
_NUMBER = re.compile(rf"(?P<sign>[-+][ ]?)?{_CURRENCY}?[ ]?(?P<inner>-)?{VALUE}", re.X | re.I)
_INTEGER = re.compile(r"-?[1-9]\d{0,30}|0", re.A)
_SETTLED = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+|[:/]\d+){0,4}", re.A)
_UNIT = re.compile(  # " dollars per day"; possessive throughout: a long word can be read in one way only
    r"[ ]?(?:[$%°€£¥₹¢\"'′″]{1,2}+[ ]?)?"
    r"(?:[ ,-]{0,2}+(?!(?:pi|and|or|to|minus|plus|times|over|sqrt)\b)(?:per |/ ?)?[^\W\d_]{1,30}+[.’'\"]?+"
    r"(?:\^?\{?[23²³]\}?(?!\d))?+){0,12}+[ ]?(?:\([^()\d]{0,60}\))?[ .!,;]{0,4}"
)
_VARIABLE = re.compile(r"[xyznabkpqrtuvwi](?![^\W\d_])|pi\b", re.I)  # "5x" and "2pi" are no numbers with a unit


def _numeric_form(text: str) -> str | None:
    """Return the normal form of a number in digits with at most a unit behind it, None if the text is not that."""
    match = _NUMBER.match(text)
    if not match:
        return None
    rest = text[match.end() :]
    if rest and (_VARIABLE.match(rest) or not _UNIT.fullmatch(rest)):
        return None
    has_minus_before, has_minus_within = "-" in (match["sign"] or ""), bool(match["inner"])
    return value_of(match, has_minus_before != has_minus_within)


def value_of(match: re.Match[str], negative: bool, is_ratio: bool = False) -> str:
    """Return the normal form of the number that VALUE matched; `is_ratio` says that "6:30" is no time."""
    groups = match.groupdict()
    exponent = _SCALES[groups["scale"].lower()] if groups["scale"] else 0
    if groups["plain"]:
        digits, places = _digits_and_exponent(groups["plain"])
        return _decimal(negative, digits, places + exponent)
    if groups["clock"]:
        return _time_or_ratio(groups["clock"], is_ratio)
    if groups["mantissa"]:
        digits, places = _digits_and_exponent(groups["mantissa"])
        return _decimal(negative, digits, places + int(groups["exp"] or groups["exp10"]) + exponent)
    if groups["base"]:
        return _power(negative, int(groups["base"]), int(groups["power"]), exponent)
    value = _fraction_value(groups)
    if value is None:  # a division by zero is no number: it equals only itself
        numerator = re.sub(r"\s+", "", groups["dividend"] or groups["top"])
        return f"-{numerator}/0" if negative else f"{numerator}/0"
    return _rational((-value if negative else value) * 10**exponent)


def _fraction_value(groups: dict[str, str]) -> Fraction | None:
    """Return the value of "3 and a half", "1 3/4" or "1,000/3"; None for a division by zero."""
    if groups["round"]:
        return int(groups["round"]) + Fraction(1, _PARTS[groups["part"].lower()])
    if groups["whole"]:
        under = int(groups["under"])
        return int(groups["whole"]) + Fraction(int(groups["top"]), under) if under else None
    dividend, divisor = (Fraction(groups[name].replace(",", "")) for name in ("dividend", "divisor"))
    return dividend / divisor if divisor else None


def _digits_and_exponent(number: str) -> tuple[str, int]:
    """Return the digits and the exponent of a decimal: "1,234.50" is "123450" and -2."""
    whole, _, decimals = number.replace(",", "").partition(".")
    return whole + decimals, -len(decimals)


def _time_or_ratio(text: str, is_ratio: bool) -> str:
    """Return a time as it stands (without a leading zero and a closing ":00"), a ratio in lowest terms."""
    terms = [term.strip() for term in text.split(":")]
    first, later = terms[0].lstrip("0") or "0", terms[1:]
    is_time = len(first) <= 2 and int(first) <= 24 and all(len(term) == 2 and term < "60" for term in later)
    if is_time and not is_ratio:
        return ":".join([first, *later]) if any(map(int, later)) else first
    divisor = gcd(*map(int, terms)) or 1
    return ":".join(str(int(term) // divisor) for term in terms)


def _power(negative: bool, base: int, power: int, exponent: int) -> str:
    digits = power * log10(base) if base else 0.0
    if digits <= _MAX_DIGITS:
        return _decimal(negative, str(base**power), exponent)
    unexpanded = f"{base}^{power}e{exponent}" if exponent else f"{base}^{power}"
    return f"-{unexpanded}" if negative else unexpanded


def _decimal(negative: bool, digits: str, exponent: int) -> str:
    """Return digits * 10**exponent as a decimal without needless zeros, with an "e" where that would be too long."""
    digits = digits.lstrip("0")
    stripped = digits.rstrip("0")
    exponent += len(digits) - len(stripped)
    if not stripped:
        return "0"
    sign = "-" if negative else ""
    if 0 <= exponent <= _MAX_DIGITS:
        return sign + stripped + "0" * exponent
    if -_MAX_DIGITS - len(stripped) <= exponent < 0:
        padded = stripped.rjust(1 - exponent, "0")
        return f"{sign}{padded[:exponent]}.{padded[exponent:]}"
    return f"{sign}{stripped}e{exponent}"


def _rational(value: Fraction) -> str:
    """Return an exact fraction as a decimal where that ends, else in lowest terms."""
    places = value.denominator.bit_length()  # no decimal that ends has more
    if 10**places % value.denominator:
        return f"{value.numerator}/{value.denominator}"
    return _decimal(value < 0, str(abs(value.numerator) * 10**places // value.denominator), -places)


# --- the normal form --------------------------------------------------------------------------------------------------

_CACHED_LENGTH = 256  # longer strings are not cached: a million of them would not fit into memory
_LEAD = re.compile(  # "about 5", "a total of 5", "x = 5", "f(x) = 5"
    r"(?:(?:about|approximately|approx\.?|around|roughly|exactly|only|just|nearly|almost|a total of"
    r"|total of)\s"
    r"|[≈~≃]|[a-z](?:_\{?\w{1,8}\}?)?(?:\([a-z]\))?\s?=|=|\s){1,6}",
    re.I,
)
_LONG_NUMBER = re.compile(r"([-+]?)\s?[$€£]?\s?(\d[\d,]*)?(?:\.(\d*))?\s?%?\.?", re.A)
_CHOICE = re.compile(r"\(?([A-Za-z])\)?")


def normal_form(text: str) -> str:
    """Return the canonical form of an answer; two answers are equal where their normal forms are."""
    if is_integer(text):
        return text
    if len(text) <= _CACHED_LENGTH:
        return _cached_form(text)
    number = _LONG_NUMBER.fullmatch(text.strip())
    if number and (number[2] or number[3]):
        return _decimal(number[1] == "-", *_digits_and_exponent(f"{number[2] or ''}.{number[3] or ''}"))
    if len(text) > 4 * _CACHED_LENGTH:
        return text.strip()
    return _repeated_form(text)


def _repeated_form(text: str) -> str:
    """Return the normal form that is its own: what one pass uncovers (such as a lone letter), a next one reads."""
    for _ in range(4):
        form = _form(text)
        if form == text or is_integer(form):
            return form
        text = form
    return text


_cached_form = lru_cache(maxsize=1 << 16)(_repeated_form)


def _form(text: str) -> str:
    text = without_latex(plain(text).translate(_SPACE_SIGNS)).strip(" \"'`*$“”‘’_")
    text = re.sub(r" {2,}", " ", text).removeprefix("(+)")
    while text and text[-1] in ".,;!":
        text = text[:-1].rstrip(" *$\"'")
    lead = _LEAD.match(text)
    core = text[lead.end() :] if lead else text
    if core.startswith("(") and core.endswith(")") and core.count("(") == 1 and "," not in core:
        core = core[1:-1].strip()
    form = _numeric_form(core) or _spoken_form(core)
    if form is None and "=" in core:
        form = _numeric_form(core.rpartition("=")[2].strip(" $"))
    return _worded_form(text) if form is None else form


def _worded_form(text: str) -> str:
    """Return the normal form of an answer that is no number: a choice letter, a symbolic expression, or words."""
    if choice := _CHOICE.fullmatch(text):
        return choice[1].upper()
    if re.search(r"[\\^_=+*/<>|{}\d]", text):  # white space between digits, and after a comma, says "two numbers"
        expression = re.sub(r"[ $]+(?![\d ])|(?<!\d)[ $]+", "", text)
        return re.sub(r",(?=[^,])", ", ", expression)
    words = re.sub(r"[^\w'%:/-]+", " ", text.casefold()).strip()
    return re.sub(r"^(?:the|an?) ", "", words) or text.strip()


def is_integer(text: str) -> bool:
    """Return whether a text is a whole number in normal form."""
    return _INTEGER.fullmatch(text) is not None


def is_number(form: str) -> bool:
    """Return whether a normal form is settled: a decimal, a fraction, a time or a ratio."""
    return _SETTLED.fullmatch(form) is not None
