"""Engines: what turns prompts into completions. One file each; all answer to the `Engine` protocol."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..models import PromptTooLong
from ..store import TOO_LONG, Completion, Request


@dataclass(frozen=True)
class Job:
    """One completion to sample: sample number `sample` of `request`, drawn with `seed`."""

    request: Request
    sample: int
    seed: int


class EngineError(RuntimeError):
    """An engine that cannot start or cannot take a prompt; the message says why and what to choose instead."""


class Engine(Protocol):
    """Samples completions. `sample` yields (index of the job, completion) in any order, as each gets ready."""

    name: str
    guarantee: str  # in one sentence: what a completion is a function of
    devices: int  # that it uses: GPUs, or 1 for the CPU

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Sample each job once. A prompt that is too long gives an empty completion that says so."""
        ...

    def close(self) -> None:
        """Give back memory and end every process of the engine. May be called twice."""
        ...


class Prompts:
    """Token ids of requests; each request is rendered once, however many samples of it are asked for in a row."""

    def __init__(self, render: Callable[[Request], list[int]]) -> None:
        """`render(request)` applies the chat template and gives token ids, or raises `models.PromptTooLong`."""
        self._render = render
        self._last: tuple[Request, list[int] | Completion] | None = None

    def get(self, request: Request) -> list[int] | Completion:
        """Return the token ids of a request, or the empty completion that stands for a prompt which is too long."""
        if self._last is None or self._last[0] is not request:
            try:
                self._last = request, self._render(request)
            except PromptTooLong as error:
                self._last = request, Completion("", TOO_LONG, error.tokens, 0)
        return self._last[1]


def free_memory() -> None:
    """Give back what a model held whose last name is gone, on the device too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def answered_before(
    interrupt: BaseException, answers: Iterator[tuple[int, Completion]]
) -> Iterator[tuple[int, Completion]]:
    """Yield what an engine had ready when its consumer was interrupted.

    The interrupt is raised where the engine's `sample` stands; an engine that catches it cancels what is in flight,
    yields what is answered, and raises it again.
    """
    if isinstance(answers, Generator):
        with contextlib.suppress(type(interrupt), StopIteration):
            yield answers.throw(interrupt)
            yield from answers
