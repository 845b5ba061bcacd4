"""The generator: looks in the store, samples only what is missing, stores it, and accounts for it.

Resuming is asking again; a replay is a generator without an engine. The engine starts when the first completion is
missing, so that a finished stage runs again without loading a model.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from .. import runs
from ..runs import Common, Cost, ProgressBar
from . import models
from .engines import Engine, EngineError, Job, answered_before
from .store import TOO_LONG, Completion, GenerationStore, Request, Sampling, sample_seed

Pair = tuple[Request, int]  # a request and the number of one of its samples
STORE_NAME = "store.sqlite"
COMMIT_EVERY = 256  # completions; a kill loses at most so many that were done
KEEP_ENGINE = "CRESCENT_KEEP_ENGINE"  # an environment variable: the stages of a run share a process, and an engine
COMMIT_SECONDS = 5.0  # … or those of so many seconds


class ReplayMiss(runs.InputError, LookupError):
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
        give_back: Callable[[Engine], None] = lambda engine: engine.close(),
        max_model_len: int = 0,
        progress: str = "",
        changes: Sequence[str] = (),
    ) -> None:
        """`start_engine` is called at the first missing completion; None replays the store alone.

        `changes` say in words what a replay asks for otherwise than the recorded run: the likely reason of a miss.

        `give_back` gets the engine at the end (an engine that failed is closed at once). `progress` is what a bar says
        that it counts, completions or likelihoods; "" shows none.
        A prompt that was too long before is tried again where it fits into `max_model_len` tokens (0: never).
        """
        self.store, self.model, self.seed = store, model, seed
        self._start, self._give_back, self._max_model_len = start_engine, give_back, max_model_len
        self._changes = changes
        self._engine: Engine | None = None
        self.engine_name = "replay" if start_engine is None else "store"  # then that of the engine that sampled
        self._batches: dict[int, dict[str, Any]] = {}
        self._bar = ProgressBar(model.label, shown=bool(progress), unit=progress)
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
        """Return samples 0 … samples-1 of each request, one list per request; see `complete`."""
        flat = self.complete([(request, sample) for request in requests for sample in range(samples)], accepted)
        return [flat[i * samples : (i + 1) * samples] for i in range(len(requests))]

    def complete(self, pairs: Sequence[Pair], accepted: Callable[[str], bool] | None = None) -> list[Completion]:
        """Return the completion of each (request, sample number), in order; sample those that the store lacks.

        The same pair twice is sampled once. A prompt that is too long comes back as an empty completion whose `finish`
        says so. `accepted(prefix + text)` only feeds the progress bar. Raises ReplayMiss without an engine.
        """
        stored = self.stored(pairs)
        missing = list(dict.fromkeys(pair for pair, done in zip(pairs, stored, strict=True) if done is None))
        if missing:
            self._sample_all(missing, accepted)
            sampled = dict(zip(missing, self.stored(missing), strict=True))
            stored = [done or sampled[pair] for pair, done in zip(pairs, stored, strict=True)]
        completions = cast(list[Completion], stored)
        self._account(completions)
        if completions and all(completion.finish == TOO_LONG for completion in completions):
            shortest = min(completion.prompt_tokens for completion in completions)
            warnings.warn(
                f"max_model_len: {self._max_model_len} is too small for all {len(completions)} prompts, the shortest "
                f"of {shortest} tokens, so none was asked: raise it or lower the stage's max_tokens",
                stacklevel=2,
            )
        return completions

    def stored(self, pairs: Sequence[Pair]) -> list[Completion | None]:
        """Return what the store holds for each (request, sample number), None for what would have to be sampled.

        A prompt that was too long before counts as missing where it fits by now.
        """
        return [
            done if done and not self._fits_now(request, done) else None
            for (request, _), done in zip(pairs, self.store.lookup(pairs), strict=True)
        ]

    def _fits_now(self, request: Request, completion: Completion) -> bool:
        was_too_long = completion.finish == TOO_LONG and self._start is not None
        return was_too_long and completion.prompt_tokens + request.sampling.max_tokens <= self._max_model_len

    def _sample_all(self, missing: Sequence[Pair], accepted: Callable[[str], bool] | None) -> None:
        """Sample the pairs; an engine that fails on its way is started again as long as each start gets further.

        After any failure or interrupt the engine is ended: what it was doing then is not known.
        """
        while missing:
            try:
                self._sample(missing, accepted)
                return
            except EngineError as error:
                self._end_engine()
                rest = [pair for pair, done in zip(missing, self.stored(missing), strict=True) if done is None]
                if len(rest) == len(missing):
                    raise
                print(f"engine: started again for {len(rest):,} completions ({error})", flush=True)
                missing = rest
            except BaseException:
                self._end_engine()
                raise

    def _sample(self, pairs: Sequence[Pair], accepted: Callable[[str], bool] | None) -> None:
        """Sample the pairs and store them; at an interrupt, those that are done."""
        if self._start is None:
            raise ReplayMiss(self._words_of_miss(pairs))
        if self._engine is None:
            self._engine = self._start()
            self.engine_name = self._engine.name
        keys = {request: request.key() for request in dict.fromkeys(request for request, _ in pairs)}
        jobs = [Job(request, i, sample_seed(keys[request], i, request.sampling.seed)) for request, i in pairs]
        meter = runs.Meter(self._engine.devices)
        chunk: list[tuple[Request, int, Completion]] = []
        last_commit = time.monotonic()
        self._bar.start(len(jobs))
        answers = self._engine.sample(jobs)
        try:
            for index, completion in answers:
                request = jobs[index].request
                chunk.append((request, jobs[index].sample, completion))
                self._bar.update(completion.tokens, accepted(request.prefix + completion.text) if accepted else None)
                if len(chunk) >= COMMIT_EVERY or time.monotonic() - last_commit >= COMMIT_SECONDS:
                    self._commit(chunk, meter)
                    chunk, last_commit = [], time.monotonic()
        except BaseException as interrupt:
            for index, completion in answered_before(interrupt, answers):
                chunk.append((jobs[index].request, jobs[index].sample, completion))
            raise
        finally:
            if chunk:
                self._commit(chunk, meter)
            self._bar.pause()

    def _words_of_miss(self, pairs: Sequence[Pair]) -> str:
        """Say which of the completions that are asked for a replay does not have, the likely reason, and what to do."""
        request, sample = pairs[0]
        take_back = f"take back {'; '.join(self._changes)}, or " if self._changes else ""
        return (
            f"{runs.shown_path(self.store.path)}: does not hold {len(pairs):,} of the completions that are asked for, "
            f"and a replay samples nothing: {take_back}set engine: auto and a `run` of its own to sample them (the "
            "reference run as it was: profile = 'params/replay.yaml'). The first is sample "
            f"{sample} of the request {request.messages[-1][1][:200]!r} to {self.model.label}"
        )

    def _commit(self, chunk: list[tuple[Request, int, Completion]], meter: runs.Meter) -> None:
        assert self._engine is not None
        record = {
            "engine": self._engine.name,
            "guarantee": self._engine.guarantee,
            **runs.library_versions(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **meter.lap(),
        }
        self.cost += Cost(sampled=self.store.put(chunk, record))

    def _account(self, completions: list[Completion]) -> None:
        """Add what these completions took, each its share of the batch that it was sampled in, now or long ago."""
        for number, count in Counter(completion.batch for completion in completions).items():
            batch = self._batches.setdefault(number, self.store.batch(number))
            if batch.get("seconds") is None or not batch.get("count"):
                self.cost += Cost(unmetered=count)
                continue
            share, energy = count / batch["count"], batch.get("energy_joules")
            self.cost += Cost(
                seconds=batch["seconds"] * share,
                device_seconds=batch["device_seconds"] * share,
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
    def guarantee(self) -> str:
        """What a completion depends on, as the engines say that sampled those asked for; sorted, joined by "; "."""
        return "; ".join(sorted({batch["guarantee"] for batch in self._batches.values() if batch.get("guarantee")}))

    def _end_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def close(self) -> None:
        """Give the engine back, which ends it unless the run's next stage may need it, then close the store."""
        self._bar.close()
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                self._give_back(engine)
        finally:
            self.store.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_generator(settings: Common, model: models.Model | None = None, *, label: str = "base") -> Generator:
    """Open the generator of a run: its store, the model (default: the parameter `model`) and the engine named there.

    With engine "replay" it reads the store of `replay_from`, needs no weights, and takes the model's fingerprint from
    the store.
    """
    if settings.engine == "replay":
        return _replay(settings, label)
    if model is None:
        model = models.resolve_model(settings.model, label, weights=settings.engine != "server")
    store = GenerationStore(runs.run_folder(settings) / STORE_NAME)
    start, give_back = partial(_take_engine, settings, model), partial(_keep_engine, settings, model)
    longest = settings.max_model_len
    return Generator(
        store, model, settings.seed, start, give_back=give_back, max_model_len=longest, progress="completions"
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

    model = models.Model(label, fingerprint, nowhere)
    return Generator(store, model, settings.seed, None, changes=runs.changes_of_replay(settings))


# --- the engine of a run whose stages share a process -----------------------------------------------------------------

_waiting: dict[tuple[object, ...], Engine] = {}  # at most one engine, by all that it was started with


def _take_engine(settings: Common, model: models.Model) -> Engine:
    """Return the engine that waits where it was started alike, else end that one and start another."""
    engine = _waiting.pop(_engine_key(settings, model), None)
    if engine is None:
        release_engine()
        engine = start_engine(settings, model)
    return engine


def _keep_engine(settings: Common, model: models.Model, engine: Engine) -> None:
    """Let a vLLM on CPU wait for the next stage of this process, where `crescent run` asks for it; end all others.

    On a GPU the next stage may need the memory.
    """
    import torch

    if engine.name == "vllm" and os.environ.get(KEEP_ENGINE) and not torch.cuda.is_available():
        _waiting[_engine_key(settings, model)] = engine
    else:
        engine.close()


def release_engine() -> None:
    """End the engine that waits for a next stage, if there is one: its memory is needed, or the run is over."""
    while _waiting:
        _waiting.popitem()[1].close()


def _engine_key(settings: Common, model: models.Model) -> tuple[object, ...]:
    return settings.engine, model.fingerprint, settings.dtype, settings.max_model_len, repr(settings.engine_args)


# --- choosing and starting --------------------------------------------------------------------------------------------


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
        from .engines.server import ServerEngine

        # A server serves the model that it was started with: the tuned one needs a name of its own there.
        served = settings.served_names.get(model.label) or (settings.model if model.label == "base" else model.label)
        server = ServerEngine(settings.base_urls, served, render, concurrency=settings.concurrency)
        server.meet()
        return server
    if name == "vllm":
        from .engines.vllm import VllmEngine

        try:
            return VllmEngine(
                folder,
                render,
                dtype=settings.dtype,
                max_model_len=settings.max_model_len,
                engine_args=dict(settings.engine_args),
            )
        except EngineError as error:
            if settings.engine != "auto":
                raise
            why = str(error)
    print(f"engine: transformers ({why})", flush=True)
    from .engines.transformers import TransformersEngine

    return TransformersEngine(folder, render, dtype=settings.dtype)
