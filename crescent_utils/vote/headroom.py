"""Headroom: can a model lift itself on these questions, and how far? All of it from a table of samples.

In comes a table of samples, one row each:

- `question`: which question it answers (any name; with a column `round`, the questions of each round stand apart);
- `answer`: its final answer, equal answers as equal text; None where it cannot win (unreadable, or cut);
- `cut` (optional): whether the token limit cut it;
- `right` (optional): whether its answer is right, None where no right answer is known;
- `log_path`, `log_answer` (optional): log p of the whole path, and log p of its answer after the path (nats).

Greedy answers come as a table of `question`, `answer` and `right`; a column `prompt` tells those that were asked as the
vote asks ("vote") from those asked as the evaluation asks ("evaluated"), over which the headroom then is.

Out comes a table with one row per quantity: its estimate, 95 % interval, the number of questions, whether it needs
right answers (golds), what to read instead without them, and a sentence. Shares of questions have Wilson's interval,
paired differences that of `stats.paired_difference`, all else the percentiles of a Poisson bootstrap over questions
(Hanley and MacGibbon 2006, Computer Methods and Programs in Biomedicine 83, 57-62), which draws all quantities
together. A tie of the vote counts with its chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import answers, generation, runs, stats
from ..runs import Vote as VoteSettings

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COLUMNS = ["quantity", "estimate", "low", "high", "n", "needs_gold", "stand_in", "sentence"]
BINS = 10  # of agreement, for its calibration; Guo et al. 2017 (arXiv 1706.04599) use 15, with far more items
COVERAGES = (0.1, 0.25, 0.5)  # ours: shares of right samples
DRAWS = 20  # ours: random subsets of k samples
MOST_LEVELS = 100  # ours: agreements that the interval of AUROC keeps apart
RESAMPLES = 2_000  # ours; fewer for more than 20,000 questions, whose intervals are narrow
RESAMPLED_CELLS = 40_000_000  # ours: questions times resamples
CELLS_AT_ONCE = 2_000_000  # ours: a block of resamples stays under some 50 MB


# --- from the vote's tables ----------------------------------------------------------------------------------------


def path_samples(paths: pd.DataFrame, golds: Mapping[int, str]) -> pd.DataFrame:
    """Return the vote's table `paths` as a table of samples, with `cut` where it has this column."""
    table = answer_samples(paths["question_id"], paths["answer"], golds)
    return table.assign(cut=paths["cut"].astype(bool).tolist()) if "cut" in paths else table


def answer_samples(questions: Sequence[int], read: Sequence[Any], golds: Mapping[int, str]) -> pd.DataFrame:
    """Return answers that were read as samples (question, answer, right): of paths, or of greedy answers."""
    import pandas as pd

    classes = answers.equality_classes(read)
    names = dict(zip(golds, answers.equality_classes(golds.values()), strict=True))
    right = [
        answer == names[number] if number in names else None for number, answer in zip(questions, classes, strict=True)
    ]
    return pd.DataFrame({
        "question": list(questions), "answer": pd.Series(classes, dtype=object), "right": pd.Series(right, dtype=object)
    })  # fmt: skip


def stored_greedy(
    settings: VoteSettings,
    questions: Sequence[int],
    requests: Sequence[generation.Request],
    golds: Mapping[int, str],
    answer_type: str,
) -> pd.DataFrame:
    """Return the greedy answers to the run's own questions that a preflight left, with `prompt`; nothing is sampled.

    Those to the vote's `requests` are read from the store, those asked as the evaluation asks from the preflight's
    table `greedy`. Without a preflight on these questions the table is empty.
    """
    import pandas as pd

    with generation.open_generator(settings) as generator:
        greedily = generation.Sampling(0.0, 1.0, settings.vote_max_tokens).canonical()
        stored = generator.stored([(replace(request, sampling=greedily), 0) for request in requests])
    texts = {"vote": {number: done.text for number, done in zip(questions, stored, strict=True) if done is not None}}
    texts["evaluated"] = _evaluated_texts(settings, dict(zip(questions, requests, strict=True)))
    tables = []
    for prompt, of_prompt in texts.items():
        read = [answers.extract_answer(text, answer_type) for text in of_prompt.values()]
        tables.append(answer_samples(list(of_prompt), read, golds).assign(prompt=prompt))
    return pd.concat(tables, ignore_index=True)


def _evaluated_texts(settings: VoteSettings, requests: Mapping[int, generation.Request]) -> dict[int, str]:
    """Return what the run's preflight was answered greedily, asked as the evaluation asks, by question.

    A preflight on development items has numbers of its own: a row counts where its question stands in the request.
    """
    import pandas as pd

    folder = runs.run_folder(settings, settings.replay_from if settings.engine == "replay" else None)
    path = folder / runs.PREFLIGHT / "greedy.parquet"
    if not path.exists():
        return {}
    table = pd.read_parquet(path)
    rows = table[table["prompt"] == "evaluated"].to_dict("records")
    return {
        row["id"]: row["path"]
        for row in rows
        if row["id"] in requests and row["question"] in requests[row["id"]].messages[-1][1]
    }


# --- the samples as arrays ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Samples:
    """Samples in the order of their questions. A class is one answer to one question, of candidates alone."""

    names: Any  # of the questions
    rounds: Any  # of the questions, None without rounds
    question: Integers  # of each sample
    answer: Integers  # the class of each sample; -1: no candidate
    right: Floats  # of each sample; nan: not known
    cut: Floats
    log_path: Floats
    log_answer: Floats
    totals: Floats  # samples of each question
    class_question: Integers
    class_names: Any  # the answer of each class
    counts: Floats  # samples of each class
    class_right: Floats

    def by_question(self, values: Floats) -> Floats:
        """Return the sum over each question's samples."""
        return np.bincount(self.question, values, len(self.totals)).astype(float)

    def by_question_of_class(self, values: Floats) -> Floats:
        """Return the sum over each question's classes."""
        return np.bincount(self.class_question, values, len(self.totals)).astype(float)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether the right answer of each question is known."""
        return np.equal(self.by_question(np.isnan(self.right).astype(float)), 0)

    def leads(self, counts: Floats) -> Floats:
        """Return each class's chance of winning its question's vote with these counts: a tie is shared."""
        most = np.zeros(len(self.totals))
        np.maximum.at(most, self.class_question, counts)
        leads = ((counts == most[self.class_question]) & (counts > 0)).astype(float)
        leaders = self.by_question_of_class(leads)
        return np.asarray(leads / np.maximum(leaders, 1)[self.class_question])

    def counts_of(self, drawn: NDArray[np.bool_]) -> Floats:
        """Return how many of the drawn samples each class has."""
        return np.bincount(self.answer[drawn & (self.answer >= 0)], minlength=len(self.counts)).astype(float)

    def of_class(self, values: Floats, otherwise: float = 0.0) -> Floats:
        """Return for each sample the value of its class; `otherwise` where it is no candidate."""
        if not len(values):
            return np.full(len(self.answer), otherwise)
        return np.where(self.answer >= 0, values[self.answer], otherwise)

    def classes_of(self, answers: pd.DataFrame) -> Integers:
        """Return for each question the class of its row in `answers`; -1 where no sample gave that answer."""
        import pandas as pd

        classes = pd.DataFrame({"key": self.names[self.class_question], "answer": self.class_names})
        classes["number"] = np.arange(len(classes))
        rows = answers.assign(key=_keys(answers)).dropna(subset=["answer"]).drop_duplicates("key")
        rows = rows[["key", "answer"]].merge(classes, on=["key", "answer"])
        number = pd.Series(rows["number"].to_numpy(), index=rows["key"].to_numpy(), dtype=float)
        return np.asarray(number.reindex(pd.Index(self.names)).fillna(-1), dtype=np.int64)


def _read(samples: pd.DataFrame) -> _Samples:
    import pandas as pd

    for column in ("question", "answer"):
        if column not in samples:
            raise ValueError(f"samples: has no column {column!r}; its columns are {', '.join(map(str, samples))}")
    question, names = pd.factorize(_keys(samples))
    firsts = np.unique(question, return_index=True)[1]
    order = np.argsort(question, kind="stable")
    question = question[order].astype(np.int64)
    answer, texts = pd.factorize(samples["answer"].to_numpy(dtype=object)[order])
    pairs = question * max(1, len(texts)) + answer
    classes, places = np.unique(pairs[answer >= 0], return_inverse=True)
    number = np.full(len(question), -1, dtype=np.int64)
    number[answer >= 0] = places
    right = _numbers(samples, "right", order)
    return _Samples(
        names=np.asarray(names),
        rounds=samples["round"].to_numpy()[firsts] if "round" in samples else None,
        question=question,
        answer=number,
        right=right,
        cut=_numbers(samples, "cut", order),
        log_path=_numbers(samples, "log_path", order),
        log_answer=_numbers(samples, "log_answer", order),
        totals=np.bincount(question, minlength=len(names)).astype(float),
        class_question=classes // max(1, len(texts)),
        class_names=np.asarray(texts, dtype=object)[classes % max(1, len(texts))],
        counts=np.bincount(places, minlength=len(classes)).astype(float),
        class_right=np.bincount(places, right[answer >= 0], len(classes))
        / np.maximum(np.bincount(places, minlength=len(classes)), 1),
    )


def _keys(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row's question, which in several rounds may be the same."""
    if "round" not in table:
        return table["question"]
    return table["round"].astype(str) + " " + table["question"].astype(str)


def _numbers(samples: pd.DataFrame, column: str, order: Integers) -> Floats:
    import pandas as pd

    if column not in samples:
        return np.full(len(samples), np.nan)
    return np.asarray(pd.to_numeric(samples[column].astype("object"), errors="coerce"), dtype=float)[order]


# --- quantities -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quantity:
    """One row before its interval: a statistic of sums over questions, of which `parts` has one column per sum.

    A mean has the columns value and weight; a question whose value is nan does not count. `pair` are the two scores of
    a paired difference.
    """

    name: str
    parts: Floats
    statistic: Callable[[Floats], Floats]
    n: int
    needs_gold: bool
    stand_in: str
    sentence: str
    pair: tuple[Floats, Floats] | None = None


def _mean(
    name: str,
    values: Floats,
    sentence: str,
    *,
    stand_in: str = "",
    weights: Floats | None = None,
    pair: tuple[Floats, Floats] | None = None,
) -> _Quantity:
    """Return the mean of `values` over questions, or with `weights` the ratio of the two sums.

    What has a stand-in needs golds.
    """
    weights = np.ones(len(values)) if weights is None else weights
    counts = ~np.isnan(values) & (weights > 0)
    parts = np.column_stack([np.where(counts, values, 0.0), np.where(counts, weights, 0.0)])
    if pair is not None:
        pair = pair[0][counts], pair[1][counts]
    return _Quantity(name, parts, _ratio, int(counts.sum()), bool(stand_in), stand_in, sentence, pair)


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def _calibration_parts(agreement: Floats, right: Floats, bins: int = BINS) -> Floats:
    """Return what the expected calibration error is made of: each question's difference and count, in columns by bin.

    The bins have equal width, their ends above. `right` may be a chance between 0 and 1.
    """
    counts = ~np.isnan(right) & ~np.isnan(agreement)
    place = np.clip(np.ceil(np.round(np.nan_to_num(agreement) * bins, 9)) - 1, 0, bins - 1).astype(int)
    parts = np.zeros((len(agreement), 2 * bins))
    rows = np.flatnonzero(counts)
    parts[rows, place[rows]] = agreement[rows] - right[rows]
    parts[rows, bins + place[rows]] = 1.0
    return parts


def _calibration(sums: Floats) -> Floats:
    """Return the expected calibration error of agreement (Guo et al. 2017) from sums of `_calibration_parts`."""
    bins = sums.shape[-1] // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(sums[..., :bins]).sum(axis=-1) / sums[..., bins:].sum(axis=-1))


def _auroc_parts(agreement: Floats, right: Floats, most_levels: int = MOST_LEVELS) -> Floats:
    """Return what AUROC is made of: for each question how right and how wrong it is, in columns by agreement.

    `right` may be a chance between 0 and 1. Beyond `most_levels` different agreements, near ones share a column.
    """
    counts = ~np.isnan(right) & ~np.isnan(agreement)
    levels, place = np.unique(agreement[counts], return_inverse=True)
    if len(levels) > most_levels:
        levels, place = np.unique(np.round(agreement[counts] * (most_levels - 1)), return_inverse=True)
    parts = np.zeros((len(agreement), 2 * len(levels)))
    rows = np.flatnonzero(counts)
    parts[rows, place] = right[rows]
    parts[rows, len(levels) + place] = 1 - right[rows]
    return parts


def _auroc(sums: Floats) -> Floats:
    """Return the chance that a right answer has more agreement than a wrong one, from sums of `_auroc_parts`.

    Equal agreements count one half; nan where all answers are right or none is.
    """
    levels = sums.shape[-1] // 2
    positive, negative = sums[..., :levels], sums[..., levels:]
    below = np.cumsum(negative, axis=-1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * below).sum(axis=-1) / (positive.sum(axis=-1) * negative.sum(axis=-1)))


# --- the table ------------------------------------------------------------------------------------------------------


def headroom_table(
    samples: pd.DataFrame,
    greedy: pd.DataFrame | None = None,
    *,
    min_agreement: float = 0.5,
    votes: Sequence[int] = stats.VOTES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return every quantity that says whether a model can lift itself on these questions; columns as in `COLUMNS`.

    `samples`, `greedy` and the columns that they have: see the head of this module. A question is learned from where
    its agreement is at least `min_agreement`. A quantity that cannot be known from these samples has the estimate nan
    and n 0.
    """
    import pandas as pd

    evaluated = None
    if greedy is not None and "prompt" in greedy:
        by_prompt = dict(tuple(greedy.groupby("prompt")))
        greedy, evaluated = by_prompt.get("vote"), by_prompt.get("evaluated")
    table = _read(samples)
    if not len(table.totals):
        raise ValueError("samples: there is none; give one row at least")
    of = _Quantities(table, min_agreement, seed)
    quantities = [*of.accuracies(greedy, evaluated), *of.curves(votes), *of.coverages()]
    quantities += [*of.gains(greedy, evaluated), *of.gaps(), *of.calibrations(), *of.labels()]
    return pd.DataFrame([_row(one, draws) for one, draws in _resampled(quantities, seed)], columns=COLUMNS)


class _Quantities:
    """The quantities of one table of samples, in groups; each method returns the rows of one group."""

    def __init__(self, table: _Samples, min_agreement: float, seed: int) -> None:
        self.table, self.min_agreement, self.seed = table, min_agreement, seed
        self.known = np.where(table.known, 1.0, np.nan)
        self.leads = table.leads(table.counts)
        most = np.zeros(len(table.totals))
        np.maximum.at(most, table.class_question, table.counts)
        self.agreement = most / table.totals
        self.is_kept = (self.agreement >= min_agreement - 1e-9) & (most > 0)
        self.majority = self.right_with(self.leads)
        self.one_sample = table.by_question(np.nan_to_num(table.right)) / table.totals * self.known
        self._halves: list[tuple[Floats, Floats, Floats]] | None = None

    def right_with(self, leads: Floats) -> Floats:
        """Return each question's chance that its vote is right; nan where no right answer is known."""
        right = self.table.by_question_of_class(leads * np.nan_to_num(self.table.class_right))
        return np.asarray(right * self.known)

    # Ranks in random orders: the samples below rank k are a random subset of k.
    def orders(self, draws: int) -> Any:
        """Yield the rank of each sample among its question's, in random orders."""
        rng = np.random.default_rng(self.seed)
        starts = np.concatenate([[0], np.cumsum(self.table.totals)[:-1]])
        for _ in range(draws):
            order = np.lexsort((rng.random(len(self.table.question)), self.table.question))
            rank = np.empty(len(order))
            rank[order] = np.arange(len(order)) - starts[self.table.question[order]]
            yield rank

    def halves(self) -> list[tuple[Floats, Floats, Floats]]:
        """Return, for random halves and each both ways: the winner's chances by one, the shares in the other, its size.

        A majority judged by the samples that elected it would look too good.
        """
        if self._halves is None:
            self._halves = []
            half = self.table.totals // 2
            for rank in self.orders(max(2, DRAWS // 4)):
                first = rank < half[self.table.question]
                for one, other in ((first, ~first), (~first, first)):
                    size = self.table.by_question(other.astype(float))
                    shares = self.table.counts_of(other) / np.maximum(size, 1)[self.table.class_question]
                    self._halves.append((self.table.leads(self.table.counts_of(one)), shares, one.astype(float)))
        return self._halves

    def own_view(self, values: Callable[[Floats, Floats], Floats]) -> Floats:
        """Return the mean over halves of a sum per question; nan where there are not two samples."""
        means = np.mean([values(leads, shares) for leads, shares, _ in self.halves()], axis=0)
        return np.where(self.table.totals >= 2, means, np.nan)

    def greedy_scores(self, greedy: pd.DataFrame | None) -> tuple[Floats, Integers]:
        """Return whether each question's greedy answer is right (nan: not known), and its class (-1: no sample's)."""
        import pandas as pd

        size = len(self.table.totals)
        if greedy is None or not len(greedy):
            return np.full(size, np.nan), np.full(size, -2)
        rows = greedy.assign(key=_keys(greedy)).drop_duplicates("key")
        places = pd.Index(rows["key"]).get_indexer(pd.Index(self.table.names))
        right = np.full(size, np.nan)
        if "right" in rows:
            verdicts = pd.to_numeric(rows["right"].astype("object"), errors="coerce").to_numpy(dtype=float)
            right = np.where(places >= 0, verdicts[places], np.nan)
        return right, np.where(places >= 0, self.table.classes_of(greedy), -2)

    def accuracies(self, greedy: pd.DataFrame | None, evaluated: pd.DataFrame | None) -> list[_Quantity]:
        """Return greedy and one sample, each with its label-free stand-in."""
        rows = []
        for name, greedy_answers, how in (
            ("greedy", greedy, "asked as the vote asks"),
            ("evaluated", evaluated, "asked as the evaluation asks"),
        ):
            if name == "evaluated" and greedy_answers is None:
                continue
            right, place = self.greedy_scores(greedy_answers)
            alike = self._value_of(place, self.leads)
            sentence = f"of the greedy answers, {how}, are right"
            rows.append(_mean(name, right, sentence, stand_in=f"{name}_is_majority"))
            rows.append(_mean(f"{name}_is_majority", alike, f"of the greedy answers, {how}, are the majority's answer"))
        rows.append(_mean("one_sample", self.one_sample, "of single samples are right", stand_in="agreement"))
        sentence = "of single samples give the majority's answer (mean agreement)"
        rows.append(_mean("agreement", self.agreement, sentence))
        table = self.table
        unread = table.by_question((table.answer < 0).astype(float)) / table.totals
        rows.append(_mean("no_answer", unread, "of the samples have no answer that could win: unreadable, or cut"))
        sentence = "of the samples were cut at the token limit"
        rows.append(_mean("cut", table.by_question(table.cut) / table.totals, sentence))
        return rows

    def _value_of(self, place: Integers, values: Floats) -> Floats:
        """Return each question's value of the class `place`; 0 where it has no sample, nan where nothing was asked."""
        if not len(values):
            return np.where(place == -2, np.nan, 0.0)
        return np.where(place == -2, np.nan, np.where(place >= 0, values[np.maximum(place, 0)], 0.0))

    def curves(self, votes: Sequence[int]) -> list[_Quantity]:
        """Return majority@k and pass@k for each k that nine in ten questions have samples for, and the stand-ins."""
        table = self.table
        most = int(np.quantile(table.totals, 0.1, method="lower"))
        numbers = sorted({k for k in votes if k <= most} | {most})
        majorities, alike = self._subsets(numbers)
        right = table.by_question(np.nan_to_num(table.right)) * self.known
        rows = []
        for k in numbers:
            is_all = bool(np.all(table.totals == k))  # then it is the majority of all, whatever the answers are
            text = f"of the majorities of {k} are right" if k > 1 else "of single samples may win a vote and are right"
            stand_in = "agreement" if is_all else f"same_majority@{k}"
            rows.append(_mean(f"majority@{k}", majorities[k], text, stand_in=stand_in))
            if not is_all:
                text = f"of the majorities of {k} are the majority of all samples"
                rows.append(_mean(f"same_majority@{k}", alike[k], text))
            text = f"of the questions have a right answer among {k} samples" if k > 1 else "of single samples are right"
            rows.append(_mean(f"pass@{k}", stats.pass_at_k(table.totals, right, k), text, stand_in=f"different@{k}"))
            seen = stats.pass_at_k(table.totals[table.class_question], table.counts, k)
            different = np.where(table.totals < k, np.nan, table.by_question_of_class(np.nan_to_num(seen)))
            rows.append(_mean(f"different@{k}", different, f"different answers stand among {k} samples, on average"))
        return rows

    def _subsets(self, numbers: Sequence[int]) -> tuple[dict[int, Floats], dict[int, Floats]]:
        """Return, for each k, how often the majority of k random samples is right, and is that of all samples."""
        table = self.table
        right = {k: np.zeros(len(table.totals)) for k in numbers}
        alike = {k: np.zeros(len(table.totals)) for k in numbers}
        is_all = all(table.totals == max(numbers))
        draws = 1 if is_all and len(numbers) == 1 else max(2, min(DRAWS, RESAMPLED_CELLS // 4 // len(table.question)))
        for rank in self.orders(draws):
            for k in numbers:
                drawn = rank < k
                leads = self.leads if is_all and k == max(numbers) else table.leads(table.counts_of(drawn))
                right[k] += self.right_with(leads) / draws
                alike[k] += table.by_question_of_class(leads * (self.leads > 0)) / draws
        for k in numbers:
            too_few = table.totals < k
            right[k][too_few] = alike[k][too_few] = np.nan
        if 1 in right:  # all subsets of one are known
            right[1] = table.by_question(np.nan_to_num(table.right) * (table.answer >= 0)) / table.totals * self.known
            alike[1] = table.by_question_of_class((self.leads > 0) * table.counts) / table.totals
        return right, alike

    def coverages(self) -> list[_Quantity]:
        """Return the share of questions with enough right samples, beside that with enough samples that agree."""
        rows = []
        for tau in COVERAGES:
            covered = (self.one_sample >= tau - 1e-9) * self.known
            text = f"of the questions have a right answer in at least {tau:.0%} of their samples"
            rows.append(_mean(f"coverage@{tau:g}", covered, text, stand_in=f"agreement@{tau:g}"))
            agreed = (self.agreement >= tau - 1e-9).astype(float)
            text = f"of the questions have an answer on which at least {tau:.0%} of their samples agree"
            rows.append(_mean(f"agreement@{tau:g}", agreed, text))
        return rows

    def gains(self, greedy: pd.DataFrame | None, evaluated: pd.DataFrame | None) -> list[_Quantity]:
        """Return majority minus greedy, on all questions and on those that are learned from, and what stands in."""
        table = self.table
        own_prompt = self.greedy_scores(greedy)
        pupil, place = own_prompt if evaluated is None else self.greedy_scores(evaluated)
        change = self.majority - pupil
        kept = np.where(self.is_kept, change, np.nan)
        believed = self.own_view(lambda leads, shares: table.by_question_of_class(leads * shares))
        believed -= self.own_view(lambda _, shares: self._value_of(place, shares))
        differs = 1 - self._value_of(place, self.leads)
        asked = "" if evaluated is None else " as the evaluation asks it"
        text = f"headroom: majority minus greedy{asked}, paired; what learning from the votes can hand on"
        scores = pupil, self.majority
        rows = [_mean("headroom", change, text, stand_in="believed_headroom", pair=scores)]
        text = (
            "headroom in the model's own eyes: its samples give the majority's answer so much more often than greedy's"
        )
        rows.append(_mean("believed_headroom", believed, text))
        text = f"headroom on the questions that are learned from (agreement of at least {self.min_agreement:.2f})"
        rows.append(_mean("kept_headroom", kept, text, stand_in="believed_kept_headroom", pair=scores))
        text = "the same in the model's own eyes"
        rows.append(_mean("believed_kept_headroom", np.where(self.is_kept, believed, np.nan), text))
        text = f"of the majorities are not the greedy answer{asked}: no gain or loss can be larger"
        rows.append(_mean("vote_changes", differs, text))
        if evaluated is not None:
            text = "majority minus greedy, both asked as the vote asks: what the vote itself adds"
            same = self.majority - own_prompt[0]
            pair = own_prompt[0], self.majority
            rows.append(_mean("headroom_of_prompt", same, text, stand_in="greedy_is_majority", pair=pair))
        return rows

    def gaps(self) -> list[_Quantity]:
        """Return the generation-verification gap (Song et al. 2024, arXiv 2412.02674) of three verifiers."""
        table = self.table
        believed = self.own_view(lambda leads, shares: table.by_question_of_class(leads * shares))
        pairs = np.maximum(table.totals * (table.totals - 1), 1)
        by_chance = table.by_question_of_class(table.counts * (table.counts - 1)) / pairs  # two samples agree
        text = "vote as verifier: its choice minus a single sample, in shares of right answers"
        gap = self.majority - self.one_sample
        rows = [_mean("gap_vote", gap, text, stand_in="believed_gap", pair=(self.one_sample, self.majority))]
        text = (
            "the same in the model's own eyes: samples agree so much more with the vote's choice than with each other"
        )
        rows.append(_mean("believed_gap", believed - by_chance, text))
        for name, scores, what in (
            ("log_path", table.log_path, "log p(path)"),
            ("log_answer", table.log_answer, "log p(answer | path)"),
        ):
            right, alike = self._picked(scores)
            text = f"{what} as verifier: the likeliest sample minus a single one, in shares of right answers"
            pair = self.one_sample, right
            stand_in = f"{name}_is_majority"
            rows.append(_mean(f"gap_{name}", right - self.one_sample, text, stand_in=stand_in, pair=pair))
            rows.append(_mean(stand_in, alike, f"of the samples that {what} chooses give the majority's answer"))
        return rows

    def _picked(self, scores: Floats) -> tuple[Floats, Floats]:
        """Return whether the sample with the highest score is right, and is the majority's; ties are shared.

        nan for a question of which some sample could win, and none has a score: what would be chosen is not known.
        """
        table = self.table
        is_candidate = table.answer >= 0
        usable = is_candidate & np.isfinite(scores)
        if not usable.any():
            nothing = np.full(len(table.totals), np.nan)
            return nothing, nothing
        best = np.full(len(table.totals), -np.inf)
        np.maximum.at(best, table.question[usable], scores[usable])
        picked = (usable & (scores == best[table.question])).astype(float)
        number = table.by_question(picked)
        has_choice = (number > 0) | (table.by_question(is_candidate.astype(float)) == 0)  # without candidates: wrong
        right = table.by_question(picked * np.nan_to_num(table.right)) / np.maximum(number, 1) * self.known
        right = np.where(has_choice, right, np.nan)
        alike = table.by_question(picked * table.of_class(self.leads)) / np.maximum(number, 1)
        return right, np.where(number > 0, alike, np.nan)

    def calibrations(self) -> list[_Quantity]:
        """Return how far agreement is accuracy, and tells right from wrong; its stand-ins ask the other half."""
        table = self.table
        leads, shares, half = self.halves()[0]
        size = np.maximum(table.by_question(half), 1)
        most = np.zeros(len(size))
        np.maximum.at(most, table.class_question, table.counts_of(half > 0))
        agreement = np.where(table.totals >= 2, most / size, np.nan)
        alike = table.by_question_of_class(leads * table.leads(shares))
        n, n_half = int(table.known.sum()), int((~np.isnan(agreement)).sum())
        rows = []
        for name, parts, statistic, text in (
            ("ece", _calibration_parts, _calibration, "mean distance of agreement from accuracy (ECE)"),
            ("auroc", _auroc_parts, _auroc, "chance that a right majority has more agreement than a wrong one (AUROC)"),
        ):
            of_right = parts(self.agreement, self.majority)
            rows.append(_Quantity(name, of_right, statistic, n, True, f"{name}_of_halves", text))
            of_halves = parts(agreement, alike)
            stand_in = "the same for half of the samples, with the majority of the other half as the right answer"
            rows.append(_Quantity(f"{name}_of_halves", of_halves, statistic, n_half, False, "", stand_in))
        return rows

    def labels(self) -> list[_Quantity]:
        """Return how good the votes are as labels, rewards and preferences, and how far the model overrates itself."""
        table, text = self.table, f"agreement of at least {self.min_agreement:.2f}"
        kept = np.where(self.is_kept, self.majority, np.nan)
        rows = [_mean("labels_right", kept, f"of the labels that are learned from are right ({text})", stand_in="kept")]
        rows.append(_mean("kept", self.is_kept.astype(float), f"of the questions are learned from ({text})"))
        right, leads = np.nan_to_num(table.right), table.of_class(self.leads)
        rewarded = table.by_question(leads * right + (1 - leads) * (1 - right)) / table.totals * self.known
        sentence = "of the samples get the reward that they deserve: equals the majority exactly where it is right"
        rows.append(_mean("reward_accuracy", rewarded, sentence, stand_in="agreement"))
        learned = np.where(self.is_kept, self.known, np.nan)
        winners, losers = table.by_question(leads), table.by_question(1 - leads)
        won_right, lost_wrong = table.by_question(leads * right), table.by_question((1 - leads) * (1 - right))
        sentence = "of the winning samples, chosen in a preference pair, are right"
        rows.append(_mean("chosen_right", won_right * learned, sentence, stand_in="kept", weights=winners))
        sentence = "of the losing samples, rejected in a preference pair, are wrong"
        rows.append(_mean("rejected_wrong", lost_wrong * learned, sentence, stand_in="kept", weights=losers))
        return rows + self._self_bias()

    def _self_bias(self) -> list[_Quantity]:
        """Return a path's own view minus the truth, over all rounds and for each, and the own view alone."""
        table = self.table
        others = np.maximum(table.totals - 1, 1)[table.question]
        views = table.of_class(table.counts - 1) / others
        text = "of the other samples give a sample's own answer"
        if np.isfinite(table.log_answer).any():
            views = np.where(np.isfinite(table.log_answer), np.exp(np.minimum(table.log_answer, 0.0)), np.nan)
            text = "is the chance that a path gives its own answer, p(answer | path)"
        has_view = (table.answer >= 0) & ~np.isnan(views) & (table.totals[table.question] >= 2)
        weights = table.by_question(has_view.astype(float))
        view = table.by_question(np.where(has_view, views, 0.0))
        bias = (view - table.by_question(np.where(has_view, np.nan_to_num(table.right), 0.0))) * self.known
        sentence = "self-bias: what a path says of its own answer minus whether that is right; above 0 is overrated"
        rows = [_mean("self_bias", bias, sentence, stand_in="self_view", weights=weights)]
        rows.append(_mean("self_view", view, text, weights=weights))
        names = [] if table.rounds is None else set(table.rounds)
        rounds = sorted(names, key=lambda name: (isinstance(name, str), name))  # numbers first: 2, 10, "last"
        for number in rounds if len(rounds) > 1 else []:
            here = np.array([one == number for one in table.rounds])
            of_round = np.where(here, bias, np.nan)
            sentence = f"self-bias in round {number}"
            rows.append(
                _mean(f"self_bias@{number}", of_round, sentence, stand_in=f"self_view@{number}", weights=weights)
            )
            sentence = f"a sample's own view in round {number}"
            rows.append(_mean(f"self_view@{number}", np.where(here, view, np.nan), sentence, weights=weights))
        return rows


# --- intervals ------------------------------------------------------------------------------------------------------


def _resampled(quantities: Sequence[_Quantity], seed: int) -> list[tuple[_Quantity, Floats]]:
    """Return each quantity with its bootstrap values, all of them from the same resamples of the questions."""
    sizes = [one.parts.shape[1] for one in quantities]
    parts = np.concatenate([one.parts for one in quantities], axis=1)
    questions = len(parts)
    resamples = int(np.clip(RESAMPLED_CELLS // questions, 200, RESAMPLES))
    rng = np.random.default_rng(seed)
    sums = np.zeros((resamples, parts.shape[1]))
    block = max(1, CELLS_AT_ONCE // resamples)
    for start in range(0, questions, block):
        part = parts[start : start + block]
        sums += rng.poisson(1.0, (resamples, len(part))).astype(float) @ part
    ends = np.cumsum([0, *sizes])
    return [(one, one.statistic(sums[:, a:b])) for one, a, b in zip(quantities, ends[:-1], ends[1:], strict=True)]


def _row(one: _Quantity, draws: Floats) -> dict[str, Any]:
    """Return a quantity's row, with the interval that suits it."""
    row = {"quantity": one.name, "needs_gold": one.needs_gold, "stand_in": one.stand_in, "sentence": one.sentence}
    estimate = float(one.statistic(one.parts.sum(axis=0))) if one.n else math.nan
    if math.isnan(estimate):
        return row | {"estimate": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    low, high = _interval(one, draws)
    return row | {"estimate": estimate, "low": min(low, estimate), "high": max(high, estimate), "n": one.n}


def _interval(one: _Quantity, draws: Floats) -> tuple[float, float]:
    if one.pair is not None:
        paired = stats.paired_difference(*np.clip(one.pair, 0, 1))  # a shared tie may sum to 1 + 1e-16
        return paired.low, paired.high
    if one.statistic is _ratio:
        values, weights = one.parts[one.parts[:, 1] > 0].T
        shares = values / weights
        if np.isin(shares, [0, 1]).all() and (np.ptp(weights) == 0 or np.ptp(shares) == 0):
            share = stats.wilson(int(shares.sum()), len(shares))
            return share.low, share.high
    finite = draws[np.isfinite(draws)]
    return stats.percentiles(finite) if len(finite) else (math.nan, math.nan)


# --- the reliability curve -------------------------------------------------------------------------------------------


def reliability_table(samples: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Return how often the majority is right at each agreement, in `bins` of equal width, their ends above.

    Columns: `above`, `up_to` (the bin), `n` (questions with a known right answer), `agreement` (its mean), `right`,
    `low`, `high`. Only bins with questions have a row.
    """
    import pandas as pd

    of = _Quantities(_read(samples), 0.0, 0)
    place = np.clip(np.ceil(np.round(of.agreement * bins, 9)) - 1, 0, bins - 1).astype(int)
    rows = []
    for number in np.unique(place[~np.isnan(of.majority)]):
        here = (place == number) & ~np.isnan(of.majority)
        right = of.majority[here]
        share = stats.mean_interval(right, resamples=RESAMPLES)
        row = {"above": number / bins, "up_to": (number + 1) / bins, "n": int(here.sum())}
        row |= {"agreement": float(of.agreement[here].mean()), "right": share.estimate}
        rows.append(row | {"low": share.low, "high": share.high})
    return pd.DataFrame(rows, columns=["above", "up_to", "n", "agreement", "right", "low", "high"])
