"""Engines: what turns prompts into completions. One file each; all answer to the `Engine` protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..store import Completion, Request


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

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Sample each job once."""
        ...

    def close(self) -> None:
        """Give back memory and end every process of the engine. May be called twice."""
        ...
