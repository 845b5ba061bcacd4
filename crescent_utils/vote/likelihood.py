"""How likely the model itself finds each of its paths, and the answer after the path.

The store keeps texts, no probabilities, and not every engine gives them. So the paths are read once more by the very
model, in transformers: a forward pass, far cheaper than sampling, since the paths of a question share its prompt.
`path_likelihoods` is for the vote's path_choice "most_likely" (ours); its values stand in the table `vote/paths`, where
a replay finds them. `verifier_likelihoods` is for a preflight, which takes them for verifiers; its values stand in the
generation store.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

from .. import answers, generation, runs
from ..generation import Completion, Job, Request, Sampling
from ..runs import Vote

BATCH_TOKENS = 8_192  # ours: tokens that the rows of a forward pass attend to, padding included
PATHS_TOGETHER = 48  # ours: paths whose prompts are read together; progress is seen, and stored, after so many
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
    scores = dict(_token_scores(_load(folder, settings.dtype), jobs))
    # An empty path is no likely one; that of a prompt which is too long is empty.
    values = iter([math.fsum(scores[i]) / len(scores[i]) if scores[i] else -math.inf for i in range(len(jobs))])
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
    with generation.Generator(store, model, settings.seed, start, progress="likelihoods") as scorer:
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
        self._prompt_ids = lru_cache(maxsize=1)(self._rendered)  # the paths of a question come one after another

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Score every job."""
        prepared = [self._prepared(job.request) for job in jobs]
        for i, of_path in _token_scores(self._model, [(prompt, ids) for prompt, ids, _ in prepared]):
            is_answer = prepared[i][2]
            answer = math.fsum(p for p, counts in zip(of_path, is_answer, strict=True) if counts)
            text = json.dumps([math.fsum(of_path), answer if any(is_answer) else None])
            yield i, Completion(text, "scored", 0, 0)

    def _prepared(self, request: Request) -> tuple[list[int], list[int], list[bool]]:
        """Return the prompt's tokens, the path's, and which of the path's are the answer's."""
        *chat, (_, path), (_, place) = request.messages
        question = Request(request.model, tuple(chat), request.prefix, request.sampling)
        written = self._tokenizer(path, add_special_tokens=False, return_offsets_mapping=True)
        first, last = json.loads(place) or (0, 0)
        is_answer = [start < last and end > first for start, end in written["offset_mapping"]]
        return self._prompt_ids(question), written["input_ids"], is_answer

    def _rendered(self, question: Request) -> list[int]:
        return generation.prompt_token_ids(self._tokenizer, question)

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


# --- forward passes ---------------------------------------------------------------------------------------------------

Tokens = tuple[int, ...]


def _token_scores(model: Any, jobs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[tuple[int, list[float]]]:
    """Yield the number of each (prompt, path) with log p of each token of the path, as soon as it is known.

    Keys and values are kept, so that what all prompts begin with is read once, and the rest of a prompt once for all
    its paths. No prompt is padded: every token sees what it sees in a forward pass by itself, up to rounding.
    """
    numbers: dict[Tokens, dict[Tokens, list[int]]] = {}  # of the jobs, by prompt and path: a path may be there twice
    for number, (prompt, path) in enumerate(jobs):
        if path:
            numbers.setdefault(tuple(prompt), {}).setdefault(tuple(path), []).append(number)
        else:
            yield number, []
    # A prompt's last token is read with its paths: what it predicts is their first token.
    start = tuple(os.path.commonprefix([prompt[:-1] for prompt in numbers]))
    cache_of_start = _read(model, [start], None)
    for prompts in _read_together(numbers):
        cache = _read(model, [prompt[len(start) : -1] for prompt in prompts], cache_of_start)
        paths = [(row, path) for row, prompt in enumerate(prompts) for path in numbers[prompt]]
        for batch in _batches(paths, len(prompts[0])):
            rows = [(prompts[row][-1], path) for row, path in batch]
            scores = _path_scores(model, rows, _rows_of(cache, [row for row, _ in batch]))
            for (row, path), of_path in zip(batch, scores, strict=True):
                for number in numbers[prompts[row]][path]:
                    yield number, of_path


def _read_together(paths: dict[Tokens, Any]) -> Iterator[list[Tokens]]:
    """Yield prompts of equal length, the longest ones first, that have about PATHS_TOGETHER paths in all."""
    for _, prompts in groupby(sorted(paths, key=len, reverse=True), len):
        group: list[Tokens] = []
        for prompt in prompts:
            if group and sum(len(paths[other]) for other in [*group, prompt]) > PATHS_TOGETHER:
                yield group
                group = []
            group.append(prompt)
        yield group


def _batches(paths: Iterable[tuple[int, Tokens]], prompt_tokens: int) -> Iterator[list[tuple[int, Tokens]]]:
    """Yield the paths, each with its prompt's number, in batches of like length: none is half padding."""
    batch: list[tuple[int, Tokens]] = []
    for row, path in sorted(paths, key=lambda one: -len(one[1])):
        longest = len(batch[0][1]) if batch else len(path)
        is_full = (len(batch) + 1) * (prompt_tokens + longest) > BATCH_TOKENS
        if batch and (is_full or 2 * len(path) < longest):
            yield batch
            batch = []
        batch.append((row, path))
    if batch:
        yield batch


def _rows_of(cache: Any, rows: Sequence[int]) -> Any:
    """Return a copy of these rows of the cache, in this order; None where nothing is cached."""
    import torch

    if cache is None:
        return None
    copied = copy.deepcopy(cache)
    copied.reorder_cache(torch.tensor(rows))
    return copied


def _read(model: Any, rows: Sequence[Tokens], cache: Any) -> Any:
    """Return the keys and values of `rows`, which have equal length, after the one row of `cache`, which stays so."""
    import torch

    if not rows[0]:
        return _rows_of(cache, [0] * len(rows))
    with torch.inference_mode():
        ids = torch.tensor(rows, device=model.device)
        before = _rows_of(cache, [0] * len(rows))
        return model(input_ids=ids, past_key_values=before, use_cache=True, logits_to_keep=1).past_key_values


def _path_scores(model: Any, rows: Sequence[tuple[int, Tokens]], cache: Any) -> list[list[float]]:
    """Return log p of each token of each path; `rows` are (the prompt's last token, path), `cache` what is before."""
    import torch

    width = max(len(path) for _, path in rows)
    ids = [[last, *path[:-1], *[0] * (width - len(path))] for last, path in rows]  # nothing looks at what follows it
    values = []
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(ids, device=model.device), past_key_values=cache).logits
        for of_row, (_, path) in zip(logits, rows, strict=True):
            chosen = torch.tensor(path, device=model.device).unsqueeze(1)
            values.append(of_row[: len(path)].float().log_softmax(-1).gather(1, chosen)[:, 0].tolist())
    return values
