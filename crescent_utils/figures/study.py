"""Figure of a study: whether preflight foretells the gain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ..stats import Interval
from .canvas import BLUE, GREEN, GREY, INK, ORANGE, RED, SMALL, empty_axes, empty_figure, label_ends

if TYPE_CHECKING:
    import pandas as pd


def foretelling_scatter(table: pd.DataFrame, correlation: Interval) -> tuple[Figure, str]:
    """Draw foretold headroom against realised gain, a named point for each setting (table `foretelling` of a study).

    `correlation` is Spearman's of the two columns; its estimate is nan where there are too few settings.
    """
    if table.empty:
        return empty_figure("foretelling")
    is_known = not math.isnan(correlation.low)
    interval = f"[{correlation.low:+.2f}, {correlation.high:+.2f}]" if is_known else "(too few for an interval)"
    rank = f"Spearman {correlation.estimate:+.2f} {interval}"
    if math.isnan(correlation.estimate):
        rank = "too few different settings for a rank correlation"
    note = f"{rank}, n = {correlation.n} settings; lines are 95 % intervals"
    figure, axes = empty_axes("Does preflight foretell the gain?", 5.0, note=note)
    domains = list(dict.fromkeys(table["domain"]))
    colours = dict(zip(domains, (BLUE, ORANGE, GREEN, RED) * len(domains), strict=False))
    texts, labels = [], []
    for row in table.sort_values("realised").to_dict("records"):
        x, y = 100 * row["predicted"], 100 * row["realised"]
        x_error = [[x - 100 * row["predicted_low"]], [100 * row["predicted_high"] - x]]
        y_error = [[y - 100 * row["realised_low"]], [100 * row["realised_high"] - y]]
        x_error, y_error = (np.clip(np.nan_to_num(error), 0, None) for error in (x_error, y_error))
        axes.errorbar(x, y, y_error, x_error, "o", color=colours[row["domain"]], ms=5, elinewidth=0.7, alpha=0.85)
        name = f"{row['part']}, {row['arm']}".replace("_", " ")
        labels.append((x, y, name, INK))
        texts.append(f"{name} {x:+.1f} -> {y:+.1f}")
    for domain, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=domain.replace("_", " "))
    axes.axhline(0, color=GREY, lw=1)
    axes.axvline(0, color=GREY, lw=1)
    label_ends(axes, labels, in_a_column=True)
    axes.set_xlabel("foretold: majority minus greedy on dev items, points")
    axes.set_ylabel("realised gain on test items, points")
    axes.legend(loc="best", frameon=False, fontsize=SMALL)
    return figure, f"foretold -> realised gain: {'; '.join(texts)}; {rank}, n = {correlation.n} settings"
