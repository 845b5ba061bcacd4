"""Exemplars: the worked examples that stand before each question of the vote, by hand or the model's own.

LMSI (Huang et al., 2022, section 3.1) samples its paths with few-shot chains of thought that people wrote. A model can
write them itself: it first answers some of the run's questions zero-shot, and the questions whose complete paths agreed
most become its exemplars, without anybody knowing whether they are right. Auto-CoT (Zhang et al., 2022, arXiv
2210.03493) is the nearest in the literature: there, too, the model writes the chains, and clusters of the questions'
embeddings make the choice diverse. To choose by agreement, and one question of each form, is ours.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import answers, benchmarks, generation, runs
from ..generation import Completion, Generator, Sampling
from ..runs import Domain, Exemplar
from ..runs import Vote as VoteSettings
from . import labels, majority, tables

if TYPE_CHECKING:
    import pandas as pd

    from .majority import Vote

SERVES = "serves as an exemplar"  # why a question is not voted on
EXEMPLAR_COLUMNS = ["id", "question", "path", "answer", "agreement", "votes", "total", "gold", "correct"]
ZERO_SHOT_COLUMNS = ["question_id", "sample", "path", "answer", "kept", "reason"]


@dataclass(frozen=True)
class WorkedExamples:
    """The `exemplars` in the order of the prompt, the `questions` to vote on with them, and those `left_out` of it.

    `table` has one row per exemplar. Where the model made them itself, `zero_shot` has one row per path that it sampled
    for this, kept or with a reason, and `counts` their numbers for the manifest.
    """

    exemplars: list[Exemplar]
    table: pd.DataFrame
    questions: pd.DataFrame
    left_out: pd.DataFrame
    zero_shot: pd.DataFrame
    counts: dict[str, int]


def worked_examples(
    generator: Generator, questions: pd.DataFrame, settings: VoteSettings, domain: Domain
) -> WorkedExamples:
    """Return the exemplars that `vote_shots` asks for; "own" samples a zero-shot vote for them.

    A question that an exemplar asks is not voted on: with its own answer in the prompt its paths would agree by
    copying, and without this exemplar it would be asked otherwise than all others. Raises ParameterError where the
    domain has no exemplars, RunError where the model has made none.
    """
    if settings.vote_shots == "own":
        return _own_examples(generator, questions, settings, domain)
    import pandas as pd

    exemplars = _by_hand(domain) if settings.vote_shots == "exemplars" else []
    table = pd.DataFrame([exemplar.model_dump() for exemplar in exemplars], columns=["question", "path", "answer"])
    rest, left_out = _without(questions, exemplars)
    return WorkedExamples(exemplars, table, rest, left_out, pd.DataFrame(columns=ZERO_SHOT_COLUMNS), {})


def recorded_exemplars(settings: VoteSettings, domain: Domain, run: Path) -> list[Exemplar]:
    """Return the exemplars with which the run in folder `run` was asked, whose vote had these `settings`.

    Raises RunError where it should have made its own and its table is not there.
    """
    if settings.vote_shots == "own":
        return runs.own_exemplars(run)
    return _by_hand(domain) if settings.vote_shots == "exemplars" else []


def _by_hand(domain: Domain) -> list[Exemplar]:
    if not domain.exemplars:
        raise runs.ParameterError(
            f"vote_shots: 'exemplars', but domain {domain.name!r} has none; write some into its file, or set "
            "vote_shots: own, or none"
        )
    return list(domain.exemplars)


def _own_examples(
    generator: Generator, questions: pd.DataFrame, settings: VoteSettings, domain: Domain
) -> WorkedExamples:
    candidates = drawn_questions(questions, settings.own_questions, settings.seed)
    sampling = Sampling(settings.vote_temperature, settings.vote_top_p, settings.vote_max_tokens)
    requests = [
        generator.request(runs.solve_messages(domain, text, settings.system_prompt), sampling)
        for text in candidates["question"]
    ]
    completions = generator.generate(requests, settings.votes)
    read = [_read_complete(row, settings, domain) for row in completions]
    results = [majority.majority_vote(row, ties="abstain") for row in read]
    forms = [question_form(text) for text in candidates["question"]]
    agreements = [None if result.answer is None else result.agreement for result in results]
    places = chosen_examples(forms, agreements, settings.own_shots)
    if not places:
        raise runs.RunError(
            f"vote_shots: 'own', but for none of {len(candidates)} questions more complete paths agree on one answer "
            "than on any other; raise vote_max_tokens, votes or own_questions, or set vote_shots: none"
        )
    chosen = {i: _shortest_winner(completions[i], read[i], results[i]) for i in places}
    table = _exemplar_table(candidates, completions, results, chosen, tables.known_golds(candidates, domain))
    zero_shot = _zero_shot_table(list(candidates["id"]), completions, read, results, chosen)
    exemplars = [Exemplar(question=row.question, path=row.path, answer=row.answer) for row in table.itertuples()]
    rest, left_out = _without(questions, exemplars)
    return WorkedExamples(exemplars, table, rest, left_out, zero_shot, _path_counts(zero_shot))


def _without(questions: pd.DataFrame, exemplars: Sequence[Exemplar]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split `questions` into those to vote on and those that an exemplar asks, the latter with a reason."""
    keys = {benchmarks.overlap_key(exemplar.question) for exemplar in exemplars}
    serves = questions["question"].map(benchmarks.overlap_key).isin(keys)
    left_out = questions.loc[serves, ["id", "question"]].assign(reason=SERVES)
    return questions[~serves].reset_index(drop=True), left_out.reset_index(drop=True)


def drawn_questions(questions: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return `count` of the questions, drawn by the run's `seed`, in their order; all where there are no more."""
    places = range(len(questions))
    return questions.iloc[sorted(random.Random(f"own exemplars {seed}").sample(places, min(count, len(questions))))]


def question_form(question: str) -> str:
    """Return the question with its numbers taken out: "What is 3 + 4?" and "what is 12+5?" are "what is N + N ?"."""
    return " ".join(re.sub(r"\d+(?:[.,]\d+)*", " N ", question.casefold()).split())


def chosen_examples(forms: Sequence[str], agreements: Sequence[float | None], shots: int) -> list[int]:
    """Return which questions become exemplars, by place, in the order of the prompt: at most `shots`, one of each form.

    The most common forms come first, each with its question of the highest agreement; of equals the earlier one. So
    where every form is unique, it is the questions of the highest agreement. A question whose agreement is None has no
    label and cannot serve.
    """
    frequency, pairs = Counter(forms), zip(forms, agreements, strict=True)
    candidates = [(-frequency[form], -share, i) for i, (form, share) in enumerate(pairs) if share]
    best: dict[str, int] = {}
    for _, _, i in sorted(candidates):
        best.setdefault(forms[i], i)
    return list(best.values())[:shots]


def _read_complete(paths: Sequence[Completion], settings: VoteSettings, domain: Domain) -> list[str | None]:
    """Return the paths' answers; None for those that the token limit cut, in protocol `released` too."""
    read = [labels.read_path(path.text, settings.protocol, domain.answer_type) for path in paths]
    return [None if path.truncated else answer for path, answer in zip(paths, read, strict=True)]


def _shortest_winner(paths: Sequence[Completion], read: Sequence[str | None], result: Vote) -> int:
    (sample,) = majority.choose_path([path.text for path in paths], read, str(result.answer), "shortest")
    return sample


def _exemplar_table(
    candidates: pd.DataFrame,
    completions: Sequence[Sequence[Completion]],
    results: Sequence[Vote],
    chosen: dict[int, int],
    golds: dict[int, str],
) -> pd.DataFrame:
    """Return one row per exemplar; `chosen` maps the place of its question to the sample that serves."""
    import pandas as pd

    ids, texts = list(candidates["id"]), list(candidates["question"])
    rows: list[list[Any]] = []
    for i, sample in chosen.items():
        result, gold = results[i], golds.get(ids[i])
        correct = None if gold is None else answers.answers_equal(str(result.answer), gold)
        counts = [round(result.agreement, 4), result.votes, result.total]
        rows.append([ids[i], texts[i], completions[i][sample].text, result.answer, *counts, gold, correct])
    return pd.DataFrame(rows, columns=EXEMPLAR_COLUMNS)


def _zero_shot_table(
    ids: Sequence[int],
    completions: Sequence[Sequence[Completion]],
    read: Sequence[Sequence[str | None]],
    results: Sequence[Vote],
    chosen: dict[int, int],
) -> pd.DataFrame:
    """Return one row per path of the zero-shot vote: `kept` where it serves as an exemplar, else why it does not."""
    import pandas as pd

    rows: list[list[Any]] = []
    for i, number in enumerate(ids):
        for sample, (path, answer) in enumerate(zip(completions[i], read[i], strict=True)):
            reason = _why_not(path, answer, results[i], sample, chosen.get(i))
            rows.append([number, sample, path.text, answer, reason == "", reason])
    return pd.DataFrame(rows, columns=ZERO_SHOT_COLUMNS)


def _why_not(path: Completion, answer: str | None, result: Vote, sample: int, serving: int | None) -> str:
    if sample == serving:
        return ""
    if path.finish == generation.TOO_LONG:
        return generation.TOO_LONG
    if path.truncated:
        return "cut at the token limit"
    if answer is None:
        return "no_answer"
    if result.answer is None:
        return result.reason
    if not answers.answers_equal(answer, result.answer):
        return "lost the vote"
    return "longer than the chosen path" if serving is not None else "its question is not chosen"


def _path_counts(zero_shot: pd.DataFrame) -> dict[str, int]:
    kept = int(zero_shot["kept"].sum())
    return {"zero_shot_sampled": len(zero_shot), "zero_shot_kept": kept, "zero_shot_rejected": len(zero_shot) - kept}
