"""Saving: what is finished outlives a session, and the next one goes on with it."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import types

import pandas as pd
import pytest

from crescent_utils.runs import contents, folders, layout, params, saving


def settings_of(stage, folder, **values):
    names = {"outputs": str(folder / "disk"), "save_to": str(folder / "drive"), "run": "r", "engine": "transformers"}
    return params.build_settings(stage, {**names, **values})


def write_store(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE IF NOT EXISTS completions (text)")
        db.executemany("INSERT INTO completions VALUES (?)", [(row,) for row in rows])
    return db


def rows_of(path):
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
        return [text for (text,) in db.execute("SELECT text FROM completions")]


def finish(stage, folder, **values):
    begun = folders.begin_stage(stage, settings_of(stage, folder, **values))
    begun.write_table("questions", pd.DataFrame({"id": [1], "question": [f"made by {stage}"]}))
    return begun.finish({})


def test_a_lost_session_goes_on_with_what_was_saved(tmp_path, capsys):
    db = write_store(tmp_path / "disk" / "r" / "store.sqlite", ["a", "b"])  # open, its log not yet written back
    made = finish("elicit", tmp_path)
    db.close()
    assert "saved: elicit and the store" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "drive" / "r").iterdir()) == ["elicit", "store.sqlite"]
    shutil.rmtree(tmp_path / "disk")
    begun = folders.begin_stage("dedup", settings_of("dedup", tmp_path))
    assert begun.upstream == {"elicit": made}
    assert begun.read_table("elicit", "questions")["question"].tolist() == ["made by elicit"]
    assert rows_of(tmp_path / "disk" / "r" / "store.sqlite") == ["a", "b"]
    assert contents.is_current("elicit", settings_of("elicit", tmp_path))


def test_what_is_here_is_not_replaced_by_what_was_saved(tmp_path):
    finish("elicit", tmp_path)
    again = finish("elicit", tmp_path, seed=2)
    folders.begin_stage("dedup", settings_of("dedup", tmp_path))
    assert layout.read_manifest(tmp_path / "disk" / "r", "elicit") == again
    assert layout.read_manifest(tmp_path / "drive" / "r", "elicit") == again, "the copy follows"


def test_half_done_work_and_merged_weights_stay_behind(tmp_path):
    folder = tmp_path / "disk" / "r" / "finetune"
    for name in ("adapter/a.safetensors", "model/m.safetensors", "trainer/t", "log.9.tmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    saving.save_stage("finetune", settings_of("finetune", tmp_path))
    saved = tmp_path / "drive" / "r" / "finetune"
    assert sorted(path.name for path in saved.iterdir()) == ["adapter"]
    shutil.rmtree(folder / "adapter")
    saving.save_stage("finetune", settings_of("finetune", tmp_path))
    assert sorted(path.name for path in saved.iterdir()) == ["model"], "whole weights are all there is"


def test_executed_notebooks_and_the_report_are_saved_too(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("a report")
    saving.save_file(report, settings_of("evaluate", tmp_path))
    assert (saving.saved_run(settings_of("evaluate", tmp_path)) / "report.html").read_text() == "a report"
    saving.save_file(report, params.build_settings("evaluate", {}))  # without save_to there is no place


def test_nothing_is_copied_unless_asked(tmp_path):
    finish("elicit", tmp_path, save_to="")
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
    manifest = finish("elicit", tmp_path)
    assert manifest["parameters"]["save_to"] == ".../drive" and "save_to" in manifest["hidden"]


def test_google_drive_is_mounted_in_colab_and_elsewhere_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "DRIVE", tmp_path / "content" / "drive")
    settings = settings_of("elicit", tmp_path, save_to=str(tmp_path / "content" / "drive" / "MyDrive" / "kit"))
    with pytest.raises(layout.RunError, match="save_to: .* this is not Colab"):
        saving.saved_run(settings)
    mounted = []
    drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive))
    assert saving.saved_run(settings) == tmp_path / "content" / "drive" / "MyDrive" / "kit" / "r"
    assert mounted == [str(tmp_path / "content" / "drive")]
    assert saving.saved_run(settings) and len(mounted) == 1, "it is mounted by now"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(layout.RunError, match="save_to: .*file.* cannot be written"):
        folders.begin_stage("elicit", settings_of("elicit", tmp_path, save_to=str(tmp_path / "file")))
