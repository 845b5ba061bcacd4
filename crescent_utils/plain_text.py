"""Unicode and LaTeX in answers, reduced to plain ASCII signs (ours)."""

from __future__ import annotations

import re
import unicodedata

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
    r"""Reduce the LaTeX of an answer to plain signs: \frac{1}{2} is 1/2, \text{cm} is cm, 1{,}234 is "
    "1,234.
    """
    if "\\" not in text and "{," not in text:
        return text
    text = _TEX_GROUP.sub(",", text)
    text = _TEX_FRACTION.sub(_tex_fraction, text)
    text = _TEX_TEXT.sub(r" \1 ", text)
    text = _TEX_WORD.sub(lambda m: _TEX_WORDS[m[0]], text)
    return _TEX_DROP.sub("", text)
