"""Baselines: what the untrained model reaches with a better prompt or a lower temperature, beside the tuned model.

What is chosen for the base is chosen on development items, never on the tested ones:

- `best_prompt`: the zero-shot prompt with which the base's greedy answers are right most often, of solve, bare, stock
  and the domain's `prompts`. A gain over a bad prompt is then seen as such.
- `matched_temperature`: training sharpens a model, so that one sample of the tuned model is not drawn as the base's is
  at the same temperature. The temperature is chosen at which two samples of the base give the same answer as often as
  two of the tuned model do at `eval_temperature`. This needs no golds. Ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import answers, benchmarks, runs, stats
from ..runs import Domain, Evaluate
from .evaluation import PAIRS, SCORE_COLUMNS, answer_rows
from .prompts import ZERO_SHOT, asked_with

if TYPE_CHECKING:
    import pandas as pd

    from ..generation import Generator

DEVELOPMENT_ITEMS = 100  # ours: of each benchmark, to choose on
TEMPERATURES = (0.2, 0.35, 0.5)  # ours: tried for the base, beside eval_temperature
DEVELOPMENT_COLUMNS = ["benchmark", "model", "prompt", "temperature", "item", "sample", "answer", "symbolic"]
BASELINE_COLUMNS = ["baseline", "tuned", "benchmark", "n", "seeds", "baseline_accuracy", "tuned_accuracy"]
BASELINE_COLUMNS += ["difference", "low", "high", "p_value"]


@dataclass(frozen=True)
class Choices:
    """What was chosen for the base on development items, by benchmark; `items` is their number."""

    prompts: dict[str, str] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)


def answer_development(generator: Generator, settings: Evaluate, domain: Domain) -> pd.DataFrame:
    """Return the answers to the development items from which `choose_baselines` chooses; none where nothing is chosen.

    The base answers greedily under each zero-shot prompt; base and tuned model are sampled twice at each temperature.
    """
    import pandas as pd

    label = generator.model.label
    conditions = development_conditions(settings, domain, label)
    rows: list[dict[str, Any]] = []
    for benchmark in benchmarks.load_development(settings, domain, DEVELOPMENT_ITEMS) if conditions else []:
        for prompt, heat, repeats in conditions:
            asked = asked_with(prompt, benchmark, settings, domain)
            condition = {"benchmark": benchmark.name, "model": label, "prompt": prompt, "temperature": heat}
            rows += [row | condition for row in answer_rows(generator, asked, settings, heat, repeats)]
    return pd.DataFrame(rows, columns=DEVELOPMENT_COLUMNS)


def development_conditions(settings: Evaluate, domain: Domain, label: str) -> list[tuple[str, float, int]]:
    """Return how the model `label` is asked each development item: prompt, temperature and number of samples."""
    conditions: list[tuple[str, float, int]] = []
    if settings.best_prompt and label == "base":
        conditions += [(prompt, 0.0, 1) for prompt in candidate_prompts(domain)]
    if settings.matched_temperature and label in PAIRS[0]:
        lower = [heat for heat in TEMPERATURES if heat < settings.eval_temperature] if label == "base" else []
        heats = [*lower, settings.eval_temperature]
        conditions += [(settings.eval_prompts[0], heat, 2 if heat else 1) for heat in heats]
    return conditions


def candidate_prompts(domain: Domain) -> list[str]:
    """Return the zero-shot prompts that are tried for the base: solve, bare, stock, and the domain's wordings."""
    return [*ZERO_SHOT, *domain.prompts]


def development_summary(development: pd.DataFrame) -> pd.DataFrame:
    """Return one row per benchmark, model, prompt and temperature: the share right, and how often two samples agree."""
    import pandas as pd

    rows = []
    keys = ["benchmark", "model", "prompt", "temperature"]
    for key, part in development.groupby(keys, sort=False):
        pairs = [answers.equality_classes(item.sort_values("sample")["answer"]) for _, item in part.groupby("item")]
        agree = [pair[0] is not None and pair[0] == pair[1] for pair in pairs if len(pair) == 2]
        row = dict(zip(keys, key, strict=True)) | {"n": len(pairs), "right": part["symbolic"].astype(float).mean()}
        rows.append(row | {"two agree": sum(agree) / len(agree) if agree else float("nan")})
    return pd.DataFrame(rows, columns=[*keys, "n", "right", "two agree"])


def choose_baselines(development: pd.DataFrame, settings: Evaluate) -> Choices:
    """Return the base's best prompt and its matched temperature for each benchmark; a tie goes to the first tried."""
    summary = development_summary(development)
    choices = Choices()
    for name, part in summary.groupby("benchmark", sort=False):
        base, tuned = (part[part["model"] == label] for label in PAIRS[0])
        choices.items[name] = int(part["n"].max())
        greedy = base[base["temperature"] == 0]
        if settings.best_prompt and len(greedy):
            choices.prompts[name] = str(greedy.loc[greedy["right"].idxmax(), "prompt"])
        sampled = base[base["temperature"] > 0]
        if settings.matched_temperature and len(sampled) and len(tuned):
            distance = (sampled["two agree"] - tuned["two agree"].iloc[0]).abs()
            choices.temperatures[name] = float(sampled.loc[distance.idxmin(), "temperature"])
    return choices


def answer_baselines(
    generator: Generator, benchmark: benchmarks.Benchmark, settings: Evaluate, domain: Domain, choices: Choices
) -> pd.DataFrame:
    """Have the base answer the tested items as was chosen; return rows of `scores`.

    Those with the best prompt have the prompt "best", those at the matched temperature the decoding "matched".
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    same = {"benchmark": benchmark.name, "model": generator.model.label, "shots": 0, "seed": settings.seed}
    if benchmark.name in choices.prompts:
        asked = asked_with(choices.prompts[benchmark.name], benchmark, settings, domain)
        best = {"prompt": "best", "decoding": "greedy"}
        rows += [row | same | best for row in answer_rows(generator, asked, settings, 0.0, 1)]
    if benchmark.name in choices.temperatures and settings.eval_samples:
        headline, heat = settings.eval_prompts[0], choices.temperatures[benchmark.name]
        asked = asked_with(headline, benchmark, settings, domain)
        matched = {"prompt": headline, "decoding": "matched"}
        sampled = answer_rows(generator, asked, settings, heat, settings.eval_samples)
        rows += [row | same | matched for row in sampled]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def prompt_table(scores: pd.DataFrame, settings: Evaluate) -> pd.DataFrame:
    """Return base against tuned model under each of `eval_prompts`, greedily and without the benchmark's examples.

    Columns as in `comparisons`, and `prompt` before them.
    """
    import pandas as pd

    greedy = scores[(scores["decoding"] == "greedy") & (scores["shots"] == 0)]
    tables = []
    for prompt in settings.eval_prompts:
        table = stats.compare_models(greedy[greedy["prompt"] == prompt], *PAIRS[0], seed=settings.seed)
        table.insert(0, "prompt", prompt)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def baseline_table(scores: pd.DataFrame, settings: Evaluate, choices: Choices) -> pd.DataFrame:
    """Return what the tuned model has to beat: one row per baseline and benchmark, paired with the tuned model.

    The tuned model is asked with the headline prompt; against sampled baselines it is sampled once as well. "random
    labels" is the control, if the run has one (`random_label_control`): the same texts, each under another question.
    """
    import pandas as pd

    headline = settings.eval_prompts[0]
    at_zero = scores[scores["shots"] == 0]
    greedy, sampled = ((headline, decoding) for decoding in ("greedy", "sampled"))
    base = [("base", prompt, "greedy") for prompt in (*settings.eval_prompts, "best")]
    ablated = [label for label in settings.compare_runs if label.startswith("tuned")]
    against_greedy = [*base, *((label, *greedy) for label in (runs.CONTROL, *ablated))]
    against_sampled = [("base", *greedy), ("base", *sampled), ("base", headline, "matched")]
    rows: list[dict[str, Any]] = []
    for tuned, baselines in ((greedy, against_greedy), (sampled, against_sampled)):
        after = _answers_of(at_zero, "tuned", *tuned).assign(model="after")
        for model, prompt, decoding in baselines:
            before = _answers_of(at_zero, model, prompt, decoding).assign(model="before")
            pair = pd.concat([before, after]).assign(decoding=tuned[1])
            for row in stats.compare_models(pair, "before", "after", seed=settings.seed).to_dict("records"):
                shown = {name: row[name] for name in BASELINE_COLUMNS if name in row}
                shown |= {"baseline_accuracy": row["before_accuracy"], "tuned_accuracy": row["after_accuracy"]}
                names = {
                    "baseline": _name(model, prompt, decoding, str(row["benchmark"]), settings, choices),
                    "tuned": "greedy" if tuned is greedy else f"one sample at T = {settings.eval_temperature:g}",
                }
                rows.append(shown | names)
    return pd.DataFrame(rows, columns=BASELINE_COLUMNS)


def _answers_of(scores: pd.DataFrame, model: str, prompt: str, decoding: str) -> pd.DataFrame:
    is_wanted = (scores["model"] == model) & (scores["prompt"] == prompt) & (scores["decoding"] == decoding)
    return scores[is_wanted]


def _name(model: str, prompt: str, decoding: str, benchmark: str, settings: Evaluate, choices: Choices) -> str:
    """Return how a baseline is called in the table."""
    if model == runs.CONTROL:
        return "random labels, greedy"
    if model != "base":
        return f"{model}, greedy"
    if prompt == "best":
        chosen, items = choices.prompts.get(benchmark, "?"), choices.items.get(benchmark, 0)
        return f"base, best zero-shot prompt (chosen on dev, n = {items}): {chosen!r}"
    if decoding == "greedy":
        return f"base, {prompt}, greedy"
    if decoding == "matched":
        heat = choices.temperatures.get(benchmark, float("nan"))
        return f"base, {prompt}, one sample at T = {heat:g}, as sharp as tuned"
    return f"base, {prompt}, one sample at T = {settings.eval_temperature:g}"
