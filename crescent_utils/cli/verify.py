"""Verify: compute the tables of a published run again out of its store, without a model, and say where a number differs.

The cells of the kit's own notebooks are executed on a replay of the run, with the parameters that its manifests record, into a
folder that is thrown away; so a table is computed here as it was there, by the same lines. What was trained cannot be replayed:
of `finetune` and `distil` only the fingerprints that link the stages are checked, and the trained model's answers are in the store.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import runs

if TYPE_CHECKING:
    import pandas as pd

REPLAYED = ("elicit", "dedup", "vote", "evaluate")
COUNTED = ("counts", "tokens", "models", "seed")  # of a manifest; seconds, memory and dates are another run's
COSINE = 2e-4  # a cosine is stored with four digits, and another processor may round its last one the other way
ROUNDING = 1e-9  # relative, of any other number that is no whole one: sums of floats in another order
MOST = 20  # differences that are listed of one table


@dataclass(frozen=True)
class Difference:
    """One number (or text) that came out different; `row` is the row's number from 0, -1 where it is about the whole table."""

    stage: str
    table: str
    row: int
    column: str
    stored: str
    recomputed: str

    def __str__(self) -> str:
        place = f"{self.stage}/{self.table}" + (f", row {self.row}" if self.row >= 0 else "")
        return f"{place}, {self.column}: stored {self.stored}, recomputed {self.recomputed}"


def verify(folder: Path | str, *, benchmark_dir: str = "") -> list[Difference]:
    """Compute every table of the run in `folder` again and return the differences; an empty list: none.

    `benchmark_dir` is needed where the run was evaluated on a benchmark's files (manifests do not name folders). Runs of
    `other_runs` and `compare_runs` are looked for beside the run. Raises RunError where there is no store or no finished stage.
    """
    folder = Path(folder).resolve()
    manifests = {stage: manifest for stage in runs.STAGES if (manifest := runs.read_manifest(folder, stage))}
    if not manifests or not (folder / "store.sqlite").exists():
        raise runs.RunError(
            f"{folder}: is no run folder that can be verified: it needs store.sqlite and a finished stage"
        )
    found = _links(manifests)
    root = _outputs_of(folder, manifests)
    with tempfile.TemporaryDirectory(prefix="crescent-verify-") as name:
        outputs = Path(name)
        for child in root.iterdir():
            (outputs / child.name).symlink_to(child)
        work = outputs / f"verify-{outputs.name}"
        for stage in (stage for stage in runs.STAGES if stage in manifests):
            if stage not in REPLAYED:
                work.mkdir(exist_ok=True)
                (work / stage).symlink_to(folder / stage)
                continue
            overrides = {"run": work.name, "replay_from": folder.relative_to(root).as_posix(), "outputs": name}
            trouble = _replay(stage, manifests[stage]["parameters"] | overrides | _where(stage, benchmark_dir))
            if trouble:
                found.append(Difference(stage, "", -1, "all", "complete", trouble))
                _stand_in(stage, folder, work)
            else:
                found += list(_differences(stage, folder, work))
    return found


def _links(manifests: dict[str, dict[str, Any]]) -> list[Difference]:
    """A stage names the fingerprints of the stages that it was made from: they must be those that are there."""
    return [
        Difference(stage, "manifest.json", -1, f"upstream {above}", str(seen), str(manifests[above]["fingerprint"]))
        for stage, manifest in manifests.items()
        for above, seen in manifest.get("upstream", {}).items()
        if above in manifests and manifests[above]["fingerprint"] != seen
    ]


def _outputs_of(folder: Path, manifests: dict[str, dict[str, Any]]) -> Path:
    """The nearest folder above in which the runs that this one was compared with have their names."""
    values = manifests.get("evaluate", {}).get("parameters", {})
    others = [
        *values.get("other_runs", []),
        *(name for names in values.get("compare_runs", {}).values() for name in names),
    ]
    for root in folder.parents:
        if all((root / name / "evaluate").is_dir() for name in others):
            return root
    raise runs.RunError(f"{folder}: was compared with {', '.join(others)}, which are not beside it; put them there")


def _where(stage: str, benchmark_dir: str) -> dict[str, Any]:
    own = {"engine": "replay", "engine_args": {}, "base_urls": []}
    return own | (
        {"benchmark_dir": benchmark_dir} if "benchmark_dir" in runs.STAGE_SETTINGS[stage].model_fields else {}
    )


def _replay(stage: str, values: dict[str, Any]) -> str:
    """Execute the cells of the stage's notebook, the kit's own code, with these parameters; return what went wrong, "" for nothing."""
    import nbformat

    notebook = nbformat.read(runs.ROOT / "notebooks" / f"{runs.NOTEBOOKS[stage]}.ipynb", as_version=4)
    space: dict[str, Any] = {"__name__": runs.NOTEBOOKS[stage]}
    known = {name: value for name, value in values.items() if name in runs.STAGE_SETTINGS[stage].model_fields}
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    exec(compile(cell.source, f"<{runs.NOTEBOOKS[stage]}>", "exec"), space)
                if "parameters" in cell.metadata.get("tags", []):
                    space |= known
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _stand_in(stage: str, folder: Path, work: Path) -> None:
    """Let the stages after one that could not be replayed go on from its stored tables."""
    import shutil

    shutil.rmtree(work / stage, ignore_errors=True)
    work.mkdir(exist_ok=True)
    (work / stage).symlink_to(folder / stage)


def _differences(stage: str, folder: Path, work: Path) -> Iterator[Difference]:
    import pandas as pd

    stored, made = folder / stage, work / stage
    for name in sorted({path.name for base in (stored, made) for path in base.glob("*.parquet")}):
        table = name.removesuffix(".parquet")
        there = [(base / name).exists() for base in (stored, made)]
        if not all(there):
            yield Difference(stage, table, -1, "table", *("present" if is_there else "absent" for is_there in there))
            continue
        try:
            old = pd.read_parquet(stored / name)
        except (OSError, ValueError) as error:
            yield Difference(stage, table, -1, "table", f"unreadable ({type(error).__name__})", "readable")
            continue
        yield from _of_tables(stage, table, old, pd.read_parquet(made / name))
    if stage == "evaluate":
        yield from _of_claims(stored / "claims.json", made / "claims.json")
    before, after = (runs.read_manifest(base, stage) or {} for base in (folder, work))
    for key in COUNTED:
        if before.get(key) != after.get(key):
            yield Difference(stage, "manifest.json", -1, key, json.dumps(before.get(key)), json.dumps(after.get(key)))


def _of_tables(stage: str, table: str, old: pd.DataFrame, new: pd.DataFrame) -> Iterator[Difference]:
    if len(old) != len(new):
        yield Difference(stage, table, -1, "number of rows", str(len(old)), str(len(new)))
    if set(old.columns) != set(new.columns):
        yield Difference(
            stage, table, -1, "columns", ", ".join(map(str, old.columns)), ", ".join(map(str, new.columns))
        )
    listed = 0
    columns = {str(name): (old[name].tolist(), new[name].tolist()) for name in new.columns if name in old.columns}
    for row in range(min(len(old), len(new))):
        for name, (before, after) in columns.items():
            if same(before[row], after[row], COSINE if "similarity" in name else 0.0):
                continue
            listed += 1
            if listed > MOST:
                yield Difference(stage, table, -1, "more", f"over {MOST} differences", "the rest is not listed")
                return
            yield Difference(stage, table, row, name, repr(before[row]), repr(after[row]))


def _of_claims(stored: Path, made: Path) -> Iterator[Difference]:
    try:
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (stored, made))
        ids = [[claim["id"] for claim in claims] for claims in (old, new)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        yield Difference("evaluate", "claims.json", -1, "file", f"unreadable ({type(error).__name__})", "readable")
        return
    if ids[0] != ids[1]:
        yield Difference("evaluate", "claims.json", -1, "claims", ", ".join(ids[0]), ", ".join(ids[1]))
        return
    for row, (a, b) in enumerate(zip(old, new, strict=True)):
        for key in dict.fromkeys([*a, *b]):
            if key != "command" and not same(a.get(key), b.get(key)):
                yield Difference("evaluate", "claims.json", row, f"{a['id']} {key}", repr(a.get(key)), repr(b.get(key)))


def same(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Whether two cells hold the same: missing is missing, whole numbers and text exactly, other numbers but for rounding."""
    import pandas as pd

    missing = [value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) for value in (a, b)]
    if any(missing):
        return all(missing)
    if isinstance(a, float) or isinstance(b, float):
        try:
            return math.isclose(float(a), float(b), rel_tol=ROUNDING, abs_tol=max(tolerance, 1e-12))
        except (TypeError, ValueError):
            return False
    return type(a) is type(b) and bool(a == b)
