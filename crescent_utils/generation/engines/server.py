"""server: any OpenAI-compatible endpoint (`vllm serve`, also over several GPUs or nodes), one or several base URLs.

The requests run in an event loop in a thread of their own, so that an interrupt can cancel at once what is in flight.
The API key comes from the environment variable CRESCENT_API_KEY alone, so that it can reach no parameter file and no
manifest; an address with a login (http://user:password@host) is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..store import LENGTH, STOP, Completion, Request, Sampling
from . import EngineError, Job, Prompts

_RETRIED = {408, 409, 429, 500, 502, 503, 504}
_TIMEOUT = 600.0  # seconds that a completion may take
_REST = 15.0  # seconds for which a server that did not answer is asked last; ours
_FINISHES = {"stop": STOP, "length": LENGTH}  # any other finish_reason means that the reply was broken off
_Answer = tuple[int, Completion]  # the job's index, and what the server wrote


class ServerEngine:
    """Chat completions over HTTP, a bounded number at a time, with retries over all base URLs."""

    name = "server"
    devices = 1  # how many stand behind a server is not known here
    guarantee = "the seed is sent with each request; what it guarantees is the server's to say"

    def __init__(
        self,
        base_urls: Sequence[str],
        model: str,
        render: Callable[[Request], list[int]],
        *,
        concurrency: int = 64,
        retries: int = 6,
    ) -> None:
        """`base_urls` end on /v1; `model` is the name under which the servers serve it.

        `render(request)` gives the prompt's token ids, so that one that is too long is found before it is sent.
        """
        if not base_urls:
            raise EngineError("engine: server needs base_urls, for example base_urls: ['http://localhost:8000/v1']")
        if any("@" in url for url in base_urls):  # not shown: it may hold a password
            raise EngineError("base_urls: an address with a login in it is refused; put the key into CRESCENT_API_KEY")
        self._urls = [url.rstrip("/") for url in base_urls]
        self._model, self._concurrency, self._retries = model, concurrency, retries
        self._render, self._prompts = render, Prompts(render)
        self._silent: dict[str, float] = {}  # server -> when it may be asked first again
        self._extra: dict[str, Any] = {}

    def meet(self) -> None:
        """Ask each server what it serves, before anything is sampled.

        Raises EngineError where none answers, where one does not serve the model, or where a vLLM server turns a chat
        into other token ids than `render` does: another chat template or tokenizer would silently make another
        experiment. A server that is down is left out until it answers.
        """
        answered = False
        for url in self._urls:
            models = self._json("GET", f"{url}/models")
            if models is None:
                self._silent[url] = time.monotonic() + _REST
                continue
            answered = True
            served = [str(entry.get("id")) for entry in models.get("data") or []]
            if self._model not in served:
                raise EngineError(
                    f"base_urls: {url} serves {', '.join(map(repr, served)) or 'nothing'}, not {self._model!r}; "
                    f"start it with --served-model-name {self._model}, or say its name in served_names"
                )
            root = url.removesuffix("/v1")
            if self._json("GET", f"{root}/version") is None:
                continue
            # vLLM's server takes what a request leaves open from the model's generation config; nothing is left open.
            self._extra = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
            self._compare(url, root)
        if not answered:
            places = ", ".join(self._urls)
            raise EngineError(f"base_urls: no server answers at {places}; start one, or mend the address")

    def _compare(self, url: str, root: str) -> None:
        probe = Request.of("", [{"role": "user", "content": "What is 3 + 4?"}], Sampling(max_tokens=1))
        tokens = self._render(probe)
        body = {"model": self._model, "messages": _messages(probe), "add_generation_prompt": True}
        answer = self._json("POST", f"{root}/tokenize", body)
        if answer is not None and answer.get("tokens") != tokens:
            raise EngineError(
                f"base_urls: {url} turns a chat into other tokens than the model's own template "
                f"({len(answer.get('tokens', []))}, not {len(tokens)}); serve the same model, without --chat-template, "
                "or set `model` to the served one"
            )

    def _json(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        import httpx

        with contextlib.suppress(httpx.TransportError, httpx.InvalidURL, ValueError):
            answer = httpx.request(method, url, json=body, timeout=30, headers=_headers())
            if answer.status_code in (401, 403):
                raise EngineError(f"base_urls: {url} refuses the key; put the right one into CRESCENT_API_KEY")
            value = answer.json() if answer.status_code == 200 else None
            return value if isinstance(value, dict) else None
        return None

    def sample(self, jobs: Sequence[Job]) -> Iterator[_Answer]:
        """Send the jobs, spread over the servers, and yield each as its answer comes.

        An interrupt, or a request that fails for good, cancels what is in flight; what is answered by then is still
        yielded.
        """
        answers: queue.SimpleQueue[_Answer | BaseException | None] = queue.SimpleQueue()  # None: there are no more
        loop = asyncio.new_event_loop()
        sending = loop.create_task(self._send_all(jobs, answers.put))
        thread = threading.Thread(target=_run_to_its_end, args=(loop, sending, answers.put), daemon=True)
        thread.start()
        try:
            while (answer := answers.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        except GeneratorExit:  # nobody takes what is left
            raise
        except BaseException:
            _cancel(loop, sending, thread)
            while not answers.empty():
                answer = answers.get()
                if isinstance(answer, tuple):
                    yield answer
            raise
        finally:
            _cancel(loop, sending, thread)

    async def _send_all(self, jobs: Sequence[Job], put: Callable[[_Answer], None]) -> None:
        """Let `concurrency` workers take the jobs in turn; the first that fails ends them all."""
        import httpx

        waiting = iter(enumerate(jobs))
        limits = httpx.Limits(max_connections=self._concurrency)

        async def work(client: httpx.AsyncClient) -> None:
            for index, job in waiting:
                prompt = self._prompts.get(job.request)
                put((index, prompt if isinstance(prompt, Completion) else await self._answer(client, index, job)))

        async with httpx.AsyncClient(headers=_headers(), timeout=_TIMEOUT, limits=limits) as client:
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(self._concurrency, len(jobs))):
                        workers.create_task(work(client))
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None

    async def _answer(self, client: Any, index: int, job: Job) -> Completion:
        """Ask the servers in turn until one gives a whole completion. Raises EngineError where none does."""
        import httpx

        trouble = ""
        turn: list[str] = []
        for attempt in range(self._retries):
            turn = turn or self._order(index)
            url, wait = turn.pop(0), 0.0
            try:
                answer = await client.post(f"{url}/chat/completions", json=self._body(job))
            except (httpx.TransportError, httpx.InvalidURL) as error:
                trouble = f"{url}: {type(error).__name__}"
                self._silent[url] = time.monotonic() + _REST
            else:
                completion, reason = _read(answer)
                if completion is not None:
                    return completion
                trouble = f"{url}: {reason or f'HTTP {answer.status_code}: {_without_key(answer.text)}'}"
                if answer.status_code != 200 and answer.status_code not in _RETRIED:
                    break
                with contextlib.suppress(ValueError):
                    wait = float(answer.headers.get("Retry-After", 0))
            if not turn and attempt + 1 < self._retries:  # every server had its turn: wait, longer each time
                await asyncio.sleep(max(min(30.0, wait), min(30.0, 0.5 * 2**attempt) * (0.5 + random.random())))
        hint = "Check base_urls and the server's log; what was sampled is stored"
        raise EngineError(f"server gave no completion: {trouble}. {hint}")

    def _order(self, index: int) -> list[str]:
        """Return the servers in turn, those that did not answer a moment ago last."""
        turn = [self._urls[(index + i) % len(self._urls)] for i in range(len(self._urls))]
        now = time.monotonic()
        return sorted(turn, key=lambda url: self._silent.get(url, 0.0) > now)

    def _body(self, job: Job) -> dict[str, Any]:
        request, sampling = job.request, job.request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": _messages(request),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": job.seed,
            **self._extra,
        }
        if sampling.stop:
            body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
        if request.prefix:
            body["messages"] = [*_messages(request), {"role": "assistant", "content": request.prefix}]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def close(self) -> None:
        """Do nothing: each call of `sample` ends its own connections."""


def _run_to_its_end(loop: asyncio.AbstractEventLoop, sending: asyncio.Task[None], put: Callable[[Any], None]) -> None:
    """Run the event loop until everything is sent; put what went wrong, or None, after the last answer."""
    try:
        loop.run_until_complete(sending)
        put(None)
    except BaseException as error:
        put(error)
    finally:
        loop.close()


def _cancel(loop: asyncio.AbstractEventLoop, sending: asyncio.Task[None], thread: threading.Thread) -> None:
    """End the event loop and its thread; closing the connections ends on the server, too, what is in flight."""
    with contextlib.suppress(RuntimeError):  # the loop has ended by itself
        loop.call_soon_threadsafe(sending.cancel)
    thread.join()


def _headers() -> dict[str, str]:
    key = os.environ.get("CRESCENT_API_KEY", "")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _without_key(text: str) -> str:
    """Return the start of what a server says, without the key, which it may repeat."""
    key = os.environ.get("CRESCENT_API_KEY")
    return (text.replace(key, "<key>") if key else text)[:300]


def _messages(request: Request) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in request.messages]


def _read(answer: Any) -> tuple[Completion | None, str]:
    """Return the completion in a server's answer, or None and why it holds no whole one ("": see the status)."""
    if answer.status_code != 200:
        return None, ""
    try:
        value = answer.json()
        choice, usage = value["choices"][0], value.get("usage") or {}
        reason, text = choice["finish_reason"], choice["message"]["content"] or ""
    except (ValueError, LookupError, TypeError, AttributeError):  # no JSON, or no completion in it
        return None, ""
    if reason not in _FINISHES:
        return None, f"reply ended by {reason!r}"
    return Completion(text, _FINISHES[reason], usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)), ""
