"""Figures of 01, and the funnel of a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .canvas import BLUE, MOST_BARS, ORANGE, horizontal_bars

if TYPE_CHECKING:
    import pandas as pd


def funnel(counts: Mapping[str, int]) -> tuple[Figure, str]:
    """Draw how many remain after each step, in the order given: sampled, kept, …, trained."""
    values = list(counts.values())
    steps = zip([0, *values], values, strict=False)
    notes = [f"{value:,}" + (f" ({value / before:.1%})" if before else "") for before, value in steps]
    figure = horizontal_bars("From sampled to trained", counts, notes, BLUE, "items (share of the step before)")
    return figure, " -> ".join(map(" ".join, zip(counts, notes, strict=True))) or "funnel: no data"


def rejection_reasons(rejected: pd.DataFrame) -> tuple[Figure, str]:
    """Draw how many were rejected for each reason (column `reason`), the most frequent first."""
    frequencies = Counter(rejected["reason"].astype(str))
    ranked = sorted(frequencies.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = dict(ranked[:MOST_BARS])
    if len(ranked) > MOST_BARS:
        counts[f"{len(ranked) - MOST_BARS} other reasons"] = sum(n for _, n in ranked[MOST_BARS:])
    notes = [f"{n:,}" for n in counts.values()]
    listed = ", ".join(map(" ".join, zip(counts, notes, strict=True))) or "none"
    figure = horizontal_bars("Rejected, by reason", counts, notes, ORANGE, "items")
    return figure, f"rejected {len(rejected):,}: {listed}"
