"""The generation store against a plain dictionary, against a kill, and against a second writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crescent_utils.generation.store import Completion, GenerationStore, Request, Sampling, StoreError, sample_seed

CHAT = [{"role": "user", "content": "What is 3 + 4?"}]


def request(content="What is 3 + 4?", **changes):
    sampling = Sampling(**{"temperature": 0.7, "max_tokens": 8, "seed": 1, **changes})
    return Request.of("model-a", [{"role": "user", "content": content}], sampling)


def done(text="7", finish="stop"):
    return Completion(text, finish, 12, 3)


def first(store, request, count):
    return store.lookup([(request, sample) for sample in range(count)])


operations = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.text(max_size=12)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_behaves_like_a_dictionary_that_keeps_the_first_value(tmp_path_factory, made):
    oracle: dict[tuple[int, int], str] = {}
    with GenerationStore(tmp_path_factory.mktemp("store") / "s.sqlite") as store:
        for number, sample, text in made:
            store.put([(request(str(number)), sample, done(text))])
            oracle.setdefault((number, sample), text)
        for number in range(4):
            got = first(store, request(str(number)), 5)
            assert [c.text if c else None for c in got] == [oracle.get((number, i)) for i in range(5)]
        assert store.count() == len(oracle)


@pytest.mark.parametrize(
    "other",
    [
        request("What is 3 + 5?"), request(temperature=0.8), request(top_p=0.9), request(max_tokens=9), request(seed=2),
        request(stop=("?",)), Request.of("model-b", CHAT, Sampling(0.7, 1.0, 8, (), 1)),
        Request.of("model-a", CHAT, Sampling(0.7, 1.0, 8, (), 1), prefix="It is"),
        Request.of("model-a", [{"role": "system", "content": ""}, *CHAT], Sampling(0.7, 1.0, 8, (), 1)),
    ],
)  # fmt: skip
def test_the_key_covers_all_that_a_completion_is_a_function_of(other):
    assert other.key() != request().key()


def test_greedy_requests_do_not_depend_on_the_seed():
    assert request(temperature=0.0, seed=1).key() == request(temperature=0.0, seed=2, top_p=0.5).key()


def test_seeds_differ_by_sample_request_and_run():
    keys = [request(str(i)).key() for i in range(20)]
    seeds = {sample_seed(key, sample, run) for key in keys for sample in range(20) for run in range(5)}
    assert len(seeds) == 20 * 20 * 5
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert sample_seed(keys[0], 3, 1) == sample_seed(keys[0], 3, 1)


def test_a_failed_put_leaves_nothing_and_the_store_usable(tmp_path):
    def rows():
        yield request("a"), 0, done()
        raise KeyboardInterrupt

    with GenerationStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(KeyboardInterrupt):
            store.put(rows())
        assert store.count() == 0
        assert store.put([(request("a"), 0, done())]) == 1
        assert store.put([(request("a"), 0, done("other"))]) == 0
        assert first(store, request("a"), 1) == [done()]


def test_what_put_returned_from_survives_kill_9(tmp_path):
    code = f"""
        import os, signal, sys
        from crescent_utils.generation.store import *
        store = GenerationStore({str(tmp_path / "s.sqlite")!r})
        ask = lambda i: Request.of("m", [{{"role": "user", "content": str(i)}}], Sampling())
        for chunk in range(5):
            store.put([(ask(100 * chunk + i), 0, Completion(str(i), "stop", 1, 1)) for i in range(100)])
        store._db.execute("BEGIN"); store._db.execute("DELETE FROM completions")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert ended.returncode == -signal.SIGKILL
    with GenerationStore(tmp_path / "s.sqlite") as store:
        assert store.count() == 500


def test_a_second_writer_is_told_who_holds_the_store(tmp_path):
    with GenerationStore(tmp_path / "s.sqlite"):
        code = f"from crescent_utils.generation.store import *\nGenerationStore({str(tmp_path / 's.sqlite')!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert other.returncode == 1
        assert "StoreError" in other.stderr
        assert f"process {os.getpid()}" in other.stderr
    GenerationStore(tmp_path / "s.sqlite").close()


def test_reading_leaves_no_trace_and_refuses_to_write(tmp_path):
    path = tmp_path / "s.sqlite"
    with GenerationStore(path) as store:
        store.put([(request(), 0, done())])
        store.set_model("base", "abc")
    (tmp_path / "s.sqlite.lock").unlink()
    before = path.read_bytes()
    with GenerationStore(path, read_only=True) as store:
        assert first(store, request(), 2) == [done(), None]
        assert store.models() == {"base": "abc"}
        with pytest.raises(StoreError, match="engine: replay"):
            store.put([(request(), 1, done())])
    assert [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]
    assert path.read_bytes() == before


def test_a_damaged_file_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(StoreError, match="no generation store"):
        GenerationStore(tmp_path / "none.sqlite", read_only=True)
    (tmp_path / "bad.sqlite").write_bytes(b"not a database, at all" * 100)
    with pytest.raises(StoreError, match="damaged"):
        GenerationStore(tmp_path / "bad.sqlite")
