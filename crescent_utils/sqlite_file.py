"""One SQLite file with one writer: opening, the writer's lock, and a look at its length."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path
from typing import IO


class StoreError(RuntimeError):
    """A store that cannot be opened or written; the message says why and what to do."""


RECOVER = "`crescent store recover` saves what can be read"


def connect(path: Path, options: str = "mode=rwc") -> sqlite3.Connection:
    """Open an SQLite file in autocommit mode."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True, isolation_level=None)


def expected_size(path: Path) -> int:
    """Bytes that a file should have by its header: SQLite finds a missing page only when it needs it. 0 where it is no SQLite file."""
    with open(path, "rb") as handle:
        header = handle.read(100)
    if not header.startswith(b"SQLite format 3\0"):
        return 0
    page = int.from_bytes(header[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")


def check_length(path: Path) -> None:
    """Raise StoreError where the file is shorter than its header says."""
    size, expected = path.stat().st_size, expected_size(path)
    if size < expected:
        raise StoreError(f"{path}: is truncated: {size:,} of {expected:,} bytes; {RECOVER}")


def take_lock(path: Path) -> IO[str]:
    """Hold <store>.lock for this process; the operating system lets go of it however the process ends."""
    lock_path = path.with_name(path.name + ".lock")
    handle = open(lock_path, "a+", encoding="utf-8")
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows has no flock: SQLite's own lock still keeps the file whole
        return handle
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise StoreError(
            f"{path}: {holder} is writing to this run; wait for it, stop it, or choose another `run`"
        ) from None
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}")
    handle.flush()
    return handle
