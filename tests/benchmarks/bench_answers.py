"""Final answers: reading and voting over Math-Verify, scoring over lm-evaluation-harness's own filters."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

from measure import Row, compare, reference

from crescent_utils.answers import equality, reading
from crescent_utils.answers.normal_form import _cached_form
from crescent_utils.benchmarks import scoring
from crescent_utils.runs import params
from crescent_utils.vote import majority

VOTES = 8
GSM8K = Path(os.environ.get("CRESCENT_BENCHMARK_DIR") or params.ROOT.parent / "shared" / "data") / "gsm8k_train.jsonl"
ENDINGS = (
    "{s}\n#### {g}",
    "{s}\n\nThe answer is {g}.",
    "{s}\n\n**Final Answer:** ${g}",
    "{s}",
    "{s} So \\boxed{{{g}}}",
)
REGEXES = ((r"#### (\-?[0-9\.\,]+)", 0), (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1))  # the harness's strict and flexible
IGNORED = [",", "\\$", "(?s).*#### ", "\\.$"]


def material() -> list[str]:
    """The reference's paths, and GSM8K's solutions in the endings of several models where the file is there."""
    texts = reference("vote", "paths", "path")
    if GSM8K.exists():
        for number, line in enumerate(GSM8K.read_text(encoding="utf-8").splitlines()):
            solution, _, gold = json.loads(line)["answer"].rpartition("####")
            texts.append(ENDINGS[number % len(ENDINGS)].format(s=solution.strip(), g=gold.strip()))
    random.Random(0).shuffle(texts)
    return texts


def batches(texts: list[str], count: int) -> Iterator[list[str]]:
    """Yield lists of `count` texts; each repetition turns their digits, so that none stands twice."""
    place = 0
    while True:
        shift = place // len(texts)
        digits = "".join(str((digit * (1 + 2 * (shift % 5)) + shift + 1) % 10) for digit in range(10))
        table = str.maketrans("0123456789", digits)
        yield [texts[i % len(texts)].translate(table) for i in range(place, place + count)]
        place += count


def over(batches: Iterator[list], work: Callable[[list], object]) -> Callable[[], tuple[int, float]]:
    """Return `work` on the next batch at each call, without what normal forms remember of the last one."""
    work(next(batches))  # to warm up

    def step() -> tuple[int, float]:
        _cached_form.cache_clear()
        batch = next(batches)
        began = time.perf_counter()
        work(batch)
        return len(batch), time.perf_counter() - began

    return step


def answers(scale: float) -> Row:
    """Verdicts: is the answer 42?"""
    from math_verify import parse, verify

    gold = parse("42")

    def judge(batch: list[str]) -> None:
        for text in batch:
            answer = reading.extract_answer(text)
            answer is not None and equality.answers_equal(answer, "42")

    def plain(batch: list[str]) -> None:
        for text in batch:
            verify(gold, parse(text))

    texts, count = material(), round(500 * scale)
    row = compare("Math-Verify", "verdicts/s", *[over(batches(texts, count), way) for way in (judge, plain)])
    return replace(row, note="" if GSM8K.exists() else "short texts alone: gsm8k_train.jsonl is not here")


def voting(scale: float) -> Row:
    """The vote on eight paths of each question, reading included, answers grouped by their value."""
    from math_verify import parse, verify

    def ballots(batch: list[str]) -> list[list[str]]:
        return [batch[i : i + VOTES] for i in range(0, len(batch), VOTES)]

    def vote(batch: list[str]) -> None:
        for paths in ballots(batch):
            majority.majority_vote([reading.extract_answer(path) for path in paths], 0.5)

    def plain(batch: list[str]) -> None:
        for paths in ballots(batch):
            groups: list[list] = []
            for answer in (parse(path) for path in paths):
                same = next((group for group in groups if verify(group[0], answer)), None)
                groups.append([answer]) if same is None else same.append(answer)
            max(groups, key=len)

    paths, count = reference("vote", "paths", "path"), round(60 * scale) * VOTES
    ways = [over(batches(paths, count), way) for way in (vote, plain)]
    return compare("Math-Verify, compared with each group", "paths/s", *ways)


def score(scale: float) -> Row:
    """Verdicts on recorded completions: ours in three ways, the harness's strict-match and flexible-extract."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    completions, golds = (reference("evaluate", "scores", column) for column in ("completion", "gold"))
    pairs = list(zip(completions, golds, strict=True))
    random.Random(0).shuffle(pairs)
    filters = [RegexFilter(*regex) for regex in REGEXES]

    def plain(batch: list[tuple[str, str]]) -> None:
        for completion, gold in batch:
            for extract in filters:
                answer = next(iter(extract.apply([[completion]], [{}])))[0]
                exact_match_hf_evaluate([answer], [gold], regexes_to_ignore=IGNORED, ignore_case=True)

    def ours(batch: list[tuple[str, str]]) -> None:
        for pair in batch:
            scoring.score_answer(*pair)

    ways = [over(repeat(pairs[: round(4_000 * scale)]), way) for way in (ours, plain)]
    return compare("lm-evaluation-harness", "answers/s", *ways)


ROWS = {"answers": answers, "voting": voting, "scoring": score}
