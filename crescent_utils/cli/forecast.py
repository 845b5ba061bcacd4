"""Forecast: what the stages of a run ask for and take that are not known before the earlier ones ran. Ours.

A recorded run of the same domain, model and protocol tells how many questions are rewritten, kept and learned from, and
what a training takes; a machine that samples the baits slower than the recorded one trains slower, too. On a busy
machine a probe says nothing of that, and the times are the recorded run's. Without such a run everything is taken to
survive, and training is unknown. No model is needed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any

from .. import benchmarks, evaluate, finetune, generation, runs, vote

# What follows was measured in runs of params/cpu.yaml and of a ninth of it: two CPU cores, vLLM, 2026-11-21.
TOKENS_OF_A_REQUEST = 8  # a completion costs 11 ms, as much as so many tokens, and 1.3 ms for each of its own
REWRITE = 1.6  # times that of a bait: its prompt is twice as long and hardly ever the same
HELD_OUT = 1 / 3  # of a training pass: the loss alone, nothing is learned
BEYOND = 4.0  # ours: so many times slower than the recorded machine is none that people run this on; others are at work
FIRST_START = 15.0  # seconds of an engine's start with all imports, where the probe saw none
FURTHER_START = 0.3  # of the first one: another model's start, on CPU
BESIDE = {"elicit": 12, "dedup": 5, "vote": 3, "finetune": 6, "distil": 3, "evaluate": 6}  # seconds: tables and figures

CHOSEN = "base, chosen"  # the base as it was chosen on development items; it may have been asked so before
TRAINED = {"finetune": "tuned", "distil": "student_tuned"}  # the model that a stage trains
# Where these are others than the recorded run's, its shares and times may not be this run's, and the plan says so.
DECISIVE = {
    "dedup": "similarity_threshold rewrite_temperature",
    "vote": "question_source vote_temperature vote_max_tokens vote_shots",
    "finetune": "method batch_size max_length packing gradient_checkpointing processes lora_rank lora_targets",
    "distil": "student student_data student_batch_size max_length packing gradient_checkpointing processes",
}

TRAINING_START = 12.0  # seconds, ours: what a training takes before it learns, by recorded runs of different sizes


@dataclass(frozen=True)
class Pace:
    """What sampling takes: seconds `each` completion of `length` tokens, and seconds more for each `batch`.

    A batch has such a rest since its last completions are sampled in ever smaller company.
    """

    each: float
    batch: float
    length: float

    def seconds(self, completions: int, batches: int = 1) -> float:
        """Return the seconds of so many completions in so many batches."""
        return completions * self.each + batches * self.batch if completions else 0.0

    def of_length(self, length: float) -> Pace:
        """Return the pace of completions of another length."""
        longer = (length + TOKENS_OF_A_REQUEST) / (self.length + TOKENS_OF_A_REQUEST)
        return replace(self, each=self.each * longer, length=length)


@dataclass(frozen=True)
class Row:
    """What one stage asks of one model, or trains of it: `count` completions (pairs), of which `stored` are there.

    `about` is "" where the count is known, "~ " where a recorded run tells it, "≤ " where nothing does. `seconds` are
    those of what is missing, None where nothing tells them.
    """

    stage: str
    model: str
    count: int
    stored: int
    tokens: float
    seconds: float | None
    about: str = ""
    prompt_tokens: int | None = None

    @property
    def is_training(self) -> bool:
        """Tell whether the row trains a model; `count` are its pairs."""
        return self.stage in TRAINED


def fitted_pace(groups: Sequence[tuple[int, float]], length: float) -> Pace:
    """Return the pace that groups of several sizes show: the slope of the line through their seconds, and its rest.

    The slope is taken to lie between half of what a completion of the fastest group took and all of it: in a slower one
    another program was at work, or the group was small.
    """
    size, seconds = min(groups, key=lambda group: group[1] / group[0])
    each = seconds / size
    if len({size for size, _ in groups}) > 1:
        slope = linear_regression([size for size, _ in groups], [seconds for _, seconds in groups]).slope
        each = min(max(slope, each / 2), each)
    return Pace(each, seconds - size * each, length)


@dataclass(frozen=True)
class HandedOn:
    """How much of so many questions is rewritten, is kept in the pool, and becomes pairs to learn from.

    `zero_shot` of the pool are asked zero-shot first, for exemplars of the model's own.
    """

    rewrites: int
    pool: int
    pairs: int
    zero_shot: int = 0


def find_recorded(settings: dict[str, Any]) -> Path | None:
    """Return the folder of `replay_from`, of this run's `outputs` or the kit's, if its vote is of the same kind."""
    votes = settings["vote"]
    for folder in (runs.run_folder(votes, votes.replay_from), runs.ROOT / "outputs" / votes.replay_from):
        manifest = runs.read_manifest(folder, "vote")
        if manifest and not runs.differing_parameters(manifest, votes, ("domain", "model", "protocol")):
            return folder
    return None


def handed_on(
    settings: dict[str, Any], due: Sequence[str], questions: int, recorded: Path | None, path_length: float = 0.0
) -> HandedOn:
    """Return what becomes of `questions`: as finished stages say, else the recorded run, else all survive.

    With paths of `path_length` tokens a token budget lets no more than so many questions into the vote.
    """
    dedup, votes, own_folder = settings["dedup"], settings["vote"], runs.run_folder(settings["vote"])
    rewrites, pool = questions * dedup.max_rewrites, questions
    if votes.question_source != "pool":
        domain = runs.get_domain(votes.domain)
        asked = vote.load_unlabelled(votes, benchmarks.load_held_out(votes, domain)).questions
        rewrites, pool = 0, len(asked)
    elif "dedup" not in due:
        manifest = runs.read_manifest(own_folder, "dedup") or {
            "cost": {"completions": 0},
            "counts": {"kept": questions},
        }
        rewrites, pool = manifest["cost"]["completions"], manifest["counts"]["kept"]
    elif recorded and runs.read_manifest(recorded, "dedup"):
        rewrites_each, kept_each = _fates_of_questions(recorded, dedup)
        rewrites = min(rewrites, extended_sum(rewrites_each, questions))
        pool = extended_sum(kept_each, questions)
    zero_shot = min(votes.own_questions, pool) if votes.vote_shots == "own" else 0
    budget = vote.token_budget(votes)
    if budget and path_length:
        pool = min(pool, max(0, round(budget / path_length / votes.votes) + 1 - zero_shot))
    if "vote" not in due and (own_folder / "vote" / "qa.parquet").exists():
        pairs = len(finetune.chosen_rows(runs.read_table(own_folder, "vote", "qa"), settings["finetune"]))
    elif recorded:
        pairs = extended_sum(_pairs_of_questions(recorded, votes, settings["finetune"]), pool)
    else:
        pairs = pool
    pairs += _earlier_pairs(settings["finetune"])
    return HandedOn(rewrites, pool, min(pairs, settings["finetune"].max_pairs or pairs), zero_shot)


def _earlier_pairs(settings: runs.Finetune) -> int:
    """Return how many pairs of the runs in `accumulate_runs` are learned too, at most: some may repeat a question."""
    folders = [runs.run_folder(settings, name) for name in settings.accumulate_runs]
    all_pairs = settings.model_copy(update={"max_pairs": 0})
    return sum(len(finetune.chosen_rows(runs.read_table(folder, "vote", "qa"), all_pairs)) for folder in folders)


def extended_sum(values: Sequence[int], count: int) -> int:
    """Return the sum of the first `count` values; beyond the last it goes on with the mean of their last quarter."""
    last_quarter = values[-(len(values) // 4 or 1) :] or [0]
    return round(sum(values[:count]) + max(0, count - len(values)) * fmean(last_quarter))


def _fates_of_questions(recorded: Path, settings: runs.Dedup) -> tuple[list[int], list[int]]:
    """Return of each question of a recorded run, in order, how often it was rewritten, and whether it is kept (1 or 0).

    What repeats an item of this run's benchmarks is not kept, whichever items the recorded run had.
    """
    attempts = runs.read_table(recorded, "dedup", "attempts")
    order = list(dict.fromkeys(attempts["id"]))
    attempts = attempts[attempts["round"] <= settings.max_rewrites]
    if settings.similarity_threshold > 1:  # nothing is too similar
        attempts = attempts[attempts["round"] == 0].assign(accepted=True)
    rewrites = attempts[attempts["round"] > 0].groupby("id").size()
    accepted = attempts[attempts["accepted"]]
    held_out = benchmarks.load_held_out(settings, runs.get_domain(settings.domain)) if settings.decontaminate else []
    repeats = benchmarks.repeated_items(list(accepted["after"]), held_out)
    kept = {number for number, item in zip(accepted["id"], repeats, strict=True) if not item}
    return [int(rewrites.get(number, 0)) for number in order], [int(number in kept) for number in order]


def _pairs_of_questions(recorded: Path, votes: runs.Vote, training: runs.Finetune) -> list[int]:
    """Return how many rows to learn each question of a recorded vote gives, in order, when this run's rules count."""
    import pandas as pd

    named = pd.concat([runs.read_table(recorded, "vote", name)[["id", "question"]] for name in ("qa", "rejected")])
    text_of = dict(zip(named["id"], named["question"], strict=True))
    table = runs.read_table(recorded, "vote", "paths")
    of_question = (table if "cut" in table else table.assign(cut=False)).groupby("question_id", sort=False)
    paths, cut = of_question["path"].apply(list), of_question["cut"].apply(list)
    questions = pd.DataFrame({"id": paths.index, "question": [text_of[number] for number in paths.index]})
    if votes.path_choice == "most_likely":  # one path, too, and no likelihoods are recorded
        votes = votes.model_copy(update={"path_choice": "first"})
    sampled = [texts[: votes.votes] for texts in paths]
    ends = [flags[: votes.votes] for flags in cut]
    qa, _, _ = vote.vote_tables(questions, sampled, votes, runs.get_domain(votes.domain), cut=ends)
    pairs = finetune.chosen_rows(qa, training.model_copy(update={"max_pairs": 0})).groupby("id").size()
    more_votes = max(1.0, votes.votes / max(map(len, paths))) if votes.path_choice == "all" else 1.0
    return [round(pairs.get(number, 0) * more_votes) for number in paths.index]


def estimated_rows(
    settings: dict[str, Any],
    due: Sequence[str],
    known: Collection[str],
    questions: int,
    paces: dict[str, Pace],
    engine: str,
    recorded: Path | None,
) -> tuple[list[Row], list[str]]:
    """Return the rows of what is not known beforehand, for `questions` of 01, and what they rest on.

    `known` are the stages whose requests to the base model are known; `due` those that would run.
    """
    baits, path = paces.get("elicit"), _pace_of_paths(paces, recorded)
    amounts = handed_on(settings, due, questions, recorded, path.length if path else 0.0)
    rows = []
    if amounts.rewrites:
        rewrite = baits and replace(baits, each=baits.each * REWRITE)
        rows.append(_sampling_row("dedup", "base", amounts.rewrites, rewrite, settings["dedup"].max_rewrites))
    if "vote" not in known:
        votes = settings["vote"]
        count = (amounts.pool + amounts.zero_shot) * votes.votes
        rows.append(_sampling_row("vote", "base", count, path, 2 if amounts.zero_shot else 1))
    slower = _slower_than(recorded, baits, engine)
    rows += [_training_row(settings[stage], stage, amounts.pairs, recorded, slower) for stage in TRAINED]
    has_control = settings["finetune"].random_label_control
    if has_control:  # by the same recipe on as many pairs
        rows += [replace(row, model=runs.CONTROL) for row in rows if row.stage == "finetune"]
    about = "~ " if recorded else "≤ "
    rows = [replace(row, about=about) for row in rows]
    for label, count, batches in _evaluation_counts(settings["evaluate"], has_control):
        row = _sampling_row("evaluate", label, count, paces.get("evaluate"), batches)
        rows.append(replace(row, about="≤ ") if label == CHOSEN else row)
    rows = [row if row.stage in due else replace(row, stored=row.count, seconds=0.0, about="") for row in rows]
    if recorded is None:
        return rows, ["no recorded run of this domain, model and protocol: everything survives, training is unknown"]
    facts = [
        f"{runs.shown_path(recorded)} tells what stages hand on: {amounts.rewrites:,} rewrites, "
        f"{amounts.pool:,} questions to vote on, {amounts.pairs:,} pairs to learn from",
        f"a training takes {slower:.2f} times as long as in that run ({_device(recorded)}), as a bait does",
    ]
    return rows, facts + _differences(settings, due, recorded)


def _sampling_row(stage: str, model: str, count: int, pace: Pace | None, batches: int) -> Row:
    if pace is None:
        return Row(stage, model, count, 0, 0.0, None)
    return Row(stage, model, count, 0, count * pace.length, pace.seconds(count, batches))


def _pace_of_paths(paces: dict[str, Pace], recorded: Path | None) -> Pace | None:
    """Return the pace of a vote's paths: of 06's answers, which are asked for alike, at a recorded path's length."""
    pace = paces.get("vote") or paces.get("evaluate") or paces.get("elicit")
    manifest = runs.read_manifest(recorded, "vote") if recorded else None
    if pace and manifest and "vote" not in paces:
        counts = manifest["counts"]
        paths = counts["paths"] + counts.get("zero_shot_sampled", 0)
        return pace.of_length(manifest["tokens"]["completion"] / max(1, paths))
    return pace


def _evaluation_counts(settings: runs.Evaluate, has_control: bool = False) -> Iterator[tuple[str, int, int]]:
    """Yield each model's answers and batches, without the base model's 0-shot answers: those are known exactly.

    A control answers as a student does. Development items, on which baselines are chosen, are counted with each model;
    `CHOSEN` are the base's answers then.
    """
    domain = runs.get_domain(settings.domain)
    items = sum(len(benchmark.items) for benchmark in benchmarks.load_evaluated(settings, domain))
    decodings = 1 + (settings.eval_samples > 0)
    both_decodings = items * (1 + settings.eval_samples)
    others = len(settings.eval_prompts) - 1
    if "own" in settings.eval_prompts:  # the base's own exemplars are not made yet
        own_is_headline = settings.eval_prompts[0] == "own"
        chosen_on, ways = _development_counts(settings, domain, "base", ("own",))
        count, batches = (both_decodings, decodings) if own_is_headline else (items, 1)
        yield "base, own", count + chosen_on, batches + ways
    if with_shots := sum(shots > 0 for shots in settings.shots):
        yield "base, shots", both_decodings * with_shots, decodings * with_shots
    matched = settings.eval_samples if settings.matched_temperature else 0
    if settings.best_prompt or matched:
        yield CHOSEN, items * (settings.best_prompt + matched), settings.best_prompt + (matched > 0)
    labels = dict.fromkeys(label for pair in evaluate.method_pairs(settings) for label in pair if label != "base")
    for label in [*labels, *([runs.CONTROL] if has_control else [])]:
        count, batches = (both_decodings, decodings) if label in evaluate.PAIRS[0] else (items, 1)
        asked_also = others if label in evaluate.PAIRS[0] else 0
        chosen_on, ways = _development_counts(settings, domain, label)
        count = count * len(settings.shots) + items * asked_also + chosen_on
        yield label, count, batches * len(settings.shots) + asked_also + ways


def _development_counts(
    settings: runs.Evaluate, domain: runs.Domain, label: str, prompts: Collection[str] = ()
) -> tuple[int, int]:
    """Return how many answers to development items a model gives, and in how many batches.

    With `prompts`, those to these prompts alone.
    """
    conditions = evaluate.development_conditions(settings, domain, label)
    conditions = [condition for condition in conditions if not prompts or condition[0] in prompts]
    if not conditions:
        return 0, 0
    development = benchmarks.load_development(settings, domain, evaluate.DEVELOPMENT_ITEMS)
    items = sum(len(benchmark.items) for benchmark in development)
    return items * sum(repeats for _, _, repeats in conditions), len(conditions)


def _slower_than(recorded: Path | None, baits: Pace | None, engine: str) -> float:
    """Return how many times as long as in the recorded run a bait takes here; 1 where another engine sampled there.

    A probe samples somewhat faster than a whole run (16 ms a bait against 20 on one machine), so that only a bait of
    half the time speaks for a faster machine.
    """
    manifest = runs.read_manifest(recorded, "elicit") if recorded else None
    if not manifest or not baits or len({engine, manifest["engine"]} - {"store"}) > 1:
        return 1.0
    seconds = manifest["cost"]["seconds"]
    slower = float(baits.seconds(manifest["counts"]["sampled"]) / seconds) if seconds else 1.0
    return 1.0 if 0.5 < slower < 1 else slower


def _device(recorded: Path) -> str:
    manifest = runs.read_manifest(recorded, "elicit") or {}
    return str(manifest.get("device", "another machine"))


def idle_paces(
    paces: dict[str, Pace], engine: str, recorded: Path | None, *, is_busy: bool
) -> tuple[dict[str, Pace], list[str]]:
    """Return the recorded run's paces, and a line that says so, where the probe's say nothing of an idle machine.

    That is where a bait takes longer than in the recorded run and other programs are at work (`is_busy`), or where it
    takes over BEYOND times as long. Else the paces come back as they are, with no line.
    """
    slower = _slower_than(recorded, paces.get("elicit"), engine)
    if recorded is None or slower <= (1.0 if is_busy else BEYOND):
        return paces, []
    idle = {stage: _recorded_pace(recorded, stage, pace) for stage, pace in paces.items()}
    line = (
        f"this machine is busy now: a bait took {slower:.1f} times as long as in {runs.shown_path(recorded)}; the "
        f"times are those of an idle machine such as that run had ({_device(recorded)}); as busy as now it takes longer"
    )
    return idle, [line]


def _recorded_pace(recorded: Path, stage: str, probed: Pace) -> Pace:
    """Return the pace of a stage in the recorded run, for completions as long as the probe's."""
    cost = (runs.read_manifest(recorded, stage) or {}).get("cost", {})
    if not cost.get("seconds") or not cost.get("completions"):
        return probed
    completions = cost["completions"]
    pace = Pace(cost["seconds"] / completions, 0.0, cost["completion_tokens"] / completions)
    return pace.of_length(probed.length)


def _training_row(settings: runs.Training, stage: str, pairs: int, recorded: Path | None, slower: float) -> Row:
    """Return the row of a training on so many pairs, after the recorded one; without one its time is not known."""
    manifest = runs.read_manifest(recorded, stage) if recorded else None
    if not manifest:
        return Row(stage, TRAINED[stage], pairs, 0, 0.0, None)
    counts = manifest["counts"]
    then = runs.build_settings(stage, runs.parameters_of(stage, runs.recorded_parameters(manifest)))
    recipe, recorded_recipe = finetune.recipe_of(settings), finetune.recipe_of(then)
    held_out = int(pairs * recipe.held_out)
    passes = recipe.epochs * (pairs - held_out + HELD_OUT * held_out)
    recorded_passes = recorded_recipe.epochs * (counts["trained"] + HELD_OUT * counts["held_out"])
    tokens = counts["tokens"] / (counts["trained"] * recorded_recipe.epochs) * (pairs - held_out) * recipe.epochs
    recorded_seconds = manifest.get("cost", {}).get("seconds") or manifest["seconds"]
    recorded_seconds /= max(1, len(manifest.get("models", {})))  # with a control two models were trained alike
    learning = max(0.0, recorded_seconds - TRAINING_START) * passes / recorded_passes
    return Row(stage, TRAINED[stage], pairs, 0, tokens, slower * (TRAINING_START + learning))


def _differences(settings: dict[str, Any], due: Sequence[str], recorded: Path) -> list[str]:
    """Return a line on what the recorded run did otherwise, so that its shares and times may not be this run's."""
    differences = []
    for stage, names in DECISIVE.items():
        manifest = runs.read_manifest(recorded, stage) if stage in due else None
        if manifest:
            differences += runs.differing_parameters(manifest, settings[stage], names.split())
    then = ", ".join(f"{name} {value}" for name, value, _ in differences)
    return [f"but it was made with {then}: its shares and times may be others"] if differences else []


def seconds_beside(rows: Sequence[Row], due: Sequence[str], engine: str, start: float) -> float:
    """Return the seconds of starts with their imports, and of what the notebooks do beside sampling and training.

    On CPU one process imports once, and one engine serves 01 to 03; on a GPU each stage starts its own from nothing.
    """
    sampled = [row for row in rows if not row.is_training and row.stored < row.count]
    # The base answers as it was chosen after the tuned model was asked: it starts once more.
    lacking = {(row.stage, row.model if row.model == CHOSEN else row.model.partition(",")[0]) for row in sampled}
    waits = engine == "vllm" and generation.best_device() == "cpu"
    starts = {(stage if stage == "evaluate" or not waits else "01 to 03", model) for stage, model in lacking}
    further = FURTHER_START if generation.best_device() == "cpu" else 1.0
    start_seconds = (start or FIRST_START) * (1 + further * (len(starts) - 1)) if starts else 0.0
    return start_seconds + sum(BESIDE[stage] for stage in due)
