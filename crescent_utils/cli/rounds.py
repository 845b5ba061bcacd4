"""Rounds: a chain of runs in which each tuned model makes the next run's data, and what is watched for a collapse.

Whether a further round helps or narrows the model is asked here. Round n is the run
`outputs/<run>/round<n>`; its `model` is the folder that round n-1 has tuned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generation, runs, stats

if TYPE_CHECKING:
    import pandas as pd


def round_parameters(profiles: list[Path], overrides: list[str], count: int) -> list[dict[str, Any]]:
    """Return the parameters of each round; those of a later one name the folder that the round before it will fill.

    Raises ParameterError for a bad parameter, and for a replay, which has no weights to go on from.
    """
    values = runs.load_profile(profiles, overrides)
    if count < 1:
        raise runs.ParameterError(f"--rounds {count}: give 1 or more")
    if values.get("engine", "replay") == "replay":
        raise runs.ParameterError("engine: 'replay' has no weights to go on from; choose auto, vllm or transformers")
    name = values.get("run", profiles[0].stem)
    made: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        own = values | {"run": f"{name}/round{number}", "other_runs": []}
        if made:
            own["model"] = str((_folder(made[-1]) / "finetune" / "model").resolve())
        made.append(own)
    return made


def run_rounds(chain: Sequence[dict[str, Any]], run_one: Callable[[dict[str, Any]], int]) -> int:
    """Run the rounds in order by `run_one`, which returns an exit status; the first that fails ends the chain."""
    for values in chain:
        status = run_one(values)
        if status:
            return status
    return 0


def _folder(values: dict[str, Any]) -> Path:
    return runs.run_folder(runs.build_settings("elicit", runs.parameters_of("elicit", values)))


def round_monitors(folders: Sequence[Path], base: Path) -> pd.DataFrame:
    """Return what is watched over the rounds, a row a round, row 0 the untrained model; nan where nothing was measured.

    `accuracy`, `low`, `high`: greedy answers of the model that the round tuned, symbolic scoring, Wilson's 95 % interval, `n` items.
    Of the data that the model before it made: `yield` (share of completions that became a question), `diversity` (share of these
    that were accepted as they came), `words` (different words a question holds, over all its words, by type-token ratio over the
    pool), `agreement` and `entropy` (bits) of the votes, `length` (characters of a path), `right` (share of the kept labels that are
    right, where that can be computed: of `labels`, with Wilson's interval `right_low`, `right_high`). `distance`: of the
    tuned weights from the base's, as a share of the base's norm.
    """
    import pandas as pd

    rows = [{"round": 0, **_accuracy(folders[0], "base"), "distance": 0.0}]
    for number, folder in enumerate(folders, start=1):
        tuned = folder / "finetune" / "model"
        rows.append(
            {"round": number, **_data(folder), **_accuracy(folder, "tuned"), "distance": weight_distance(base, tuned)}
        )
    columns = ["round", "accuracy", "low", "high", "n", "yield", "diversity", "words", "agreement", "entropy", "length", "right",
               "right_low", "right_high", "labels", "distance"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _accuracy(folder: Path, label: str) -> dict[str, float]:
    table = runs.read_table(folder, "evaluate", "scores").query("decoding == 'greedy' and model == @label")
    right, n = int(table["symbolic"].sum()), len(table)
    found = stats.wilson(right, n)
    return {"accuracy": right / n if n else math.nan, "low": found.low, "high": found.high, "n": n}


def _data(folder: Path) -> dict[str, float]:
    import pandas as pd

    elicited, sampled = runs.read_table(folder, "elicit", "questions"), runs.read_table(folder, "elicit", "rejected")
    first = runs.read_table(folder, "dedup", "attempts").query("round == 0")
    pool = runs.read_table(folder, "dedup", "questions")
    qa = runs.read_table(folder, "vote", "qa")
    votes = pd.concat([qa.drop_duplicates("id"), runs.read_table(folder, "vote", "rejected")])
    paths = runs.read_table(folder, "vote", "paths")
    words = [word for text in pool["question"] for word in text.lower().split()]
    known = qa.dropna(subset=["correct"]).drop_duplicates("id")["correct"].astype(bool)
    sure = stats.wilson(int(known.sum()), len(known))
    return {
        "yield": _share(len(elicited), len(elicited) + len(sampled)),
        "diversity": _share(int(first["accepted"].sum()), len(first)),
        "words": _share(len(set(words)), len(words)),
        "agreement": float(votes["agreement"].mean()),
        "entropy": float(votes["entropy"].mean()),
        "length": float(paths["path"].str.len().mean()),
        "right": _share(int(known.sum()), len(known)),
        "right_low": sure.low,
        "right_high": sure.high,
        "labels": len(known),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def weight_distance(base: Path, tuned: Path) -> float:
    """Euclidean distance between two models' weights as a share of the base's norm, tensor by tensor; nan where one is gone.

    Raises ModelError where they are not of one architecture.
    """
    from safetensors import safe_open

    files = [
        {key: path for path in sorted(folder.glob("*.safetensors")) for key in _keys(path)} for folder in (base, tuned)
    ]
    if not all(files):
        return math.nan
    shared = files[0].keys() & files[1].keys()
    if files[0].keys() - shared or files[1].keys() - shared:
        raise generation.ModelError(
            f"{tuned.name}: its weights are not those of {base.name}; compare models of one architecture"
        )
    apart = norm = 0.0
    for key in sorted(shared):
        with safe_open(files[0][key], "pt") as one, safe_open(files[1][key], "pt") as two:
            old, new = one.get_tensor(key).double(), two.get_tensor(key).double()
        apart, norm = apart + float(((new - old) ** 2).sum()), norm + float((old**2).sum())
    return math.sqrt(apart / norm) if norm else math.nan


def _keys(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as handle:
        return list(handle.keys())
