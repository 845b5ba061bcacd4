"""Plan: what a run would ask for, what the store already holds of it, and how long the rest would take. Ours.

A probe of 20 requests, which are the run's own and stay in its store, gives the share of completions that become
questions, the length of completions and the engine's speed. Stages whose input does not exist yet are estimated from
these, and say so. The probe cannot tell how much faster many requests together are than its 16, so the time is a range:
no faster, and as much faster as the step from 2 to 16 requests promises.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Any

from .. import benchmarks, elicit, generation, runs, vote
from ..evaluate import method_pairs
from ..generation import Completion, Request, Sampling
from ..stats import wilson

PROBE = (2, 2, 16)  # completions at a time: to warm up, almost alone, and in company
SEQUENCES = {"vllm": 128, "transformers": 64}  # that work at a time: vLLM on CPU as we start it; our batches
LENGTHS = 400  # stored completions of a stage whose lengths are averaged
YIELDS = 1000  # stored completions of the baits that are read
Samples = list[tuple[Request, int]]  # requests with the number of the sample that is wanted


@dataclass(frozen=True)
class Row:
    """What one stage asks of one model: `completions` of `length` tokens, of which `stored` are in the store.

    Without `prompt_tokens` the requests are not known: their number is estimated, at most so many.
    """

    stage: str
    model: str
    completions: int
    stored: int
    length: float
    prompt_tokens: int | None = None

    @property
    def missing_tokens(self) -> float:
        """Return the tokens that are still to be sampled."""
        return (self.completions - self.stored) * self.length


@dataclass(frozen=True)
class Speed:
    """Seconds a token, as the probe took (`slow`) and as a full engine may take (`fast`), and seconds to start."""

    slow: float
    fast: float
    start: float


@dataclass(frozen=True)
class Plan:
    """The rows of a plan, and what they rest on: the engine's speed, and the probe in words, a line a fact."""

    rows: list[Row]
    speed: Speed
    probe: list[str]


def estimate_run(values: dict[str, Any], stages: Sequence[str]) -> Plan:
    """Plan the run of the profile `values` over `stages`, after a probe of 20 requests at most."""
    settings = {stage: runs.settings_from(stage, values) for stage in runs.STAGES}
    if settings["elicit"].engine == "replay":
        return Plan([], Speed(0, 0, 0), ["engine: replay samples nothing"])
    with generation.open_generator(settings["elicit"]) as generator:
        exact = _exact_samples(generator, settings, stages)
        speed, probed = _probe(generator, _in_turns([_missing(generator, samples) for samples in exact.values()]))
        rows = [_exact_row(generator, stage, samples) for stage, samples in exact.items()]
        question_share, note = _question_share(generator, settings["elicit"], exact.get("elicit", []))
        engine = generator.engine_name
    lengths = {row.stage: row.length for row in rows}
    rows += _estimated_rows(settings, stages, question_share, lengths)
    rows.sort(key=lambda row: runs.STAGES.index(row.stage))
    probe = "nothing is missing that could be probed"
    if probed:
        probe = f"{len(probed)} completions, {fmean([each.tokens for each in probed]):.1f} tokens each"
    return Plan(rows, speed, [f"probe: {probe}; engine {engine} started in {speed.start:.0f} s", *note])


def _exact_samples(
    generator: generation.Generator, settings: dict[str, Any], stages: Sequence[str]
) -> dict[str, Samples]:
    """Return what a stage asks of the base model, where that is known: the baits, votes on a finished pool, 06."""
    exact: dict[str, Samples] = {}
    if "elicit" in stages:
        baits = settings["elicit"]
        exact["elicit"] = elicit.bait_requests(generator, _bait_domain(baits), baits, 0, baits.elicit_samples)
    if "vote" in stages and runs.is_current("dedup", settings["dedup"]):
        votes = settings["vote"]
        pool = runs.read_table(runs.run_folder(votes), "dedup", "questions")
        sampling = Sampling(votes.vote_temperature, votes.vote_top_p, votes.vote_max_tokens)
        exact["vote"] = _solve_samples(generator, votes, pool["question"], sampling, votes.votes)
    if "evaluate" in stages and 0 in settings["evaluate"].shots:
        evaluation = settings["evaluate"]
        exact["evaluate"] = []
        for benchmark in _benchmarks(evaluation):
            questions = [item.question for item in benchmark.items]
            for temperature, repeats in ((0.0, 1), (evaluation.eval_temperature, evaluation.eval_samples)):
                sampling = Sampling(temperature, 1.0, evaluation.eval_max_tokens)
                exact["evaluate"] += _solve_samples(generator, evaluation, questions, sampling, repeats)
    return exact


def _bait_domain(settings: runs.Elicit) -> runs.Domain:
    return runs.get_domain(settings.domain, bait=settings.bait, bait_prefixes=settings.bait_prefixes)


def _solve_samples(
    generator: generation.Generator,
    settings: runs.Vote | runs.Evaluate,
    questions: Iterable[str],
    sampling: Sampling,
    repeats: int,
) -> Samples:
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    chats = [runs.solve_messages(domain, question, settings.system_prompt) for question in questions]
    requests = [generator.request(chat, sampling) for chat in chats]
    return [(request, sample) for request in requests for sample in range(repeats)]


def _benchmarks(settings: runs.Evaluate) -> list[benchmarks.Benchmark]:
    return benchmarks.load_evaluated(settings, runs.get_domain(settings.domain))


def _missing(generator: generation.Generator, samples: Samples) -> Samples:
    stored = generator.stored(samples)
    return [sample for sample, completion in zip(samples, stored, strict=True) if completion is None]


def _in_turns(missing: Sequence[Samples]) -> Samples:
    """Return the probe: samples of each stage in turn, since stages ask and answer at different lengths."""
    turns = zip_longest(*(samples[: sum(PROBE)] for samples in missing))
    return [sample for turn in turns for sample in turn if sample is not None][: sum(PROBE)]


def _probe(generator: generation.Generator, samples: Samples) -> tuple[Speed, list[Completion]]:
    """Sample the probe in its three groups; return the speed and the completions.

    The first group only warms up, the last gives the speed, and what it gains on the second one the hope of more.
    """
    completions: list[Completion] = []
    start = seconds_per_token = 0.0
    steps: list[tuple[int, float]] = []  # of each group: its size, seconds a step of the engine
    for size in PROBE:
        group = samples[len(completions) : len(completions) + size]
        if not group:
            break
        began = time.monotonic()
        answers = generator.complete(group)
        seconds = time.monotonic() - began
        start = start if completions else seconds
        tokens = [answer.tokens for answer in answers]
        steps.append((len(group), seconds / max(1, *tokens)))
        seconds_per_token = seconds / max(1, sum(tokens))
        completions += answers
    gain = _gain_of_a_full_engine(steps, SEQUENCES.get(generator.engine_name, 64)) if len(steps) == len(PROBE) else 1.0
    return Speed(seconds_per_token, seconds_per_token * gain, start), completions


def _gain_of_a_full_engine(steps: list[tuple[int, float]], sequences: int) -> float:
    """Return the time a token takes with `sequences` at a time, as a share of the last group's (linear growth)."""
    (few, few_seconds), (many, many_seconds) = steps[1:]
    full = max(many, sequences)
    one_more = max(0.0, (many_seconds - few_seconds) / (many - few))
    full_seconds = many_seconds + one_more * (full - many)
    return min(1.0, (full_seconds / full) / (many_seconds / many))


def _question_share(generator: generation.Generator, settings: runs.Elicit, baits: Samples) -> tuple[float, list[str]]:
    """Return the share of the baits' stored completions that are questions, with a note on its interval."""
    gates = runs.validity_gates(_bait_domain(settings))
    verdicts = [
        elicit.is_question(request.prefix + completion.text, gates, settings.protocol)
        for (request, _), completion in zip(baits[:YIELDS], generator.stored(baits[:YIELDS]), strict=True)
        if completion is not None
    ]
    if not verdicts:
        return 1.0, []
    share = wilson(sum(verdicts), len(verdicts))
    percent = f"{100 * share.estimate:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"
    return share.estimate, [f"{sum(verdicts)} of {share.n} completions were questions: {percent}"]


def _exact_row(generator: generation.Generator, stage: str, samples: Samples) -> Row:
    """Return the row of known samples; the first stored ones tell their length."""
    tokenizer = generation.load_tokenizer(generator.model.locate())
    prompts = {request: len(generation.prompt_token_ids(tokenizer, request)) for request, _ in samples}
    length = fmean([completion.tokens for completion in generator.stored(samples[:LENGTHS]) if completion] or [0.0])
    stored = len(samples) - len(_missing(generator, samples))
    return Row(stage, "base", len(samples), stored, length, sum(prompts[request] for request, _ in samples))


def _estimated_rows(
    settings: dict[str, Any], stages: Sequence[str], question_share: float, lengths: dict[str, float]
) -> list[Row]:
    """Return rows of what is not known exactly: at most so many completions, as long as those of a like stage.

    `lengths` are those of the stages that are known.
    """
    typical = fmean(lengths.values()) if lengths else 0.0
    evaluated = lengths.get("evaluate", typical)
    dedup_length, vote_length = lengths.get("elicit", typical), lengths.get("vote", evaluated)
    most_questions = round(settings["elicit"].elicit_samples * question_share)
    asked = [("dedup", "base", most_questions * settings["dedup"].max_rewrites, dedup_length)]
    if "vote" not in lengths:
        asked.append(("vote", "base", _most_paths(settings["vote"], most_questions, vote_length), vote_length))
    asked += [("evaluate", label, count, evaluated) for label, count in _evaluation_counts(settings["evaluate"])]
    return [
        Row(stage, label, count, count if runs.is_current(stage, settings[stage]) else 0, length)
        for stage, label, count, length in asked
        if stage in stages
    ]


def _most_paths(settings: runs.Vote, pool: int, length: float) -> int:
    """Return the most paths that a vote samples of its questions, within the token budget."""
    elsewhere = settings.question_items or vote.MOST_ARITHMETIC
    paths = settings.votes * (pool if settings.question_source == "pool" else elsewhere)
    budget = vote.token_budget(settings)
    if not budget or not length:
        return paths
    return min(paths, round(budget / length) + settings.votes)


def _evaluation_counts(settings: runs.Evaluate) -> Iterator[tuple[str, int]]:
    """Yield how many answers each model gives, without the base model's 0-shot answers: those are known exactly."""
    items = sum(len(benchmark.items) for benchmark in _benchmarks(settings))
    both_decodings = items * (1 + settings.eval_samples)
    if with_shots := sum(shots > 0 for shots in settings.shots):
        yield "base, shots", both_decodings * with_shots
    for label in dict.fromkeys(label for pair in method_pairs(settings) for label in pair if label != "base"):
        yield label, (both_decodings if label == "tuned" else items) * len(settings.shots)


def plan_text(plan: Plan) -> str:
    """Return a plan as a table with what it rests on below."""
    if not plan.rows:
        return "\n".join(plan.probe)
    layout = "{:<10}{:<16}{:>13}{:>10}{:>15}{:>12}{:>10}"
    lines = [layout.format("stage", "model", "completions", "in store", "prompt tokens", "new tokens", "time")]
    for row in plan.rows:
        about, prompt_tokens = ("≤ ", "?") if row.prompt_tokens is None else ("", f"{row.prompt_tokens:,}")
        counts = (f"{about}{row.completions:,}", f"{row.stored:,}", prompt_tokens)
        tokens = f"{round(row.completions * row.length):,}"
        time_taken = about + _duration(row.missing_tokens * plan.speed.slow)
        lines.append(layout.format(row.stage, row.model, *counts, tokens, time_taken))
    missing_tokens = sum(row.missing_tokens for row in plan.rows)
    starts = len({(row.stage, row.model) for row in plan.rows if row.stored < row.completions})
    most, least = (missing_tokens * pace + starts * plan.speed.start for pace in (plan.speed.slow, plan.speed.fast))
    summary = (
        f"sampling takes at most about {_duration(most)}, about {_duration(least)} if many requests together gain as "
        f"the probe's did; {starts} starts of the engine included; training is not estimated"
    )
    return "\n".join([*lines, *plan.probe, summary])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
