"""How good are the labels? Everything here is computed from sampled paths and tables, without sampling again.

Without golds: what a threshold keeps, and what agreement depends on. With golds (they judge, and never make a label): how
far agreement can be trusted, what more votes buy, what the released extraction costs. `prompting_baselines` is the same
for benchmarks: chain of thought and self-consistency at inference, the baselines that both papers compare with.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import answers, stats, vote

if TYPE_CHECKING:
    import pandas as pd

PATHS = (1, 3, 5, 8, 16, 32)  # ours: numbers of paths that are compared; LMSI samples 32
DRAWS = 20  # ours: random subsets of so many paths a question; of one path or of all there is no need to draw


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
    read: Sequence[Sequence[Any]], golds: Sequence[str | None], seed: int = 0, paths: Sequence[int] = PATHS
) -> pd.DataFrame:
    """How often the majority of m answers is right, for each m up to the number stored; m = 1 is a single sample.

    Each question counts with its mean over random subsets of m answers, so that the order of sampling plays no part; the
    interval (bootstrap, 95 %) is over questions. A vote without a readable answer is wrong. Columns: `m`, `n`, `right`, `low`, `high`.
    """
    import pandas as pd

    judged = [(_names(row), answers.equality_class(g)) for row, g in zip(read, golds, strict=True) if g is not None]
    rows = []
    for m in [m for m in paths if judged and m <= min(len(row) for row, _ in judged)]:
        draw = random.Random(seed * 1_000 + m)
        right = [_share_right(row, gold, m, draw) for row, gold in judged]
        rows.append({"m": m, "n": len(right), **_mean(right, "right")})
    return pd.DataFrame(rows, columns=["m", "n", "right", "low", "high"])


def _names(read: Sequence[Any]) -> list[str | None]:
    return [
        answers.equality_class(answer) if isinstance(answer, str) else None for answer in read
    ]  # a table's gap is nan


def _share_right(row: Sequence[str | None], gold: str, m: int, draw: random.Random) -> float:
    if m == 1:
        return sum(name == gold for name in row) / len(row)
    times = 1 if m == len(row) else DRAWS
    return math.fsum(_chance_right(draw.sample(row, m), gold) for _ in range(times)) / times


def _chance_right(row: Sequence[str | None], gold: str) -> float:
    """The chance that the majority is right, where a tie is drawn by lot."""
    counts: dict[str, int] = {}
    for name in row:
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    most = max(counts.values(), default=0)
    return (counts.get(gold, 0) == most) / sum(n == most for n in counts.values()) if most else 0.0


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
    theirs = [[released(path) for path in row] for _, row, _ in judged]
    rules: dict[str, tuple[list[list[str | None]], dict[str, Any]]] = {
        "ours: reading and vote": (ours, {"ties": "seeded"}),
        "released reading, our vote": (theirs, {"ties": "seeded"}),
        "released reading and vote": (theirs, {"ties": "first", "none_can_win": True}),
    }
    rows: list[dict[str, Any]] = []
    first: list[bool] = []
    for name, (read, how) in rules.items():
        seeds = [vote.tie_seed(seed, number) for number, _, _ in judged]
        won = [vote.majority_vote(row, seed=s, **how).answer for row, s in zip(read, seeds, strict=True)]
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


def released(path: str) -> str | None:
    """Read a path as the authors' released code does (the last number, as a float), in normal form."""
    number = answers.released_answer(path)
    return None if number is None else answers.normal_form(repr(number))


def prompting_baselines(scores: pd.DataFrame, seed: int = 0, paths: Sequence[int] = PATHS) -> pd.DataFrame:
    """Chain of thought (greedy) and self-consistency (majority of m samples) on benchmarks, from `06_evaluate`'s scores.

    `scores` has a row an answer: benchmark, model, shots, decoding ("greedy" or "sampled"), seed, item, sample, answer, gold.
    A row for each of them and each m that is stored: `method`, `m`, `n` (items times seeds), `right`, `low`, `high`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for keys, part in scores.groupby(["benchmark", "shots", "model", "decoding"], sort=True):
        named = dict(zip(("benchmark", "shots", "model"), keys, strict=False))
        ordered = part.sort_values(["seed", "item", "sample"])
        items = [(list(row["answer"]), row["gold"].iloc[0]) for _, row in ordered.groupby(["seed", "item"], sort=True)]
        greedy = keys[3] == "greedy"
        found = votes_needed([row for row, _ in items], [gold for _, gold in items], seed, (1,) if greedy else paths)
        for row in found.to_dict("records"):
            method = "chain of thought, greedy" if greedy else "one sample" if row["m"] == 1 else "self-consistency"
            rows.append({**named, "method": method, **row})
    return pd.DataFrame(rows, columns=["benchmark", "shots", "model", "method", "m", "n", "right", "low", "high"])
