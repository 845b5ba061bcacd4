"""Engines that a killed run left over: whose engine it is decides, not where it stands in the tree of processes."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
import shared
from shared import ROOT

from crescent_utils.generation import leftovers

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
# Titled as vLLM titles its own, and started by a process in between, as a launcher starts a run.
ENGINE = """
import time, setproctitle
setproctitle.setproctitle("VLLM::EngineCore")
print("ready", flush=True)
time.sleep(120)
"""
BETWEEN = """
import subprocess, sys
engine = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
engine.stdout.readline()
print(engine.pid, flush=True)
sys.stdin.readline()
"""
OWNER = """
import subprocess, sys
from crescent_utils.generation import leftovers
command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
between = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
engine = int(between.stdout.readline())
leftovers.claim_engines()
between.communicate()
print(engine, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def reparented(monkeypatch, tmp_path):
    """A run that goes on, and its engine, whose parent has ended."""
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path))
    with shared.engine_of_a_run("-c", OWNER, BETWEEN, ENGINE, PYTHONPATH=str(ROOT)) as processes:
        yield processes


def pids(processes):
    return [process.pid for process in processes]


@needs_proc
def test_an_engine_whose_run_goes_on_is_no_leftover_whoever_its_parent_is(reparented):
    owner, engine = reparented
    assert leftovers.is_engine(engine)
    assert engine.ppid() != owner.pid and not leftovers.owns_engines(engine.parent())
    assert engine.pid not in pids(leftovers.leftover_engines())
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert engine.pid in pids(leftovers.leftover_engines())
    assert leftovers.end_processes([engine]) == [f"{engine.pid} ended"]
    time.sleep(0.1)
    assert engine.pid not in pids(leftovers.leftover_engines())


@needs_proc
def test_a_process_that_took_a_dead_owners_number_does_not_own_its_engine(reparented):
    owner, engine = reparented
    record = leftovers._record(engine)
    assert record.read_text(encoding="utf-8").split()[0] == str(owner.pid)
    record.write_text(f"{os.getpid()} 12.5", encoding="utf-8")  # this process is alive, and was started at another time
    assert engine.pid in pids(leftovers.leftover_engines())


@needs_proc
def test_records_of_engines_that_have_ended_are_removed(reparented):
    _, engine = reparented
    record = leftovers._record(engine)
    assert record.exists()
    engine.kill()
    psutil.wait_procs([engine], timeout=5)
    leftovers.claim_engines()
    assert not record.exists()
