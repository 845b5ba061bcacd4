"""lm-evaluation-harness on the generation store: a model that answers out of it, and tasks for general ability.

What the harness asks for is looked up first and sampled only where it is missing, so that an evaluation resumes and
replays like any other stage. That holds for log-likelihoods too: one stands in the store as the completion of a request
with the two roles `context` and `continuation`, computed by the harness's own model (hf or vllm) in memory.
"""

from __future__ import annotations

import difflib
import functools
import gc
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import benchmarks, generation
from ..generation import Completion, Job, Request, Sampling
from ..runs import Evaluate

if TYPE_CHECKING:
    import pandas as pd

BATCH = 8  # ours: requests at once where a log-likelihood is computed
CHUNK = 2048  # ours: log-likelihoods between two visits to the store; a kill loses so many
TOGETHER = 1024  # ours: log-likelihoods handed to vLLM at a time
SCORED = Sampling(0.0, 1.0, 0)  # nothing is drawn
# Of a task's metrics the first of these that it has is compared, else its first.
METRICS = ("acc_norm", "acc", "mc2", "exact_match")
FILTERS = ("none", "flexible-extract")


def run_task(
    model: Any, task: Any, *, shots: int, chat: bool, system: str | None = None, manager: Any = None, limit: int = 0
) -> dict[str, Any]:
    """Run one task, given by name or definition, on a model of the harness; return the results with all samples."""
    from unittest.mock import patch

    import lm_eval
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # It would start programs for 2 s each time, to describe a machine that the manifest names.
    with patch("lm_eval.evaluator.add_env_info"):
        result: dict[str, Any] = lm_eval.simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=manager or TaskManager(include_defaults=False),  # the index of its own tasks takes 7 s to read
            num_fewshot=shots,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat and shots > 0,
            system_instruction=system,
            limit=limit or None,
            bootstrap_iters=0,
            log_samples=True,
            verbosity="ERROR",
        )
    return result


def store_model(generator: generation.Generator, repeats: int = 1, scorer: generation.Generator | None = None) -> Any:
    """Return a model for the harness that answers through `generator`: chats travel to it as JSON.

    `repeats` is the number of samples an item; `scorer` gives log-likelihoods, see `open_scorer`.
    """
    from lm_eval.api.model import LM

    class StoreModel(LM):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.completions: dict[tuple[str, int], Completion] = {}

        @property
        def tokenizer_name(self) -> str:
            return generator.model.fingerprint

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return json.dumps(chat_history, ensure_ascii=False)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return "the model's own"

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            times_asked: Counter[str] = Counter()
            pairs, places = [], []
            for instance in requests:
                context, options = instance.args
                request = generator.request(json.loads(context), _sampling(options))
                # An item that stands twice is one request: it gets the same samples.
                sample = times_asked[context] % repeats
                places.append((context, sample))
                pairs.append((request, sample))
                times_asked[context] += 1
            completions = generator.complete(pairs)
            self.completions.update(zip(places, completions, strict=True))
            return [_cut(done.text, pair[0].sampling.stop) for done, pair in zip(completions, pairs, strict=True)]

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            if scorer is None:
                raise benchmarks.BenchmarkError("log-likelihood tasks belong into the parameter general_tasks")
            pairs = [(_scored(scorer, *instance.args), 0) for instance in requests]
            return [tuple(json.loads(completion.text)) for completion in scorer.complete(pairs)]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            raise benchmarks.BenchmarkError(
                "general_tasks: perplexity of whole texts is not supported; choose other tasks"
            )

    return StoreModel()


def _sampling(options: dict[str, Any]) -> Sampling:
    temperature = float(options.get("temperature") or 0.0) if options.get("do_sample") else 0.0
    until = options.get("until") or []
    stop = (until,) if isinstance(until, str) else tuple(until)
    return Sampling(temperature, 1.0, int(options.get("max_gen_toks", 256)), stop)  # 256: the harness's own default


def _cut(text: str, stop: Sequence[str]) -> str:
    """The store keeps a stop string, the harness's models do not."""
    return text[: min((text.find(end) for end in stop if end and end in text), default=len(text))]


def _scored(scorer: generation.Generator, context: str, continuation: str) -> Request:
    messages = [{"role": "context", "content": context}, {"role": "continuation", "content": continuation}]
    return scorer.request(messages, SCORED)


class LogLikelihoods:
    """An engine whose "completion" is the log-likelihood of a continuation, as JSON: [value, is greedy].

    `model` is a model of the harness.
    """

    devices = 1
    guarantee = "a log-likelihood depends on its batch by rounding alone"

    def __init__(self, model: Any, name: str) -> None:
        self._model, self.name = model, name

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Score every job."""
        from lm_eval.api.instance import Instance

        texts = [(job.request.messages[0][1], job.request.messages[1][1]) for job in jobs]
        for start in range(0, len(texts), CHUNK):
            chunk = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(texts[start : start + CHUNK])]
            for i, (value, greedy) in enumerate(self._model.loglikelihood(chunk, disable_tqdm=True)):
                yield start + i, Completion(json.dumps([float(value), bool(greedy)]), "scored", 0, 0)

    def close(self) -> None:
        """Free the model's memory."""
        llm = getattr(getattr(self._model, "model", None), "llm_engine", None)
        if llm is not None:  # vLLM's processes outlive their object
            generation.shut_down(llm)
        self._model = None
        gc.collect()


class Scorer(generation.Generator):
    """Log-likelihoods of another generator's model, in its store, which that one closes."""

    def close(self) -> None:
        """End the engine alone."""
        self._bar.close()
        if self._engine is not None:
            self._engine.close()


def open_scorer(generator: generation.Generator, settings: Evaluate) -> Scorer:
    """Return the log-likelihoods of a generator's model; in a replay they have no engine either."""
    model = generator.model

    def start() -> LogLikelihoods:
        name, _ = generation.choose_engine(settings)
        if name == "server":
            raise benchmarks.BenchmarkError(
                "general_tasks: engine 'server' gives no log-likelihoods; evaluate with engine: transformers or vllm"
            )
        return LogLikelihoods(_in_memory(name, model.locate(), settings), f"lm-eval {name}")

    return Scorer(
        generator.store, model, generator.seed, None if settings.engine == "replay" else start, progress="likelihoods"
    )


def _in_memory(engine: str, folder: Path, settings: Evaluate) -> Any:
    """Return the harness's own model on the folder's weights."""
    if engine == "vllm":
        return generation.start_vllm(lambda: _vllm(folder, settings))
    from lm_eval.models.huggingface import HFLM

    device = generation.best_device()
    dtype = "float32" if settings.dtype == "auto" and device == "cpu" else settings.dtype
    return HFLM(pretrained=str(folder), dtype=dtype, device=device, batch_size=BATCH)


def _vllm(folder: Path, settings: Evaluate) -> Any:
    import torch
    from lm_eval.models.vllm_causallms import VLLM

    cuda = torch.cuda.is_available()
    share, dtype = (0.6, settings.dtype) if cuda else (0.2, "bfloat16" if settings.dtype == "auto" else settings.dtype)
    arguments = {"max_model_len": settings.max_model_len, "gpu_memory_utilization": share, "enforce_eager": not cuda}
    # With "auto" lm-eval has vLLM show a bar, which divides by zero where bars are switched off.
    return VLLM(pretrained=str(folder), dtype=dtype, batch_size=TOGETHER, **(arguments | settings.engine_args))


def general_ability(generator: generation.Generator, settings: Evaluate) -> pd.DataFrame:
    """Run the `general_tasks`; return one row per item, with its `score` on the task's `metric`.

    They are the harness's own, and the kit's, which need no hub (`benchmarks.general_task`).
    Log-likelihood tasks are put without a chat template, generated ones with it, both as the harness does by itself.
    `benchmark_dir` may hold task files of one's own. Raises BenchmarkError for an unknown task.
    """
    import pandas as pd

    check_tasks(settings)
    folder = benchmarks.benchmark_folder(settings.benchmark_dir)
    shots = settings.general_shots
    own_tasks = {name for name in settings.general_tasks if benchmarks.is_general_task(name)}
    manager = None if own_tasks.issuperset(settings.general_tasks) else _tasks(folder)
    tasks = {name: name not in own_tasks and _generated(manager, name) for name in settings.general_tasks}
    rows: list[dict[str, Any]] = []
    for chat in (False, True):  # log-likelihoods first: two engines may not fit on the device together
        with open_scorer(generator, settings) as scorer:
            model = store_model(generator, scorer=scorer)
            for name in [name for name, generated in tasks.items() if generated is chat]:
                task = benchmarks.general_task(name, folder=folder, shots=shots) if name in own_tasks else name
                limit = settings.general_items
                result = run_task(model, task, shots=shots, chat=chat, manager=manager, limit=limit)
                decoding = "greedy" if chat else "log-likelihood"
                rows += _general_rows(name, result, generator.model.label, settings, decoding)
    return pd.DataFrame(rows)


def check_tasks(settings: Evaluate) -> None:
    """Raise BenchmarkError for a task that neither the harness nor the kit has. Loads no model and nothing of a hub."""
    folder = benchmarks.benchmark_folder(settings.benchmark_dir)
    others = []
    for name in settings.general_tasks:
        if benchmarks.is_general_task(name):
            benchmarks.general_task(name, folder=folder, shots=settings.general_shots)
        else:
            others.append(name)
    if not others:
        return
    task_index = _tasks(folder).task_index
    for name in others:
        if name not in task_index:
            near = difflib.get_close_matches(name, task_index, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise benchmarks.BenchmarkError(
                f"general_tasks: lm-evaluation-harness has no task {name!r}. {hint}`lm_eval ls tasks` lists them"
            )


@functools.lru_cache(maxsize=2)
def _tasks(folder: str) -> Any:
    """The index of the harness's tasks and of those in `folder`: it takes seconds to read."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder or None)


def _generated(manager: Any, name: str) -> bool:
    """Whether a task (or all of a group's) is answered in words and not by log-likelihoods."""
    kinds = {task.get_config("output_type") == "generate_until" for task in manager.load([name])["tasks"].values()}
    if len(kinds) > 1:
        raise benchmarks.BenchmarkError(
            f"general_tasks: {name!r} mixes generated answers and log-likelihoods; name its tasks one by one"
        )
    return kinds == {True}


def _general_rows(
    name: str, result: dict[str, Any], label: str, settings: Evaluate, decoding: str
) -> list[dict[str, Any]]:
    rows = []
    for task, logged in sorted(result["samples"].items()):
        filters = [sample["filter"] for sample in logged]
        # A task with several filters logs an item under each: keep one.
        kept = next((one for one in FILTERS if one in filters), filters[0])
        for sample in [sample for sample in logged if sample["filter"] == kept]:
            metric = next((m for m in METRICS if m in sample), next(iter(sample["metrics"])))
            rows.append({
                "benchmark": name, "kind": task, "model": label, "shots": settings.general_shots, "decoding": decoding,
                "item": f"{task} {sample['doc_id']}", "sample": 0, "seed": settings.seed,
                "question": sample["doc_hash"],
                "metric": metric, "score": float(sample[metric]),
            })  # fmt: skip
    return rows
