"""Folders: one stage of a run while it is worked on, and the manifest that it leaves.

A stage writes its tables first and `manifest.json` last, so that a manifest's presence means that the stage is
complete. The manifest says what made the result: the parameters as given, without the folders of this machine; the
contents of what was read (`contents.stage_inputs`); versions, models, counts, tokens, seconds, memory and device.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from . import contents, costs, domains, params, replays, saving, sessions
from .costs import Cost
from .layout import (
    NOTEBOOKS,
    RunError,
    left_out_stages,
    portable_path,
    read_manifest,
    read_table,
    run_folder,
    run_of_stage,
    stages_before,
    write_json,
    write_table,
)
from .params import Common

if TYPE_CHECKING:
    import pandas as pd

# Parameters that hold a path or a name, and those in which paths may stand among other options.
PLACES = ("profile", "outputs", "save_to", "benchmark_dir", "model", "student", "embedder", "domain", "question_source")
OPTIONS = ("engine_args", "accelerate_args")
HIDDEN = ".../"  # stands before the last part of a path that is not told
_NOT_THERE = object()  # in the place of a parameter that a manifest does not have
_VERSIONS = ("torch", "transformers", "vllm", "trl", "peft", "datasets", "lm-eval", "sentence-transformers", "numpy")


@dataclass
class Stage:
    """One stage of one run while it is worked on: `begin_stage` makes it, `finish` ends it.

    `inputs` are the contents of what it reads, `upstream` the manifests of the stages before it.
    """

    name: str
    settings: Common
    folder: Path
    inputs: dict[str, Any]
    upstream: dict[str, dict[str, Any]]
    started: float = field(default_factory=time.monotonic)

    def read_table(self, stage: str, table: str) -> pd.DataFrame:
        """Read table `table` of an earlier stage of this run; in a replay that lacks the stage, of the replayed run."""
        return read_table(run_of_stage(stage, self.settings), stage, table)

    def write_table(self, table: str, frame: pd.DataFrame) -> Path:
        """Write `frame` as <stage>/<table>.parquet, whole or not at all; return the path."""
        return write_table(self.folder, table, frame)

    @property
    def replayed(self) -> Path:
        """Folder of the run whose store and models are replayed."""
        return run_folder(self.settings, self.settings.replay_from)

    def finish(
        self,
        counts: dict[str, int],
        *,
        models: dict[str, str] | None = None,
        sampled_by: Sequence[Any] = (),
        cost: Cost | None = None,
        note: str = "",
    ) -> dict[str, Any]:
        """Check that kept + rejected = sampled where these are counted, write the manifest, return it.

        `counts` are plain numbers of things; `models` maps a label (base, tuned, student …) to a fingerprint;
        `sampled_by` are the stage's generators (`generation.Generator`), from which come its cost, its engine and what
        that engine guarantees; `cost` is that of training.
        """
        if {"sampled", "kept", "rejected"} <= counts.keys() and counts["kept"] + counts["rejected"] != counts[
            "sampled"
        ]:
            raise RunError(
                f"{self.name}: kept {counts['kept']} + rejected {counts['rejected']} is not sampled {counts['sampled']}"
            )
        spent = sum((generator.cost for generator in sampled_by), cost or Cost())
        inputs = self.inputs | contents.model_inputs(self.name, self.settings)  # the hub's commits are known by now
        shown, hidden = shown_parameters(self.settings.model_dump())
        # The content of a domain of the user's own, to verify the run where its file is not.
        has_own_domain = self.settings.domain.endswith(params.YAML_SUFFIXES)
        own_domain = {"domain": domains.get_domain(self.settings.domain).model_dump()} if has_own_domain else {}
        manifest: dict[str, Any] = {
            "stage": self.name,
            "run": self.settings.run,
            "parameters": shown,
            "hidden": hidden,
            **own_domain,
            "inputs": inputs,
            "fingerprint": contents.stage_fingerprint(self.name, self.settings, inputs),
            "upstream": {name: above["fingerprint"] for name, above in self.upstream.items()},
            "versions": library_versions(),
            "models": models or {},
            "git_commit": git_commit(),
            "seed": self.settings.seed,
            "counts": counts,
            "tokens": {"prompt": spent.prompt_tokens, "completion": spent.completion_tokens},
            "cost": spent.rounded(),
            "seconds": round(time.monotonic() - self.started, 1),
            "peak_memory_bytes": costs.peak_memory_bytes(),
            "peak_device_bytes": costs.peak_device_bytes(),
            "device": costs.device_name(),
            "engine": ", ".join(sorted({generator.engine_name for generator in sampled_by})) or self.settings.engine,
            "guarantee": "; ".join(sorted({generator.guarantee for generator in sampled_by} - {""})),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "note": note,
        }
        write_json(self.folder / "manifest.json", manifest)
        saving.save_stage(self.name, self.settings)
        return manifest

    def costs(self) -> pd.DataFrame:
        """Return what the stages of this run took up to this one; call it after `finish`.

        A replay also shows how long the stages of the recorded run took.
        """
        done = params.STAGES[: params.STAGES.index(self.name) + 1]
        recorded = self.replayed if self.settings.engine == "replay" else None
        return costs.cost_table(
            {stage: read_manifest(run_of_stage(stage, self.settings), stage) for stage in done},
            {stage: read_manifest(recorded, stage) for stage in done} if recorded else {},
        )


def begin_stage(name: str, settings: Common) -> Stage:
    """Open stage `name`: its folder, what it reads, the manifests before it. What an earlier run of it left is removed.

    What `save_to` holds of the run, and this machine lacks, is brought back first.

    What was trained stays, so that a training goes on from its checkpoints, or is taken over where nothing of it has
    changed. A replay reads a stage that it lacks from the replayed run. Raises RunError if a stage before it is not
    complete, or was made with other parameters than what would be read with it, or a run is to be replayed into itself.
    """
    folder = run_folder(settings)
    if settings.engine == "replay" and folder == run_folder(settings, settings.replay_from):
        raise RunError(
            f"run: a replay of {settings.run!r} into itself would remove what it reads; "
            "give the replay another name as `run`"
        )
    if name in left_out_stages(dict(settings)):
        raise RunError(
            "distil: student is 'none' in this run, so there is nothing to do here: go on with "
            "notebooks/06_evaluate.ipynb. To have a student, name one in 05 and in 06: 'without_4_layers', 'half', a "
            "folder or a hub id"
        )
    saving.bring_back(settings)
    replays.check_one_history(name, settings)
    if not stages_before(name, settings):
        sessions.remember_run(settings)
    upstream = {}
    for above in stages_before(name, settings):
        manifest = read_manifest(run_of_stage(above, settings), above)
        if manifest is None:
            raise RunError(
                f"{name}: stage {above!r} of run {settings.run!r} is not complete; "
                f"run notebooks/{NOTEBOOKS[above]}.ipynb with the same `run` first"
            )
        upstream[above] = manifest
    costs.reset_peak_memory()
    stage = Stage(name, settings, folder / name, contents.stage_inputs(name, settings), upstream)
    stage.folder.mkdir(parents=True, exist_ok=True)
    (stage.folder / "manifest.json").unlink(missing_ok=True)
    for pattern in ("*.parquet", "claims.json", "*.tmp"):
        for path in stage.folder.glob(pattern):
            path.unlink()
    return stage


def shown_parameters(parameters: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return `parameters` as a manifest may show them, and the names of those that hide something.

    A path inside the repository is written from there and means the same on any machine; of another only the last part
    is told, since folders of this machine say nothing elsewhere and may name a person. There are no credentials in
    parameters (`credentials.find_credential`).
    """
    portable = {name: portable_path(parameters[name]) for name in PLACES if name in parameters}
    portable |= {name: _portable_options(parameters[name]) for name in OPTIONS if name in parameters}
    return parameters | portable, [name for name, value in portable.items() if HIDDEN in json.dumps(value)]


def _portable_options(value: Any) -> Any:
    """Return options with their paths made portable, also behind an equals sign: `--config_file=/some/where.yaml`."""
    if isinstance(value, dict):
        return {name: _portable_options(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_portable_options(item) for item in value]
    if not isinstance(value, str):
        return value
    option, equals, place = value.rpartition("=")
    return option + equals + portable_path(place)


def recorded_parameters(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a finished stage that its manifest tells in full: all but the hidden ones.

    What a hidden one stood for can be compared by content: see `inputs` and `domain` of the manifest.
    """
    return {name: value for name, value in manifest["parameters"].items() if name not in manifest.get("hidden", [])}


def differing_parameters(
    then: Mapping[str, Any], now: Mapping[str, Any] | Common, names: Iterable[str]
) -> list[tuple[str, str, str]]:
    """Return the parameters of `names` in which a finished stage differs from another one, or from settings.

    `then` is the manifest of the finished stage, `now` another manifest or settings. A row is (name, value then, value
    now), both as a message shows them. What a parameter names (a model, a file, a domain) is compared by content where
    both sides know it, so that neither its place nor a hidden name matters. A place that is hidden and known by no
    content is not compared, since its last part says nothing; nor is a parameter that one side does not have (an older
    kit's).
    """
    if isinstance(now, Common):
        now = _as_recorded(then.get("stage", "vote"), now)
    differences = []
    for name in names:
        values = [side["parameters"].get(name, _NOT_THERE) for side in (then, now)]
        read = [side.get("inputs", {}).get(contents.CONTENT_OF.get(name, name)) for side in (then, now)]
        is_hidden = any(name in side.get("hidden", []) for side in (then, now))
        if all(read):
            is_same = contents.same_content(*read) or contents.same_content(*reversed(read))
        else:
            is_same = is_hidden or _NOT_THERE in values or values[0] == values[1]
        if not is_same:
            shown = [
                repr(list(what) if value is _NOT_THERE else value) for value, what in zip(values, read, strict=True)
            ]
            content = " of another content" if shown[0] == shown[1] else ""
            differences.append((name, shown[0] + content, shown[1]))
    return differences


def _as_recorded(stage: str, settings: Common) -> dict[str, Any]:
    """Return what a manifest of the stage with these settings would say of its parameters and of what they name."""
    shown, hidden = shown_parameters(settings.model_dump())
    return {"parameters": shown, "hidden": hidden, "inputs": contents.named_inputs(stage, settings)}


def library_versions() -> dict[str, str]:
    """Return the versions of Python, the kit and the libraries that can change a result."""
    installed = {name: version for name in _VERSIONS if (version := _installed_version(name))}
    return {"python": platform.python_version(), "crescent": __version__, **installed}


@functools.cache  # a process keeps what it has imported, and reading a package's metadata takes a millisecond
def _installed_version(name: str) -> str:
    """Return the version of an installed package; "" where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def git_commit() -> str:
    """Return the commit of the checkout, with "+" after it where files differ from it; "" outside of one."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, cwd=params.ROOT, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()
    return ""
