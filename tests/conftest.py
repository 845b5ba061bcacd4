"""The order of the tests."""

from __future__ import annotations

LONG = {"test_replay.py", "test_sft.py"}  # whichever process came to one of these last would keep the others waiting


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
