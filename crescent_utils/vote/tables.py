"""Tables: from sampled paths to the rows that `03_vote` writes, kept beside rejected, nothing dropped between them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from .. import answers, benchmarks, generation, runs
from ..runs import Vote as VoteSettings
from . import formats, labels, majority

if TYPE_CHECKING:
    import pandas as pd

# Ours: questions asked before a token budget is looked at for the first time, and at most between two looks.
BUDGET_CHUNKS = 8, 64
COUNTS = ["agreement", "votes", "total", "margin", "entropy", "tied"]
QA_COLUMNS = ["id", "question", "answer", "path", *COUNTS, "gold", "correct"]
PATH_COLUMNS = ["question_id", "sample", "path", "answer", "won"]
REJECTED_COLUMNS = ["id", "question", *COUNTS, "reason"]


def sampled_paths(
    generator: generation.Generator, requests: Sequence[generation.Request], votes: int, budget: int = 0
) -> list[list[generation.Completion]]:
    """Sample `votes` paths for each request, in order, until they have cost `budget` completion tokens (0: no limit).

    A question is asked whole or not at all. The result may be shorter than `requests`; it costs hardly more than the
    budget, since only so many are asked at a time as the rest of it will probably pay.
    """
    if not budget:
        return generator.generate(requests, votes)
    completions: list[list[generation.Completion]] = []
    chunk = BUDGET_CHUNKS[0]
    while len(completions) < len(requests) and generator.cost.completion_tokens < budget:
        completions += generator.generate(requests[len(completions) : len(completions) + chunk], votes)
        spent = max(1, generator.cost.completion_tokens)
        chunk = min(BUDGET_CHUNKS[1], max(1, (budget - spent) * len(completions) // spent))
    return completions


def token_budget(settings: VoteSettings) -> int:
    """Return the tokens that the vote may cost (0: no limit): `token_budget`, or what 01 to 03 of `budget_of` took.

    Raises ParameterError where both are set, RunError where that run has not come to the end of its vote.
    """
    if not settings.budget_of:
        return settings.token_budget
    if settings.token_budget:
        raise runs.ParameterError(
            f"token_budget: {settings.token_budget} and budget_of: {settings.budget_of!r} contradict each other; "
            "set one of them"
        )
    folder = runs.run_folder(settings, settings.budget_of)
    spent = 0
    for stage in ("elicit", "dedup", "vote"):
        manifest = runs.read_manifest(folder, stage)
        if manifest is None:
            raise runs.RunError(
                f"budget_of: run {settings.budget_of!r} has no finished {stage}; finish it (crescent run … --to vote), "
                "or set token_budget"
            )
        spent += manifest["tokens"]["completion"]
    return spent


def known_golds(questions: pd.DataFrame, domain: runs.Domain) -> dict[int, str]:
    """Return the right answers that are known, by question id: the source's, or those of generated domains.

    They judge labels and never make one. A missing gold, which a table holds as None or as nan, is left out here, once
    for all.
    """
    if "gold" in questions:
        golds = list(questions["gold"])
    elif any(map(benchmarks.is_generated, domain.benchmarks)):
        golds = [benchmarks.arithmetic_gold(text) for text in questions["question"]]
    else:
        return {}
    return {number: gold for number, gold in zip(questions["id"], golds, strict=True) if isinstance(gold, str)}


def vote_tables(
    questions: pd.DataFrame,
    paths: Sequence[Sequence[str]],
    settings: VoteSettings,
    domain: runs.Domain,
    likelihoods: Sequence[Sequence[float]] | None = None,
    cut: Sequence[Sequence[bool]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Vote over the sampled `paths` of each of the `questions` (id, question); return `qa`, `paths` and `rejected`.

    `gold` and `correct` judge the label where the right answer is known; they never decide anything. `likelihoods`, one
    row per question, are for path_choice "most_likely". `cut` says of each path whether the token limit cut it: such a
    path counts in the total and cannot win, except in protocol `released`, and `paths` has a column `cut`. With
    `path_formats`, `qa` has one row per winning path and format, whose `prompt` is learned in the place of the
    question's.
    """
    import pandas as pd

    golds = known_golds(questions, domain)
    qa: list[dict[str, Any]] = []
    path_rows: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    scores: Sequence[Sequence[float] | None] = likelihoods or [None] * len(paths)
    cuts: Sequence[Sequence[bool]] = cut or [[False] * len(written) for written in paths]
    for number, text, written, likely, ends in zip(
        questions["id"], questions["question"], paths, scores, cuts, strict=True
    ):
        read = labels.read_voters(written, ends, settings.protocol, domain.answer_type)
        tie_seed = majority.tie_seed(settings.seed, number)
        result = _vote(read, settings, tie_seed)
        winners: list[int] = []
        question = {"id": number, "question": text, **_counts(result)}
        if result.answer is None:
            rejected.append({**question, "reason": result.reason})
        else:
            winners = majority.choose_path(written, read, result.answer, settings.path_choice, tie_seed, likely)
            gold = golds.get(number)
            correct = None if gold is None else answers.answers_equal(result.answer, gold)
            label = {**question, "answer": result.answer, "gold": gold, "correct": correct}
            for winner in winners:
                learned = learned_texts(text, written[winner], result.answer, settings.path_formats, domain)
                qa += [{**label, **part} for part in learned]
        for sample, (path, answer) in enumerate(zip(written, read, strict=True)):
            path_rows.append(
                {"question_id": number, "sample": sample, "path": path, "answer": answer, "won": sample in winners}
            )
    path_table = pd.DataFrame(path_rows, columns=PATH_COLUMNS)
    if cut is not None:
        path_table["cut"] = [is_cut for ends in cut for is_cut in ends]
    if likelihoods is not None:
        path_table["likelihood"] = [value for values in likelihoods for value in values]
    qa_columns = [*QA_COLUMNS, "format", "prompt"] if settings.path_formats else QA_COLUMNS
    return pd.DataFrame(qa, columns=qa_columns), path_table, pd.DataFrame(rejected, columns=REJECTED_COLUMNS)


def all_rejected(
    outvoted: pd.DataFrame, too_long: Collection[int], not_asked: pd.DataFrame, *left_out: pd.DataFrame
) -> pd.DataFrame:
    """Return every question that was not kept, one row each with its reason.

    `outvoted` are those that `vote_tables` rejected; of these the ids `too_long` had a prompt that did not fit.
    `not_asked` are those that the token budget left out. Tables of others come with a `reason` of their own: those that
    repeat a benchmark's item, those that serve as exemplars.
    """
    import pandas as pd

    outvoted = outvoted.copy()
    outvoted.loc[outvoted["id"].isin(too_long), "reason"] = generation.TOO_LONG
    not_asked = not_asked[["id", "question"]].assign(reason="token_budget")
    parts = [outvoted, not_asked, *(part[["id", "question", "reason"]] for part in left_out)]
    return pd.concat([part for part in parts if len(part)] or [outvoted], ignore_index=True)


def _counts(result: majority.Vote) -> dict[str, Any]:
    return {
        "agreement": round(result.agreement, 4),
        "votes": result.votes,
        "total": result.total,
        "margin": round(result.margin, 4),
        "entropy": round(result.entropy, 4),
        "tied": result.tied,
    }


def learned_texts(
    question: str, path: str, answer: str | None, path_formats: Collection[str], domain: runs.Domain
) -> list[dict[str, str]]:
    """Return what is learned from one path, as parts of rows: the path itself, or each of LMSI's `path_formats` of it.

    Keys: `path`, and with formats `format` and `prompt`. A path without a readable answer has no direct formats.
    """
    if not path_formats:
        return [{"path": path}]
    exemplars = domain.exemplars or runs.get_domain("math_word_problems").exemplars  # borrowed from the paper's domain
    return [
        text
        for text in formats.lmsi_formats(question, path, answer or "", exemplars)
        if text["format"] in path_formats and (answer is not None or text["path"] == path)
    ]


def _vote(read: Sequence[str | None], settings: VoteSettings, seed: int) -> majority.Vote:
    if settings.protocol == "released":
        return majority.majority_vote(read, ties="first", none_can_win=True)
    ties = "abstain" if settings.protocol == "strict" else "seeded"
    return majority.majority_vote(read, settings.min_agreement, ties=ties, seed=seed, min_margin=settings.min_margin)
