"""Verdict: the line in which a preflight ends, and the table of `headroom.py` as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

GO, NO_HEADROOM, UNDECIDED = "go", "no headroom", "cannot be told"
SMALLEST_GAIN = 0.02  # ours: a headroom that cannot be larger is none
MANY = 0.1  # ours: share of cut or unreadable samples from which the advice is about them
MOST_ITEMS = 100_000  # ours: what would take more items than this is not asked for
CURVES = ("majority@", "same_majority@", "pass@", "different@")


@dataclass(frozen=True)
class Verdict:
    """What a preflight ends in: `word` is go, no headroom or cannot be told; `line` says why, and what to change."""

    word: str
    line: str


def headroom_verdict(table: pd.DataFrame, most_items: int = MOST_ITEMS) -> Verdict:
    """Return the line in which a preflight ends, from a table of `headroom_table`.

    Where right answers are known, `headroom` decides (majority with the vote's prompt minus greedy as it is evaluated):
    - go: its interval is above 0, or that of `kept_headroom`, on the questions that would be learned from;
    - no headroom: its interval ends below SMALLEST_GAIN, two points (ours), or the vote changes fewer answers than that
      (`vote_changes`), in which case it does not matter whose answers are right;
    - cannot be told: all else. The line says about how many items would tell, if there are so many (`most_items`).
    Where none is known, `believed_headroom` decides in the place of the first: the same difference in the model's own
    eyes, by samples that did not vote. A model can be sure and wrong, and the line says that nobody has checked.
    Without greedy answers it cannot be told. Nothing is stopped by any of this.
    """
    rows = {row["quantity"]: row for row in table.to_dict("records")}
    has_golds = rows["headroom"]["n"] > 0
    deciding, kept = rows["headroom" if has_golds else "believed_headroom"], rows["kept_headroom"]
    n = deciding["n"]
    if not n:
        n = rows["agreement"]["n"]
        line = f"{UNDECIDED} with n = {n:,}: there are no greedy answers to compare the majority with"
        return Verdict(UNDECIDED, line + _to_change(rows, []))
    unchecked = "" if has_golds else ", in the model's own eyes: no right answer was looked at"
    what = f"the majority is {_points_apart(deciding)} greedy (n = {n:,}{unchecked})"
    if deciding["low"] > 0:
        return Verdict(GO, f"{GO}: {what}{_to_change(rows, [])}")
    if has_golds and kept["n"] and kept["low"] > 0:
        learned = (
            f"on the {kept['n']:,} questions that it would learn from, the majority is {_points_apart(kept)} greedy"
        )
        return Verdict(GO, f"{GO}: {learned}; on all {n:,} it is {_points_apart(deciding)}{_to_change(rows, [])}")
    other_prompt = "worked examples (vote_shots: own), another solve_prompt or a lower vote_temperature"
    changes = rows["vote_changes"]
    if changes["high"] < SMALLEST_GAIN:
        what = f"the vote changes {changes['estimate']:.1%} of the greedy answers (n = {changes['n']:,})"
    if min(deciding["high"], changes["high"]) < SMALLEST_GAIN:
        return Verdict(NO_HEADROOM, f"{NO_HEADROOM}: {what}{_to_change(rows, [other_prompt])}")
    needed = _items_needed(deciding)
    more = [f"about {needed:,.0f} items, which would tell"] if needed <= most_items else [other_prompt]
    return Verdict(UNDECIDED, f"{UNDECIDED} with n = {n:,}: {what}{_to_change(rows, more)}")


def _points_apart(row: dict[str, Any]) -> str:
    """Say a difference as "3.1 points [+1.0, +5.2] above"."""
    interval = f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{abs(100 * row['estimate']):.1f} points {interval} {'below' if row['estimate'] < 0 else 'above'}"


def _items_needed(row: dict[str, Any]) -> float:
    """Return about how many items would show a gain or that there is none, to two digits; the estimate taken as true.

    An interval's ends come nearer as the root of the number of items.
    """
    estimate, shrink = row["estimate"], [math.inf]
    if estimate > 0:
        shrink.append((estimate - row["low"]) / estimate)
    if estimate < SMALLEST_GAIN:
        shrink.append((row["high"] - estimate) / (SMALLEST_GAIN - estimate))
    needed: float = row["n"] * min(shrink) ** 2
    if not math.isfinite(needed):
        return math.inf
    unit = 10 ** max(0, len(str(int(needed))) - 2)
    return float(math.ceil(needed / unit) * unit)


def _to_change(rows: dict[str, dict[str, Any]], advice: list[str]) -> str:
    """Return the end of the line: what to change, first of all where many samples are lost; "" if nothing."""
    cut, unread = rows["cut"]["estimate"], rows["no_answer"]["estimate"]
    if cut >= MANY:
        advice = [f"a larger token limit (vote_max_tokens; {cut:.0%} of the samples are cut)", *advice]
    elif unread >= MANY:
        advice = [f"a prompt that asks for a plain answer ({unread:.0%} of the samples have none)", *advice]
    return f". To change: {'; '.join(advice)}" if advice else ""


def headroom_text(table: pd.DataFrame, *, with_curves: bool = True) -> str:
    """Return a table of `headroom_table` as text, a line a quantity.

    What needs right answers is marked `*`; what stands in for it stands on the line below. Without `with_curves` only
    the largest number of samples appears of each curve.
    """
    rows = table.to_dict("records")
    if not with_curves:
        most = max(int(row["quantity"].split("@")[1]) for row in rows if row["quantity"].startswith("majority@"))
        rows = [row for row in rows if not row["quantity"].startswith(CURVES) or row["quantity"].endswith(f"@{most}")]
    lines = [f"{'':<26}{'':>9}  {'95 % interval':<15}{'n':>9}"]
    for row in rows:
        name = row["quantity"]
        label = f"{name} *" if row["needs_gold"] else f"  {name}"
        numbers = f"{'not known':>9}  {'':<15}{'':>9}"
        if row["n"]:
            interval = f"[{_shown(name, row['low'])}, {_shown(name, row['high'])}]".replace(" %", "")
            numbers = f"{_shown(name, row['estimate']):>9}  {interval:<15}{row['n']:>9,}"
        lines.append(f"{label:<26}{numbers}  {row['sentence']}")
    return "\n".join([*lines, "* needs right answers; what stands in for it without them is on the line below"])


def _shown(name: str, value: float) -> str:
    """Write a value as a share, a difference in points, or a plain number."""
    if name.startswith(("different@", "auroc", "ece")):
        return f"{value:.2f}"
    is_difference = "headroom" in name or "gap" in name or name.startswith("self_bias")
    return f"{100 * value:+.1f}" if is_difference else f"{100 * value:.1f} %"
