"""The rules of the house: imports point down, nothing heavy loads, notebooks and parameters agree, nothing local leaks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from crescent_utils import params

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "crescent_utils").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = [path for path in sorted((ROOT / "params").rglob("*.yaml")) if path.parent.name != "domains"]
# A room may import rooms of a lower floor, and those named beside it on its own floor; see CONTRIBUTING.md.
FLOORS = {
    "params": 0, "prompts": 0, "questions": 0, "question_patterns": 0, "answers": 0, "answer_readers": 0,
    "number_scan": 0, "normal_form": 0, "plain_text": 0, "symbolic": 0, "scoring": 0, "vote": 0, "intervals": 0,
    "stats": 0, "plots": 0, "leftovers": 0, "costs": 0, "progress": 0, "sqlite_file": 0, "domains": 0,
    "similarity": 0, "approximate": 0, "diversity": 0, "plots_diversity": 0, "conclusions": 0, "plots_labels": 0,
    "plots_training": 0, "claims": 1, "runs": 1, "benchmark_files": 1, "labels": 1, "store": 2, "models": 2,
    "engines": 2, "generate": 3, "benchmarks": 3, "storekeeping": 4, "recovery": 3, "contamination": 3, "likelihood": 3, "masks": 3,
    "recipes": 3, "sft": 3, "breakdown": 4, "harness": 4, "probes": 4, "elicit": 4, "protocols": 4, "unlabelled": 4,
    "cards": 4, "plots_scores": 5, "tables": 5, "dedup": 5, "training": 5, "evaluation": 5, "plan": 6, "baselines": 6,
    "sweep": 5, "rounds": 5, "chains": 5, "report": 6, "verify": 6, "doctor": 6, "reproduce": 7,
}  # fmt: skip
FAMILIES = [
    {"approximate", "similarity"},
    {"benchmarks", "contamination"},
    {
        "answer_readers",
        "answers",
        "conclusions",
        "normal_form",
        "number_scan",
        "plain_text",
        "scoring",
        "symbolic",
        "vote",
    },
    {"question_patterns", "questions"},
    {"claims", "intervals", "stats"},
    {"domains", "params", "prompts"},
    {"engines", "models", "store"},
    {"masks", "recipes", "sft"},
    {"plots", "plots_diversity", "plots_labels", "plots_training"},
    {"chains", "rounds", "sweep"},
]
HEAVY = {"torch", "vllm", "faiss", "transformers", "trl", "peft", "datasets", "lm_eval", "sentence_transformers"}


def room(path: Path) -> str:
    return "engines" if path.parent.name == "engines" else path.stem


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package = node.module or ""
            ours = node.level > 0 or package.startswith("crescent_utils")
            package = package.removeprefix("crescent_utils").strip(".")
            if ours:
                found |= {package.split(".")[0]} if package else {alias.name for alias in node.names}
    if path.parent.name == "engines":  # "from . import Job" there means the engines' own package
        found = {name if name in FLOORS else "engines" for name in found}
    return found - {"__version__"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py"], ids=lambda p: p.stem)
def test_imports_point_down(path):
    own = room(path)
    for other in imported_rooms(path):
        allowed = FLOORS[other] < FLOORS[own] or any({own, other} <= family for family in FAMILIES)
        assert allowed, f"{own} must not import {other}"


def test_importing_every_module_loads_nothing_heavy():
    names = [f"crescent_utils.{p.relative_to(ROOT / 'crescent_utils').with_suffix('').as_posix().replace('/', '.')}"
             for p in MODULES if p.name != "__init__.py"]  # fmt: skip
    code = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint(sorted(set(sys.modules) & {HEAVY!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    # DESIGN says "about": a tenth more than 300 lines, and half more than 40, are still about it.
    assert len(text.splitlines()) <= 330
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 60, node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_every_module_and_public_function_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def cells(path: Path, kind: str = "code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def parameters(path: Path) -> dict[str, tuple[str, object]]:
    tagged = [c for c in cells(path) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1, "one parameters cell a notebook"
    found = {}
    for line in tagged[0].source.splitlines():
        match = re.fullmatch(r"(\w+): (\w+) = (.+?)  # \S.*", line)
        assert match, f"not `name: type = literal  # what it does`: {line}"
        assert line.split("  # ")[0].count("=") == 1, f"papermill drops a line with two `=`: {line}"
        found[match[1]] = (match[2], ast.literal_eval(match[3]))
    return found


def test_there_are_six_notebooks_in_order():
    assert [p.stem for p in NOTEBOOKS] == [
        "01_elicit", "02_dedup", "03_vote", "04_finetune", "05_distil", "06_evaluate",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebooks_parameters_are_the_models(path):
    model = params.MODELS[path.stem.split("_")[1]]
    found = parameters(path)
    assert list(found) == list(model.model_fields)
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert found[name] == (type(default).__name__, default), name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_teaches_and_is_committed_as_run(path):
    notebook = nbformat.read(path, as_version=4)
    code = cells(path)
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), "run it whole, commit its outputs"
    assert any(c.outputs for c in code), "a notebook without outputs is checked by nothing"
    assert any("nbval-check-output" in c.metadata.get("tags", []) for c in code)
    before = ""
    for cell in notebook.cells:
        assert cell.source.strip(), "empty cell"
        if cell.cell_type == "code":
            limit = 40 if "parameters" in cell.metadata.get("tags", []) else 25  # a parameter a line
            assert len(cell.source.splitlines()) <= limit
            assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in ast.walk(ast.parse(cell.source)))
            for output in cell.get("outputs", []):
                assert output.output_type != "error"
                assert output.get("name") != "stderr", "a log or a progress bar was left in the outputs"
                assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            if "nbval-check-output" in cell.metadata.get("tags", []):
                assert cell.outputs, "a checked cell without an output passes in vain"
        before = cell.cell_type
    assert before == "markdown", "a notebook ends on what to try next"


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_every_key_of_a_profile_is_known_and_well_typed(path):
    assert path.read_text(encoding="utf-8").startswith("#"), "a profile says in its first line what it is for"
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
    params.load_profile([path], [])


def test_no_absolute_path_and_no_registry_in_the_repository():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    hosts = "|".join(("py" + "pi.org", "python" + "hosted", "registry.npm" + "js"))
    bad = re.compile(rf"(?:^|[\s\"'(=:])/(?:work|root|home|farm|opt|tmp)/\w|{hosts}")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in {".parquet", ".sqlite", ".safetensors", ".png"} or not path.is_file():
            continue
        hit = bad.search(path.read_text(encoding="utf-8"))
        assert hit is None, f"{name}: {hit and hit.group(0)}"
