"""Growth: how the time of each step but sampling and training grows from N raw questions to ten times as many.

A row's "alternative" is growth in proportion, measured on N / 10: a ratio of 0.63 is an exponent of 1.2. Seconds are of
the processor, so that other work disturbs little. The note says the exponent, the seconds at each size and the memory
that the largest takes. The texts are made up (`synthetic.py`).
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import synthetic
from bench_dedup import unit
from measure import SECONDS, Row, row_of

from crescent_utils import figures, generation, runs, stats
from crescent_utils.benchmarks import load_benchmark, score_answer
from crescent_utils.cli import report
from crescent_utils.dedup import contamination, diversity, protocols, similarity
from crescent_utils.elicit import read_questions
from crescent_utils.evaluate import breakdown
from crescent_utils.finetune import training
from crescent_utils.generation import models
from crescent_utils.generation.generator import Generator
from crescent_utils.generation.store import GenerationStore, Sampling
from crescent_utils.runs import costs
from crescent_utils.vote import labels, tables

SIZES = (100, 1_000, 10_000, 100_000)  # raw questions; the exponent is fitted to the two largest
THRESHOLD = 0.85
DOMAIN = runs.get_domain("math_word_problems")
SUMS = runs.get_domain("arithmetic")


def grown(prepare: Callable[[int], Callable[[], Any]], scale: float) -> Row:
    """Return the row of a step: `prepare(n)` returns the work on n questions, whose making does not count."""
    began, seconds, memory = time.perf_counter(), [], 0.0
    sizes = [max(10, round(size * scale)) for size in SIZES]
    for size in sizes:
        work = prepare(size)
        costs.reset_peak_memory()
        before, start = costs.peak_memory_bytes(), time.process_time()
        work()
        seconds.append(time.process_time() - start)
        memory = max(0, costs.peak_memory_bytes() - before) / 1e6
    growth, more = seconds[-1] / seconds[-2], sizes[-1] / sizes[-2]
    row = row_of(f"{more:g} times N = {sizes[-2]:,}", SECONDS, [1 / seconds[-1]], [1 / (more * seconds[-2])], sizes[-1],
                 time.perf_counter() - began)  # fmt: skip
    each = ", ".join(f"{size:,}: {value:.3g} s" for size, value in zip(sizes, seconds, strict=True))
    return replace(row, note=f"exponent {math.log(growth) / math.log(more):.2f}; {each}; {memory:,.0f} MB more")


def vectors(count: int) -> np.ndarray:
    """Unit vectors around 2,000 points, so that the usual neighbour stands at 0.6; a tenth repeat an earlier row."""
    chance = np.random.default_rng(1)
    points = unit(chance.normal(size=(2_000, 384))).astype(np.float32)
    rows = points[chance.integers(len(points), size=count)]
    rows += 0.8 / 384**0.5 * chance.standard_normal((count, 384), dtype=np.float32)
    copies = np.arange(9, count, 10)
    rows[copies] = rows[chance.integers(0, copies)]
    return np.asarray(unit(rows), np.float32)


class Given:
    """An encoder that has all vectors already: embedding is no part of this."""

    def __init__(self, count: int) -> None:
        self._vectors = vectors(count)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return the first vectors."""
        return self._vectors[: len(texts)]


def problems(count: int) -> tuple[list[str], list[str]]:
    """Return different word problems and their answers."""
    chance = random.Random(1)
    drawn = [synthetic.word_problem(chance) for _ in range(count)]
    return [f"{text} ({i})" for i, (text, _) in enumerate(drawn)], [gold for _, gold in drawn]


def paths(count: int) -> tuple[pd.DataFrame, list[list[str]]]:
    """Return questions about sums, and three paths each of which about a half is right."""
    chance = random.Random(2)
    drawn = [synthetic.sum_problem(chance) for _ in range(count)]
    table = pd.DataFrame({"id": range(count), "question": [text for text, _ in drawn], "round": 0})
    ends = [[gold if chance.random() < 0.5 else str(chance.randint(1, 99)) for _ in range(3)] for _, gold in drawn]
    return table, [[f"We work step by step. The answer is {end}." for end in row] for row in ends]


def voted(count: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the tables of a vote."""
    questions, written = paths(count)
    return tables.vote_tables(questions, written, vote_settings(), SUMS)


def vote_settings() -> Any:
    """Return the vote's settings as the authors have them."""
    return runs.build_settings("vote", {**synthetic.VOTE, "domain": "arithmetic"})


def reading(count: int) -> Callable[[], Any]:
    """01: questions out of completions, a tenth of them spoilt, and their tables on disk."""
    chance = random.Random(3)
    texts = [chance.choice(synthetic.WRAPPINGS).format(text) for text in problems(count)[0]]
    texts = [chance.choice(synthetic.SPOILT) if chance.random() < 0.1 else text for text in texts]

    def work() -> None:
        gates = runs.validity_gates(DOMAIN)
        write(read_questions(texts, [0] * count, [""] * count, gates, finishes=["stop"] * count))

    return work


def write(frames: Any) -> None:
    """Write tables as Parquet."""
    with tempfile.TemporaryDirectory() as folder:
        for number, frame in enumerate(frames):
            frame.to_parquet(Path(folder) / f"{number}.parquet", index=False)


def replaying(count: int) -> Callable[[], Any]:
    """The store: completions of as many requests looked up and accounted for, as in a replay of 02 and 03."""
    folder = tempfile.TemporaryDirectory()
    path, model = Path(folder.name) / "store.sqlite", models.Model("base", "base", Path)
    requests = [
        generation.Request.of("base", runs.solve_messages(DOMAIN, text), Sampling(1.0, 1.0, 100))
        for text in problems(count)[0]
    ]
    done = generation.Completion("The answer is 7.", "stop", 50, 10)
    with GenerationStore(path) as store:
        for start in range(0, count, 256):
            rows = [(request, 0, done) for request in requests[start : start + 256]]
            store.put(rows, {"seconds": 1.0, "device_seconds": 1.0})

    def work() -> None:
        with Generator(GenerationStore(path, read_only=True), model, 0, None) as generator:
            generator.generate(requests)
        folder.cleanup()

    return work


def searching(count: int) -> Callable[[], Any]:
    """02: the approximate search, which takes over beyond `exact_rows`."""
    rows = vectors(count)
    return lambda: similarity.select_diverse(rows, THRESHOLD, exact_rows=0)


def surveying(count: int) -> Callable[[], Any]:
    """02: neighbours, released rule and diversity, approximate as well."""
    rows = vectors(count)

    def work() -> None:
        similarity.nearest_other(rows, exact_rows=0)
        similarity.select_released(rows, exact_rows=0)
        diversity.vendi_score(rows)
        diversity.principal_plane(rows)

    return work


def decontaminating(count: int) -> Callable[[], Any]:
    """02: the three signs against 350 items, and the damage of the released cleaner."""
    texts, encoder = problems(count)[0], Given(count)
    held_out = [load_benchmark("arithmetic")]

    def work() -> None:
        contamination.find_contamination(range(count), texts, held_out, encoder, closeness=THRESHOLD)
        protocols.damage_of_released_cleaner(texts)

    return work


def voting(count: int) -> Callable[[], Any]:
    """03: three paths each read and counted, and the tables written."""
    questions, written = paths(count)
    settings = vote_settings()
    return lambda: write(tables.vote_tables(questions, written, settings, SUMS))


def judging(count: int) -> Callable[[], Any]:
    """03 and 04: how good the labels are, by every table of the notebook, and the training pairs."""
    qa, path_table, _ = voted(count)

    def work() -> None:
        golds = tables.known_golds(qa, SUMS)
        labels.kept_by_threshold(qa)
        labels.agreement_by_group(qa, labels.length_groups(qa["question"]))
        labels.votes_needed(path_table, golds)
        labels.cost_of_released(path_table, golds)
        training._pairs_hash(training.training_pairs(qa, SUMS))

    return work


def drawing(count: int) -> Callable[[], Any]:
    """02 and 03: the figures that show every question, as pictures."""
    qa, _, _ = voted(count)
    chance = np.random.default_rng(1)
    places, cosines = chance.normal(size=(count, 2)), chance.random(count)
    texts = problems(count)[0]

    def work() -> None:
        drawn = [
            figures.nearest_similarity(cosines, cosines / 2, THRESHOLD),
            figures.pool_growth(cosines < 0.5),
            figures.pool_map(places, 0.2, [(i, i + 1) for i in range(0, count // 3, 2)]),
            figures.frequent_bars("Openings", diversity.count_openings(texts), count),
            figures.frequent_bars("Names", diversity.count_names(texts), count),
            figures.agreement_histogram(qa),
            figures.reliability(qa),
        ]
        for figure, _ in drawn:
            figure._repr_png_()

    return work


def answers(count: int) -> pd.DataFrame:
    """Return the table `scores` of two models that answered `count` items greedily."""
    questions, written = paths(count)
    rows = []
    for place, model in enumerate(("base", "tuned")):
        for item, (question, texts) in enumerate(zip(questions["question"], written, strict=True)):
            rows.append({"benchmark": "sums", "kind": "", "model": model, "shots": 0, "decoding": "greedy",
                         "item": item, "sample": 0, "seed": 1, "question": question, "form": "number",
                         "completion": texts[place], "answer": texts[place].split()[-1][:-1],
                         "truncated": False})  # fmt: skip
    return pd.DataFrame(rows)


def evaluating(count: int) -> Callable[[], Any]:
    """06: as many items scored for two models, compared, split into parts, classed."""
    scores = answers(count)
    golds = [synthetic.arithmetic_gold(question) or "" for question in scores["question"]]

    def work() -> None:
        verdicts = [score_answer(*pair) for pair in zip(scores["completion"], golds, strict=True)]
        table = scores.assign(gold=golds, **pd.DataFrame(verdicts))
        stats.compare_models(table, "base", "tuned", resamples=1_000)
        breakdown.gain_parts(table, "base", "tuned")
        breakdown.failure_counts(table)
        breakdown.flipped_items(table)
        breakdown.prompting_baselines(table)

    return work


def reporting(count: int) -> Callable[[], Any]:
    """The report of a run with as many questions and a benchmark of as many items."""
    folder = tempfile.TemporaryDirectory()
    run = Path(folder.name) / "run"
    qa, _, outvoted = voted(count)
    scores = answers(count)
    golds = [synthetic.arithmetic_gold(question) or "" for question in scores["question"]]
    verdicts = pd.DataFrame([score_answer(*pair) for pair in zip(scores["completion"], golds, strict=True)])
    scores = scores.assign(gold=golds, **verdicts)
    frames = {
        "elicit/rejected": outvoted.assign(text=outvoted["question"]), "vote/rejected": outvoted, "vote/qa": qa,
        "dedup/attempts": qa.assign(round=0, accepted=True), "evaluate/scores": scores,
        "evaluate/comparisons": stats.compare_models(scores, "base", "tuned", resamples=100),
        "evaluate/parts": breakdown.gain_parts(scores, "base", "tuned"),
    }  # fmt: skip
    for name, frame in frames.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(run / f"{name}.parquet", index=False)
    for stage in {name.split("/")[0] for name in frames}:
        runs.write_json(run / stage / "manifest.json", {"run": "run", "parameters": {}, **synthetic.NO_COST})

    def work() -> None:
        report.write_report([run], run / "report.html")
        folder.cleanup()

    return work


STEPS: dict[str, Callable[[int], Callable[[], Any]]] = {
    "growth, reading questions": reading,
    "growth, store": replaying,
    "growth, approximate dedup": searching,
    "growth, neighbours": surveying,
    "growth, contamination": decontaminating,
    "growth, vote": voting,
    "growth, labels": judging,
    "growth, figures": drawing,
    "growth, evaluation": evaluating,
    "growth, report": reporting,
}
ROWS = {name: (lambda scale, step=step: grown(step, scale)) for name, step in STEPS.items()}
