"""Preflight: can this model lift itself here, and how far? Asked of some items before a run, or of its own votes.

Some held-out items are asked greedily and as often as the vote asks, with the vote's own prompt, temperature and token
limit, and once more greedily as the evaluation asks them, where that is another prompt. All of it goes through the
run's generation store: what a later run asks alike is there already. The tables stand in `outputs/<run>/preflight/`:
`headroom` (see `vote.headroom_table`), `samples` (id, question, gold, benchmark, sample, path, answer, cut, right,
log_path, log_answer), `greedy` (the same of the greedy answers, with their `prompt`), `exemplars` (those of
`vote_shots`), `reliability`, and `verdict.json`. Ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import benchmarks, evaluate, generation, runs, vote
from ..generation import Completion, Request, Sampling
from .kernel import bars_alone

if TYPE_CHECKING:
    import pandas as pd

VOTED_FORMS = ("number", "choice")  # forms of an answer that a vote can count
OWN = benchmarks.Benchmark("", (), (), "the run's own questions")  # these are asked in the domain's words
# What decides the line: a preflight of a run that differs in one of these says nothing of it. Of `eval_prompts` the
# first alone does.
DECISIVE = """
    model domain protocol seed system_prompt solve_prompt vote_shots own_questions own_shots votes vote_temperature
    vote_top_p vote_max_tokens min_agreement train_min_agreement eval_prompts eval_max_tokens evaluate_on
""".split()


@dataclass(frozen=True)
class Questions:
    """The questions that are asked: `table` (id, question, gold, benchmark), where they are from, how many there are.

    `loaded` are the benchmarks that the column names; the run's own questions have the name "".
    """

    table: pd.DataFrame
    source: str
    available: int
    loaded: dict[str, benchmarks.Benchmark] = field(default_factory=lambda: {OWN.name: OWN})


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
    answers, table, reliability, end = record(values, questions, with_likelihoods=not arguments.no_likelihoods)
    if len(answers.exemplars):
        print(f"\nworked examples before each question\n{answers.exemplars.to_string(index=False)}")
    print(f"\n{vote.headroom_text(table)}")
    if len(reliability):
        print(f"\nmajorities that are right, by agreement\n{reliability.round(3).to_string(index=False)}")
    folder = runs.run_folder(settings) / runs.PREFLIGHT
    print(f"\ntables: {runs.shown_path(folder)}; {time.monotonic() - began:.0f} s\n{end.line}")
    return 0


def record(
    values: Mapping[str, Any], questions: Questions, *, with_likelihoods: bool = True
) -> tuple[Answers, pd.DataFrame, pd.DataFrame, vote.Verdict]:
    """Ask the questions and write the tables of this module's first lines; return the answers, and what they say."""
    folder = runs.run_folder(runs.settings_from("vote", values)) / runs.PREFLIGHT
    try:
        with bars_alone(folder / "preflight.log", "  preflight   "):
            answers = ask(values, questions, with_likelihoods=with_likelihoods)
    except generation.ReplayMiss as error:
        raise runs.RunError(f"engine: {error}") from None
    table, reliability, end = judge(values, answers, questions.available)
    for name, frame in (vars(answers) | {"reliability": reliability, "headroom": table}).items():
        runs.write_table(folder, name, frame)
    runs.write_json(
        folder / "verdict.json",
        {
            "word": end.word, "line": end.line, "questions": len(answers.greedy["id"].unique()),
            "source": questions.source,
            "parameters": decisive_parameters(values),
        },
    )  # fmt: skip
    return answers, table, reliability, end


def recorded_verdict(folder: Path) -> dict[str, Any]:
    """Return what verdict.json of the preflight in the run's `folder` holds; {} where there is none to be read."""
    try:
        return dict(json.loads((folder / runs.PREFLIGHT / "verdict.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def decisive_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that decide what a preflight says, defaults included."""
    parameters: dict[str, Any] = {}
    for stage in ("evaluate", "finetune", "vote"):
        parameters |= runs.settings_from(stage, values).model_dump()
    parameters["eval_prompts"] = parameters["eval_prompts"][:1]
    parameters["evaluate_on"] = list(parameters["evaluate_on"] or runs.get_domain(parameters["domain"]).benchmarks)
    return {name: parameters[name] for name in DECISIVE}


# --- the questions --------------------------------------------------------------------------------------------------


def chosen_questions(values: Mapping[str, Any], items: int, *, own: bool = False) -> Questions:
    """Return at most `items` questions to ask, drawn by the seed, and never one of a test split.

    They are dev items of the run's benchmarks; of a benchmark without a dev split its training items. With `own`, and
    where no benchmark has either, they are the run's own questions: the finished pool of 02, or `question_source`.
    """
    settings = runs.settings_from("evaluate", values)
    pairs: dict[tuple[str, str], str] = {}  # question and gold, by benchmark: they may share their training items
    loaded: dict[str, benchmarks.Benchmark] = {}
    sources: list[str] = []
    for name in () if own else settings.evaluate_on or runs.get_domain(settings.domain).benchmarks:
        benchmark, held_out, split = _held_out_items(name, settings)
        if held_out:
            loaded[name] = benchmark
            for item in held_out:
                if item.form in VOTED_FORMS:
                    pairs.setdefault((item.question, item.gold), name)
            sources.append(f"{name}, {split}")
    if not pairs:
        return _own_questions(values, items)
    rows = [(*pair, name) for pair, name in pairs.items()]
    drawn = _drawn(len(rows), items, settings.seed)
    return Questions(_table([(i, *rows[i]) for i in drawn]), "; ".join(sources), len(rows), loaded)


def _held_out_items(name: str, settings: runs.Evaluate) -> tuple[benchmarks.Benchmark, Sequence[benchmarks.Item], str]:
    options: dict[str, Any] = {"folder": settings.benchmark_dir, "seed": settings.benchmark_seed}
    try:
        benchmark = benchmarks.load_benchmark(name, split="dev", items=settings.benchmark_items, **options)
        return benchmark, benchmark.items, "dev split"
    except benchmarks.BenchmarkError:  # published ones have none; their training items were never tested either
        benchmark = benchmarks.load_benchmark(name, **options)
        return benchmark, benchmark.train, "training items"


def _own_questions(values: Mapping[str, Any], items: int) -> Questions:
    settings = runs.settings_from("vote", values)
    domain = runs.get_domain(settings.domain)
    if settings.question_source == "pool":
        pool, source = runs.read_table(runs.run_folder(settings), "dedup", "questions"), "the run's pool"
    else:
        unlabelled = vote.load_unlabelled(settings, benchmarks.load_held_out(settings, domain))
        pool, source = unlabelled.questions, unlabelled.source
    golds = vote.known_golds(pool, domain)
    numbered = zip(pool["id"], pool["question"], strict=True)
    rows = [(number, text, golds.get(number), OWN.name) for number, text in numbered]
    drawn = _drawn(len(rows), items, settings.seed)
    return Questions(_table([rows[i] for i in drawn]), source, len(rows))


def _drawn(available: int, items: int, seed: int) -> list[int]:
    return sorted(random.Random(f"preflight {seed}").sample(range(available), min(items, available)))


def _table(rows: Sequence[tuple[int, str, str | None, str]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=["id", "question", "gold", "benchmark"])


# --- asking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What was answered: the samples, the greedy answers (`prompt` "vote" or "evaluated"), and the worked examples."""

    samples: pd.DataFrame
    greedy: pd.DataFrame
    exemplars: pd.DataFrame


def ask(values: Mapping[str, Any], questions: Questions, *, with_likelihoods: bool = True) -> Answers:
    """Sample what the store lacks. Where the evaluation asks as the vote does, it is not asked by itself.

    A question that a worked example asks is left out, as in the vote.
    """
    import pandas as pd

    settings = runs.settings_from("vote", values)
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    sampling = Sampling(settings.vote_temperature, settings.vote_top_p, settings.vote_max_tokens)
    with generation.open_generator(settings) as generator:
        table, exemplars = worked_examples(generator, values, questions.table)
        questions = replace(questions, table=_not_asked_by(exemplars, questions.table))
        if questions.table.empty:
            raise runs.ParameterError("-n: each of so few questions serves as a worked example; ask more")
        texts = questions.table["question"]
        chats = [runs.solve_messages(domain, text, settings.system_prompt, exemplars) for text in texts]
        requests = [generator.request(chat, sampling) for chat in chats]
        prompts = {"vote": [generator.request(chat, Sampling(0.0, 1.0, sampling.max_tokens)) for chat in chats]}
        evaluated = evaluated_requests(generator, values, questions, exemplars)
        if evaluated != prompts["vote"]:
            prompts["evaluated"] = evaluated
        pairs = [(request, 0) for of_prompt in prompts.values() for request in of_prompt]
        pairs += [(request, sample) for request in requests for sample in range(settings.votes)]
        completions = generator.complete(pairs)  # all together: an engine is fastest with many at once
        model = generator.model
    size = len(requests)
    greedy = [
        _rows(questions.table, completions[i * size : (i + 1) * size], domain).assign(prompt=prompt)
        for i, prompt in enumerate(prompts)
    ]
    samples = _rows(questions.table, completions[len(prompts) * size :], domain, settings.protocol)
    if with_likelihoods:
        samples = _with_likelihoods(settings, model, requests, samples)
    return Answers(samples, pd.concat(greedy, ignore_index=True), table)


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
    examples = vote.worked_examples(generator, candidates, settings, domain)
    return examples.table, examples.exemplars


def _not_asked_by(exemplars: Sequence[runs.Exemplar], questions: pd.DataFrame) -> pd.DataFrame:
    keys = {benchmarks.overlap_key(exemplar.question) for exemplar in exemplars}
    return questions[~questions["question"].map(benchmarks.overlap_key).isin(keys)].reset_index(drop=True)


def evaluated_requests(
    generator: generation.Generator, values: Mapping[str, Any], questions: Questions, exemplars: Sequence[runs.Exemplar]
) -> list[Request]:
    """Return each question as the evaluation asks it first, greedily: what a gain will be counted from.

    It is asked with the first of `eval_prompts` and without the benchmark's worked examples (`shots`). Where the vote's
    `exemplars` are the model's own, they are those that the prompt `own` shows.
    """
    settings = runs.settings_from("evaluate", values)
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt)
    own = exemplars if runs.settings_from("vote", values).vote_shots == "own" else ()
    asked = {
        name: evaluate.asked_with(settings.eval_prompts[0], benchmark, settings, domain, own=own)
        for name, benchmark in questions.loaded.items()
    }
    named = zip(questions.table["question"], questions.table["benchmark"], strict=True)
    return [asked[name].request(generator, text, settings) for text, name in named]


def _rows(
    questions: pd.DataFrame, completions: Sequence[Completion], domain: runs.Domain, protocol: str = ""
) -> pd.DataFrame:
    """Return one row per completion, of which each question has equally many: its answer, and whether it is right.

    With a `protocol` they are read as its votes: one that the token limit cut has no answer, except in `released`. Else
    they are read as the evaluation reads them, cut or not.
    """
    import pandas as pd

    repeats = len(completions) // len(questions)
    table = questions.loc[questions.index.repeat(repeats)].reset_index(drop=True)
    table["sample"] = list(range(repeats)) * len(questions)
    table["path"] = [done.text for done in completions]
    table["cut"] = [done.truncated for done in completions]
    cut = table["cut"] if protocol else [False] * len(table)
    read = vote.read_voters(table["path"], cut, protocol or "paper", domain.answer_type)
    golds = {n: gold for n, gold in zip(table["id"], table["gold"], strict=True) if isinstance(gold, str)}
    judged = vote.answer_samples(list(table["id"]), read, golds)
    return pd.concat([table, judged[["answer", "right"]]], axis=1)


def _with_likelihoods(
    settings: runs.Vote, model: generation.Model, requests: Sequence[Request], samples: pd.DataFrame
) -> pd.DataFrame:
    """Return the samples with log p of each path and of its answer, read by the model once more."""
    if settings.engine not in ("replay", "server"):  # these compute none
        print(
            f"likelihoods: the model reads each of the {len(samples):,} samples once more, for how likely it finds the "
            "sample and its answer (rows gap_log_path, gap_log_answer); --no-likelihoods leaves them out",
            flush=True,
        )
    texts = samples.groupby("id", sort=False)["path"].agg(list)
    read = samples.groupby("id", sort=False)["answer"].agg(list)
    scores = vote.verifier_likelihoods(settings, model, requests, list(texts), list(read))
    flat = [pair for of_question in scores for pair in of_question]
    return samples.assign(log_path=[pair[0] for pair in flat], log_answer=[pair[1] for pair in flat])


def judge(
    values: Mapping[str, Any], answers: Answers, available: int
) -> tuple[pd.DataFrame, pd.DataFrame, vote.Verdict]:
    """Return the tables `headroom` and `reliability` of the answers, and the verdict."""
    samples, greedy = (table.assign(question=table["id"]) for table in (answers.samples, answers.greedy))
    seed = runs.settings_from("vote", values).seed
    table = vote.headroom_table(samples, greedy, min_agreement=_least_agreement(values), seed=seed)
    return table, vote.reliability_table(samples), vote.headroom_verdict(table, available, option="-n")


def _least_agreement(values: Mapping[str, Any]) -> float:
    """Return the agreement from which a vote is learned from: of the vote's and the training's limit the higher one."""
    parameters = decisive_parameters(values)
    return float(max(parameters["min_agreement"], parameters["train_min_agreement"]))


# --- before a training ----------------------------------------------------------------------------------------------


def line_before_training(values: Mapping[str, Any], command: str = "") -> str:
    """Return the line that `crescent run` prints before 04: that of the run's preflight, else of its own votes.

    Votes hold no greedy answers, so their line names the `command` that asks for some. "" where there is neither a
    preflight of these parameters nor a vote, as in a replay.
    """
    settings = runs.settings_from("vote", values)
    folder = runs.run_folder(settings)
    other = ""
    if recorded := recorded_verdict(folder):
        parameters = decisive_parameters(values)
        if recorded["parameters"] == parameters:
            return f"{recorded['line']} (preflight on {recorded['questions']:,} questions: {recorded['source']})"
        then = [
            f"{name} = {recorded['parameters'].get(name, 'unknown')!r} in the place of {value!r}"
            for name, value in parameters.items()
            if recorded["parameters"].get(name) != value
        ]
        other = f" (the preflight that is there asked with {', '.join(then)})"
    if runs.read_manifest(folder, "vote") is None:
        return ""
    samples = _voted_samples(folder, runs.get_domain(settings.domain))
    table = vote.headroom_table(samples, min_agreement=_least_agreement(values), seed=settings.seed)
    told_by = f"`{command}`" if command else "`crescent preflight` with the parameters of this run"
    line = f"{vote.headroom_verdict(table).line}. {told_by} asks for greedy answers, and tells{other}."
    return f"{line} What the vote alone shows: {_shown_by_votes(table)}"


def _voted_samples(folder: Path, domain: runs.Domain) -> pd.DataFrame:
    """Return the paths of a run's vote as a table of samples, with what is known of the right answers."""
    import pandas as pd

    paths, labels, rejected = (runs.read_table(folder, "vote", name) for name in ("paths", "qa", "rejected"))
    golds = {n: gold for n, gold in zip(labels["id"], labels["gold"], strict=True) if isinstance(gold, str)}
    golds |= vote.known_golds(pd.concat([labels, rejected])[["id", "question"]], domain)
    return vote.path_samples(paths, golds)


def _shown_by_votes(table: pd.DataFrame) -> str:
    """Say what needs no greedy answers: how much is learned from, how right that is, what the majority adds."""
    rows = table.set_index("quantity")
    gap = rows.loc["gap_vote"]
    shown = [rows.loc[name] for name in (("kept", "labels_right") if gap.n else ("kept", "agreement"))]
    facts = [
        f"{100 * row.estimate:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}] {row.sentence.partition(' (')[0]}"
        for row in shown
    ]
    if gap.n:
        points = f"{100 * gap.estimate:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        facts.append(f"{points} for the majority over a single sample (n = {gap.n:,} with a known right answer)")
    return "; ".join(facts)
