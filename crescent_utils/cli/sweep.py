"""Sweeps: a list of overlays and seeds over one profile, and what each overlay changed, paired with the method as it is.

Each run has its own folder and store, so that it can be replayed alone. Before a run starts it is given what earlier runs of the
sweep with its seed have sampled, and the stages that they finished just as it would: what two runs have in common is done once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generation, runs, stats
from ..generation import STORE_NAME

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "whole"  # the profile without an overlay: what the others are compared with
_LEDGER = {("seed_augmentation", "student_tuned"): "student_seed"}  # labels that the claims know under another name


@dataclass(frozen=True)
class Job:
    """One run of a sweep: the overlay's name (`whole`: none), its seed, and all its parameters."""

    overlay: str
    seed: int
    values: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return runs.run_folder(runs.build_settings("elicit", runs.parameters_of("elicit", self.values)))


def sweep_jobs(profiles: list[Path], overlays: Sequence[Path], seeds: Sequence[int], overrides: list[str]) -> list[Job]:
    """Return the runs of a sweep, `outputs/<run>/<overlay>-seed<n>`: seed by seed, the profile as it is first.

    Raises ParameterError for a bad parameter, a seed or an overlay that stands twice, before anything runs.
    """
    base = runs.load_profile(profiles, overrides)
    name = base.get("run", profiles[0].stem)
    stems = [WHOLE, *(path.stem for path in overlays)]
    for what, given in (("--overlays", stems), ("--seeds", list(seeds))):
        twice = [item for i, item in enumerate(given) if item in given[:i]]
        if twice:
            raise runs.ParameterError(
                f"{what}: {twice[0]} stands twice; a run of a sweep is named by its overlay and seed"
            )
    jobs = []
    for seed in seeds:
        for stem, paths in zip(stems, [[], *([path] for path in overlays)], strict=True):
            own = [f"seed={seed}", f"run={name}/{stem}-seed{seed}", "other_runs=[]"]
            jobs.append(Job(stem, seed, runs.load_profile([*profiles, *paths], [*overrides, *own])))
    return jobs


def run_sweep(jobs: Sequence[Job], run_one: Callable[[dict[str, Any]], int]) -> int:
    """Run the jobs in order by `run_one`, which returns an exit status; the first that fails ends the sweep. Returns the status."""
    for number, job in enumerate(jobs):
        share_samples(job, jobs[:number])
        share_stages(job, jobs[:number])
        status = run_one(job.values)
        if status:
            return status
    return 0


def share_samples(job: Job, before: Sequence[Job]) -> int:
    """Add to the job's store what the jobs `before` it with its seed have sampled; return the number of completions added."""
    known = [other.folder / STORE_NAME for other in before if other.seed == job.seed]
    sources = [path for path in known if path.exists()]
    if not sources:
        return 0
    job.folder.mkdir(parents=True, exist_ok=True)
    return generation.merge_stores(job.folder / STORE_NAME, sources).added


def share_stages(job: Job, before: Sequence[Job]) -> list[str]:
    """Copy to the job's run the stages that the jobs `before` it finished with just its parameters; return their names.

    A stage with the same fingerprint has the same parameters and rests on the same stages. Weights are linked, not copied.
    """
    taken = []
    for stage in runs.STAGES:
        settings = runs.build_settings(stage, runs.parameters_of(stage, job.values))
        if runs.is_current(stage, settings):
            continue
        above = {name: runs.read_manifest(job.folder, name) for name in runs.stages_before(stage, settings)}
        if any(manifest is None for manifest in above.values()):
            continue
        wanted = runs.stage_fingerprint(
            stage, settings, {name: manifest for name, manifest in above.items() if manifest}
        )
        for other in before:
            manifest = runs.read_manifest(other.folder, stage)
            if manifest is None or manifest["fingerprint"] != wanted:
                continue
            shutil.rmtree(job.folder / stage, ignore_errors=True)
            shutil.copytree(other.folder / stage, job.folder / stage, copy_function=_link_weights)
            notebook = f"{runs.NOTEBOOKS[stage]}.ipynb"
            if (other.folder / notebook).exists():
                shutil.copy2(other.folder / notebook, job.folder / notebook)
            note = "; ".join(filter(None, [manifest["note"], f"taken from {manifest['run']}"]))
            runs.write_json(job.folder / stage / "manifest.json", manifest | {"run": job.values["run"], "note": note})
            taken.append(stage)
            break
    return taken


def _link_weights(source: str, target: str) -> None:
    """Weights are written once and never changed in place; a link to them costs no room."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            pass
        else:
            return
    shutil.copy2(source, target)


def sweep_scores(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return the scores of all finished jobs in one table, an overlay's models under names of their own (`tuned_no_vote` …).

    Base and untrained student are the same in each job and are taken from the profile's own run alone.
    """
    import pandas as pd

    frames = []
    for job in jobs:
        table = runs.read_table(job.folder, "evaluate", "scores")
        if job.overlay != WHOLE:
            table = table[table["model"].isin(["tuned", "student_tuned"])]
            names = {m: _LEDGER.get((job.overlay, m), f"{m}_{job.overlay}") for m in ("tuned", "student_tuned")}
            table = table.assign(model=table["model"].map(names))
        frames.append(table)
    return pd.concat(frames, ignore_index=True)


def sweep_comparisons(table: pd.DataFrame, resamples: int = 10_000) -> pd.DataFrame:
    """Compare each model of a sweep's `scores`: before and after training, and each overlay's against the profile's own.

    As in the claims, `after` is the profile's own model and `before` the one that lacks something: a positive difference says that
    what was left out matters.
    """
    import pandas as pd

    names = list(dict.fromkeys(table["model"]))
    pairs = [pair for pair in (("base", "tuned"), ("student", "student_tuned")) if set(pair) <= set(names)]
    for name in names:
        whole = "student_tuned" if name.startswith("student") else "tuned"
        if name not in ("base", "tuned", "student", "student_tuned"):
            pairs.append((name, whole))
    rows = [stats.compare_models(table, before, after, resamples=resamples) for before, after in pairs]
    return pd.concat(rows, ignore_index=True)
