"""Accumulation: the pairs that a model learns from, those of earlier runs among them, each left-out one with a reason.

From round to round a model's own data can replace what was learned before, or accumulate (Gerstgrasser et al. 2024,
arXiv 2404.01413, where accumulating keeps a model from collapsing). There each model is trained anew, and real data is
among what accumulates; here there is none, and a round goes on from the model of the round before, as it does where
the data is replaced (ours): the two differ in nothing but the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import runs
from ..runs import Training
from .masks import TrainingError
from .training import chosen_rows

if TYPE_CHECKING:
    import pandas as pd

REPEATED = "repeats a question"
THIS_RUN = "this run"  # its name is another in a replay, whose tables say the same
LEFT_OUT_COLUMNS = ["run", "id", "question", "agreement", "reason"]
# Of 02 and 03, what must be alike in runs whose pairs are learned together: how a question was asked and its answer
# written down, and which benchmarks no question may repeat.
ASKED_ALIKE = ("domain", "protocol", "system_prompt", "solve_prompt", "path_formats")
HELD_OUT_ALIKE = ("decontaminate", "evaluate_on", "benchmark_items", "benchmark_seed", "benchmarks")


def learned_rows(stage: runs.Stage) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to learn, those of this run's `qa` first, and the candidates that are left out.

    Candidates are all rows of `qa`, of this run and of those in `accumulate_runs`. Of both kinds leave what agrees less
    than `train_min_agreement`; then, of an earlier run, each question that this run has, or one named before it: the
    newest label counts where rounds name the newest first. `max_pairs` draws from what remains. Columns: `qa` with
    `run`, and an id of its own for each question; left out are run, id, question, agreement, reason. Raises RunError
    for a run without a finished vote, TrainingError for one that asked otherwise.
    """
    import pandas as pd

    settings: Any = stage.settings
    for name, manifests in earlier_manifests(settings).items():
        _check_alike(name, manifests, stage, settings)
    candidates = _candidates(stage, settings)
    agreed = candidates[candidates["agreement"] >= settings.train_min_agreement]
    first_run = agreed.drop_duplicates("wording").set_index("wording")["run"]
    own = agreed[agreed["run"] == agreed["wording"].map(first_run)]
    learned = chosen_rows(own, settings)
    reason = pd.Series("train_min_agreement", index=candidates.index)
    reason[agreed.index] = REPEATED
    reason[own.index] = "max_pairs"
    is_learned = candidates["candidate"].isin(learned["candidate"])
    left_out = candidates.assign(reason=reason, id=candidates["id_there"])[~is_learned]
    helpers = ["candidate", "id_there", "wording"]
    return learned.drop(columns=helpers), left_out[LEFT_OUT_COLUMNS].reset_index(drop=True)


def learned_counts(learned: pd.DataFrame, left_out: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run: how many candidates it has, how many are learned, how many left out by reason."""
    import pandas as pd

    rows = pd.concat([learned.assign(reason="learned")[["run", "reason"]], left_out[["run", "reason"]]])
    table = pd.crosstab(rows["run"], rows["reason"])
    reasons = [name for name in ("train_min_agreement", REPEATED, "max_pairs") if name in table]
    table = table.reindex(rows["run"].unique(), columns=["learned", *reasons], fill_value=0)
    table.insert(0, "candidates", table.sum(axis="columns"))
    return table.rename_axis(index="run", columns=None).reset_index()


def earlier_manifests(settings: Training) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the manifests of 02 (where it has one) and 03 of each run in `accumulate_runs`, by run and stage.

    Raises RunError for a run that has not come to the end of its vote.
    """
    found = {}
    for name in settings.accumulate_runs:
        folder = runs.run_folder(settings, name)
        manifests = {stage: runs.read_manifest(folder, stage) for stage in ("dedup", "vote")}
        if manifests["vote"] is None:
            raise runs.RunError(
                f"accumulate_runs: run {name!r} has no finished vote; finish it (crescent run … --to vote), or take "
                "it out"
            )
        found[name] = {stage: manifest for stage, manifest in manifests.items() if manifest is not None}
    return found


def _candidates(stage: runs.Stage, settings: Training) -> pd.DataFrame:
    """Return the rows of all votes, this run's first; `id` is one of a kind, `id_there` that of the row's own run."""
    import pandas as pd

    tables = {THIS_RUN: stage.read_table("vote", "qa")}
    for name in settings.accumulate_runs:
        tables[name] = runs.read_table(runs.run_folder(settings, name), "vote", "qa")
    frames, first_id = [], 0
    for name, table in tables.items():
        frames.append(table.assign(run=name, id_there=table["id"], id=table["id"] + first_id))
        first_id = int(frames[-1]["id"].max()) + 1 if len(table) else first_id
    rows = pd.concat(frames, ignore_index=True)
    wording = rows["question"].astype("str").str.casefold().str.split().str.join(" ")
    return rows.assign(wording=wording, candidate=rows.index)


def _check_alike(name: str, earlier: Mapping[str, dict[str, Any]], stage: runs.Stage, settings: Training) -> None:
    """Raise TrainingError where run `name` asked its questions otherwise, or kept them apart from other benchmarks."""
    alike = [*ASKED_ALIKE, *HELD_OUT_ALIKE]
    if settings.train_prompt == "bare":
        alike.remove("solve_prompt")
    for of_stage, other in earlier.items():
        this = runs.read_manifest(stage.folder.parent, of_stage)
        for parameter, other_value, value in runs.differing_parameters(other, this, alike) if this else ():
            raise TrainingError(
                f"accumulate_runs: {of_stage} of {name!r} was made with {parameter} {other_value}, that of this run "
                f"with {value}; pairs are learned together that were asked and decontaminated alike: make "
                "it alike, or take it out"
            )
