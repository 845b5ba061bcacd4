"""Tables: the rows that the stages write, kept beside rejected, nothing dropped between them.

These join the pure rooms (questions, vote, benchmarks) with the samples of the generator; each notebook calls one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import answers, benchmarks, questions, vote
from .params import Vote as VoteSettings

if TYPE_CHECKING:
    import pandas as pd

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


def elicited(
    texts: Sequence[str], baits: Sequence[int], prefixes: Sequence[str], gates: dict[str, Any], protocol: str = "paper"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn raw completions (prefix included) into the tables `questions` and `rejected`; their lengths add up to len(texts).

    With protocol "released" the authors' cleaner takes the place of ours, and an empty string is its only rejection.
    """
    import pandas as pd

    kept, rejected = [], []
    for number, (text, bait, prefix) in enumerate(zip(texts, baits, prefixes, strict=True)):
        result = _read_question(text, gates, protocol)
        row = {"id": number, "bait": bait, "prefix": prefix}
        if isinstance(result, questions.Question):
            kept.append({**row, "question": result.text})
        else:
            rejected.append({**row, "text": text, "reason": result.reason})
    columns = ["id", "question", "bait", "prefix"]
    return pd.DataFrame(kept, columns=columns), pd.DataFrame(
        rejected, columns=["id", "text", "bait", "prefix", "reason"]
    )


def _read_question(text: str, gates: dict[str, Any], protocol: str) -> questions.Question | questions.Rejected:
    if protocol != "released":
        return questions.extract_question(text, **gates)
    cleaned = questions.released_clean(text)
    return questions.Question(cleaned) if cleaned else questions.Rejected("empty", text)


def is_question(text: str, gates: dict[str, Any], protocol: str = "paper") -> bool:
    """Tell whether `elicited` would keep a completion (prefix included)."""
    return isinstance(_read_question(text, gates, protocol), questions.Question)


def decontaminated(
    table: pd.DataFrame, held: Sequence[benchmarks.Benchmark], remove: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split `table` into questions and those that repeat a benchmark's item (`remove` False: lists them and keeps all)."""
    hits = benchmarks.overlaps(list(table["question"]), held)
    table = table.assign(benchmark=hits)
    found = table[table["benchmark"] != ""]
    kept = table[table["benchmark"] == ""] if remove else table
    return kept.drop(columns="benchmark").reset_index(drop=True), found.reset_index(drop=True)


def voted(
    ids: Sequence[int], texts: Sequence[str], paths: Sequence[Sequence[str]], settings: VoteSettings, domain_name: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Vote over the sampled `paths` of each question; return the tables `qa`, `paths` and `rejected`.

    Where the question states an arithmetic problem, `gold` and `correct` judge the label; they never decide anything.
    """
    import pandas as pd

    qa, sampled, rejected = [], [], []
    for number, text, written in zip(ids, texts, paths, strict=True):
        read = [_read(path, settings.protocol) for path in written]
        result = _vote(read, settings, seed=settings.seed * 1_000_003 + number)
        won = set()
        if result.answer is not None:
            won = set(
                vote.choose_path(written, read, result.answer, settings.path_choice, settings.seed * 1_000_003 + number)
            )
        form = result.answer
        row = {
            "id": number,
            "question": text,
            "agreement": round(result.agreement, 4),
            "votes": result.votes,
            "total": result.total,
            "margin": round(result.margin, 4),
            "entropy": round(result.entropy, 4),
            "tied": result.tied,
        }
        gold = benchmarks.arithmetic_gold(text) if domain_name == "arithmetic" else None
        if form is None:
            rejected.append({**row, "reason": result.reason or "no answer could be read"})
        for sample, (path, answer) in enumerate(zip(written, read, strict=True)):
            sampled.append(
                {"question_id": number, "sample": sample, "path": path, "answer": answer, "won": sample in won}
            )
            if sample in won:
                correct = None if gold is None or form is None else answers.answers_equal(form, gold)
                qa.append({**row, "answer": form, "path": path, "gold": gold, "correct": correct})
    reject_columns = ["id", "question", "agreement", "votes", "total", "margin", "entropy", "tied", "reason"]
    return (
        pd.DataFrame(qa, columns=QA_COLUMNS),
        pd.DataFrame(sampled, columns=["question_id", "sample", "path", "answer", "won"]),
        pd.DataFrame(rejected, columns=reject_columns),
    )


def _read(path: str, protocol: str) -> str | None:
    if protocol == "released":
        number = answers.released_answer(path)
        return None if number is None else answers.normal_form(repr(number))
    return answers.extract_answer(path)


def _vote(read: Sequence[str | None], settings: VoteSettings, seed: int) -> vote.Vote:
    if settings.protocol == "released":
        return vote.majority_vote(read, ties="first", none_can_win=True)
    ties = "abstain" if settings.protocol == "strict" else "seeded"
    return vote.majority_vote(read, settings.min_agreement, ties=ties, seed=seed)


def label_accuracy(qa: pd.DataFrame) -> pd.DataFrame:
    """Share of right labels among those with at least so many votes, with n: what a higher threshold would buy."""
    import pandas as pd

    known = qa.dropna(subset=["correct"]).drop_duplicates("id")
    rows = []
    for votes in sorted(known["votes"].unique()):
        part = known[known["votes"] >= votes]
        rows.append(
            {
                "votes >=": int(votes),
                "questions": len(part),
                "labels right": round(float(part["correct"].astype(bool).mean()), 3),
            }
        )
    return pd.DataFrame(rows, columns=["votes >=", "questions", "labels right"])
