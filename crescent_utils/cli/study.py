"""Study: one command that fills every claim, and says whether preflight foretold what each setting gained.

A study is a YAML file of parts. A part is a sweep (a profile, its arms, seeds) or rounds. Its runs lie in
`outputs/<study>/runs/<part>/`, each with a folder and a store of its own; what two of them have in common is sampled,
trained and judged once. All arms of a part are run up to the vote first: then those in `same_size` are given
`max_pairs`, the smallest number of pairs that any of them and the whole would learn from with this seed. The same
command goes on after any cut. A run that fails is named and the others go on.

Out go, in `outputs/<study>/`: `claims.json` (the ledger, with domain, part, and the reason of each blank),
`comparisons` (those of all parts), `foretelling` (one row per setting: foretold headroom and realised gain), `sizes`
(pairs of the arms that learn from equally many), `rounds` (see `rounds.py`), foretelling.png and study.md. Ours.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import evaluate, figures, finetune, runs, stats
from . import plan, preflight, rounds, sweep
from .sweep import WHOLE, SweepRun

if TYPE_CHECKING:
    import pandas as pd

ABLATIONS = runs.ROOT / "params" / "ablations"
TO_THE_VOTE = runs.STAGES[: runs.STAGES.index("vote") + 1]
CLAIMS = ("C1", "C2", "C3", "C4", "C5", "C6", "L1", "L2")
_PATH = re.compile(r"(?<![\w.:/~])~?/[^\s'\",;:()\[\]]+")
FORETELLING = ["part", "arm", "domain", "predicted", "predicted_low", "predicted_high", "questions"]
FORETELLING += ["realised", "realised_low", "realised_high", "n", "seeds"]


class Part(BaseModel):
    """One part of a study, as the YAML file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    purpose: str
    profile: list[str] = Field(min_length=1)  # files, from the repository's folder; later ones win
    parameters: dict[str, Any] = {}  # of all its runs
    arms: dict[str, dict[str, Any]] = {}  # name -> parameters; a file of this name in params/ablations comes before
    seeds: list[int] = Field([1], min_length=1)
    same_size: list[str] = []  # arms that learn from as many pairs as the whole, and it from as many as they
    rounds: int = Field(1, ge=1)  # above 1: rounds in the place of a sweep
    accumulate: bool = False  # a round learns from the pairs of the rounds before it too
    claims: list[str] = []  # those that it fills


class Study(BaseModel):
    """A study, as its YAML file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    preflight_items: int = Field(200, ge=0)  # dev items that each setting's preflight asks; 0: nothing is foretold
    parts: dict[str, Part] = Field(min_length=1)
    blanks: dict[str, str] = {}  # claim -> why no part fills it


@dataclass
class Progress:
    """What became of the runs of a study: those that were run so far, and what failed, by name."""

    ran: list[SweepRun] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


# --- the command ----------------------------------------------------------------------------------------------------


def command(arguments: argparse.Namespace) -> int:
    """Run the study, write and print its results; return 1 if anything failed, which is named at the end."""
    study = load_study(arguments.file)
    planned = {name: plan_part(study, name, arguments.overrides) for name in study.parts}
    if arguments.list:
        print("\n".join(run.parameters["run"] for part in planned.values() for run in part))
        return 0
    for part in planned.values():
        for run in part:
            later = run.overlay.startswith("round") and run.overlay != "round1"  # its model is not there yet
            if run.seed == part[0].seed and not later:
                arguments.check(run.parameters)
    if arguments.plan:
        print(plan_text(study, planned))
        return 0
    progress, results = Progress(), Results()
    for name, part_runs in planned.items():
        print(f"\n=== {name}: {study.parts[name].purpose}", flush=True)
        run_part(study, name, part_runs, progress, results, arguments.run_profile)
        write_results(study, planned, results, progress)  # a cut in the next part leaves these
    print((study_folder(study, planned) / "study.md").read_text(encoding="utf-8"))
    for name, why in progress.failed.items():
        print(f"failed: {name}: {why}")
    return 1 if progress.failed else 0


def load_study(path: Path) -> Study:
    """Read a study. Raises ParameterError for what it must not say: names the part, the key, and what is allowed."""
    try:
        study = Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError:
        raise runs.ParameterError(f"{path}: no such file; a study is a YAML file such as params/study.yaml") from None
    except yaml.YAMLError as error:
        raise runs.ParameterError(f"{path}: is not YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise runs.ParameterError(f"{path}: {'; '.join(lines)}") from None
    for name, part in study.parts.items():
        _check_part(f"{path}: {name}", part)
    for claim in study.blanks:
        _check_claim(f"{path}: blanks", claim)
    return study


def _check_part(where: str, part: Part) -> None:
    for claim in part.claims:
        _check_claim(where, claim)
    for arm in part.same_size:
        if arm not in part.arms:
            raise runs.ParameterError(f"{where}: same_size: {arm!r} is no arm; allowed: {', '.join(part.arms)}")
    if part.rounds > 1 and (part.arms or part.claims):
        raise runs.ParameterError(f"{where}: rounds: {part.rounds} allows neither arms nor claims; write another part")
    if part.accumulate and part.rounds == 1:
        raise runs.ParameterError(f"{where}: accumulate: true is for rounds; say rounds: 2 or more, or take it out")
    if len(set(part.seeds)) < len(part.seeds) or WHOLE in part.arms:
        raise runs.ParameterError(f"{where}: name each seed once, and no arm {WHOLE!r}: that is the profile itself")


def _check_claim(where: str, claim: str) -> None:
    if claim not in CLAIMS:
        raise runs.ParameterError(f"{where}: there is no claim {claim!r}; allowed: {', '.join(CLAIMS)}")


def plan_part(study: Study, name: str, overrides: Sequence[str] = ()) -> list[SweepRun]:
    """Return the runs of a part: seed by seed the whole and its arms, or the rounds. Raises ParameterError."""
    part = study.parts[name]
    profiles = [runs.ROOT / file for file in part.profile]
    planned = []
    for seed in part.seeds:
        if part.rounds > 1:
            identity = {"seed": seed, "run": f"{study.name}/runs/{name}/seed{seed}"}
            texts = [*_as_overrides(part.parameters), *overrides, *_as_overrides(identity)]
            of_seed = rounds.plan_rounds(profiles, texts, part.rounds, accumulate=part.accumulate)
            planned += [SweepRun(f"round{number}", seed, values) for number, values in enumerate(of_seed, start=1)]
            continue
        for arm, changes in {WHOLE: {}, **part.arms}.items():
            overlay = ABLATIONS / f"{arm}.yaml"
            if arm != WHOLE and not overlay.exists() and not changes:
                raise runs.ParameterError(
                    f"{name}: {arm}: changes nothing, and there is no params/ablations/{arm}.yaml"
                )
            files = [*profiles, *([overlay] if overlay.exists() else [])]
            of_overlay = runs.load_profile([overlay], []) if overlay.exists() else {}
            # What an arm changes wins over what the part sets for all.
            common = {key: value for key, value in part.parameters.items() if key not in of_overlay}
            identity = {"seed": seed, "run": f"{study.name}/runs/{name}/{arm}-seed{seed}", "other_runs": []}
            texts = [*_as_overrides(common | changes), *overrides, *_as_overrides(identity)]
            planned.append(SweepRun(arm, seed, runs.load_profile(files, texts)))
    if part.rounds == 1:
        sweep.check_judged_alike(planned, f"{name}: arm")
    return planned


def _as_overrides(values: dict[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]  # JSON is YAML


def study_folder(study: Study, planned: dict[str, list[SweepRun]]) -> Path:
    """Return the folder of a study's results: that of its runs lies in it."""
    run = next(run for part in planned.values() for run in part)
    return runs.run_folder(run.settings("elicit"), study.name)


def plan_text(study: Study, planned: dict[str, list[SweepRun]]) -> str:
    """Return about how long each part takes: its first run, after a probe, times the number of its runs.

    What the first run of a part asks just as that of an earlier part is probed once.
    """
    lines, total, idle = [], 0.0, ""
    probes = plan.Probes()
    probed: list[SweepRun] = []
    for name, part_runs in planned.items():
        values = part_runs[0].parameters
        stages = [stage for stage in runs.STAGES if stage not in runs.left_out_stages(values)]
        sweep.share_samples(part_runs[0], _of_its_domain(part_runs[0], probed))
        planned_run = plan.estimate_run(values, stages, probes)
        probed.append(part_runs[0])
        idle = idle or planned_run.idle
        seconds = planned_run.seconds * len(part_runs)
        if study.parts[name].accumulate:  # a round trains on as many pairs more as there were rounds before it
            training = sum(row.seconds or 0.0 for row in planned_run.rows if row.is_training)
            seconds += training * sum(number % study.parts[name].rounds for number in range(len(part_runs)))
        total += seconds
        lines.append(f"{name:<24}{len(part_runs):>4} runs, about {plan.duration(seconds)}")
    note = "less where arms have something in common, which is done once; preflight not counted"
    return "\n".join([*lines, f"in all about {plan.duration(total)} ({note})", *([idle] if idle else [])])


# --- running --------------------------------------------------------------------------------------------------------


def run_part(
    study: Study,
    name: str,
    part_runs: list[SweepRun],
    progress: Progress,
    results: Results,
    run_profile: Callable[..., int],
) -> None:
    """Run a part and add what it found to `results`; what fails is named in `progress`."""
    part = study.parts[name]
    if part.rounds > 1:
        for seed in part.seeds:
            _run_rounds(study, [run for run in part_runs if run.seed == seed], progress, results, run_profile)
    else:
        for run in part_runs:
            _attempt(run, TO_THE_VOTE, progress, run_profile)
        part_runs[:], sizes = same_sizes(name, part, part_runs)
        results.sizes += sizes
        for run in part_runs:
            if run.seed == part.seeds[0]:
                _foretell(study, run, progress)
            _attempt(run, runs.STAGES, progress, run_profile)
    try:
        results.add_part(name, part, part_runs, progress)
    except (runs.InputError, ValueError) as error:
        progress.failed[name] = str(error)


def _run_rounds(
    study: Study, of_seed: list[SweepRun], progress: Progress, results: Results, run_profile: Callable[..., int]
) -> None:
    """Run the rounds of one seed in order; the first that fails ends them."""
    for run in of_seed:
        if not _attempt(run, TO_THE_VOTE, progress, run_profile):
            return
        _foretell(study, run, progress)
        if not _attempt(run, runs.STAGES, progress, run_profile):
            return
    try:
        text = rounds.write_monitors([run.parameters for run in of_seed])
        print(text)
        results.rounds.append(of_seed[0].folder.parent / "rounds.parquet")
    except (runs.InputError, OSError, ValueError) as error:
        progress.failed[of_seed[0].parameters["run"]] = str(error)


def _attempt(run: SweepRun, stages: Sequence[str], progress: Progress, run_profile: Callable[..., int]) -> bool:
    """Run the stages unless they are there or the run failed before; say whether they are there then."""
    name = run.parameters["run"]
    if name in progress.failed:
        return False
    try:
        if not _is_done(run, stages):
            alike = _of_its_domain(run, progress.ran)
            sweep.share_samples(run, alike)
            sweep.share_stages(run, alike)
            if status := int(run_profile(run.parameters, stages)):
                progress.failed[name] = f"exit status {status}"
    except Exception as error:  # whatever ends one run: the others go on, and this one is named
        progress.failed[name] = f"{type(error).__name__}: {error}"
    if name not in {other.parameters["run"] for other in progress.ran}:
        progress.ran.append(run)
    return name not in progress.failed


def _of_its_domain(run: SweepRun, others: Iterable[SweepRun]) -> list[SweepRun]:
    return [other for other in others if other.parameters.get("domain") == run.parameters.get("domain")]


def _is_done(run: SweepRun, stages: Iterable[str]) -> bool:
    left_out = runs.left_out_stages(run.parameters)
    return all(runs.is_current(stage, run.settings(stage)) for stage in stages if stage not in left_out)


def _foretell(study: Study, run: SweepRun, progress: Progress) -> None:
    """Ask the dev items of a run's preflight, from the store where it has them; what fails stops nothing."""
    if not study.preflight_items or run.parameters["run"] in progress.failed:
        return
    if preflight.recorded_verdict(run.folder).get("parameters") == preflight.decisive_parameters(run.parameters):
        return
    try:
        sweep.share_samples(run, _of_its_domain(run, progress.ran))  # the preflights of most arms ask the same
        questions = preflight.chosen_questions(run.parameters, study.preflight_items)
        end = preflight.record(run.parameters, questions, with_likelihoods=False)[-1]
        print(f"  {'preflight':<12} {end.line}", flush=True)
    except Exception as error:  # whatever ends a preflight: its run goes on, and it is named
        progress.failed[f"{run.parameters['run']}, preflight"] = f"{type(error).__name__}: {error}"


def same_sizes(name: str, part: Part, part_runs: list[SweepRun]) -> tuple[list[SweepRun], list[dict[str, Any]]]:
    """Return the runs, those of `same_size` and the whole with as many pairs for each seed; and a row for each of them.

    A row: part, arm, seed, the pairs of its vote that it would learn from, and those that it learns from (`learned`).
    """
    changed, rows = {}, []
    for seed in part.seeds if part.same_size else []:
        group = [run for run in part_runs if run.seed == seed and run.overlay in (WHOLE, *part.same_size)]
        pairs = {run.overlay: _pairs(run) for run in group if runs.read_manifest(run.folder, "vote") is not None}
        smallest = min((count for count in pairs.values() if count), default=0)
        for run in group:
            count = pairs.get(run.overlay, 0)
            if count > smallest > 0:
                changed[run.parameters["run"]] = replace(run, parameters=run.parameters | {"max_pairs": smallest})
            row = {"part": name, "arm": run.overlay, "seed": seed, "pairs": count, "learned": min(count, smallest)}
            rows.append(row)
    return [changed.get(run.parameters["run"], run) for run in part_runs], rows


def _pairs(run: SweepRun) -> int:
    return len(finetune.chosen_rows(runs.read_table(run.folder, "vote", "qa"), run.settings("finetune")))


# --- results --------------------------------------------------------------------------------------------------------


@dataclass
class Results:
    """What the parts found: tables of comparisons and foretelling, ledger rows, sizes, and the tables of rounds."""

    comparisons: list[pd.DataFrame] = field(default_factory=list)
    foretelling: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[Path] = field(default_factory=list)
    models: set[str] = field(default_factory=set)  # whose gain stands in `foretelling`

    def add_part(self, name: str, part: Part, part_runs: Sequence[SweepRun], progress: Progress) -> None:
        """Add a part's comparisons, claims and settings, as far as its runs are finished."""
        finished = [run for run in part_runs if run.parameters["run"] not in progress.failed]
        finished = [run for run in finished if runs.read_manifest(run.folder, "evaluate") is not None]
        self.foretelling += foretelling_rows(name, finished, self.models)
        if part.rounds > 1:
            return
        complete = complete_arms(finished)
        failed = [run.parameters["run"].split("/")[-1] for run in part_runs if run.parameters["run"] in progress.failed]
        settings = part_runs[0].settings("evaluate")
        comparisons = evaluate_arms(complete)
        ledger = evaluate.claims_ledger(comparisons, method=settings.claims_of, profile=" ".join(part.profile))
        if len(comparisons):
            self.comparisons.append(comparisons.assign(part=name, domain=settings.domain))
        for claim in ledger:
            if claim.id in part.claims:
                why = f"failed: {', '.join(failed)}" if failed else "its runs ask for nothing that speaks to it"
                self.claims.append(ledger_row(claim, settings.domain, name, "" if claim.n else why))


def complete_arms(finished: Sequence[SweepRun]) -> list[SweepRun]:
    """Return the finished runs of the whole, and of the arms that are finished with all of its seeds: those seeds."""
    seeds = {run.seed for run in finished if run.overlay == WHOLE}
    seeds_of: dict[str, set[int]] = {}
    for run in finished:
        seeds_of.setdefault(run.overlay, set()).add(run.seed)
    return [run for run in finished if run.seed in seeds and seeds <= seeds_of[run.overlay]]


def evaluate_arms(complete: Sequence[SweepRun]) -> pd.DataFrame:
    """Return the comparisons of a sweep's runs; a table without rows where none is finished."""
    import pandas as pd

    if not complete:
        return pd.DataFrame()
    scores = sweep.sweep_scores(complete)
    resamples = complete[0].settings("evaluate").resamples
    return sweep.sweep_comparisons(scores, resamples, sweep.sweep_general(complete))


def ledger_row(claim: evaluate.Claim, domain: str, part: str, reason: str) -> dict[str, Any]:
    """Return a claim as a row of the study's claims.json; what is not a number is None."""
    row = {name: None if value != value else value for name, value in asdict(claim).items()}
    return row | {"domain": domain, "part": part, "reason": reason}


def foretelling_rows(name: str, finished: Sequence[SweepRun], models: set[str]) -> list[dict[str, Any]]:
    """Return one row per setting of a part: what preflight foretold with its first seed, and what was gained over all.

    A setting is an arm or a round whose tuned model is none of `models`, to which it is added: an arm that changes the
    student alone is no setting.
    """
    rows = []
    for arm in dict.fromkeys(run.overlay for run in finished):
        of_arm = [run for run in finished if run.overlay == arm]
        first = of_arm[0]
        manifest = runs.read_manifest(first.folder, "finetune") or {}
        model = manifest.get("models", {}).get("tuned", arm)
        place = first.folder / runs.PREFLIGHT / "headroom.parquet"
        if model in models or not place.exists():
            continue
        models.add(model)
        row = {"part": name, "arm": arm, "domain": first.settings("evaluate").domain}
        row |= _foretold(place) | _realised(of_arm)
        if not math.isnan(row["predicted"]) and row["n"]:
            rows.append(row)
    return rows


def _foretold(place: Path) -> dict[str, Any]:
    import pandas as pd

    row = pd.read_parquet(place).set_index("quantity").loc["headroom"]
    values = {"predicted": row["estimate"], "predicted_low": row["low"], "predicted_high": row["high"]}
    return {key: float(value) for key, value in values.items()} | {"questions": int(row["n"])}


def _realised(of_arm: Sequence[SweepRun]) -> dict[str, Any]:
    """Return the gain of greedy answers without worked examples, over all seeds; benchmarks weigh by their items."""
    import pandas as pd

    tables = []
    for run in of_arm:
        headline = run.settings("evaluate").eval_prompts[0]
        tables.append(evaluate.headline_scores(runs.read_table(run.folder, "evaluate", "scores"), headline))
    table = stats.compare_models(pd.concat(tables, ignore_index=True), *evaluate.PAIRS[0])
    table = table[(table["decoding"] == "greedy") & (table["shots"] == 0)]
    if table.empty:
        return {"realised": math.nan, "realised_low": math.nan, "realised_high": math.nan, "n": 0, "seeds": 0}
    weights = table["n"] / table["n"].sum()
    names = {"realised": "difference", "realised_low": "low", "realised_high": "high"}
    row: dict[str, Any] = {name: float((table[column] * weights).sum()) for name, column in names.items()}
    return row | {"n": int(table["n"].sum()), "seeds": int(table["seeds"].min())}


def write_results(
    study: Study, planned: dict[str, list[SweepRun]], results: Results, progress: Progress
) -> list[dict[str, Any]]:
    """Write the tables, the ledger, the figure and study.md; return the rows of the ledger."""
    import pandas as pd

    folder = study_folder(study, planned)
    folder.mkdir(parents=True, exist_ok=True)
    foretelling = pd.DataFrame(results.foretelling, columns=FORETELLING)
    rank = stats.rank_correlation(foretelling["predicted"], foretelling["realised"])
    tables = {
        "comparisons": pd.concat(results.comparisons, ignore_index=True) if results.comparisons else pd.DataFrame(),
        "foretelling": foretelling,
        "sizes": pd.DataFrame(results.sizes, columns=["part", "arm", "seed", "pairs", "learned"]),
        "rounds": _rounds_table(results.rounds, folder),
    }
    for name, table in tables.items():
        if len(table):
            runs.write_table(folder, name, table)
    figure, text = figures.foretelling_scatter(foretelling, rank)
    figure.savefig(folder / "foretelling.png", dpi=100)
    claims = with_blanks(study, results.claims)
    runs.write_json(folder / "claims.json", claims)
    (folder / "study.md").write_text(study_text(study, claims, tables, text, progress), encoding="utf-8")
    return claims


def _rounds_table(paths: Sequence[Path], folder: Path) -> pd.DataFrame:
    import pandas as pd

    tables = []
    for path in paths:
        part, seed = path.parent.relative_to(folder / "runs").parts
        tables.append(pd.read_parquet(path).assign(part=part, seed=int(seed.removeprefix("seed"))))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def with_blanks(study: Study, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ledger in order, with a row for each claim that no part has filled yet, and its reason."""
    blanks = {claim.id: claim for claim in evaluate.claims_ledger(_no_comparisons())}
    promised = {claim for part in study.parts.values() for claim in part.claims}
    missing = []
    for number in CLAIMS:
        if all(row["id"] != number for row in rows):
            none = "its part is not finished" if number in promised else "no part of the study fills it"
            missing.append(ledger_row(blanks[number], "", "", study.blanks.get(number, none)))
    return sorted([*rows, *missing], key=lambda row: CLAIMS.index(row["id"]))


def _no_comparisons() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


# --- as text --------------------------------------------------------------------------------------------------------


def claims_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of a ledger (claims.json) as a table in Markdown, effects in points; a blank has its reason."""
    lines = [
        "| claim | domain | effect in points [95 %] | n | seeds | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        head = f"| {row['id']}: {row['hypothesis']} | {row.get('domain', '').replace('_', ' ')} |"
        if not row["n"]:
            lines.append(f"{head} | | | {row['verdict']}: {row.get('reason') or row['command']} |")
            continue
        effect, low, high = (f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("effect", "low", "high"))
        lines.append(f"{head} {effect} [{low}, {high}] | {row['n']:,} | {row['seeds']} | {row['verdict']} |")
    return "\n".join(lines)


def recorded_claims(outputs: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the ledger of `outputs`/study, or of the reference run while there is no study; with the file's name."""
    path = outputs / "study" / "claims.json"
    if path.exists():
        return "outputs/study/claims.json", json.loads(path.read_text(encoding="utf-8"))
    rows = json.loads((outputs / "reference" / "evaluate" / "claims.json").read_text(encoding="utf-8"))
    manifest = runs.read_manifest(outputs / "reference", "evaluate") or {"parameters": {}}
    domain = manifest["parameters"].get("domain", "")
    return "outputs/reference/evaluate/claims.json", [
        row | {"domain": domain if row["n"] else "", "reason": f"`{row['command']}`"} for row in rows
    ]


def study_text(
    study: Study, claims: Sequence[dict[str, Any]], tables: dict[str, pd.DataFrame], foretold: str, progress: Progress
) -> str:
    """Return study.md: the claims, each part's comparisons, the sizes, the rounds, and what preflight foretold."""
    from . import report

    lines = [f"# Study {study.name}", "", "## Claims", "", claims_markdown(claims), ""]
    comparisons = tables["comparisons"]
    for name, part in study.parts.items():
        lines += [f"## {name}", "", part.purpose, ""]
        if len(comparisons) and (comparisons["part"] == name).any():
            shown = comparisons[(comparisons["part"] == name) & (comparisons["decoding"] != "sampled")]
            lines += ["```", report.result_table(shown), "```", ""]
        for title in ("sizes", "rounds"):
            table = tables[title]
            if len(table) and (table["part"] == name).any():
                of_part = table[table["part"] == name].round(3).to_string(index=False)
                note = (
                    "pairs of the vote, and those learned from, equally many for each seed" if title == "sizes" else ""
                )
                lines += [note or title, "", "```", of_part, "```", ""]
    lines += ["## Does preflight foretell the gain?", "", foretold, "", "![foretold and realised](foretelling.png)", ""]
    if progress.failed:
        lines += ["## Failed", "", *(f"- {name}: {_portable(why)}" for name, why in progress.failed.items()), ""]
    return "\n".join(lines)


def _portable(message: str) -> str:
    """Return a message in one line as it may be published: without this machine's folders."""
    in_repository = " ".join(message.split()).replace(f"{runs.ROOT}/", "")
    return _PATH.sub(lambda path: f".../{path[0].rstrip('/').rpartition('/')[2]}", in_repository)
