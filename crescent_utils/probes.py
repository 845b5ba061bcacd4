"""Ask what may crash or hang: torch and vLLM in a child process, the hub in a thread with three seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

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
from crescent_utils.engines.vllm import why_not
platform = getattr(current_platform, "device_name", "") or type(current_platform).__name__
print("\\n" + json.dumps({"version": vllm.__version__, "platform": platform, "why_not": why_not()}))
"""


def start_probe(script: str) -> subprocess.Popen[str]:
    """Start a child that imports something heavy and prints one line of JSON."""
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def read_probe(probe: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a probe; return what it printed, or {"error": why}."""
    try:
        out, err = probe.communicate(timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.communicate()
        return {"error": f"no answer in {PROBE_SECONDS} s"}
    try:
        return dict(json.loads(out.splitlines()[-1]))
    except (ValueError, IndexError):
        last = err.strip().splitlines()[-1:] or [f"exit status {probe.returncode}"]
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
