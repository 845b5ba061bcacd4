"""Breakdown: parts sum to the gain, estimators agree with counting all cases, failure classes with a reader."""

from __future__ import annotations

import ast
import operator
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shared import REFERENCE, grows_in_proportion

from crescent_utils import stats
from crescent_utils.answers import reading
from crescent_utils.benchmarks.scoring import SCORINGS
from crescent_utils.evaluate import breakdown


def table(before, after, seeds=(1,)):
    """Scores of two models from one (strict, flexible, symbolic) an item."""
    rows = [
        {"benchmark": "b", "kind": "", "shots": 0, "decoding": "greedy", "model": model, "item": i, "sample": 0,
            "seed": seed,
         "question": "What is 3 + 4?", "completion": "", "answer": "7", "truncated": False,
         **dict(zip(SCORINGS, flags, strict=True))}
        for model, side in (("base", before), ("tuned", after)) for seed in seeds for i, flags in enumerate(side)
    ]  # fmt: skip
    return pd.DataFrame(rows)


FLAGS = st.tuples(st.booleans(), st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FLAGS, FLAGS), min_size=1, max_size=12))
def test_the_parts_sum_to_the_gain_and_change_sign_with_the_sides(pairs):
    before, after = zip(*pairs, strict=True)
    found = breakdown.gain_parts(table(before, after), "base", "tuned").set_index("scoring")
    back = breakdown.gain_parts(table(after, before), "base", "tuned").set_index("scoring")
    holds = [np.mean([any(flags) for flags in side]) for side in (before, after)]
    for place, name in enumerate(SCORINGS):
        row = found.loc[name]
        a = [np.mean([flags[place] for flags in side]) for side in (before, after)]
        assert row["gain"] == pytest.approx(a[1] - a[0])
        assert row["reasoning"] + row["format"] == pytest.approx(row["gain"])
        assert (back.loc[name, "reasoning"], back.loc[name, "format"]) == pytest.approx(
            (-row["reasoning"], -row["format"])
        )
        if all(holds):  # Kitagawa's two terms, in fractions
            f = [share / v for share, v in zip(a, holds, strict=True)]
            assert row["format"] == pytest.approx((f[1] - f[0]) * (holds[0] + holds[1]) / 2)
        assert not row["reasoning_low"] > row["reasoning_high"] and row["n"] == len(pairs)


def test_a_gain_of_form_alone_and_of_reasoning_alone():
    knows, formatted, wrong = (False, False, True), (True, False, True), (False, False, False)
    form = breakdown.gain_parts(table([knows] * 20, [formatted] * 10 + [knows] * 10), "base", "tuned")
    form = form.set_index("scoring")
    assert form.loc["strict", ["gain", "reasoning", "format"]].tolist() == [0.5, 0.0, 0.5]
    assert form.loc["symbolic", ["gain", "reasoning", "format"]].tolist() == [0.0, 0.0, 0.0]
    learned = breakdown.gain_parts(table([formatted, wrong] * 10, [formatted] * 20), "base", "tuned")
    learned = learned.set_index("scoring")
    assert learned.loc["strict", ["gain", "reasoning", "format"]].tolist() == [0.5, 0.5, 0.0]
    low, high = learned.loc["strict", ["reasoning_low", "reasoning_high"]]
    assert 0 < low < 0.5 < high < 1


SHARES = st.tuples(*[st.floats(0.05, 1.0)] * 4)


@settings(max_examples=60, deadline=None)
@given(SHARES)
def test_the_slopes_of_the_reasoning_part_are_its_small_changes(shares):
    slopes = breakdown.reasoning_slopes(*shares)
    for place in range(4):
        up, down = ([share + step * (i == place) for i, share in enumerate(shares)] for step in (1e-6, -1e-6))
        change = (breakdown.split_gain(*up)[0] - breakdown.split_gain(*down)[0]) / 2e-6
        assert slopes[place] == pytest.approx(change, rel=1e-4, abs=1e-6)


def several_seeds(accepting):
    """Scores of three seeds over 60 items; `accepting` is the share of right answers in the asked-for form."""
    chance = np.random.default_rng(1)
    sides = []
    for before, after in zip((0.4,) * 3, (0.45, 0.6, 0.5), strict=True):
        right = [chance.random(60) < share for share in (before, after)]
        form = [chance.random(60) < share for share in accepting]
        pairs = [zip(*side, strict=True) for side in zip(form, right, strict=True)]
        sides.append([[(bool(f and r), bool(r), bool(r)) for f, r in pair] for pair in pairs])
    return pd.concat([table(*side, seeds=(seed,)) for seed, side in enumerate(sides, start=1)])


def test_a_gain_of_reasoning_alone_has_the_interval_of_the_comparison():
    scores = several_seeds((1, 1))
    row = breakdown.gain_parts(scores, "base", "tuned").set_index("scoring").loc["symbolic"]
    whole = stats.compare_models(scores, "base", "tuned").iloc[0]
    assert row[["reasoning", "reasoning_low", "reasoning_high"]].tolist() == pytest.approx(
        whole[["difference", "low", "high"]].tolist()
    )
    assert np.isnan(row["format_low"]) and row["seeds"] == whole["seeds"] == 3


def test_the_intervals_of_one_seeds_parts_are_a_bootstraps():
    scores = several_seeds((0.3, 0.8)).query("seed == 2")
    row = breakdown.gain_parts(scores, "base", "tuned").set_index("scoring").loc["strict"]
    sides = {model: side.sort_values("item") for model, side in scores.groupby("model")}
    flags = np.array(
        [sides[model][name].to_numpy(float) for name in ("symbolic", "strict") for model in ("base", "tuned")]
    )
    chance = np.random.default_rng(2)
    draws = [breakdown.split_gain(*flags[:, chance.integers(0, 60, 60)].mean(axis=1)) for _ in range(4000)]
    for name, values in zip(("reasoning", "format"), zip(*draws, strict=True), strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        assert row[f"{name}_low"] == pytest.approx(low, abs=0.15 * (high - low))
        assert row[f"{name}_high"] == pytest.approx(high, abs=0.15 * (high - low))


@pytest.mark.parametrize(
    ("completion", "answer", "truncated", "state"),
    [
        ("3 + 4 = 7", "7", False, "complete"), ("3 + 4 = 8", "8", False, "complete"),
        ("3 + 4 = 7. Then 7 + 5", "5", True, "cut"), ("7", "7", True, "cut"),
        ("I do not know.", None, False, "unreadable"),
        ("The answer is 7.\n\nWhat is 5 + 6? The answer is 11.", "11", False, "went on"),
        ("3 + 4 = 7. So 7 + 1 = 8.", "8", False, "went on"), ("7\n8", "8", False, "went on"),
        ("3 + 4 = 8. So 8 + 1 = 9.", "9", False, "complete"), ("It is 1.7 in all.", "1.7", False, "complete"),
    ],
)  # fmt: skip
def test_how_an_answer_ended(completion, answer, truncated, state):
    right = answer == "7"
    assert breakdown.answer_state(completion, answer, "7", "number", right, truncated) == state


def ended(seed, model, texts):
    """Scores of a model from its texts to "What is 3 + 4?", a text in brackets being cut at the limit."""
    rows = []
    for i, text in enumerate(texts):
        answer = reading.extract_answer(text.strip("<>"))
        rows.append({
            "benchmark": "b", "shots": 0, "decoding": "greedy", "model": model, "item": i, "sample": 0, "seed": seed,
            "gold": "7", "form": "number", "completion": text.strip("<>"), "answer": answer, "symbolic": answer == "7",
            "truncated": text.startswith("<"),
        })  # fmt: skip
    return pd.DataFrame(rows)


RIGHT, WRONG, NONE, ON, CUT = (
    "The answer is 7.",
    "The answer is 6.",
    "Well.",
    "The answer is 7.\nThe answer is 9.",
    "<3 + 4 is 9>",
)
TEXTS = st.lists(st.tuples(*[st.sampled_from([RIGHT, WRONG, NONE, ON, CUT])] * 3), min_size=1, max_size=10)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_the_sources_of_a_gain_sum_to_it(rows):
    base, first, second = zip(*rows, strict=True)
    scores = pd.concat([ended(1, "base", base), ended(1, "tuned", first), ended(2, "tuned", second)])
    found = breakdown.gain_sources(scores).set_index("base_answer")
    assert tuple(found.index) == breakdown.ANSWER_STATES and set(found["seeds"]) == {2}
    right = [[text == RIGHT for text in texts] for texts in (base, first, second)]
    whole = (np.mean(right[1]) + np.mean(right[2])) / 2 - np.mean(right[0])
    assert found["gain"].sum() == pytest.approx(whole) and found["share"].sum() == pytest.approx(1)
    for state, text in (("cut", CUT), ("unreadable", NONE), ("went on", ON)):
        places = [place for place, old in enumerate(base) if old == text]
        gained = sum(right[side][place] for side in (1, 2) for place in places) / 2 / len(base)
        assert found.loc[state, "gain"] == pytest.approx(gained)
        assert found.loc[state, "share"] == pytest.approx(len(places) / len(base))
    sentence = breakdown.sources_sentence(found.reset_index())
    assert f"of {100 * whole + 0.0:+.1f} points" in sentence or abs(100 * whole) < 0.05
    assert breakdown.gain_sources(scores[scores["model"] == "base"]).empty


def test_the_sentence_says_what_is_format_and_what_is_value():
    base, tuned = [CUT] * 3 + [ON, NONE, WRONG, RIGHT, WRONG, WRONG, RIGHT], [RIGHT] * 7 + [WRONG] * 3
    sentence = breakdown.sources_sentence(
        breakdown.gain_sources(pd.concat([ended(1, "base", base), ended(1, "tuned", tuned)]))
    )
    assert sentence == (
        "b, 0-shot: of +50.0 points, +50.0 come from items whose base answer was cut (+30.0), unreadable (+10.0) or "
        "went on after the right number (+10.0), and +0.0 from complete answers whose value changed."
    )


def test_seeds_pair_by_number_and_one_base_stands_against_all():
    whole = table([(False,) * 3] * 4, [(True,) * 3] * 4, seeds=(1, 2))
    alone = whole[(whole["model"] == "tuned") | (whole["seed"] == 1)]
    for scores in (whole, alone):
        found = breakdown.gain_parts(scores, "base", "tuned")
        assert found["seeds"].tolist() == [2, 2, 2] and found["gain"].tolist() == [1.0] * 3
    assert breakdown.gain_parts(whole, "base", "student").empty


OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=2, max_size=6), st.data())
def test_equations_are_worked_out_as_python_does(numbers, data):
    signs = [data.draw(st.sampled_from("+-*/")) for _ in numbers[1:]]
    left = str(numbers[0]) + "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True))

    def value(node):
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        return OPERATIONS[type(node.op)](value(node.left), value(node.right))

    [equation] = breakdown.equations(f"So {left} = 1,234.5 in all.")
    assert (equation.said, equation.left_side) == (Fraction("1234.5"), left)
    try:
        assert equation.value == value(ast.parse(left, mode="eval").body)
    except ZeroDivisionError:
        assert equation.value is None


@pytest.mark.parametrize(
    "question, completion, answer, expected",
    [
        ("What is 17 * 5?", "17 * 5 = 90\n\nThe answer is 90.", "90", "arithmetic slip"),
        ("What is 5 + 3?", "The answer is 15.", "15", "wrong operation"),
        ("What is 5 - 3?", "3 - 5 = -2", "-2", "other"), ("What is 29 - 29?", "29 - 29 = 1", "1", "arithmetic slip"),
        ("What is 28 - 2?", "4 - 3 = 1", "1", "other numbers"), ("What is 8 + 17?", "The answer is 19.", "19", "other"),
        ("What is 8 + 17?", "Hm.", None, "no answer"),
        ("Ann has 3 cats and 4 dogs. How many?", "3 + 4 = 8", "8", "arithmetic slip"),
        ("Ann has 3 cats and 4 dogs. How many?", "3 * 4 = 12", "12", "other"),
        ("What is 1 / 3?", "1 / 3 = 0.33 and so 5", "5", "other"),
        ("What is 4 + 0?", "4 / 0 = 1", "1", "other"),
    ],
)  # fmt: skip
def test_a_failure_has_the_class_that_its_rule_says(question, completion, answer, expected):
    assert breakdown.failure_class(question, completion, answer, False, False) == expected
    assert breakdown.failure_class(question, completion, answer, True, True) == ""
    assert breakdown.failure_class(question, completion, answer, False, True) == "truncated"


def test_failures_of_the_reference_add_up():
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet")
    counts = breakdown.failure_counts(scores)
    assert (counts[["right", *breakdown.FAILURES]].sum(axis=1) == counts["n"]).all() and counts["n"].sum() == len(
        scores
    )
    right = scores.groupby(["benchmark", "shots", "decoding", "model"])["symbolic"].sum()
    assert (
        counts.set_index(["benchmark", "shots", "decoding", "model"])["right"].sort_index().tolist()
        == right.sort_index().tolist()
    )
    assert counts["arithmetic slip"].sum() > 0


def test_truncated_answers_that_count_as_right_are_counted():
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet").query("prompt == 'bare' and seed == 1")
    counts = breakdown.failure_counts(scores).set_index(["decoding", "model"])
    cut_and_right = scores.query("truncated and symbolic").groupby(["decoding", "model"]).size()
    assert cut_and_right["greedy", "base"] > 0, "some say the value before the cut"
    for key, count in cut_and_right.items():
        assert counts.loc[key, "right, though truncated"] == count
    assert (counts["right, though truncated"] <= counts["right"]).all()
    cut = scores[scores["truncated"]].groupby(["decoding", "model"]).size()
    for key, count in cut.items():
        assert counts.loc[key, ["truncated", "right, though truncated"]].sum() == count


def test_flips_are_the_items_that_changed_and_show_both_answers():
    scores = pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet").query("prompt == 'bare' and seed == 1")
    greedy = scores[scores["decoding"] == "greedy"].pivot_table(
        index="item", columns="model", values="symbolic", aggfunc="first"
    )
    both = breakdown.flipped_items(scores)
    gained = set(greedy.index[(greedy["base"] == 0) & (greedy["tuned"] == 1)])
    assert set(both.loc[both["way"] == "gained", "item"]) == gained and gained
    lost = set(greedy.index[(greedy["base"] == 1) & (greedy["tuned"] == 0)])
    assert set(both.loc[both["way"] == "lost", "item"]) == lost and len(both) == len(gained) + len(lost)
    row = both.iloc[0]
    shown = scores[(scores["item"] == row["item"]) & (scores["decoding"] == "greedy")].set_index("model")["completion"]
    assert (row["before"], row["after"]) == (shown["base"], shown["tuned"]) and row["failure"] in breakdown.FAILURES
    assert breakdown.flipped_items(scores[scores["benchmark"] == "gsm8k"]).empty
    with pytest.raises(ValueError, match="scoring='loose'"):
        breakdown.flipped_items(scores, scoring="loose")


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_completion_has_a_class(text):
    assume(text)
    assert breakdown.failure_class("What is 3 + 4?", text, "9", False, False) in breakdown.FAILURES


def test_long_completions_take_time_in_proportion():
    for text in ("1," * 50_000, "1+" * 50_000, "1 + 1 " * 20_000, "9" * 100_000, "1 + 1 = " * 10_000):
        assert breakdown.failure_class("What is 3 + 4?", text, "9", False, False) in breakdown.FAILURES
        assert grows_in_proportion(lambda t: breakdown.failure_class("What is 3 + 4?", t, "9", False, False), text)


def test_prompting_baselines_are_one_chain_of_thought_and_the_majority():
    rows = []
    for item, (greedy, sampled) in enumerate(
        [("1", ["1", "1", "2"]), ("2", ["1", "1", "1"]), (None, ["2", None, "1"])]
    ):
        base = {"benchmark": "b", "shots": 0, "model": "base", "seed": 1, "item": item, "gold": "1"}
        rows.append({**base, "decoding": "greedy", "sample": 0, "answer": greedy})
        rows += [{**base, "decoding": "sampled", "sample": i, "answer": a} for i, a in enumerate(sampled)]
    found = breakdown.prompting_baselines(pd.DataFrame(rows).sample(frac=1, random_state=0)).set_index(["method", "m"])
    assert found["right"].to_dict() == pytest.approx(
        {
            ("chain of thought, greedy", 1): 1 / 3,
            ("one sample", 1): (2 / 3 + 1 + 1 / 3) / 3,
            ("self-consistency", 3): (1 + 1 + 0.5) / 3,
        }
    )
    assert (found["n"] == 3).all() and (found["seeds"] == 1).all()
    assert found["any_right"].to_dict() == pytest.approx(
        {("chain of thought, greedy", 1): 1 / 3, ("one sample", 1): 2 / 3, ("self-consistency", 3): 1.0}
    )


def test_the_same_answer_under_several_seeds_is_no_further_item():
    one = pd.DataFrame(
        {"benchmark": "b", "shots": 0, "model": "base", "decoding": "greedy", "seed": 1, "item": range(40), "sample": 0,
         "gold": "1", "answer": ["1", "2"] * 20}
    )  # fmt: skip
    alone = breakdown.prompting_baselines(one).iloc[0]
    thrice = breakdown.prompting_baselines(pd.concat(one.assign(seed=seed) for seed in (1, 2, 3))).iloc[0]
    assert (thrice["n"], thrice["seeds"]) == (40, 3)
    assert (thrice["low"], thrice["high"]) == (alone["low"], alone["high"])


def test_prompting_baselines_of_the_reference():
    baselines = breakdown.prompting_baselines(pd.read_parquet(REFERENCE / "evaluate" / "scores.parquet"))
    assert {"base", "tuned"} <= set(baselines["model"])
