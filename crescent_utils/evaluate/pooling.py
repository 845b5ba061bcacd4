"""Pooling: which other runs may stand beside this one, as further seeds of the same method or as ablations of it.

Runs are pooled as seeds if they differ in nothing but the seed. Runs are compared if they were judged alike: the same
items, asked in the same words, answered under the same sampling settings. What made their models may then differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import runs
from ..runs import Evaluate

if TYPE_CHECKING:
    import pandas as pd

# Parameters of 06 that say how a model was judged. That the items are the same is seen in the tables.
JUDGED_BY = ("domain", "system_prompt", "solve_prompt", "eval_samples", "eval_temperature", "eval_max_tokens")
# Of the stages before, parameters that may differ between seeds: the seed, what says where or how fast, not what, and
# whether a control was trained beside the method's own models.
FREE = runs.NOT_IN_FINGERPRINT | {"seed", "random_label_control"}


def pooled_scores(scores: pd.DataFrame, settings: Evaluate, table: str = "scores") -> pd.DataFrame:
    """Return this run's table with those of `other_runs` and the ablated models of `compare_runs` below it.

    An ablated model stands there under its label of `compare_runs`. Raises RunError for a run that may not stand beside
    this one, and for a seed that is there twice.
    """
    import pandas as pd

    frames = [scores]
    seeds_so_far = {settings.seed}
    for name in settings.other_runs:
        _check_same_method(settings, name)
        other = _judged_alike(scores, settings, "other_runs", name, table)
        seeds_so_far |= _new_seeds(other, seeds_so_far, f"other_runs: {name!r}")
        frames.append(other[other["model"].isin(scores["model"])])  # this run may have no student
    for label, names in settings.compare_runs.items():
        trained = "student_tuned" if label.startswith("student") else "tuned"
        seeds_so_far = set()
        for name in names:
            other = _judged_alike(scores, settings, "compare_runs", name, table)
            other = other[other["model"] == trained]
            seeds_so_far |= _new_seeds(other, seeds_so_far, f"compare_runs: {label}: {name!r}")
            frames.append(other.assign(model=label))
    pooled = pd.concat(frames, ignore_index=True)
    for column, default in (("kind", ""), ("form", "number"), ("prompt", "solve")):  # tables from before these columns
        if column in pooled:
            pooled[column] = pooled[column].fillna(default)
    return pooled


def _new_seeds(scores: pd.DataFrame, seeds_so_far: set[int], where: str) -> set[int]:
    seeds = set(scores["seed"].unique().tolist())
    if seeds & seeds_so_far:
        raise runs.RunError(f"{where} has seed {min(seeds & seeds_so_far)} as well; a seed counts once")
    return seeds


def _judged_alike(scores: pd.DataFrame, settings: Evaluate, parameter: str, name: str, table: str) -> pd.DataFrame:
    """Read `table` of run `name`; raise RunError if its models were judged on other items or in another way."""
    folder = runs.run_folder(settings, name)
    other = runs.read_table(folder, "evaluate", table)
    if "prompt" in scores and "prompt" not in other:  # a table from before there were several
        other = other.assign(prompt="solve")
    manifest = runs.read_manifest(folder, "evaluate")
    for judged_by, other_value, value in runs.differing_parameters(manifest, settings, JUDGED_BY) if manifest else []:
        raise runs.RunError(
            f"{parameter}: {name!r} was judged with {judged_by} = {other_value}, this run with {value}; "
            "evaluate both in the same way"
        )
    for columns, what in (
        (["benchmark", "question"], "items"),
        (["benchmark", "shots", "decoding"], "shots or decodings"),
        (["benchmark", "prompt"], "prompts"),
    ):
        there = [column for column in columns if column in scores and column in other]
        here, elsewhere = (set(map(tuple, rows[there].drop_duplicates().to_numpy())) for rows in (scores, other))
        if here != elsewhere:
            raise runs.RunError(
                f"{parameter}: {name!r} answered other {what}; evaluate it with the same benchmark parameters"
            )
    return other


def _check_same_method(settings: Evaluate, name: str) -> None:
    """Raise RunError unless everything that made the models of run `name`, but the seed, is as in this run."""
    other_folder = runs.run_folder(settings, name)
    vote = runs.read_manifest(runs.run_of_stage("vote", settings), "vote") or {"parameters": {}}
    judged = runs.read_manifest(other_folder, "evaluate") or {"parameters": {}}
    left_out = {
        *runs.left_out_stages(vote["parameters"] | {"student": settings.student}),
        *runs.left_out_stages(judged["parameters"]),  # a seed without a student is a seed of the others
    }
    for stage in runs.STAGES[:-1]:
        this_run = runs.read_manifest(runs.run_of_stage(stage, settings), stage)
        if this_run is None or stage in left_out:
            continue
        other_run = runs.read_manifest(other_folder, stage)
        if other_run is None:
            raise runs.RunError(
                f"other_runs: {name!r} has no manifest of {stage}: nothing shows that it was made alike"
            )
        defaults = runs.build_settings(stage, {}).model_dump()  # of parameters that a run is too old to have
        other_run, this_run = (run | {"parameters": defaults | run["parameters"]} for run in (other_run, this_run))
        names = [parameter for parameter in defaults if parameter not in FREE]
        for parameter, other_value, value in runs.differing_parameters(other_run, this_run, names):
            raise runs.RunError(
                f"other_runs: {name!r} was made with {parameter} = {other_value}, this run with {value}. "
                "Runs that are pooled differ in nothing but the seed; compare others through compare_runs"
            )
