"""Verify: the reference comes out of its store again, and a planted wrong number is found where it was planted."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from shared import REFERENCE, ROOT

from crescent_utils.cli import main, verify
from crescent_utils.runs import folders


def published(folder, *left_out):
    """A copy of the reference, with the runs that it is pooled with, as somebody else would publish it."""
    skipped = [*left_out, "seed2", "seed3"]
    shutil.copytree(REFERENCE, folder / "reference", ignore=lambda _, names: [n for n in names if n in skipped])
    for seed in ("seed2", "seed3"):
        shutil.copytree(REFERENCE / seed, folder / "reference" / seed)
    return folder / "reference"


def plant(run, stage, table, column, row=3):
    """Change one cell of a table as a slip or a liar would; return how the difference should be named."""
    path = run / stage / f"{table}.parquet"
    frame = pd.read_parquet(path)
    old = frame[column].iat[row]
    if isinstance(old, bool | np.bool_):
        new = not old
    else:
        new = old + (1 if isinstance(old, int | np.integer) else 0.001) if not isinstance(old, str) else old + "0"
    frame.loc[row, column] = new
    assert frame[column].iat[row] != old
    frame.to_parquet(path, index=False)
    return stage, table, row, column


def plant_json(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_planted_numbers_are_found_and_nothing_else(tmp_path):
    # Without dedup (its embeddings take half a minute) vote cannot be computed; the stages after go on from its
    # stored tables.
    run = published(tmp_path, "dedup")
    planted = {
        plant(run, "elicit", "questions", "question"), plant(run, "elicit", "rejected", "reason", 0),
        plant(run, "evaluate", "scores", "symbolic", 17), plant(run, "evaluate", "scores", "item", 500),
        plant(run, "evaluate", "comparisons", "p_value", 2), plant(run, "evaluate", "comparisons", "n", 0),
        plant(run, "evaluate", "parts", "reasoning", 1),
    }  # fmt: skip
    plant_json(run / "evaluate" / "claims.json", lambda claims: claims[0].update(effect=claims[0]["effect"] + 0.01))
    plant_json(run / "elicit" / "manifest.json", lambda value: value["counts"].update(kept=value["counts"]["kept"] + 1))
    plant_json(run / "vote" / "manifest.json", lambda value: value.update(fingerprint="0" * 16))
    found = verify.verify(run)
    assert {(d.stage, d.table, d.row, d.column) for d in found} == planted | {
        ("evaluate", "claims.json", 0, "C1 effect"), ("elicit", "manifest.json", -1, "counts"), ("vote", "", -1, "all"),
        ("finetune", "manifest.json", -1, "upstream vote"), ("distil", "manifest.json", -1, "upstream vote"),
    }  # fmt: skip
    assert "'dedup' of run" in next(d.recomputed for d in found if d.stage == "vote")
    one = next(d for d in found if d.column == "p_value")
    assert str(one).startswith("evaluate/comparisons, row 2, p_value: stored ") and float(one.stored) - float(
        one.recomputed
    ) == pytest.approx(0.001)


@pytest.mark.slow
def test_the_reference_verifies_and_every_table_is_watched(tmp_path, capsys):
    assert main.main(["verify", str(REFERENCE)]) == main.DONE
    assert "every table came out the same" in capsys.readouterr().out
    run = published(tmp_path)
    planted = {
        plant(run, "dedup", "questions", "question"), plant(run, "dedup", "attempts", "accepted"),
        plant(run, "dedup", "attempts", "similarity", 9),
        plant(run, "dedup", "rejected", "reason"), plant(run, "vote", "qa", "answer"), plant(run, "vote", "qa",
        "votes", 5),
        plant(run, "vote", "paths", "won"), plant(run, "vote", "rejected", "agreement"),
    }  # fmt: skip
    assert main.main(["verify", str(run)]) == main.FAILED
    assert {(d.stage, d.table, d.row, d.column) for d in verify.verify(run)} == planted
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(planted) + 1 and lines[-1].endswith(f"{len(planted)} differences")


@pytest.fixture
def own_run(tmp_path):
    """A run with a domain and a model of its own, replayed from the reference's store; then their files are gone."""
    places = tmp_path / "places"
    (places / "model").mkdir(parents=True)
    (places / "model" / "config.json").write_text("{}")
    shutil.copyfile(ROOT / "params" / "domains" / "arithmetic.yaml", places / "mine.yaml")
    outputs = tmp_path / "outputs"
    for name in ("reference", "own"):
        (outputs / name).mkdir(parents=True)
        shutil.copyfile(REFERENCE / "store.sqlite", outputs / name / "store.sqlite")
    values = {
        "outputs": str(outputs),
        "run": "own",
        "domain": str(places / "mine.yaml"),
        "model": str(places / "model"),
    }
    assert verify.replay_stage("elicit", values) == ""
    shutil.rmtree(places)
    return outputs / "own"


def test_a_run_verifies_where_its_domain_and_its_model_are_not(own_run):
    assert verify.verify(own_run) == []
    planted = plant(own_run, "elicit", "questions", "question")
    assert [(d.stage, d.table, d.row, d.column) for d in verify.verify(own_run)] == [planted]


def test_a_file_that_a_replay_needs_is_asked_for(own_run, capsys):
    plant_json(own_run / "elicit" / "manifest.json", lambda value: value.update(hidden=["embedder"]))
    plant_json(own_run / "elicit" / "manifest.json", lambda value: value["parameters"].update(embedder=".../mini"))
    assert main.main(["verify", str(own_run)]) == main.BAD_INPUT
    assert "-p embedder=" in capsys.readouterr().err
    assert main.main(["verify", str(own_run), "-p", "embedder=bundled"]) == main.DONE


def test_tables_are_compared_cell_by_cell():
    old = pd.DataFrame(
        {"a": [1, 2, 3], "b": ["x", None, "z"], "similarity": [0.1234, 0.5, np.nan], "c": [0.1, 0.2, 0.3]}
    )
    assert not list(verify.table_differences("s", "t", old, old.copy()))
    near = old.assign(similarity=old["similarity"] + 1e-4, c=old["c"] * (1 + 1e-12))
    assert not list(verify.table_differences("s", "t", old, near))
    for changed, place in (
        (old.assign(a=[1, 2, 4]), (2, "a")), (old.assign(b=["x", "", "z"]), (1, "b")),
        (old.assign(c=[0.1, 0.2, 0.3000001]), (2, "c")),
        (old.assign(similarity=[0.1234, 0.5, 0.0]), (2, "similarity")), (old.assign(similarity=[0.1237, 0.5, np.nan]),
        (0, "similarity")),
        (old.head(2), (-1, "number of rows")), (old.drop(columns="a"), (-1, "columns")),
    ):  # fmt: skip
        assert [(d.row, d.column) for d in verify.table_differences("s", "t", old, changed)] == [place]
    many = list(verify.table_differences("s", "t", pd.DataFrame({"a": range(99)}), pd.DataFrame({"a": range(1, 100)})))
    assert len(many) == verify.MOST_LISTED + 1 and many[-1].column == "more"
    assert not list(verify.table_differences("s", "t", old.head(0), old.head(0)))


def test_same():
    for a, b in ((None, math.nan), (pd.NA, None), (1, 1.0), ("a", "a"), (0.1 + 0.2, 0.3), (True, True)):
        assert verify.same_cell(a, b) and verify.same_cell(b, a)
    for a, b in ((None, 0), ("1", 1), (True, 1), (1, 2), (0.3, 0.3001), ("a", 0.5), (math.nan, 0.0), (math.inf, 1.0)):
        assert not verify.same_cell(a, b) and not verify.same_cell(b, a)


def test_what_cannot_be_verified_is_named(tmp_path):
    with pytest.raises(folders.RunError, match=r"needs store\.sqlite"):
        verify.verify(tmp_path)
    run = published(tmp_path, "dedup", "vote", "elicit", "finetune", "distil")
    shutil.rmtree(run / "seed2")
    seeds = ", ".join(f"reference/seed{number}" for number in range(2, 6))
    with pytest.raises(folders.RunError, match=f"compared with {seeds}, which are not beside it"):
        verify.verify(run)
    (run / "evaluate" / "scores.parquet").write_bytes(b"no table")
    assert [d.column for d in verify._stage_differences("evaluate", run, published(tmp_path / "again"))][:1] == [
        "table"
    ]
    assert main.main(["verify", str(tmp_path / "nowhere")]) == main.BAD_INPUT
