"""server: any OpenAI-compatible endpoint (`vllm serve`, also over several nodes), one or several base URLs.

The API key comes from the environment variable CRESCENT_API_KEY alone, so that it can reach no parameter file and no manifest.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from ..store import Completion
from . import EngineError, Job

_RETRIED = {408, 409, 429, 500, 502, 503, 504}


class ServerEngine:
    """Chat completions over HTTP, a bounded number at a time, with retries over all base URLs."""

    name = "server"
    guarantee = "the seed is sent with each request; what it guarantees is the server's to say"

    def __init__(
        self, base_urls: Sequence[str], model: str, *, concurrency: int = 64, retries: int = 6, timeout: float = 600
    ) -> None:
        """`base_urls` end on /v1; `model` is the name under which the server serves it; `timeout` is in seconds."""
        import httpx

        if not base_urls:
            raise EngineError("engine: server needs base_urls, for example base_urls: ['http://localhost:8000/v1']")
        key = os.environ.get("CRESCENT_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=concurrency)
        self._client: Any = httpx.Client(headers=headers, timeout=timeout, limits=limits)
        self._urls = [url.rstrip("/") for url in base_urls]
        self._model, self._concurrency, self._retries = model, concurrency, retries

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Send the jobs, spread over the servers; yield each as its answer comes."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = {pool.submit(self._one, index, job): index for index, job in enumerate(jobs)}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                for future in futures:
                    future.cancel()

    def _one(self, index: int, job: Job) -> Completion:
        import httpx

        trouble = ""
        for attempt in range(self._retries):
            url = self._urls[(index + attempt) % len(self._urls)]
            try:
                answer = self._client.post(f"{url}/chat/completions", json=self._body(job))
            except httpx.TransportError as error:
                trouble = f"{url}: {type(error).__name__}"
            else:
                if answer.status_code == 200:
                    with contextlib.suppress(ValueError, LookupError, TypeError):  # no JSON, or no completion in it
                        return _completion(answer.json())
                trouble = f"{url}: HTTP {answer.status_code}: {_shown(answer.text)}"
                if answer.status_code not in _RETRIED:
                    break
            if len(self._urls) <= attempt + 1 < self._retries:  # every server had its turn: wait, longer each time
                time.sleep(min(30.0, 0.5 * 2**attempt) * (0.5 + random.random()))
        raise EngineError(
            f"server gave no completion: {trouble}. Check base_urls and the server's log; what was sampled is stored"
        )

    def _body(self, job: Job) -> dict[str, Any]:
        request, sampling = job.request, job.request.sampling
        messages = [{"role": role, "content": content} for role, content in request.messages]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": job.seed,
        }
        if sampling.stop:
            body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
        if request.prefix:
            body["messages"] = [*messages, {"role": "assistant", "content": request.prefix}]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _shown(text: str) -> str:
    key = os.environ.get("CRESCENT_API_KEY")
    return (text.replace(key, "<key>") if key else text)[:300]  # a server may repeat the key that it refuses


def _completion(answer: dict[str, Any]) -> Completion:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    text = choice["message"]["content"] or ""
    return Completion(
        text, choice["finish_reason"] or "stop", usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    )
