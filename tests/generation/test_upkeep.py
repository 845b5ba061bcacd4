"""Upkeep of the reference run's real store: damage it in many ways, save what is whole, export and merge it."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import REFERENCE, ROOT

from crescent_utils.cli import main
from crescent_utils.generation import upkeep
from crescent_utils.generation.store import Completion, GenerationStore, Request, Sampling, StoreError

REFERENCE_STORE = REFERENCE / "store.sqlite"


def everything(path):
    with GenerationStore(path, read_only=True) as store:
        return {(request, sample): completion for request, sample, completion in store.completions()}


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Every eighth completion of the reference run, in a store of its own."""
    path = tmp_path_factory.mktemp("part") / "store.sqlite"
    with GenerationStore(REFERENCE_STORE, read_only=True) as source, GenerationStore(path) as target:
        target.put(islice(source.completions(), 0, None, 8), {"engine": "vllm", "seconds": 3.0, "device_seconds": 3.0})
    return path


@pytest.fixture(scope="module")
def whole(part):
    return everything(part)


@pytest.fixture
def store(part, tmp_path):
    path = tmp_path / "run" / "store.sqlite"
    path.parent.mkdir()
    shutil.copyfile(part, path)
    return path


def request(content, **changes):
    return Request.of("m", [{"role": "user", "content": content}], Sampling(**changes))


def done(text):
    return Completion(text, "stop", 3, 2)


def test_the_reference_is_whole_and_every_row_is_found_by_its_key(whole):
    assert upkeep.check(REFERENCE_STORE) == []
    assert len(whole) > 1000
    with GenerationStore(REFERENCE_STORE, read_only=True) as store:
        for pair in random.Random(1).sample(list(whole), 300):
            assert store.lookup([pair]) == [whole[pair]]


def test_export_gives_every_completion_with_its_request(store, whole, tmp_path):
    count = upkeep.export(store, tmp_path / "out" / "all.parquet")
    table = pd.read_parquet(tmp_path / "out" / "all.parquet")
    assert count == len(table) == len(whole)
    texts = {(request.key().hex(), sample): completion.text for (request, sample), completion in whole.items()}
    assert dict(zip(zip(table["key"], table["sample"], strict=True), table["text"], strict=True)) == texts
    row = table.iloc[0]
    sampling = Sampling(row["temperature"], row["top_p"], int(row["max_tokens"]), tuple(row["stop"]), int(row["seed"]))
    exported = Request(row["model"], tuple(map(tuple, json.loads(row["messages"]))), row["prefix"], sampling)
    assert exported.key().hex() == row["key"]
    assert json.loads(row["made_by"])["engine"] == "vllm"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["all.parquet"]


def test_two_shards_join_to_the_whole(store, whole, tmp_path):
    halves = [tmp_path / "a" / "store.sqlite", tmp_path / "b" / "store.sqlite"]
    with GenerationStore(store, read_only=True) as source:
        rows = list(source.completions())
        for number, path in enumerate(halves):
            with GenerationStore(path) as half:
                half.set_model(f"label{number}", "f")
                # a third of the rows is in both
                part = [row for i, row in enumerate(rows) if i % 3 in (number, 2)]
                half.put(part, {"engine": "vllm", "seconds": 10.0, "device_seconds": 10.0})
    into = tmp_path / "all" / "store.sqlite"
    merged = upkeep.merge_stores(into, halves)
    assert (merged.added, merged.different) == (len(whole), 0)
    assert merged.same == sum(i % 3 == 2 for i in range(len(rows)))
    assert everything(into) == whole
    with GenerationStore(into, read_only=True) as joined:
        assert set(joined.models()) == {"label0", "label1"}
        made = [joined.batch(number) for number in {c.batch for c in everything(into).values()}]
    assert sum(batch["count"] for batch in made) == len(whole)
    # What was in both was sampled twice, and paid twice; of the second only the rows that were new are counted.
    assert sum(batch["seconds"] for batch in made) == pytest.approx(20.0)
    again = upkeep.merge_stores(into, halves)
    assert again.added == 0 and everything(into) == whole


@given(st.lists(st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 3))), min_size=2, max_size=2))
@settings(max_examples=25, deadline=None)
def test_a_store_holds_more_where_a_merge_would_add_something(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("stores")
    for name, part in zip(("one", "two"), pairs, strict=True):
        with GenerationStore(folder / name) as made:
            made.put([(request(question), sample, done("7")) for question, sample in sorted(part)])
    assert upkeep.holds_more(folder / "one", folder / "two") == bool(pairs[0] - pairs[1])
    assert upkeep.merge_stores(folder / "two", [folder / "one"]).added == len(pairs[0] - pairs[1])
    assert not upkeep.holds_more(folder / "one", folder / "two")
    assert upkeep.holds_more(folder / "one", folder / "none")
    (folder / "two").write_bytes(b"damaged" * 1000)
    assert upkeep.holds_more(folder / "one", folder / "two"), "the merge says what is wrong"


def test_of_two_texts_the_first_stays_and_is_counted(tmp_path):
    for name, text in (("a", "7"), ("b", "8")):
        with GenerationStore(tmp_path / name) as made:
            made.put([(request("3 + 4?"), 0, done(text)), (request(name), 0, done(name))])
    merged = upkeep.merge_stores(tmp_path / "a", [tmp_path / "b"])
    assert (merged.added, merged.same, merged.different) == (1, 0, 1)
    with GenerationStore(tmp_path / "a", read_only=True) as made:
        assert made.lookup([(request("3 + 4?"), 0)]) == [done("7")]


def test_merging_a_request_of_many_samples_reads_each_of_them_a_fixed_number_of_times(tmp_path, monkeypatch):
    # One bait has 55,000 samples in the paper. Counted are the completions read: twice as many, and not four times.
    def completions_read(count):
        for name in ("a", "b"):
            with GenerationStore(tmp_path / f"{count}{name}") as store:
                store.put([(request("bait"), sample, done(str(sample))) for sample in range(count)])
        read = []
        check = GenerationStore._checked
        with monkeypatch.context() as patch:
            patch.setattr(GenerationStore, "_checked", lambda self, row: read.append(1) or check(self, row))
            merged = upkeep.merge_stores(tmp_path / f"{count}a", [tmp_path / f"{count}b"])
        assert (merged.added, merged.same, merged.different) == (0, count, 0)
        return len(read)

    assert completions_read(800) <= 2.5 * completions_read(400)


def test_nothing_is_merged_from_a_store_that_is_missing_damaged_or_itself(store, tmp_path):
    with pytest.raises(StoreError, match="no generation store"):
        upkeep.merge_stores(tmp_path / "x", [tmp_path / "none.sqlite"])
    with pytest.raises(StoreError, match="into itself"):
        upkeep.merge_stores(store, [store])
    flip(store, "text")
    with pytest.raises(StoreError, match="checksum"):
        upkeep.merge_stores(tmp_path / "x", [store])
    assert not (tmp_path / "x").exists()


def flip(path, column):
    """Change one character of one stored row, as a failing disk may: SQLite itself does not notice."""
    with sqlite3.connect(path) as db:
        fifth, sample = db.execute("SELECT request_id, min(sample) FROM completions WHERE request_id >= 5").fetchone()
        table, where = (
            ("requests", f"id = {fifth}")
            if column == "prefix"
            else ("completions", f"request_id = {fifth} AND sample = {sample}")
        )
        assert db.execute(f"UPDATE {table} SET {column} = {column} || 'x' WHERE {where}").rowcount == 1


def test_a_changed_completion_is_found_when_it_is_read_and_lost_alone(store, whole):
    flip(store, "text")
    assert "checksum" in upkeep.check(store)[0]
    with GenerationStore(store, read_only=True) as damaged, pytest.raises(StoreError, match="crescent store recover"):
        for pair in whole:
            damaged.lookup([pair])
    saved = upkeep.recover(store)
    assert (saved.saved, saved.lost) == (len(whole) - 1, 1)
    assert upkeep.check(store) == []
    left = everything(store)
    assert len(left) == len(whole) - 1 and left.items() <= whole.items()
    assert saved.kept_as.name == "store.sqlite.damaged-1"


@pytest.mark.parametrize("damage", ["a truncated file", "pages of noise"])
def test_the_damaged_file_and_its_write_ahead_log_are_kept_byte_for_byte(store, whole, damage):
    rows = [(request(f"only in the log {i}"), 0, done(str(i))) for i in range(50)]
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_upkeep import GenerationStore, done, request
        store = GenerationStore({str(store)!r})
        store.put([(request(f"only in the log {{i}}"), 0, done(str(i))) for i in range(50)])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment)
    log = store.with_name("store.sqlite-wal")
    if damage == "a truncated file":
        os.truncate(store, store.stat().st_size * 9 // 10)
    else:
        data = bytearray(store.read_bytes())
        data[-8192:] = random.Random(1).randbytes(8192)
        store.write_bytes(data)
    file_before, log_before = store.read_bytes(), log.read_bytes()
    assert log_before, "what was put last stands in the log alone"
    saved = upkeep.recover(store)
    assert saved.kept_as.read_bytes() == file_before
    assert saved.kept_as.with_name(saved.kept_as.name + "-wal").read_bytes() == log_before
    recovered = everything(store)
    assert all(recovered[row, sample] == completion for row, sample, completion in rows)
    assert len(recovered) > len(whole) / 2
    assert sorted(path.name for path in store.parent.iterdir()) == [
        "store.sqlite", "store.sqlite.damaged-1", "store.sqlite.damaged-1-wal", "store.sqlite.lock"
    ]  # fmt: skip


def test_a_changed_request_takes_its_completions_with_it(store, whole):
    flip(store, "prefix")
    assert "does not match its key" in upkeep.check(store)[0]
    saved = upkeep.recover(store)
    assert saved.lost >= 1 and saved.saved + saved.lost == len(whole)
    assert everything(store).items() <= whole.items()


def test_rows_that_a_damaged_page_numbers_from_zero_again_are_not_read_twice():
    class Damaged:
        def execute(self, query, values):
            yield from ((number,) for number in range(1, 6) if number > values[0])
            yield (0,)

    assert list(islice(upkeep._rows(Damaged(), "requests"), 100)) == [(1,), (2,), (3,), (4,), (5,)]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_truncated_file_is_named_and_what_is_left_of_it_saved(store, whole, share):
    size = store.stat().st_size
    os.truncate(store, int(size * share))
    with pytest.raises(StoreError, match=r"is truncated: .* of .* bytes; .crescent store recover."):
        GenerationStore(store)
    assert "truncated" in upkeep.check(store)[0]
    saved = upkeep.recover(store)
    left = everything(store)
    assert saved.saved == len(left) and left.items() <= whole.items()
    assert share < 0.9 or saved.saved > 0.2 * len(whole)
    assert saved.kept_as.stat().st_size == int(size * share)


@pytest.mark.parametrize("seed", range(6))
def test_pages_of_noise_cost_what_stood_on_them(store, whole, seed):
    chance = random.Random(seed)
    data = bytearray(store.read_bytes())
    pages = chance.sample(range(1, len(data) // 4096), 5)  # the first page holds the schema
    for page in pages:
        data[page * 4096 : (page + 1) * 4096] = chance.randbytes(4096)
    store.write_bytes(data)
    assert upkeep.check(store)
    saved = upkeep.recover(store)
    left = everything(store)
    assert left.items() <= whole.items() and saved.saved == len(left)
    assert upkeep.check(store) == []


def test_a_file_that_is_no_store_says_that_nothing_can_be_saved(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"not a database, at all" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="nothing of it can be read"):
        upkeep.recover(path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.recovered*")) and not list(tmp_path.glob("*damaged*"))
    with pytest.raises(StoreError, match="no generation store"):
        upkeep.recover(tmp_path / "none")


def test_a_store_of_the_first_format_is_copied_into_a_new_one(store, whole):
    with sqlite3.connect(store) as db:
        db.execute("ALTER TABLE completions DROP COLUMN crc")
        db.execute("PRAGMA user_version=0")
    with pytest.raises(StoreError, match="has format 0"):
        GenerationStore(store)
    assert upkeep.recover(store).saved == len(whole)
    assert everything(store) == whole


def test_a_store_that_is_being_written_is_left_alone(store):
    with GenerationStore(store), pytest.raises(StoreError, match=f"process {os.getpid()}"):
        upkeep.recover(store)


def test_the_command_line_says_what_it_did(store, part, whole, capsys):
    run = str(store.parent)
    assert main.main(["store", "check", run]) == 0
    assert "every completion is whole" in capsys.readouterr().out
    assert main.main(["store", "export", run]) == 0
    assert f"store.parquet: {len(whole):,} completions" in capsys.readouterr().out
    flip(store, "text")
    assert main.main(["store", "check", run]) == 1
    assert main.main(["store", "recover", run]) == 0
    assert "1 lost" in capsys.readouterr().out
    assert main.main(["store", "merge", run, str(part)]) == 0
    assert f"1 completions added, {len(whole) - 1:,} were there already" in capsys.readouterr().out
    assert main.main(["store", "check", "no-such-run"]) == 2
    assert "no run of this name has a store; there: " in capsys.readouterr().err
