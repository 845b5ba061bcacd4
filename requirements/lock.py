"""Make the locks again: requirements/*.in -> requirements/*.lock.txt, with a hash for every file.

Versions that a lock has stay as long as they still fit; `--upgrade` (all) or `--upgrade NAME` moves them.
uv resolves; it comes into a throw-away environment, since nothing else needs it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
UV = "uv==0.13.8"
TORCH_PAGE = "https://download.pytorch.org/whl/cpu/torch/"  # links to torch and nothing else
OPTIONS = (
    "--python-version", "3.11", "--python-platform", "x86_64-unknown-linux-gnu", "--generate-hashes",
    "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header", "--quiet",
)  # fmt: skip


def install_uv(folder: Path) -> Path:
    """Make a virtual environment that has uv, and return its path."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", UV], check=True)
    return folder / "bin" / "uv"


def uv_settings() -> dict[str, str]:
    """Give uv the sources that pip was told of by environment variables; uv reads none of pip's settings."""
    names = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX", "PIP_FIND_LINKS": "UV_FIND_LINKS"}
    told = {uv: os.environ[pip] for pip, uv in names.items() if os.environ.get(pip)}
    if "UV_FIND_LINKS" in told:
        told["UV_FIND_LINKS"] = ",".join(told["UV_FIND_LINKS"].split())
    return {**told, **os.environ}


def compile_lock(uv: Path, kind: str, extra: list[str]) -> None:
    """Resolve one lock, with PyTorch's page of CPU builds where the configured sources have none."""
    command = [
        str(uv), "pip", "compile", str(HERE / f"{kind}.in"), "--output-file", str(HERE / f"{kind}.lock.txt"),
        "--override", str(HERE / f"{kind}.overrides.txt"), *OPTIONS, *extra,
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, check=False, env=uv_settings())
    if first.returncode and "torch" in first.stderr and kind == "cpu":
        command += ["--find-links", TORCH_PAGE]
        first = subprocess.run(command, capture_output=True, text=True, check=False, env=uv_settings())
    if first.returncode:
        sys.exit(f"{kind}: {first.stderr}")


def main() -> None:
    """Make both locks, or the one that is named."""
    parser = argparse.ArgumentParser(description="Make the locks again from requirements/*.in.")
    parser.add_argument("kinds", nargs="*", default=["cpu", "cuda"], help="cpu, cuda (default: both)")
    parser.add_argument("--upgrade", nargs="?", const="", metavar="NAME", help="move one package, or all")
    arguments = parser.parse_args()
    extra: list[str] = []
    if arguments.upgrade is not None:
        extra = ["--upgrade-package", arguments.upgrade] if arguments.upgrade else ["--upgrade"]
    with tempfile.TemporaryDirectory() as folder:
        uv = install_uv(Path(folder))
        for kind in arguments.kinds:
            compile_lock(uv, kind, extra)
            print(f"requirements/{kind}.lock.txt is made")


if __name__ == "__main__":
    main()
