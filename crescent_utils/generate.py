"""Generate: look in the store, sample only what is missing, store it, and account for it.

Resume is to ask again; replay is a generator without an engine. The engine starts when the first completion is missing, so that
a finished stage runs again without loading a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import models, runs
from .engines import Engine, EngineError, Job
from .params import Common
from .store import Completion, GenerationStore, Request, Sampling, sample_seed

STORE_NAME = "store.sqlite"
COMMIT_EVERY = 256  # completions; a kill loses at most so many that were done


class ReplayMiss(LookupError):
    """A replay asked for a completion that the store does not hold; the message names it and how to sample it."""


class Generator:
    """Completions of one model, from the store where they are there, else from the engine."""

    def __init__(
        self,
        store: GenerationStore,
        model: models.Model,
        seed: int,
        start_engine: Callable[[], Engine] | None,
        *,
        progress: bool = False,
    ) -> None:
        """`start_engine` is called at the first missing completion; None replays the store alone."""
        self.store, self.model, self.seed = store, model, seed
        self._start, self._progress = start_engine, progress
        self._engine: Engine | None = None
        self.engine_name = "replay"
        self.asked = self.sampled = self.prompt_tokens = self.completion_tokens = self.truncated = 0
        if not store.read_only:
            store.set_model(model.label, model.fingerprint)

    def request(self, messages: Sequence[dict[str, str]], sampling: Sampling, prefix: str = "") -> Request:
        """Build a request to this generator's model with the run's seed."""
        settings = Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop, self.seed)
        return Request.of(self.model.fingerprint, messages, settings, prefix)

    def generate(self, requests: Sequence[Request], samples: int = 1) -> list[list[Completion]]:
        """Return samples 0 … samples-1 of each request, in order; see `complete`."""
        flat = self.complete([(request, sample) for request in requests for sample in range(samples)])
        return [flat[i * samples : (i + 1) * samples] for i in range(len(requests))]

    def complete(self, pairs: Sequence[tuple[Request, int]]) -> list[Completion]:
        """Return the completion of each (request, sample number), in order, sampling those that the store does not hold.

        The same pair twice is sampled once. Raises ReplayMiss without an engine.
        """
        keys = [request.key() for request, _ in pairs]
        found = self._look_up(keys, pairs)
        missing = {
            (key, pair[1]): pair[0] for key, pair in zip(keys, pairs, strict=True) if (key, pair[1]) not in found
        }
        if missing:
            self._sample(
                [Job(request, i, sample_seed(key, i, request.sampling.seed)) for (key, i), request in missing.items()]
            )
            found |= self._look_up([key for key, _ in missing], [(request, i) for (_, i), request in missing.items()])
        whole = [found[key, sample] for key, (_, sample) in zip(keys, pairs, strict=True)]
        self._account(whole)
        return whole

    def _look_up(self, keys: list[bytes], pairs: Sequence[tuple[Request, int]]) -> dict[tuple[bytes, int], Completion]:
        samples: dict[bytes, int] = {}
        requests: dict[bytes, Request] = {}
        for key, (request, sample) in zip(keys, pairs, strict=True):
            samples[key] = max(samples.get(key, 0), sample + 1)
            requests[key] = request
        return {
            (key, sample): completion
            for key, count in samples.items()
            for sample, completion in enumerate(self.store.get(requests[key], count))
            if completion is not None
        }

    def _sample(self, jobs: list[Job]) -> None:
        if self._start is None:
            first = jobs[0]
            raise ReplayMiss(
                f"{self.store.path}: does not hold sample {first.sample} of the request {first.request.messages[-1][1][:200]!r} to "
                f"{self.model.label} ({len(jobs)} completions are missing). Replay samples nothing: run with engine: auto to sample them"
            )
        if self._engine is None:
            self._engine = self._start()
            self.engine_name = self._engine.name
        made_by = {"engine": self._engine.name, "guarantee": self._engine.guarantee, **runs.versions()}
        chunk: list[tuple[Request, int, Completion]] = []
        bar = _progress_bar(len(jobs), self._progress)
        try:
            for index, completion in self._engine.sample(jobs):
                chunk.append((jobs[index].request, jobs[index].sample, completion))
                bar.update(1)
                if len(chunk) >= COMMIT_EVERY:
                    self.sampled += self.store.put(chunk, made_by)
                    chunk = []
        finally:  # also what was done before an interrupt
            if chunk:
                self.sampled += self.store.put(chunk, made_by)
            bar.close()

    def _account(self, completions: list[Completion]) -> None:
        for completion in completions:
            self.asked += 1
            self.prompt_tokens += completion.prompt_tokens
            self.completion_tokens += completion.tokens
            self.truncated += completion.truncated

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of all completions that were asked for, sampled now or before."""
        return {"prompt": self.prompt_tokens, "completion": self.completion_tokens}

    def close(self) -> None:
        """End the engine, then the store."""
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                engine.close()
        finally:
            self.store.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_generator(settings: Common, model: models.Model | None = None, *, label: str = "base") -> Generator:
    """Open the generator of a run: its store, the model (default: the parameter `model`), and the engine that the parameters name.

    With engine "replay" it reads the store of `replay_from`, needs no weights, and takes the model's fingerprint from the store.
    """
    if settings.engine == "replay":
        return _replay(settings, label)
    if model is None:
        model = models.resolve(settings.model, label)
    store = GenerationStore(runs.run_folder(settings) / STORE_NAME)
    return Generator(store, model, settings.seed, lambda: start_engine(settings, model), progress=True)


def _replay(settings: Common, label: str) -> Generator:
    store = GenerationStore(runs.run_folder(settings, settings.replay_from) / STORE_NAME, read_only=True)
    fingerprint = store.model(label)
    if fingerprint is None:
        raise ReplayMiss(
            f"{store.path}: holds no completion of the model {label!r}; run with engine: auto to sample them"
        )

    def nowhere() -> Path:
        raise models.ModelError("a replay has no weights; choose engine: auto")

    return Generator(store, models.Model(label, fingerprint, nowhere), settings.seed, None)


def choose_engine(settings: Common) -> tuple[str, str]:
    """Return the engine that `engine` means here and why: "auto" takes vLLM where it works, else transformers."""
    if settings.engine != "auto":
        return settings.engine, "named by the parameter `engine`"
    from .engines import vllm

    trouble = vllm.why_not()
    return ("transformers", trouble) if trouble else ("vllm", "vLLM works here")


def start_engine(settings: Common, model: models.Model) -> Engine:
    """Start the engine for `model`. With "auto", a vLLM that does not start gives way to transformers, and says so."""
    name, why = choose_engine(settings)
    if name == "server":
        from .engines.server import ServerEngine

        served = settings.model
        return ServerEngine(settings.base_urls, served)
    folder = model.locate()
    tokenizer = models.load_tokenizer(folder)

    def render(request: Request) -> list[int]:
        return models.render(tokenizer, request, settings.max_model_len)

    if name == "vllm":
        try:
            return _vllm(settings, folder, render)
        except EngineError as error:
            if settings.engine != "auto":
                raise
            why = str(error)
    print(f"engine: transformers ({why})", flush=True)
    from .engines.transformers import TransformersEngine

    return TransformersEngine(folder, render, dtype=settings.dtype)


def _vllm(settings: Common, folder: Path, render: Any) -> Engine:
    from .engines.vllm import VllmEngine

    return VllmEngine(
        folder,
        render,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        engine_args=dict(settings.engine_args),
    )


def _progress_bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, disable=not shown, unit="completion", mininterval=5.0, leave=False, dynamic_ncols=True)
