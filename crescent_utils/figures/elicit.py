"""Figures of 01, and the funnel of a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .canvas import BLUE, GREY, MOST_BARS, ORANGE, horizontal_bars

if TYPE_CHECKING:
    import pandas as pd

# Why something was rejected, in plain words; a reason that is not here is words already.
REASONS = {
    "empty": "nothing left after cleaning",
    "refusal": "the model refuses",
    "not_english": "not in English",
    "no_question": "asks nothing",
    "unfinished": "breaks off before its end",
    "too_short": "too short",
    "too_long": "too long",
    "copies_bait": "repeats the bait",
    "too_few_quantities": "too few numbers in it",
    "off_pattern": "not of the domain's form",
    "no_answer": "no answer that can be read",
    "tie": "tied vote",
    "min_agreement": "too few votes agree",
    "min_margin": "winner too little ahead",
    "token_budget": "left out by the token budget",
}


def reason_words(reason: str) -> str:
    """Return a reason in plain words: "dedup: too_long, after 2 rewrites" is "dedup: too long, after 2 rewrites"."""
    stage, colon, code = reason.rpartition(": ")
    code, comma, rest = code.partition(", ")
    return f"{stage}{colon}{REASONS.get(code, code.replace('_', ' '))}{comma}{rest}"


def funnel(counts: Mapping[str, int]) -> tuple[Figure, str]:
    """Draw how many remain after each step, in the order given: sampled, kept, …, trained."""
    values = list(counts.values())
    steps = list(zip([0, *values], values, strict=False))
    notes = [f"{value:,}" + (f" ({value / before:.1%})" if before else "") for before, value in steps]
    note = "Number that remains, and in brackets its share of the step before."
    colours = [GREY, *[BLUE] * (len(counts) - 1)]
    figure = horizontal_bars("From sampled to trained", counts, notes, colours, "remaining", note=note, each=0.34)
    return figure, " -> ".join(map(" ".join, zip(counts, notes, strict=True))) or "funnel: no data"


def rejection_reasons(rejected: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how many were rejected for each reason (column `reason`), in words, the most frequent first."""
    frequencies = Counter(map(reason_words, rejected["reason"].astype(str)))
    ranked = sorted(frequencies.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = dict(ranked[:MOST_BARS])
    if len(ranked) > MOST_BARS:
        counts[f"{len(ranked) - MOST_BARS} other reasons"] = sum(n for _, n in ranked[MOST_BARS:])
    notes = [f"{n:,} ({n / len(rejected):.1%})" for n in counts.values()]
    listed = ", ".join(map(" ".join, zip(counts, notes, strict=True))) or "none"
    note = f"n = {len(rejected):,} rejected; in brackets the share of these."
    figure = horizontal_bars("Why they were rejected", counts, notes, ORANGE, "rejected", note=note)
    return figure, f"rejected {len(rejected):,}: {listed}"
