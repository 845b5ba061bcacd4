"""Rounds: runs in a row, in which each tuned model makes the next run's data, and what is watched for a collapse.

Does a further round help, or does it narrow the model? Round n is the run `outputs/<run>/round<n>`; its `model` is the
folder that round n-1 has tuned. It learns from its own round's pairs, which replace those before, or from these too:
the data accumulates (Gerstgrasser et al. 2024, arXiv 2404.01413; see `finetune/accumulation.py`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import evaluate, figures, generation, runs, stats, vote

if TYPE_CHECKING:
    import pandas as pd

LATER_TEMPERATURE = 1.2  # LMSI, section 3: of the paths that a model samples which was trained before

COLUMNS = ("round", "data", "pairs", "accuracy", "low", "high", "n", "yield", "diversity", "words", "agreement",
           "entropy", "length", "right", "right_low", "right_high", "labels", "self_bias", "distance")  # fmt: skip


def command(arguments: argparse.Namespace) -> int:
    """Run the rounds, write and print what was watched; the first round that fails ends it. Returns the exit status."""
    rounds = plan_rounds(arguments.profiles, arguments.overrides, arguments.rounds, accumulate=arguments.accumulate)
    if arguments.list:
        print("\n".join(parameters["run"] for parameters in rounds))
        return 0
    for parameters in rounds:
        if status := int(arguments.run_profile(parameters)):
            return status
    print(write_monitors(rounds))
    return 0


def write_monitors(rounds: Sequence[dict[str, Any]]) -> str:
    """Write what was watched over finished rounds beside their runs, as a table and a figure; return it as text."""
    folders = [_folder(parameters) for parameters in rounds]
    base = generation.resolve_model(rounds[0].get("model", "bundled"))
    domain = runs.get_domain(runs.settings_from("vote", rounds[0]).domain)
    table = round_monitors(folders, base.locate(), domain)
    place = folders[0].parent
    table.to_parquet(place / "rounds.parquet", index=False)
    figure, text = figures.rounds_panels(table)
    figure.savefig(place / "rounds.png", dpi=100)
    return f"\n{table.round(3).to_string(index=False)}\n\n{text}\ntable and figure: {place}"


def plan_rounds(
    profiles: list[Path], overrides: list[str], count: int, *, accumulate: bool = False
) -> list[dict[str, Any]]:
    """Return the parameters of each round; those of a later one name the folder that the round before it will fill.

    Each round votes anew, so exemplars of the model's own (vote_shots "own") are renewed by the model of that round.
    Where they `accumulate`, a round also learns from the pairs of the rounds before it, the newest first; unless an
    override sets `run`, such rounds have a name of their own, so that both kinds can stand side by side. With LMSI's
    profiles (`claims_of: lmsi`) later rounds sample at T = 1.2, as LMSI does, unless an override sets the temperature.
    Raises ParameterError for a bad parameter, and for a replay, which has no weights to go on from.
    """
    values = runs.load_profile(profiles, overrides)
    if count < 1:
        raise runs.ParameterError(f"--rounds {count}: give 1 or more")
    if values.get("engine", "replay") == "replay":
        raise runs.ParameterError("engine: 'replay' has no weights to go on from; choose auto, vllm or transformers")
    overridden = {text.partition("=")[0].strip() for text in overrides}
    name = values.get("run", profiles[0].stem) + ("_accumulating" if accumulate and "run" not in overridden else "")
    rounds: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        parameters = values | {"run": f"{name}/round{number}", "other_runs": []}
        if rounds:
            parameters["model"] = str((_folder(rounds[-1]) / "finetune" / "model").resolve())
            if accumulate:
                before = [earlier["run"] for earlier in reversed(rounds)]
                parameters["accumulate_runs"] = [*before, *values.get("accumulate_runs", [])]
            if values.get("claims_of") == "lmsi" and "vote_temperature" not in overridden:
                parameters["vote_temperature"] = LATER_TEMPERATURE
        rounds.append(parameters)
    return rounds


def _folder(parameters: dict[str, Any]) -> Path:
    return runs.run_folder(runs.settings_from("elicit", parameters))


def round_monitors(folders: Sequence[Path], base: Path, domain: runs.Domain) -> pd.DataFrame:
    """Return what is watched, one row per round, row 0 the untrained model; nan where nothing was measured.

    - `data`: of these rounds, "replaced" or "accumulated"; `pairs`: those that the round's model learned from
    - `accuracy`, `low`, `high`: of greedy answers to `n` items, symbolic scoring, Wilson's 95 % interval
    - `yield`: share of completions that became a question; `diversity`: share of these that were accepted as they came;
      `words`: different words of the pool over all its words; all three nan where no question was made up (LMSI)
    - `agreement`, `entropy` (bits): means over the votes; `length`: mean characters of a reasoning path
    - `right`, `right_low`, `right_high`: share of right labels among the `labels` known to be right or wrong, likewise
    - `self_bias`: how often the other paths give a path's own answer minus how often that is right; above 0 the model
      overrates itself. Over all questions of the vote, so nan where `domain` knows no right answers of its questions
    - `distance`: of the tuned weights from the base's, as a share of the base's norm
    """
    import pandas as pd

    rows = [{"round": 0, **_accuracy(folders[0], "base"), "distance": 0.0}]
    for number, folder in enumerate(folders, start=1):
        distance = weight_distance(base, folder / "finetune" / "model")
        measures = _accuracy(folder, "tuned") | _questions(folder) | _votes(folder, domain)
        rows.append({"round": number, **measures, "distance": distance})
    trainings = [runs.read_manifest(folder, "finetune") or {"parameters": {}, "counts": {}} for folder in folders]
    accumulates = any(training["parameters"].get("accumulate_runs") for training in trainings)
    pairs = [math.nan, *(training["counts"].get("pairs", math.nan) for training in trainings)]
    table = pd.DataFrame(rows).assign(data="accumulated" if accumulates else "replaced", pairs=pairs)
    return table.reindex(columns=list(COLUMNS))


def _accuracy(folder: Path, label: str) -> dict[str, float]:
    manifest = runs.read_manifest(folder, "evaluate") or {"parameters": {}}
    headline = manifest["parameters"].get("eval_prompts", ["solve"])[0]
    scores = evaluate.headline_scores(runs.read_table(folder, "evaluate", "scores"), headline)
    scores = scores.query("decoding == 'greedy' and model == @label")
    share = stats.wilson(int(scores["symbolic"].sum()), len(scores))
    return {"accuracy": share.estimate, "low": share.low, "high": share.high, "n": share.n}


def _questions(folder: Path) -> dict[str, float]:
    """Measure the questions that the model made; nothing where the vote took them from elsewhere, as LMSI does."""
    manifest = runs.read_manifest(folder, "vote")
    if manifest is None or "dedup" not in manifest["upstream"]:
        return {}
    kept, rejected = (runs.read_table(folder, "elicit", table) for table in ("questions", "rejected"))
    first_checks = runs.read_table(folder, "dedup", "attempts").query("round == 0")
    words = runs.read_table(folder, "dedup", "questions")["question"].str.lower().str.split().explode().dropna()
    return {
        "yield": stats.wilson(len(kept), len(kept) + len(rejected)).estimate,
        "diversity": float(first_checks["accepted"].mean()),
        "words": stats.wilson(words.nunique(), len(words)).estimate,
    }


def _votes(folder: Path, domain: runs.Domain) -> dict[str, float]:
    """Measure the votes, abstentions included, their paths and the labels that are known to be right or wrong."""
    import pandas as pd

    labels = runs.read_table(folder, "vote", "qa").drop_duplicates("id")
    votes = pd.concat([labels, runs.read_table(folder, "vote", "rejected")])
    paths = runs.read_table(folder, "vote", "paths")
    verdicts = labels["correct"].dropna().astype(bool)
    right = stats.wilson(int(verdicts.sum()), len(verdicts))
    golds = vote.known_golds(votes[["id", "question"]], domain)
    headroom = vote.headroom_table(vote.path_samples(paths, golds)).set_index("quantity")
    return {
        "agreement": float(votes["agreement"].mean()),
        "entropy": float(votes["entropy"].mean()),
        "length": float(paths["path"].str.len().mean()),
        "right": right.estimate,
        "right_low": right.low,
        "right_high": right.high,
        "labels": right.n,
        "self_bias": float(headroom.loc["self_bias", "estimate"]),
    }


def weight_distance(base: Path, tuned: Path) -> float:
    """Return the distance (L2) of two models' weights as a share of the base's norm; nan where one has no weights.

    Raises ModelError where they are not of one architecture.
    """
    from safetensors import safe_open

    base_files, tuned_files = _tensor_files(base), _tensor_files(tuned)
    if not base_files or not tuned_files:
        return math.nan
    if base_files.keys() != tuned_files.keys():
        raise generation.ModelError(
            f"{tuned.name}: its weights are not those of {base.name}; compare models of one architecture"
        )
    squared_change = squared_norm = 0.0
    for name in base_files:  # tensor by tensor: two models may not fit into memory
        with safe_open(base_files[name], "pt") as before_file, safe_open(tuned_files[name], "pt") as after_file:
            before, after = before_file.get_tensor(name).double(), after_file.get_tensor(name).double()
        squared_change += float(((after - before) ** 2).sum())
        squared_norm += float((before**2).sum())
    return math.sqrt(squared_change / squared_norm) if squared_norm else math.nan


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Return the file in which each tensor of a model folder lies, by the tensor's name."""
    from safetensors import safe_open

    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as handle:
            files |= dict.fromkeys(handle.keys(), path)
    return files
