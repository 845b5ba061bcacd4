"""Runs: the folder of a run, its stages, their fingerprints and manifests.

A stage writes its tables first and `manifest.json` last, so that a manifest's presence means that the stage is complete.
Its fingerprint covers the parameters that can change its result, the stages before it and the kit's version; it does not cover
where and how fast the work is done (engine, batch size, folder), since completions come from the store whoever sampled them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import __version__
from . import costs, domains, params
from .costs import Cost
from .params import Common

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
NO_STUDENT = "none"  # value of `student`: nothing is distilled
NOTEBOOKS = {stage: f"{number:02d}_{stage}" for number, stage in enumerate(UPSTREAM, start=1)}
# Parameters that say where or how fast, not what: a change of these does not make a finished stage stale.
NOT_IN_FINGERPRINT = {
    "run",
    "replay_from",
    "outputs",
    "engine",
    "engine_args",
    "base_urls",
    "served_names",
    "concurrency",
    "benchmark_dir",
    "micro_batch_size",
    "gradient_checkpointing",
    "checkpoint_steps",
    "processes",
    "accelerate_args",
    "report_to",
    "other_runs",
}
_VERSIONS = ("torch", "transformers", "vllm", "trl", "peft", "datasets", "lm-eval", "sentence-transformers", "numpy")


class Sampler(Protocol):
    """What sampled for a stage, as far as a manifest tells of it (`generate.Generator`)."""

    cost: Cost

    @property
    def engine_name(self) -> str:
        """Name of the engine."""
        ...

    @property
    def guarantee(self) -> str:
        """What a completion is a function of."""
        ...


class RunError(RuntimeError):
    """A run folder that cannot be used as asked; the message says which stage is missing or stale and what to run."""


@dataclass
class Stage:
    """One stage of one run while it is being worked on. Make it with `begin`; end it with `finish`."""

    name: str
    settings: Common
    folder: Path
    fingerprint: str
    upstream: dict[str, dict[str, Any]]
    started: float = field(default_factory=time.monotonic)

    def read_table(self, stage: str, table: str) -> pd.DataFrame:
        """Read table `table` of an earlier stage of the same run."""
        return read_table(self.folder.parent, stage, table)

    def write_table(self, table: str, frame: pd.DataFrame) -> Path:
        """Write `frame` as <stage>/<table>.parquet, whole or not at all."""
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

        `counts` are plain numbers of things; `models` maps a label (base, tuned, student …) to a fingerprint; `sampled_by` are the
        generators of the stage, from which come its cost, its engine and what that engine guarantees; `cost` is that of training.
        """
        parts = ("sampled", "kept", "rejected")
        if all(part in counts for part in parts) and counts["kept"] + counts["rejected"] != counts["sampled"]:
            raise RunError(
                f"{self.name}: kept {counts['kept']} + rejected {counts['rejected']} is not sampled {counts['sampled']}"
            )
        spent = costs.total_cost([*(sampler.cost for sampler in sampled_by), *([cost] if cost else [])])
        manifest: dict[str, Any] = {
            "stage": self.name,
            "run": self.settings.run,
            "parameters": hide_places(self.settings.model_dump()),
            "fingerprint": self.fingerprint,
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

    def costs(self) -> pd.DataFrame:
        """Return what the stages of this run took up to this one; call it after `finish`."""
        done = list(UPSTREAM)[: list(UPSTREAM).index(self.name) + 1]
        return costs.cost_table({stage: read_manifest(self.folder.parent, stage) for stage in done})


def hide_places(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return `parameters` without folders of this machine and passwords: they say nothing elsewhere and may name a person."""
    shown = parameters | {name: "" for name in ("outputs", "benchmark_dir") if name in parameters}
    for name in ("model", "student", "embedder"):
        if str(shown.get(name, "")).startswith((".", "/", "~")):
            shown[name] = f".../{Path(shown[name]).name}"
    if "domain" in shown:
        shown["domain"] = Path(shown["domain"]).name
    if "base_urls" in shown:
        shown["base_urls"] = [re.sub(r"(?<=://)[^/@]*@", "", url) for url in shown["base_urls"]]
    return shown


def outputs_folder(settings: Common) -> Path:
    """Folder of all runs: the parameter, or the repository's own `outputs/`."""
    return Path(settings.outputs).expanduser() if settings.outputs else params.ROOT / "outputs"


def run_folder(settings: Common, run: str | None = None) -> Path:
    """Folder of `run` (default: the settings' own run)."""
    return outputs_folder(settings) / (run or settings.run)


def stages_before(name: str, settings: Common) -> tuple[str, ...]:
    """Return the stages whose tables stage `name` reads: those above it that the run does not leave out."""
    return tuple(stage for stage in UPSTREAM[name] if stage not in left_out_stages(dict(settings)))


def left_out_stages(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the stages that a run with these parameters has no use for, each with the parameter that says so."""
    source = values.get("question_source", "pool")
    found = {} if source == "pool" else dict.fromkeys(("elicit", "dedup"), f"question_source: {source}")
    return found | ({"distil": f"student: {NO_STUDENT}"} if values.get("student") == NO_STUDENT else {})


def begin_stage(name: str, settings: Common) -> Stage:
    """Open stage `name`: its folder, its fingerprint, the manifests before it. A manifest left from before is removed.

    Raises RunError if a stage before it is not complete.
    """
    folder = run_folder(settings)
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
    stage = Stage(name, settings, folder / name, stage_fingerprint(name, settings, upstream), upstream)
    stage.folder.mkdir(parents=True, exist_ok=True)
    (stage.folder / "manifest.json").unlink(missing_ok=True)
    return stage


def stage_fingerprint(name: str, settings: Common, upstream: dict[str, dict[str, Any]]) -> str:
    """Return the hash of what can change the result of stage `name` (16 hex digits)."""
    values = {key: value for key, value in settings.model_dump().items() if key not in NOT_IN_FINGERPRINT}
    if name == "evaluate":
        values["other_runs"] = getattr(settings, "other_runs", [])
    if domains.is_file(settings.domain):  # what the file says, not where it lies
        values["domain"] = domains.get_domain(settings.domain).model_dump()
    above = {key: manifest["fingerprint"] for key, manifest in upstream.items()}
    return hash_json({"stage": name, "kit": __version__, "parameters": values, "upstream": above})[:16]


def is_current(name: str, settings: Common) -> bool:
    """Say whether stage `name` is complete with just these settings and just these stages before it."""
    folder = run_folder(settings)
    manifest = read_manifest(folder, name)
    upstream = {above: read_manifest(folder, above) for above in stages_before(name, settings)}
    if manifest is None or any(above is None for above in upstream.values()):
        return False
    return bool(manifest["fingerprint"] == stage_fingerprint(name, settings, {k: v for k, v in upstream.items() if v}))


def read_manifest(folder: Path, stage: str) -> dict[str, Any] | None:
    """Read a stage's manifest; None if the stage is not complete."""
    try:
        value: dict[str, Any] = json.loads((folder / stage / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise RunError(
            f"{folder / stage / 'manifest.json'}: is damaged ({error}); delete it and run the stage again"
        ) from None
    return value


def read_table(folder: Path, stage: str, table: str) -> pd.DataFrame:
    """Read `<folder>/<stage>/<table>.parquet`. Raises RunError naming the notebook that makes it."""
    import pandas as pd

    path = folder / stage / f"{table}.parquet"
    if not path.exists():
        raise RunError(
            f"{stage}/{table}.parquet is not in run {folder.name!r}; run notebooks/{NOTEBOOKS[stage]}.ipynb first"
        )
    return pd.read_parquet(path)


def write_json(path: Path, value: Any) -> Path:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    text = json.dumps(value, indent=1, ensure_ascii=False)  # before any file: what cannot be written leaves none
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.chmod(handle.name, 0o644)
    os.replace(handle.name, path)
    return path


def hash_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    ).hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of Python, the kit and the libraries that can change a result."""
    found = {"python": platform.python_version(), "crescent": __version__}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Commit of the checkout, with "+" after it where files differ from it; "" outside of one."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=params.ROOT, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=params.ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if changed else "")


def shown_path(path: Path) -> str:
    """A path as a person at this folder would type it."""
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)
