"""Preflight: can this model lift itself here, and how far? Asked of some items before a run, or of its own votes.

Some held-out items are asked greedily and as often as the vote asks, with the vote's own prompt, temperature and token
limit, and once more greedily as the evaluation asks them, where that is another prompt. All of it goes through the
run's generation store: what a later run asks alike is there already. The tables stand in `outputs/<run>/preflight/`:
`headroom` (see `vote.headroom_table`), `samples` (id, question, gold, sample, path, answer, cut, right, log_path,
log_answer), `greedy` (the same of the greedy answers, with their `prompt`), `exemplars` (those of `vote_shots`),
`reliability`, and `verdict.json`. Ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import benchmarks, generation, runs, vote
from ..generation import Completion, Request, Sampling

if TYPE_CHECKING:
    import pandas as pd

VOTED_FORMS = ("number", "choice")  # forms of an answer that a vote can count
# What decides the line: a preflight of a run that differs in one of these says nothing of it.
DECISIVE = """
    model domain protocol seed system_prompt solve_prompt vote_shots own_questions own_shots votes vote_temperature
    vote_top_p vote_max_tokens min_agreement train_min_agreement eval_max_tokens
""".split()


@dataclass(frozen=True)
class Questions:
    """The questions that are asked: `table` (id, question, gold), where they are from, and how many there would be."""

    table: pd.DataFrame
    source: str
    available: int


def command(arguments: argparse.Namespace) -> int:
    """Ask, write the tables, print them and the line in which they end; return 0."""
    values = runs.load_profile(arguments.profiles, arguments.overrides)
    if arguments.items < 1:
        raise runs.ParameterError(f"-n {arguments.items}: give 1 or more")
    arguments.check(values, ())
    began = time.monotonic()
    questions = chosen_questions(values, arguments.items, own=arguments.questions == "own")
    settings = runs.settings_from("vote", values)
    print(
        f"preflight of run {settings.run}: {len(questions.table):,} questions ({questions.source}) x {settings.votes} "
        f"samples at T = {settings.vote_temperature:g}, and greedily",
        flush=True,
    )
    asked, table, reliability, end = record(values, questions, with_likelihoods=not arguments.no_likelihoods)
    if len(asked.exemplars):
        print(f"\nworked examples before each question\n{asked.exemplars.to_string(index=False)}")
    print(f"\n{vote.headroom_text(table)}")
    if len(reliability):
        print(f"\nmajorities that are right, by agreement\n{reliability.round(3).to_string(index=False)}")
    folder = runs.run_folder(settings) / runs.PREFLIGHT
    print(f"\ntables: {runs.shown_path(folder)}; {time.monotonic() - began:.0f} s\n{end.line}")
    return 0


def record(
    values: Mapping[str, Any], questions: Questions, *, with_likelihoods: bool = True
) -> tuple[Asked, pd.DataFrame, pd.DataFrame, vote.Verdict]:
    """Ask the questions and write the tables of this module's first lines; return what was asked, and what it says."""
    try:
        asked = ask(values, questions.table, with_likelihoods=with_likelihoods)
    except generation.ReplayMiss as error:
        raise runs.RunError(f"engine: {error}") from None
    table, reliability, end = judge(values, asked, questions.available)
    folder = runs.run_folder(runs.settings_from("vote", values)) / runs.PREFLIGHT
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (vars(asked) | {"reliability": reliability, "headroom": table}).items():
        runs.write_table(folder, name, frame)
    runs.write_json(
        folder / "verdict.json",
        {
            "word": end.word, "line": end.line, "questions": len(asked.greedy["id"].unique()),
            "source": questions.source,
            "parameters": decisive_parameters(values),
        },
    )  # fmt: skip
    return asked, table, reliability, end


def decisive_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that decide what a preflight says, defaults included."""
    known: dict[str, Any] = {}
    for stage in ("evaluate", "finetune", "vote"):
        known |= runs.settings_from(stage, values).model_dump()
    return {name: known[name] for name in DECISIVE}


# --- the questions --------------------------------------------------------------------------------------------------


def chosen_questions(values: Mapping[str, Any], items: int, *, own: bool = False) -> Questions:
    """Return at most `items` questions to ask, drawn by the seed, and never one of a test split.

    They are dev items of the run's benchmarks; of a benchmark without a dev split its training items. With `own`, and
    where no benchmark has either, they are the run's own questions: the finished pool of 02, or `question_source`.
    """
    settings = runs.settings_from("evaluate", values)
    rows: list[tuple[str, str]] = []
    sources = []
    for name in () if own else settings.evaluate_on or runs.get_domain(settings.domain).benchmarks:
        found, split = _held_out_items(name, settings)
        if found:
            rows += [(item.question, item.gold) for item in found if item.form in VOTED_FORMS]
            sources.append(f"{name}, {split}")
    rows = list(dict.fromkeys(rows))  # benchmarks may share their training items
    if not rows:
        return _own_questions(values, items)
    drawn = _drawn(len(rows), items, settings.seed)
    return Questions(_table([(i, *rows[i]) for i in drawn]), "; ".join(sources), len(rows))


def _held_out_items(name: str, settings: runs.Evaluate) -> tuple[Sequence[benchmarks.Item], str]:
    options: dict[str, Any] = {"folder": settings.benchmark_dir, "seed": settings.benchmark_seed}
    try:
        return benchmarks.load_benchmark(
            name, split="dev", items=settings.benchmark_items, **options
        ).items, "dev split"
    except benchmarks.BenchmarkError:  # published ones have none; their training items were never tested either
        return benchmarks.load_benchmark(name, **options).train, "training items"


def _own_questions(values: Mapping[str, Any], items: int) -> Questions:
    settings = runs.settings_from("vote", values)
    domain = runs.get_domain(settings.domain)
    if settings.question_source == "pool":
        pool, source = runs.read_table(runs.run_folder(settings), "dedup", "questions"), "the run's pool"
    else:
        found = vote.load_unlabelled(settings, benchmarks.load_held_out(settings, domain))
        pool, source = found.questions, found.source
    golds = vote.known_golds(pool, domain)
    rows = [(number, text, golds.get(number)) for number, text in zip(pool["id"], pool["question"], strict=True)]
    drawn = _drawn(len(rows), items, settings.seed)
    return Questions(_table([rows[i] for i in drawn]), source, len(rows))


def _drawn(available: int, items: int, seed: int) -> list[int]:
    return sorted(random.Random(f"preflight {seed}").sample(range(available), min(items, available)))


def _table(rows: Sequence[tuple[int, str, str | None]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=["id", "question", "gold"])


# --- asking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What was asked: the samples, the greedy answers (`prompt` "vote" or "evaluated"), and the worked examples."""

    samples: pd.DataFrame
    greedy: pd.DataFrame
    exemplars: pd.DataFrame


def ask(values: Mapping[str, Any], questions: pd.DataFrame, *, with_likelihoods: bool = True) -> Asked:
    """Sample what the store lacks. Where the evaluation asks as the vote does, it is not asked by itself.

    A question that a worked example asks is left out, as in the vote.
    """
    import pandas as pd

    settings = runs.settings_from("vote", values)
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    sampling = Sampling(settings.vote_temperature, settings.vote_top_p, settings.vote_max_tokens)
    with generation.open_generator(settings) as generator:
        table, exemplars = worked_examples(generator, values, questions)
        questions = _not_asked_by(exemplars, questions)
        if questions.empty:
            raise runs.ParameterError("-n: each of so few questions serves as a worked example; ask more")
        texts = questions["question"]
        chats = [runs.solve_messages(domain, text, settings.system_prompt, exemplars) for text in texts]
        requests = [generator.request(chat, sampling) for chat in chats]
        prompts = {"vote": [generator.request(chat, Sampling(0.0, 1.0, sampling.max_tokens)) for chat in chats]}
        evaluated = evaluated_requests(generator, values, texts)
        if evaluated != prompts["vote"]:
            prompts["evaluated"] = evaluated
        pairs = [(request, 0) for asked in prompts.values() for request in asked]
        pairs += [(request, sample) for request in requests for sample in range(settings.votes)]
        completions = generator.complete(pairs)  # all together: an engine is fastest with many at once
        model = generator.model
    size = len(requests)
    greedy = [
        _rows(questions, completions[i * size : (i + 1) * size], domain).assign(prompt=prompt)
        for i, prompt in enumerate(prompts)
    ]
    samples = _rows(questions, completions[len(prompts) * size :], domain, settings.protocol)
    if settings.protocol != "released":  # whose code lets a path win that the token limit cut
        samples.loc[samples["cut"], "answer"] = None
    if with_likelihoods:
        samples = _with_likelihoods(settings, model, requests, samples)
    return Asked(samples, pd.concat(greedy, ignore_index=True), table)


def worked_examples(
    generator: generation.Generator, values: Mapping[str, Any], questions: pd.DataFrame
) -> tuple[pd.DataFrame, list[runs.Exemplar]]:
    """Return the examples that stand before each question of the vote, as a table too.

    The model's own come from the run's vote if that is done, else they are chosen as there: among the run's own
    questions, or where there are none yet, among those of the preflight.
    """
    import pandas as pd

    settings = runs.settings_from("vote", values)
    domain, folder = runs.get_domain(settings.domain, solve=settings.solve_prompt), runs.run_folder(settings)
    if settings.vote_shots == "own" and runs.is_current("vote", settings):
        exemplars = vote.recorded_exemplars(settings, domain, folder)
        return pd.DataFrame([one.model_dump() for one in exemplars]), exemplars
    candidates = questions
    if settings.vote_shots == "own":
        with contextlib.suppress(runs.RunError):
            candidates = _own_questions(values, sys.maxsize).table
    found = vote.worked_examples(generator, candidates, settings, domain)
    return found.table, found.exemplars


def _not_asked_by(exemplars: Sequence[runs.Exemplar], questions: pd.DataFrame) -> pd.DataFrame:
    keys = {benchmarks.overlap_key(exemplar.question) for exemplar in exemplars}
    return questions[~questions["question"].map(benchmarks.overlap_key).isin(keys)].reset_index(drop=True)


def evaluated_requests(
    generator: generation.Generator, values: Mapping[str, Any], questions: Sequence[str]
) -> list[Request]:
    """Return each question as the evaluation asks it first, greedily: what a gain will be counted from."""
    settings = runs.settings_from("evaluate", values)
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    chats = [runs.solve_messages(domain, text, settings.system_prompt) for text in questions]
    return [generator.request(chat, Sampling(0.0, 1.0, settings.eval_max_tokens)) for chat in chats]


def _rows(
    questions: pd.DataFrame, completions: Sequence[Completion], domain: runs.Domain, protocol: str = "paper"
) -> pd.DataFrame:
    """Return one row per completion, of which each question has equally many: its answer, and whether it is right."""
    import pandas as pd

    repeats = len(completions) // len(questions)
    table = questions.loc[questions.index.repeat(repeats)].reset_index(drop=True)
    table["sample"] = list(range(repeats)) * len(questions)
    table["path"] = [done.text for done in completions]
    table["cut"] = [done.truncated for done in completions]
    read = [vote.read_path(done.text, protocol, domain.answer_type) for done in completions]
    known = {n: gold for n, gold in zip(table["id"], table["gold"], strict=True) if isinstance(gold, str)}
    judged = vote.answer_samples(list(table["id"]), read, known)
    return pd.concat([table, judged[["answer", "right"]]], axis=1)


def _with_likelihoods(
    settings: runs.Vote, model: generation.Model, requests: Sequence[Request], samples: pd.DataFrame
) -> pd.DataFrame:
    """Return the samples with log p of each path and of its answer, read by the model once more."""
    texts = samples.groupby("id", sort=False)["path"].agg(list)
    read = samples.groupby("id", sort=False)["answer"].agg(list)
    scores = vote.verifier_likelihoods(settings, model, requests, list(texts), list(read))
    flat = [pair for of_question in scores for pair in of_question]
    return samples.assign(log_path=[pair[0] for pair in flat], log_answer=[pair[1] for pair in flat])


def judge(values: Mapping[str, Any], asked: Asked, available: int) -> tuple[pd.DataFrame, pd.DataFrame, vote.Verdict]:
    """Return the tables `headroom` and `reliability` of what was asked, and the verdict."""
    samples, greedy = (table.assign(question=table["id"]) for table in (asked.samples, asked.greedy))
    prompts = dict(tuple(greedy.groupby("prompt")))
    table = vote.headroom_table(
        samples,
        prompts["vote"],
        prompts.get("evaluated"),
        min_agreement=_least_agreement(values),
        seed=runs.settings_from("vote", values).seed,
    )
    return table, vote.reliability_table(samples), vote.headroom_verdict(table, available)


def _least_agreement(values: Mapping[str, Any]) -> float:
    """Return the agreement from which a vote is learned from: of the vote's and the training's limit the higher one."""
    parameters = decisive_parameters(values)
    return float(max(parameters["min_agreement"], parameters["train_min_agreement"]))


# --- before a training ----------------------------------------------------------------------------------------------


def line_before_training(values: Mapping[str, Any]) -> str:
    """Return the line that `crescent run` prints before 04: that of the run's preflight, else of its own votes.

    The votes alone hold no greedy answers, unless a preflight asked the run's own questions. "" where there is neither,
    as in a replay.
    """
    settings = runs.settings_from("vote", values)
    place = runs.run_folder(settings) / runs.PREFLIGHT / "verdict.json"
    if place.exists():
        recorded = json.loads(place.read_text(encoding="utf-8"))
        if recorded["parameters"] == decisive_parameters(values):
            return f"{recorded['line']} (preflight on {recorded['questions']:,} questions: {recorded['source']})"
    return _line_of_votes(values)


def _line_of_votes(values: Mapping[str, Any]) -> str:
    import pandas as pd

    settings = runs.settings_from("vote", values)
    folder = runs.run_folder(settings)
    if runs.read_manifest(folder, "vote") is None:
        return ""
    paths, labels, rejected = (runs.read_table(folder, "vote", name) for name in ("paths", "qa", "rejected"))
    golds = {n: gold for n, gold in zip(labels["id"], labels["gold"], strict=True) if isinstance(gold, str)}
    golds |= vote.known_golds(pd.concat([labels, rejected])[["id", "question"]], runs.get_domain(settings.domain))
    samples = vote.path_samples(paths, golds)
    table = vote.headroom_table(samples, min_agreement=_least_agreement(values), seed=settings.seed)
    rows = table.set_index("quantity")
    shown = [rows.loc[name] for name in ("kept", "labels_right", "agreement") if rows.loc[name, "n"]]
    facts = [f"{100 * row.estimate:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}] {row.sentence}" for row in shown]
    return f"{vote.headroom_verdict(table).line} (crescent preflight asks for them); {'; '.join(facts)}"
