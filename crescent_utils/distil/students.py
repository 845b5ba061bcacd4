"""Students: what they learn from (the pairs, or, at the same budget, other data), and their training."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import benchmarks, elicit, finetune, generation, runs, vote
from ..generation import Generator, Sampling
from ..runs import Distil

if TYPE_CHECKING:
    import pandas as pd

ROUNDS = 8  # ours: after so many variants of each kind of a seed question the budget is given up
# Worded by us after MetaMath (Yu et al. 2023, arXiv 2309.12284, section 3), which rephrases questions and extends them.
REPHRASE = (
    "Say this question in other words, so that its answer stays the same. Write only the question.\n"
    "Question: {question}"
)
EXTEND = (
    "Write a new question of the same kind as this one, with other numbers. Write only the question.\n"
    "Question: {question}"
)
REJECTED_COLUMNS = ["round", "source", "text", "reason"]


@dataclass(frozen=True)
class StudentPairs:
    """The training `pairs` of a student, the `rows` that they come from, in order, and what was `rejected` on the way.

    `sampled_by` are the generators that had to sample for it.
    """

    pairs: list[dict[str, Any]]
    rows: pd.DataFrame
    rejected: pd.DataFrame
    sampled_by: list[Generator]


def student_pairs(stage: runs.Stage, domain: runs.Domain, qa: pd.DataFrame) -> StudentPairs:
    """Return what the student of `05_distil` learns from, as the parameter `student_data` says.

    `qa` are the chosen rows of the vote. Raw samples and an augmented seed set are no more than their pairs in number
    and tokens.
    """
    import pandas as pd

    settings: Any = stage.settings
    pairs = finetune.training_pairs(qa, domain, settings.system_prompt, settings.train_prompt)
    if settings.student_data in ("pairs", "on_policy"):
        return StudentPairs(pairs, qa, pd.DataFrame(columns=REJECTED_COLUMNS), [])
    recorded = runs.parameters_of("vote", runs.recorded_parameters(stage.upstream["vote"]))
    vote_settings = runs.build_settings("vote", recorded)
    sampled_by = []
    if settings.student_data == "self_samples":
        tables = {name: stage.read_table("vote", name) for name in ("qa", "rejected", "paths")}
        rows, rejected = raw_samples(tables, settings.seed, vote_settings.path_formats, domain)
    else:
        with generation.open_generator(settings) as generator:
            exemplars = vote.recorded_exemplars(vote_settings, domain, stage.folder.parent)
            rows, rejected = seed_augmented(generator, settings, domain, vote_settings, len(pairs), exemplars)
        sampled_by.append(generator)
    tokenizer = generation.load_tokenizer(generation.resolve_model(settings.model).locate())
    kept = within_budget(rows, pairs, domain, settings.system_prompt, tokenizer, settings.train_prompt)
    return StudentPairs(kept, rows, rejected, sampled_by)


def raw_samples(
    tables: dict[str, pd.DataFrame], seed: int, path_formats: Sequence[str], domain: runs.Domain
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one path per question, drawn by `seed` whatever its answer, and the questions whose drawn path is empty.

    These are the model's own samples without a vote. `tables` are the vote's `qa`, `rejected` and `paths`: wherever the
    vote took its questions from, they stand there. Columns: id, question, path, agreement (1); with `path_formats` also
    format and prompt.
    """
    import pandas as pd

    questions = pd.concat([tables["qa"][["id", "question"]], tables["rejected"][["id", "question"]]])
    text_of = dict(zip(questions["id"], questions["question"], strict=True))
    shuffled = tables["paths"].sample(frac=1.0, random_state=seed)
    drawn = shuffled.drop_duplicates("question_id").sort_values("question_id")
    drawn["question"] = drawn["question_id"].map(text_of)
    empty = drawn["path"].str.strip() == ""
    solved = (
        (row.question_id, row.question, row.path, row.answer if isinstance(row.answer, str) else None)
        for row in drawn[~empty].sample(frac=1.0, random_state=seed).itertuples()
    )
    rows = _rows_to_learn(solved, path_formats, domain)
    rejected = drawn[empty].rename(columns={"question": "text"})
    return rows, rejected.assign(round=0, source="self_samples", reason="empty path")[REJECTED_COLUMNS]


def _rows_to_learn(
    solved: Iterable[tuple[int, str, str, str | None]], path_formats: Sequence[str], domain: runs.Domain
) -> pd.DataFrame:
    """Return the rows that `solved` questions (id, question, path, answer) give, as columns like those of `qa`."""
    import pandas as pd

    rows = [
        {"id": number, "question": question, "agreement": 1.0, **learned}
        for number, question, path, answer in solved
        for learned in vote.learned_texts(question, path, answer, path_formats, domain)
    ]
    return pd.DataFrame(rows, columns=_row_columns(path_formats))


def _row_columns(path_formats: Sequence[str]) -> list[str]:
    return ["id", "question", "path", "agreement", *(["format", "prompt"] if path_formats else [])]


def seed_items(settings: Distil, domain: runs.Domain) -> list[benchmarks.Item]:
    """Return the labelled seed set: items of the training split of `seed_set`, drawn by `seed`.

    Raises BenchmarkError for a benchmark without one.
    """
    name = settings.seed_set or domain.benchmarks[0]
    if benchmarks.is_generated(name):  # its training split is what its test items leave
        size, seed = settings.benchmark_items, settings.benchmark_seed
        items = benchmarks.load_benchmark(name, split="train", items=size, seed=seed).items
    else:
        items = benchmarks.load_benchmark(name, folder=settings.benchmark_dir).train
    if not items:
        raise benchmarks.BenchmarkError(
            f"seed_set: {name} has no training split; allowed: arithmetic, a problem space, gsm8k"
        )
    drawn = random.Random(settings.seed).sample(range(len(items)), min(settings.seed_items, len(items)))
    return [items[i] for i in sorted(drawn)]


def seed_augmented(
    generator: Generator,
    settings: Distil,
    domain: runs.Domain,
    vote_settings: runs.Vote,
    examples: int,
    exemplars: Sequence[runs.Exemplar] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return at most `examples` rows made from the seed set, and what was rejected on the way, with reasons.

    First the seeds with their own solutions; then, round by round, questions that the teacher rephrased or made after
    them, which it answers and votes on with the settings of `03_vote` and the `exemplars` that were shown there. A
    question that repeats another, or an item of a benchmark that the run is judged on, is rejected.
    """
    import pandas as pd

    seeds = seed_items(settings, domain)
    # The vote's manifest hides the folder of the benchmarks.
    held_out = benchmarks.load_held_out(
        vote_settings.model_copy(update={"benchmark_dir": settings.benchmark_dir}), domain
    )
    solved = ((i, seed.question, seed.solution or seed.gold, seed.gold) for i, seed in enumerate(seeds))
    rows = _rows_to_learn(solved, vote_settings.path_formats, domain).assign(source="seed")
    questions = {seed.question for seed in seeds}
    next_id = len(seeds)
    rejected: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        if len(rows) >= examples:
            break
        fresh: list[dict[str, Any]] = []
        for kind, variant in _variants(generator, settings, domain, seeds, number):
            if isinstance(variant, elicit.Rejected):
                reason = variant.reason
            elif variant.text in questions:
                reason = "repeats a question"
            else:
                reason = benchmarks.repeated_items([variant.text], held_out)[0]
            if reason:
                rejected.append({"round": number, "source": kind, "text": variant.text, "reason": reason})
            else:
                questions.add(variant.text)
                fresh.append({"id": next_id + len(fresh), "question": variant.text, "source": kind})
        next_id += len(fresh)
        qa, without_label = _answered(generator, fresh, vote_settings, domain, settings.system_prompt, exemplars)
        rejected += [{"round": number, **row} for row in without_label]
        rows = pd.concat([rows, qa], ignore_index=True)
    return rows.iloc[:examples], pd.DataFrame(rejected, columns=REJECTED_COLUMNS)


def _variants(
    generator: Generator, settings: Distil, domain: runs.Domain, seeds: list[benchmarks.Item], number: int
) -> list[tuple[str, elicit.Question | elicit.Rejected]]:
    """Sample variant `number` of both kinds of each seed question; return each with its kind."""
    sampling = Sampling(settings.rewrite_temperature, 1.0, settings.rewrite_max_tokens, domain.bait_stop)
    # What the domain's prefilled starts share ("What is"); a rephrased question must be free to name the same numbers.
    prefix = os.path.commonprefix(list(domain.bait_prefixes)).rstrip()
    system = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []
    kinds, requests = [], []
    for kind, prompt in (("rephrased", REPHRASE), ("extended", EXTEND)):
        for seed in seeds:
            message = {"role": "user", "content": prompt.replace("{question}", seed.question)}
            kinds.append(kind)
            requests.append(generator.request([*system, message], sampling, prefix))
    completions = generator.complete([(request, number) for request in requests])
    gates = runs.validity_gates(domain)
    variants = [elicit.extract_question(prefix + completion.text, **gates) for completion in completions]
    return list(zip(kinds, variants, strict=True))


def _answered(
    generator: Generator,
    fresh: list[dict[str, Any]],
    vote_settings: runs.Vote,
    domain: runs.Domain,
    system: str,
    exemplars: Sequence[runs.Exemplar],
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Vote on the `fresh` questions (id, question, source); return rows to learn, and the questions without a label."""
    import pandas as pd

    questions = pd.DataFrame(fresh, columns=["id", "question", "source"])
    sampling = Sampling(vote_settings.vote_temperature, vote_settings.vote_top_p, vote_settings.vote_max_tokens)
    messages = [runs.solve_messages(domain, text, system, exemplars) for text in questions["question"]]
    requests = [generator.request(message, sampling) for message in messages]
    completions = generator.generate(requests, vote_settings.votes)
    texts = [[completion.text for completion in row] for row in completions]
    cut = [[completion.truncated for completion in row] for row in completions]
    qa, _, without_label = vote.vote_tables(questions, texts, vote_settings, domain, cut=cut)
    source_of = dict(zip(questions["id"], questions["source"], strict=True))
    qa = qa.assign(source=qa["id"].map(source_of))[[*_row_columns(vote_settings.path_formats), "source"]]
    return qa, [
        {"source": source_of[row.id], "text": row.question, "reason": row.reason} for row in without_label.itertuples()
    ]


def within_budget(
    rows: pd.DataFrame,
    pairs: list[dict[str, Any]],
    domain: runs.Domain,
    system: str,
    tokenizer: Any,
    train_prompt: str = "solve",
) -> list[dict[str, Any]]:
    """Return the training pairs of `rows`, in order, as long as they are no more than `pairs` in number and tokens."""
    tokens_left = sum(len(finetune.loss_mask(tokenizer, pair)) for pair in pairs)
    chosen: list[dict[str, Any]] = []
    for pair in finetune.training_pairs(rows, domain, system, train_prompt):
        tokens_left -= len(finetune.loss_mask(tokenizer, pair))
        if tokens_left < 0 or len(chosen) == len(pairs):
            break
        chosen.append(pair)
    return chosen


def train_student(stage: runs.Stage, pairs: list[dict[str, Any]]) -> finetune.Trained:
    """Train the student of `05_distil` on `pairs` and return it; in a replay, return the one that was recorded.

    With student_data "on_policy" the student answers the pairs' prompts itself and follows the teacher's probabilities.
    Raises TrainingError where the training cannot start or fails, ModelError where a model cannot be had.
    """
    settings: Any = stage.settings
    if settings.engine == "replay":
        return finetune.recorded_training(stage, pairs, "student_tuned")
    base = generation.resolve_model(settings.model)
    student = generation.resolve_student(settings.student, base)
    teacher = None
    if settings.student_data == "on_policy":
        voted = runs.recorded_parameters(stage.upstream["vote"])
        sampling = {name: voted[f"vote_{name}"] for name in ("temperature", "top_p", "max_tokens")}
        teacher = finetune.Teacher(base, sampling)
    return finetune.train(student, pairs, stage.folder, finetune.recipe_of(settings), "student_tuned", teacher)
