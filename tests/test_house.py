"""The rules of the house: imports point down, nothing heavy loads, notebooks and parameters agree, no secret leaks."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from shared import ROOT

from crescent_utils.runs import params

PACKAGE = ROOT / "crescent_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = [
    path for path in sorted((ROOT / "params").rglob("*.yaml")) if path.parent.name != "domains" and path.stem != "study"
]
# A folder may import folders of lower floors, through their doors; stats.py counts as a folder. See CONTRIBUTING.md.
FLOORS = {
    "answers": 1, "runs": 1, "stats": 1,
    "benchmarks": 2, "generation": 2,
    "elicit": 3, "vote": 3, "finetune": 3, "evaluate": 3,
    "dedup": 4, "distil": 4, "figures": 4,
    "cli": 5,
}  # fmt: skip
SELDOM = "# seldom changed"  # the line of a parameters cell below which a newcomer need not read
HEAVY = {
    "pandas",
    "torch",
    "vllm",
    "faiss",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "lm_eval",
    "sentence_transformers",
}


def str_of(path: Path) -> str:
    """Name a test by the module's place in the package."""
    return path.relative_to(PACKAGE).as_posix()


def folder_of(path: Path) -> str:
    """Return the folder of the package that a module lies in; a module beside the folders counts as one."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> list[tuple[str, ...]]:
    """Return what a module imports of the package, as the parts of each module's name after `crescent_utils`."""
    here = path.relative_to(PACKAGE).parts[:-1]
    imported = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("crescent_utils") for alias in node.names), "imports are relative"
        if not isinstance(node, ast.ImportFrom):
            continue
        assert not (node.module or "").startswith("crescent_utils"), f"{path.name}:{node.lineno}: imports are relative"
        if node.level:
            base = (*here[: len(here) - node.level + 1], *(node.module or "").split("."))
            base = tuple(part for part in base if part)
            imported += [base] if base else [(alias.name,) for alias in node.names]
    return [parts for parts in imported if parts != ("__version__",)]


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE or p.stem == "stats"], ids=str_of)
def test_a_folder_imports_lower_folders_through_their_doors(path):
    own = folder_of(path)
    for parts in imports_of(path):
        if parts[0] != own:
            assert FLOORS[parts[0]] < FLOORS[own], f"{own} must not import {parts[0]}"
            assert len(parts) == 1, f"{own} goes behind the door of {parts[0]}: {'.'.join(parts)}"


def test_every_folder_has_a_floor():
    assert {folder_of(path) for path in MODULES} - {"__init__"} == set(FLOORS)


def test_contributing_names_every_module_in_its_folder():
    listed = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("folder by folder")[1].split("```")[1]
    of_folder = dict(re.findall(r"^(\w+)/ +(.+(?:\n .+)*)", listed, flags=re.MULTILINE))
    names = {(folder_of(path), path.name) for path in MODULES if path.name != "__init__.py" and path.parent != PACKAGE}
    there = {(folder, name) for folder, text in of_folder.items() for name in re.findall(r"\w+\.py", text)}
    assert there == names, "say in CONTRIBUTING.md, under The map, what a new module is for"


def test_modules_of_a_folder_import_each_other_without_circles():
    names = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in MODULES}
    arrows: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for parts, path in names.items():
        if parts[-1] == "__init__":
            continue
        targets = set()
        here = parts[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = tuple(p for p in (*here[: len(here) - node.level + 1], *(node.module or "").split(".")) if p)
                targets |= {base, *((*base, alias.name) for alias in node.names)}
        arrows[parts] = {target for target in targets if target in names and target[:1] == parts[:1]}
    in_order = list(graphlib.TopologicalSorter(arrows).static_order())  # raises CycleError with the circle
    assert set(in_order) >= set(arrows) and any(arrows.values())


@pytest.mark.parametrize("folder", sorted(FLOORS))
def test_a_door_names_what_others_may_use(folder):
    door = importlib.import_module(f"crescent_utils.{folder}")
    assert door.__all__ == sorted(door.__all__) and len(door.__all__) == len(set(door.__all__))
    assert all(hasattr(door, name) for name in door.__all__)
    assert door.__doc__ and len(door.__doc__) > 200, "a paragraph: what comes in, what happens, what goes out"


@pytest.mark.parametrize("path", MODULES, ids=str_of)
def test_others_use_only_what_a_door_names(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = folder_of(path)
    doors: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        here = path.relative_to(PACKAGE).parts[:-1]
        base = tuple(p for p in (*here[: len(here) - node.level + 1], *(node.module or "").split(".")) if p)
        if not base:
            doors |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in FLOORS}
        elif base[0] != own:
            names = importlib.import_module(f"crescent_utils.{base[0]}").__all__
            assert {alias.name for alias in node.names} <= set(names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in doors:
            folder = doors[node.value.id]
            if (
                folder != own
                and isinstance(node.value.ctx, ast.Load)
                and not shadowed(tree, node.value.id, node.lineno)
            ):
                assert node.attr in importlib.import_module(f"crescent_utils.{folder}").__all__, f"{folder}.{node.attr}"


def shadowed(tree: ast.AST, name: str, line: int) -> bool:
    """Tell whether `name` is a variable or argument of a function around `line`, and so no module there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0):
            bound = {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
            bound |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            if name in bound:
                return True
    return False


def test_importing_every_module_loads_nothing_heavy():
    names = [f"crescent_utils.{p.relative_to(ROOT / 'crescent_utils').with_suffix('').as_posix().replace('/', '.')}"
             for p in MODULES if p.name != "__init__.py"]  # fmt: skip
    code = (
        f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=str_of)
def test_functions_are_short(path):
    # "About 40 lines": half more is still about it. A file is as long as its idea.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 60, node.name


@pytest.mark.parametrize("path", MODULES, ids=str_of)
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
    lines = tagged[0].source.splitlines()
    assert lines.count(SELDOM) == 1 and SELDOM not in (lines[0], lines[-1]), "those that many change, then the others"
    lines.remove(SELDOM)
    found = {}
    for line in lines:
        match = re.fullmatch(r"(\w+): (\w+) = (.+?)  # \S.*", line)
        assert match, f"not `name: type = literal  # what it does`: {line}"
        assert line.split("  # ")[0].count("=") == 1, f"papermill drops a line with two `=`: {line}"
        assert match[1] not in found, f"twice: {match[1]}"
        found[match[1]] = (match[2], ast.literal_eval(match[3]))
    return found


def test_there_are_six_notebooks_in_order():
    assert [p.stem for p in NOTEBOOKS] == [
        "01_elicit", "02_dedup", "03_vote", "04_finetune", "05_distil", "06_evaluate",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebooks_parameters_are_the_models(path):
    model = params.STAGE_SETTINGS[path.stem.split("_")[1]]
    found = parameters(path)
    assert set(found) == set(model.model_fields)
    assert list(found)[:2] == ["profile", "run"], "what a newcomer sets first"
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert found[name] == (type(default).__name__, default), name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_papermill_reads_name_type_value_and_description_of_every_parameter(path):
    found = {
        name: (entry["inferred_type_name"], ast.literal_eval(entry["default"]))
        for name, entry in papermill.inspect_notebook(path).items()
        if entry["help"]
    }
    assert found == parameters(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_imports_its_own_folder_and_the_shared_ones(path):
    allowed = {path.stem.split("_")[1], "runs", "generation", "figures"}
    for cell in cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crescent_utils"):
                assert node.module == "crescent_utils", "a notebook goes through the doors"
                assert {alias.name for alias in node.names} <= allowed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_uses_only_what_a_door_names(path):
    for cell in cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in FLOORS:
                door = importlib.import_module(f"crescent_utils.{node.value.id}")
                assert node.attr in door.__all__, f"{node.value.id}.{node.attr}"


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
            if "parameters" not in cell.metadata.get("tags", []):  # that has a line for each parameter
                assert len(cell.source.splitlines()) <= 25
            assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in ast.walk(ast.parse(cell.source)))
            for output in cell.get("outputs", []):
                assert output.output_type != "error"
                assert output.get("name") != "stderr", "a log or a progress bar was left in the outputs"
                assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            if "nbval-check-output" in cell.metadata.get("tags", []):
                assert cell.outputs, "a checked cell without an output passes in vain"
        before = cell.cell_type
    assert before == "markdown", "a notebook ends on what to try next"


def test_the_first_cell_is_the_same_everywhere_and_fetches_the_address_of_the_project():
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    (first,) = {cells(path)[0].source for path in NOTEBOOKS}
    assert re.findall(r'"(https://[^"]+)"', first) == [address]
    on_colab = address.replace("https://github.com", "https://colab.research.google.com/github")
    for path in NOTEBOOKS:
        assert f"({on_colab}/blob/main/notebooks/{path.name})" in cells(path, "markdown")[0].source


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
