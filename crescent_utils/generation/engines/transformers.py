"""transformers, in this process, on CPU, CUDA or Apple: length-sorted batches that share prompts and shrink.

Samples of one prompt read it once; a row that has ended leaves its batch, so that the rows that go on are not slowed by
it. Each row draws from a random stream of its own: a sample depends on its seed and not on its neighbours (up to
rounding of the logits: in float32 on CPU no difference was found). transformers' continuous batching (5.19) was
measured too: on two CPU cores it gave 0.91 to 1.04 of plain fixed batches, and it has one random stream for all
requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from ..store import LENGTH, STOP, Completion, Request, Sampling
from . import Job, Prompts, free_memory

SHRINK = 0.75  # ours: a batch shrinks when no more than this share of its rows still runs; that copies keys and values


class TransformersEngine:
    """A transformers model behind the `Engine` protocol."""

    name = "transformers"
    devices = 1

    def __init__(
        self, folder: Path | str, render: Callable[[Request], list[int]], *, dtype: str = "auto", batch_size: int = 64
    ) -> None:
        """Load the model in `folder`; `render(request)` gives the prompt's token ids."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._device = best_device()
        if dtype == "auto":
            dtype = _fast_dtype(self._device)
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, trust_remote_code=False)
        self._model.to(self._device).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._prompts = Prompts(render)
        self._batch_size = batch_size
        ends = self._model.generation_config.eos_token_id
        self._ends = set(ends) if isinstance(ends, list) else {ends}
        self.guarantee = (
            "seeded per sample; in float32 on CPU a completion does not depend on its batch"
            if self._device == "cpu" and self._model.dtype == torch.float32
            else "seeded per sample; the batch can change rounding and so, now and then, a completion"
        )

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Sort jobs by prompt length within equal settings, and run them in batches."""
        prompts: dict[int, list[int]] = {}
        for index, job in enumerate(jobs):
            ids = self._prompts.get(job.request)
            if isinstance(ids, Completion):
                yield index, ids
            else:
                prompts[index] = ids
        order = sorted(prompts, key=lambda i: (repr(jobs[i].request.sampling), len(prompts[i]), prompts[i]))
        for _, group in groupby(order, lambda i: jobs[i].request.sampling):
            while batch := list(islice(group, self._batch_size)):
                yield from self._run(batch, jobs, prompts)

    def _run(
        self, batch: list[int], jobs: Sequence[Job], prompts: dict[int, list[int]]
    ) -> Iterator[tuple[int, Completion]]:
        import torch

        sampling = jobs[batch[0]].request.sampling
        rows = [_Row(index, jobs[index].seed) for index in batch]
        logits, cache, mask = self._read([prompts[index] for index in batch])
        while True:
            chosen = choose(logits, sampling, [row.random.random() for row in rows])
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if not row.ended and self._ends_with(row, token, sampling):
                    row.ended = True
                    yield row.index, self._completion(row, sampling, len(prompts[row.index]))
            running = [place for place, row in enumerate(rows) if not row.ended]
            if not running:
                return
            if len(running) <= SHRINK * len(rows):
                rows, chosen, mask = [rows[i] for i in running], chosen[running], mask[running]
                cache.batch_select_indices(chosen.new_tensor(running))
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            logits, cache = self._forward(chosen[:, None], mask, cache)

    def _read(self, prompts: list[list[int]]) -> tuple[Any, Any, Any]:
        """Run each different prompt once; return the last logits, the cache and the mask, one row per prompt."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        different = sorted({tuple(prompt) for prompt in prompts})
        tokens = [torch.tensor(prompt, device=self._device) for prompt in different]
        ids = pad_sequence(tokens, batch_first=True, padding_side="left")
        mask = pad_sequence([torch.ones_like(prompt) for prompt in tokens], batch_first=True, padding_side="left")
        logits, cache = self._forward(ids, mask, None)
        place = {prompt: i for i, prompt in enumerate(different)}
        of_row = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=self._device)
        cache.batch_select_indices(of_row)
        return logits[of_row], cache, mask[of_row]

    def _forward(self, ids: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """Return the logits after each row's last token, and the cache. `mask` covers what the cache holds, too."""
        import torch

        with torch.inference_mode():
            out = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return out.logits[:, -1], out.past_key_values

    def _ends_with(self, row: _Row, token: int, sampling: Sampling) -> bool:
        """Take one more token; tell whether the row ends on it."""
        row.tokens.append(token)
        row.finish = STOP
        if token in self._ends:
            return True
        if sampling.stop:
            # A stop string of k characters lies within the last 4 k tokens: a token is one byte at least.
            tail = row.tokens[-4 * max(map(len, sampling.stop)) - 4 :]
            text = self._tokenizer.decode(tail, skip_special_tokens=True)
            if any(stop in text for stop in sampling.stop):
                return True
        row.finish = LENGTH
        return len(row.tokens) == sampling.max_tokens

    def _completion(self, row: _Row, sampling: Sampling, prompt_tokens: int) -> Completion:
        tokens = row.tokens[:-1] if row.tokens[-1] in self._ends else row.tokens
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        cut = [text.find(stop) + len(stop) for stop in sampling.stop if stop in text]
        return Completion(text[: min(cut)] if cut else text, row.finish, prompt_tokens, len(row.tokens))

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        free_memory()


class _Row:
    """One completion on its way: its own random stream and the tokens so far."""

    def __init__(self, index: int, seed: int) -> None:
        import numpy as np

        self.index = index
        self.tokens: list[int] = []
        self.finish, self.ended = LENGTH, False
        self.random = np.random.default_rng(seed)


def best_device() -> str:
    """Return "cuda", "mps" or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _fast_dtype(device: str) -> str:
    """Return what "auto" means: float32 on CPU, float16 on a GPU that only emulates bfloat16, else the model's own."""
    import torch

    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float16"
    return "float32" if device == "cpu" else "auto"


def choose(logits: Any, sampling: Sampling, draws: Sequence[float]) -> Any:
    """Pick one token for each row: the largest logit at temperature 0, else by the inverse distribution function.

    `logits` is (rows, vocabulary), `draws` one number in [0, 1) a row; returns token ids (rows). `top_p` keeps the
    smallest set of tokens whose probability reaches it. Ours: torch's own sampling has one random stream for a whole
    batch.
    """
    import torch

    if sampling.temperature == 0:
        return logits.argmax(-1)
    probability = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, order = probability.sort(dim=-1, descending=True, stable=True)
        kept = (ordered.cumsum(-1) - ordered) < sampling.top_p  # the first token is always kept
        probability = torch.zeros_like(probability).scatter(-1, order, ordered * kept)
    exact = torch.float32 if logits.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    cumulative = probability.cumsum(-1, dtype=exact)
    wanted = torch.tensor(draws, device=logits.device, dtype=exact)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
