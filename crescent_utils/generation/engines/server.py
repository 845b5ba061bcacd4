"""server: any OpenAI-compatible endpoint (`vllm serve`, also over several GPUs or nodes), one or several base URLs.

The API key comes from the environment variable CRESCENT_API_KEY alone, so that it can reach no parameter file and no manifest.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ..store import LENGTH, STOP, Completion, Request
from . import EngineError, Job, Prompts

_RETRIED = {408, 409, 429, 500, 502, 503, 504}
_REST = 15.0  # seconds for which a server that did not answer is asked last; ours


class ServerEngine:
    """Chat completions over HTTP, a bounded number at a time, with retries over all base URLs."""

    name = "server"
    devices = 1  # how many stand behind a server is not known here
    guarantee = "the seed is sent with each request; what it guarantees is the server's to say"

    def __init__(
        self,
        base_urls: Sequence[str],
        model: str,
        render: Callable[[Request], list[int]] | None = None,
        *,
        concurrency: int = 64,
        retries: int = 6,
        timeout: float = 600,
    ) -> None:
        """`base_urls` end on /v1; `model` is the name under which the servers serve it; `timeout` is in seconds.

        `render(request)`, where it is given, finds prompts that are too long before they are sent.
        """
        import httpx

        if not base_urls:
            raise EngineError("engine: server needs base_urls, for example base_urls: ['http://localhost:8000/v1']")
        key = os.environ.get("CRESCENT_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=concurrency)
        self._client: Any = httpx.Client(headers=headers, timeout=timeout, limits=limits)
        self._urls = [url.rstrip("/") for url in base_urls]
        self._model, self._concurrency, self._retries = model, concurrency, retries
        self._prompts = Prompts(render) if render else None
        self._silent: dict[str, float] = {}  # server -> when it may be asked first again
        self._extra: dict[str, Any] = {}

    def meet(self, probe: Request | None = None, tokens: list[int] | None = None) -> None:
        """Ask each server what it serves, before anything is sampled.

        Raises EngineError where none answers, where one does not serve the model, or where a vLLM server turns `probe` into other
        token ids than `tokens`: another chat template or tokenizer would silently make another experiment. A server that is down
        is left out until it answers.
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
                    f"base_urls: {_shown(url)} serves {', '.join(map(repr, served)) or 'nothing'}, not {self._model!r}; start it with "
                    f"--served-model-name {self._model}, or say its name in served_names"
                )
            root = url.removesuffix("/v1")
            if self._json("GET", f"{root}/version") is None:
                continue
            # vLLM's server takes what a request leaves open from the model's generation config; nothing is left open.
            self._extra = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
            if probe is not None and tokens is not None:
                self._compare(url, root, probe, tokens)
        if not answered:
            raise EngineError(
                f"base_urls: no server answers at {', '.join(map(_shown, self._urls))}; start one, or mend the address"
            )

    def _compare(self, url: str, root: str, probe: Request, tokens: list[int]) -> None:
        body = {"model": self._model, "messages": _messages(probe), "add_generation_prompt": True}
        answer = self._json("POST", f"{root}/tokenize", body)
        if answer is not None and answer.get("tokens") != tokens:
            raise EngineError(
                f"base_urls: {_shown(url)} turns a chat into other tokens than the model's own template ({len(answer.get('tokens', []))}, "
                f"not {len(tokens)}); serve the same model, without --chat-template, or set `model` to the served one"
            )

    def _json(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        import httpx

        with contextlib.suppress(httpx.TransportError, ValueError):
            answer = self._client.request(method, url, json=body, timeout=30)
            if answer.status_code in (401, 403):
                raise EngineError(f"base_urls: {_shown(url)} refuses the key; put the right one into CRESCENT_API_KEY")
            value = answer.json() if answer.status_code == 200 else None
            return value if isinstance(value, dict) else None
        return None

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Send the jobs, spread over the servers, a bounded number ahead; yield each as its answer comes."""
        waiting = iter(enumerate(jobs))
        asked: dict[Future[Completion], int] = {}
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                more = True
                while more or asked:
                    while more and len(asked) < 2 * self._concurrency:
                        index, job = next(waiting, (-1, None))
                        if job is None:
                            more = False
                            break
                        prompt = self._prompts.get(job.request) if self._prompts else None
                        if isinstance(prompt, Completion):
                            yield index, prompt
                        else:
                            asked[pool.submit(self._one, index, job)] = index
                    for future in wait(asked, return_when=FIRST_COMPLETED).done if asked else ():
                        yield asked.pop(future), future.result()
            finally:
                for future in asked:
                    future.cancel()

    def _one(self, index: int, job: Job) -> Completion:
        import httpx

        trouble = ""
        turn: list[str] = []
        for attempt in range(self._retries):
            turn = turn or self._order(index)
            url, pause = turn.pop(0), 0.0
            try:
                answer = self._client.post(f"{url}/chat/completions", json=self._body(job))
            except httpx.TransportError as error:
                trouble = f"{_shown(url)}: {type(error).__name__}"
                self._silent[url] = time.monotonic() + _REST
            else:
                if answer.status_code == 200:
                    with contextlib.suppress(ValueError, LookupError, TypeError):  # no JSON, or no completion in it
                        return _completion(answer.json())
                trouble = f"{_shown(url)}: HTTP {answer.status_code}: {_shown(answer.text)}"
                if answer.status_code not in _RETRIED:
                    break
                with contextlib.suppress(ValueError):
                    pause = float(answer.headers.get("Retry-After", 0))
            if not turn and attempt + 1 < self._retries:  # every server had its turn: wait, longer each time
                time.sleep(max(min(30.0, pause), min(30.0, 0.5 * 2**attempt) * (0.5 + random.random())))
        raise EngineError(
            f"server gave no completion: {trouble}. Check base_urls and the server's log; what was sampled is stored"
        )

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
        """Close the connections."""
        self._client.close()


def _messages(request: Request) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in request.messages]


def _shown(text: str) -> str:
    """Return `text` without what must not be shown: the key, which a server may repeat, and a password in an address."""
    key = os.environ.get("CRESCENT_API_KEY")
    text = text.replace(key, "<key>") if key else text
    scheme, separator, rest = text.partition("://")
    if separator and "@" in rest.partition("/")[0]:
        text = f"{scheme}://{rest.partition('@')[2]}"
    return text[:300]


def _completion(answer: dict[str, Any]) -> Completion:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    finish = LENGTH if choice["finish_reason"] == "length" else STOP
    text = choice["message"]["content"] or ""
    return Completion(text, finish, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
