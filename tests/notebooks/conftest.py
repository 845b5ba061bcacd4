"""The kernel in which the tests execute notebooks."""

from __future__ import annotations

import pytest

from crescent_utils.cli.kernel import Kernel


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """One for all notebooks that a process of the tests executes: it imports torch and the others once."""
    with Kernel(tmp_path_factory.mktemp("kernel") / "kernel.log") as started:
        yield started
