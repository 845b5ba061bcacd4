"""Figures: each draws, says its numbers, does so again alike, and keeps its labels on the page."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from shared import assert_nothing_is_cut_off, figure_that_says

from crescent_utils import stats
from crescent_utils.figures import canvas, dedup, elicit, evaluate, finetune, vote

RNG = np.random.default_rng(0)
VOTES = RNG.integers(1, 9, 400)
QA = pd.DataFrame({"agreement": VOTES / 8, "tied": VOTES < 3, "correct": RNG.random(400) < VOTES / 9})
MANY = pd.DataFrame({"agreement": RNG.integers(1, 33, 900) / 32, "correct": RNG.random(900) < 0.5})
LOG = pd.DataFrame({"step": [1, 2, 3], "loss": [1.5, 0.75, 0.5], "eval_loss": [None, None, 0.625]})
ATTEMPTS = pd.DataFrame({"round": [1, 1, 1, 1, 2, 2], "accepted": [True, True, False, False, True, False]})
SCORES = pd.DataFrame([
    {"benchmark": name, "shots": 0, "decoding": "greedy", "model": model, "item": item, "seed": seed,
     "symbolic": item < 10 * seed + (8 if model == "tuned" else 4)}
    for name in ("arithmetic", "gsm8k") for model in ("base", "tuned") for seed in (1, 2, 3) for item in range(50)
])  # fmt: skip
COMPARISONS = stats.compare_models(SCORES, "base", "tuned", resamples=200)
NINE = pd.concat(
    [COMPARISONS.assign(benchmark=f"a_rather_long_benchmark_{i}", after="student_tuned") for i in range(5)]
)

FIGURES = {
    "funnel": (
        lambda: elicit.funnel({"sampled": 1000, "kept": 250, "trained": 200}),
        "sampled 1,000 -> kept 250 (25.0%)",
    ),
    "reasons": (lambda: elicit.rejection_reasons(pd.DataFrame({"reason": ["b", "a", "b"]})), "rejected 3: b 2, a 1"),
    "many reasons": (
        lambda: elicit.rejection_reasons(pd.DataFrame({"reason": [f"r{i:02}" for i in range(20)] * 2})),
        "6 other reasons 12",
    ),
    "similarity": (
        lambda: dedup.nearest_similarity([0.5, 0.9, 0.95, np.nan], [0.1, 0.3], 0.85),
        "before: n 3, median 0.90, at or above 0.85: 66.7%; after: n 2, median 0.20, at or above 0.85: 0.0%",
    ),
    "rounds": (
        lambda: dedup.acceptance_by_round(ATTEMPTS),
        "round 1: 2 of 4 accepted (50%); round 2: 1 of 2 accepted (50%)",
    ),
    "pool": (lambda: dedup.pool_growth([True] * 6 + [False] * 4), "5 kept of 5, 6 of 10; last tenth 0%"),
    "agreement": (lambda: vote.agreement_histogram(QA), f"n 400, mean agreement {(VOTES / 8).mean():.2f}"),
    "agreement of 32": (lambda: vote.agreement_histogram(MANY), "n 900"),
    "reliability": (
        lambda: vote.reliability(QA),
        f"1.00: {QA[VOTES == 8]['correct'].mean():.0%} of {(VOTES == 8).sum()}",
    ),
    "reliability of 32": (lambda: vote.reliability(MANY), "of 900"),
    "loss": (lambda: finetune.loss_curve(LOG), "3 steps; training 1.500 -> 0.500 (lowest 0.500); held out 0.625"),
    "accuracy": (lambda: evaluate.accuracy_bars(COMPARISONS), "gsm8k, 0-shot, greedy: 48.0% -> 56.0% (n 50)"),
    "many accuracies": (lambda: evaluate.accuracy_bars(NINE), "distilled student against base"),
    "effects": (lambda: evaluate.paired_effects(COMPARISONS), "arithmetic, 0-shot, greedy: +8.0 points ["),
    "many effects": (lambda: evaluate.paired_effects(NINE), "distilled student against base"),
    "seeds": (
        lambda: evaluate.accuracy_by_seed(SCORES),
        "arithmetic, 0-shot, greedy, self-improved: 36.0%, 56.0%, 76.0%",
    ),
}
EMPTY = {
    "funnel": lambda: elicit.funnel({}),
    "reasons": lambda: elicit.rejection_reasons(pd.DataFrame({"reason": []})),
    "similarity": lambda: dedup.nearest_similarity([], [np.nan], 0.8),
    "rounds": lambda: dedup.acceptance_by_round(ATTEMPTS.iloc[:0]),
    "pool": lambda: dedup.pool_growth([]),
    "agreement": lambda: vote.agreement_histogram(QA.iloc[:0]),
    "reliability": lambda: vote.reliability(QA.drop(columns="correct")),
    "reliability without gold": lambda: vote.reliability(QA.assign(correct=None)),
    "loss": lambda: finetune.loss_curve(LOG.iloc[:0]),
    "accuracy": lambda: evaluate.accuracy_bars(COMPARISONS.iloc[:0]),
    "effects": lambda: evaluate.paired_effects(COMPARISONS.iloc[:0]),
    "seeds": lambda: evaluate.accuracy_by_seed(SCORES.iloc[:0]),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error::UserWarning")
def test_figure_says_its_numbers(name):
    draw, expected = FIGURES[name]
    figure_that_says(draw, expected)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(name):
    assert_nothing_is_cut_off(FIGURES[name][0]()[0])


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_draw(name):
    figure, text = EMPTY[name]()
    assert text.endswith(("no data", "none"))
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_bars_of_the_reliability_are_wilsons():
    figure, _ = vote.reliability(pd.DataFrame({"agreement": [0.5] * 10, "correct": [True] * 3 + [False] * 7}))
    segment = next(c for c in figure.axes[0].containers if hasattr(c, "has_yerr")).lines[2][0].get_segments()[0]
    wilson = stats.wilson(3, 10)
    assert segment[:, 1] == pytest.approx([wilson.low, wilson.high])


def test_no_pyplot():
    code = "import sys; from crescent_utils import figures; figures.funnel({'a': 1}); "
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (9_999, "9,999"), (10_000, "10.0k"), (54_321, "54.3k"), (2_500_000, "2.5M")]
)
def test_a_count_above_a_narrow_bar_is_short(count, text):
    assert canvas.short_count(count) == text
