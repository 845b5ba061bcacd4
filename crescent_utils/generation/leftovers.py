"""Engine processes that a killed run left over: find them, and end one's own.

Killing the process that started vLLM with -9 leaves its engine and workers alive, each with its memory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

ENGINE_TITLE = "VLLM::"  # vLLM names its processes VLLM::EngineCore, VLLM::Worker_TP0, …


def is_engine(process: psutil.Process) -> bool:
    """Tell whether a process carries the title that vLLM gives its engine processes."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(part.startswith(ENGINE_TITLE) for part in (process.name(), *process.cmdline()[:1]))
    except psutil.Error:
        return False


def owns_engines(process: psutil.Process) -> bool:
    """Tell whether a process could have started an engine: whoever did has torch's library mapped.

    Its place in the tree does not tell: an orphan's new parent can be process 1, a session manager or a
    container's own Python, and a live engine's parent can be process 1 of a container.
    """
    maps = Path(f"/proc/{process.pid}/maps")
    try:
        if maps.parent.is_dir():
            return "libtorch" in maps.read_text(encoding="utf-8", errors="replace")
        return bool(process.pid != 1)
    except OSError:
        return bool(process.pid != 1)  # another user's: leave it alone


def is_leftover(process: psutil.Process) -> bool:
    """Tell whether the process that started this engine is gone; a worker's engine is asked in its place."""
    try:
        parent = process.parent()
        while parent is not None and is_engine(parent):
            parent = parent.parent()
    except psutil.Error:
        return False
    return parent is None or not owns_engines(parent)


def leftover_engines() -> list[psutil.Process]:
    """Find the engine processes whose run is gone; each holds its memory until it is ended."""
    return [process for process in psutil.process_iter() if is_engine(process) and is_leftover(process)]


def end_processes(processes: Iterable[psutil.Process], patience: float = 5.0) -> list[str]:
    """End those that belong to this user, politely first; return one line on each."""
    lines, mine = [], []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.uids().real == os.getuid():
                process.terminate()
                mine.append(process)
            else:
                lines.append(f"{process.pid} belongs to {process.username()}: not touched")
    gone, stubborn = psutil.wait_procs(mine, timeout=patience)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    killed, alive = psutil.wait_procs(stubborn, timeout=patience)
    lines += [f"{process.pid} ended" for process in (*gone, *killed)]
    return lines + [f"{process.pid} does not end" for process in alive]
