"""A run of any size that nobody sampled: word problems or sums drawn from a seed, answered by an engine of dice.

`python tests/benchmarks/synthetic.py FOLDER [--questions 55000] [--domain math_word_problems]` writes the run
`FOLDER/synthetic` (a store, and what a training leaves), replays the six notebooks with it through papermill, each in a
kernel of its own, and prints each one's seconds and peak memory; `FOLDER/replayed` then holds them as executed. The
questions are embedded by a bag of words, made here: embedding costs what its model costs, the search does not care.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import papermill

from crescent_utils import dedup, elicit, evaluate, finetune, runs, vote
from crescent_utils.benchmarks import arithmetic_gold
from crescent_utils.finetune import training
from crescent_utils.generation import Completion, Job, models
from crescent_utils.generation.generator import STORE_NAME, Generator
from crescent_utils.generation.store import GenerationStore, Sampling

NAMES = "Ada Ben Chloe Dan Ella Finn Grace Hugo Ines Jack Kira Leo Mara Nils Olga Paul Rosa Sam Tina Umar".split()
THINGS = (
    "apples bricks candles drums erasers flags gloves hats irons jars kites lamps maps nails onions pens quilts ropes "
    "stamps tiles umbrellas vases wheels yarns books bottles coins cups dolls eggs forks gems hooks keys locks"
).split()
PLACES = "attic bakery cellar depot factory garden harbour kitchen library market office port school tower".split()
STORIES = (  # with the answer as a function of the three numbers
    ("{n} keeps {a} {t} in the {p} and buys {b} more. How many {t} does {n} have now?", lambda a, b, c: a + b),
    ("In the {p} there are {a} boxes with {b} {t} each. How many {t} are there in all?", lambda a, b, c: a * b),
    ("{n} brings {a} {t} to the {p}, sells {b} and finds {c}. How many {t} are left?", lambda a, b, c: a - b + c),
    ("Every day {n} makes {a} {t} for the {p}. How many {t} are made in {b} days?", lambda a, b, c: a * b),
    ("The {p} ordered {a} {t}, but {b} broke on the way and {c} were lost. How many came?", lambda a, b, c: a - b - c),
    ("{n} shares {a} {t} with {b} friends at the {p} and gets {c} back. What is {a} + {c}?", lambda a, b, c: a + c),
)
SPOILT = ("Sure! I can help with that.", "I'm sorry, but I cannot do that.", "Let us think about the market.", "")
WRAPPINGS = ("{}", "Sure! Here is a problem:\n\n{}", "**Problem:** {}", "{}\n\nSolution: we add the numbers.")
NO_COST = {"counts": {}, "tokens": {"prompt": 0, "completion": 0}, "seconds": 0.0, "peak_memory_bytes": 0}
LABELS = {"base": 0.45, "tuned": 0.55, "student": 0.2, "student_tuned": 0.3}  # how often a model's answer is right
VOTE = {"votes": 3, "vote_temperature": 1.0, "min_agreement": 0.0, "path_choice": "first"}  # Crescent, released scripts


def word_problem(chance: random.Random) -> tuple[str, str]:
    """Return a word problem and its answer."""
    story, answer = chance.choice(STORIES)
    a, b, c = chance.randint(20, 99), chance.randint(2, 12), chance.randint(2, 19)
    words = {"n": chance.choice(NAMES), "t": chance.choice(THINGS), "p": chance.choice(PLACES), "a": a, "b": b, "c": c}
    return story.format(**words), str(answer(a, b, c))


def sum_problem(chance: random.Random, prefix: str = "What is ") -> tuple[str, str]:
    """Return a question about two numbers up to 999 that begins with `prefix`, and its answer."""
    first = (re.findall(r"\d+$", prefix) or [str(chance.randint(1, 9))])[0] + chance.choice(["", *"0123456789"]) * 2
    question = f"What is {first[:3]} {chance.choice('+-*')} {chance.randint(1, 99)}?"
    return question, arithmetic_gold(question) or ""


class Dice:
    """An engine that makes up completions; each is a function of its job's seed."""

    name, guarantee, devices = "dice", "a completion is a function of its seed", 1

    def __init__(self, domain: runs.Domain, golds: dict[str, str]) -> None:
        self._is_arithmetic = domain.name == "arithmetic"
        self._baits = set(domain.bait)
        self._golds = golds  # by question; grows with what is made up

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Yield a completion for each job."""
        for number, job in enumerate(jobs):
            chance = random.Random(job.seed)
            content = job.request.messages[-1][1]
            if content in self._baits or "too similar" in content or "too close" in content:
                text = self._question(chance, job.request.prefix)
            else:
                text = self._answer(chance, content, LABELS[job.request.model])
            yield number, Completion(text, "stop", len(content) // 4, len(text) // 4)

    def _question(self, chance: random.Random, prefix: str) -> str:
        if chance.random() < 0.1:
            return chance.choice(SPOILT)
        if self._is_arithmetic:
            question, gold = sum_problem(chance, prefix)
            self._golds[question] = gold
            return question.removeprefix(prefix)
        question, self._golds[question] = word_problem(chance)
        return chance.choice(WRAPPINGS).format(question)

    def _answer(self, chance: random.Random, content: str, share_right: float) -> str:
        gold = next((self._golds[part] for part in _possible_questions(content) if part in self._golds), "7")
        right = chance.random() < share_right
        answer = gold if right else str(chance.randint(1, 99))
        how = "We look at the numbers and work step by step." if chance.random() < 0.9 else "That is easy."
        return f"{how} The answer is {answer}." if chance.random() < 0.97 else how

    def close(self) -> None:
        """Nothing was started."""


def _possible_questions(content: str) -> tuple[str, ...]:
    """Return what of a user's turn may be the question: as the domains word their solve prompts."""
    return content, content.split("\n\n", maxsplit=1)[0], content.split("?", maxsplit=1)[0] + "?"


def write_embedder(folder: Path, vocabulary: Sequence[str]) -> Path:
    """Write a bag of words as a model of sentence-transformers: a random vector a word, that of a rare word longer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers import models as tokenizer_models

    words = sorted({*vocabulary, *map(str, range(1000)), "[UNK]"})
    tokenizer = Tokenizer(tokenizer_models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    weights = np.random.default_rng(0).normal(size=(len(words), 384)).astype(np.float32)
    rare = {*NAMES, *THINGS, *PLACES, *"+-*"}
    weights *= np.array([[3.0 if word in {r.lower() for r in rare} or word.isdigit() else 1.0] for word in words])
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(folder))
    return folder


def parameters(folder: Path, questions: int, domain: str, items: int) -> dict[str, Any]:
    """Return the parameters of the run, those of the paper where it has them (see params/llama3_8b.yaml)."""
    values: dict[str, Any] = {
        "run": "synthetic", "outputs": str(folder), "engine": "auto", "domain": domain, "other_runs": [], **VOTE,
        "elicit_samples": questions, "max_rewrites": 3, "embedder": str(folder / "embedder"),
        "evaluate_on": ["two_numbers_190"], "benchmark_items": items, "shots": [0, 5], "resamples": 10_000,
    }  # fmt: skip
    return values


def make(values: dict[str, Any]) -> None:
    """Write the run: its store, and what the trainings would have left."""
    folder, golds = Path(values["outputs"]) / "synthetic", {}
    settings = {name: runs.build_settings(name, runs.parameters_of(name, values)) for name in runs.STAGES}
    domain = runs.get_domain(values["domain"])
    dice = Dice(domain, golds)

    def generator(label: str) -> Generator:
        model = models.Model(label, label, lambda: folder)  # the label is its fingerprint
        return Generator(GenerationStore(folder / STORE_NAME), model, settings["vote"].seed, lambda: dice)

    with generator("base") as base:
        qa = labelled(base, settings, domain)
    for name in ("finetune", "distil"):
        write_training(folder / name, settings[name], finetune.training_pairs(qa, domain))
    for benchmark in evaluate.load_evaluated(settings["evaluate"], domain):
        golds.update({item.question: item.gold for item in benchmark.items})
        for label in LABELS:
            with generator(label) as model:
                evaluate.answer_benchmark(model, benchmark, settings["evaluate"], domain)


def labelled(generator: Generator, settings: dict[str, Any], domain: runs.Domain) -> Any:
    """Return the vote's `qa`, all that leads to it sampled."""
    gates = runs.validity_gates(domain)
    sampled = elicit.sample_completions(generator, domain, settings["elicit"])
    prefixes = [elicit.bait_turns(domain, settings["elicit"])[number].prefix for number in sampled.turns]
    questions, _ = elicit.read_questions(sampled.texts, sampled.turns, prefixes, gates)
    encoder = dedup.SentenceEncoder(settings["dedup"].embedder)
    ids, texts = list(questions["id"]), list(questions["question"])
    result = dedup.diversify(ids, texts, generator, encoder, settings["dedup"], domain, gates)
    accepted = [list(result.accepted[column]) for column in ("id", "question")]
    held_out = dedup.load_held_out(settings["dedup"], domain)
    contaminated = dedup.find_contamination(*accepted, held_out, encoder, closeness=result.threshold)
    kept, _ = dedup.split_contaminated(result, contaminated, settings["dedup"])
    sampling = Sampling(settings["vote"].vote_temperature, 1.0, settings["vote"].vote_max_tokens)
    requests = [generator.request(runs.solve_messages(domain, text), sampling) for text in kept["question"]]
    completions = vote.sampled_paths(generator, requests, settings["vote"].votes)
    paths = [[completion.text for completion in row] for row in completions]
    return vote.vote_tables(kept, paths, settings["vote"], domain)[0]


def write_training(folder: Path, settings: Any, pairs: list[dict[str, Any]]) -> None:
    """Write what a training leaves behind: a falling loss, the first pair's tokens, a record and a manifest."""
    import pandas as pd

    chance = np.random.default_rng(0)
    steps = np.arange(1, 2 * len(pairs) // 128 + 2)  # two epochs in batches of 128, as Tulu-2's
    loss = 0.4 + np.exp(-steps / 40) + chance.normal(0, 0.03, len(steps))
    ends = [len(steps) // 2, len(steps)]
    log = pd.DataFrame({"step": steps, "epoch": 2 * steps / len(steps), "loss": loss})
    log = log.assign(eval_loss=np.where(steps % max(1, ends[0]) == 0, loss + 0.05, np.nan), tokens=9_000.0 * steps)
    parts = [("context", False), (pairs[0]["completion"][0]["content"], True), ("<end>", True)]
    tokens = pd.DataFrame([(0, *part) for part in parts], columns=["pair", "token", "learned"])
    folder.mkdir(parents=True, exist_ok=True)
    log.to_parquet(folder / "log.parquet", index=False)
    tokens.to_parquet(folder / "tokens.parquet", index=False)
    counts = {"pairs": len(pairs), "held_out": 0, "trained": len(pairs), "steps": len(steps), "tokens": 0}
    record = {"fingerprint": folder.name, "base": "base", "pairs_sha256": training._pairs_hash(pairs), "counts": counts}
    runs.write_json(folder / "trained.json", record)
    runs.write_json(folder / "manifest.json", {"stage": folder.name, "parameters": settings.model_dump(), **NO_COST})


def replay(values: dict[str, Any]) -> None:
    """Execute the six notebooks on the run, one after another, and print what each took."""
    folder = Path(values["outputs"])
    values = {**values, "run": "replayed", "replay_from": "synthetic", "engine": "replay"}
    print("| notebook | wall s | CPU s | stage s | peak GB |\n| --- | --- | --- | --- | --- |", flush=True)
    for stage in runs.STAGES:
        name = f"{runs.NOTEBOOKS[stage]}.ipynb"
        began, spent = time.perf_counter(), cpu_seconds()
        own = runs.parameters_of(stage, values)
        papermill.execute_notebook(
            runs.ROOT / "notebooks" / name, folder / name, parameters=own, kernel_name="python3", progress_bar=False
        )
        wall, spent = time.perf_counter() - began, cpu_seconds() - spent
        manifest = runs.read_manifest(folder / "replayed", stage) or {}
        peak = manifest["peak_memory_bytes"] / 1e9
        print(f"| {name} | {wall:.0f} | {spent:.0f} | {manifest['seconds']:.0f} | {peak:.2f} |", flush=True)


def cpu_seconds() -> float:
    """Return the processor seconds of all processes that this one started and that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    """Make the run unless it is there, and replay it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the run goes: some 200 MB at 55,000 questions")
    parser.add_argument("--questions", type=int, default=55_000, help="completions that are elicited")
    parser.add_argument("--domain", default="math_word_problems", choices=["math_word_problems", "arithmetic"])
    parser.add_argument("--items", type=int, default=1_319, help="benchmark items; GSM8K has 1,319")
    options = parser.parse_args()
    folder = options.folder.resolve()
    values = parameters(folder, options.questions, options.domain, options.items)
    if not (folder / "synthetic" / "distil").exists():
        began = time.perf_counter()
        words = re.findall(r"\w+|[^\w\s]", " ".join(story for story, _ in STORIES).lower())
        write_embedder(folder / "embedder", [*words, *map(str.lower, (*NAMES, *THINGS, *PLACES)), *"+-*"])
        make(values)
        print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
    replay(values)


if __name__ == "__main__":
    main()
