"""Measuring: a row says how fast ours and an alternative are, over rounds in which the two take turns.

Each `bench_*.py` has `ROWS`: by name, the functions that measure a row. Their argument `scale` multiplies the sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from crescent_utils.runs import costs, layout, params

Work = Callable[[], "int | tuple[int, float]"]  # returns the units that it did, and seconds where its own clock counts
SECONDS = "s"  # the unit of a thing that is done once; every other unit is a rate
REFERENCE = params.ROOT / "outputs" / "reference"


@dataclass(frozen=True)
class Row:
    """One line of the table. A ratio is how many times as fast as the alternative ours is, whatever the unit.

    `ours`, `alternative` and `ratio` are medians over `rounds`, `lowest` and `highest` the range of the rounds' ratios.
    `n` counts the units of one round, `seconds` is what the measurement took. `why_not` says why there is nothing else.
    """

    against: str = ""
    unit: str = ""
    ours: float | None = None
    alternative: float | None = None
    ratio: float | None = None
    lowest: float | None = None
    highest: float | None = None
    rounds: int = 0
    n: int = 0
    seconds: float = 0.0
    machine: str = ""
    note: str = ""
    why_not: str = ""


def compare(against: str, unit: str, ours: Work, alternative: Work, rounds: int = 4) -> Row:
    """Return the row of two ways to do the same, which begin in turns (A B, B A, A B …), so that drift hits both."""
    began = time.perf_counter()
    rates: dict[Work, list[float]] = {ours: [], alternative: []}
    done = 0
    for number in range(rounds):
        for way in (ours, alternative) if number % 2 == 0 else (alternative, ours):
            units, seconds = _timed(way)
            rates[way].append(units / seconds)
            done = units if way is ours else done
    return row_of(against, unit, rates[ours], rates[alternative], done, time.perf_counter() - began)


def row_of(against: str, unit: str, ours: list[float], alternative: list[float], n: int, seconds: float) -> Row:
    """Return the row of rates (units a second) of ours and of the alternative, one of each a round."""
    ratios = [mine / other for mine, other in zip(ours, alternative, strict=True)]
    middles = [1 / median(rates) if unit == SECONDS else median(rates) for rates in (ours, alternative)]
    spread = (median(ratios), min(ratios), max(ratios))
    return Row(against, unit, *middles, *spread, len(ratios), n, seconds, costs.device_name())


def _timed(work: Work) -> tuple[int, float]:
    began = time.perf_counter()
    result = work()
    return result if isinstance(result, tuple) else (result, time.perf_counter() - began)


def reference(stage: str, table: str, column: str) -> list[str]:
    """Return a column of the committed run's tables: real texts that every clone has."""
    return list(layout.read_table(REFERENCE, stage, table)[column])
