"""Breakdown: where a gain comes from, what several samples are worth, how answers fail, and which items flipped.

All of it reads the table `evaluate/scores`, a row an answer (see `evaluation.evaluate`), and samples nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import answers, benchmarks, stats
from ..benchmarks import SCORINGS

if TYPE_CHECKING:
    import pandas as pd


KEYS = ["benchmark", "shots", "decoding"]
# fmt: off
PART_COLUMNS = [
    *KEYS, "before", "after", "scoring", "n", "seeds", "gain", "reasoning", "reasoning_low", "reasoning_high",
    "format", "format_low", "format_high",
]
# fmt: on
FAILURES = ("truncated", "no answer", "wrong operation", "arithmetic slip", "other numbers", "other")
FLIP_COLUMNS = ["benchmark", "kind", "shots", "item", "way", "question", "gold", "before", "after", "failure"]


def gain_parts(
    scores: pd.DataFrame, before: str, after: str, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Split the gain under each scoring into a format and a reasoning part, which sum to it; a row a benchmark and scoring.

    Definition (ours). An answer *holds* the gold if any of the three scorings finds it: V is the share of such answers, F the
    share of them that the scoring in question accepts, so that accuracy = V x F. Then, as Kitagawa (Journal of the American
    Statistical Association 50, 1955, 1168-1194) splits a difference of products,
    reasoning = (V2 - V1) x (F1 + F2) / 2 and format = (F2 - F1) x (V1 + V2) / 2. Where one side holds no gold at all its F is
    unknown and is taken to be the other's: nothing says that the form changed. Intervals are percentiles of a bootstrap that
    draws seeds and items anew (as `stats.paired_over_seeds`); nan where no draw differs from another.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    holds = scores.assign(holds=scores[list(SCORINGS)].astype(bool).any(axis=1))
    for key, part in holds.groupby(KEYS, sort=True):
        tables = {name: _side_by_side(part, before, after, name) for name in (*SCORINGS, "holds")}
        if tables["holds"] is None:
            continue
        v = tables["holds"]
        weights = _weights(v[0].shape, resamples, seed)
        for scoring in SCORINGS:
            a = tables[scoring]
            assert a is not None  # the same rows as `holds`
            found = np.array([*_parts(*(float(x.mean()) for x in (*v, *a)))])
            drawn = np.array(_parts(*(_means(x, *weights) for x in (*v, *a))))
            # Draws that never vary say nothing of how sure one may be: no interval.
            ends = [stats.percentiles(x, level) if np.ptp(x) > 1e-12 else (np.nan, np.nan) for x in drawn]
            rows.append({
                **dict(zip(KEYS, key, strict=True)), "before": before, "after": after, "scoring": scoring,
                "n": v[0].shape[1], "seeds": v[0].shape[0], "gain": float(a[1].mean() - a[0].mean()),
                "reasoning": found[0], "reasoning_low": ends[0][0], "reasoning_high": ends[0][1],
                "format": found[1], "format_low": ends[1][0], "format_high": ends[1][1],
            })  # fmt: skip
    return pd.DataFrame(rows, columns=PART_COLUMNS)


def _side_by_side(part: pd.DataFrame, before: str, after: str, column: str) -> tuple[Any, Any] | None:
    """Tables (seeds, items) of both models over the items and seeds that both have; one seed stands against all."""
    tables = [
        part[part["model"] == model]
        .assign(value=lambda rows: rows[column].astype(float))
        .pivot_table(index="seed", columns="item", values="value", aggfunc="mean")
        .dropna(axis=1)
        for model in (before, after)
    ]
    items = tables[0].columns.intersection(tables[1].columns).sort_values()
    if len(tables[0]) > 1 and len(tables[1]) > 1:
        seeds = tables[0].index.intersection(tables[1].index).sort_values()
        tables = [table.loc[seeds] for table in tables]
    if len(items) == 0 or any(table.empty for table in tables):
        return None
    old, new = np.broadcast_arrays(*(table[items].to_numpy(dtype=float) for table in tables))
    return old, new


def _weights(shape: tuple[int, int], resamples: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    seeds, items = shape
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    return by_seed, rng.multinomial(items, np.full(items, 1 / items), size=resamples) / items


def _means(table: Any, by_seed: Any, by_item: Any) -> Any:
    return ((by_seed @ table) * by_item).sum(axis=1)


def _parts(v1: Any, v2: Any, a1: Any, a2: Any) -> tuple[Any, Any]:
    """(reasoning, format) of the gain a2 - a1, elementwise; see `gain_parts`."""
    v1, v2, a1, a2 = (np.asarray(x, dtype=float) for x in (v1, v2, a1, a2))
    f1, f2 = (np.divide(a, v, out=np.full_like(v, np.nan), where=v > 0) for a, v in ((a1, v1), (a2, v2)))
    f1, f2 = np.where(np.isnan(f1), f2, f1), np.where(np.isnan(f2), f1, f2)
    reasoning = np.nan_to_num((v2 - v1) * (f1 + f2) / 2)  # neither side holds a gold: nothing gained, nothing to split
    return reasoning, (a2 - a1) - reasoning


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that of k samples, drawn from `samples` without putting back, one at least is right (Chen et al., 2021, section 2.1)."""
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"samples={samples}, right={right}, k={k}: needs 0 <= right <= samples and 1 <= k <= samples")
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def majority_at_k(names: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """Chance that the most frequent of the first k answers is right; of tied answers each is as likely. Ours.

    `names` are normal forms, None where no answer could be read: that is never a candidate (as in `vote.majority_vote`).
    """
    if not 1 <= k <= len(names) or len(names) != len(right):
        raise ValueError(f"k={k} with {len(names)} answers and {len(right)} verdicts: give k of them at least")
    votes: dict[str, list[bool]] = {}
    for name, good in list(zip(names, right, strict=True))[:k]:
        if name is not None:
            votes.setdefault(answers.equality_class(name), []).append(good)
    most = max(map(len, votes.values()), default=0)
    leaders = [any(good) for good in votes.values() if len(good) == most]
    return sum(leaders) / len(leaders) if leaders else 0.0


def sampled_scores(scores: pd.DataFrame, scoring: str = "symbolic") -> pd.DataFrame:
    """Of the sampled answers: mean, pass@k and majority@k for k = 1, 2, 4 … up to the samples that there are, with n items."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    sampled = scores[scores["decoding"] == "sampled"].sort_values(["item", "sample"])
    for (benchmark, shots, model), part in sampled.groupby(["benchmark", "shots", "model"], sort=True):
        groups = [group for _, group in part.groupby(["seed", "item"])]
        most = min(len(group) for group in groups)
        for k in sorted({*(2**i for i in range(most.bit_length())), most}):
            right = [group[scoring].astype(bool).tolist() for group in groups]
            read = [[None if pd.isna(x) else str(x) for x in group["answer"]] for group in groups]
            rows.append({
                "benchmark": benchmark, "shots": shots, "model": model, "k": k, "n": int(part["item"].nunique()),
                "seeds": int(part["seed"].nunique()), "mean": float(np.mean([np.mean(r) for r in right])),
                "pass@k": float(np.mean([pass_at_k(len(r), sum(r), k) for r in right])),
                "majority@k": float(np.mean([majority_at_k(a, r, k) for a, r in zip(read, right, strict=True)])),
            })  # fmt: skip
    return pd.DataFrame(
        rows, columns=["benchmark", "shots", "model", "k", "n", "seeds", "mean", "pass@k", "majority@k"]
    )


_VALUE = r"-?\d[\d,]*(?:\.\d+)?"
_SIGN = r"[ \t]*[-+*/x×÷−][ \t]*"
_EQUATION = re.compile(rf"(?<![\d.,])({_VALUE}(?:{_SIGN}{_VALUE}){{1,8}})[ \t]*=[ \t$]*({_VALUE})(?![\d/])")
_OPERAND = re.compile(_VALUE)
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


def equations(text: str) -> list[tuple[Fraction, str, Fraction | None]]:
    """The equations that a text writes out, as (value on the right, left side, value of the left side; None: divided by zero)."""
    found = _EQUATION.findall(text[-20_000:])
    return [(Fraction(right.replace(",", "")), left, _value_of(left)) for left, right in found]


def _value_of(expression: str) -> Fraction | None:
    """Value of a chain such as "2 + 3 * 4": products before sums, from the left."""
    terms: list[Fraction] = []
    signs: list[str] = []
    position = 0
    while position < len(expression):
        number = _OPERAND.match(expression, position) if len(terms) == len(signs) else None
        if number:
            terms.append(Fraction(number[0].replace(",", "")))
        elif expression[position] not in " \t":
            signs.append(expression[position])
        position = number.end() if number else position + 1
    total, product = Fraction(0), terms[0]
    for sign, term in zip(signs, terms[1:], strict=True):
        if sign in "*x×":
            product *= term
        elif sign in "/÷":
            if not term:
                return None
            product /= term
        else:
            total, product = total + product, term if sign == "+" else -term
    return total + product


def failure_class(question: str, completion: str, answer: str | None, right: bool, truncated: bool) -> str:
    """Class of a wrong answer, the first of FAILURES whose rule holds; "" for a right one. Rules are ours.

    truncated: cut at the token limit. no answer: none could be read. wrong operation: the answer is what another operation
    (+, -, *, /) makes of the question's two numbers, and the right one is not written out. arithmetic slip: the text writes an
    equation that is false. other numbers: what it writes last is true, but not about the question's two numbers. other: the rest.
    """
    if right:
        return ""
    if truncated:
        return "truncated"
    if answer is None:
        return "no answer"
    problem = benchmarks.arithmetic_problem(question)
    written = equations(completion)
    if problem is not None and _number(answer) in _other_operations(problem):
        if not any(benchmarks.arithmetic_problem(left) == problem for _, left, _ in written):
            return "wrong operation"
    if any(value is not None and abs(value - said) > _rounding(said) for said, _, value in written):
        return "arithmetic slip"
    if problem is not None and written and not _digits(written[-1][1]) <= _digits(question):
        return "other numbers"
    return "other"


def _digits(text: str) -> set[str]:
    return set(_DIGITS.findall(text.replace(",", "")))


def _number(answer: str) -> Fraction | None:
    try:
        return Fraction(answer.replace(",", "").strip())
    except (ValueError, ZeroDivisionError):
        return None


def _other_operations(problem: tuple[Fraction, str, Fraction]) -> set[Fraction]:
    a, operation, b = problem
    made = {"+": {a + b}, "-": {a - b, b - a}, "*": {a * b}, "/": {x / y for x, y in ((a, b), (b, a)) if y}}
    return {value for name, values in made.items() if name != operation for value in values}


def _rounding(said: Fraction) -> Fraction:
    """Half of the last place that is plausible: 1 / 3 = 0.33 is no slip."""
    return Fraction(0) if said.denominator == 1 else Fraction(1, 100)


def with_failures(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with a column `failure` (symbolic scoring; "" where right)."""
    import pandas as pd

    columns = scores[["question", "completion", "answer", "symbolic", "truncated"]].itertuples(index=False, name=None)
    found = [failure_class(q, c, None if pd.isna(a) else a, bool(right), bool(cut)) for q, c, a, right, cut in columns]
    return scores.assign(failure=found)


def failure_counts(scores: pd.DataFrame) -> pd.DataFrame:
    """Count the answers of each model and decoding: right, each class of failure, and n (all answers)."""
    import pandas as pd

    classed = with_failures(scores)
    names = classed["failure"].replace("", "right")
    keys = [classed[name] for name in ("benchmark", "shots", "decoding", "model")]
    counts = pd.crosstab(keys, names).reindex(columns=["right", *FAILURES], fill_value=0)
    counts["n"] = counts.sum(axis=1)
    return counts.rename_axis(columns=None).reset_index()


def flipped_items(
    scores: pd.DataFrame,
    before: str = "base",
    after: str = "tuned",
    *,
    scoring: str = "symbolic",
    benchmark: str = "",
    kind: str = "",
    way: str = "",
    decoding: str = "greedy",
) -> pd.DataFrame:
    """Items that flipped between two models, both answers side by side; `before` and `after` of the result are completions.

    `benchmark`, `kind` (perturbation or solution type, subject) and `way` ("gained" or "lost") filter; "" takes all. Of several
    seeds or samples the first counts. `failure` is the class of the answer that is wrong.
    """
    if scoring not in SCORINGS or way not in ("", "gained", "lost"):
        raise ValueError(f"scoring={scoring!r}, way={way!r}: allowed are {', '.join(SCORINGS)}; gained, lost or ''")
    chosen = scores[(scores["decoding"] == decoding) & scores["model"].isin([before, after])]
    for name, wanted in (("benchmark", benchmark), ("kind", kind)):
        chosen = chosen[chosen[name] == wanted] if wanted else chosen
    keys = ["benchmark", "shots", "item"]
    chosen = chosen.sort_values(["seed", "sample"]).drop_duplicates(["model", *keys])
    sides = [with_failures(chosen[chosen["model"] == name]) for name in (before, after)]
    both = sides[0].merge(sides[1][[*keys, "completion", scoring, "failure"]], on=keys, suffixes=("", "_after"))
    change = both[f"{scoring}_after"].astype(int) - both[scoring].astype(int)
    both = both.assign(
        way=np.where(change > 0, "gained", "lost"),
        before=both["completion"],
        after=both["completion_after"],
        failure=np.where(change > 0, both["failure"], both["failure_after"]),
    )
    both = both[(change != 0) & ((both["way"] == way) | (way == ""))]
    return both.sort_values(["benchmark", "way", "item"]).reset_index(drop=True).reindex(columns=FLIP_COLUMNS)


def prompting_baselines(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Chain of thought (greedy) and self-consistency (majority of m samples) on benchmarks, from `06_evaluate`'s scores.

    `scores` has a row an answer: benchmark, model, shots, decoding ("greedy" or "sampled"), seed, item, sample, answer, gold.
    A row for each of them and each m that is stored: `method`, `m`, `n` (items times seeds), `right`, `low`, `high`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for keys, part in scores.groupby(["benchmark", "shots", "model", "decoding"], sort=True):
        named = dict(zip(("benchmark", "shots", "model"), keys, strict=False))
        ordered = part.sort_values(["seed", "item", "sample"])
        by_item = [item for _, item in ordered.groupby(["seed", "item"], sort=True)]
        answer_rows = [answers.equality_classes(item["answer"]) for item in by_item]
        golds = [answers.equality_class(item["gold"].iloc[0]) for item in by_item]
        greedy = keys[3] == "greedy"
        curve = stats.accuracy_by_votes(answer_rows, golds, seed, (1,) if greedy else stats.VOTES)
        for row in curve.to_dict("records"):
            method = "chain of thought, greedy" if greedy else "one sample" if row["m"] == 1 else "self-consistency"
            rows.append({**named, "method": method, **row})
    return pd.DataFrame(rows, columns=["benchmark", "shots", "model", "method", "m", "n", "right", "low", "high"])
