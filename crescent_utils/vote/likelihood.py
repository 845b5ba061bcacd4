"""How likely the model itself finds each of its paths, and the answer after the path.

The store keeps texts, no probabilities, and not every engine gives them. So the paths are read once more by the very
model, in transformers: a forward pass, far cheaper than sampling. `path_likelihoods` is for the vote's path_choice
"most_likely" (ours); its values stand in the table `vote/paths`, where a replay finds them. `verifier_likelihoods` is
for a preflight, which takes them for verifiers; its values stand in the generation store.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .. import answers, generation, runs
from ..generation import Completion, Job, Request, Sampling
from ..runs import Vote

BATCH_TOKENS = 8_192  # ours: padded tokens of a forward pass
CHUNK = 512  # ours: paths between two visits to the store; a kill loses so many
SCORED = Sampling(0.0, 1.0, 0)  # nothing is drawn
_WRITTEN = re.compile(r"[-+]?\$?\d(?:[\d,]*\d)?(?:\.\d+)?(?:/\d+)?%?|\b[A-Z]\b")  # a number, or the letter of a choice


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
    scores = _token_scores(_load(folder, settings.dtype), jobs)
    # An empty path is no likely one; that of a prompt which is too long is empty.
    values = iter([math.fsum(of_path) / len(of_path) if of_path else -math.inf for of_path in scores])
    return [[next(values) for _ in written] for written in paths]


def verifier_likelihoods(
    settings: Vote,
    model: generation.Model,
    requests: Sequence[Request],
    paths: Sequence[Sequence[str]],
    read: Sequence[Sequence[str | None]],
) -> list[list[tuple[float, float]]]:
    """Return log p(path) and log p(answer | question and path up to it) of each path, by request, in nats.

    `read` are the answers in normal form. They stand in the run's store as completions of requests that end with the
    roles `continuation` and `answer`, so that nothing is computed twice. nan where the path is empty or the answer does
    not stand in it as it was read; all are nan with engine server, which has no weights, and in a replay of a run that
    did not compute them.
    """
    unknown = [[(math.nan, math.nan)] * len(written) for written in paths]
    if settings.engine == "server":
        return unknown
    is_replay = settings.engine == "replay"
    folder = runs.run_folder(settings, settings.replay_from if is_replay else None)
    store = generation.GenerationStore(folder / generation.STORE_NAME, read_only=is_replay)
    start = None if is_replay else lambda: PathScorer(model, settings.dtype)
    with generation.Generator(store, model, settings.seed, start, progress=True) as scorer:
        pairs = [
            (_scored_request(scorer, request, path, answer_span(path, answer)), 0)
            for request, written, path_answers in zip(requests, paths, read, strict=True)
            for path, answer in zip(written, path_answers, strict=True)
            if path
        ]
        done = scorer.stored(pairs) if is_replay else list(scorer.complete(pairs))
    values = iter([_read_score(completion) for completion in done])
    return [[next(values) if path else (math.nan, math.nan) for path in written] for written in paths]


def answer_span(path: str, answer: str | None) -> tuple[int, int] | None:
    """Return where the answer (in normal form) was last written in the path; None where it is not found."""
    if answer is None:
        return None
    spans = [m.span() for m in _WRITTEN.finditer(path) if answers.normal_form(m.group()) == answer]
    if spans:
        return spans[-1]
    start = path.rfind(answer)
    return (start, start + len(answer)) if start >= 0 else None


def _scored_request(scorer: generation.Generator, request: Request, path: str, span: tuple[int, int] | None) -> Request:
    chat = [{"role": role, "content": content} for role, content in request.messages]
    place = json.dumps(span)  # "null" where the answer was not found
    ends = [{"role": "continuation", "content": path}, {"role": "answer", "content": place}]
    return scorer.request([*chat, *ends], SCORED, request.prefix)


def _read_score(completion: Completion | None) -> tuple[float, float]:
    if completion is None:
        return math.nan, math.nan
    path, answer = json.loads(completion.text)
    return float(path), math.nan if answer is None else float(answer)


class PathScorer:
    """An engine whose "completion" says how likely a path and its answer are, as JSON: [log p, log p or null]."""

    name, devices = "transformers", 1
    guarantee = "a log-likelihood depends on its batch by rounding alone"

    def __init__(self, model: generation.Model, dtype: str) -> None:
        folder = model.locate()
        self._tokenizer, self._model = generation.load_tokenizer(folder), _load(folder, dtype)

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Score every job."""
        for start in range(0, len(jobs), CHUNK):
            chunk = [self._prepared(job.request) for job in jobs[start : start + CHUNK]]
            scores = _token_scores(self._model, [(prompt, ids) for prompt, ids, _ in chunk])
            for i, ((_, _, is_answer), of_path) in enumerate(zip(chunk, scores, strict=True)):
                answer = math.fsum(p for p, counts in zip(of_path, is_answer, strict=True) if counts)
                text = json.dumps([math.fsum(of_path), answer if any(is_answer) else None])
                yield start + i, Completion(text, "scored", 0, 0)

    def _prepared(self, request: Request) -> tuple[list[int], list[int], list[bool]]:
        """Return the prompt's tokens, the path's, and which of the path's are the answer's."""
        *chat, (_, path), (_, place) = request.messages
        question = Request(request.model, tuple(chat), request.prefix, request.sampling)
        written = self._tokenizer(path, add_special_tokens=False, return_offsets_mapping=True)
        first, last = json.loads(place) or (0, 0)
        is_answer = [start < last and end > first for start, end in written["offset_mapping"]]
        return generation.prompt_token_ids(self._tokenizer, question), written["input_ids"], is_answer

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


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


def _token_scores(model: Any, jobs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
    """Return log p of each token of each (prompt, path); those of about one length go through the model together."""
    scores: list[list[float]] = [[] for _ in jobs]
    order = sorted((i for i, (_, path) in enumerate(jobs) if path), key=lambda i: -sum(map(len, jobs[i])))
    start = 0
    while start < len(order):
        longest = sum(map(len, jobs[order[start]]))
        chunk = order[start : start + max(1, BATCH_TOKENS // max(1, longest))]
        for i, of_path in zip(chunk, _batch(model, [jobs[i] for i in chunk]), strict=True):
            scores[i] = of_path
        start += len(chunk)
    return scores


def _batch(model: Any, jobs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
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
        values.append(logits[row, places].float().log_softmax(-1).gather(1, chosen)[:, 0].tolist())
    return values
