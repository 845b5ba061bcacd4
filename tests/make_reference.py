"""Make `outputs/reference/` out of finished live runs, and run the notebooks in place on it.

`python tests/make_reference.py outputs/ref` expects the runs `ref/seed1`, `ref/seed2`, … of `params/cpu.yaml`. The
first becomes the reference with its whole store and adapter; of the others the tables and manifests are kept, whose
scores `06_evaluate` pools. `python tests/make_reference.py` alone runs the notebooks again on the reference that is
there, and leaves the reference as it is. Both end with what the README takes from it (`make_readme.py`).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import make_readme
import nbformat
from nbclient import NotebookClient

from crescent_utils.runs import folders, saving

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "outputs" / "reference"
TABLES = ["*/manifest.json", "*/*.parquet", "*/trained.json", "*/control/trained.json", "*/claims.json"]
LIMIT = 10_000_000  # bytes of all that is committed there: 24,000 completions with their requests; a sixth of it in git


def copy_run(source: Path, target: Path, patterns: list[str]) -> None:
    """Copy the files of a run that match."""
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def make(runs: Path) -> None:
    """Copy the runs `runs`/seed1, seed2 … to the reference."""
    shutil.rmtree(REFERENCE, ignore_errors=True)
    seeds = make_readme.numbered_seeds(runs)
    for folder in seeds:
        if not (folder / "evaluate" / "manifest.json").exists():
            raise SystemExit(f"{folder}: is not complete")
    copy_run(seeds[0], REFERENCE, [*TABLES, "finetune/adapter/*"])
    saving.copy_store(seeds[0] / "store.sqlite", REFERENCE / "store.sqlite")
    for folder in seeds[1:]:
        copy_run(folder, REFERENCE / folder.name, ["*/manifest.json", "vote/qa.parquet", "evaluate/*.parquet"])
    size = sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file())
    print(f"outputs/reference: {size / 1e6:.2f} MB")
    if size > LIMIT:
        raise SystemExit(f"that is over {LIMIT / 1e6:.0f} MB")


def run_notebooks() -> None:
    """Execute each notebook with its own defaults and keep its outputs, without times and machine names."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        here = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=here, coalesce_streams=True).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        notebook.metadata.pop("widgets", None)
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
        print(path.name)


def keep_replayed() -> None:
    """Take over the tables as the replay computed them.

    The first live run evaluated its own seed alone; its replay pools all seeds. A replay also has every column of this
    version.
    """
    for stage in ("elicit", "dedup", "vote", "evaluate"):
        replay, reference = ROOT / "outputs" / "replay" / stage, REFERENCE / stage
        for path in [*replay.glob("*.parquet"), *replay.glob("claims.json")]:
            shutil.copyfile(path, reference / path.name)
        recorded, replayed = (
            json.loads((folder / "manifest.json").read_text(encoding="utf-8")) for folder in (reference, replay)
        )
        names = {name: recorded["parameters"][name] for name in ("run", "replay_from", "engine")}
        recorded["parameters"] = replayed["parameters"] | names
        recorded |= {name: replayed[name] for name in ("counts", "tokens", "cost", "guarantee")}
        folders.write_json(reference / "manifest.json", recorded)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        make(Path(sys.argv[1]))
    run_notebooks()
    if len(sys.argv) > 1:
        keep_replayed()
    make_readme.write_all(ROOT / "README.md", ROOT / "outputs")
