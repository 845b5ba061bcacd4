"""Evaluation: run a model over benchmarks with lm-evaluation-harness, its answers coming from the generation store.

Each answer is scored in three ways side by side: `strict` (the GSM8K format `#### x`), `flexible` (the last number, as the harness
does) and `symbolic` (ours: `answers.extract_answer` and `answers.answers_equal`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import answers, benchmarks, models, prompts, runs
from .params import Evaluate
from .store import Completion, Sampling

if TYPE_CHECKING:
    import pandas as pd

    from .generate import Generator

SCORINGS = ("strict", "flexible", "symbolic")


PAIRS = (("base", "tuned"), ("student", "student_tuned"))  # before and after, by label


def contestants(settings: Evaluate) -> dict[str, models.Model | None]:
    """Return the models to evaluate by label: base, tuned, student, student_tuned. None in a replay, which needs no weights."""
    if settings.engine == "replay":
        return dict.fromkeys(label for pair in PAIRS for label in pair)
    folder = runs.run_folder(settings)
    base = models.resolve(settings.model)
    recorded = runs.read_manifest(folder, "distil") or {"parameters": {"student": "half"}}
    untrained = models.student(recorded["parameters"]["student"], base)
    return {
        "base": base,
        "tuned": models.load_trained(folder / "finetune", base, "tuned"),
        "student": untrained,
        "student_tuned": models.load_trained(folder / "distil", untrained, "student_tuned"),
    }


def pooled(own: pd.DataFrame, settings: Evaluate) -> pd.DataFrame:
    """Put the scores of `other_runs` beside this run's. Raises RunError where they answered other items or have the same seed."""
    import pandas as pd

    frames, seen = [own], {settings.seed}
    items = set(zip(own["benchmark"], own["question"], strict=True))
    for name in settings.other_runs:
        other = runs.read_table(runs.run_folder(settings, name), "evaluate", "scores")
        seeds = set(other["seed"].unique().tolist())
        if set(zip(other["benchmark"], other["question"], strict=True)) != items:
            raise runs.RunError(
                f"other_runs: {name!r} answered other items; evaluate it with the same benchmark parameters"
            )
        if seeds & seen:
            raise runs.RunError(f"other_runs: {name!r} has seed {min(seeds & seen)} as well; a seed counts once")
        seen |= seeds
        frames.append(other)
    return pd.concat(frames, ignore_index=True)


def score(completion: str, gold: str) -> dict[str, bool]:
    """Say for each scoring whether `completion` ends on the answer `gold`. An unreadable answer is wrong."""
    found = {
        "strict": answers.strict_answer(completion),
        "flexible": answers.flexible_answer(completion),
        "symbolic": answers.extract_answer(completion),
    }
    return {name: answer is not None and answers.answers_equal(answer, gold) for name, answer in found.items()}


def evaluate(
    generator: Generator, benchmark: benchmarks.Benchmark, settings: Evaluate, domain: prompts.Domain
) -> pd.DataFrame:
    """Answer every item greedily and, if `eval_samples` is set, base and tuned so many times at `eval_temperature`; a row an answer."""
    import pandas as pd

    if settings.shots > len(benchmark.train):  # the harness would take them from the tested items
        raise benchmarks.BenchmarkError(
            f"shots: {settings.shots} is too many for {benchmark.name}, which has {len(benchmark.train)} worked examples"
        )
    rows: list[dict[str, Any]] = []
    for decoding, temperature, repeats in _decodings(settings, generator.model.label):
        sampling = Sampling(temperature, 1.0, settings.eval_max_tokens)
        rows += _run(generator, benchmark, settings, domain, sampling, decoding, repeats)
    return pd.DataFrame(rows)


def _decodings(settings: Evaluate, label: str) -> list[tuple[str, float, int]]:
    """A student is judged on its greedy answers alone: sampling them too would cost a minute of the CPU run. Ours."""
    if not settings.eval_samples or label not in PAIRS[0]:
        return [("greedy", 0.0, 1)]
    return [("greedy", 0.0, 1), ("sampled", settings.eval_temperature, settings.eval_samples)]


def _run(
    generator: Generator,
    benchmark: benchmarks.Benchmark,
    settings: Evaluate,
    domain: prompts.Domain,
    sampling: Sampling,
    decoding: str,
    repeats: int,
) -> list[dict[str, Any]]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    harness = _harness_model(generator, sampling, repeats)
    task = benchmarks.harness_task(
        benchmark, lambda question: prompts.solve_messages(domain, question)[-1]["content"], score, repeats=repeats,
        generation={"until": [], "do_sample": sampling.temperature > 0, "temperature": sampling.temperature,
                    "max_gen_toks": sampling.max_tokens},
    )  # fmt: skip
    result = lm_eval.simple_evaluate(
        model=harness,
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),  # the index of its own tasks takes 7 s to read
        num_fewshot=settings.shots,
        apply_chat_template=True,
        fewshot_as_multiturn=settings.shots > 0,
        system_instruction=settings.system_prompt or domain.solve_system or None,
        bootstrap_iters=0,
        log_samples=True,
        verbosity="ERROR",
    )
    rows = []
    for logged in result["samples"][benchmark.name]:
        context, doc = logged["arguments"][0][0], logged["doc"]
        for sample in range(repeats):
            completion = harness.made[context, sample]
            rows.append({
                "benchmark": benchmark.name, "model": generator.model.label, "shots": settings.shots, "decoding": decoding,
                "item": doc["item"], "sample": sample, "seed": settings.seed,
                "question": doc["question"], "gold": doc["gold"], "completion": completion.text,
                "answer": answers.extract_answer(completion.text), **score(completion.text, doc["gold"]),
                "truncated": completion.truncated,
            })  # fmt: skip
    return sorted(rows, key=lambda row: (row["item"], row["sample"]))


def _harness_model(generator: Generator, sampling: Sampling, repeats: int) -> Any:
    """Return a model for the harness that answers through the generator: chats travel to it as JSON."""
    from lm_eval.api.model import LM

    class StoreModel(LM):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.made: dict[tuple[str, int], Completion] = {}

        @property
        def tokenizer_name(self) -> str:
            return generator.model.fingerprint

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return json.dumps(chat_history, ensure_ascii=False)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return "the model's own"

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            asked: Counter[str] = Counter()
            pairs, places = [], []
            for instance in requests:
                context = instance.args[0]
                request = generator.request(json.loads(context), sampling)
                sample = asked[context] % repeats  # an item that stands twice is one request: it gets the same samples
                places.append((context, sample))
                pairs.append((request, sample))
                asked[context] += 1
            completions = generator.complete(pairs)
            self.made.update(zip(places, completions, strict=True))
            return [completion.text for completion in completions]

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            raise benchmarks.BenchmarkError(
                "log-likelihood tasks need a model in memory; this kit's benchmarks are generated answers"
            )

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            raise benchmarks.BenchmarkError(
                "log-likelihood tasks need a model in memory; this kit's benchmarks are generated answers"
            )

    return StoreModel()
