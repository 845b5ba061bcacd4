"""One function a figure: each takes tables and returns the figure and a text that says its numbers again.

The text is rounded and depends on the table alone, so that a check can compare it where it cannot compare
pictures. Figures are made without pyplot: nothing stays open and any backend will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .canvas import BLUE, MOST_BARS, ORANGE, horizontal_bars

if TYPE_CHECKING:
    import pandas as pd


def funnel(counts: Mapping[str, int]) -> tuple[Figure, str]:
    """How many are left after each step, in the order given: sampled, kept, ..., trained."""
    values = list(counts.values())
    pairs = zip([0, *values], values, strict=False)
    notes = [f"{value:,}" + (f" ({value / before:.1%})" if before else "") for before, value in pairs]
    figure = horizontal_bars("From sampled to trained", counts, notes, BLUE, "items (share of the step before)")
    return figure, " -> ".join(map(" ".join, zip(counts, notes, strict=True))) or "funnel: no data"


def rejection_reasons(rejected: pd.DataFrame) -> tuple[Figure, str]:
    """What was rejected, by reason (column `reason`)."""
    import pandas as pd

    found = rejected["reason"].astype(str).value_counts() if len(rejected) else pd.Series(dtype=int)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = dict(ranked[:MOST_BARS])
    if len(ranked) > MOST_BARS:
        counts[f"{len(ranked) - MOST_BARS} other reasons"] = sum(n for _, n in ranked[MOST_BARS:])
    notes = [f"{n:,}" for n in counts.values()]
    listed = ", ".join(map(" ".join, zip(counts, notes, strict=True))) or "none"
    figure = horizontal_bars("Rejected, by reason", counts, notes, ORANGE, "items")
    return figure, f"rejected {len(rejected):,}: {listed}"
