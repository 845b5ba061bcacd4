"""How good are the labels? Everything here is computed from the vote's tables, without sampling again.

Without golds: what a threshold keeps, and what agreement depends on. With golds (they judge, and never make a label):
how far agreement can be trusted, what more votes buy, what the released extraction costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import answers, stats
from . import majority

if TYPE_CHECKING:
    import pandas as pd


def kept_by_threshold(qa: pd.DataFrame) -> pd.DataFrame:
    """Return how many questions each minimum agreement would keep: one row per agreement in the vote's `qa`.

    Columns: `min_agreement`, `kept`, `share`, and where golds are known `known`, `right`, `low`, `high` (Wilson, 95 %).
    """
    import pandas as pd

    questions = qa.drop_duplicates("id")
    rows = []
    for level in sorted(questions["agreement"].unique()):
        kept = questions[questions["agreement"] >= level]
        share = len(kept) / len(questions)
        rows.append({"min_agreement": level, "kept": len(kept), "share": share, **_share_right(kept)})
    return pd.DataFrame(rows, columns=["min_agreement", "kept", "share", "known", "right", "low", "high"])


def accuracy_by_agreement(qa: pd.DataFrame) -> pd.DataFrame:
    """Return how often the label is right at each agreement (the reliability curve), with Wilson's 95 % interval."""
    import pandas as pd

    questions = qa.drop_duplicates("id")
    rows = [{"agreement": level, **_share_right(part)} for level, part in questions.groupby("agreement")]
    return pd.DataFrame(rows, columns=["agreement", "known", "right", "low", "high"])


def _share_right(questions: pd.DataFrame) -> dict[str, Any]:
    verdicts = questions["correct"].dropna().astype(bool)
    if verdicts.empty:
        return {"known": 0, "right": math.nan, "low": math.nan, "high": math.nan}
    interval = stats.wilson(int(verdicts.sum()), len(verdicts))
    return {"known": len(verdicts), "right": float(verdicts.mean()), "low": interval.low, "high": interval.high}


def agreement_by_group(qa: pd.DataFrame, groups: Sequence[Any]) -> pd.DataFrame:
    """Return the mean agreement of the questions of each group (length, rewrite round …), with a 95 % interval.

    `groups` has one entry per row of `qa`, which has one row per question. Columns: `group`, `n`, `agreement`, `low`,
    `high`.
    """
    import pandas as pd

    if len(groups) != len(qa):
        raise ValueError(f"groups: {len(groups)} for {len(qa)} labels; give one for each row")
    rows = []
    for group, agreements in qa["agreement"].groupby(pd.Series(list(groups), index=qa.index)):
        mean = stats.mean_interval(list(agreements))
        rows.append([group, len(agreements), mean.estimate, mean.low, mean.high])
    return pd.DataFrame(rows, columns=["group", "n", "agreement", "low", "high"])


def length_groups(questions: Sequence[str], most: int = 4) -> list[str]:
    """Sort questions into at most `most` groups of about one size by their number of characters: "11-13", "14-15" …"""
    import pandas as pd

    lengths = pd.Series([len(question) for question in questions], dtype=int)
    if lengths.empty:
        return []
    bins = pd.qcut(lengths, min(most, lengths.nunique()), labels=False, duplicates="drop").fillna(0)
    width = len(str(lengths.max()))  # of one width, so that the names sort as text
    names = {}
    for number, shortest, longest in lengths.groupby(bins).agg(["min", "max"]).itertuples():
        ends = [f"{shortest:{width}d}", f"{longest:{width}d}"]
        names[number] = "-".join(ends if shortest < longest else ends[:1])
    return [names[number] for number in bins]


def votes_needed(
    paths: pd.DataFrame, golds: Mapping[int, str], seed: int = 0, votes: Sequence[int] = stats.VOTES
) -> pd.DataFrame:
    """Return how often the majority of m answers is right, for each m up to the number of paths sampled.

    `paths` is the vote's table. Questions without a gold are left out. A vote without a readable answer is wrong. See
    `stats.accuracy_by_votes`.
    """
    answer_rows = [
        (answers.equality_classes(rows["answer"]), answers.equality_class(golds[number]))
        for number, rows in paths.groupby("question_id", sort=False)
        if number in golds
    ]
    return stats.accuracy_by_votes([row for row, _ in answer_rows], [gold for _, gold in answer_rows], seed, votes)


def cost_of_released(paths: pd.DataFrame, golds: Mapping[int, str], seed: int = 0) -> pd.DataFrame:
    """Return label accuracy on the same paths by our reading, by the released one, and by the released vote besides.

    `paths` is the vote's table; ids and the run's seed draw ties as the vote itself does. Questions without a gold are
    left out. One row per rule: `labelled`, `right` (of all judged questions, a question without a label counting as not
    right), Wilson's interval, and the paired difference to the first row in shares (`difference`, `difference_low`,
    `difference_high`).
    """
    import pandas as pd

    judged = {
        number: list(rows["path"]) for number, rows in paths.groupby("question_id", sort=False) if number in golds
    }
    ours = [[answers.extract_answer(path) for path in texts] for texts in judged.values()]
    released = [[read_as_released(path) for path in texts] for texts in judged.values()]
    rules: list[tuple[str, list[list[str | None]], dict[str, Any]]] = [
        ("ours: reading and vote", ours, {"ties": "seeded"}),
        ("released reading, our vote", released, {"ties": "seeded"}),
        ("released reading and vote", released, {"ties": "first", "none_can_win": True}),
    ]
    rows: list[dict[str, Any]] = []
    right_by_ours: list[bool] = []
    for rule, answer_rows, vote_settings in rules:
        labels = [
            majority.majority_vote(row, seed=majority.tie_seed(seed, number), **vote_settings).answer
            for number, row in zip(judged, answer_rows, strict=True)
        ]
        right = [
            label is not None and answers.answers_equal(label, golds[number])
            for number, label in zip(judged, labels, strict=True)
        ]
        right_by_ours = right_by_ours or right
        row = {"rule": rule, "n": len(right), "labelled": sum(label is not None for label in labels)}
        if right:
            share, paired = stats.wilson(sum(right), len(right)), stats.paired_difference(right_by_ours, right)
            row |= {"right": share.estimate, "low": share.low, "high": share.high}
            row |= {"difference": paired.difference, "difference_low": paired.low, "difference_high": paired.high}
        rows.append(row)
    columns = ["rule", "n", "labelled", "right", "low", "high", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns)


def read_as_released(path: str) -> str | None:
    """Return a path's answer as the authors' released code reads it (the last number, as a float), in normal form."""
    number = answers.released_answer(path)
    return None if number is None else answers.normal_form(repr(number))
