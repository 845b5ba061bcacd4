"""Generate: look in the store, sample only what is missing, store it, and account for it.

Resume is to ask again; replay is a generator without an engine. The engine starts when the first completion is missing, so that
a finished stage runs again without loading a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import runs
from ..runs import Common, Cost, ProgressBar
from . import models
from .engines import Engine, EngineError, Job
from .store import TOO_LONG, Completion, GenerationStore, Request, Sampling, sample_seed

STORE_NAME = "store.sqlite"
COMMIT_EVERY = 256  # completions; a kill loses at most so many that were done
COMMIT_SECONDS = 5.0  # … or those of so many seconds


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
        max_model_len: int = 0,
        progress: bool = False,
    ) -> None:
        """`start_engine` is called at the first missing completion; None replays the store alone.

        A prompt that was too long before is tried again where it fits into `max_model_len` tokens (0: never).
        """
        self.store, self.model, self.seed = store, model, seed
        self._start, self._max_model_len = start_engine, max_model_len
        self._engine: Engine | None = None
        self._made_by: dict[str, Any] = {}
        self._batches: dict[int, dict[str, Any]] = {}
        self._bar = ProgressBar(model.label, shown=progress)
        self.cost = Cost()  # of all completions that were asked for, sampled now or before
        if not store.read_only:
            store.set_model(model.label, model.fingerprint)

    def request(self, messages: Sequence[dict[str, str]], sampling: Sampling, prefix: str = "") -> Request:
        """Build a request to this generator's model with the run's seed."""
        settings = Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop, self.seed)
        return Request.of(self.model.fingerprint, messages, settings, prefix)

    def generate(
        self, requests: Sequence[Request], samples: int = 1, accepted: Callable[[str], bool] | None = None
    ) -> list[list[Completion]]:
        """Return samples 0 … samples-1 of each request, in order; see `complete`."""
        flat = self.complete([(request, sample) for request in requests for sample in range(samples)], accepted)
        return [flat[i * samples : (i + 1) * samples] for i in range(len(requests))]

    def complete(
        self, pairs: Sequence[tuple[Request, int]], accepted: Callable[[str], bool] | None = None
    ) -> list[Completion]:
        """Return the completion of each (request, sample number), in order, sampling those that the store does not hold.

        The same pair twice is sampled once. `accepted(prefix + text)` only feeds the progress bar. Raises ReplayMiss without an
        engine, and PromptTooLong where not one of the prompts fits; single ones come back empty, with that as their `finish`.
        """
        keys = _keys(pairs)
        found = self._look_up(keys, pairs)
        missing = {
            (key, pair[1]): pair[0] for key, pair in zip(keys, pairs, strict=True) if (key, pair[1]) not in found
        }
        if missing:
            jobs = [
                Job(request, i, sample_seed(key, i, request.sampling.seed)) for (key, i), request in missing.items()
            ]
            sampled = self._sample(jobs, accepted)
            found |= self._look_up([key for key, _ in missing], [(request, i) for (_, i), request in missing.items()])
            self.cost += Cost(sampled=sampled)
        whole = [found[key, sample] for key, (_, sample) in zip(keys, pairs, strict=True)]
        self._account(whole)
        if whole and all(completion.finish == TOO_LONG for completion in whole):
            raise models.PromptTooLong(
                f"max_model_len: {self._max_model_len} is too small for every one of {len(whole)} prompts, the shortest of which has "
                f"{min(c.prompt_tokens for c in whole)} tokens; raise it, or lower the stage's max_tokens",
                min(c.prompt_tokens for c in whole),
            )
        return whole

    def missing(self, pairs: Sequence[tuple[Request, int]]) -> list[tuple[Request, int]]:
        """Return the (request, sample number) pairs that the store cannot answer yet; nothing is sampled."""
        keys = _keys(pairs)
        found = self._look_up(keys, pairs)
        return [pair for key, pair in zip(keys, pairs, strict=True) if (key, pair[1]) not in found]

    def _look_up(self, keys: list[bytes], pairs: Sequence[tuple[Request, int]]) -> dict[tuple[bytes, int], Completion]:
        samples: dict[bytes, int] = {}
        limit: dict[bytes, int] = {}
        for key, (request, sample) in zip(keys, pairs, strict=True):
            samples[key] = max(samples.get(key, 0), sample + 1)
            limit[key] = request.sampling.max_tokens
        return {
            (key, sample): completion
            for key, count in samples.items()
            for sample, completion in enumerate(self.store.samples(key, 0, count))
            if completion is not None and not self._fits_now(completion, limit[key])
        }

    def _fits_now(self, completion: Completion, max_tokens: int) -> bool:
        too_long = completion.finish == TOO_LONG and self._start is not None
        return too_long and completion.prompt_tokens + max_tokens <= self._max_model_len

    def _sample(self, jobs: list[Job], accepted: Callable[[str], bool] | None) -> int:
        if self._start is None:
            first = jobs[0]
            raise ReplayMiss(
                f"{self.store.path}: does not hold sample {first.sample} of the request {first.request.messages[-1][1][:200]!r} to "
                f"{self.model.label} ({len(jobs)} completions are missing). Replay samples nothing: run with engine: auto to sample them"
            )
        if self._engine is None:
            self._engine = self._start()
            self._made_by = {
                "engine": self._engine.name,
                "guarantee": self._engine.guarantee,
                **runs.library_versions(),
            }
        engine, meter = self._engine, runs.Meter(self._engine.devices)
        chunk: list[tuple[Request, int, Completion]] = []
        added, since = 0, time.monotonic()
        self._bar.start(len(jobs))
        try:
            for index, completion in engine.sample(jobs):
                request = jobs[index].request
                chunk.append((request, jobs[index].sample, completion))
                self._bar.update(completion.tokens, accepted(request.prefix + completion.text) if accepted else None)
                if len(chunk) >= COMMIT_EVERY or time.monotonic() - since >= COMMIT_SECONDS:
                    added += self._commit(chunk, meter)
                    chunk, since = [], time.monotonic()
        finally:  # also what was done before an interrupt
            if chunk:
                added += self._commit(chunk, meter)
            self._bar.pause()
        return added

    def _commit(self, chunk: list[tuple[Request, int, Completion]], meter: runs.Meter) -> int:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return self.store.put(chunk, {**self._made_by, "time": now, **meter.lap()})

    def _account(self, completions: list[Completion]) -> None:
        shares: dict[int, int] = {}
        for completion in completions:
            shares[completion.batch] = shares.get(completion.batch, 0) + 1
        for number, count in shares.items():
            made = self._batches.setdefault(number, self.store.batch(number))
            if made.get("seconds") is None or not made.get("count"):
                self.cost += Cost(unmetered=count)
                continue
            share, energy = count / made["count"], made.get("energy_joules")
            self.cost += Cost(
                seconds=made["seconds"] * share,
                device_seconds=made["device_seconds"] * share,
                energy_joules=None if energy is None else energy * share,
            )
        self.cost += Cost(
            completions=len(completions),
            truncated=sum(completion.truncated for completion in completions),
            too_long=sum(completion.finish == TOO_LONG for completion in completions),
            prompt_tokens=sum(completion.prompt_tokens for completion in completions),
            completion_tokens=sum(completion.tokens for completion in completions),
        )

    @property
    def engine_name(self) -> str:
        """Name of the engine that sampled, "store" where nothing had to be."""
        return self._engine.name if self._engine is not None else "replay" if self._start is None else "store"

    @property
    def guarantee(self) -> str:
        """What a completion is a function of, as each engine says that made one of those asked for; sorted, joined by "; "."""
        return "; ".join(sorted({made["guarantee"] for made in self._batches.values() if made.get("guarantee")}))

    def close(self) -> None:
        """End the engine, then the store."""
        self._bar.close()
        try:
            if self._engine is not None:
                self._engine.close()
        finally:
            self.store.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _keys(pairs: Sequence[tuple[Request, int]]) -> list[bytes]:
    keys: dict[Request, bytes] = {}
    for request, _ in pairs:
        if request not in keys:
            keys[request] = request.key()
    return [keys[request] for request, _ in pairs]


def open_generator(settings: Common, model: models.Model | None = None, *, label: str = "base") -> Generator:
    """Open the generator of a run: its store, the model (default: the parameter `model`), and the engine that the parameters name.

    With engine "replay" it reads the store of `replay_from`, needs no weights, and takes the model's fingerprint from the store.
    """
    if settings.engine == "replay":
        return _replay(settings, label)
    if model is None:
        model = models.resolve_model(settings.model, label, weights=settings.engine != "server")
    store = GenerationStore(runs.run_folder(settings) / STORE_NAME)
    return Generator(
        store,
        model,
        settings.seed,
        lambda: start_engine(settings, model),
        max_model_len=settings.max_model_len,
        progress=True,
    )


def _replay(settings: Common, label: str) -> Generator:
    store = GenerationStore(runs.run_folder(settings, settings.replay_from) / STORE_NAME, read_only=True)
    fingerprint = store.models().get(label)
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
    folder = model.locate()
    tokenizer = models.load_tokenizer(folder)

    def render(request: Request) -> list[int]:
        return models.prompt_token_ids(tokenizer, request, settings.max_model_len)

    if name == "server":
        return _server(settings, model.label, tokenizer, render)
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


def _server(settings: Common, label: str, tokenizer: Any, render: Any) -> Engine:
    from .engines.server import ServerEngine

    # A server serves the model that it was started with: the tuned one needs a name of its own there.
    served = settings.served_names.get(label) or (settings.model if label == "base" else label)
    engine = ServerEngine(settings.base_urls, served, render, concurrency=settings.concurrency)
    probe = Request.of("", [{"role": "user", "content": "What is 3 + 4?"}], Sampling(max_tokens=1))
    try:
        engine.meet(probe, models.prompt_token_ids(tokenizer, probe, settings.max_model_len))
    except BaseException:
        engine.close()
        raise
    return engine


def _vllm(settings: Common, folder: Path, render: Any) -> Engine:
    from .engines.vllm import VllmEngine

    return VllmEngine(
        folder,
        render,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        engine_args=dict(settings.engine_args),
    )
