"""How likely the model itself finds each of its paths, for the vote's path_choice "most_likely" (ours).

The store keeps texts, no probabilities, and not every engine gives them. So the paths are read once more by the very
model, in transformers: a forward pass, far cheaper than sampling. The values stand in the table `vote/paths`, where a
replay finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import generation, runs
from ..generation import Request
from ..runs import Vote

BATCH_TOKENS = 8_192  # ours: padded tokens of a forward pass


def path_likelihoods(
    settings: Vote, model: generation.Model, requests: Sequence[Request], paths: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Return each path's mean log-probability per token (nats, temperature 1, without the end of turn), by request.

    A replay reads what the recorded run wrote. Raises RunError where there is nothing to read, or no weights (engine
    server).
    """
    if settings.engine == "replay":
        return _recorded(settings, paths)
    if settings.engine == "server":
        raise runs.RunError(
            "path_choice: most_likely needs the model's weights, which engine 'server' does not give; choose shortest, "
            "random, first or all, or another engine"
        )
    folder = model.locate()
    tokenizer = generation.load_tokenizer(folder)
    jobs = []
    for request, written in zip(requests, paths, strict=True):
        prompt = generation.prompt_token_ids(tokenizer, request)
        jobs += [(prompt, tokenizer(path, add_special_tokens=False)["input_ids"]) for path in written]
    values = iter(_scored(_load(folder, settings.dtype), jobs))
    return [[next(values) for _ in written] for written in paths]


def _recorded(settings: Vote, paths: Sequence[Sequence[str]]) -> list[list[float]]:
    table = runs.read_table(runs.run_folder(settings, settings.replay_from), "vote", "paths")
    if "likelihood" not in table or list(table["path"]) != [path for written in paths for path in written]:
        raise runs.RunError(
            f"path_choice: most_likely was not used in run {settings.replay_from!r}, so its paths have no likelihoods; "
            "choose engine: auto to compute them, or path_choice: shortest"
        )
    values = iter(table["likelihood"].astype(float))
    return [[next(values) for _ in written] for written in paths]


def _load(folder: Any, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from ..generation import best_device

    kind = "auto" if dtype == "auto" else getattr(torch, dtype)
    with generation.quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, trust_remote_code=False)
    return model.to(best_device()).eval()


def _scored(model: Any, jobs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """Score each (prompt, completion); those of about one length go through the model together."""
    values = [float("-inf")] * len(jobs)  # an empty path is no likely one; that of a prompt which is too long is empty
    order = sorted((i for i, (_, path) in enumerate(jobs) if path), key=lambda i: -sum(map(len, jobs[i])))
    start = 0
    while start < len(order):
        longest = sum(map(len, jobs[order[start]]))
        chunk = order[start : start + max(1, BATCH_TOKENS // max(1, longest))]
        for i, value in zip(chunk, _batch(model, [jobs[i] for i in chunk]), strict=True):
            values[i] = value
        start += len(chunk)
    return values


def _batch(model: Any, jobs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    import torch

    width = max(len(prompt) + len(path) for prompt, path in jobs)
    rows = [prompt + path + [0] * (width - len(prompt) - len(path)) for prompt, path in jobs]
    mask = [[1] * (len(prompt) + len(path)) + [0] * (width - len(prompt) - len(path)) for prompt, path in jobs]
    ids = torch.tensor(rows, device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.tensor(mask, device=model.device)).logits
    values = []
    for row, (prompt, path) in enumerate(jobs):
        places = torch.arange(len(prompt) - 1, len(prompt) + len(path) - 1, device=model.device)
        chosen = ids[row, places + 1].unsqueeze(1)
        scores = logits[row, places].float().log_softmax(-1).gather(1, chosen)
        values.append(float(scores.mean()))
    return values
