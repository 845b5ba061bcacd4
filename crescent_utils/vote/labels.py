"""How good are the labels? Everything here is computed from the vote's tables, without sampling again.

Without golds: what a threshold keeps, and what agreement depends on. With golds (they judge, and never make a label):
how far agreement can be trusted, what more votes buy, what the released extraction costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import answers, stats
from ..runs import Vote
from . import majority

if TYPE_CHECKING:
    import pandas as pd

JUDGED_COLUMNS = ["right", "low", "high", "difference", "difference_low", "difference_high"]


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
    """Return how often the majority of m answers is right, for each m of `votes` and for all paths sampled.

    `paths` is the vote's table. Questions without a gold are left out. A vote without a readable answer is wrong. See
    `stats.accuracy_by_votes`.
    """
    judged = paths[paths["question_id"].isin(list(golds))]
    answer_rows = _by_question(judged, answers.equality_classes(judged["answer"]))
    right = [answers.equality_class(golds[number]) for number in answer_rows]
    return stats.accuracy_by_votes(list(answer_rows.values()), right, seed, votes)


def _by_question(paths: pd.DataFrame, values: Iterable[Any]) -> dict[int, list[Any]]:
    """Return the values that stand beside each question's paths, questions and values in the order of the table.

    Pandas' groupby would make a table for each question, which takes nearly four times as long.
    """
    grouped: dict[int, list[Any]] = {}
    for number, value in zip(paths["question_id"], values, strict=True):
        grouped.setdefault(number, []).append(value)
    return grouped


def cost_of_cut(paths: pd.DataFrame, golds: Mapping[int, str], settings: Vote, kind: str = "number") -> pd.DataFrame:
    """Return what it costs to let paths vote that the token limit cut: one row without their votes, one with them.

    `paths` is the vote's table with a column `cut`; in both rows these paths count in the total. Columns: `rule`;
    `agreement`, the mean over all questions; `kept`, the questions with a label at `min_agreement`, and `kept_right`,
    the share of right ones among those of them that can be judged; then over all `n` judged questions `right` (a
    question without a label is not right) with Wilson's interval, and the paired difference to the first row in shares
    (`difference`, `difference_low`, `difference_high`). `kind` is the domain's answer type.
    """
    import pandas as pd

    ties = "abstain" if settings.protocol == "strict" else "seeded"
    rows: list[dict[str, Any]] = []
    right_without: list[bool] = []
    texts_of, cut_of = _by_question(paths, paths["path"]), _by_question(paths, paths["cut"])
    for rule, counted in (("cut paths cannot win", True), ("cut paths vote", False)):
        votes = {}
        for number, texts in texts_of.items():
            read = read_voters(texts, [is_cut and counted for is_cut in cut_of[number]], "paper", kind)
            seed = majority.tie_seed(settings.seed, number)
            votes[number] = majority.majority_vote(read, ties=ties, seed=seed)
        kept = [number for number, vote in votes.items() if vote.answer and vote.agreement >= settings.min_agreement]
        right = {number: _is_right(votes[number].answer, golds[number]) for number in votes if number in golds}
        kept_right = [right[number] for number in kept if number in right]
        right_without = right_without or list(right.values())
        rows.append(
            {"rule": rule, "agreement": _mean([vote.agreement for vote in votes.values()]), "kept": len(kept)}
            | {"kept_right": _mean(kept_right), "n": len(right), **_judged(right_without, list(right.values()))}
        )
    return pd.DataFrame(rows, columns=["rule", "agreement", "kept", "kept_right", "n", *JUDGED_COLUMNS])


def _is_right(label: str | None, gold: str) -> bool:
    return label is not None and answers.answers_equal(label, gold)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _judged(before: list[bool], right: list[bool]) -> dict[str, float]:
    """Return the share of right labels with Wilson's interval, and the paired difference to the labels `before`."""
    if not right:
        return dict.fromkeys(JUDGED_COLUMNS, math.nan)
    share, paired = stats.wilson(sum(right), len(right)), stats.paired_difference(before, right)
    values = (share.estimate, share.low, share.high, paired.difference, paired.low, paired.high)
    return dict(zip(JUDGED_COLUMNS, values, strict=True))


def cost_of_released(paths: pd.DataFrame, golds: Mapping[int, str], seed: int = 0) -> pd.DataFrame:
    """Return label accuracy on the same paths by our reading, by the released one, and by the released vote besides.

    `paths` is the vote's table; ids and the run's seed draw ties as the vote itself does. Questions without a gold are
    left out; with a column `cut`, cut paths cannot win our votes. One row per rule: `labelled`, `right` (of all judged
    questions, a question without a label counting as not right), Wilson's interval, and the paired difference to the
    first row in shares (`difference`, `difference_low`, `difference_high`).
    """
    import pandas as pd

    paths = paths[paths["question_id"].isin(list(golds))]
    judged = _by_question(paths, paths["path"])
    cut = list(_by_question(paths, paths["cut"] if "cut" in paths else [False] * len(paths)).values())
    ours = [[answers.extract_answer(path) for path in row] for row in judged.values()]
    released = [[read_as_released(path) for path in row] for row in judged.values()]
    rules: list[tuple[str, list[list[str | None]], dict[str, Any]]] = [
        ("ours: reading and vote", _without_cut(ours, cut), {"ties": "seeded"}),
        ("released reading, our vote", _without_cut(released, cut), {"ties": "seeded"}),
        ("released reading and vote", released, {"ties": "first", "none_can_win": True}),
    ]
    rows: list[dict[str, Any]] = []
    right_by_ours: list[bool] = []
    for rule, answer_rows, vote_settings in rules:
        labels = [
            majority.majority_vote(row, seed=majority.tie_seed(seed, number), **vote_settings).answer
            for number, row in zip(judged, answer_rows, strict=True)
        ]
        right = [_is_right(label, golds[number]) for number, label in zip(judged, labels, strict=True)]
        right_by_ours = right_by_ours or right
        labelled = sum(label is not None for label in labels)
        rows.append({"rule": rule, "n": len(right), "labelled": labelled, **_judged(right_by_ours, right)})
    return pd.DataFrame(rows, columns=["rule", "n", "labelled", *JUDGED_COLUMNS])


def _without_cut(read: list[list[str | None]], cut: list[list[bool]]) -> list[list[str | None]]:
    return [
        [None if is_cut else answer for answer, is_cut in zip(row, ends, strict=True)]
        for row, ends in zip(read, cut, strict=True)
    ]


def read_path(path: str, protocol: str, kind: str) -> str | None:
    """Return the final answer of a path as the protocol reads it, in normal form; None where there is none.

    `kind` is the domain's answer type.
    """
    released = protocol == "released" and kind == "number"  # the released code reads numbers alone
    return read_as_released(path) if released else answers.extract_answer(path, kind)


def read_voters(paths: Sequence[str], cut: Sequence[bool], protocol: str, kind: str) -> list[str | None]:
    """Return the answer with which each path of a question votes; None where it cannot win.

    A path that the token limit cut has not come to its answer: its last number stands somewhere on the way. The
    released code lets it vote all the same.
    """
    read = [read_path(path, protocol, kind) for path in paths]
    if protocol == "released":
        return read
    return [None if is_cut else answer for answer, is_cut in zip(read, cut, strict=True)]


def read_as_released(path: str) -> str | None:
    """Return a path's answer as the authors' released code reads it (the last number, as a float), in normal form."""
    number = answers.released_answer(path)
    return None if number is None else answers.normal_form(repr(number))
