"""The order of the tests, and what the garbage collector need not look through."""

from __future__ import annotations

import gc
import sys

# Whichever process came to one of these last would keep the others waiting; the notebooks' tests share a kernel.
LONG = {"test_replay.py", "test_alone.py", "test_sft.py"}
MANY_MODULES = 200
_modules_seen = 0


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_runtest_logfinish():
    """Take what was imported out of the collector's sight: it is there to stay.

    Each training collects garbage, and would look through all objects of torch and transformers for it, which takes
    longer than the rest of a training of the tiny model.
    """
    global _modules_seen
    if len(sys.modules) > _modules_seen + MANY_MODULES:
        _modules_seen = len(sys.modules)
        gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # libraries that count their objects at the end would call these leaks
