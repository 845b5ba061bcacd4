"""Costs add up, and a completion costs the same however often it is asked for and wherever."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared import REFERENCE

from crescent_utils.runs import costs, folders, params
from crescent_utils.runs.costs import Cost

counts = st.integers(0, 10**6)
made = st.builds(
    Cost, completions=counts, sampled=counts, prompt_tokens=counts, completion_tokens=counts, truncated=counts,
    seconds=st.floats(0, 1e6), device_seconds=st.floats(0, 1e6), energy_joules=st.none() | st.floats(0, 1e6),
)  # fmt: skip


@given(st.lists(made, max_size=6))
def test_a_total_is_the_sum_and_unknown_energy_takes_nothing_away(parts):
    whole = sum(parts, Cost())
    for name in ("completions", "sampled", "prompt_tokens", "completion_tokens", "truncated"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    assert whole.seconds == pytest.approx(sum(part.seconds for part in parts))
    known = [part.energy_joules for part in parts if part.energy_joules is not None]
    assert whole.energy_joules == (pytest.approx(sum(known)) if known else None)


def test_shares_per_pair():
    cost = Cost(prompt_tokens=10, completion_tokens=5, seconds=2.0, device_seconds=4.0)
    assert cost.per(4) == {
        "prompt_tokens": 2.5, "completion_tokens": 1.25, "seconds": 0.5, "device_seconds": 1.0, "energy_joules": None,
    }  # fmt: skip
    assert cost.per(0) == {}


def test_a_meter_measures_from_lap_to_lap(monkeypatch):
    used = iter([100.0, 107.5, 107.5])
    monkeypatch.setattr(costs, "energy_counter", lambda: next(used))
    meter = costs.Meter(devices=2)
    time.sleep(0.02)
    first, second = meter.lap(), meter.lap()
    assert 0.02 <= first["seconds"] < 5 and first["device_seconds"] == pytest.approx(2 * first["seconds"])
    assert first["energy_joules"] == 7.5 and second["energy_joules"] == 0.0
    assert second["seconds"] < first["seconds"]


def test_energy_is_read_from_linux_powercap_where_it_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "_RAPL", tmp_path)
    assert costs.energy_counter() is None
    for name, value in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 2_000_000), ("intel-rapl:0:0", 999)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
    assert costs.energy_counter() == 5.0  # the packages; a part of one is in it already


def test_a_replay_shows_what_the_recorded_run_took(tmp_path):
    # The reference's completions were stored without their seconds; its manifests say how long each stage took.
    settings = params.build_settings("finetune", {"outputs": str(tmp_path), "run": "replay", "engine": "replay"})
    (tmp_path / "reference").symlink_to(REFERENCE)
    for stage in ("elicit", "dedup", "vote"):
        folder = tmp_path / "replay" / stage
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes((REFERENCE / stage / "manifest.json").read_bytes())
    stage = folders.begin_stage("finetune", settings)
    stage.finish({"pairs": 200})
    table = stage.costs()
    column = table["whole stage, recorded run (s)"]
    recorded = [folders.read_manifest(REFERENCE, stage)["seconds"] for stage in ("elicit", "dedup", "vote", "finetune")]
    assert column.tolist() == [
        f"{value:,.1f}".removesuffix(".0") for value in [*recorded, sum(recorded), sum(recorded) / 200]
    ]
    live = costs.cost_table({"elicit": folders.read_manifest(REFERENCE, "elicit")})
    assert not any("recorded" in name for name in live.columns)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone begins the peak anew")
def test_each_stage_of_a_process_has_a_peak_of_its_own_and_children_do_not_count():
    costs.reset_peak_memory()
    before = costs.peak_memory_bytes()
    large = bytearray(200_000_000)
    subprocess.run([sys.executable, "-c", ""], check=True)
    with_large = costs.peak_memory_bytes()
    del large
    costs.reset_peak_memory()
    assert before + 150_000_000 < with_large < before + 300_000_000
    assert costs.peak_memory_bytes() < before + 100_000_000
