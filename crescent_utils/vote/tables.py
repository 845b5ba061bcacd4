"""Tables: the rows that `03_vote` writes, kept beside rejected, nothing dropped between them.

They join the pure rooms (answers, vote, benchmarks) with the samples of the generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import answers, benchmarks, generation, runs
from ..runs import Vote as VoteSettings
from . import formats, labels, majority

if TYPE_CHECKING:
    import pandas as pd

# Ours: questions asked before a token budget is looked at for the first time, and at most between two looks.
BUDGET_CHUNKS = 8, 64
QA_COLUMNS = [
    "id",
    "question",
    "answer",
    "path",
    "agreement",
    "votes",
    "total",
    "margin",
    "entropy",
    "tied",
    "gold",
    "correct",
]


def sampled_paths(
    generator: generation.Generator, requests: Sequence[generation.Request], votes: int, budget: int = 0
) -> list[list[generation.Completion]]:
    """Sample `votes` paths for each request, in order, until they have cost `budget` completion tokens (0: no limit).

    A question is asked whole or not at all; the result may be shorter than `requests`, and costs hardly more than the budget, since
    only so many are asked at a time as the rest will probably pay.
    """
    if not budget:
        return generator.generate(requests, votes)
    found: list[list[generation.Completion]] = []
    chunk = BUDGET_CHUNKS[0]
    while len(found) < len(requests) and generator.cost.completion_tokens < budget:
        found += generator.generate(requests[len(found) : len(found) + chunk], votes)
        spent = max(1, generator.cost.completion_tokens)
        chunk = min(BUDGET_CHUNKS[1], max(1, (budget - spent) * len(found) // spent))
    return found


def token_budget(settings: VoteSettings) -> int:
    """Return the completion tokens that the vote may cost: `token_budget`, or what 01 to 03 of the run `budget_of` took; 0: no limit.

    Raises ParameterError where both are set, RunError where that run has not come to the end of its vote.
    """
    if not settings.budget_of:
        return settings.token_budget
    if settings.token_budget:
        raise runs.ParameterError(
            f"token_budget: {settings.token_budget} and budget_of: {settings.budget_of!r} contradict each other; set one of them"
        )
    folder = runs.run_folder(settings, settings.budget_of)
    spent = 0
    for stage in ("elicit", "dedup", "vote"):
        manifest = runs.read_manifest(folder, stage)
        if manifest is None:
            raise runs.RunError(
                f"budget_of: run {settings.budget_of!r} has no finished {stage}; finish it (crescent run … --to vote), or set token_budget"
            )
        spent += manifest["tokens"]["completion"]
    return spent


def join_tables(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put rows of several causes into one table; an empty part adds nothing, not even a column."""
    import pandas as pd

    return pd.concat([part for part in parts if len(part)] or [parts[0]], ignore_index=True)


def vote_tables(
    ids: Sequence[int],
    texts: Sequence[str],
    paths: Sequence[Sequence[str]],
    settings: VoteSettings,
    domain_name: str,
    *,
    golds: Sequence[str | None] | None = None,
    likelihoods: Sequence[Sequence[float]] | None = None,
    kind: str = "number",
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Vote over the sampled `paths` of each question; return the tables `qa`, `paths` and `rejected`.

    `gold` and `correct` judge the label where `golds` are known, or the question states an arithmetic problem; they never
    decide anything. `likelihoods` (a row a question) are for path_choice "most_likely"; `kind` is the domain's answer_type
    ("choice" reads letters). With `path_formats`, `qa` has a row for each winning path and format, whose `prompt` is learned
    in the place of the question's.
    """
    import pandas as pd

    qa: list[dict[str, Any]] = []
    sampled, rejected = [], []
    known = golds or [benchmarks.arithmetic_gold(text) if domain_name == "arithmetic" else None for text in texts]
    scores: Sequence[Sequence[float] | None] = likelihoods or [None] * len(ids)
    for number, text, written, gold, likely in zip(ids, texts, paths, known, scores, strict=True):
        read = [_read(path, settings.protocol, kind) for path in written]
        seed = majority.tie_seed(settings.seed, number)
        result = _vote(read, settings, seed)
        form = result.answer
        won = (
            set()
            if form is None
            else set(majority.choose_path(written, read, form, settings.path_choice, seed, likely))
        )
        sampled += [
            {"question_id": number, "sample": sample, "path": path, "answer": answer, "won": sample in won}
            for sample, (path, answer) in enumerate(zip(written, read, strict=True))
        ]
        row = {"id": number, "question": text, **_counted(result)}
        if form is None:
            rejected.append({**row, "reason": result.reason or "no answer could be read"})
            continue
        row |= {"answer": form, "gold": gold, "correct": None if gold is None else answers.answers_equal(form, gold)}
        qa += [
            {**row, **learned} for sample in sorted(won) for learned in _targets(text, written[sample], form, settings)
        ]
    table = pd.DataFrame(sampled, columns=["question_id", "sample", "path", "answer", "won"])
    if likelihoods is not None:
        table["likelihood"] = [value for values in likelihoods for value in values]
    reject_columns = ["id", "question", "agreement", "votes", "total", "margin", "entropy", "tied", "reason"]
    return (
        pd.DataFrame(qa, columns=[*QA_COLUMNS, *(["format", "prompt"] if settings.path_formats else [])]),
        table,
        pd.DataFrame(rejected, columns=reject_columns),
    )


def _counted(result: majority.Vote) -> dict[str, Any]:
    return {
        "agreement": round(result.agreement, 4),
        "votes": result.votes,
        "total": result.total,
        "margin": round(result.margin, 4),
        "entropy": round(result.entropy, 4),
        "tied": result.tied,
    }


def _targets(question: str, path: str, answer: str, settings: VoteSettings) -> list[dict[str, str]]:
    """What is learned from one winning path: the path itself, or each of LMSI's formats that was asked for."""
    if not settings.path_formats:
        return [{"path": path}]
    made = formats.lmsi_formats(question, path, answer, _exemplars(settings.domain))
    return [
        {"path": text.completion, "format": text.format, "prompt": text.prompt}
        for text in made
        if text.format in settings.path_formats
    ]


def _exemplars(domain_name: str) -> Sequence[runs.Exemplar]:
    """Return the domain's worked examples; a domain that has none borrows those of the paper's."""
    return runs.get_domain(domain_name).exemplars or runs.get_domain("math_word_problems").exemplars


def _read(path: str, protocol: str, kind: str) -> str | None:
    released = protocol == "released" and kind == "number"  # the released code reads numbers alone
    return labels.read_as_released(path) if released else answers.extract_answer(path, kind)


def _vote(read: Sequence[str | None], settings: VoteSettings, seed: int) -> majority.Vote:
    if settings.protocol == "released":
        return majority.majority_vote(read, ties="first", none_can_win=True)
    ties = "abstain" if settings.protocol == "strict" else "seeded"
    return majority.majority_vote(read, settings.min_agreement, ties=ties, seed=seed, min_margin=settings.min_margin)
