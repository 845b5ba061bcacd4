"""Engine processes that a killed run left over: whose they are, and how to end them.

Killing the process that started vLLM with -9 leaves its engine and workers alive, each with its memory. A run therefore
claims the engines that it starts: a small file for each in the cache folder says which process owns it. An engine is
left over when its owner is gone, whatever became of the processes between the two.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from .. import runs

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
    try:
        return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux, or another user's: leave it alone
        return bool(process.pid != 1)


def own_engines() -> list[psutil.Process]:
    """Return the engine processes below this one."""
    return [child for child in psutil.Process().children(recursive=True) if is_engine(child)]


def claim_engines() -> None:
    """Write down that the engines below this process are its own, and forget those that have ended."""
    this_process = psutil.Process()
    for engine in own_engines():
        record = _record(engine)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{this_process.pid} {this_process.create_time()}", encoding="utf-8")
    for record in _records_folder().glob("*"):
        pid, _, started = record.name.partition("-")
        if not _is_running(pid, started):
            record.unlink(missing_ok=True)


def is_leftover(engine: psutil.Process) -> bool:
    """Tell whether the run that started this engine is gone.

    The record of its owner decides. An engine without one (it is still starting, or was not started by this kit) is
    left over where no process above it could have started it.
    """
    try:
        pid, started = _record(engine).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return _has_lost_its_parent(engine)
    except psutil.Error:
        return False
    return not _is_running(pid, started)


def _has_lost_its_parent(engine: psutil.Process) -> bool:
    """Tell whether no owner stands above this engine; a worker's engine is asked in its place."""
    try:
        parent = engine.parent()
        while parent is not None and is_engine(parent):
            parent = parent.parent()
    except psutil.Error:
        return False
    return parent is None or not owns_engines(parent)


def _records_folder() -> Path:
    return runs.cache_folder() / "engines" / socket.gethostname()  # a home folder may be shared between machines


def _record(engine: psutil.Process) -> Path:
    return _records_folder() / f"{engine.pid}-{engine.create_time()}"


def _is_running(pid: str, started: str) -> bool:
    """Tell whether the process of this number is still the one that was started at this time."""
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < 1
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.Error:
        return True  # another user's: leave it alone


def leftover_engines() -> list[psutil.Process]:
    """Find the engine processes whose run is gone; each holds its memory until it is ended."""
    return [process for process in psutil.process_iter() if is_engine(process) and is_leftover(process)]


def end_processes(processes: Iterable[psutil.Process], patience: float = 5.0) -> list[str]:
    """End those that belong to this user, politely first; return one line on each."""
    lines, own_processes = [], []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.uids().real == os.getuid():
                process.terminate()
                own_processes.append(process)
            else:
                lines.append(f"{process.pid} belongs to {process.username()}: not touched")
    gone, stubborn = psutil.wait_procs(own_processes, timeout=patience)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    killed, alive = psutil.wait_procs(stubborn, timeout=patience)
    lines += [f"{process.pid} ended" for process in (*gone, *killed)]
    return lines + [f"{process.pid} does not end" for process in alive]
