"""One kernel for a whole run: the six notebooks are executed one after another by the same Python.

A kernel of its own for each notebook would import torch, vLLM and transformers six times, for a quarter of a minute
each, and start vLLM in each. Between two notebooks everything that the first one named is forgotten, so that none
depends on another but through the files of the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import generation, runs

# Of what the reset takes away, Python itself needs `__spec__` to start a process, and vLLM may start some.
_FORGET = "get_ipython().reset(new_session=True); __import__('sys').modules['__main__'].__spec__ = None"


class Kernel:
    """A Jupyter kernel of this very environment; it starts at the first notebook, and again after it died."""

    def __init__(self, log: Path, command: str = "") -> None:
        """What the kernel and its engines print on standard error goes to the file `log`.

        A notebook says of the values that it is given that they are from `command`; "" calls them set here.
        """
        self._log, self._command = log, command
        self._manager: Any = None

    def execute(self, notebook: Path, target: Path, parameters: dict[str, Any], label: str) -> str:
        """Execute a notebook into `target`, with the progress bar under `label`; return how it failed, "" if not.

        Where the kernel dies (a crash of the engine, no memory), the notebook is executed once more on a new one: what
        was sampled is stored.
        """
        from nbclient.exceptions import DeadKernelError

        try:
            return self._execute(notebook, target, parameters, label)
        except DeadKernelError:
            print(f"{label} its kernel died; once more on a new one", flush=True)
        try:
            return self._execute(notebook, target, parameters, label)
        except DeadKernelError:
            return " failed: its kernel died twice, see kernel.log; too little memory is the usual cause"

    def _execute(self, notebook: Path, target: Path, parameters: dict[str, Any], label: str) -> str:
        import papermill
        from nbclient.exceptions import DeadKernelError

        try:
            with _quiet(self._log):
                self._make_ready()
                papermill.execute_notebook(
                    notebook,
                    target,
                    parameters=parameters,
                    progress_bar=False,
                    log_output=False,
                    kernel_name="python3",
                    stderr_file=runs.ProgressEcho(sys.stdout, label),
                    km=self._manager,
                )
        except papermill.PapermillExecutionError as error:
            return f" failed in cell {error.exec_count}: {error.ename}: {error.evalue}"
        except DeadKernelError:
            raise
        except Exception as error:  # a full disk, a kernel that does not start: papermill raises many kinds
            return f" failed: {type(error).__name__}: {error}"
        return ""

    def _make_ready(self) -> None:
        """Start the kernel, or make the one that runs forget the notebook before."""
        from jupyter_client.manager import AsyncKernelManager
        from jupyter_core.utils import run_sync

        if self._manager is not None and run_sync(self._manager.is_alive)():
            client = self._manager.blocking_client()
            client.start_channels()
            try:
                client.wait_for_ready(timeout=60)
                client.execute_interactive(_FORGET, store_history=False, timeout=60)
            finally:
                client.stop_channels()
            return
        self.close()
        self._manager = AsyncKernelManager(kernel_name="python3")
        # Containers often keep Python from storing what it compiles; then each run would compile torch and vLLM anew.
        run_sync(self._manager.start_kernel)(
            env=os.environ
            | {generation.KEEP_ENGINE: "1", "PYTHONDONTWRITEBYTECODE": "", runs.VALUES_FROM: self._command}
        )

    def close(self) -> None:
        """End the kernel and, with it, its engine."""
        from jupyter_core.utils import run_sync

        if self._manager is not None:
            run_sync(self._manager.shutdown_kernel)()
            self._manager = None

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """End the kernel; after an interrupt, its cell stores what was sampled first.

        Ending a kernel interrupts its cell, once: a second interrupt would fall into the storing.
        """
        if error is not None and self._manager is not None:
            self._manager.shutdown_wait_time = 60.0  # seconds, half before SIGTERM; a busy machine stores slowly
        self.close()


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send what kernel and engines print on standard error to `log`; take the kernel of this very environment."""
    logger = logging.getLogger("papermill")
    level, path = logger.level, os.environ.get("PATH", "")
    logger.setLevel(logging.ERROR)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    _space_bars()
    try:
        with errors_to(log):
            yield
    finally:
        logger.setLevel(level)
        os.environ["PATH"] = path


@contextlib.contextmanager
def errors_to(log: Path) -> Iterator[None]:
    """Append what this process, its libraries and its engines write on standard error to the file `log`.

    An engine's own lines come from C++ and from other processes too, so it is the file descriptor that is redirected.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    error_output = os.dup(2)
    try:
        with open(log, "a", encoding="utf-8") as handle:
            os.dup2(handle.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(error_output, 2)
        os.close(error_output)


@contextlib.contextmanager
def bars_alone(log: Path, label: str) -> Iterator[None]:
    """Show of this process's standard error the progress bars alone, under `label`.

    What engines and other processes print goes to the file `log`; a library's warnings in Python are not shown.
    """
    _space_bars()
    with errors_to(log), contextlib.redirect_stderr(runs.ProgressEcho(sys.stdout, label)):
        try:
            yield
        finally:
            print(runs.line_start(sys.stdout), end="", flush=True)


def _space_bars() -> None:
    os.environ.setdefault(runs.PROGRESS_SECONDS, "1" if sys.stdout.isatty() else "20")
