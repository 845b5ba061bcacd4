"""Costs: what sampling and training took, in tokens, seconds, device seconds, memory and, where it is reported, energy.

The cost of a completion is recorded in the store when it is sampled and added up whenever it is asked for, so that a
stage costs the same on paper whether it ran in one go, was resumed after a kill, or is replayed elsewhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Cost:
    """What some work took; costs add up.

    `seconds` is wall time during which an engine sampled (or a trainer trained), `device_seconds` the same times the
    number of devices (GPUs; the CPUs of one machine count as one), `energy_joules` None where no device reports it.
    `sampled` of the `completions` were sampled by this very execution; `truncated` ones hit their token limit,
    `too_long` ones had a prompt that did not fit; `unmetered` ones were stored without their seconds.
    """

    completions: int = 0
    sampled: int = 0
    truncated: int = 0
    too_long: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    energy_joules: float | None = None
    unmetered: int = 0

    def __add__(self, other: Cost) -> Cost:
        amounts: dict[str, Any] = asdict(self)
        for name, more in asdict(other).items():
            if more is not None:
                amounts[name] = more if amounts[name] is None else amounts[name] + more
        return Cost(**amounts)

    def per(self, things: int) -> dict[str, float | None]:
        """Return the share of each amount per thing, for example per question-answer pair; empty if there is none."""
        if not things:
            return {}
        names = ("prompt_tokens", "completion_tokens", "seconds", "device_seconds", "energy_joules")
        amounts = {name: getattr(self, name) for name in names}
        return {name: None if amount is None else round(amount / things, 3) for name, amount in amounts.items()}

    def rounded(self) -> dict[str, Any]:
        """Return the amounts as plain numbers for a manifest."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}


class Meter:
    """Measures wall seconds and energy from its making to each `lap`; `devices` is the number of devices in use."""

    def __init__(self, devices: int = 1) -> None:
        self._devices = devices
        self._time, self._energy = time.monotonic(), energy_counter()

    def lap(self) -> dict[str, Any]:
        """Return seconds, device_seconds and energy_joules since the last lap."""
        now, energy = time.monotonic(), energy_counter()
        seconds = now - self._time
        used = None if energy is None or self._energy is None else max(0.0, energy - self._energy)
        self._time, self._energy = now, energy
        return {"seconds": seconds, "device_seconds": seconds * self._devices, "energy_joules": used}


def energy_counter() -> float | None:
    """Return the joules that the devices have used since some fixed time; None where none reports it.

    NVIDIA GPUs report it through NVML (Volta and later), Intel and some AMD CPUs through Linux's powercap. What is
    counted is the whole device, also what others do on it.
    """
    if _cuda() is not None:
        with contextlib.suppress(Exception):  # not installed, no driver, not reported: energy is not known, no more
            import pynvml

            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            millijoules = [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles]
            return float(sum(millijoules)) / 1e3
    try:  # packages alone: their cores and memory controllers are counted in them
        microjoules = [int((zone / "energy_uj").read_text()) for zone in _RAPL.glob("*-rapl:?")]
    except (OSError, ValueError):
        return None
    return sum(microjoules) / 1e6 if microjoules else None


def _cuda() -> Any:
    """Return `torch.cuda` where torch is loaded and sees a GPU, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def reset_peak_memory() -> None:
    """Begin `peak_memory_bytes` anew (Linux alone): a process that runs several stages measures each by itself."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process in bytes.

    Its children are left out: a child begins as a copy of its parent, which Linux counts as memory of its own, so that
    any subprocess of a trainer or engine would double the figure.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_device_bytes() -> int | None:
    """Return the largest GPU memory, in bytes, that torch has used in this process; None without a GPU.

    An engine that runs in a process of its own is not counted.
    """
    cuda = _cuda()
    return int(sum(map(cuda.max_memory_allocated, range(cuda.device_count())))) if cuda else None


def device_name() -> str:
    """Return the name of the device: the GPU if torch is loaded and sees one, else the CPU's model and cores."""
    if cuda := _cuda():
        return str(cuda.get_device_name(0))
    model = None
    with contextlib.suppress(OSError):  # no Linux
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return f"{model[1].strip() if model else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def cost_table(
    manifests: Mapping[str, dict[str, Any] | None],
    recorded: Mapping[str, dict[str, Any] | None] | None = None,
    recorded_name: str = "recorded run",
) -> pd.DataFrame:
    """Return as text what each finished stage took (by its manifest), their sum, and the sum per question-answer pair.

    Seconds are those of sampling and training, without loading; empty where nobody recorded them. For a replay,
    `recorded` are the manifests of the replayed run, called `recorded_name` ("": not at all): one column more has the
    seconds that its stages took as a whole, loading included, and the memory is theirs.
    """
    import pandas as pd

    of_run = f", {recorded_name}" if recorded and recorded_name else ""
    rows: dict[str, dict[str, Any]] = {}
    total, whole_seconds, pairs = Cost(), 0.0, 0
    for stage, manifest in manifests.items():
        if manifest is None:
            continue
        cost = Cost(**manifest.get("cost", {}))
        pairs = manifest["counts"].get("pairs", pairs)
        as_sampled = (recorded or {}).get(stage)
        stage_seconds = as_sampled.get("seconds", 0.0) if as_sampled else 0.0
        total, whole_seconds = total + cost, whole_seconds + stage_seconds
        peak = (as_sampled or manifest)["peak_memory_bytes"] / 1e9
        rows[stage] = {**cost.rounded(), "stage_seconds": stage_seconds, "peak": peak}
    rows["together"] = total.rounded() | {"stage_seconds": whole_seconds}
    if pairs:
        rows[f"per pair ({pairs:,})"] = total.per(pairs) | {"stage_seconds": whole_seconds / pairs}
    for row in rows.values():
        if not row.get("seconds"):  # stored without them: unknown, not nothing
            row |= {"seconds": None, "device_seconds": None}
    names = {"completions": "completions", "prompt_tokens": "prompt tokens", "completion_tokens": "completion tokens"}
    names |= {"seconds": "seconds", "device_seconds": "device seconds", "energy_joules": "energy (J)"}
    if whole_seconds:
        names["stage_seconds"] = f"whole stage{of_run} (s)"
    names["peak"] = f"peak memory{of_run} (GB)"
    table = pd.DataFrame.from_dict(rows, orient="index").rename(columns=names)
    table = table.reindex(columns=[*names.values()]).astype(float).round(1)
    return table.map(_worded)


def _worded(value: float) -> str:
    """Return a number as text with thousands separators, without an empty fraction; "" for what is not known."""
    return "" if math.isnan(value) else f"{value:,.1f}".removesuffix(".0")
