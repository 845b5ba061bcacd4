"""Folders: one stage of a run while it is worked on, and the manifest that it leaves.

A stage writes its tables first and `manifest.json` last, so that a manifest's presence means that the stage is
complete. The manifest says what made the result: the parameters as given, without the folders of this machine; the
contents of what was read (`contents.stage_inputs`); versions, models, counts, tokens, seconds, memory and device.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import __version__
from . import contents, costs, domains, params
from .costs import Cost
from .layout import (
    NOTEBOOKS,
    UPSTREAM,
    RunError,
    left_out_stages,
    portable_path,
    read_manifest,
    read_table,
    run_folder,
    stages_before,
    write_json,
)
from .params import Common

if TYPE_CHECKING:
    import pandas as pd

# Parameters that hold a path or a name, and those in which paths may stand among other options.
PLACES = ("outputs", "benchmark_dir", "model", "student", "embedder", "domain", "question_source")
OPTIONS = ("engine_args", "accelerate_args")
HIDDEN = ".../"  # stands before the last part of a path that is not told
_VERSIONS = ("torch", "transformers", "vllm", "trl", "peft", "datasets", "lm-eval", "sentence-transformers", "numpy")


class Sampler(Protocol):
    """What sampled for a stage, as far as a manifest tells of it (`generation.Generator`)."""

    cost: Cost

    @property
    def engine_name(self) -> str:
        """Name of the engine."""
        ...

    @property
    def guarantee(self) -> str:
        """What a completion is a function of."""
        ...


@dataclass
class Stage:
    """One stage of one run while it is worked on: `begin_stage` makes it, `finish` ends it.

    `inputs` are the contents of what it reads (`contents.stage_inputs`), `upstream` the manifests of the stages before
    it.
    """

    name: str
    settings: Common
    folder: Path
    inputs: dict[str, Any]
    upstream: dict[str, dict[str, Any]]
    started: float = field(default_factory=time.monotonic)

    def read_table(self, stage: str, table: str) -> pd.DataFrame:
        """Read table `table` of an earlier stage of the same run."""
        return read_table(self.folder.parent, stage, table)

    def write_table(self, table: str, frame: pd.DataFrame) -> Path:
        """Write `frame` as <stage>/<table>.parquet, whole or not at all; return the path."""
        path = self.folder / f"{table}.parquet"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        frame.to_parquet(temporary, index=False)
        os.replace(temporary, path)
        return path

    @property
    def replayed(self) -> Path:
        """Folder of the run whose store and models are replayed."""
        return run_folder(self.settings, self.settings.replay_from)

    def finish(
        self,
        counts: dict[str, int],
        *,
        models: dict[str, str] | None = None,
        sampled_by: Sequence[Sampler] = (),
        cost: Cost | None = None,
        note: str = "",
    ) -> dict[str, Any]:
        """Check that kept + rejected = sampled where these are counted, write the manifest, return it.

        `counts` are plain numbers of things; `models` maps a label (base, tuned, student …) to a fingerprint;
        `sampled_by` are the generators of the stage, from which come its cost, its engine and what that engine
        guarantees; `cost` is that of training.
        """
        self._check_counts(counts)
        spent = costs.total_cost([*(sampler.cost for sampler in sampled_by), *([cost] if cost else [])])
        inputs = self.inputs | contents.model_inputs(self.name, self.settings)  # the hub's commits are known by now
        shown, hidden = shown_parameters(self.settings.model_dump())
        manifest: dict[str, Any] = {
            "stage": self.name,
            "run": self.settings.run,
            "parameters": shown,
            "hidden": hidden,
            **self._own_domain(),
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
            "engine": ", ".join(sorted({sampler.engine_name for sampler in sampled_by})) or self.settings.engine,
            "guarantee": "; ".join(sorted({sampler.guarantee for sampler in sampled_by if sampler.guarantee})),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "note": note,
        }
        write_json(self.folder / "manifest.json", manifest)
        return manifest

    def _check_counts(self, counts: dict[str, int]) -> None:
        if not {"sampled", "kept", "rejected"} <= counts.keys():
            return
        if counts["kept"] + counts["rejected"] != counts["sampled"]:
            raise RunError(
                f"{self.name}: kept {counts['kept']} + rejected {counts['rejected']} is not sampled {counts['sampled']}"
            )

    def _own_domain(self) -> dict[str, Any]:
        """Return the content of a domain of the user's own, to verify the run where its file is not."""
        if not domains.is_file(self.settings.domain):
            return {}
        return {"domain": domains.get_domain(self.settings.domain).model_dump()}

    def costs(self) -> pd.DataFrame:
        """Return what the stages of this run took up to this one; call it after `finish`.

        A replay also shows how long the stages of the recorded run took.
        """
        done = list(UPSTREAM)[: list(UPSTREAM).index(self.name) + 1]
        manifests = {stage: read_manifest(self.folder.parent, stage) for stage in done}
        if self.settings.engine != "replay":
            return costs.cost_table(manifests)
        return costs.cost_table(manifests, {stage: read_manifest(self.replayed, stage) for stage in done})


def begin_stage(name: str, settings: Common) -> Stage:
    """Open stage `name`: its folder, what it reads, the manifests before it. What an earlier run of it left is removed.

    What was trained stays, so that a training goes on from its checkpoints, or is taken over where nothing of it has
    changed. Raises RunError if a stage before it is not complete, or a run is to be replayed into itself.
    """
    folder = run_folder(settings)
    if settings.engine == "replay" and folder == run_folder(settings, settings.replay_from):
        raise RunError(
            f"run: a replay of {settings.run!r} into itself would remove what it reads; "
            "give the replay another name as `run`"
        )
    if name in left_out_stages(dict(settings)):
        raise RunError(
            "distil: student is 'none', which leaves 05_distil out; go on with notebooks/06_evaluate.ipynb, or name a "
            "student: 'half', a folder or a hub id"
        )
    upstream = {}
    for above in stages_before(name, settings):
        manifest = read_manifest(folder, above)
        if manifest is None:
            raise RunError(
                f"{name}: stage {above!r} of run {settings.run!r} is not complete; "
                f"run notebooks/{NOTEBOOKS[above]}.ipynb with the same `run` first"
            )
        upstream[above] = manifest
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
    shown = dict(parameters)
    for name in PLACES:
        if name in shown:
            shown[name] = portable_path(shown[name])
    for name in OPTIONS:
        if name in shown:
            shown[name] = _portable_options(shown[name])
    hidden = [name for name in (*PLACES, *OPTIONS) if name in shown and HIDDEN in json.dumps(shown[name])]
    return shown, hidden


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
    manifest: Mapping[str, Any], settings: Common, names: Sequence[str]
) -> list[tuple[str, Any, Any]]:
    """Return the parameters of `names` in which a finished stage differs from `settings`, as (name, then, now).

    Models and domains are compared by content, so that neither their place nor a hidden name matters; what is returned
    of them is how they may be shown. A parameter that the manifest does not have (an older kit's) is passed over.
    """
    shown, _ = shown_parameters(settings.model_dump())
    read_now = contents.model_inputs(manifest.get("stage", "vote"), settings)
    read_now["domain"] = contents.domain_content(settings.domain)
    differences = []
    for name in names:
        then = manifest["parameters"].get(name, shown[name])
        read_then = manifest.get("inputs", {}).get(name)
        if name in read_now and read_then is not None:
            alike = contents.same_content(read_then, read_now[name])
        else:
            alike = then == shown[name]
        if not alike:
            differences.append((name, then, shown[name]))
    return differences


def library_versions() -> dict[str, str]:
    """Return the versions of Python, the kit and the libraries that can change a result."""
    versions = {"python": platform.python_version(), "crescent": __version__}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str:
    """Return the commit of the checkout, with "+" after it where files differ from it; "" outside of one."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=params.ROOT, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
