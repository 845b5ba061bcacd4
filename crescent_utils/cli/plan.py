"""Plan: what a run would ask for, what the store already holds of it, and how long the rest would take. Ours.

A probe of 20 requests, which are the run's own and stay in its store, gives the share of completions that become
questions, the length of completions and the engine's speed. Stages whose input does not exist yet are estimated from
these, and say so. The probe cannot tell how much faster many requests together are than its 16, so the time is a range:
no faster, and as much faster as the step from 2 to 16 requests promises.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """What one stage asks of one model; `exact`: its requests are known, else their number is estimated, at most."""

    stage: str
    model: str
    completions: int
    stored: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    least_seconds: float
    exact: bool


@dataclass
class Plan:
    """The rows of a plan, and what they rest on."""

    rows: list[Row]
    engine: str
    probe: str
    start_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Speed:
    """Seconds a token, as the probe took (`slow`) and as a full engine may take (`fast`), and seconds to start."""

    slow: float
    fast: float
    start: float


def estimate_run(values: dict[str, Any], stages: Sequence[str]) -> Plan:
    """Plan the run of the profile `values` over `stages`, after a probe of 20 requests at most."""
    settings = {stage: runs.build_settings(stage, runs.parameters_of(stage, values)) for stage in runs.STAGES}
    if settings["elicit"].engine == "replay":
        return Plan([], "replay", "engine: replay samples nothing")
    with generation.open_generator(settings["elicit"]) as generator:
        exact = _exact_samples(generator, settings, stages)
        speed, probed = _probe(generator, _in_turns([_missing(generator, samples) for samples in exact.values()]))
        tokens = {stage: _mean_tokens(generator, samples) for stage, samples in exact.items()}
        questions, notes = _question_share(generator, settings["elicit"], exact.get("elicit", []))
        rows = [_exact_row(generator, stage, samples, tokens[stage], speed) for stage, samples in exact.items()]
        engine = generator.engine_name
    rows += _estimated_rows(settings, stages, exact, questions, tokens, speed)
    rows.sort(key=lambda row: runs.STAGES.index(row.stage))
    probe = "nothing is missing that could be probed"
    if probed:
        probe = f"{len(probed)} completions, {fmean([each.tokens for each in probed]):.1f} tokens each"
    return Plan(rows, engine, probe, speed.start, notes)


def _exact_samples(
    generator: generation.Generator, settings: dict[str, Any], stages: Sequence[str]
) -> dict[str, Samples]:
    """Return what a stage asks of the base model, where that is known: the baits, votes on a finished pool, 06."""
    exact: dict[str, Samples] = {}
    if "elicit" in stages:
        baits = settings["elicit"]
        exact["elicit"] = elicit.bait_requests(generator, _bait_domain(baits), baits, 0, baits.elicit_samples)
    if "vote" in stages and runs.is_current("dedup", settings["dedup"]):
        pool = runs.read_table(runs.run_folder(settings["dedup"]), "dedup", "questions")
        exact["vote"] = _vote_samples(generator, settings["vote"], list(pool["question"]))
    if "evaluate" in stages and 0 in settings["evaluate"].shots:
        exact["evaluate"] = _evaluate_samples(generator, settings["evaluate"])
    return exact


def _bait_domain(settings: runs.Elicit) -> runs.Domain:
    return runs.get_domain(settings.domain, bait=settings.bait, bait_prefixes=settings.bait_prefixes)


def _vote_samples(generator: generation.Generator, settings: runs.Vote, questions: list[str]) -> Samples:
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    sampling = Sampling(settings.vote_temperature, settings.vote_top_p, settings.vote_max_tokens)
    chats = [runs.solve_messages(domain, question, settings.system_prompt) for question in questions]
    requests = [generator.request(chat, sampling) for chat in chats]
    return [(request, sample) for request in requests for sample in range(settings.votes)]


def _evaluate_samples(generator: generation.Generator, settings: runs.Evaluate) -> Samples:
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    samples: Samples = []
    for benchmark in _benchmarks(settings):
        for temperature, repeats in ((0.0, 1), (settings.eval_temperature, settings.eval_samples)):
            sampling = Sampling(temperature, 1.0, settings.eval_max_tokens)
            for item in benchmark.items:
                chat = runs.solve_messages(domain, item.question, settings.system_prompt)
                samples += [(generator.request(chat, sampling), number) for number in range(repeats)]
    return samples


def _benchmarks(settings: runs.Evaluate) -> list[benchmarks.Benchmark]:
    return [
        benchmarks.load_benchmark(
            name,
            folder=settings.benchmark_dir,
            split=settings.benchmark_split,
            items=settings.benchmark_items,
            seed=settings.benchmark_seed,
        )
        for name in settings.evaluate_on or runs.get_domain(settings.domain).benchmarks
    ]


def _missing(generator: generation.Generator, samples: Samples) -> Samples:
    stored = generator.stored(samples)
    return [sample for sample, completion in zip(samples, stored, strict=True) if completion is None]


def _in_turns(missing: Sequence[Samples]) -> Samples:
    """Return the probe: samples of each stage in turn, since stages ask and answer at different lengths."""
    turns = zip_longest(*(samples[: sum(PROBE)] for samples in missing))
    return [sample for turn in turns for sample in turn if sample is not None][: sum(PROBE)]


def _probe(generator: generation.Generator, samples: Samples) -> tuple[_Speed, list[Completion]]:
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
    return _Speed(seconds_per_token, seconds_per_token * gain, start), completions


def _gain_of_a_full_engine(steps: list[tuple[int, float]], sequences: int) -> float:
    """Return the time a token takes with `sequences` at a time, as a share of the last group's (linear growth)."""
    (few, few_seconds), (many, many_seconds) = steps[1:]
    full = max(many, sequences)
    one_more = max(0.0, (many_seconds - few_seconds) / (many - few))
    full_seconds = many_seconds + one_more * (full - many)
    return min(1.0, (full_seconds / full) / (many_seconds / many))


def _mean_tokens(generator: generation.Generator, samples: Samples) -> float:
    """Return the mean length of the stage's first stored completions, in tokens."""
    stored = generator.stored(samples[:LENGTHS])
    return fmean([completion.tokens for completion in stored if completion] or [0.0])


def _question_share(generator: generation.Generator, settings: runs.Elicit, baits: Samples) -> tuple[float, list[str]]:
    """Return the share of the baits' stored completions that are questions, with a note on its interval."""
    domain = _bait_domain(settings)
    gates = runs.validity_gates(domain)
    verdicts = []
    for (request, _), completion in zip(baits[:YIELDS], generator.stored(baits[:YIELDS]), strict=True):
        if completion is not None:
            verdicts.append(elicit.is_question(request.prefix + completion.text, gates, settings.protocol))
    if not verdicts:
        return 1.0, []
    questions, n = sum(verdicts), len(verdicts)
    interval = wilson(questions, n)
    percent = f"{100 * questions / n:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
    return questions / n, [f"{questions} of {n} completions were questions: {percent}"]


def _exact_row(generator: generation.Generator, stage: str, samples: Samples, tokens: float, speed: _Speed) -> Row:
    tokenizer = generation.load_tokenizer(generator.model.locate())
    prompts = {request: len(generation.prompt_token_ids(tokenizer, request)) for request, _ in samples}
    missing = len(_missing(generator, samples))
    return Row(
        stage,
        "base",
        completions=len(samples),
        stored=len(samples) - missing,
        prompt_tokens=sum(prompts[request] for request, _ in samples),
        completion_tokens=round(len(samples) * tokens),
        seconds=missing * tokens * speed.slow,
        least_seconds=missing * tokens * speed.fast,
        exact=True,
    )


def _estimated_rows(
    settings: dict[str, Any],
    stages: Sequence[str],
    exact: dict[str, Samples],
    questions: float,
    tokens: dict[str, float],
    speed: _Speed,
) -> list[Row]:
    """Return rows of what is not known exactly: at most so many completions, as long as those of a like stage."""
    typical = fmean(tokens.values()) if tokens else 0.0
    evaluated = tokens.get("evaluate", typical)
    lengths = {"dedup": tokens.get("elicit", typical), "vote": tokens.get("vote", evaluated), "evaluate": evaluated}
    most_questions = round(settings["elicit"].elicit_samples * questions)
    asked = [("dedup", "base", most_questions * settings["dedup"].max_rewrites)]
    if "vote" not in exact:
        asked.append(("vote", "base", _most_paths(settings["vote"], most_questions, lengths["vote"])))
    asked += [("evaluate", label, count) for label, count in _evaluation_counts(settings["evaluate"]).items()]
    rows = []
    for stage, label, count in asked:
        if stage in stages:
            stored = count if runs.is_current(stage, settings[stage]) else 0
            length = lengths[stage]
            seconds = (count - stored) * length * speed.slow
            least = (count - stored) * length * speed.fast
            rows.append(Row(stage, label, count, stored, 0, round(count * length), seconds, least, exact=False))
    return rows


def _most_paths(settings: runs.Vote, pool: int, length: float) -> int:
    """Return the most paths that a vote samples of its questions, within the token budget."""
    elsewhere = settings.question_items or vote.MOST_ARITHMETIC
    paths = settings.votes * (pool if settings.question_source == "pool" else elsewhere)
    budget = vote.token_budget(settings)
    if not budget or not length:
        return paths
    return min(paths, round(budget / length) + settings.votes)


def _evaluation_counts(settings: runs.Evaluate) -> dict[str, int]:
    """Return how many answers each model gives, without the base model's 0-shot answers: those are known exactly."""
    items = sum(len(benchmark.items) for benchmark in _benchmarks(settings))
    both_decodings = items * (1 + settings.eval_samples)
    with_shots = sum(shots > 0 for shots in settings.shots)
    counts = {"base, shots": both_decodings * with_shots} if with_shots else {}
    for label in (label for pair in method_pairs(settings) for label in pair if label != "base"):
        counts[label] = (both_decodings if label == "tuned" else items) * len(settings.shots)
    return counts


def plan_text(plan: Plan) -> str:
    """Return a plan as a table with what it rests on below."""
    if not plan.rows:
        return plan.probe
    layout = "{:<10}{:<16}{:>13}{:>10}{:>15}{:>12}{:>10}"
    lines = [layout.format("stage", "model", "completions", "in store", "prompt tokens", "new tokens", "time")]
    for row in plan.rows:
        about = "" if row.exact else "≤ "
        prompt_tokens = f"{row.prompt_tokens:,}" if row.exact else "?"
        counts = (f"{about}{row.completions:,}", f"{row.stored:,}", prompt_tokens, f"{row.completion_tokens:,}")
        lines.append(layout.format(row.stage, row.model, *counts, about + _duration(row.seconds)))
    starts = len({(row.stage, row.model) for row in plan.rows if row.stored < row.completions})
    most = sum(row.seconds for row in plan.rows) + starts * plan.start_seconds
    least = sum(row.least_seconds for row in plan.rows) + starts * plan.start_seconds
    return "\n".join([
        *lines,
        f"probe: {plan.probe}; engine {plan.engine} started in {plan.start_seconds:.0f} s",
        *plan.notes,
        f"sampling takes at most about {_duration(most)}, about {_duration(least)} if many requests together gain as "
        f"the probe's did; {starts} starts of the engine included; training is not estimated",
    ])  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
