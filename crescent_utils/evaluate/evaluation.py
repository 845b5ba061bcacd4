"""Evaluation: run a model over benchmarks with lm-evaluation-harness, its answers coming from the generation store.

Each answer is scored in three ways side by side, see `scoring.py`. `general` runs the harness's own tasks, for general ability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import benchmarks, generation, runs, stats
from ..generation import Sampling
from ..runs import Evaluate
from . import harness

if TYPE_CHECKING:
    import pandas as pd

    from ..generation import Generator

PAIRS = (("base", "tuned"), ("student", "student_tuned"))  # before and after, by label


def models_to_evaluate(settings: Evaluate) -> dict[str, generation.Model | None]:
    """Return the models to evaluate by label: base, tuned and, unless `student` is "none", student and student_tuned.

    They are None in a replay, which needs no weights.
    """
    if settings.engine == "replay":
        return dict.fromkeys(label for pair in method_pairs(settings) for label in pair)
    folder = runs.run_folder(settings)
    base = generation.resolve_model(settings.model)
    found: dict[str, generation.Model | None] = {
        "base": base,
        "tuned": generation.load_trained(folder / "finetune", base, "tuned"),
    }
    if settings.student != runs.NO_STUDENT:
        untrained = generation.resolve_student(settings.student, base)
        found |= {
            "student": untrained,
            "student_tuned": generation.load_trained(folder / "distil", untrained, "student_tuned"),
        }
    return found


def method_pairs(settings: Evaluate) -> tuple[tuple[str, str], ...]:
    """Return the method's own pairs, (before, after), by label: without a student the first alone."""
    return PAIRS[:1] if settings.student == runs.NO_STUDENT else PAIRS


# What two runs must share for their answers to be pooled or compared: how the questions were put and how the answers were drawn.
SAME = ("model", "domain", "system_prompt", "solve_prompt", "eval_samples", "eval_temperature", "eval_max_tokens")


def pooled_scores(own: pd.DataFrame, settings: Evaluate, table: str = "scores") -> pd.DataFrame:
    """Put table `table` of `other_runs`, and the ablated models of `compare_runs`, beside this run's.

    Raises RunError where a run answered other items or in another way (SAME), or has a seed that is there already.
    """
    import pandas as pd

    frames, seen = [own], {settings.seed}
    for name in settings.other_runs:
        other = _comparable(own, settings, "other_runs", name, table)
        seeds = set(other["seed"].unique().tolist())
        if seeds & seen:
            raise runs.RunError(f"other_runs: {name!r} has seed {min(seeds & seen)} as well; a seed counts once")
        seen |= seeds
        frames.append(other[other["model"].isin(own["model"])])  # no student here: none of theirs
    for label, names in settings.compare_runs.items():
        seen = set()
        for name in names:
            other = _comparable(own, settings, "compare_runs", name, table)
            other = other[other["model"] == ("student_tuned" if label.startswith("student") else "tuned")]
            seeds = set(other["seed"].unique().tolist())
            if seeds & seen:
                raise runs.RunError(
                    f"compare_runs: {label}: {name!r} has seed {min(seeds & seen)} as well; a seed counts once"
                )
            seen |= seeds
            frames.append(other.assign(model=label))
    whole = pd.concat(frames, ignore_index=True)
    for name, usual in (("kind", ""), ("form", "number")):  # tables of runs from before these columns
        if name in whole:
            whole[name] = whole[name].fillna(usual)
    return whole


def _comparable(own: pd.DataFrame, settings: Evaluate, parameter: str, name: str, table: str) -> pd.DataFrame:
    """Read `table` of run `name`, or raise RunError saying why it cannot stand beside `own`."""
    folder = runs.run_folder(settings, name)
    other = runs.read_table(folder, "evaluate", table)
    manifest = runs.read_manifest(folder, "evaluate")
    for different, value, wanted in runs.differing_parameters(manifest, settings, SAME) if manifest else []:
        content = " of another content" if value == wanted else ""
        raise runs.RunError(
            f"{parameter}: {name!r} was evaluated with {different} = {value!r}{content}, this run with {wanted!r}; "
            "evaluate both in the same way"
        )
    for wanted_keys in (["benchmark", "question"], ["benchmark", "shots", "decoding"]):
        keys = [key for key in wanted_keys if key in own and key in other]
        if set(own[keys].itertuples(index=False, name=None)) != set(other[keys].itertuples(index=False, name=None)):
            what = "items" if "question" in keys else "shots or decodings"
            raise runs.RunError(
                f"{parameter}: {name!r} answered other {what}; evaluate it with the same benchmark parameters"
            )
    return other


def comparison_table(scores: pd.DataFrame, general: pd.DataFrame, settings: Evaluate) -> pd.DataFrame:
    """Compare every pair under every scoring, and on the general tasks under their own metric; see `stats.compare`."""
    import pandas as pd

    options: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    tables = []
    for before, after in compared_pairs(settings):
        tables += [stats.compare_models(scores, before, after, how, **options) for how in benchmarks.SCORINGS]
        for metric, part in general.groupby("metric") if len(general) else []:
            found = stats.compare_models(part, before, after, "score", **options)
            tables.append(found.assign(scoring=metric))
    return pd.concat(tables, ignore_index=True)


def compared_pairs(settings: Evaluate) -> list[tuple[str, str]]:
    """Return who is compared with whom, (before, after): the method's own pairs, and each ablated model with the whole method's."""
    ablated = [(label, "student_tuned" if label.startswith("student") else "tuned") for label in settings.compare_runs]
    return [*method_pairs(settings), *ablated]


def answer_benchmark(
    generator: Generator, benchmark: benchmarks.Benchmark, settings: Evaluate, domain: runs.Domain
) -> pd.DataFrame:
    """Answer every item greedily and, if `eval_samples` is set, base and tuned so many times at `eval_temperature`; a row an answer.

    Each number of `shots` is asked by itself; the worked examples are the first of the benchmark's training items, fixed.
    """
    import pandas as pd

    if max(settings.shots) > len(benchmark.train):  # the harness would take them from the tested items
        raise benchmarks.BenchmarkError(
            f"shots: {max(settings.shots)} is too many for {benchmark.name}, which has {len(benchmark.train)} worked examples"
        )
    domain = _worded(benchmark, domain)
    rows: list[dict[str, Any]] = []
    for shots in settings.shots:
        for decoding, temperature, repeats in _decodings(settings, generator.model.label):
            sampling = Sampling(temperature, 1.0, settings.eval_max_tokens)
            rows += _run(generator, benchmark, settings, domain, shots, sampling, decoding, repeats)
    return pd.DataFrame(rows)


def _decodings(settings: Evaluate, label: str) -> list[tuple[str, float, int]]:
    """A student is judged on its greedy answers alone: sampling them too would cost a minute of the CPU run. Ours."""
    if not settings.eval_samples or label not in PAIRS[0]:
        return [("greedy", 0.0, 1)]
    return [("greedy", 0.0, 1), ("sampled", settings.eval_temperature, settings.eval_samples)]


def _run(
    generator: Generator,
    benchmark: benchmarks.Benchmark,
    settings: Evaluate,
    domain: runs.Domain,
    shots: int,
    sampling: Sampling,
    decoding: str,
    repeats: int,
) -> list[dict[str, Any]]:
    model = harness.store_model(generator, repeats)
    task = benchmarks.harness_task(
        benchmark, lambda question: runs.solve_messages(domain, question)[-1]["content"], benchmarks.score_answer, repeats=repeats,
        generation={"until": [], "do_sample": sampling.temperature > 0, "temperature": sampling.temperature,
                    "max_gen_toks": sampling.max_tokens},
    )  # fmt: skip
    system = settings.system_prompt or domain.solve_system or None
    result = harness.run_task(model, task, shots=shots, chat=True, system=system)
    rows = []
    for logged in result["samples"][benchmark.name]:
        context, doc = logged["arguments"][0][0], logged["doc"]
        for sample in range(repeats):
            completion = model.made[context, sample]
            rows.append({
                "benchmark": benchmark.name, "kind": doc["kind"], "model": generator.model.label, "shots": shots,
                "decoding": decoding, "item": doc["item"], "sample": sample, "seed": settings.seed,
                "question": doc["question"], "gold": doc["gold"], "form": doc["form"], "completion": completion.text,
                "answer": benchmarks.read_scored_answer(completion.text, doc["form"]),
                **benchmarks.score_answer(completion.text, doc["gold"], doc["form"]), "truncated": completion.truncated,
            })  # fmt: skip
    return sorted(rows, key=lambda row: (row["item"], row["sample"]))


def first_prompt(benchmark: benchmarks.Benchmark, settings: Evaluate, domain: runs.Domain) -> list[dict[str, str]]:
    """Return the chat in which the first item is asked, worked examples and all, for a notebook to show."""
    domain = _worded(benchmark, domain)
    chat = runs.solve_messages(domain, "{question}", settings.system_prompt)[:-1]
    for item in benchmark.train[: max(settings.shots)]:
        chat.append(runs.solve_messages(domain, item.question)[-1])
        chat.append({"role": "assistant", "content": item.solution or item.gold})
    return [*chat, runs.solve_messages(domain, benchmark.items[0].question)[-1]]


def _worded(benchmark: benchmarks.Benchmark, domain: runs.Domain) -> runs.Domain:
    """The domain's wording, unless the benchmark has its own: "the final number" says nothing where letters are asked for."""
    return (
        domain.model_copy(update={"solve_prompt": benchmark.solve, "solve_system": ""}) if benchmark.solve else domain
    )
