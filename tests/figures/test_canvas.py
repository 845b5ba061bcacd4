"""Figures: each draws, says its numbers, does so again alike, and keeps its labels on the page."""

import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from shared import assert_nothing_is_cut_off, contrast, covered_texts, figure_that_says

from crescent_utils import stats
from crescent_utils.evaluate import claims_ledger
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
THREE_MODELS = pd.concat([SCORES, SCORES[SCORES["model"] == "base"].assign(model="tuned_random_labels")])
THREE_MODELS = THREE_MODELS[THREE_MODELS["benchmark"] == "gsm8k"].assign(benchmark="two_numbers_190_products_20")
COMPARISONS = stats.compare_models(SCORES, "base", "tuned", resamples=200)
NINE = pd.concat(
    [COMPARISONS.assign(benchmark=f"a_rather_long_benchmark_{i}", after="student_tuned") for i in range(5)]
)

FIGURES = {
    "claims": (lambda: evaluate.claims_forest(claims_ledger(COMPARISONS)), "; C2: no run; "),
    "funnel": (
        lambda: elicit.funnel({"sampled": 1000, "kept": 250, "trained": 200}),
        "sampled 1,000 -> kept 250 (25.0%)",
    ),
    "reasons": (
        lambda: elicit.rejection_reasons(pd.DataFrame({"reason": ["tie", "a", "tie"]})),
        "rejected 3: tied vote 2 (66.7%), a 1 (33.3%)",
    ),
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
        "rewrite 1: 2 of 4 accepted (50%); rewrite 2: 1 of 2 accepted (50%)",
    ),
    "pool": (lambda: dedup.pool_growth([True] * 6 + [False] * 4), "5 kept of 5, 6 of 10; last tenth 0%"),
    "agreement": (lambda: vote.agreement_histogram(QA), f"n 400, mean agreement {(VOTES / 8).mean():.2f}"),
    "agreement with a threshold": (
        lambda: vote.agreement_histogram(QA, 0.5),
        f"at or above 0.50: {(VOTES >= 4).mean():.1%}",
    ),
    "agreement of 32": (lambda: vote.agreement_histogram(MANY), "n 900"),
    "reliability": (
        lambda: vote.reliability(QA),
        f"1.00: {QA[VOTES == 8]['correct'].mean():.0%} of {(VOTES == 8).sum()}",
    ),
    "reliability of 32": (lambda: vote.reliability(MANY), "of 900"),
    "loss": (
        lambda: finetune.loss_curve(LOG),
        "3 steps; training 1.500 -> 0.500 (lowest 0.500), smoothed 1.500 -> 0.635; held out 0.625",
    ),
    "accuracy": (lambda: evaluate.accuracy_bars(COMPARISONS), "gsm8k, 0-shot, greedy: 48.0% -> 56.0% (n 50)"),
    "many accuracies": (lambda: evaluate.accuracy_bars(NINE), "distilled student against base"),
    "effects": (lambda: evaluate.paired_effects(COMPARISONS), "arithmetic, 0-shot, greedy: +8.0 points ["),
    "many effects": (lambda: evaluate.paired_effects(NINE), "distilled student against base"),
    "seeds": (
        lambda: evaluate.accuracy_by_seed(SCORES),
        "arithmetic, 0-shot, greedy, self-improved: 36.0%, 56.0%, 76.0%",
    ),
    "seeds of three models": (
        lambda: evaluate.accuracy_by_seed(THREE_MODELS),
        "two_numbers_190_products_20, 0-shot, greedy, random labels: 28.0%, 48.0%, 68.0%",
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
    "claims": lambda: evaluate.claims_forest([]),
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


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another(name):
    assert covered_texts(FIGURES[name][0]()[0]) == []


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_draw(name):
    figure, text = EMPTY[name]()
    assert text.endswith(("no data", "none"))
    assert not figure.axes and figure.get_size_inches()[1] < 0.5, "one line of text, no empty axes"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_shows_no_figure_where_there_is_nothing_to_draw(capsys):
    formatter = DisplayFormatter()
    formatter.ipython_display_formatter.enabled = True  # as a notebook's kernel has it
    for draw in EMPTY.values():
        assert formatter.format(draw()[0]) == ({}, {})
    drawn, _ = formatter.format(canvas.empty_picture("Title", 1.0))
    assert "image/png" in drawn and capsys.readouterr() == ("", "")


def test_a_notebook_shows_a_picture_at_half_its_resolution():
    figure, _ = elicit.funnel({"sampled": 10, "kept": 5})
    data, shown = DisplayFormatter().format(figure)
    width, height = struct.unpack(">II", data["image/png"][16:24])  # of a PNG's header
    assert shown["image/png"] == {"width": width // 2, "height": pytest.approx(height / 2, abs=1)}
    assert width == 2 * canvas.WIDTH * 100


def test_a_figure_brings_its_own_light_ground():
    figure, _ = elicit.funnel({"sampled": 10, "kept": 5})
    red, green, blue, alpha = figure.get_facecolor()
    assert alpha == 1 and min(red, green, blue) > 0.95


@pytest.mark.parametrize(
    "colour",
    [canvas.INK, canvas.QUIET, *map(canvas.text_colour, (canvas.BLUE, canvas.ORANGE, canvas.GREEN, canvas.RED))],
)
def test_small_print_can_be_read_on_the_card(colour):
    assert contrast(colour, canvas.CARD) >= 4.5


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "benchmark": st.sampled_from(["a", "b_c"]),
            "shots": st.sampled_from([0, 5]),
            "decoding": st.sampled_from(["greedy", "sampled"]),
            "scoring": st.sampled_from(["strict", "symbolic"]),
        }
    ),
    min_size=1,
    max_size=6,
)


@given(ROWS)
def test_short_labels_lose_nothing(rows):
    common, labels = canvas.short_labels(rows)
    assert len(labels) == len(rows) and all(labels)
    for row, label in zip(rows, labels, strict=True):
        said = {*common.split(", "), *label.split(", ")} - {""}
        full = {
            row["benchmark"].replace("_", " "),
            f"{row['shots']}-shot",
            row["decoding"],
            f"{row['scoring']} scoring",
        }
        assert said == full


def test_reasons_in_words_keep_their_stage_and_their_rewrites():
    assert elicit.reason_words("dedup: too_long, after 2 rewrites") == "dedup: too long, after 2 rewrites"
    assert elicit.reason_words("repeats a benchmark item") == "repeats a benchmark item"
    assert len(set(elicit.REASONS.values())) == len(elicit.REASONS)


def test_labels_at_the_ends_of_lines_move_apart():
    figure, axes = canvas.empty_axes("Lines", 3)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="x")
    canvas.label_ends(axes, [(1, y, f"line {y}", canvas.BLUE) for y in (0.97, 0.98, 0.99, 0.5)])
    assert covered_texts(figure) == []


def test_bars_of_the_reliability_are_wilsons():
    figure, _ = vote.reliability(pd.DataFrame({"agreement": [0.5] * 10, "correct": [True] * 3 + [False] * 7}))
    segment = next(c for c in figure.axes[0].containers if hasattr(c, "has_yerr")).lines[2][0].get_segments()[0]
    wilson = stats.wilson(3, 10)
    assert segment[:, 1] == pytest.approx([wilson.low, wilson.high])


def test_no_pyplot():
    code = "import sys; from crescent_utils import figures; figures.funnel({'a': 1}); "
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
