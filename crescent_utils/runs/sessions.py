"""Sessions: what the first notebook of a run was run with, for the notebooks that are opened after it.

A session is one Jupyter server: the process that started the kernels. Its memory is a small file in the cache folder,
not in `outputs/`, so that two sessions, or a `crescent run` beside them, do not disturb each other. It is forgotten
when the server has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from . import layout, params
from .params import Common


def _session_file() -> Path | None:
    """Return the file of this kernel's session; None outside of a kernel that a Jupyter server started."""
    import psutil

    server = os.getppid()
    if os.environ.get("JPY_PARENT_PID") != str(server):
        return None
    with contextlib.suppress(psutil.Error):
        return layout.cache_folder() / "sessions" / f"{server}-{psutil.Process(server).create_time():.0f}.json"
    return None


def remember_run(settings: Common) -> None:
    """Note the parameters of the first notebook of a run for the others of this session. A full disk is no reason to
    stop.

    After a replay of the recorded run nothing is remembered: the others replay it too. If it was varied, they could not
    go on with it, since what follows from the variation was never sampled.
    """
    path = _session_file()
    if path is None:
        return
    if settings.engine == "replay" and settings.replay_from == Common.model_fields["replay_from"].default:
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        _forget_ended_sessions(path.parent)
        stage = type(settings).__name__.lower()
        layout.write_json(path, {"kit": str(params.ROOT), "stage": stage, "parameters": settings.model_dump()})


def remembered_run() -> tuple[str, dict[str, Any]]:
    """Return the stage that this session remembers, and its parameters; ("", {}) if it remembers none of this kit."""
    path = _session_file()
    if path is None or not path.exists():
        return "", {}
    try:
        memory = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "", {}
    return (memory["stage"], memory["parameters"]) if memory["kit"] == str(params.ROOT) else ("", {})


def _forget_ended_sessions(folder: Path) -> None:
    import psutil

    for path in folder.glob("*-*.json"):
        if not psutil.pid_exists(int(path.name.partition("-")[0])):
            path.unlink(missing_ok=True)
