"""The server engine against a real HTTP server, which answers with a real (tiny) model and fails on command."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny

from crescent_utils.generation import generator, models
from crescent_utils.generation.engines import EngineError, Job, server
from crescent_utils.generation.engines.server import ServerEngine
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.store import GenerationStore, Request, Sampling, sample_seed
from crescent_utils.runs import params

KEY = "sk-secret-4711"
SAMPLING = Sampling(1.0, 0.9, 6, (), 1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model", layers=2)
    words = models.load_tokenizer(folder)
    engine = TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, 512), batch_size=1)
    engine.folder = folder
    return engine


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions, as `vllm serve` answers it; each of `server.troubles` is done first, in turn."""

    def do_GET(self):
        # Nothing but the list of models: an endpoint that is not vLLM's has no /version and no /tokenize.
        there = self.path == "/v1/models"
        answer = json.dumps({"data": [{"id": name} for name in self.server.serves]}).encode() if there else b"{}"
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.seen.append((self.path, self.headers.get("Authorization"), json.loads(body)))
            trouble = self.server.troubles.pop(0) if self.server.troubles else None
            if trouble == "drop":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if trouble != "hang":
                code, answer = trouble or (200, self.answer(json.loads(body)))
        if trouble == "hang":  # until the client closes the connection, as a long completion would
            self.server.hanging.release()
            readable, _, _ = select.select([self.connection], [], [], 20)
            self.server.cancelled.append(bool(readable) and self.connection.recv(1) == b"")
            self.close_connection = True
            return
        answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        answer = answer.replace(b"ECHO", (self.headers.get("Authorization") or "").encode())
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, body):
        messages, prefix = body["messages"], ""
        if body.get("continue_final_message"):
            assert body["add_generation_prompt"] is False
            *messages, last = messages
            assert last["role"] == "assistant"
            prefix = last["content"]
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], tuple(body.get("stop", ())), 1)
        request = Request.of("tiny", messages, sampling, prefix)
        ((_, got),) = self.server.engine.sample([Job(request, 0, body["seed"])])
        usage = {"prompt_tokens": got.prompt_tokens, "completion_tokens": got.tokens}
        return {
            "choices": [{"message": {"role": "assistant", "content": got.text}, "finish_reason": got.finish}],
            "usage": usage,
        }

    def log_message(self, *_):
        pass


@contextmanager
def serving(engine, troubles=()):
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.engine, made.troubles, made.seen, made.lock = engine, list(troubles), [], threading.Lock()
    made.hanging, made.cancelled = threading.Semaphore(0), []
    made.serves = ["m", "served-name"]
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        made.url = f"http://127.0.0.1:{made.server_port}/v1"
        yield made
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.fixture
def waits(monkeypatch):
    """Waiting takes no time here; the seconds that would have passed are returned."""
    passed: list[float] = []

    async def pause(seconds):
        passed.append(seconds)

    monkeypatch.setattr(server.asyncio, "sleep", pause)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("CRESCENT_API_KEY", raising=False)
    return passed


def dead_url():
    """Address of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def jobs(count, sampling=SAMPLING, prefix="", samples=1):
    system = {"role": "system", "content": "s"}
    chats = [[system, {"role": "user", "content": f"What is {i}?"}] for i in range(count)]
    requests = [Request.of("tiny", chat, sampling, prefix) for chat in chats]
    return [Job(request, i, sample_seed(request.key(), i, 1)) for request in requests for i in range(samples)]


def any_length(request):
    return []


def sampled(urls, wanted, render=any_length, **options):
    made = ServerEngine(urls, "served-name", render, concurrency=4, **options)
    try:
        return dict(made.sample(wanted))
    finally:
        made.close()


def asking(http, store, **options):
    """A generator over the store at `store` that asks the server `http`."""
    model = models.Model("base", "tiny", lambda: store.parent)
    start = partial(ServerEngine, [http.url], "m", any_length, **options)
    return generator.Generator(GenerationStore(store), model, 1, start)


@pytest.mark.parametrize(
    "sampling, prefix",
    [(SAMPLING, ""), (SAMPLING, "It is "), (Sampling(0.0, 1.0, 5), ""), (Sampling(1.0, 1.0, 30, ("a", "e"), 1), "")],
)
def test_completions_through_http_are_those_of_the_engine_behind_it(engine, waits, sampling, prefix):
    wanted = jobs(5, sampling, prefix, samples=2)
    with serving(engine) as http:
        got = sampled([http.url], wanted)
    assert got == dict(engine.sample(wanted))
    assert not waits


def test_what_is_sent_is_the_whole_request(engine, waits):
    (job,) = jobs(1, Sampling(0.7, 0.9, 6, ("?",), 1), "It is ")
    with serving(engine) as http:
        sampled([http.url + "/"], [job])
        ((path, authorization, body),) = http.seen
    assert path == "/v1/chat/completions" and authorization is None
    assert body == {
        "model": "served-name", "temperature": 0.7, "top_p": 0.9, "max_tokens": 6, "seed": job.seed, "stop": ["?"],
        "include_stop_str_in_output": True, "continue_final_message": True, "add_generation_prompt": False,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "What is 0?"},
                     {"role": "assistant", "content": "It is "}],
    }  # fmt: skip


@pytest.mark.parametrize("trouble", [(429, {"error": "slow down"}), (503, b"loading"), (500, b""), (408, b""), "drop"])
def test_what_passes_is_waited_for(engine, waits, trouble):
    wanted = jobs(6)
    with serving(engine, [trouble] * 4) as http:
        got = sampled([http.url], wanted)
        assert len(http.seen) == 10
    assert got == dict(engine.sample(wanted))
    assert len(waits) == 4 and all(0 < seconds < 40 for seconds in waits)


def test_each_wait_is_longer_until_it_gives_up(engine, waits):
    with serving(engine, [(503, b"loading")] * 99) as http, pytest.raises(EngineError) as caught:
        sampled([http.url], jobs(1), retries=5)
    assert len(http.seen) == 5
    assert "HTTP 503" in str(caught.value) and "loading" in str(caught.value) and "base_urls" in str(caught.value)
    assert len(waits) == 4, "nobody waits for a try that does not come"
    # Half to one and a half times 0.5, 1, 2, 4 … seconds: every second one is surely longer.
    assert all(later > earlier for earlier, later in zip(waits, waits[2:], strict=False))


def test_one_of_two_servers_is_dead(engine, waits):
    wanted = jobs(12)
    with serving(engine) as http:
        got = sampled([dead_url(), http.url], wanted)
        assert len(http.seen) == 12
    assert got == dict(engine.sample(wanted))
    assert not waits, "the other server is asked at once"


def test_two_servers_share_the_work(engine, waits):
    wanted = jobs(12)
    with serving(engine) as one, serving(engine) as two:
        got = sampled([one.url, two.url], wanted)
        assert len(one.seen) == len(two.seen) == 6
    assert got == dict(engine.sample(wanted))


def test_no_server_at_all_is_said(waits):
    url = dead_url()
    with pytest.raises(EngineError, match=f"{url}: ConnectError.*base_urls"):
        sampled([url], jobs(3), retries=2)
    with pytest.raises(EngineError, match="base_urls: "):
        ServerEngine([], "m", any_length)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_request_that_is_refused_is_not_sent_again(engine, waits, status):
    with serving(engine, [(status, {"error": "the model `served-name` does not exist"})] * 9) as http:
        with pytest.raises(EngineError, match=f"HTTP {status}.*does not exist"):
            sampled([http.url], jobs(1))
        assert len(http.seen) == 1
    assert not waits


@pytest.mark.parametrize("answer", [b"<html>a proxy's page</html>", {"object": "list"}, {"choices": []}])
def test_an_answer_that_is_none_is_an_engine_error(engine, waits, answer):
    with serving(engine, [(200, answer)] * 9) as http, pytest.raises(EngineError, match=http.url):
        sampled([http.url], jobs(1))


def reply(finish_reason):
    return {"choices": [{"message": {"role": "assistant", "content": "It is"}, "finish_reason": finish_reason}]}


@pytest.mark.parametrize("finish_reason", ["abort", "content_filter", "tool_calls", None])
def test_a_reply_that_the_server_broke_off_is_no_completion(engine, waits, tmp_path, finish_reason):
    wanted = jobs(3)
    with serving(engine, [(200, reply(finish_reason))] * 2) as http:
        assert sampled([http.url], wanted) == dict(engine.sample(wanted)), "it is asked for again"
    with serving(engine, [(200, reply(finish_reason))] * 99) as http:
        endless = asking(http, tmp_path / "s.sqlite", retries=2)
        with endless, pytest.raises(EngineError, match=f"reply ended by {finish_reason!r}"):
            endless.generate([wanted[0].request])
    with GenerationStore(tmp_path / "s.sqlite", read_only=True) as store:
        assert store.count() == 0


@pytest.fixture
def interrupts():
    """Let SIGINT interrupt this process: one that a shell started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["while it waits for answers", "while it stores one"])
def test_an_interrupt_stores_what_is_answered_and_cancels_what_is_in_flight(engine, waits, interrupts, tmp_path, where):
    with serving(engine, [None] * 5 + ["hang"] * 3) as http:
        interrupted = asking(http, tmp_path / "s.sqlite", concurrency=3)

        def all_answered_or_hanging():
            for _ in range(3):
                assert http.hanging.acquire(timeout=20)
            time.sleep(0.3)  # for the last answers to arrive

        def stop(text):
            if where == "while it stores one":
                all_answered_or_hanging()
                raise KeyboardInterrupt
            return True

        def interrupt():
            all_answered_or_hanging()
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        if where == "while it waits for answers":
            thread.start()
        with interrupted, pytest.raises(KeyboardInterrupt):
            interrupted.complete([(job.request, 0) for job in jobs(8)], stop)
        if thread.ident:
            thread.join()
    assert http.cancelled == [True] * 3, "the connections were closed, not waited for"
    with GenerationStore(tmp_path / "s.sqlite", read_only=True) as store:
        assert store.count() == 5


def test_an_empty_completion_without_usage_is_a_completion(engine, waits):
    answer = {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "length"}]}
    with serving(engine, [(200, answer)]) as http:
        (got,) = sampled([http.url], jobs(1)).values()
    assert (got.text, got.truncated, got.tokens) == ("", True, 0)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(engine, waits, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("CRESCENT_API_KEY", KEY)
    model = models.Model("base", "tiny", lambda: engine.folder)
    with serving(engine) as http:
        settings = params.build_settings(
            "elicit", {"engine": "server", "base_urls": [http.url], "model": "m", "outputs": str(tmp_path)}
        )
        with generator.open_generator(settings, model) as made:
            made.generate([made.request([{"role": "user", "content": "x"}], SAMPLING)], 3)
            shown = f"{made._engine!r} {vars(made._engine)} {settings!r} {settings.model_dump()}"
        assert [authorization for _, authorization, _ in http.seen] == [f"Bearer {KEY}"] * 3
    shown += "".join(capfd.readouterr())
    assert KEY not in shown
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(KEY.encode() in path.read_bytes() for path in written)


@pytest.mark.parametrize("status", [401, 503])
def test_a_server_that_repeats_the_key_does_not_bring_it_into_the_message(engine, waits, monkeypatch, status):
    monkeypatch.setenv("CRESCENT_API_KEY", KEY)
    with serving(engine, [(status, b"not a valid key: ECHO")] * 9) as http, pytest.raises(EngineError) as caught:
        sampled([http.url], jobs(1), retries=2)
    assert http.seen[0][1] == f"Bearer {KEY}"
    assert "not a valid key" in str(caught.value) and KEY not in str(caught.value)


def test_what_was_done_before_the_servers_end_is_stored(engine, waits, tmp_path):
    requests = [job.request for job in jobs(8)]
    with serving(engine, [None] * 5 + [(400, b"gone")] * 99) as http:
        made = asking(http, tmp_path / "s.sqlite", concurrency=1)
        with made, pytest.raises(EngineError, match="what was sampled is stored"):
            made.generate(requests)
    with serving(engine) as http:
        again = asking(http, tmp_path / "s.sqlite", concurrency=1)
        with again:
            again.generate(requests)
        assert 3 <= len(http.seen) < 8, "what the first server gave is not asked for again"


def test_a_server_that_serves_something_else_is_named_before_anything_is_sampled(engine, waits, tmp_path):
    model = models.Model("tuned", "tiny", lambda: engine.folder)
    with serving(engine) as http:
        settings = params.build_settings(
            "elicit", {"engine": "server", "base_urls": [http.url], "model": "m", "outputs": str(tmp_path)}
        )
        with generator.open_generator(settings, model, label="tuned") as made:
            with pytest.raises(EngineError, match="serves 'm', 'served-name', not 'tuned'.*served_names"):
                made.generate([made.request([{"role": "user", "content": "x"}], SAMPLING)])
        assert not http.seen
        named = settings.model_copy(update={"served_names": {"tuned": "served-name"}})
        with generator.open_generator(named, model, label="tuned") as made:
            made.generate([made.request([{"role": "user", "content": "x"}], SAMPLING)])
        assert [body["model"] for _, _, body in http.seen] == ["served-name"]


def test_an_overlong_prompt_is_not_sent(engine, waits):
    wanted = jobs(1) + [Job(Request.of("tiny", [{"role": "user", "content": "x" * 600}], SAMPLING), 0, 1)]
    with serving(engine) as http:
        words = models.load_tokenizer(engine.folder)
        got = sampled([http.url], wanted, render=lambda request: models.prompt_token_ids(words, request, 512))
        assert len(http.seen) == 1
    assert (got[1].finish, got[1].text) == ("prompt too long", "") and got[1].prompt_tokens > 600
    assert got[0].tokens > 0


@pytest.mark.parametrize("login", ["user:hunter2", "user:hunter2/with@signs", "hunter2"])
def test_an_address_with_a_login_is_refused_and_not_shown(login):
    with pytest.raises(EngineError, match="base_urls: an address with a login.*CRESCENT_API_KEY") as caught:
        ServerEngine(["http://localhost:8000/v1", f"http://{login}@localhost:8000/v1"], "m", any_length)
    assert "hunter2" not in str(caught.value)


def test_an_address_that_is_none_is_said(waits):
    with pytest.raises(EngineError, match="base_urls: no server answers at http://localhost:80a/v1"):
        ServerEngine(["http://localhost:80a/v1"], "m", any_length).meet()
