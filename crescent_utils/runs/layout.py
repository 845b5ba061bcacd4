"""Layout: the stages of a run, which stage reads which, and where their files lie.

A run is a folder `outputs/<run>/` with one folder per stage: Parquet tables and `manifest.json`, whose presence says
that the stage is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import params
from .params import Common, InputError

if TYPE_CHECKING:
    import pandas as pd

UPSTREAM: dict[str, tuple[str, ...]] = {
    "elicit": (),
    "dedup": ("elicit",),
    "vote": ("dedup",),
    "finetune": ("vote",),
    "distil": ("vote",),
    "evaluate": ("finetune", "distil"),
}
PREFLIGHT = "preflight"  # the folder that `crescent preflight` writes to, beside those of the stages
NO_STUDENT = "none"  # value of `student`: nothing is distilled
NOTEBOOKS = {stage: f"{number:02d}_{stage}" for number, stage in enumerate(UPSTREAM, start=1)}


class RunError(InputError, RuntimeError):
    """A run folder that cannot be used as asked; the message says which stage is missing or stale and what to run."""


def cache_folder() -> Path:
    """Return the folder for what can be made again: $CRESCENT_CACHE or ~/.cache/crescent."""
    return Path(os.environ.get("CRESCENT_CACHE") or Path.home() / ".cache" / "crescent")


def run_folder(settings: Common, run: str | None = None) -> Path:
    """Return the folder of `run` (default: the settings' own run), in `outputs` or the repository's own."""
    outputs = Path(settings.outputs).expanduser() if settings.outputs else params.ROOT / "outputs"
    return outputs / (run or settings.run)


def control_folder(run: Path) -> Path:
    """Return the folder in which 04 of the run in the folder `run` trains its control, see `random_label_control`."""
    return run / "finetune" / "control"


def run_of_stage(stage: str, settings: Common) -> Path:
    """Return the folder of the run whose `stage` is read: this run; in a replay that lacks it, the replayed run.

    So each notebook replays by itself, whichever of the six is opened first.
    """
    folder = run_folder(settings)
    if settings.engine == "replay" and read_manifest(folder, stage) is None:
        replayed = run_folder(settings, settings.replay_from)
        if read_manifest(replayed, stage) is not None:
            return replayed
    return folder


def stages_before(name: str, settings: Common) -> tuple[str, ...]:
    """Return the stages whose tables stage `name` reads: those above it that the run does not leave out."""
    return tuple(stage for stage in UPSTREAM[name] if stage not in left_out_stages(dict(settings)))


def left_out_stages(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the stages that a run with these parameters has no use for, each with the parameter that says so."""
    left_out: dict[str, str] = {}
    source = values.get("question_source", "pool")
    if source != "pool":
        left_out |= dict.fromkeys(("elicit", "dedup"), f"question_source: {source}")
    if values.get("student") == NO_STUDENT:
        left_out["distil"] = f"student: {NO_STUDENT}"
    return left_out


def read_manifest(folder: Path, stage: str) -> dict[str, Any] | None:
    """Read a stage's manifest in the run `folder`; None if the stage is not complete. Raises RunError if damaged."""
    path = folder / stage / "manifest.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: is damaged ({error}); delete it and run the stage again") from None


def read_table(folder: Path, stage: str, table: str) -> pd.DataFrame:
    """Read `<folder>/<stage>/<table>.parquet`. Raises RunError naming the notebook that makes it."""
    import pandas as pd

    path = folder / stage / f"{table}.parquet"
    if not path.exists():
        raise RunError(
            f"{stage}/{table}.parquet is not in run {folder.name!r}; run notebooks/{NOTEBOOKS[stage]}.ipynb first"
        )
    return pd.read_parquet(path)


def write_table(folder: Path, table: str, frame: pd.DataFrame) -> Path:
    """Write `frame` as <folder>/<table>.parquet, whole or not at all; return the path."""
    path = folder / f"{table}.parquet"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    frame.to_parquet(temporary, index=False, compression="zstd")
    os.replace(temporary, path)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write JSON so that a reader sees the old file or the new one, never a part; return `path`."""
    text = json.dumps(value, indent=1, ensure_ascii=False)  # before any file: what cannot be written leaves none
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
    return path


def shown_path(path: Path) -> str:
    """Return a path as a person at this folder would type it."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else path)


def portable_path(text: str) -> str:
    """Return a path as it may be published: from the repository if it lies inside, else `.../` and its last part.

    What is no path of this machine stays as it is: a known name, a hub id, a path from the repository.
    """
    if text.startswith(".../") or not text.startswith((".", "/", "~")):
        return text
    path = Path(text).expanduser()
    for base in (Path.cwd(), params.ROOT):
        place = Path(os.path.abspath(base / path))
        if place.is_relative_to(params.ROOT) and (place.exists() or path.is_absolute()):
            return place.relative_to(params.ROOT).as_posix()
    return f".../{path.name}"
