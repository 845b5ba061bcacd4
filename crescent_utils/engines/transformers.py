"""transformers, in this process: length-sorted batches, on CPU, CUDA or Apple.

Each row of a batch draws from a random stream of its own, so that a sample depends on its seed and not on its neighbours
(up to rounding of the logits: in float32 on CPU no difference was found).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..store import Completion, Sampling
from . import Job


class TransformersEngine:
    """`model.generate` behind the `Engine` protocol."""

    name = "transformers"

    def __init__(
        self, folder: Path | str, render: Any, *, dtype: str = "auto", batch_size: int = 32, model: Any = None
    ) -> None:
        """Load the model in `folder` (or take a loaded `model`); `render(request) -> list[int]` gives token ids."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._device = best_device()
        if dtype == "auto":
            dtype = "float32" if self._device == "cpu" else "auto"
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        self._model: Any = model or AutoModelForCausalLM.from_pretrained(folder, dtype=kind, trust_remote_code=False)
        self._model.to(self._device).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._render = render
        self._batch_size = batch_size
        self.guarantee = "seeded per sample; in float32 on CPU a completion does not depend on its batch"

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Sort jobs by prompt length within equal settings, and run them in batches."""
        prompts = [self._render(job.request) for job in jobs]
        order = sorted(range(len(jobs)), key=lambda i: (repr(jobs[i].request.sampling), len(prompts[i])))
        batch: list[int] = []
        for index in order:
            if batch and (
                len(batch) == self._batch_size or jobs[batch[0]].request.sampling != jobs[index].request.sampling
            ):
                yield from self._run(batch, jobs, prompts)
                batch = []
            batch.append(index)
        if batch:
            yield from self._run(batch, jobs, prompts)

    def _run(self, batch: list[int], jobs: Sequence[Job], prompts: list[list[int]]) -> Iterator[tuple[int, Completion]]:
        import torch
        from transformers import LogitsProcessorList

        sampling = jobs[batch[0]].request.sampling
        width = max(len(prompts[i]) for i in batch)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (width - len(prompts[i])) + prompts[i] for i in batch], device=self._device)
        mask = torch.tensor(
            [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch], device=self._device
        )
        processors = LogitsProcessorList()
        if sampling.temperature > 0:
            processors.append(_seeded_choice(sampling, [jobs[i].seed for i in batch], width))
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=sampling.max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=processors,
                pad_token_id=pad,
                stop_strings=list(sampling.stop) or None,
                tokenizer=self._tokenizer if sampling.stop else None,
            )
        for row, index in enumerate(batch):
            yield index, self._completion(out[row, width:].tolist(), sampling, len(prompts[index]))

    def _completion(self, tokens: list[int], sampling: Sampling, prompt_tokens: int) -> Completion:
        ends = self._model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        length = next((i for i, token in enumerate(tokens) if token in ends), None)
        stopped = length is not None
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        cut = [text.find(stop) + len(stop) for stop in sampling.stop if stop in text]
        if cut:
            text, stopped = text[: min(cut)], True
        return Completion(
            text, "stop" if stopped else "length", prompt_tokens, len(tokens) if length is None else length + 1
        )

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def best_device() -> str:
    """Return "cuda", "mps" or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _seeded_choice(sampling: Sampling, seeds: list[int], width: int) -> Any:
    """Return a logits processor that picks one token a row by inverse-CDF sampling and leaves only that one possible.

    Greedy search over its output is then seeded sampling, row by row: `generate` itself has one generator for a whole batch.
    `width` is the prompt's length in tokens, so that the step's number is the number of tokens drawn.
    """
    import numpy as np
    import torch
    from transformers import LogitsProcessor

    draws = np.stack([np.random.default_rng(seed).random(sampling.max_tokens) for seed in seeds])

    class SeededChoice(LogitsProcessor):  # type: ignore[misc, unused-ignore]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            step = input_ids.shape[1] - width
            probabilities = torch.softmax(scores.double() / sampling.temperature, dim=-1)
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            cumulative = ordered.cumsum(dim=-1)
            if sampling.top_p < 1:
                kept = (cumulative - ordered) < sampling.top_p  # the first token is always kept
                cumulative = (ordered * kept).cumsum(dim=-1)
            wanted = torch.tensor(draws[:, step], device=scores.device)[:, None] * cumulative[:, -1:]
            place = torch.searchsorted(cumulative, wanted, right=True).clamp(max=scores.shape[-1] - 1)
            chosen = order.gather(1, place)
            return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)

    return SeededChoice()
