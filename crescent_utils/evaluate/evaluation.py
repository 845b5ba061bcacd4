"""Evaluation: ask the models of a run every item of a benchmark, score the answers, and compare the models.

lm-evaluation-harness asks and scores; the answers come from the generation store (`harness.py`). A replay, which asks
nothing, reads the same answers without it. Each answer is scored in three ways side by side: strict, flexible and
symbolic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .. import benchmarks, generation, runs, stats
from ..runs import Evaluate
from . import harness
from .breakdown import gain_parts
from .prompts import Asked, asked_with

if TYPE_CHECKING:
    import pandas as pd

    from ..generation import Generator

PAIRS = (("base", "tuned"), ("student", "student_tuned"))  # before and after training, by label
SCORE_COLUMNS = [
    "benchmark",
    "kind",
    "model",
    "prompt",
    "shots",
    "decoding",
    "item",
    "sample",
    "seed",
    "question",
    "gold",
]
SCORE_COLUMNS += ["form", "completion", "answer", "strict", "flexible", "symbolic", "truncated"]
SHOWN = ["prompt", "baseline", "tuned", "benchmark", "shots", "decoding", "before", "after", "base_answer"]
SHOWN += ["n", "seeds", "share", "before_accuracy", "after_accuracy", "baseline_accuracy", "tuned_accuracy"]
SHOWN += ["difference", "gain", "p_value"]


def models_to_evaluate(settings: Evaluate) -> dict[str, generation.Model | None]:
    """Return the models to evaluate by label: base, tuned and, unless `student` is "none", student and student_tuned.

    After the tuned model comes the control, if the run's 04 has trained one. They are None in a replay, which needs no
    weights.
    """
    folder = runs.run_folder(settings)
    trained = runs.read_manifest(runs.run_of_stage("finetune", settings), "finetune") or {"models": {}}
    control = [runs.CONTROL] if runs.CONTROL in trained["models"] else []
    if settings.engine == "replay":
        own, *students = method_pairs(settings)
        return dict.fromkeys([*own, *control, *(label for pair in students for label in pair)])
    base = generation.resolve_model(settings.model)
    models: dict[str, generation.Model | None] = {
        "base": base,
        "tuned": generation.load_trained(folder / "finetune", base, "tuned"),
    }
    for label in control:
        models[label] = generation.load_trained(runs.control_folder(folder), base, label)
    if settings.student != runs.NO_STUDENT:
        untrained = generation.resolve_student(settings.student, base)
        models["student"] = untrained
        models["student_tuned"] = generation.load_trained(folder / "distil", untrained, "student_tuned")
    return models


def method_pairs(settings: Evaluate) -> tuple[tuple[str, str], ...]:
    """Return the method's own pairs, (before, after), by label: without a student the first alone."""
    return PAIRS[:1] if settings.student == runs.NO_STUDENT else PAIRS


def compared_pairs(settings: Evaluate, scores: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs (before, after) that are compared.

    They are the method's own, the base with the control if `scores` have one, and each ablated model with the whole's.
    """
    control = [("base", runs.CONTROL)] if (scores["model"] == runs.CONTROL).any() else []
    ablated = [(label, "student_tuned" if label.startswith("student") else "tuned") for label in settings.compare_runs]
    return [*method_pairs(settings), *control, *ablated]


def comparison_table(scores: pd.DataFrame, general: pd.DataFrame, settings: Evaluate) -> pd.DataFrame:
    """Compare every pair under every scoring, and on the general tasks under their metrics (`stats.compare_models`)."""
    import pandas as pd

    options: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    tables = []
    for before, after in compared_pairs(settings, scores):
        tables += [stats.compare_models(scores, before, after, scoring, **options) for scoring in benchmarks.SCORINGS]
        for metric, part in general.groupby("metric") if len(general) else []:
            tables.append(stats.compare_models(part, before, after, "score", **options).assign(scoring=metric))
    return pd.concat(tables, ignore_index=True)


def deciding_rows(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return the rows on which claims are judged: symbolic scoring, and the general tasks' own metrics."""
    return comparisons[~comparisons["scoring"].isin(["strict", "flexible"])]


def comparison_summary(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return a table of paired differences as a notebook shows it, narrow enough to be seen whole.

    Any of `comparisons`, `prompts`, `baselines` and `sources`: shares in percent, the difference in points with its
    interval beside it, p-values of three decimals. Names lose their underscores, so that they can wrap.
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in SHOWN:
        if name not in comparisons:
            continue
        values, title = comparisons[name], name.replace("_", " ")
        if name in ("difference", "gain"):
            columns[f"{title} (points)"] = _with_intervals(comparisons, name, "low", "high")
        elif name == "p_value":
            columns["p"] = [stats.p_text(p) for p in values]
        elif name == "share" or name.endswith("_accuracy"):
            columns[title] = ["" if math.isnan(share) else f"{share:.1%}" for share in values]
        else:
            columns[title] = values if values.dtype.kind in "iu" else values.str.replace("_", " ")
    return pd.DataFrame(columns, index=comparisons.index)


def _with_intervals(table: pd.DataFrame, name: str, low: str, high: str) -> list[str]:
    """Return the differences of column `name` in points, each with its interval if it has one."""
    return [stats.points_text(*ends) for ends in table[[name, low, high]].to_numpy(float)]


def parts_table(scores: pd.DataFrame, settings: Evaluate) -> pd.DataFrame:
    """Split the gain of every pair into its reasoning and its format part; see `gain_parts`."""
    import pandas as pd

    tables = [gain_parts(scores, before, after) for before, after in compared_pairs(settings, scores)]
    return pd.concat(tables, ignore_index=True)


def parts_summary(parts: pd.DataFrame, before: str = "base") -> pd.DataFrame:
    """Return the parts of the gains over the model `before` as a notebook shows them, in points with their intervals.

    `right value` is the reasoning part, `written as asked` the format part.
    """
    rows = parts[parts["before"] == before]
    named = rows[["benchmark", "shots", "decoding", "after", "scoring", "n", "seeds"]]
    return named.assign(
        benchmark=named["benchmark"].str.replace("_", " "),
        after=named["after"].str.replace("_", " "),
        **{
            "gain (points)": [f"{100 * gain + 0.0:+.1f}" for gain in rows["gain"]],
            "right value": _with_intervals(rows, "reasoning", "reasoning_low", "reasoning_high"),
            "written as asked": _with_intervals(rows, "format", "format_low", "format_high"),
        },
    )


def answer_benchmark(
    generator: Generator, benchmark: benchmarks.Benchmark, settings: Evaluate, domain: runs.Domain
) -> pd.DataFrame:
    """Have the generator's model answer every item, and return the table `scores` (one row per answer).

    Every model answers the headline prompt greedily, with each number of `shots`; base and tuned also `eval_samples`
    times at `eval_temperature`, and once greedily each further prompt of `eval_prompts` (see `prompts.py`). The worked
    examples are the first of the benchmark's training items, the same for every item. Raises BenchmarkError if there
    are too few of them.
    """
    import pandas as pd

    if max(settings.shots) > len(benchmark.train):  # the harness would take them from the tested items
        raise benchmarks.BenchmarkError(
            f"shots: {max(settings.shots)} is too many for {benchmark.name}, "
            f"which has {len(benchmark.train)} worked examples"
        )
    label = generator.model.label
    headline, *others = settings.eval_prompts
    conditions = [(headline, shots, *how) for shots in settings.shots for how in _decodings(settings, label)]
    if label in PAIRS[0]:
        conditions += [(prompt, 0, "greedy", 0.0, 1) for prompt in others]
    rows: list[dict[str, Any]] = []
    for prompt, shots, decoding, temperature, repeats in conditions:
        asked = asked_with(prompt, benchmark, settings, domain, shots)
        condition = {"benchmark": benchmark.name, "model": label, "prompt": prompt, "shots": shots}
        condition |= {"decoding": decoding, "seed": settings.seed}
        rows += [row | condition for row in answer_rows(generator, asked, settings, temperature, repeats)]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def _decodings(settings: Evaluate, label: str) -> list[tuple[str, float, int]]:
    """Return name, temperature and number of samples of each decoding of a model.

    A student and the control are judged on greedy answers alone: sampling too would cost a minute of the CPU run. Ours.
    """
    if not settings.eval_samples or label not in PAIRS[0]:
        return [("greedy", 0.0, 1)]
    return [("greedy", 0.0, 1), ("sampled", settings.eval_temperature, settings.eval_samples)]


def answer_rows(
    generator: Generator, asked: Asked, settings: Evaluate, temperature: float, repeats: int
) -> list[dict[str, Any]]:
    """Return the answers to all items of `asked`, one row per item and sample, sorted by both."""
    complete = _stored_completions if settings.engine == "replay" else _completions_by_harness
    completions = complete(generator, asked, settings, temperature, repeats)
    rows = []
    for number, (item, samples) in enumerate(zip(asked.benchmark.items, completions, strict=True)):
        for sample, completion in enumerate(samples):
            row = {"kind": item.kind, "item": number, "question": item.question, "gold": item.gold, "form": item.form}
            row |= {"sample": sample, "completion": completion.text, "truncated": completion.truncated}
            row["answer"] = benchmarks.read_scored_answer(completion.text, item.form)
            rows.append(row | benchmarks.score_answer(completion.text, item.gold, item.form))
    return rows


def _completions_by_harness(
    generator: Generator, asked: Asked, settings: Evaluate, temperature: float, repeats: int
) -> list[list[generation.Completion]]:
    """Return `repeats` completions of each item, for which lm-evaluation-harness asks."""
    model = harness.store_model(generator, repeats)
    options = {"do_sample": temperature > 0, "temperature": temperature, "until": list(asked.stop)}
    task = benchmarks.harness_task(
        asked.benchmark,
        lambda question: runs.solve_messages(asked.domain, question)[-1]["content"],
        repeats=repeats,
        generation={**options, "max_gen_toks": settings.eval_max_tokens},
    )
    system = settings.system_prompt or asked.domain.solve_system or None
    result = harness.run_task(model, task, shots=asked.shots, chat=True, system=system)
    logged = sorted(result["samples"][asked.benchmark.name], key=lambda sample: sample["doc"]["item"])
    contexts = [sample["arguments"][0][0] for sample in logged]
    return [[model.completions[context, sample] for sample in range(repeats)] for context in contexts]


def _stored_completions(
    generator: Generator, asked: Asked, settings: Evaluate, temperature: float, repeats: int
) -> list[list[generation.Completion]]:
    """Return `repeats` completions of each item out of the store: those for which the harness would ask.

    Nothing is left for the harness to do in a replay, and its start takes longer than reading all answers.
    """
    items = asked.benchmark.items
    return generator.generate(
        [asked.request(generator, item.question, settings, temperature) for item in items], repeats
    )
