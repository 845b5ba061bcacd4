"""One function a figure: each takes tables and returns the figure and a text that says its numbers again.

The text is rounded and depends on the table alone, so that a check can compare it where it cannot compare
pictures. Figures are made without pyplot: nothing stays open and any backend will do.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

# Okabe and Ito's palette (2008), which survives the common kinds of colour blindness.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
WIDTH = 7.0  # inches: a notebook's column
MOST_BARS, Z95 = 14, 1.959964
PER_CENT, COUNT = "{x:.0%}", "{x:,.0f}"  # how an axis writes its numbers
NAMES = {"base": "base", "tuned": "self-improved", "student": "student", "student_tuned": "distilled student"}


class Picture(Figure):  # type: ignore[misc, unused-ignore]
    """A figure that notebooks show by themselves, with or without an inline backend."""

    def _repr_png_(self) -> bytes:
        self.savefig(target := io.BytesIO(), format="png", dpi=100)
        return target.getvalue()


def funnel(counts: Mapping[str, int]) -> tuple[Figure, str]:
    """How many are left after each step, in the order given: sampled, kept, ..., trained."""
    values = list(counts.values())
    pairs = zip([0, *values], values, strict=False)
    notes = [f"{value:,}" + (f" ({value / before:.1%})" if before else "") for before, value in pairs]
    figure = bars("From sampled to trained", counts, notes, BLUE, "items (share of the step before)")
    return figure, " -> ".join(map(" ".join, zip(counts, notes, strict=True))) or "funnel: no data"


def reasons(rejected: pd.DataFrame) -> tuple[Figure, str]:
    """What was rejected, by reason (column `reason`)."""
    found = rejected["reason"].astype(str).value_counts() if len(rejected) else pd.Series(dtype=int)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = dict(ranked[:MOST_BARS])
    if len(ranked) > MOST_BARS:
        counts[f"{len(ranked) - MOST_BARS} other reasons"] = sum(n for _, n in ranked[MOST_BARS:])
    notes = [f"{n:,}" for n in counts.values()]
    listed = ", ".join(map(" ".join, zip(counts, notes, strict=True))) or "none"
    figure = bars("Rejected, by reason", counts, notes, ORANGE, "items")
    return figure, f"rejected {len(rejected):,}: {listed}"


def nearest_similarity(before: ArrayLike, after: ArrayLike, threshold: float) -> tuple[Figure, str]:
    """Cosine of each question to its nearest neighbour, before and after deduplication."""
    figure, axes = canvas("Similarity to the nearest neighbour", 3.4)
    shares: list[str] = []
    for values, name, colour in ((before, "before", ORANGE), (after, "after", BLUE)):
        found = np.clip(pd.Series(values, dtype=float).dropna().to_numpy(), 0, 1)
        if found.size == 0:
            continue
        style = {"histtype": "stepfilled", "fc": (colour, 0.25), "ec": colour, "lw": 1.6}
        style |= {"weights": np.full(found.size, 1 / found.size), "label": f"{name} (n = {found.size:,})"}
        axes.hist(found, np.linspace(0, 1, 41), **style)
        above = f"at or above {threshold:.2f}: {(found >= threshold).mean():.1%}"
        shares.append(f"{name}: n {found.size:,}, median {np.median(found):.2f}, {above}")
    if not shares:
        return nothing("similarity")
    axes.axvline(threshold, color=RED, ls="--", lw=1.4, label=f"threshold {threshold:.2f}")
    axes.set(xlabel="cosine to the nearest other question", ylabel="share of questions")
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(frameon=False, loc="upper left")
    return figure, "; ".join(shares)


def acceptance_by_round(attempts: pd.DataFrame) -> tuple[Figure, str]:
    """Rewrites accepted and refused in each round (columns `round`, `accepted`)."""
    figure, axes = canvas("Rewrites by round", 3.2)
    if attempts.empty:
        return nothing("rewrites")
    rounds = attempts.groupby("round")["accepted"].agg(["sum", "size"]).astype(int).sort_index()
    places = rounds.index.astype(str)
    axes.bar(places, rounds["sum"], 0.65, color=GREEN, label="accepted")
    axes.bar(places, rounds["size"] - rounds["sum"], 0.65, rounds["sum"], color=GREY, label="refused")
    words = []
    for place, (number, row) in enumerate(rounds.iterrows()):
        share = f"{row['sum'] / row['size']:.0%}"
        axes.annotate(share, (place, row["size"]), ha="center", va="bottom", fontsize=9)
        words.append(f"round {number}: {row['sum']:,} of {row['size']:,} accepted ({share})")
    axes.set(xlabel="round", ylabel="rewrites", ylim=(0, rounds["size"].max() * 1.25))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper right", ncols=2)
    return figure, "; ".join(words)


def pool_growth(accepted: Sequence[bool] | ArrayLike) -> tuple[Figure, str]:
    """How the pool grows as candidates come by, in their order: flat where nothing new comes any more."""
    figure, axes = canvas("Growth of the pool", 3.2)
    new = np.asarray(accepted, dtype=bool)
    n, kept = new.size, np.cumsum(new)
    if n == 0:
        return nothing("pool")
    axes.plot([0, n], [0, n], color=GREY, ls=":", lw=1.2, label="if all were new")
    axes.plot(np.arange(n + 1), [0, *kept], color=BLUE, lw=2, label="kept")
    axes.set(xlabel="candidates seen", ylabel="questions in the pool", xlim=(0, n), ylim=(0, None))
    axes.legend(frameon=False, loc="upper left")
    half, last = max(1, n // 2), new[-max(1, n // 10) :].mean()
    return figure, f"{kept[half - 1]:,} kept of {half:,}, {kept[-1]:,} of {n:,}; last tenth {last:.0%}"


def agreement_histogram(qa: pd.DataFrame) -> tuple[Figure, str]:
    """How many of the votes the winning answer has (column `agreement`); ties apart where `tied` is known."""
    figure, axes = canvas("Agreement of the votes", 3.2)
    if qa.empty:
        return nothing("agreement")
    tied = qa["tied"].astype(bool) if "tied" in qa else pd.Series(False, index=qa.index)
    levels = sorted(qa["agreement"].round(3).unique())
    style = {"stacked": True, "color": [BLUE, ORANGE], "label": ["one winner", "tied"], "ec": "white"}
    groups = [qa.loc[~tied, "agreement"], qa.loc[tied, "agreement"]]
    axes.hist(groups, _edges(levels) if len(levels) <= 40 else np.linspace(0, 1, 21), **style)
    axes.set(xlabel="agreement (the winner's share of the votes)", ylabel="questions", xlim=(0, 1.1))
    axes.set_xticks(levels if len(levels) <= 12 else np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    mean, full = qa["agreement"].mean(), (qa["agreement"] > 1 - 1e-9).mean()
    return figure, f"n {len(qa):,}, mean agreement {mean:.2f}, unanimous {full:.1%}, tied {tied.mean():.1%}"


def reliability(qa: pd.DataFrame) -> tuple[Figure, str]:
    """How often the voted label is right at each agreement (columns `agreement`, `correct`), 95 % Wilson."""
    figure, axes = canvas("Is an agreed answer a right one?", 3.6)
    known = qa[qa["correct"].notna()] if "correct" in qa else qa.iloc[:0]
    if known.empty:
        return nothing("no gold answers")
    exact = known["agreement"].nunique() <= 12
    level = known["agreement"].round(3) if exact else np.ceil(known["agreement"].round(6) * 10) / 10
    table = known["correct"].astype(bool).groupby(level).agg(["sum", "size"]).sort_index()
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.2, label="right as often as agreed")
    words = []
    for place, (right, n) in zip(table.index, table.to_numpy().tolist(), strict=True):
        share, scale = right / n, 1 + Z95**2 / n
        centre = (share + Z95**2 / (2 * n)) / scale
        half = Z95 * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n)) / scale
        error = [[max(0.0, share - centre + half)], [max(0.0, centre + half - share)]]
        axes.errorbar(place, share, error, fmt="o", color=BLUE, capsize=3, ms=5)
        axes.text(place, centre + half + 0.01, f"{n:,}", ha="center", va="bottom", fontsize=8)
        words.append(f"{place:.2f}: {share:.0%} of {n:,}")
    label = "agreement" if exact else "agreement (upper end of each tenth)"
    axes.set(xlabel=label, ylabel="labels that are right", xlim=(0, 1.05), ylim=(0, 1.12))
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(frameon=False, loc="upper left")
    total = f"all {known['correct'].astype(bool).mean():.0%} of {len(known):,}"
    return figure, f"right labels by agreement: {', '.join([*words, total])}"


def loss_curve(log: pd.DataFrame) -> tuple[Figure, str]:
    """Training loss, and held-out loss where it was measured (columns `step`, `loss`, `eval_loss`)."""
    figure, axes = canvas("Loss", 3.2)
    words = []
    for column, name, colour, style in (("loss", "training", BLUE, ""), ("eval_loss", "held out", RED, "o")):
        rows = log[log[column].notna()].sort_values("step") if column in log else log.iloc[:0]
        if rows.empty:
            continue
        axes.plot(rows["step"], rows[column], style + "-", color=colour, lw=1.8, ms=4, label=name)
        values = rows[column]
        words.append(f"{name} {values.iloc[0]:.3f} -> {values.iloc[-1]:.3f} (lowest {values.min():.3f})")
    if not words:
        return nothing("loss")
    axes.set(xlabel="optimiser step", ylabel="cross-entropy (nats per token)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure, f"{int(log['step'].max()):,} steps; " + "; ".join(words)


def accuracy_bars(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Accuracy before and after, with intervals, a pair of bars for each row of a comparisons table."""
    rows = comparisons.to_dict("records")
    if not rows:
        return nothing("accuracy")
    figure, axes = canvas("Accuracy", 1.2 + 0.62 * len(rows))
    for side, colour, shift in (("before", GREY, -0.2), ("after", BLUE, 0.2)):
        names = {name_of(row[side]) for row in rows}
        places = np.arange(len(rows)) + shift
        value, low, high = (comparisons[f"{side}_{end}"].to_numpy() for end in ("accuracy", "low", "high"))
        axes.barh(places, value, 0.38, color=colour, label=names.pop() if len(names) == 1 else side)
        error = np.clip([value - low, high - value], 0, None)
        axes.errorbar(value, places, xerr=error, fmt="none", ecolor="black", capsize=3, lw=1.1)
        for place, share, end in zip(places, value, high, strict=True):
            axes.annotate(f"  {share:.1%}", (end, place), va="center", fontsize=8)
    titles = [what(row, models=True) for row in rows]
    name_rows(axes, titles)
    axes.set_xlabel("accuracy (95 % interval)")
    axes.set_xlim(0, 1.15 * comparisons[["before_high", "after_high"]].to_numpy().max())
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower right", frameon=False, ncols=2, fontsize=9)
    words = [f"{r['before_accuracy']:.1%} -> {r['after_accuracy']:.1%} (n {r['n']:,})" for r in rows]
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


def paired_effects(comparisons: pd.DataFrame) -> tuple[Figure, str]:
    """Differences in points with their intervals, one under the other; left of the line is worse."""
    rows = comparisons.to_dict("records")
    if not rows:
        return nothing("differences")
    figure, axes = canvas("Paired difference", 1.1 + 0.42 * len(rows))
    words = []
    for place, row in enumerate(rows):
        value, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
        colour = GREEN if low > 0 else RED if high < 0 else GREY
        axes.errorbar(value, place, None, [[value - low], [high - value]], "o", color=colour, capsize=3)
        words.append(f"{value:+.1f} points [{low:+.1f}, {high:+.1f}], n {row['n']:,}")
    titles = [what(row, models=True) for row in rows]
    name_rows(axes, titles)
    axes.set_xlabel("after minus before, percentage points (95 % interval)")
    axes.axvline(0, color="black", lw=1)
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


def seeds(scores: pd.DataFrame, scoring: str = "symbolic") -> tuple[Figure, str]:
    """Accuracy of each model under each seed, by benchmark, so that one lucky seed shows."""
    keys = ["benchmark", "shots", "decoding", "model"]
    table = scores.assign(score=scores[scoring].astype(float)).groupby([*keys, "seed"])["score"].mean()
    rows = [(dict(zip(keys, key, strict=True)), values) for key, values in table.groupby(level=keys)]
    if not rows:
        return nothing("seeds")
    figure, axes = canvas("Accuracy by seed", 1.1 + 0.4 * len(rows))
    words = []
    for place, (row, values) in enumerate(rows):
        colour = {"base": GREY, "tuned": BLUE}.get(row["model"], ORANGE)
        axes.plot(values, np.full(len(values), place), "o", color=colour, alpha=0.75, ms=7)
        axes.plot([values.mean()] * 2, [place - 0.28, place + 0.28], color=colour, lw=2.2)
        words.append(", ".join(f"{value:.1%}" for value in values))
    titles = [f"{what(row)}, {name_of(row['model'])}" for row, _ in rows]
    name_rows(axes, titles)
    axes.set(xlabel="accuracy (dot: one seed; line: mean)", xlim=(0, 1.15 * float(table.max()) + 0.01))
    axes.xaxis.set_major_formatter(PER_CENT)
    return figure, "; ".join(map(": ".join, zip(titles, words, strict=True)))


def canvas(title: str, height: float) -> tuple[Figure, Any]:
    """Return an empty figure of the house's width and look, and its axes."""
    figure = Picture(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def bars(title: str, counts: Mapping[str, float], notes: Sequence[str], colour: str, unit: str) -> Figure:
    """Return horizontal bars, one a count, with its note behind it."""
    if not counts:
        return nothing(title)[0]
    figure, axes = canvas(title, 0.9 + 0.4 * len(counts))
    axes.barh(range(len(counts)), list(counts.values()), color=colour, height=0.7)
    name_rows(axes, list(counts))
    for place, (value, note) in enumerate(zip(counts.values(), notes, strict=True)):
        axes.annotate(f" {note}", (value, place), va="center", fontsize=9)
    axes.set(xlabel=unit, xlim=(0, max(1, *counts.values()) * 1.22))
    axes.xaxis.set_major_formatter(COUNT)
    axes.grid(axis="y", visible=False)
    return figure


def nothing(what: str) -> tuple[Figure, str]:
    """Return a figure that says that there is nothing to draw."""
    figure, axes = canvas(what.capitalize(), 1.2)
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no data", ha="center", va="center", color=GREY, transform=axes.transAxes)
    return figure, f"{what}: no data"


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """Write names beside horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 38) for name in names], fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)


def name_of(model: object) -> str:
    """A model's label in plain words."""
    return NAMES.get(str(model), str(model).replace("_", " "))


def what(row: Mapping[Any, Any], models: bool = False) -> str:
    """Which benchmark, shots, decoding and scoring a row is about, and which models if these are not base and tuned."""
    parts = [f"{row['benchmark']}, {int(row['shots'])}-shot, {row['decoding']}"]
    if row.get("scoring", "symbolic") != "symbolic":
        parts.append(str(row["scoring"]))
    if models and (row["before"], row["after"]) != ("base", "tuned"):
        parts.append(f"{name_of(row['after'])} against {name_of(row['before'])}")
    return ", ".join(parts)


def _edges(levels: Sequence[float]) -> list[float]:
    """Bin edges half-way between the values that occur, so that each has its own bar."""
    step = min((b - a for a, b in pairwise(levels)), default=0.1)
    return [levels[0] - step / 2, *((a + b) / 2 for a, b in pairwise(levels)), levels[-1] + step / 2]
