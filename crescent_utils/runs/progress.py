"""Progress: one bar per stage, with tokens per second and the share that was accepted; in training, the loss.

It is plain text on standard error, so that it reads the same in a terminal, in JupyterLab and, line by line, in a log.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import Any, TextIO

PROGRESS_SECONDS = "CRESCENT_PROGRESS_SECONDS"  # environment: seconds between two updates
_FORMAT = "{desc} {percentage:3.0f}% |{bar:16}| {n_fmt}/{total_fmt} {unit}{postfix} [{elapsed}<{remaining}]"
_EARLY_FORMAT = _FORMAT.replace("<{remaining}", "")
# ours: the share done before which no remaining time is shown, since the first completions wait for the whole batch
EARLY = 0.05
# What a bar looks like, to find it in a stream.
LINE = re.compile(r"\S+ +\d+% \|.{16}\| \d+/\d+ (?:completions|likelihoods|steps)[^\r\n]*\]")


def line_start(stream: TextIO) -> str:
    """Return what clears a terminal's line and goes back to its start; "" in a log, where each message has its line."""
    return "\r\x1b[K" if stream.isatty() else ""


class ProgressEcho:
    """The file to which papermill writes a notebook's standard error; it passes on nothing but progress bars.

    In a terminal each bar is written over the one before; in a log every bar is a line.
    """

    def __init__(self, target: TextIO, label: str) -> None:
        """`target` is the terminal or the log; `label` stands before each bar."""
        self._target, self._label = target, label
        self._last = ""

    def write(self, text: str) -> int:
        """Pass on the last bar in `text`, cut to the terminal's width."""
        if bars := LINE.findall(text):
            line = f"{self._label} {bars[-1]}"
            if line == self._last:  # a bar says its last state twice, as it is paused and as it is closed
                return len(text)
            self._last = line
            if self._target.isatty():
                self._target.write(line_start(self._target) + line[: shutil.get_terminal_size().columns - 1])
            else:
                self._target.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        """Flush the target."""
        self._target.flush()


class ProgressBar:
    """A tqdm bar over the completions of one generator, or the steps of a training; its total grows by `start`."""

    def __init__(self, label: str, *, shown: bool, unit: str = "completions") -> None:
        """`label` stands before the bar; a bar that is not shown costs nothing.

        `unit` is what it counts: completions, likelihoods or steps.
        """
        self._label, self._shown, self._unit = label, shown, unit
        self._bar: Any = None
        self._tokens = self._seen = self._accepted = 0

    def start(self, more: int) -> None:
        """Expect so many more completions."""
        if not self._shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            seconds = float(os.environ.get(PROGRESS_SECONDS) or 2)
            # `disable` is given, since an engine may set TQDM_DISABLE to silence its own bars
            self._bar = tqdm(
                total=0,
                desc=self._label,
                unit=self._unit,
                disable=False,
                bar_format=_EARLY_FORMAT,
                mininterval=seconds,
                miniters=1,
                ascii=" .",
            )
        self._bar.total += more

    def update(self, tokens: int, accepted: bool | None) -> None:
        """Count one completion of so many tokens; `accepted` None says that nobody judged it."""
        if self._bar is None:
            return
        self._tokens += tokens
        if accepted is not None:
            self._seen, self._accepted = self._seen + 1, self._accepted + accepted
        elapsed = self._bar.format_dict["elapsed"] or 1.0
        share = f", {100 * self._accepted / self._seen:.0f}% accepted" if self._seen else ""
        is_sampled = self._unit == "completions"  # what is read has no tokens of its own
        self._bar.postfix = f"{self._tokens / elapsed:,.0f} tokens/s{share}" if is_sampled else ""
        self._advance(1)

    def step(self, done: int, loss: float | None) -> None:
        """Show that `done` steps are behind, with the last loss."""
        if self._bar is None:
            return
        self._bar.postfix = "" if loss is None else f"loss {loss:.3f}"
        self._advance(done - self._bar.n)

    def _advance(self, more: int) -> None:
        is_early = self._bar.n + more < EARLY * self._bar.total
        self._bar.bar_format = _EARLY_FORMAT if is_early else _FORMAT
        self._bar.update(more)

    def pause(self) -> None:
        """Show where it stands, before other work that this bar does not count."""
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
