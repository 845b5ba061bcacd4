"""The report: one self-contained HTML file from the manifests and tables of one or several runs.

Whatever a model wrote is untrusted: the template escapes it, and nothing in the file loads or runs anything.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from .. import evaluate
from ..benchmarks import SCORINGS
from ..figures import (
    acceptance_by_round,
    accuracy_bars,
    accuracy_by_seed,
    agreement_histogram,
    failure_bars,
    funnel,
    gain_parts_bars,
    loss_curve,
    paired_effects,
    rejection_reasons,
    reliability,
)

if TYPE_CHECKING:
    import pandas as pd


STAGES = ("elicit", "dedup", "vote", "finetune", "distil", "evaluate")
REJECTED = ("elicit/rejected", "dedup/rejected", "vote/rejected")
TABLES = (*REJECTED, "dedup/attempts", "vote/qa", "finetune/log", "evaluate/scores", "evaluate/comparisons",
          "evaluate/parts")  # fmt: skip
# Which counts of which manifests lie on the way from sampled to trained.
FUNNEL = (
    ("elicit", "sampled", "completions sampled"),
    ("elicit", "kept", "questions read"),
    ("dedup", "kept", "questions kept, deduplicated"),
    ("vote", "kept", "questions with a winner"),
    ("vote", "pairs", "pairs to train on"),
    ("finetune", "trained", "pairs trained"),
)
FIGURE_BYTES = 2_000_000  # of the 3 MB the file may have; past that the figures' texts stand alone
FLIPS = 200  # items shown each way, over all runs: some 300 kB


@dataclass
class Run:
    """What a run folder holds: manifests by stage, tables by `stage/table`, claims, and what is broken."""

    name: str
    manifests: dict[str, dict[str, Any]]
    tables: dict[str, pd.DataFrame]
    claims: list[evaluate.Claim]
    problems: list[str]
    folder: str = ""  # as one would name it to `crescent`, without what is above outputs/

    @property
    def missing(self) -> list[str]:
        """Stages that are not complete."""
        return [stage for stage in STAGES if stage not in self.manifests]

    @property
    def replay(self) -> str:
        """The command that recomputes the tables out of the store, sampling nothing."""
        return f"crescent verify outputs/{self.folder or self.name}"


def load_run(folder: Path) -> Run:
    """Read a run folder; a stage without a manifest is missing, an unreadable file is a problem by name."""
    import pandas as pd

    if not folder.is_dir():
        raise ValueError(f"{folder} is not a run folder: give a folder such as outputs/reference")
    problems: list[str] = []

    def read(name: str, reader: Callable[[Path], Any]) -> Any:
        try:
            return reader(folder / name) if (folder / name).exists() else None
        except (ValueError, TypeError, OSError, KeyError) as error:
            problems.append(f"{name} cannot be read ({type(error).__name__}); run its stage again")
            return None

    manifests = {stage: value for stage in STAGES if (value := read(f"{stage}/manifest.json", _read_json))}
    # Tables without a manifest are of a stage that was cut short or is being made again.
    complete = [name for name in TABLES if name.split("/")[0] in manifests]
    tables = {name: v for name in complete if (v := read(f"{name}.parquet", pd.read_parquet)) is not None}
    if "evaluate/scores" in tables and "kind" not in tables["evaluate/scores"]:  # of a run from before this column
        tables["evaluate/scores"] = tables["evaluate/scores"].assign(kind="")
    judged = read("evaluate/claims.json", lambda path: evaluate.ledger_from_json(path.read_text(encoding="utf-8")))
    if not judged or "evaluate" not in manifests:
        judged = evaluate.claims_ledger(tables.get("evaluate/comparisons", pd.DataFrame()))
    name = next((str(m["run"]) for m in manifests.values() if m.get("run")), folder.name)
    inside = str(folder.resolve()).rpartition("/outputs/")[2] if "outputs" in folder.resolve().parts else folder.name
    return Run(name, manifests, tables, judged, problems, inside)


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write_report(runs: Sequence[Path | str], target: Path | str, *, defaults: Mapping[str, Any] | None = None) -> Path:
    """Write the report of `runs`, side by side, to `target` and return its path.

    `defaults` ({name: value} or {stage: {name: value}}) reduces the parameters to those that differ.
    """
    if not runs:
        raise ValueError("runs is empty: give at least one run folder, such as outputs/reference")
    loaded = [load_run(Path(run)) for run in runs]
    page = _template().render(
        runs=loaded,
        verdicts=[(run, evaluate.verdict_line(run.claims)) for run in loaded],
        claims=_claims(loaded),
        scores=_named(loaded, "evaluate/comparisons"),
        funnels=_table([funnel_counts(run) for run in loaded]),
        costs=_costs(loaded),
        parameters=_parameters(loaded, defaults),
        environments=_table([_environment(run) for run in loaded]),
        figures=_encoded(loaded),
        flips=[(run.name, flips(run.tables.get("evaluate/scores"), FLIPS // len(loaded))) for run in loaded],
        parts=_named(loaded, "evaluate/parts"),
        failures=[{**row, "run": run.name} for run in loaded for row in _failures(run)],
        classes=("right", *evaluate.FAILURES),
        has_defaults=defaults is not None,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # whatever a model wrote is text, never markup
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(percent=_percent, points=_points, number=_number, short=_short, p=_p)
    return environment.get_template("report.html.j2")


def result_table(comparisons: pd.DataFrame) -> str:
    """Format a comparisons table as aligned plain text, a line for each row; accuracies in per cent."""
    if comparisons.empty:
        return "no comparisons: run 06_evaluate with at least two models"
    names = "benchmark decoding scoring models n seeds before after points interval p"
    lines: list[tuple[str, ...]] = [tuple(names.split())]
    for row in comparisons.to_dict("records"):
        what = (f"{row['benchmark']}, {row['shots']}-shot", row["decoding"], row.get("scoring", ""))
        size = (f"{row['before']} -> {row['after']}", f"{row['n']:,}", str(row["seeds"]))
        shares = (_percent(row["before_accuracy"]), _percent(row["after_accuracy"]))
        points = (_points(row["difference"]), f"{_points(row['low'])} to {_points(row['high'])}")
        lines.append((*what, *size, *shares, *points, _p(row["p_value"])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = "<<<<" + ">" * (len(widths) - 4)
    lines.insert(1, tuple("-" * width for width in widths))
    cells = [[f"{c:{side}{w}}" for c, side, w in zip(line, sides, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in cells)


def funnel_counts(run: Run) -> dict[str, int]:
    """From sampled to trained: the counts of a run's manifests that lie on the main line."""
    counts = {stage: manifest.get("counts", {}) for stage, manifest in run.manifests.items()}
    return {label: int(counts[stage][key]) for stage, key, label in FUNNEL if key in counts.get(stage, {})}


def flips(scores: pd.DataFrame | None, each: int) -> dict[str, Any]:
    """Items that flipped between base and tuned under any scoring, at most `each` either way, and what they can be filtered by.

    `rows` are mappings with `way`, `scorings` (those under which the item flipped that way) and the columns of
    `breakdown.flips`; `facets` maps a filter to its values; `left_out` counts the rows that are not shown.
    """
    import pandas as pd

    empty: dict[str, Any] = {"rows": [], "facets": {}, "left_out": 0}
    if scores is None or not {"base", "tuned"} <= set(scores["model"]):
        return empty
    found = [evaluate.flipped_items(scores, scoring=name).assign(scoring=name) for name in SCORINGS]
    keys = ["benchmark", "shots", "item", "way"]
    merged = pd.concat(found).groupby(keys, sort=False)
    table = merged.first().assign(scorings=merged["scoring"].agg(list)).reset_index()
    if table.empty:
        return empty
    shown = table.groupby("way").head(each)
    facets = {name: sorted(map(str, shown[name].unique())) for name in ("way", "benchmark", "kind", "failure")}
    facets["scoring"] = [
        name for name in SCORINGS if shown["scorings"].map(lambda names, name=name: name in names).any()
    ]
    facets = {name: values for name, values in facets.items() if len(values) > 1}
    return {"rows": shown.to_dict("records"), "facets": facets, "left_out": len(table) - len(shown)}


def _claims(runs: Sequence[Run]) -> list[tuple[str, evaluate.Claim]]:
    """Line up the claims of all runs by number; one that no run fills stands there once, as a blank."""
    pairs = [(run.name, claim) for run in runs for claim in run.claims]
    found = [pair for pair in pairs if pair[1].verdict != evaluate.NO_RUN]
    filled = {claim.id for _, claim in found}
    blanks = {claim.id: ("", claim) for _, claim in pairs if claim.id not in filled}
    return sorted([*found, *blanks.values()], key=lambda pair: pair[1].id)


def _named(runs: Sequence[Run], table: str) -> list[dict[str, Any]]:
    """The rows of a table of every run, each with the run's name."""
    import pandas as pd

    tables = [(run.name, run.tables.get(table, pd.DataFrame())) for run in runs]
    return [{"how": "", **row, "run": name} for name, rows in tables for row in rows.to_dict("records")]


def _failures(run: Run) -> list[dict[str, Any]]:
    import pandas as pd

    scores = run.tables.get("evaluate/scores", pd.DataFrame())
    return evaluate.failure_counts(scores).to_dict("records") if len(scores) else []


def _table(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Turn one mapping a run into rows (name, a value for each run), names in the order they come."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    return [(name, [column.get(name) for column in columns]) for name in names]


def _costs(runs: Sequence[Run]) -> list[tuple[str, list[dict[str, Any]]]]:
    rows = [(stage, [_cost(run.manifests.get(stage, {})) for run in runs]) for stage in STAGES]
    total = []
    for of_run in zip(*(costs for _, costs in rows), strict=True):
        known = {name: [cost[name] for cost in of_run if cost[name] is not None] for name in of_run[0]}
        total.append({name: (max if name == "memory" else sum)(v or [0]) for name, v in known.items()})
    return [*rows, ("all stages", total)]


def _cost(manifest: Mapping[str, Any]) -> dict[str, Any]:
    own = manifest.get("cost")
    values = {**manifest, **own} if isinstance(own, Mapping) else manifest
    tokens, memory = values.get("tokens"), values.get("peak_memory_bytes")
    if isinstance(tokens, Mapping):
        tokens = sum(count for count in tokens.values() if isinstance(count, int | float))
    return {"seconds": values.get("seconds"), "tokens": tokens or None, "memory": memory and memory / 2**30}


def _parameters(runs: Sequence[Run], defaults: Mapping[str, Any] | None) -> list[tuple[str, str, list[str]]]:
    """Rows (name, default, a value for each run); with defaults only what differs from them somewhere."""
    used = [_flat({stage: m.get("parameters", {}) for stage, m in run.manifests.items()}) for run in runs]
    default = _flat(defaults or {})
    rows = []
    for name, values in _table(used):
        usual = default.get(name, default.get(name.split(".", 1)[-1]))
        if defaults is None or any(value is not None and value != usual for value in values):
            rows.append((name, _shown(usual), [_shown(value) for value in values]))
    return sorted(rows)


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten {stage: {name: value}}: `name` where the stages agree, `stage.name` where they do not."""
    plain = {name: value for name, value in nested.items() if name not in STAGES}
    by_name: dict[str, dict[str, Any]] = {}
    for stage in (name for name in nested if name in STAGES):
        for name, value in nested[stage].items():
            by_name.setdefault(name, {})[stage] = value
    for name, values in by_name.items():
        first = next(iter(values.values()))
        same = all(value == first for value in values.values())
        plain.update({name: first} if same else {f"{stage}.{name}": value for stage, value in values.items()})
    return plain


def _environment(run: Run) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}  # a dict's keys: each value once, in order
    for manifest in run.manifests.values():
        values = {name: manifest.get(name) for name in ("device", "engine", "seed", "git_commit", "created")}
        values |= {f"model {name}": value for name, value in (manifest.get("models") or {}).items()}
        values |= manifest.get("versions") or {}
        for name, value in values.items():
            if value not in (None, ""):
                found.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(values) for name, values in found.items()}


def figures(run: Run) -> list[tuple[Any, str]]:
    """Every figure that the run's tables allow, each with its text."""
    import pandas as pd

    made: list[tuple[Any, str]] = []
    if counts := funnel_counts(run):
        made.append(funnel(counts))
    found = [(name.split("/")[0], run.tables[name]) for name in REJECTED if len(run.tables.get(name, ()))]
    if found:
        tables = [table.assign(reason=f"{stage}: " + table["reason"].astype(str)) for stage, table in found]
        made.append(rejection_reasons(pd.concat(tables)))
    drawn: list[tuple[str, Callable[[pd.DataFrame], tuple[Any, str]]]] = [
        ("dedup/attempts", acceptance_by_round),
        ("vote/qa", agreement_histogram),
        ("vote/qa", reliability),
        ("finetune/log", loss_curve),
        ("evaluate/comparisons", accuracy_bars),
        ("evaluate/comparisons", paired_effects),
        ("evaluate/scores", accuracy_by_seed),
        ("evaluate/parts", gain_parts_bars),
        ("evaluate/scores", lambda table: failure_bars(evaluate.failure_counts(table))),
    ]
    made += [draw(run.tables[name]) for name, draw in drawn if len(run.tables.get(name, ()))]
    return [(figure, text) for figure, text in made if not text.endswith("no data")]


def _encoded(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Figures of each run as (data address, text); the address is empty once the file would grow too big."""
    spent, found = 0, []
    for run in runs:
        pictures = []
        for figure, text in figures(run):
            figure.savefig(target := io.BytesIO(), format="png", dpi=110)
            address = "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()
            spent += len(address)
            pictures.append((address if spent <= FIGURE_BYTES else "", text))
        found.append((run.name, pictures))
    return found


def _percent(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def _points(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{100 * share:+.1f}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: Any, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _short(text: Any, most: int = 400) -> str:
    return str(text) if len(str(text)) <= most else str(text)[:most] + " …"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return _short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 120)
