"""Figures: one function for each figure, one module for each notebook.

In come tables of a run. Each function returns a matplotlib figure and a text that says the figure's numbers again, so
that nothing has to be read off an axis, and a reader without the picture loses nothing. A notebook prints the text and
shows the figure; the report uses the same functions. Figures that compare have intervals and n; where there is nothing
to draw, they say so in one line. There are two exceptions: `schematic` returns the method's six steps as SVG text, and
what a reader can move (`threshold_slider`, `vote_browser`, `flip_browser`) is a view with a static form in the place of
a figure.
"""

from .dedup import (
    acceptance_by_round,
    frequent_bars,
    kept_by_similarity,
    nearest_similarity,
    pool_growth,
    pool_map,
    protocol_bars,
    vendi_bars,
)
from .elicit import funnel, rejection_reasons
from .evaluate import accuracy_bars, accuracy_by_seed, claims_forest, failure_bars, gain_parts_bars, paired_effects
from .finetune import loss_curve, rounds_panels
from .interactive import flip_browser, threshold_slider, vote_browser
from .schematic import schematic
from .study import foretelling_scatter
from .vote import agreement_by_group, agreement_histogram, headroom_bars, reliability, threshold_sweep, votes_needed

__all__ = [
    "acceptance_by_round",
    "accuracy_bars",
    "accuracy_by_seed",
    "agreement_by_group",
    "agreement_histogram",
    "claims_forest",
    "failure_bars",
    "flip_browser",
    "foretelling_scatter",
    "frequent_bars",
    "funnel",
    "gain_parts_bars",
    "headroom_bars",
    "kept_by_similarity",
    "loss_curve",
    "nearest_similarity",
    "paired_effects",
    "pool_growth",
    "pool_map",
    "protocol_bars",
    "rejection_reasons",
    "reliability",
    "rounds_panels",
    "schematic",
    "threshold_slider",
    "threshold_sweep",
    "vendi_bars",
    "vote_browser",
    "votes_needed",
]
