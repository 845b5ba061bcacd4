"""Saving: `save_to` copies each finished stage to a folder that outlives the session, and brings it back in the next.

It is made for cloud sessions whose disk is lost at their end: Google Drive in Colab. A store never lives there, since a
mounted drive is slow and has no file locks: what is copied is a snapshot of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from . import layout
from .layout import RunError
from .params import Common

DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
NOT_SAVED = ("trainer", "*.tmp", "*.part")  # half-done work


def saved_run(settings: Common) -> Path | None:
    """Return the folder that this run is copied to; None without `save_to`. Mounts Google Drive in Colab.

    Raises RunError where the folder cannot be had.
    """
    if not settings.save_to:
        return None
    place = Path(settings.save_to).expanduser()
    if place.is_relative_to(DRIVE) and not (DRIVE / "MyDrive").exists():
        _mount_drive()
    try:
        folder = place / settings.run
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"save_to: {settings.save_to!r} cannot be written ({error.strerror}); name a folder that you may write to, "
            "such as /content/drive/MyDrive/crescent in Colab, or leave it empty"
        ) from None
    return folder


def _mount_drive() -> None:
    try:
        from google.colab import drive
    except ImportError:
        raise RunError(
            f"save_to: {DRIVE} is Google Drive in Colab, and this is not Colab; name another folder"
        ) from None
    drive.mount(str(DRIVE))


def save_stage(stage: str, settings: Common) -> None:
    """Copy the store and the finished `stage` of a run to where `save_to` says; each appears there whole or not at all.

    Merged weights are left out where there is an adapter: they are made of it and of the base model.
    """
    target = saved_run(settings)
    if target is None:
        return
    run = layout.run_folder(settings)
    for store in sorted(run.glob("*.sqlite")):
        copy_store(store, target / store.name)
    left_out = [*NOT_SAVED, *(["model"] if (run / stage / "adapter").exists() else [])]
    _copy_folder(run / stage, target / stage, left_out)
    print(f"saved: {stage} and the store, to {target}")


def save_file(path: Path, settings: Common) -> None:
    """Copy a file of the run's folder, such as an executed notebook or the report, to where `save_to` says."""
    target = saved_run(settings)
    if target is not None:
        _copy_file(path, target / path.name)


def bring_back(settings: Common) -> None:
    """Copy what `save_to` holds of this run, and this machine lacks, to its folder: the store and finished stages."""
    source = saved_run(settings)
    if source is None:
        return
    run = layout.run_folder(settings)
    run.mkdir(parents=True, exist_ok=True)
    for store in sorted(source.glob("*.sqlite")):
        if not (run / store.name).exists():
            _copy_file(store, run / store.name)
    for stage in layout.UPSTREAM:
        if (source / stage / "manifest.json").exists() and not (run / stage).exists():
            _copy_folder(source / stage, run / stage, [])
            print(f"brought back from {source}: {stage}")


def copy_store(store: Path, target: Path) -> None:
    """Copy a store into one compact file, with what still stands in its write-ahead log alone."""
    snapshot = store.with_name(f"{store.name}.{os.getpid()}.tmp")
    try:
        with contextlib.closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("VACUUM INTO ?", (str(snapshot),))
        _copy_file(snapshot, target)
    finally:
        snapshot.unlink(missing_ok=True)


def _copy_file(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, part)
    os.replace(part, target)


def _copy_folder(source: Path, target: Path, left_out: list[str]) -> None:
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns(*left_out))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
