"""Plan: what a run would ask for, what the store already holds of it, and how long the rest would take. Ours.

A probe of 20 requests, which are the run's own and stay in its store, gives the yield of elicitation, the length of completions and
the engine's speed; stages whose input does not exist yet are estimated from these, and say so. How much faster many requests
together are than the probe's 16 it cannot tell, so the time is given as a range: no faster, and as much faster as the step from
2 to 16 requests promises.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
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
Pairs = list[tuple[Request, int]]


@dataclass(frozen=True)
class Row:
    """What one stage asks of one model. `known` says whether its requests are known exactly or estimated from the probe."""

    stage: str
    model: str
    completions: int
    stored: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    at_least: float
    known: bool


@dataclass
class Plan:
    """The rows of a plan, and what they rest on."""

    rows: list[Row]
    engine: str
    probe: str
    start_seconds: float
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Speed:
    """Seconds a token: `slow` as 16 requests together were, `fast` as a full engine would be if a step grew on as from 2 to 16."""

    slow: float
    fast: float
    start: float
    engine: str


def estimate_run(values: dict[str, Any], stages: Sequence[str]) -> Plan:
    """Plan the run of the profile `values` over `stages`, after a probe of 20 requests (fewer where fewer are missing)."""
    own = {stage: runs.build_settings(stage, runs.parameters_of(stage, values)) for stage in runs.STAGES}
    settings = own["elicit"]
    if settings.engine == "replay":
        return Plan([], "replay", "engine: replay samples nothing", 0.0)
    with generation.open_generator(settings) as generator:
        known = _known_pairs(generator, own, stages)
        speed, completions = _probe(generator, _mixed([_missing(generator, pairs) for pairs in known.values()]))
        tokens = {stage: _length(generator, pairs) for (stage, _), pairs in known.items()}
        accepted, note = _yield(generator, own["elicit"], known)
        base = generation.load_tokenizer(generator.model.locate())
        rows = []
        for (stage, label), pairs in known.items():
            lengths = {request: len(generation.prompt_token_ids(base, request)) for request, _ in pairs}
            left = len(_missing(generator, pairs))
            new = left * tokens[stage]
            rows.append(Row(stage, label, len(pairs), len(pairs) - left, sum(lengths[r] for r, _ in pairs),
                            round(len(pairs) * tokens[stage]), new * speed.slow, new * speed.fast, True))  # fmt: skip
        rows += _guessed(own, stages, known.keys(), accepted, tokens, speed)
    rows.sort(key=lambda row: runs.STAGES.index(row.stage))
    probed = (
        f"{len(completions)} completions, {fmean([c.tokens for c in completions]):.1f} tokens each"
        if completions
        else "nothing is missing that could be probed"
    )
    return Plan(rows, speed.engine, probed, speed.start, note)


def _known_pairs(
    generator: generation.Generator, own: dict[str, Any], stages: Sequence[str]
) -> dict[tuple[str, str], Pairs]:
    """Requests that are known already: the baits, the votes once the questions are there, the base model's evaluation."""
    known: dict[tuple[str, str], Pairs] = {}
    folder = runs.run_folder(own["elicit"])
    if "elicit" in stages:
        known["elicit", "base"] = elicit.bait_requests(
            generator, _domain(own["elicit"]), own["elicit"], 0, own["elicit"].elicit_samples
        )
    if "vote" in stages and runs.is_current("dedup", own["dedup"]):
        texts = runs.read_table(folder, "dedup", "questions")["question"]
        known["vote", "base"] = _vote_pairs(generator, own["vote"], list(texts))
    if "evaluate" in stages and 0 in own["evaluate"].shots:
        known["evaluate", "base"] = _evaluate_pairs(generator, own["evaluate"])
    return known


def _domain(settings: runs.Elicit) -> runs.Domain:
    return runs.get_domain(settings.domain, bait=settings.bait, bait_prefixes=settings.bait_prefixes)


def _vote_pairs(generator: generation.Generator, settings: runs.Vote, texts: list[str]) -> Pairs:
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    sampling = Sampling(settings.vote_temperature, settings.vote_top_p, settings.vote_max_tokens)
    asked = [generator.request(runs.solve_messages(domain, text, settings.system_prompt), sampling) for text in texts]
    return [(request, sample) for request in asked for sample in range(settings.votes)]


def _evaluate_pairs(generator: generation.Generator, settings: runs.Evaluate) -> Pairs:
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    pairs: Pairs = []
    for name in settings.evaluate_on or domain.benchmarks:
        held = _load(name, settings)
        for temperature, repeats in ((0.0, 1), (settings.eval_temperature, settings.eval_samples)):
            sampling = Sampling(temperature, 1.0, settings.eval_max_tokens)
            for item in held.items:
                messages = runs.solve_messages(domain, item.question, settings.system_prompt)
                pairs += [(generator.request(messages, sampling), sample) for sample in range(repeats)]
    return pairs


def _missing(generator: generation.Generator, pairs: Pairs) -> Pairs:
    return [pair for pair, done in zip(pairs, generator.stored(pairs), strict=True) if done is None]


def _mixed(missing: Sequence[Pairs]) -> Pairs:
    """Return the probe: requests of each stage in turn, since stages ask and answer at different lengths."""
    turns = zip_longest(*(pairs[: sum(PROBE)] for pairs in missing))
    return [pair for turn in turns for pair in turn if pair is not None][: sum(PROBE)]


def _length(generator: generation.Generator, pairs: Pairs) -> float:
    """Mean tokens of those of the first 400 completions that are there."""
    return fmean([completion.tokens for completion in generator.stored(pairs[:400]) if completion] or [0.0])


def _probe(generator: generation.Generator, pairs: Pairs) -> tuple[_Speed, list[Completion]]:
    """Sample the pairs in groups: the first only warms up, the last gives the speed, and what it gains on the second the hope of more."""
    done: list[Completion] = []
    steps: list[tuple[int, float]] = []
    start, each, at = 0.0, 0.0, 0
    for size in PROBE:
        group, at = pairs[at : at + size], at + size
        if not group:
            break
        began = time.monotonic()
        made = generator.complete(group)
        spent = time.monotonic() - began
        if not done:
            start = spent
        steps.append((len(group), spent / max(1, *(c.tokens for c in made))))
        each = spent / max(1, sum(c.tokens for c in made))
        done += made
    name = generator.engine_name
    if len(steps) < len(PROBE):
        return _Speed(each, each, start, name), done
    (few, alone), (many, company) = steps[1], steps[2]
    one_more = max(0.0, (company - alone) / (many - few))
    together = max(many, SEQUENCES.get(name, 64))
    gain = (company + one_more * (together - many)) / together / (company / many)
    return _Speed(each, each * min(1.0, gain), start, name), done


def _yield(
    generator: generation.Generator, settings: runs.Elicit, known: dict[tuple[str, str], Pairs]
) -> tuple[float, list[str]]:
    """Share of the baits' stored completions that are questions, with a note on its interval."""
    domain = _domain(settings)
    pairs = known.get(("elicit", "base"), [])[: max(sum(PROBE), 1000)]
    seen = [(r, c) for (r, _), c in zip(pairs, generator.stored(pairs), strict=True) if c is not None]
    gates = runs.validity_gates(domain)
    good = sum(elicit.is_question(r.prefix + c.text, gates, settings.protocol) for r, c in seen)
    if not seen:
        return 1.0, []
    sure = wilson(good, len(seen))
    share = good / len(seen)
    return share, [
        f"{good} of {len(seen)} completions were questions: {100 * share:.0f} % [{100 * sure.low:.0f}, {100 * sure.high:.0f}]"
    ]


def _guessed(
    own: dict[str, Any],
    stages: Sequence[str],
    known: Container[tuple[str, str]],
    accepted: float,
    tokens: dict[str, float],
    speed: _Speed,
) -> list[Row]:
    """Rows of stages whose requests are not known yet: at most so many. A vote's answers are taken to be as long as an evaluation's."""
    asked = round(own["elicit"].elicit_samples * accepted)
    domain = runs.get_domain(own["elicit"].domain)
    evaluate = own["evaluate"]
    items = sum(len(_load(name, evaluate).items) for name in evaluate.evaluate_on or domain.benchmarks)
    whole = fmean(tokens.values()) if tokens else 0.0
    as_long = {"dedup": tokens.get("elicit", whole), "vote": tokens.get("vote", tokens.get("evaluate", whole)),
               "evaluate": tokens.get("evaluate", whole)}  # fmt: skip
    more = [
        ("dedup", "base", asked * own["dedup"].max_rewrites),
        ("vote", "base", _votes(own["vote"], asked, as_long["vote"])),
    ]
    with_shots = sum(count > 0 for count in evaluate.shots)
    if with_shots:
        more.append(("evaluate", "base, shots", items * with_shots * (1 + evaluate.eval_samples)))
    labels = [label for pair in method_pairs(evaluate) for label in pair if label != "base"]
    each = items * len(evaluate.shots)
    more += [("evaluate", label, each * (1 + evaluate.eval_samples * (label == "tuned"))) for label in labels]
    rows = []
    for stage, label, count in more:
        if stage not in stages or (stage, label) in known:
            continue
        done = runs.is_current(stage, own[stage])
        new = 0.0 if done else count * as_long[stage]
        rows.append(Row(stage, label, count, count if done else 0, 0, round(count * as_long[stage]),
                        new * speed.slow, new * speed.fast, False))  # fmt: skip
    return rows


def _votes(settings: runs.Vote, pool: int, length: float) -> int:
    """Paths that a vote samples at most: of a pool of so many questions or of another source, within the token budget."""
    elsewhere = settings.question_items or vote.MOST_ARITHMETIC
    paths = settings.votes * (pool if settings.question_source == "pool" else elsewhere)
    budget = vote.token_budget(settings)
    return min(paths, round(budget / length) + settings.votes) if budget and length else paths


def _load(name: str, settings: runs.Evaluate) -> benchmarks.Benchmark:
    return benchmarks.load_benchmark(name, folder=settings.benchmark_dir, split=settings.benchmark_split, items=settings.benchmark_items,
                           seed=settings.benchmark_seed)  # fmt: skip


def plan_text(plan: Plan) -> str:
    """Word a plan as a table."""
    if not plan.rows:
        return plan.probe
    lines = [
        f"{'stage':<10}{'model':<16}{'completions':>13}{'in store':>10}{'prompt tokens':>15}{'new tokens':>12}{'time':>10}"
    ]
    for row in plan.rows:
        about = "" if row.known else "≤ "
        prompt = f"{row.prompt_tokens:,}" if row.known else "?"
        lines.append(f"{row.stage:<10}{row.model:<16}{about + format(row.completions, ','):>13}{row.stored:>10,}{prompt:>15}"
                     f"{row.completion_tokens:>12,}{about + _duration(row.seconds):>10}")  # fmt: skip
    starts = len({(row.stage, row.model) for row in plan.rows if row.stored < row.completions})
    most, least = (sum(times) + starts * plan.start_seconds for times in
                   ([row.seconds for row in plan.rows], [row.at_least for row in plan.rows]))  # fmt: skip
    starting = f"{starts} starts of the engine included; training is not estimated"
    lines += [
        f"probe: {plan.probe}; engine {plan.engine} started in {plan.start_seconds:.0f} s",
        *plan.notes,
        f"sampling takes at most about {_duration(most)}, about {_duration(least)} if many requests together gain as the probe's did; "
        + starting,
    ]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
