"""A session like Colab's: an empty folder with one notebook in it, a kernel that is not ours, and Colab's packages.

The repository is cloned from this checkout's last commit. $CRESCENT_COLAB_PYTHON names the Python of an environment
that is there already; it is changed, so it should be one to throw away.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from shared import REFERENCE, ROOT

from crescent_utils import runs

pytestmark = pytest.mark.slow
# What Colab has of what the kit asks for, and of what its kernel needs (August 2026); torch in a build without CUDA.
PREINSTALLED = """
    transformers==5.15.0 tokenizers==0.22.2 accelerate==1.14.0 peft==0.20.0 datasets==4.0.0 huggingface_hub==1.27.0
    sentence-transformers==5.7.0 safetensors==0.8.0 numpy==2.1.3 pandas==2.2.3 pyarrow==18.1.0 scipy==1.16.3
    statsmodels==0.14.6 scikit-learn==1.6.1 sympy==1.14.0 matplotlib==3.10.0 pydantic==2.13.4 ipykernel==6.17.1
    ipywidgets==7.7.1 jupyter_client==7.4.9 psutil jinja2 pillow nbformat httpx tqdm pyyaml
""".split()
LIVE = {"engine": "transformers", "elicit_samples": 24, "votes": 3, "min_agreement": 0.0, "max_rewrites": 1,
        "epochs": 1.0, "student_epochs": 1.0, "benchmark_items": 6, "vote_max_tokens": 16, "eval_max_tokens": 16,
        "other_runs": [], "profile": "params/cpu.yaml", "student": "without_4_layers"}  # fmt: skip


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment with what Colab has, and a module `google.colab`."""
    if named := os.environ.get("CRESCENT_COLAB_PYTHON"):
        # An earlier session's clone is gone, or will be.
        subprocess.run([named, "-m", "pip", "uninstall", "-q", "-y", "crescent-kit"], check=True)
        return Path(named)
    folder = tmp_path_factory.mktemp("colab") / "env"
    uv = [str(Path(sys.executable).with_name("uv"))]
    subprocess.run([*uv, "venv", "-q", "--seed", "--python", sys.executable, folder], check=True)
    (torch,) = [line.split()[0] for line in (ROOT / "requirements" / "cpu.lock.txt").read_text().splitlines()
                if line.startswith("torch==")]  # fmt: skip
    where = ["--find-links", "https://download.pytorch.org/whl/cpu/torch/", "--index-strategy", "unsafe-best-match"]
    subprocess.run(
        [*uv, "pip", "install", "-q", "--python", folder / "bin" / "python", *where, torch, *PREINSTALLED], check=True
    )
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def content(python, tmp_path_factory):
    """The folder /content of a session: empty; and its kernel."""
    folder = tmp_path_factory.mktemp("session")
    origin = folder / "origin"
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, origin], check=True)
    stub = folder / "stub" / "google" / "colab"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("")
    environment = {
        "COLAB_RELEASE_TAG": "release-colab_20260819", "CRESCENT_REPOSITORY": origin.as_uri(),
        "CRESCENT_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder / "stub"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    kernel = folder / "share" / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Colab", "env": environment}))
    (folder / "content").mkdir()
    return folder / "content"


def run_notebook(content, monkeypatch, stage, **changed):
    """Put one notebook into the session's folder and run it there as it is, but for changed parameters."""
    monkeypatch.setenv("JUPYTER_PATH", str(content.parent / "share"))
    path = content / f"{runs.NOTEBOOKS[stage]}.ipynb"
    shutil.copy(ROOT / "notebooks" / path.name, path)
    notebook = nbformat.read(path, as_version=4)
    if changed:
        (at,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
        lines = "".join(f"{name} = {value!r}\n" for name, value in changed.items())
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(f"# Parameters\n{lines}"))
    client = NotebookClient(notebook, kernel_name="colab", timeout=1200, resources={"metadata": {"path": str(content)}})
    client.execute()
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def versions(python):
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    return {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed.stdout)}


def test_every_notebook_replays_in_an_empty_session_and_nothing_that_was_there_changes(python, content, monkeypatch):
    before = versions(python)
    for stage in ("vote", "evaluate", "elicit", "dedup", "finetune", "distil"):  # 03 is the first that is opened
        printed = run_notebook(content, monkeypatch, stage)
        assert "Colab · " in printed and "lost when the session ends" in printed
        replayed = content / "crescent" / "outputs" / "replay" / stage
        for path in (REFERENCE / stage).glob("*.parquet"):
            there, recorded = (pd.read_parquet(each) for each in (replayed / path.name, path))
            # check_dtype: pandas 2 has texts as objects
            pd.testing.assert_frame_equal(there, recorded, check_dtype=False, rtol=0, atol=2e-4)
    after = versions(python)
    assert {name: after.get(name) for name in before} == before
    assert {"trl", "lm-eval", "papermill", "crescent-kit"} <= set(after)


@pytest.mark.live
def test_a_live_miniature_runs_there_and_is_saved_and_brought_back(content, monkeypatch):
    drive = content.parent / "drive"
    for stage in runs.STAGES:
        values = runs.settings_from(stage, {}).model_dump().keys() & LIVE.keys()
        given = {name: LIVE[name] for name in values}
        run_notebook(content, monkeypatch, stage, run="mini", save_to=str(drive), **given)
        assert (drive / "mini" / stage / "manifest.json").exists()
        shutil.rmtree(content / "crescent" / "outputs" / "mini")  # each notebook on a machine of its own, as in Colab
