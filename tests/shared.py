"""What several test files need: where things lie, pairs and recipes to train the tiny model with, the growth of a
reader's time.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import psutil
import pytest
from filelock import FileLock
from matplotlib.figure import Figure

from crescent_utils.finetune import training
from crescent_utils.runs import NOTEBOOKS, Finetune, domains, params

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "outputs" / "reference"
SAMPLES = ROOT / "tests" / "data"  # rows of our own in the formats of the published benchmark files
ALLOWANCE = 0.02  # seconds of processor time that any text may take
# The published files, where a machine has them. A test that reads a benchmark reads the samples, and these as well.
BENCHMARKS = Path(os.environ.get("CRESCENT_BENCHMARK_DIR") or ROOT.parent / "shared" / "data")


def benchmark_folders(*names: str) -> list[Any]:
    """The folder of our samples, and that of the published files if all of these `names` are there, as parameters."""
    there = all((BENCHMARKS / name).exists() for name in names)
    return [pytest.param(SAMPLES, id="samples"), *([pytest.param(BENCHMARKS, id="published")] if there else [])]


GSM8K_FOLDERS = benchmark_folders("gsm8k_test.jsonl", "gsm8k_train.jsonl")


def gsm8k_solutions(folder: Path, split: str) -> list[tuple[str, str]]:
    """(solution without its last line, gold) of each item of GSM8K in `folder`."""
    lines = (folder / f"gsm8k_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"].rpartition("####") for line in lines]
    return [(solution.strip(), gold.strip()) for solution, _, gold in answers]


def made_once(factory: pytest.TempPathFactory, worker: str, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name` that `make` fills, once for all processes of this test run."""
    session = factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent
    folder = session / name
    with FileLock(session / f"{name}.lock"):
        if not folder.exists():
            (session / f"{name}.part").mkdir()
            make(session / f"{name}.part")
            (session / f"{name}.part").rename(folder)
    return folder


def experiments(stage: str) -> tuple[str, str]:
    """Return the code of the two experiments that a notebook's last cell offers: in a replay, and live."""
    last = nbformat.read(ROOT / "notebooks" / f"{NOTEBOOKS[stage]}.ipynb", as_version=4).cells[-1].source
    blocks = re.findall(r"```python\n(.*?)```", last, flags=re.DOTALL)
    assert len(blocks) == 2 and last.index("in a replay (seconds)") < last.index("live (minutes)")
    return blocks[0], blocks[1]


def parameters_in(code: str) -> dict[str, Any] | None:
    """Return the parameters that lines of code set; None where they do something else."""
    lines = ast.parse(code).body
    if not all(isinstance(line, ast.Assign) for line in lines):
        return None
    values = {line.targets[0].id: ast.literal_eval(line.value) for line in lines}  # type: ignore[attr-defined]
    return values if set(values) <= set(params.NAMES) else None


def pairs(count: int = 12) -> list:
    """Sums with their answers as training pairs, their lengths different."""
    questions = [f"What is {i} + 4?" for i in range(count)]
    paths = [f"{i} + 4 = {i + 4}" + "!" * (i % 5) for i in range(count)]
    return training.training_pairs(
        pd.DataFrame({"question": questions, "path": paths}), domains.get_domain("arithmetic")
    )


def recipe(method: str, learning_rate: float, **changes: object) -> Finetune:
    """A short recipe: one epoch in batches of four, in float32 wherever the test runs."""
    common = {"learning_rate": learning_rate, "epochs": 1, "batch_size": 4, "micro_batch_size": 4, "max_length": 256,
              "held_out": 0.0, "seed": 1, "dtype": "float32"}  # fmt: skip
    return Finetune(method=method, **{**common, **changes})


def grows_in_proportion(read: Callable[[str], object], text: str, half: str | None = None) -> bool:
    """Whether a text takes less than three times as long as half of it (`half`, if not its first half).

    The least of three readings of each counts. The text is read again only where one reading does not settle it, and a
    text that a limit cuts, which takes microseconds, is compared with nothing.
    """
    once = best_of(read, text, times=1)
    if once < ALLOWANCE:
        return True
    limit = 3 * best_of(read, text[: len(text) // 2] if half is None else half) + ALLOWANCE
    return once < limit or best_of(read, text, times=2) < limit


def takes_less_than(seconds: float, read: Callable[[str], object], text: str) -> bool:
    """Whether a reading takes less processor time than this; it is repeated only where the first one took more."""
    return best_of(read, text, times=1) < seconds or best_of(read, text) < seconds


def best_of(read: Callable[[str], object], text: str, times: int = 3) -> float:
    """The least processor time of several readings: other jobs on the machine disturb single ones."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        read(text)
        spent.append(time.process_time() - start)
    return min(spent)


@contextlib.contextmanager
def engine_of_a_run(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen, psutil.Process]]:
    """Start a Python that stands for a run, which prints the pid of the engine that it started; end both."""
    owner = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    engine = psutil.Process(int(owner.stdout.readline()))
    yield owner, engine
    for process in (engine, owner):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    owner.communicate()


def figure_that_says(draw: Callable[[], tuple[Figure, str]], expected: str) -> Figure:
    """Draw a figure twice and check that it says its numbers alike, has a title and a named axis, and is a picture."""
    figure, text = draw()
    assert expected in text
    assert draw()[1] == text
    assert figure.get_suptitle() and any(axes.get_xlabel() for axes in figure.axes)
    assert figure._repr_png_().startswith(b"\x89PNG")
    return figure


def assert_nothing_is_cut_off(figure: Figure) -> None:
    """Check that all that is drawn lies within the picture."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height


def covered_texts(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts of a figure that cover each other by more than a pixel."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    hidden = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in set(axis.get_major_ticks()) - set(axis._update_ticks())
        for label in (tick.label1, tick.label2)
    }
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    shown = [text for text in texts if text not in hidden]
    boxes = [(text.get_text(), Text.get_window_extent(text).padded(-1)) for text in shown]  # without their arrows
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]


def contrast(colour: str, ground: str) -> float:
    """Return the contrast of two colours as WCAG 2.1 defines it."""
    from matplotlib.colors import to_rgb

    shades = []
    for one in (colour, ground):
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(one)]
        shades.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(shades) + 0.05) / (min(shades) + 0.05)
