"""Verify: compute a published run's tables again out of its store, without a model, and say where a number differs.

The code cells of the kit's notebooks are executed on a replay of the run, into a folder that is thrown away; so a table
is computed here by the very lines that computed it there. What was trained cannot be replayed: of `finetune` and
`distil` only the fingerprints that link the stages are checked. The trained models' answers are in the store.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import runs

if TYPE_CHECKING:
    import pandas as pd

REPLAYED = ("elicit", "dedup", "vote", "evaluate")
COMPARED_KEYS = ("counts", "tokens", "models", "seed")  # of a manifest; seconds, memory and dates are another run's
LOADED_PLACES = ("embedder", "question_source")  # parameters whose files a replay reads; models it never does
COSINE_TOLERANCE = 2e-4  # a cosine is stored with four digits; another processor may round its last one the other way
ROUNDING = 1e-9  # relative, of any other number that is not whole: sums of floats in another order
MOST_LISTED = 20  # differences that are listed per table


@dataclass(frozen=True)
class Difference:
    """One number or text that came out different; `row` counts from 0, -1 where the whole table is meant."""

    stage: str
    table: str
    row: int
    column: str
    stored: str
    recomputed: str

    def __str__(self) -> str:
        place = f"{self.stage}/{self.table}" + (f", row {self.row}" if self.row >= 0 else "")
        return f"{place}, {self.column}: stored {self.stored}, recomputed {self.recomputed}"


def command(arguments: argparse.Namespace) -> int:
    """Print every number of a run that comes out different; return 1 where there is one."""
    differences = verify(arguments.run, runs.load_profile([], arguments.overrides))
    for difference in differences:
        print(difference)
    verdict = f"{len(differences)} differences" if differences else "every table came out the same"
    print(f"{runs.shown_path(arguments.run)}: {verdict}")
    return 1 if differences else 0


def verify(folder: Path, given: Mapping[str, Any] | None = None) -> list[Difference]:
    """Compute every table of the run in `folder` again and return the differences; an empty list means none.

    `given` are parameters that say where a file of the run lies on this machine (`benchmark_dir`, `embedder`,
    `question_source`), since manifests do not name folders. Runs of `other_runs` and `compare_runs` are looked for
    beside the run. Raises RunError where there is no store, no finished stage, or a file that has to be named.
    """
    folder = folder.resolve()
    given = given or {}
    manifests = {stage: manifest for stage in runs.STAGES if (manifest := runs.read_manifest(folder, stage))}
    if not manifests or not (folder / "store.sqlite").exists():
        raise runs.RunError(
            f"{folder}: is no run folder that can be verified: it needs store.sqlite and a finished stage"
        )
    _check_places(manifests, given)
    root = _outputs_of(folder, manifests)
    differences = _broken_links(manifests)
    with tempfile.TemporaryDirectory(prefix="crescent-verify-") as name:
        outputs = Path(name)
        for child in root.iterdir():
            (outputs / child.name).symlink_to(child)
        work = outputs / f"verify-{outputs.name}"
        work.mkdir()
        replay = {"run": work.name, "replay_from": folder.relative_to(root).as_posix(), "outputs": name}
        for stage, manifest in manifests.items():
            if stage not in REPLAYED:
                (work / stage).symlink_to(folder / stage)
                continue
            trouble = replay_stage(stage, _parameters_here(manifest, given, work) | replay)
            if trouble:
                differences.append(Difference(stage, "", -1, "all", "complete", trouble))
                shutil.rmtree(work / stage, ignore_errors=True)
                (work / stage).symlink_to(folder / stage)  # the stages after it go on from its stored tables
            else:
                differences += _stage_differences(stage, folder, work)
    return differences


def _check_places(manifests: Mapping[str, dict[str, Any]], given: Mapping[str, Any]) -> None:
    """Raise RunError where a replay needs a file of the run whose place was not told, and is not given."""
    for stage, manifest in manifests.items():
        for name in LOADED_PLACES:
            if name in manifest.get("hidden", []) and name not in given:
                raise runs.RunError(
                    f"{stage}: the run read {manifest['parameters'][name]} as its {name}; say where that lies on this "
                    f"machine: -p {name}=PATH"
                )


def _broken_links(manifests: Mapping[str, dict[str, Any]]) -> list[Difference]:
    """Compare the fingerprints of the stages that a stage was made from with those that are there."""
    return [
        Difference(stage, "manifest.json", -1, f"upstream {above}", str(seen), str(manifests[above]["fingerprint"]))
        for stage, manifest in manifests.items()
        for above, seen in manifest.get("upstream", {}).items()
        if above in manifests and manifests[above]["fingerprint"] != seen
    ]


def _outputs_of(folder: Path, manifests: Mapping[str, dict[str, Any]]) -> Path:
    """Return the nearest folder above in which the runs that this one was compared with have their names."""
    parameters = manifests.get("evaluate", {}).get("parameters", {})
    other_runs = list(parameters.get("other_runs", []))
    for names in parameters.get("compare_runs", {}).values():
        other_runs += names
    for root in folder.parents:
        if all((root / name / "evaluate").is_dir() for name in other_runs):
            return root
    raise runs.RunError(f"{folder}: was compared with {', '.join(other_runs)}, which are not beside it; put them there")


def _parameters_here(manifest: Mapping[str, Any], given: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Return the parameters of a stage for its replay on this machine.

    A domain of the run's own is written to `work` out of the manifest. A model stays under the name that is shown: a
    replay knows it by what the run recorded.
    """
    parameters = dict(manifest["parameters"]) | {"engine": "replay", "engine_args": {}, "base_urls": [], "profile": ""}
    if "benchmark_dir" in manifest.get("hidden", []):
        parameters["benchmark_dir"] = ""
    if domain := manifest.get("domain"):
        import yaml

        path = work / f"{domain['name']}.yaml"
        lines = {name: value for name, value in domain.items() if name != "name"}
        path.write_text(yaml.safe_dump(lines, allow_unicode=True), encoding="utf-8")
        parameters["domain"] = str(path)
    return parameters | {name: value for name, value in given.items() if name in parameters}


def replay_stage(stage: str, values: Mapping[str, Any]) -> str:
    """Execute the code cells of the stage's notebook with these parameters; return what went wrong, "" for nothing."""
    import nbformat

    notebook = nbformat.read(runs.ROOT / "notebooks" / f"{runs.NOTEBOOKS[stage]}.ipynb", as_version=4)
    namespace: dict[str, Any] = {"__name__": runs.NOTEBOOKS[stage]}
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    exec(compile(cell.source, f"<{runs.NOTEBOOKS[stage]}>", "exec"), namespace)
                if "parameters" in cell.metadata.get("tags", []):
                    namespace |= runs.parameters_of(stage, values)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _stage_differences(stage: str, folder: Path, work: Path) -> Iterator[Difference]:
    """Compare all that a stage wrote: its tables, the claims, the counts of its manifest."""
    stored, recomputed = folder / stage, work / stage
    written = [path.name for place in (stored, recomputed) for path in place.iterdir()]
    for name in sorted({name for name in written if name.endswith(".parquet") or name == "claims.json"}):
        table = name.removesuffix(".parquet")
        present = ["present" if (place / name).exists() else "absent" for place in (stored, recomputed)]
        if "absent" in present:
            yield Difference(stage, table, -1, "table", *present)
            continue
        try:
            stored_table = _read(stored / name)
        except (OSError, ValueError, TypeError, KeyError) as error:
            yield Difference(stage, table, -1, "table", f"unreadable ({type(error).__name__})", "readable")
            continue
        yield from table_differences(stage, table, stored_table, _read(recomputed / name))
    manifests = [runs.read_manifest(run, stage) or {} for run in (folder, work)]
    for key in COMPARED_KEYS:
        before, after = (manifest.get(key) for manifest in manifests)
        if before != after:
            yield Difference(stage, "manifest.json", -1, key, json.dumps(before), json.dumps(after))


def _read(path: Path) -> pd.DataFrame:
    """Read a table; the claims as one row, a column for each figure. Their commands say how to check it: no number."""
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    claims = json.loads(path.read_text(encoding="utf-8"))
    figures = {f"{claim['id']} {key}": value for claim in claims for key, value in claim.items() if key != "command"}
    return pd.DataFrame([figures])


def table_differences(stage: str, table: str, stored: pd.DataFrame, recomputed: pd.DataFrame) -> Iterator[Difference]:
    """Compare two tables cell by cell; after `MOST_LISTED` differences the rest is not listed."""
    if len(stored) != len(recomputed):
        yield Difference(stage, table, -1, "number of rows", str(len(stored)), str(len(recomputed)))
    if set(stored.columns) != set(recomputed.columns):
        names = [", ".join(map(str, frame.columns)) for frame in (stored, recomputed)]
        yield Difference(stage, table, -1, "columns", *names)
    shared = [name for name in recomputed.columns if name in stored.columns]
    columns = {str(name): (stored[name].tolist(), recomputed[name].tolist()) for name in shared}
    listed = 0
    for row in range(min(len(stored), len(recomputed))):
        for name, (before, after) in columns.items():
            if same_cell(before[row], after[row], COSINE_TOLERANCE if "similarity" in name else 0.0):
                continue
            listed += 1
            if listed > MOST_LISTED:
                yield Difference(stage, table, -1, "more", f"over {MOST_LISTED} differences", "the rest is not listed")
                return
            yield Difference(stage, table, row, name, repr(before[row]), repr(after[row]))


def same_cell(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Say whether two cells hold the same: other numbers than whole ones up to rounding; missing is missing."""
    import pandas as pd

    missing = [pd.isna(value) is True for value in (one, other)]  # of a list it is no truth value
    if any(missing):
        return all(missing)
    if isinstance(one, float) or isinstance(other, float):
        try:
            return math.isclose(float(one), float(other), rel_tol=ROUNDING, abs_tol=max(tolerance, 1e-12))
        except (TypeError, ValueError):
            return False
    return type(one) is type(other) and bool(one == other)
