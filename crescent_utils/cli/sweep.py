"""Sweeps: one profile with each of several overlays and seeds, and what each overlay changed.

Each run has its own folder and store, so that it can be replayed alone. Before a run starts, it is given what earlier
runs of the sweep have sampled with its seed, and the stages that they finished just as it would: what two runs have in
common is done once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import evaluate, generation, runs, stats
from ..generation import STORE_NAME
from . import report

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "whole"  # the profile without an overlay: what the others are compared with
# Parameters of 06 that say what is asked and how it is answered: alike in runs that are compared.
JUDGED_BY = (
    "benchmark_split",
    "benchmark_seed",
    "benchmark_items",
    "system_prompt",
    "eval_temperature",
    "eval_max_tokens",
)
TRAINED = {"tuned": "finetune", "student_tuned": "distil"}  # the models that are compared, and what trains them
CLAIM_LABELS = {("seed_augmentation", "student_tuned"): "student_seed"}  # the claims have their own name for this model


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: the overlay's name (`whole`: none), its seed, and all its parameters."""

    overlay: str
    seed: int
    parameters: dict[str, Any]

    def settings(self, stage: str) -> Any:
        """Return the settings of one of its stages."""
        return runs.settings_from(stage, self.parameters)

    @property
    def folder(self) -> Path:
        """Return the folder of the run."""
        return runs.run_folder(self.settings("elicit"))


def command(arguments: argparse.Namespace) -> int:
    """Run the sweep and print what each overlay changed; the first run that fails ends it. Returns the exit status."""
    sweep_runs = plan_sweep(arguments.profiles, arguments.overlays, arguments.seeds, arguments.overrides)
    if arguments.list:
        print("\n".join(run.parameters["run"] for run in sweep_runs))
        return 0
    for number, run in enumerate(sweep_runs):
        share_samples(run, sweep_runs[:number])
        share_stages(run, sweep_runs[:number])
        if status := int(arguments.run_profile(run.parameters)):
            return status
    print("\n" + write_results(sweep_runs, " ".join(map(str, arguments.profiles))))
    return 0


def plan_sweep(
    profiles: list[Path], overlays: Sequence[Path], seeds: Sequence[int], overrides: list[str]
) -> list[SweepRun]:
    """Return the runs of a sweep, `outputs/<run>/<overlay>-seed<n>`: seed by seed, the profile as it is first.

    Raises ParameterError, before anything runs, for a bad parameter, a seed or overlay that is given twice, and an
    overlay that could not be compared.
    """
    names = [WHOLE, *(path.stem for path in overlays)]
    for option, values in (("--overlays", names), ("--seeds", seeds)):
        for value, count in Counter(values).items():
            if count > 1:
                raise runs.ParameterError(
                    f"{option}: {value} is given twice; a run of a sweep is named by its overlay and seed"
                )
    sweep_name = runs.load_profile(profiles, overrides).get("run", profiles[0].stem)
    sweep_runs = []
    for seed in seeds:
        for name, overlay in zip(names, [[], *([path] for path in overlays)], strict=True):
            identity = [f"seed={seed}", f"run={sweep_name}/{name}-seed{seed}", "other_runs=[]"]
            parameters = runs.load_profile([*profiles, *overlay], [*overrides, *identity])
            sweep_runs.append(SweepRun(name, seed, parameters))
    check_judged_alike(sweep_runs)
    return sweep_runs


def check_judged_alike(sweep_runs: Sequence[SweepRun], what: str = "overlay") -> None:
    """Raise ParameterError where a run could not be compared with the whole of its seed; `what` it is to the user."""
    wholes = {run.seed: run.settings("evaluate") for run in sweep_runs if run.overlay == WHOLE}
    for run in sweep_runs:
        for difference in _judged_otherwise(run.settings("evaluate"), wholes[run.seed]):
            raise runs.ParameterError(
                f"{what} {run.overlay}: {difference}. It is compared with the whole, the profile as it is, on what "
                "both are asked alike: take this parameter out, or set it for all runs"
            )


def _judged_otherwise(settings: runs.Evaluate, whole: runs.Evaluate) -> Iterator[str]:
    """Yield what keeps two runs from being compared: on the first of `eval_prompts`, with all that words it.

    Of benchmarks and shots they need some in common: these are compared.
    """
    first, of_whole = settings.eval_prompts[0], whole.eval_prompts[0]
    if first != of_whole:
        yield f"eval_prompts: the first is {first!r}, of the whole {of_whole!r}"
    worded_by = () if first in ("bare", "stock") else ("domain", "solve_prompt")
    for name in (*JUDGED_BY, *worded_by):
        if getattr(settings, name) != getattr(whole, name):
            yield f"{name}: {getattr(settings, name)!r}, of the whole {getattr(whole, name)!r}"
    if not set(settings.shots) & set(whole.shots):
        yield f"shots: {settings.shots} have none in common with {whole.shots} of the whole"
    asked, asked_of_whole = (
        list(each.evaluate_on or runs.get_domain(each.domain).benchmarks) for each in (settings, whole)
    )
    if asked_of_whole and not set(asked) & set(asked_of_whole):
        name = "evaluate_on:" if settings.evaluate_on else f"domain: {settings.domain!r}, whose benchmarks"
        yield f"{name} {asked} have none in common with {asked_of_whole} of the whole"


def share_samples(run: SweepRun, earlier: Sequence[SweepRun]) -> int:
    """Add what the `earlier` runs with its seed have sampled to the run's store; return how many completions."""
    others = [other.folder for other in earlier if other.seed == run.seed and other.folder != run.folder]
    target = run.folder / STORE_NAME
    added = 0
    for folder in reversed(others):  # the latest has most of what those before it sampled
        store = folder / STORE_NAME
        if store.exists() and generation.holds_more(store, target):
            run.folder.mkdir(parents=True, exist_ok=True)
            added += generation.merge_stores(target, [store]).added
    return added


def share_stages(run: SweepRun, earlier: Sequence[SweepRun]) -> list[str]:
    """Copy to the run the stages that an `earlier` run finished just as it would; return their names.

    A stage with the same fingerprint has the same parameters and rests on the same stages.
    """
    shared = []
    for stage in runs.STAGES:
        settings = run.settings(stage)
        before = [runs.read_manifest(run.folder, name) for name in runs.stages_before(stage, settings)]
        if runs.is_current(stage, settings) or None in before:
            continue
        fingerprint = runs.stage_fingerprint(stage, settings)
        for other in earlier:
            manifest = runs.read_manifest(other.folder, stage)
            if manifest is not None and manifest["fingerprint"] == fingerprint:
                _copy_stage(stage, manifest, other.folder, run)
                shared.append(stage)
                break
    return shared


def _copy_stage(stage: str, manifest: dict[str, Any], source: Path, target: SweepRun) -> None:
    """Copy the stage's folder and executed notebook; the manifest names the run that it was taken from."""
    shutil.rmtree(target.folder / stage, ignore_errors=True)
    shutil.copytree(source / stage, target.folder / stage, copy_function=_link_weights)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source / f"{runs.NOTEBOOKS[stage]}.ipynb", target.folder)
    note = "; ".join(filter(None, [manifest["note"], f"taken from {manifest['run']}"]))
    runs.write_json(target.folder / stage / "manifest.json", manifest | {"run": target.parameters["run"], "note": note})


def _link_weights(source: str, target: str) -> None:
    """Copy a file, or link it if it holds weights: those are never changed in place, and a link needs no disk space."""
    if source.endswith(".safetensors"):
        with contextlib.suppress(OSError):  # a file system without links
            os.link(source, target)
            return
    shutil.copy2(source, target)


def write_results(sweep_runs: Sequence[SweepRun], profile: str) -> str:
    """Write the sweep's scores, comparisons and claims beside its runs; return the table and the verdict as text.

    `profile` is what the claims' commands name.
    """
    settings = sweep_runs[0].settings("evaluate")
    folder = sweep_runs[0].folder.parent
    scores = sweep_scores(sweep_runs)
    comparisons = sweep_comparisons(scores, settings.resamples, sweep_general(sweep_runs))
    ledger = evaluate.claims_ledger(comparisons, method=settings.claims_of, profile=profile)
    scores.to_parquet(folder / "scores.parquet", index=False)
    comparisons.to_parquet(folder / "comparisons.parquet", index=False)
    (folder / "claims.json").write_text(evaluate.ledger_to_json(ledger), encoding="utf-8")
    table = report.result_table(comparisons[comparisons["decoding"] == "greedy"])
    return f"{table}\n\n{evaluate.verdict_line(ledger)}\ntables: {folder}"


def sweep_scores(sweep_runs: Sequence[SweepRun]) -> pd.DataFrame:
    """Return the scores of all runs in one table, an overlay's models under names of their own (`tuned_no_vote` …).

    Base and untrained student are the same in each run and are taken from the profile's own run alone; so is a trained
    model that an overlay left as it is, such as the teacher where the student's data alone was changed.
    """
    import pandas as pd

    tables = []
    wholes = {run.seed: run.folder for run in sweep_runs if run.overlay == WHOLE}
    for run in sweep_runs:
        headline = run.settings("evaluate").eval_prompts[0]
        scores = evaluate.headline_scores(runs.read_table(run.folder, "evaluate", "scores"), headline)
        if run.overlay != WHOLE:
            whole = wholes.get(run.seed)
            trained = [name for name, stage in TRAINED.items() if not (whole and _in_common(stage, run.folder, whole))]
            labels = {name: CLAIM_LABELS.get((run.overlay, name), f"{name}_{run.overlay}") for name in trained}
            scores = scores[scores["model"].isin(trained)].replace({"model": labels})
        tables.append(scores)
    return pd.concat(tables, ignore_index=True)


def _in_common(stage: str, folder: Path, whole: Path) -> bool:
    """Whether two runs share a stage: it was done once, and both have it."""
    manifests = [runs.read_manifest(each, stage) for each in (folder, whole)]
    fingerprints = {manifest["fingerprint"] if manifest else None for manifest in manifests}
    return len(fingerprints) == 1 and None not in fingerprints


def sweep_general(sweep_runs: Sequence[SweepRun]) -> pd.DataFrame:
    """Return the scores on general tasks of the profile's own runs in one table; without rows where none was asked."""
    import pandas as pd

    folders = [run.folder for run in sweep_runs if run.overlay == WHOLE]
    paths = [folder / "evaluate" / "general.parquet" for folder in folders]
    tables = [pd.read_parquet(path) for path in paths if path.exists()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def sweep_comparisons(scores: pd.DataFrame, resamples: int, general: pd.DataFrame | None = None) -> pd.DataFrame:
    """Compare before with after training, and each overlay's model with the profile's own, under symbolic scoring.

    On the `general` tasks, under their metrics, before is compared with after training alone. As in the claims,
    `after` is the profile's own model and `before` the one that lacks something: a positive difference says that what
    was left out matters. The base is also compared with the control, if the profile's own runs have one. Raises
    RunError for two models without a row in common.
    """
    import pandas as pd

    labels = scores["model"].unique()
    own_pairs = (*evaluate.PAIRS, ("base", runs.CONTROL))
    pairs = [pair for pair in own_pairs if set(pair) <= set(labels)]
    of_the_method = {label for pair in own_pairs for label in pair}
    for label in labels:
        own = "student_tuned" if label.startswith("student") else "tuned"
        if label not in of_the_method and own in labels:
            pairs.append((label, own))
    if not pairs:
        raise runs.RunError(f"scores: no two models to compare, only {', '.join(labels) or 'empty tables'}")
    rows = [stats.compare_models(scores, before, after, resamples=resamples) for before, after in pairs]
    for (before, after), compared in zip(pairs, rows, strict=True):
        if compared.empty:
            raise runs.RunError(
                f"scores: {before} and {after} have no row in common (benchmark, shots, decoding), so nothing can be "
                "compared; evaluate both with the same benchmark parameters"
            )
    for metric, part in general.groupby("metric") if general is not None and len(general) else []:
        rows.append(stats.compare_models(part, *evaluate.PAIRS[0], "score", resamples=resamples).assign(scoring=metric))
    return pd.concat(rows, ignore_index=True)
