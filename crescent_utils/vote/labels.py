"""How good are the labels? Everything here is computed from sampled paths and tables, without sampling again.

Without golds: what a threshold keeps, and what agreement depends on. With golds (they judge, and never make a label): how
far agreement can be trusted, what more votes buy, what the released extraction costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import answers, stats
from . import majority

if TYPE_CHECKING:
    import pandas as pd


def kept_by_threshold(labels: pd.DataFrame) -> pd.DataFrame:
    """Questions that each minimum agreement would keep: a row for each agreement that occurs (columns of `voted`'s qa).

    Columns: `min_agreement`, `kept`, `share`, and where golds are known `known`, `right`, `low`, `high` (Wilson, 95 %).
    """
    import pandas as pd

    one = labels.drop_duplicates("id")
    rows: list[dict[str, Any]] = []
    for level in sorted(one["agreement"].unique()):
        kept = one[one["agreement"] >= level]
        row = {"min_agreement": float(level), "kept": len(kept), "share": len(kept) / len(one)}
        rows.append({**row, **_right(kept)})
    return pd.DataFrame(rows, columns=["min_agreement", "kept", "share", "known", "right", "low", "high"])


def by_agreement(labels: pd.DataFrame) -> pd.DataFrame:
    """The reliability curve: how often the label is right at each agreement, with Wilson's 95 % interval."""
    import pandas as pd

    one = labels.drop_duplicates("id")
    rows = [{"agreement": float(level), **_right(part)} for level, part in one.groupby("agreement", sort=True)]
    return pd.DataFrame(rows, columns=["agreement", "known", "right", "low", "high"])


def _right(part: pd.DataFrame) -> dict[str, Any]:
    known = part["correct"].dropna()
    if known.empty:
        return {"known": 0, "right": math.nan, "low": math.nan, "high": math.nan}
    found = stats.wilson(int(known.astype(bool).sum()), len(known))
    return {"known": len(known), "right": float(known.astype(bool).mean()), "low": found.low, "high": found.high}


def agreement_by(labels: pd.DataFrame, groups: Sequence[Any]) -> pd.DataFrame:
    """Mean agreement of the questions in each group (length, rewrite round …), with a 95 % bootstrap interval.

    `groups` has an entry a row of `labels`, which has one row a question. Columns: `group`, `n`, `agreement`, `low`, `high`.
    """
    import pandas as pd

    if len(groups) != len(labels):
        raise ValueError(f"groups: {len(groups)} for {len(labels)} labels; give one for each row")
    rows = []
    for group, part in labels["agreement"].groupby(pd.Series(list(groups), index=labels.index), sort=True):
        rows.append({"group": group, "n": len(part), **_mean(list(part), "agreement")})
    return pd.DataFrame(rows, columns=["group", "n", "agreement", "low", "high"])


def length_groups(questions: Sequence[str], most: int = 4) -> list[str]:
    """Sort questions into at most `most` groups of about one size by their number of characters: "11-13", "14-15" …"""
    import pandas as pd

    lengths = pd.Series([len(question) for question in questions], dtype=int)
    if lengths.empty:
        return []
    bins = pd.qcut(lengths, min(most, lengths.nunique()), labels=False, duplicates="drop").fillna(0)
    ends = lengths.groupby(bins).agg(["min", "max"])
    width = len(str(lengths.max()))  # of one width, so that they sort as text
    names = {
        b: f"{low:{width}d}-{high:{width}d}" if low < high else f"{low:{width}d}" for b, low, high in ends.itertuples()
    }
    return [names[b] for b in bins]


def _mean(values: list[float], name: str) -> dict[str, float]:
    found = stats.mean_interval(values)
    return {name: found.estimate, "low": found.low, "high": found.high}


def votes_needed(
    answer_rows: Sequence[Sequence[Any]], golds: Sequence[str | None], seed: int = 0, votes: Sequence[int] = stats.VOTES
) -> pd.DataFrame:
    """Return how often the majority of m answers is right, for each m up to the number stored (see `stats.accuracy_by_votes`).

    Questions without a gold are left out. A vote without a readable answer is wrong.
    """
    judged = [(row, gold) for row, gold in zip(answer_rows, golds, strict=True) if gold is not None]
    classes = [answers.equality_classes(row) for row, _ in judged]
    return stats.accuracy_by_votes(classes, [answers.equality_class(gold) for _, gold in judged], seed, votes)


def cost_of_released(
    ids: Sequence[int], paths: Sequence[Sequence[str]], golds: Sequence[str | None], seed: int = 0
) -> pd.DataFrame:
    """Label accuracy on the same paths by ours and by the released reading, and by the released vote on top of it.

    The ids and the run's seed draw ties as the vote itself does.
    A row a rule: `labelled`, `right` (of all judged questions), Wilson's interval, and the paired difference to the first
    row in shares (`difference`, `difference_low`, `difference_high`). A question without a label counts as not right.
    """
    import pandas as pd

    judged = [(i, row, gold) for i, row, gold in zip(ids, paths, golds, strict=True) if gold is not None]
    ours = [[answers.extract_answer(path) for path in row] for _, row, _ in judged]
    theirs = [[read_as_released(path) for path in row] for _, row, _ in judged]
    rules: dict[str, tuple[list[list[str | None]], dict[str, Any]]] = {
        "ours: reading and vote": (ours, {"ties": "seeded"}),
        "released reading, our vote": (theirs, {"ties": "seeded"}),
        "released reading and vote": (theirs, {"ties": "first", "none_can_win": True}),
    }
    rows: list[dict[str, Any]] = []
    first: list[bool] = []
    for name, (read, how) in rules.items():
        seeds = [majority.tie_seed(seed, number) for number, _, _ in judged]
        won = [majority.majority_vote(row, seed=s, **how).answer for row, s in zip(read, seeds, strict=True)]
        right = [w is not None and answers.answers_equal(w, gold) for w, (_, _, gold) in zip(won, judged, strict=True)]
        first = first or right
        row = {"rule": name, "n": len(right), "labelled": sum(w is not None for w in won)}
        if right:
            share, paired = stats.wilson(sum(right), len(right)), stats.paired_difference(first, right)
            row |= {"right": sum(right) / len(right), "low": share.low, "high": share.high}
            row |= {"difference": paired.difference, "difference_low": paired.low, "difference_high": paired.high}
        rows.append(row)
    columns = ["rule", "n", "labelled", "right", "low", "high", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns)


def read_as_released(path: str) -> str | None:
    """Read a path as the authors' released code does (the last number, as a float), in normal form."""
    number = answers.released_answer(path)
    return None if number is None else answers.normal_form(repr(number))
