"""Baselines: what else a student could learn from at the same budget, raw samples of the model or the augmentation of a seed set."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import benchmarks, elicit, finetune, runs
from ..generation import Sampling
from ..runs import Distil
from ..vote import vote_tables

if TYPE_CHECKING:
    import pandas as pd

    from ..generation import Generator

ROUNDS = 8  # ours: so many variants of each kind are sampled of a seed question before the budget is given up
# Worded by us after MetaMath (Yu et al. 2023, arXiv 2309.12284, section 3), which rephrases questions and makes new ones of them.
REPHRASE = "Say this question in other words, so that its answer stays the same. Write only the question.\nQuestion: {question}"
EXTEND = "Write a new question of the same kind as this one, with other numbers. Write only the question.\nQuestion: {question}"


def raw_samples(paths: pd.DataFrame, asked: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return one path of each question, drawn by `seed` whatever its answer: the model's own samples without a vote.

    `paths` is the vote's table of every path, `asked` dedup's table of the questions. Columns: id, question, path, agreement (1).
    """
    drawn = paths.sample(frac=1.0, random_state=seed).drop_duplicates("question_id").sort_values("question_id")
    texts = dict(zip(asked["id"], asked["question"], strict=True))
    drawn = drawn[drawn["path"].str.strip() != ""].sample(frac=1.0, random_state=seed)
    return drawn.assign(id=drawn["question_id"], question=drawn["question_id"].map(texts), agreement=1.0)[
        ["id", "question", "path", "agreement"]
    ].reset_index(drop=True)


def seed_items(settings: Distil, domain: runs.Domain) -> list[benchmarks.Item]:
    """Return the labelled seed set: items of the training split of `seed_set`, drawn by `seed`.

    Raises BenchmarkError for a benchmark without one.
    """
    name = settings.seed_set or domain.benchmarks[0]
    split = "train" if name == "arithmetic" else "test"
    bench = benchmarks.load_benchmark(
        name, folder=settings.benchmark_dir, split=split, items=settings.benchmark_items if split == "train" else 0,
        seed=settings.benchmark_seed,
    )  # fmt: skip
    found = bench.items if split == "train" else bench.train
    if not found:
        raise benchmarks.BenchmarkError(f"seed_set: {name} has no training split; allowed: arithmetic, gsm8k")
    count = min(settings.seed_items, len(found))
    return [found[i] for i in sorted(random.Random(settings.seed).sample(range(len(found)), count))]


def seed_augmented(
    generator: Generator, settings: Distil, domain: runs.Domain, voted: Mapping[str, Any], examples: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return at most `examples` pairs made from the seed set, and what was rejected on the way, with reasons.

    First the seeds with their own solutions; then, round by round, questions that the teacher rephrased or made after them, which it
    answers and votes on with the settings of `03_vote` (`voted` is its manifest). A question that repeats a benchmark's item, or
    another, is rejected.
    """
    import pandas as pd

    recorded = runs.parameters_of("vote", runs.recorded_parameters(voted))
    vote = runs.build_settings("vote", recorded | {"domain": settings.domain})  # the very domain: see check_asked_alike
    seeds = seed_items(settings, domain)
    held = _held(settings, domain)
    kept = pd.DataFrame(
        {"id": range(len(seeds)), "question": [s.question for s in seeds], "path": [s.solution or s.gold for s in seeds],
         "agreement": 1.0, "source": "seed"}
    ).iloc[:examples]  # fmt: skip
    seen, rejected = {seed.question for seed in seeds}, []
    for number in range(ROUNDS):
        if len(kept) >= examples:
            break
        fresh = []
        for kind, text in _variants(generator, settings, domain, seeds, number):
            reason = text.reason if isinstance(text, elicit.Rejected) else ""
            if not reason:
                reason = "repeats a question" if text.text in seen else benchmarks.repeated_items([text.text], held)[0]
            if reason:
                rejected.append({"round": number, "source": kind, "text": text.text, "reason": reason})
            else:
                seen.add(text.text)
                fresh.append((kind, text.text))
        qa, lost = _answered(generator, fresh, vote, domain, settings.system_prompt, len(seen))
        rejected += [{"round": number, **row} for row in lost]
        kept = pd.concat([kept, qa], ignore_index=True)
    return kept.iloc[:examples], pd.DataFrame(rejected, columns=["round", "source", "text", "reason"])


def _held(settings: Distil, domain: runs.Domain) -> list[benchmarks.Benchmark]:
    found = []
    for name in domain.benchmarks:
        for split in ["dev", "test"] if name == "arithmetic" else ["test"]:
            items = settings.benchmark_items if name == "arithmetic" else 0
            found.append(
                benchmarks.load_benchmark(
                    name, folder=settings.benchmark_dir, split=split, items=items, seed=settings.benchmark_seed
                )
            )
    return found


def _variants(
    generator: Generator, settings: Distil, domain: runs.Domain, seeds: list[benchmarks.Item], number: int
) -> list[tuple[str, elicit.Question | elicit.Rejected]]:
    """Sample variant `number` of both kinds of each seed question."""
    sampling = Sampling(settings.rewrite_temperature, 1.0, settings.rewrite_max_tokens, domain.bait_stop)
    # What the domain's prefilled starts share ("What is"); a rephrased question must be free to name the same numbers.
    prefix = os.path.commonprefix(list(domain.bait_prefixes)).rstrip()
    system = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []
    kinds = [(kind, prompt) for kind, prompt in (("rephrased", REPHRASE), ("extended", EXTEND)) for _ in seeds]
    texts = [prompt.replace("{question}", seed.question) for (_, prompt), seed in zip(kinds, seeds * 2, strict=True)]
    asked = [generator.request([*system, {"role": "user", "content": text}], sampling, prefix) for text in texts]
    made = generator.complete([(request, number) for request in asked])
    gates = runs.validity_gates(domain)
    return [
        (kind, elicit.extract_question(prefix + completion.text, **gates))
        for (kind, _), completion in zip(kinds, made, strict=True)
    ]


def _answered(
    generator: Generator, fresh: list[tuple[str, str]], vote: Any, domain: runs.Domain, system: str, first: int
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    sampling = Sampling(vote.vote_temperature, vote.vote_top_p, vote.vote_max_tokens)
    texts = [text for _, text in fresh]
    asked = [generator.request(runs.solve_messages(domain, text, system), sampling) for text in texts]
    made = generator.generate(asked, vote.votes) if asked else []
    ids = list(range(first, first + len(texts)))
    qa, _, lost = vote_tables(ids, texts, [[c.text for c in row] for row in made], vote, domain.name)
    kind = dict(zip(ids, [kind for kind, _ in fresh], strict=True))
    qa = qa.assign(source=[kind[i] for i in qa["id"]])[["id", "question", "path", "agreement", "source"]]
    return qa, [{"source": kind[row.id], "text": row.question, "reason": row.reason} for row in lost.itertuples()]


def within_budget(
    rows: pd.DataFrame, pairs: list[dict[str, Any]], domain: runs.Domain, system: str, tokenizer: Any
) -> list[Any]:
    """Return the training pairs of `rows`, in their order, as long as they are no more than `pairs` in number and in tokens."""
    budget = sum(len(finetune.loss_mask(tokenizer, pair)) for pair in pairs)
    chosen: list[dict[str, Any]] = []
    for pair in finetune.training_pairs(rows, domain, system):
        budget -= len(finetune.loss_mask(tokenizer, pair))
        if budget < 0 or len(chosen) == len(pairs):
            break
        chosen.append(pair)
    return chosen
