"""Breakdown: where a gain comes from, what several samples are worth, how answers fail, and which items flipped.

Everything here reads the table `scores`, which has one row per answer (see the door), and samples nothing.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import answers, benchmarks, stats
from ..benchmarks import SCORINGS

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
KEYS = ["benchmark", "shots", "decoding"]
FAILURES = ("truncated", "no answer", "wrong operation", "arithmetic slip", "other numbers", "other")
FLIP_COLUMNS = ["benchmark", "kind", "shots", "item", "way", "question", "gold", "before", "after", "failure"]
ANSWER_STATES = ("cut", "unreadable", "went on", "complete")
SOURCE_COLUMNS = ["benchmark", "shots", "base_answer", "n", "seeds", "share", "before_accuracy", "after_accuracy"]
SOURCE_COLUMNS += ["gain", "low", "high"]
PART_COLUMNS = [*KEYS, "before", "after", "scoring", "n", "seeds", "gain"]
PART_COLUMNS += ["reasoning", "reasoning_low", "reasoning_high", "format", "format_low", "format_high"]
BASELINE_COLUMNS = ["benchmark", "shots", "model", "method", "m", "n", "seeds", "right", "low", "high", "any_right"]


def gain_parts(scores: pd.DataFrame, before: str, after: str) -> pd.DataFrame:
    """Split the gain under each scoring into a reasoning part and a format part, which sum to it.

    An answer *holds* the gold if any of the three scorings finds it. Let V be the share of answers that hold the gold,
    and F the share of these that the scoring in question accepts, so that accuracy = V x F (our definition). Then the
    gain splits as a difference of products does in Kitagawa (Journal of the American Statistical Association 50, 1955,
    1168-1194): reasoning = (V2 - V1) x (F1 + F2) / 2 and format = (F2 - F1) x (V1 + V2) / 2. If one model holds no gold
    at all, its F is unknown and is taken to be the other's. The intervals are those of the comparisons, a t-test with
    seeds and items both random, of each answer's share in a part to the first order (the delta method); nan where no
    answer's share differs from another's. One row per benchmark, shots, decoding and scoring.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    with_holding = scores[[*KEYS, "model", "seed", "item", *SCORINGS]]  # without the texts, which take long to copy
    with_holding = with_holding.assign(holding=scores[list(SCORINGS)].astype(bool).any(axis=1))
    for key, part in with_holding.groupby(KEYS, sort=True):
        holding = stats.paired_scores(part, before, after, "holding")
        if holding is None:
            continue
        for scoring in SCORINGS:
            accepted = stats.paired_scores(part, before, after, scoring)
            assert accepted is not None  # the same rows as `holding`
            tables = np.broadcast_arrays(*holding, *accepted)  # a single seed stands against all of the other's
            shares = [float(table.mean()) for table in tables]
            slopes = reasoning_slopes(*shares)
            reasoning = np.sum([slope * table for slope, table in zip(slopes, tables, strict=True)], axis=0)
            row = {**dict(zip(KEYS, key, strict=True)), "before": before, "after": after, "scoring": scoring}
            row |= {"n": reasoning.shape[1], "seeds": len(reasoning), "gain": shares[3] - shares[2]}
            of_answers = reasoning, tables[3] - tables[2] - reasoning
            for name, value, each in zip(("reasoning", "format"), split_gain(*shares), of_answers, strict=True):
                low, high = _part_interval(value, each)
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return pd.DataFrame(rows, columns=PART_COLUMNS)


def _part_interval(part: float, each: Floats) -> tuple[float, float]:
    """Return the interval of a part of the gain, of which `each` answer (seeds, items) has its share.

    Shares that never vary say nothing about how sure one may be: then there is no interval.
    """
    if np.ptp(each) < 1e-12:
        return np.nan, np.nan
    test = stats.crossed_t_test(each - each.mean() + part)
    return max(-1.0, test.low), min(1.0, test.high)


def split_gain(
    holding_before: float, holding_after: float, accepted_before: float, accepted_after: float
) -> tuple[float, float]:
    """Return the reasoning part and the format part of the gain; see `gain_parts`.

    Of each model's answers, `holding` is the share that hold the gold, `accepted` the share that the scoring accepts.
    """
    weights = _weights(holding_before, holding_after)
    form = weights[0] * accepted_before + weights[1] * accepted_after
    reasoning = (holding_after - holding_before) * form
    return reasoning, accepted_after - accepted_before - reasoning


def reasoning_slopes(
    holding_before: float, holding_after: float, accepted_before: float, accepted_after: float
) -> tuple[float, float, float, float]:
    """Return how fast the reasoning part of `split_gain` grows with each of its four arguments."""
    weights, change = _weights(holding_before, holding_after), holding_after - holding_before
    form = weights[0] * accepted_before + weights[1] * accepted_after
    # The F of a model is accepted / holding: it falls with what holds the gold.
    falls_before = weights[0] * accepted_before / holding_before if holding_before else 0.0
    falls_after = weights[1] * accepted_after / holding_after if holding_after else 0.0
    return -form - change * falls_before, form - change * falls_after, change * weights[0], change * weights[1]


def _weights(holding_before: float, holding_after: float) -> tuple[float, float]:
    """Return by what each model's accepted answers count in the mean F: half of its F, all where it alone has one."""
    half = 0.5 if holding_before and holding_after else 1.0
    return (half / holding_before if holding_before else 0.0, half / holding_after if holding_after else 0.0)


def answer_state(completion: str, answer: str | None, gold: str, form: str, right: bool, truncated: bool) -> str:
    """Return how an answer ended, the first of ANSWER_STATES whose rule (ours) holds.

    - cut: at the token limit.
    - unreadable: no answer could be read.
    - went on: wrong, but right if it had ended at the end of an earlier sentence or line.
    - complete: none of these; what is right or wrong is the value.
    """
    if truncated:
        return "cut"
    if answer is None:
        return "unreadable"
    if not right:
        for end in _SENTENCE_END.finditer(completion[:_READ_AT_MOST]):
            if benchmarks.score_answer(completion[: end.start() + 1], gold, form)["symbolic"]:
                return "went on"
    return "complete"


def gain_sources(scores: pd.DataFrame, before: str = "base", after: str = "tuned") -> pd.DataFrame:
    """Split the gain of the greedy answers by how the answer before training ended: format against values.

    Each item belongs to one of ANSWER_STATES, that of its answer before; `gain` is what the items of a state contribute
    to the whole gain, losses included, so that the four sum to it. `share` is the state's share of the items, and the
    accuracies are those within it. Symbolic scoring; intervals as in `stats.paired_difference`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    greedy = scores[(scores["decoding"] == "greedy") & scores["model"].isin([before, after])]
    for (benchmark, shots), part in greedy.groupby(["benchmark", "shots"], sort=True):
        if part["model"].nunique() < 2:
            continue
        with_state = _with_state_before(part, before)[["model", "seed", "item", "symbolic", "state"]]
        for state in ANSWER_STATES:
            is_state = with_state["state"] == state
            counted = with_state.assign(state=is_state, right=is_state & with_state["symbolic"].astype(bool))
            tables = stats.paired_scores(counted, before, after, "right")
            states = stats.paired_scores(counted, before, after, "state")
            assert tables is not None and states is not None  # both models have answers
            pair, share = stats.paired_difference(*tables), float(states[1].mean())
            low, high = (pair.low, pair.high) if share else (0.0, 0.0)  # without an item it contributes nothing
            rows.append({
                "benchmark": benchmark, "shots": shots, "base_answer": state, "n": pair.n, "seeds": pair.seeds,
                "share": share, "before_accuracy": tables[0].mean() / share if share else np.nan,
                "after_accuracy": tables[1].mean() / share if share else np.nan,
                "gain": pair.difference, "low": low, "high": high,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=SOURCE_COLUMNS)


def _with_state_before(scores: pd.DataFrame, before: str) -> pd.DataFrame:
    """Return the scores with a column `state`: how the answer of the model `before` to the item ended, by seed.

    A single seed of that model stands for all.
    """
    names = ["completion", "answer", "gold", "form", "symbolic", "truncated"]
    old = scores[scores["model"] == before]
    states = [
        answer_state(text, answer if isinstance(answer, str) else None, gold, form, bool(right), bool(truncated))
        for text, answer, gold, form, right, truncated in old[names].itertuples(index=False, name=None)
    ]
    keys = ["item"] if old["seed"].nunique() == 1 else ["seed", "item"]
    return scores.merge(old[keys].assign(state=states).drop_duplicates(keys), on=keys)


def sources_sentence(sources: pd.DataFrame) -> str:
    """Return one sentence per benchmark that says how many points of the gain come from the form of the answers."""
    sentences = []
    for (benchmark, shots), part in sources.groupby(["benchmark", "shots"], sort=True):
        points = (100 * part.set_index("base_answer")["gain"] + 0.0).to_dict()  # no "-0.0"
        form = sum(points[state] for state in ANSWER_STATES if state != "complete")
        sentences.append(
            f"{benchmark}, {shots}-shot: of {sum(points.values()):+.1f} points, {form:+.1f} come from items whose base "
            f"answer was cut ({points['cut']:+.1f}), unreadable ({points['unreadable']:+.1f}) or went on after the "
            f"right number ({points['went on']:+.1f}), and {points['complete']:+.1f} from complete answers whose value "
            "changed."
        )
    return "\n".join(sentences)


def prompting_baselines(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return what prompting alone reaches: greedy chain of thought, one sample, and the majority of m samples.

    One row per model, method and number of samples m, up to the samples that there are. `right` is the share of right
    answers over `n` items and `seeds` seeds, with its interval (see `stats.accuracy_by_votes`); `any_right` is pass@m,
    the chance that at least one of m answers is right.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    names = ["benchmark", "shots", "model"]
    for (*key, decoding), part in scores.groupby([*names, "decoding"], sort=True):
        ordered = part.sort_values(["seed", "item", "sample"])
        classes, gold_of = answers.equality_classes(ordered["answer"]), list(ordered["gold"])
        by_item = list(ordered.groupby(["seed", "item"]).indices.values())  # rows of each item, in that order
        answer_rows = [[classes[row] for row in group] for group in by_item]
        golds = [answers.equality_class(gold_of[group[0]]) for group in by_item]
        sampled = [len(row) for row in answer_rows]
        right = [row.count(gold) for row, gold in zip(answer_rows, golds, strict=True)]
        seeds, greedy = part["seed"].nunique(), decoding == "greedy"
        curve = stats.accuracy_by_votes(answer_rows, golds, seed, (1,) if greedy else stats.VOTES, seeds)
        for row in curve.to_dict("records"):
            m = int(row["m"])
            method = "chain of thought, greedy" if greedy else "one sample" if m == 1 else "self-consistency"
            any_right = float(stats.pass_at_k(sampled, right, m).mean())
            rows.append(
                dict(zip(names, key, strict=True)) | row | {"method": method, "seeds": seeds, "any_right": any_right}
            )
    return pd.DataFrame(rows, columns=BASELINE_COLUMNS)


_SENTENCE_END = re.compile(r"[^\s](?=\n)|[.!?](?=\s)")
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
_SIGN = r"[-+*/x×÷−]"
_EQUATION = re.compile(
    rf"(?<![\d.,])({_NUMBER}(?:[ \t]*{_SIGN}[ \t]*{_NUMBER}){{1,8}})[ \t]*=[ \t$]*({_NUMBER})(?![\d/])"
)
_OPERAND = re.compile(rf"({_NUMBER})[ \t]*({_SIGN}?)")  # with the sign behind it
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_READ_AT_MOST = 20_000  # characters in which equations are looked for (the last), or an earlier end (the first)


@dataclass(frozen=True)
class Equation:
    """An equation in a text: its left side, that side's value (None: divides by zero), and what the text says it is."""

    left_side: str
    value: Fraction | None
    said: Fraction

    @property
    def is_false(self) -> bool:
        """Whether the text says another number than the left side's value; 1 / 3 = 0.33 is only rounded."""
        rounding = Fraction(0) if self.said.denominator == 1 else Fraction(1, 100)
        return self.value is not None and abs(self.value - self.said) > rounding


def equations(text: str) -> list[Equation]:
    """Return the equations that a text writes out, in their order."""
    matches = _EQUATION.findall(text[-_READ_AT_MOST:])
    return [Equation(left, _value_of(left), Fraction(right.replace(",", ""))) for left, right in matches]


def _value_of(expression: str) -> Fraction | None:
    """Return the value of a chain such as "2 + 3 * 4", products before sums; None if it divides by zero."""
    total, product, sign = Fraction(0), Fraction(1), "*"
    for operand, next_sign in _OPERAND.findall(expression):
        number = Fraction(operand.replace(",", ""))
        if sign in "*x×":
            product *= number
        elif sign not in "/÷":
            total += product
            product = number if sign == "+" else -number
        elif number:
            product /= number
        else:
            return None
        sign = next_sign
    return total + product


def failure_class(question: str, completion: str, answer: str | None, right: bool, truncated: bool) -> str:
    """Return the class of a wrong answer, the first of FAILURES whose rule (ours) holds; "" for a right answer.

    - truncated: the answer was cut at the token limit.
    - no answer: no answer could be read.
    - wrong operation: another operation (+, -, *, /) on the question's two numbers gives this answer, and the text does
      not write out the right operation.
    - arithmetic slip: the text writes an equation that is false.
    - other numbers: the last equation of the text is true, but uses numbers that are not in the question.
    - other: none of these.
    """
    if right:
        return ""
    if truncated:
        return "truncated"
    if answer is None:
        return "no answer"
    problem = benchmarks.arithmetic_problem(question)
    written = equations(completion)
    if problem is not None and _value_written(answer) in _other_results(question):
        if not any(benchmarks.arithmetic_problem(equation.left_side) == problem for equation in written):
            return "wrong operation"
    if any(equation.is_false for equation in written):
        return "arithmetic slip"
    if problem is not None and written and not _numbers_in(written[-1].left_side) <= _numbers_in(question):
        return "other numbers"
    return "other"


def _numbers_in(text: str) -> set[str]:
    return set(_DIGITS.findall(text.replace(",", "")))


@functools.lru_cache(maxsize=8192)  # the same items come back with each model, seed and decoding
def _other_results(question: str) -> frozenset[Fraction]:
    """Return what the operations that an arithmetic question does not ask for make of its two numbers, in any order."""
    problem = benchmarks.arithmetic_problem(question)
    assert problem is not None
    a, asked_operation, b = problem
    results = {"+": {a + b}, "-": {a - b, b - a}, "*": {a * b}, "/": {x / y for x, y in ((a, b), (b, a)) if y}}
    del results[asked_operation]
    return frozenset[Fraction]().union(*results.values())


def _value_written(answer: str) -> Fraction | None:
    try:
        return Fraction(answer.replace(",", ""))
    except (ValueError, ZeroDivisionError):  # no number
        return None


def with_failures(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with a column `failure`: the class of a wrong answer, "" for a right one (symbolic scoring)."""
    import pandas as pd

    columns = scores[["question", "completion", "answer", "symbolic", "truncated"]]
    rows = list(columns.itertuples(index=False, name=None))
    class_of = {  # each different answer is classed once: a greedy base says the same under every seed
        row: failure_class(row[0], row[1], None if pd.isna(row[2]) else row[2], bool(row[3]), bool(row[4]))
        for row in dict.fromkeys(rows)
    }
    failures = [class_of[row] for row in rows]
    return scores.assign(failure=failures)


def failure_counts(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how many answers of each model and decoding are right and how many fall into each class of failure.

    `n` counts all answers, `right, though truncated` the right ones among those that were cut at the token limit.
    """
    import pandas as pd

    classed = with_failures(scores)
    classed = classed.assign(cut_but_right=classed["truncated"].astype(bool) & classed["symbolic"].astype(bool))
    names = ["benchmark", "shots", "decoding", "model"]
    classes = classed["failure"].replace("", "right")
    counts = pd.crosstab([classed[name] for name in names], classes).reindex(columns=["right", *FAILURES], fill_value=0)
    counts["n"] = counts.sum(axis=1)
    counts["right, though truncated"] = classed.groupby(names)["cut_but_right"].sum()
    return counts.rename_axis(columns=None).reset_index()


def flipped_items(
    scores: pd.DataFrame, before: str = "base", after: str = "tuned", *, scoring: str = "symbolic"
) -> pd.DataFrame:
    """Return the items that one of two models answers right and the other wrong, with both greedy completions.

    `way` is "gained" or "lost", `failure` the class of the wrong answer. Of several seeds the first counts. Raises
    ValueError for a bad `scoring`.
    """
    if scoring not in SCORINGS:
        raise ValueError(f"scoring={scoring!r}: allowed are {', '.join(SCORINGS)}")
    keys = ["benchmark", "shots", "item"]
    greedy = scores[(scores["decoding"] == "greedy") & scores["model"].isin([before, after])]
    first_answers = with_failures(greedy.sort_values(["seed", "sample"]).drop_duplicates(["model", *keys]))
    old, new = (first_answers[first_answers["model"] == model] for model in (before, after))
    pairs = old.merge(new[[*keys, "completion", scoring, "failure"]], on=keys, suffixes=("", "_after"))
    change = pairs[f"{scoring}_after"].astype(int) - pairs[scoring].astype(int)
    pairs = pairs.assign(
        way=np.where(change > 0, "gained", "lost"),
        before=pairs["completion"],
        after=pairs["completion_after"],
        failure=np.where(change > 0, pairs["failure"], pairs["failure_after"]),
    )
    flips = pairs.loc[change != 0, FLIP_COLUMNS]
    return flips.sort_values(["benchmark", "way", "item"]).reset_index(drop=True)
