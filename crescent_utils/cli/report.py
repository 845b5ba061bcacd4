"""Report: one self-contained HTML file from the manifests and tables of one or several runs.

Whatever a model wrote is untrusted: the template escapes it, and nothing in the file loads or runs anything.
"""

from __future__ import annotations

import argparse
import base64
import functools
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe

from .. import evaluate, figures, runs, stats
from ..benchmarks import SCORINGS
from ..runs import STAGES

if TYPE_CHECKING:
    import pandas as pd

REJECTED = ("elicit/rejected", "dedup/rejected", "vote/rejected")
# Which counts of which manifests lie on the way from sampled to trained.
FUNNEL = (
    ("elicit", "sampled", "completions sampled"),
    ("elicit", "kept", "questions read"),
    ("dedup", "kept", "questions kept, deduplicated"),
    ("vote", "kept", "questions kept by the vote"),
    ("vote", "pairs", "pairs to train on"),
    ("finetune", "trained", "pairs trained"),
)
# Figures that are drawn of one table each, in the order of the page; `vote/voted` is made here (`voted_questions`).
DRAWN: tuple[tuple[str, Callable[..., tuple[Any, str]]], ...] = (
    ("dedup/attempts", figures.acceptance_by_round),
    ("vote/voted", figures.agreement_histogram),
    ("vote/qa", functools.partial(figures.reliability, counted="questions kept by the vote,")),
    ("finetune/log", figures.loss_curve),
    ("evaluate/comparisons", figures.accuracy_bars),
    ("evaluate/comparisons", figures.paired_effects),
    ("evaluate/scores", figures.accuracy_by_seed),
    ("evaluate/parts", figures.gain_parts_bars),
    ("evaluate/failures", figures.failure_bars),
)
ACCURACIES = ("before_accuracy", "after_accuracy")
PARTS = ("gain", "reasoning", "format")
SHOWN = ("evaluate/baselines", "evaluate/sources")  # tables that are shown as they are
# How the base's answer to an item ended, by its name in `evaluate/sources`.
ENDS = {
    "cut": "cut at the token limit: no end",
    "unreadable": "unreadable: no answer could be read",
    "went on": "went on after the right number",
    "complete": "complete: it came to an end",
}
FIGURE_BYTES = 2_000_000  # of the 3 MB the file may have; past that the figures' texts stand alone
CHANGED_ANSWERS = 200  # items shown that were gained, and as many that were lost, over all runs: some 300 kB


@dataclass
class Run:
    """What a run folder holds: manifests by stage, tables by `stage/table`, claims, and what cannot be read."""

    name: str
    folder: str  # as one would name it to `crescent verify`
    manifests: dict[str, dict[str, Any]]
    tables: dict[str, pd.DataFrame]
    claims: list[evaluate.Claim]
    problems: list[str]

    @property
    def missing(self) -> list[str]:
        """Return the stages that are not complete, without those that the run leaves out."""
        return [stage for stage in STAGES if stage not in {*self.manifests, *self.left_out}]

    @property
    def left_out(self) -> dict[str, str]:
        """Return the stages that the run has no use for, each with the parameter that says so."""
        parameters = {name: value for m in self.manifests.values() for name, value in m["parameters"].items()}
        left_out = runs.left_out_stages(parameters)
        return {stage: reason for stage, reason in left_out.items() if stage not in self.manifests}

    def table(self, name: str) -> pd.DataFrame:
        """Return a table, without rows where the run has none of this name."""
        import pandas as pd

        return self.tables.get(name, pd.DataFrame())

    def groups(self, name: str, keys: list[str]) -> list[tuple[Any, pd.DataFrame]]:
        """Return the rows of a table by their values in the columns `keys`; none where the run lacks the table."""
        table = self.table(name)
        return list(table.groupby(keys, sort=True)) if len(table) else []


def load_run(folder: Path, profile: str = "") -> Run:
    """Read a run folder; a stage without a manifest is missing, a file that cannot be read is a problem by name.

    The claims' commands name `profile`, the YAML files that the run was started with, where that is known.
    """
    import pandas as pd

    problems: list[str] = []
    read = {stage: _read(folder / stage / "manifest.json", _read_json, problems) for stage in STAGES}
    manifests = {stage: manifest for stage, manifest in read.items() if manifest}
    tables: dict[str, pd.DataFrame] = {}
    for name in dict.fromkeys([*REJECTED, "evaluate/scores", *SHOWN, *(name for name, _ in DRAWN)]):
        if name.split("/")[0] in manifests:  # without one a stage was cut short or is being made again
            table = _read(folder / f"{name}.parquet", pd.read_parquet, problems)
            if table is not None:
                tables[name] = table
    for name, numbers in (("evaluate/comparisons", ACCURACIES), ("evaluate/parts", PARTS)):
        if name in tables:
            tables[name] = decisive_first(tables[name], numbers)
    if "vote/qa" in tables:  # LMSI's formats give a question several rows
        tables["vote/qa"] = tables["vote/qa"].drop_duplicates("id")
        tables["vote/voted"] = voted_questions(tables["vote/qa"], tables.get("vote/rejected", pd.DataFrame()))
    parameters = manifests.get("evaluate", {}).get("parameters", {})
    if "evaluate/scores" in tables:
        headline = parameters.get("eval_prompts", ["solve"])[0]
        scores = evaluate.headline_scores(tables["evaluate/scores"], headline)
        tables |= {"evaluate/scores": scores, "evaluate/failures": evaluate.failure_counts(scores)}
    method = parameters.get("claims_of", "crescent")
    names = [str(manifest["run"]) for manifest in manifests.values() if manifest.get("run")]
    pairs = manifests.get("finetune", {}).get("counts", {}).get("pairs", 200)  # as 06 has it in the command for C6
    comparisons = tables.get("evaluate/comparisons", pd.DataFrame())
    claims = evaluate.claims_ledger(comparisons, method=method, profile=profile, pairs=pairs)
    _, separator, below_outputs = folder.resolve().as_posix().rpartition("/outputs/")
    run_name = names[0] if names else folder.name
    return Run(run_name, below_outputs if separator else folder.name, manifests, tables, claims, problems)


def voted_questions(kept: pd.DataFrame, rejected: pd.DataFrame) -> pd.DataFrame:
    """Return how far the votes agreed on each question that had a most frequent answer, whether it was kept or not."""
    import pandas as pd

    columns = ["agreement", "total", "tied"]
    outvoted = rejected.reindex(columns=columns)
    outvoted = outvoted[outvoted["agreement"].astype(float) > 0]  # the others were not voted on, or had no answer
    voted = pd.concat([kept[columns], outvoted], ignore_index=True) if len(outvoted) else kept[columns]
    return voted.assign(tied=voted["tied"].eq(True), total=voted["total"].astype("Int64"))


def _read(path: Path, reader: Callable[[Path], Any], problems: list[str]) -> Any:
    """Return what `reader` reads, None where there is no file; one that it cannot read is added to `problems`."""
    try:
        return reader(path) if path.exists() else None
    except (ValueError, TypeError, OSError, KeyError) as error:
        name = f"{path.parent.name}/{path.name}"
        problems.append(f"{name} cannot be read ({type(error).__name__}); run its stage again")
        return None


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def command(arguments: argparse.Namespace) -> int:
    """Write the report of the runs that were named, and print where it lies; return the exit status."""
    target = write_report(arguments.runs, arguments.output or arguments.runs[0] / "report.html")
    print(runs.shown_path(target))
    return 0


def write_report(folders: Sequence[Path], target: Path, profile: str = "") -> Path:
    """Write the report of the runs in `folders`, side by side, to `target` and return its path."""
    return write_page([load_run(folder, profile) for folder in folders], target)


def write_page(loaded: Sequence[Run], target: Path) -> Path:
    """Write the report of runs that were read, side by side, to `target` and return its path."""
    page = _template().render(
        runs=loaded,
        verdicts=[(run, verdict_text(run)) for run in loaded],
        claims=_claims(loaded),
        scores=_rows(loaded, "evaluate/comparisons"),
        baselines=_rows(loaded, "evaluate/baselines"),
        parts=_rows(loaded, "evaluate/parts"),
        sources=_rows(loaded, "evaluate/sources"),
        ends=ENDS,
        failures=_rows(loaded, "evaluate/failures"),
        funnels=_side_by_side([funnel_counts(run) for run in loaded]),
        figures=_encoded(loaded),
        changed=[(run.name, changed_answers(run, CHANGED_ANSWERS // len(loaded))) for run in loaded],
        costs=[(run.name, runs.cost_table(run.manifests, run.manifests, "")) for run in loaded],
        parameters=_parameters(loaded),
        environments=_side_by_side([_environment(run) for run in loaded]),
        classes=("right", *evaluate.FAILURES),
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(target)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # whatever a model wrote is text, never markup
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(
        percent=_percent, points=_points, number=_number, short=_short, p=stats.p_text, breakable=_breakable
    )
    return environment.get_template("report.html.j2")


def verdict_text(run: Run) -> str:
    """Return the sentences that say whether the run's model improved itself, as 06 ends with them."""
    return evaluate.verdict_text(run.claims, run.table("evaluate/sources"), run.table("evaluate/baselines"))


def decisive_first(table: pd.DataFrame, numbers: Sequence[str]) -> pd.DataFrame:
    """Return a table of comparisons or parts with the rows first on which claims are judged.

    Of the others, those whose `numbers` are all zero come last: a scoring that accepts nothing says nothing.
    """
    ordered = table.reset_index(drop=True)
    ordered["_place"] = (~ordered.index.isin(evaluate.deciding_rows(ordered).index)).astype(int)
    ordered.loc[(ordered["_place"] == 1) & (ordered[list(numbers)] == 0).all(axis=1), "_place"] = 2
    return ordered.sort_values("_place", kind="stable", ignore_index=True).drop(columns="_place")


def result_table(comparisons: pd.DataFrame) -> str:
    """Return a comparisons table as aligned plain text, one line per row, the decisive ones first; in per cent."""
    import pandas as pd

    if comparisons.empty:
        return "no comparisons: run 06_evaluate with at least two models"
    comparisons = decisive_first(comparisons, ACCURACIES)
    table = pd.DataFrame({
        "benchmark": [f"{row.benchmark}, {row.shots}-shot" for row in comparisons.itertuples()],
        "decoding": comparisons["decoding"].tolist(),
        "scoring": comparisons["scoring"].tolist(),
        "models": [f"{row.before} -> {row.after}" for row in comparisons.itertuples()],
        "n": [f"{n:,}" for n in comparisons["n"]],
        "seeds": comparisons["seeds"].tolist(),
        "before": comparisons["before_accuracy"].map(_percent).tolist(),
        "after": comparisons["after_accuracy"].map(_percent).tolist(),
        "points": comparisons["difference"].map(_points).tolist(),
        "interval": [f"{_points(row.low)} to {_points(row.high)}" for row in comparisons.itertuples()],
        "p": comparisons["p_value"].map(stats.p_text).tolist(),
    })  # fmt: skip
    return str(table.to_string(index=False))


def funnel_counts(run: Run) -> dict[str, int]:
    """Return the counts of a run's manifests that lie on the way from sampled to trained."""
    counts = {stage: manifest.get("counts", {}) for stage, manifest in run.manifests.items()}
    return {label: int(counts[stage][key]) for stage, key, label in FUNNEL if key in counts.get(stage, {})}


def changed_answers(run: Run, most: int) -> dict[str, Any]:
    """Return the items whose answer was right before training and wrong after, or the reverse, at most `most` of each.

    `rows` are mappings with `way`, `scorings` (those under which it changed that way) and the columns of
    `evaluate.flipped_items`; `facets` maps a filter of the page to its values; `left_out` counts the rows not shown.
    """
    import pandas as pd

    nothing: dict[str, Any] = {"rows": [], "facets": {}, "left_out": 0}
    scores = run.table("evaluate/scores")
    if scores.empty or not {"base", "tuned"} <= set(scores["model"]):
        return nothing
    flipped = pd.concat([evaluate.flipped_items(scores, scoring=name).assign(scoring=name) for name in SCORINGS])
    if flipped.empty:
        return nothing
    by_item = flipped.groupby(["benchmark", "shots", "item", "way"], sort=False)
    items = by_item.first().assign(scorings=by_item["scoring"].agg(list)).reset_index()
    shown = items.groupby("way").head(most)
    facets = {name: sorted(map(str, shown[name].unique())) for name in ("way", "benchmark", "kind", "failure")}
    scorings = set(shown["scorings"].explode())
    facets["scoring"] = [name for name in SCORINGS if name in scorings]
    facets = {name: values for name, values in facets.items() if len(values) > 1}
    return {"rows": shown.to_dict("records"), "facets": facets, "left_out": len(items) - len(shown)}


def _claims(loaded: Sequence[Run]) -> list[tuple[str, evaluate.Claim]]:
    """Return the claims of all runs by number, with the run's name; one that no run speaks to stands there once."""
    pairs = [(run.name, claim) for run in loaded for claim in run.claims]
    judged = [(name, claim) for name, claim in pairs if claim.verdict != evaluate.NO_RUN]
    with_evidence = {claim.id for _, claim in judged}
    blanks = {claim.id: ("", claim) for _, claim in pairs if claim.id not in with_evidence}
    return sorted([*judged, *blanks.values()], key=lambda pair: pair[1].id)


def _rows(loaded: Sequence[Run], table: str) -> list[dict[str, Any]]:
    """Return the rows of a table of every run, each with the run's name."""
    return [{**row, "run": run.name} for run in loaded for row in run.table(table).to_dict("records")]


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Turn one mapping per run into rows (name, a value for each run), names in the order they come."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name) for column in columns]) for name in names]


def _parameters(loaded: Sequence[Run]) -> list[tuple[str, str, list[str | None]]]:
    """Return rows (name, default, a value for each run) of the parameters that differ from their default anywhere."""
    defaults = {
        name: _shown(field.get_default(call_default_factory=True))
        for settings in runs.STAGE_SETTINGS.values()
        for name, field in settings.model_fields.items()
    }
    columns = [_different(manifest["parameters"] for manifest in run.manifests.values()) for run in loaded]
    rows = [(name, defaults.get(name, ""), values) for name, values in _side_by_side(columns)]
    return sorted((name, default, values) for name, default, values in rows if {*values} - {default, None})


def _environment(run: Run) -> dict[str, str]:
    """Return where and with what the run was made: device, engine, commit, models, versions."""
    columns = []
    for manifest in run.manifests.values():
        facts = {name: manifest.get(name) for name in ("device", "engine", "seed", "git_commit", "created")}
        facts |= {f"model {label}": value for label, value in manifest.get("models", {}).items()}
        columns.append(facts | manifest.get("versions", {}))
    return _different(columns)


def _different(columns: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the different values that the stages of one run have for each name, as one text without empty values."""
    values: dict[str, list[str]] = {}
    for column in columns:
        for name, value in column.items():
            text = _shown(value)
            if text not in values.setdefault(name, []):
                values[name].append(text)
    return {name: ", ".join(filter(None, texts)) for name, texts in values.items()}


def _encoded(loaded: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the figures of each run as (data address, text); the address is empty once the file would grow too big."""
    total_bytes = 0
    of_runs = []
    for run in loaded:
        pictures = []
        for figure, text in _figures(run):
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=110)
            address = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
            total_bytes += len(address)
            pictures.append((address if total_bytes <= FIGURE_BYTES else "", text))
        of_runs.append((run.name, pictures))
    return of_runs


def _figures(run: Run) -> list[tuple[Any, str]]:
    """Return every figure that the run's tables allow, each with its text."""
    import pandas as pd

    drawn = []
    counts = funnel_counts(run)
    if counts:
        drawn.append(figures.funnel(counts))
    rejected = [
        run.table(name).assign(reason=f"{name.split('/')[0]}: " + run.table(name)["reason"].astype(str))
        for name in REJECTED
        if len(run.table(name))
    ]
    if rejected:
        drawn.append(figures.rejection_reasons(pd.concat(rejected)))
    minimum = run.manifests.get("vote", {}).get("parameters", {}).get("min_agreement")
    options = {figures.agreement_histogram: {"min_agreement": minimum}}
    drawn += [draw(run.table(name), **options.get(draw, {})) for name, draw in DRAWN if len(run.table(name))]
    return [(figure, text) for figure, text in drawn if not text.endswith("no data")]


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:+.1f}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _short(text: Any, most: int = 400) -> str:
    return str(text) if len(str(text)) <= most else str(text)[:most] + " …"


def _breakable(text: Any) -> markupsafe.Markup:
    """Return a name, escaped, that a line may break after each underscore."""
    return markupsafe.escape(text).replace("_", markupsafe.Markup("_<wbr>"))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return _short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 120)
