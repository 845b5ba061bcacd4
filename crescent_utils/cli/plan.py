"""Plan: what a run would ask for, what the store already holds of it, and how long the rest would take. Ours.

A probe gives the pace of each stage whose requests are known; its completions are the run's own and stay in its store.
What the engine writes on standard error meanwhile stands in the run's plan.log. `forecast` says what the other stages
ask for and take.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from .. import benchmarks, elicit, evaluate, generation, runs, vote
from ..generation import Request, Sampling
from ..stats import wilson
from . import forecast
from .forecast import Pace, Row
from .kernel import errors_to

WARM_UP = 2  # completions; the engine starts with the first ones
GROUPS = 32, 64, 128, 256  # completions of a stage that are probed at a time, until a group took so long:
LONG_ENOUGH = 8.0  # seconds
# Parameters that say with what is sampled and how fast; the model stands in the requests.
ENGINE = ("engine", "dtype", "max_model_len", "engine_args", "base_urls", "served_names", "concurrency")
LOG = "plan.log"  # in the run's folder
Samples = list[tuple[Request, int]]  # requests with the number of the sample that is wanted


@dataclass(frozen=True)
class Plan:
    """The rows of a plan, the seconds of starts, imports and the notebooks' other work, and what it all rests on.

    `idle` is the line among the facts that says that the times are those of an idle machine; "" where they were probed.
    """

    rows: list[Row]
    beside: float
    facts: list[str]
    idle: str = ""

    @property
    def seconds(self) -> float:
        """Return the time of the whole run, without what is unknown."""
        return self.beside + sum(row.seconds or 0.0 for row in self.rows)


@dataclass
class Probes:
    """What was measured so far, for further runs that ask alike: paces, and names and starts (seconds) of engines.

    A pace is known by its engine and requests, whatever their seed: so by the model, all prompts and all lengths.
    """

    paces: dict[Hashable, Pace] = field(default_factory=dict)
    engines: dict[Hashable, tuple[str, float]] = field(default_factory=dict)


def estimate_run(values: dict[str, Any], stages: Sequence[str], probes: Probes | None = None) -> Plan:
    """Plan the run of the profile `values` over `stages`, after a probe of some hundred requests.

    What `probes` tell is not measured again; what is measured is added to them.
    """
    settings = {stage: runs.settings_from(stage, values) for stage in runs.STAGES}
    if settings["elicit"].engine == "replay":
        return Plan([], 0.0, ["engine: replay samples nothing"])
    with errors_to(runs.run_folder(settings["elicit"]) / LOG):
        return _estimate(settings, stages, probes or Probes())


def _estimate(settings: dict[str, Any], stages: Sequence[str], probes: Probes) -> Plan:
    with generation.open_generator(settings["elicit"]) as generator:
        due = due_stages(settings, stages)
        known = _known_samples(generator, settings, stages, due)
        paces, engine, start, facts = _probe(generator, known, settings["elicit"], probes)
        recorded = forecast.find_recorded(settings)
        busy = _note_on_a_busy_machine()
        paces, idle = forecast.idle_paces(paces, engine, recorded, is_busy=bool(busy))
        if idle:
            start, busy = min(start, forecast.FIRST_START), idle
        rows = [_known_row(generator, stage, samples, paces.get(stage)) for stage, samples in known.items()]
        if settings["elicit"].elicit_until or settings["elicit"].elicit_min_yield:  # 01 may stop before
            rows = [replace(row, about="≤ ") if row.stage == "elicit" else row for row in rows]
        questions, fact = _expected_questions(generator, settings, known.get("elicit", []), "elicit" in due)
    later_rows, facts_of_record = forecast.estimated_rows(settings, due, known, questions, paces, engine, recorded)
    rows = [row for row in rows + later_rows if row.stage in stages]
    rows.sort(key=lambda row: runs.STAGES.index(row.stage))
    unplanned = ["general_tasks are not estimated"] if settings["evaluate"].general_tasks else []
    facts += [*fact, *facts_of_record, *unplanned, *busy]
    return Plan(rows, forecast.seconds_beside(rows, due, engine, start), facts, "".join(idle))


def due_stages(settings: dict[str, Any], stages: Sequence[str]) -> list[str]:
    """Return those of `stages` that would run: they are not current, or one before them would run."""
    due: list[str] = []
    for stage in stages:
        above = runs.stages_before(stage, settings[stage])
        if set(above) & set(due) or not runs.is_current(stage, settings[stage]):
            due.append(stage)
    return due


# --- what is known, and the probe ---------------------------------------------------------------------


def _known_samples(
    generator: generation.Generator, settings: dict[str, Any], stages: Sequence[str], due: Sequence[str]
) -> dict[str, Samples]:
    """Return what a stage asks of the base model, where that is known: the baits, votes on a finished pool, 06.

    The baits of a finished 01 are among them, since their pace is that of the rewrites.
    """
    known: dict[str, Samples] = {}
    if {"elicit", "dedup"} & set(stages):
        baits = settings["elicit"]
        known["elicit"] = elicit.bait_requests(generator, _bait_domain(baits), baits, 0, baits.elicit_samples)
    votes = settings["vote"]
    is_pool_known = "dedup" not in due and votes.question_source == "pool"
    if "vote" in stages and is_pool_known and votes.vote_shots != "own" and not vote.token_budget(votes):
        pool = runs.read_table(runs.run_folder(votes), "dedup", "questions")
        sampling = Sampling(votes.vote_temperature, votes.vote_top_p, votes.vote_max_tokens)
        exemplars = vote.recorded_exemplars(votes, runs.get_domain(votes.domain), runs.run_folder(votes))
        known["vote"] = _solve_samples(generator, votes, pool["question"], sampling, votes.votes, exemplars)
    if "evaluate" in stages and (answers := _asked_samples(generator, settings["evaluate"])):
        known["evaluate"] = answers
    return known


def _bait_domain(settings: runs.Elicit) -> runs.Domain:
    return runs.get_domain(settings.domain, bait=settings.bait, bait_prefixes=settings.bait_prefixes)


def _solve_samples(
    generator: generation.Generator,
    settings: runs.Vote | runs.Evaluate,
    questions: Iterable[str],
    sampling: Sampling,
    repeats: int,
    exemplars: Sequence[runs.Exemplar] = (),
) -> Samples:
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    chats = [runs.solve_messages(domain, question, settings.system_prompt, exemplars) for question in questions]
    requests = [generator.request(chat, sampling) for chat in chats]
    return [(request, sample) for request in requests for sample in range(repeats)]


def _asked_samples(generator: generation.Generator, settings: runs.Evaluate) -> Samples:
    """Return what the base is asked without a benchmark's examples: the tested items, and those to choose on.

    Not with its own exemplars, which may not be made yet. What is asked twice is counted once.
    """
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    headline, *others = settings.eval_prompts
    conditions: list[tuple[str, float, int]] = [(prompt, 0.0, 1) for prompt in others]
    if 0 in settings.shots:
        conditions += [(headline, 0.0, 1), (headline, settings.eval_temperature, settings.eval_samples)]
    conditions = [condition for condition in conditions if condition[0] != "own"]
    asked_of = [(benchmark, conditions) for benchmark in benchmarks.load_evaluated(settings, domain)]
    to_choose = evaluate.development_conditions(settings, domain, "base")
    to_choose = [condition for condition in to_choose if condition[0] != "own"]
    if to_choose:
        development = benchmarks.load_development(settings, domain, evaluate.DEVELOPMENT_ITEMS)
        asked_of += [(benchmark, to_choose) for benchmark in development]
    samples: Samples = []
    for benchmark, ways in asked_of:
        for prompt, temperature, repeats in ways:
            asked = evaluate.asked_with(prompt, benchmark, settings, domain)
            requests = [asked.request(generator, item.question, settings, temperature) for item in benchmark.items]
            samples += [(request, sample) for request in requests for sample in range(repeats)]
    return list(dict.fromkeys(samples))


def _missing(generator: generation.Generator, samples: Samples) -> Samples:
    stored = generator.stored(samples)
    return [sample for sample, completion in zip(samples, stored, strict=True) if completion is None]


def _probe(
    generator: generation.Generator, known: dict[str, Samples], settings: runs.Common, probes: Probes
) -> tuple[dict[str, Pace], str, float, list[str]]:
    """Sample some of what each stage lacks; return the paces, the engine, the seconds of its start, and facts."""
    engine = generator.model.fingerprint, repr([getattr(settings, name) for name in ENGINE])
    keys = {stage: (engine, frozenset(map(_without_seed, samples))) for stage, samples in known.items()}
    missing = {stage: _missing(generator, samples) for stage, samples in known.items()}
    if measured := [stage for stage in known if missing[stage] and keys[stage] not in probes.paces]:
        print(f"measuring how fast {settings.model} samples for {', '.join(measured)}: {settings.run}", flush=True)
    paces: dict[str, Pace] = {}
    start, facts = 0.0, []
    for stage, samples in known.items():
        pace = probes.paces.get(keys[stage])
        what = "probed before"
        if pace is None:
            random.Random(0).shuffle(missing[stage])  # the first ones are those of one kind
            if missing[stage]:
                first_seconds = _seconds_of(generator, missing[stage][:WARM_UP])
                start = start or first_seconds
            groups = _timed_groups(generator, missing[stage][WARM_UP:])
            pace = _pace(generator, samples, groups)
            what = f"probe of {sum(size for size, _ in groups)}" if groups else "as its store says"
        if pace:
            paces[stage] = probes.paces[keys[stage]] = pace
            facts += _note_on_long_prompts(generator, stage, samples, settings)
            facts.append(f"{stage}: {what}, {1000 * pace.each:.1f} ms and {pace.length:.1f} tokens a completion")
    if start:
        probes.engines[engine] = generator.engine_name, start
    return paces, *probes.engines.get(engine, (generator.engine_name, start)), facts


def _note_on_long_prompts(
    generator: generation.Generator, stage: str, samples: Samples, settings: runs.Common
) -> list[str]:
    """Return a line where prompts were too long to be asked: the generator's own warning is in the log."""
    number = sum(done.finish == generation.TOO_LONG for done in generator.stored(samples) if done)
    if not number:
        return []
    return [
        f"{stage}: {number} prompts of the probe did not fit into max_model_len {settings.max_model_len}: raise it, or "
        "lower the stage's max_tokens"
    ]


def _without_seed(sample: tuple[Request, int]) -> Request:
    request, _ = sample
    return replace(request, sampling=replace(request.sampling, seed=0))


def _seconds_of(generator: generation.Generator, samples: Samples) -> float:
    began = time.monotonic()
    generator.complete(samples)
    return time.monotonic() - began


def _timed_groups(generator: generation.Generator, missing: Samples) -> list[tuple[int, float]]:
    """Return the size and the seconds of ever larger groups, which are sampled until one took long enough.

    A first group that takes so long by itself may have waited for what an engine does once, as compiling: it only warms
    up, and another one is timed.
    """
    groups = _growing_groups(generator, missing)
    if len(groups) == 1 and groups[0][1] >= LONG_ENOUGH:
        return _growing_groups(generator, missing[groups[0][0] :]) or groups
    return groups


def _growing_groups(generator: generation.Generator, missing: Samples) -> list[tuple[int, float]]:
    groups: list[tuple[int, float]] = []
    for size in GROUPS:
        group, missing = missing[:size], missing[size:]
        if not group:
            break
        groups.append((len(group), _seconds_of(generator, group)))
        if groups[-1][1] >= LONG_ENOUGH:
            break
    return groups


def _pace(generator: generation.Generator, samples: Samples, groups: list[tuple[int, float]]) -> Pace | None:
    """Return the pace of a stage from its probe, or, where nothing was missing, from what its store says it took."""
    done = [sample for sample, completion in zip(samples, generator.stored(samples), strict=True) if completion]
    if not done:
        return None
    before = generator.cost.seconds
    length = fmean([completion.tokens for completion in generator.complete(done)])
    if groups:
        return forecast.fitted_pace(groups, length)
    seconds = (generator.cost.seconds - before) / len(done)
    return Pace(seconds, 0.0, length) if seconds else None


def _note_on_a_busy_machine() -> list[str]:
    """Return a line where more wants to run than the machine has processors for: the probe's pace is that of now."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load <= processors + 1:  # the probe itself keeps all of them busy
        return []
    return [
        f"other programs were at work during the probe (load {load:.1f} on {processors} processors): idle is faster"
    ]


def _known_row(generator: generation.Generator, stage: str, samples: Samples, pace: Pace | None) -> Row:
    """Return the row of known samples."""
    tokenizer = generation.load_tokenizer(generator.model.locate())
    prompts = {request: len(generation.prompt_token_ids(tokenizer, request)) for request, _ in samples}
    missing, tokens = len(_missing(generator, samples)), len(samples) * (pace.length if pace else 0.0)
    seconds = pace.seconds(missing) if pace else None if missing else 0.0
    prompt_tokens = sum(prompts[request] for request, _ in samples)
    return Row(stage, "base", len(samples), len(samples) - missing, tokens, seconds, prompt_tokens=prompt_tokens)


def _expected_questions(
    generator: generation.Generator, settings: dict[str, Any], baits: Samples, is_due: bool
) -> tuple[int, list[str]]:
    """Return how many questions 01 gives, or gave, and what that rests on."""
    if not is_due and baits:
        return len(runs.read_table(runs.run_folder(settings["elicit"]), "elicit", "questions")), []
    gates = runs.validity_gates(_bait_domain(settings["elicit"]))
    verdicts = [
        elicit.is_question(request.prefix + completion.text, gates, settings["elicit"].protocol)
        for (request, _), completion in zip(baits, generator.stored(baits), strict=True)
        if completion is not None
    ]
    if not verdicts:
        return len(baits), []
    share = wilson(sum(verdicts), len(verdicts))
    percent = f"{100 * share.estimate:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"
    return round(len(baits) * share.estimate), [f"{sum(verdicts)} of {share.n} completions were questions: {percent}"]


# --- the text -----------------------------------------------------------------------------------------


def plan_text(plan: Plan) -> str:
    """Return a plan as a table with its sum and what it rests on below."""
    if not plan.rows:
        return "\n".join(plan.facts)
    layout = "{:<10}{:<20}{:>13}{:>10}{:>15}{:>12}{:>10}"
    lines = [layout.format("stage", "model", "completions", "in store", "prompt tokens", "new tokens", "time")]
    for row in plan.rows:
        count = f"{row.about}{row.count:,}{' pairs' if row.is_training else ''}"
        stored = "" if row.is_training else f"{row.stored:,}"
        prompts = "" if row.is_training else "?" if row.prompt_tokens is None else f"{row.prompt_tokens:,}"
        time_taken = "?" if row.seconds is None else duration(row.seconds)
        lines.append(layout.format(row.stage, row.model, count, stored, prompts, f"{round(row.tokens):,}", time_taken))
    lines.append(f"{'starts, imports, tables and figures':<80}{duration(plan.beside):>10}")
    unknown = ", ".join(dict.fromkeys(row.stage for row in plan.rows if row.seconds is None))
    total = f"in all about {duration(plan.seconds)}" + (f", and {unknown}, unknown" if unknown else "")
    return "\n".join([*lines, total, *plan.facts])


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.{int(seconds < 600)}f} min"
    return f"{seconds / 3600:.1f} h"
