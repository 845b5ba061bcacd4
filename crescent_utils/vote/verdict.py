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
POWER = 0.8  # the usual one: with so large a chance the items that a line asks for tell
MOST_ITEMS = 100_000  # ours: what would take more items than this is not asked for
# These stand first in the text, below the majority of all samples: what it is compared with, what is gained by it, and
# whether the labels are right.
DECISIVE = ("evaluated", "greedy", "headroom", "headroom_of_prompt", "labels_right")
LABELS = {"greedy": "greedy as the vote asks", "evaluated": "greedy as evaluated"}
CURVES = ("majority@", "same_majority@", "pass@", "different@")


@dataclass(frozen=True)
class Verdict:
    """What a preflight ends in: `word` is go, no headroom or cannot be told; `line` says why, and what to change."""

    word: str
    line: str


def headroom_verdict(table: pd.DataFrame, most_items: int = MOST_ITEMS, option: str = "") -> Verdict:
    """Return the line in which a preflight ends, from a table of `headroom_table`.

    Where right answers are known, `headroom` decides (majority with the vote's prompt minus greedy as it is evaluated):
    - go: its interval is above 0, or that of `kept_headroom`, on the questions that would be learned from;
    - no headroom: its interval ends below SMALLEST_GAIN, two points (ours), or the vote changes fewer answers than that
      (`vote_changes`), in which case it does not matter whose answers are right;
    - cannot be told: all else. The line says about how many items would tell with a chance of 80 %, if there are so
      many (`most_items`), and with which `option` of a command they are asked for.
    Where the evaluation asks otherwise than the vote, the line gives both greedy answers and says which is which.
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
    over, shares, alike = _greedy_in_words(rows) if has_golds else ("greedy", "", "")
    what = f"the majority is {_points_apart(deciding)} {over} ({shares}n = {n:,}{unchecked}){alike}"
    if deciding["low"] > 0:
        return Verdict(GO, f"{GO}: {what}{_to_change(rows, [])}")
    if has_golds and kept["n"] and kept["low"] > 0:
        what = (
            f"on the {kept['n']:,} questions that it would learn from, the majority is {_points_apart(kept)} {over}; "
            f"on all {n:,} it is {_points_apart(deciding)}{alike}"
        )
        return Verdict(GO, f"{GO}: {what}{_to_change(rows, [])}")
    other_prompt = "worked examples (vote_shots: own), another solve_prompt or a lower vote_temperature"
    changes = rows["vote_changes"]
    if changes["high"] < SMALLEST_GAIN:
        what = f"the vote changes {changes['estimate']:.1%} of the greedy answers (n = {changes['n']:,}){alike}"
    if min(deciding["high"], changes["high"]) < SMALLEST_GAIN:
        return Verdict(NO_HEADROOM, f"{NO_HEADROOM}: {what}{_to_change(rows, [other_prompt])}")
    needed = _items_needed(deciding)
    with_option = f" ({option} {needed:.0f})" if option else ""
    chance = f"would tell with a chance of {POWER:.0%} if this difference is the true one"
    more = [f"about {needed:,.0f} items{with_option}, which {chance}"] if needed <= most_items else [other_prompt]
    return Verdict(UNDECIDED, f"{UNDECIDED} with n = {n:,}: {what}{_to_change(rows, more)}")


def _greedy_in_words(rows: dict[str, dict[str, Any]]) -> tuple[str, str, str]:
    """Return what the majority is compared with, the shares of right answers, and what is so when asked alike.

    "greedy" and nothing else where greedy answers were asked for in one way alone.
    """
    same = rows.get("headroom_of_prompt", {"n": 0})
    if not same["n"]:
        return "greedy", "", ""
    evaluated, greedy = rows["evaluated"]["estimate"], rows["greedy"]["estimate"]
    majority = evaluated + rows["headroom"]["estimate"]
    alike = f"; asked alike, as the vote asks, greedy has {greedy:.1%} and the majority is {_points_apart(same)} it"
    if same["estimate"] <= 0:
        alike += ": the vote itself adds nothing, and what can be gained is to do without what the vote's prompt adds"
    return "the greedy answer as the evaluation asks it", f"{majority:.1%} against {evaluated:.1%}, ", alike


def _points_apart(row: dict[str, Any]) -> str:
    """Say a difference as "3.1 points [+1.0, +5.2] above"."""
    interval = f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{abs(100 * row['estimate']):.1f} points {interval} {'below' if row['estimate'] < 0 else 'above'}"


def _items_needed(row: dict[str, Any]) -> float:
    """Return about how many items would show a gain, or that there is none, with a chance of POWER, to two digits.

    The estimate is taken as true. An interval's ends come nearer as the root of the number of items, and scatter as the
    estimate does: with only so many items that an end would just reach the border, every second trial would tell.
    """
    from scipy.special import ndtri

    to_border = [math.inf]  # half an interval over the distance that it may have
    estimate = row["estimate"]
    if estimate > 0:
        to_border.append((estimate - row["low"]) / estimate)
    if estimate < SMALLEST_GAIN:
        to_border.append((row["high"] - estimate) / (SMALLEST_GAIN - estimate))
    half_width = float(ndtri(0.975))  # standard errors that half of a 95 % interval is wide
    needed: float = row["n"] * (min(to_border) * (1 + float(ndtri(POWER)) / half_width)) ** 2
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
    """Return a table of `headroom_table` as text, a line a quantity; what decides stands first.

    What needs right answers is marked `*`; where they are not known, what stands in for it stands on the line below.
    Without `with_curves` only the largest number of samples appears of each curve.
    """
    rows = {row["quantity"]: row for row in table.to_dict("records")}
    most = max((int(name.split("@")[1]) for name in rows if name.startswith("majority@")), default=0)
    if not with_curves:
        rows = {name: row for name, row in rows.items() if not name.startswith(CURVES) or name.endswith(f"@{most}")}
    labels = LABELS if "evaluated" in rows else {}
    heading = f"{'':<26}{'':>9}  {'95 % interval':<15}{'n':>9}"
    if "headroom" not in rows:  # a part of the table
        note = "* needs right answers; what stands in for it without them is on the line below"
        return "\n".join([heading, *(_line(row, labels) for row in rows.values()), note])
    first: list[str] = []
    for name in (f"majority@{most}", *DECISIVE):
        if name in rows:
            first.append(name)
            stand_in = rows[name]["stand_in"]
            first += [stand_in] if not rows[name]["n"] and stand_in in rows else []
    first = list(dict.fromkeys(first))
    rest = [name for name in rows if name not in first]
    closer = "-- for a closer look: other numbers of samples, how sure the model is, other ways to choose an answer"
    note = "* needs right answers; where these are not known, what stands in for it is on the line below"
    shown = [[_line(rows[name], labels) for name in names] for names in (first, rest)]
    return "\n".join([heading, *shown[0], closer, *shown[1], note])


def _line(row: dict[str, Any], labels: dict[str, str]) -> str:
    """Return a quantity's line."""
    name = row["quantity"]
    label = labels.get(name, name)
    label = f"{label} *" if row["needs_gold"] else f"  {label}"
    numbers = f"{'not known':>9}  {'':<15}{'':>9}"
    if row["n"]:
        interval = f"[{_shown(name, row['low'])}, {_shown(name, row['high'])}]".replace(" %", "")
        numbers = f"{_shown(name, row['estimate']):>9}  {interval:<15}{row['n']:>9,}"
    return f"{label:<26}{numbers}  {row['sentence']}"


def _shown(name: str, value: float) -> str:
    """Write a value as a share, a difference in points, or a plain number."""
    if name.startswith(("different@", "auroc", "ece")):
        return f"{value:.2f}"
    is_difference = "headroom" in name or "gap" in name or name.startswith("self_bias")
    return f"{100 * value:+.1f}" if is_difference else f"{100 * value:.1f} %"
