"""The `crescent` command: its parser, its commands, the check of a run's input, and the run of the six notebooks.

Exit status: 0 done; 1 a stage failed or a number differs; 2 bad input, named before any model loads; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generation, runs
from . import audit, details

if TYPE_CHECKING:
    from .kernel import Kernel

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.do(arguments))
    except generation.EngineError as error:
        print(f"crescent: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    except runs.InputError as error:
        print(f"crescent: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\ncrescent: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


# --- the parser -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crescent",
        description="Reproduce, check and extend self-improvement of language models.",
        epilog=details.GENERAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_commands_of_profiles(commands)
    _add_commands_of_runs(commands)
    audit.add_command(commands)
    generation.add_store_commands(commands)
    doctor = commands.add_parser(
        "doctor", help="say what this machine can run, and what is left over from a killed run"
    )
    doctor.add_argument("--outputs", type=Path, default=runs.ROOT / "outputs", help="folder that runs are written to")
    doctor.add_argument(
        "--kill-leftovers",
        action="store_true",
        help="end your engines whose run is gone; those of a run that lives stay",
    )
    doctor.set_defaults(do=_command_of("doctor"))
    for name, text in details.OF_COMMAND.items():
        commands.choices[name].epilog = text
        commands.choices[name].formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _add_commands_of_profiles(commands: Any) -> None:
    run = commands.add_parser("run", help="run the six notebooks with a profile, skipping what is done")
    run.add_argument("--from", dest="first", choices=runs.STAGES, default=runs.STAGES[0], help="first stage to run")
    run.add_argument("--to", dest="last", choices=runs.STAGES, default=runs.STAGES[-1], help="last stage to run")
    run.add_argument(
        "--plan", action="store_true", help="sample a probe alone; say what the run would ask for and take"
    )
    run.add_argument(
        "--force", action="store_true", help="run complete stages again (what was sampled or trained is taken over)"
    )
    run.set_defaults(do=_run_command)
    sweep = commands.add_parser(
        "sweep", help="run a profile with each of several overlays and seeds; say what each changed"
    )
    sweep.add_argument(
        "--overlays", nargs="*", type=Path, default=[], metavar="YAML", help="e.g. params/ablations/*.yaml"
    )
    sweep.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="N", help="default: 1")
    rounds = commands.add_parser("rounds", help="let each tuned model make the next run's data; watch for a collapse")
    rounds.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    rounds.add_argument(
        "--accumulate", action="store_true", help="learn from the pairs of the rounds before too, not in their place"
    )
    study = commands.add_parser(
        "study", help="run a study's sweeps and rounds; fill every claim, and say what was foretold"
    )
    study.add_argument("file", nargs="?", type=Path, default=runs.ROOT / "params" / "study.yaml", metavar="STUDY.yaml")
    study.add_argument(
        "--plan",
        action="store_true",
        help="say about how long each part takes, after a probe of what no part before it asks alike",
    )
    study.set_defaults(check=_check_input)
    _add_overrides(study, "override one parameter of every run")
    for name, several in (("sweep", sweep), ("rounds", rounds), ("study", study)):
        several.add_argument("--list", action="store_true", help="name the runs, check their parameters, run nothing")
        several.set_defaults(do=_command_of(name), run_profile=_run_profile)
    preflight = commands.add_parser(
        "preflight", help="ask some items before a run; say whether this model can lift itself here, and how far"
    )
    preflight.add_argument("-n", dest="items", type=int, default=200, metavar="N", help="items to ask (default: 200)")
    preflight.add_argument(
        "--questions",
        choices=("dev", "own"),
        default="dev",
        help="dev items of the run's benchmarks (default; training items where there are none), or the run's own",
    )
    preflight.add_argument(
        "--no-likelihoods", action="store_true", help="leave out log p of the paths, and the two verifiers that need it"
    )
    preflight.set_defaults(do=_command_of("preflight"), check=_check_input)
    for parser in (run, sweep, rounds, preflight):
        parser.add_argument("profiles", nargs="+", metavar="PARAMS.yaml", type=Path, help="profile; later files win")
        _add_overrides(parser, "override one parameter")


def _add_commands_of_runs(commands: Any) -> None:
    a_run = {"metavar": "RUN", "type": _find_run, "help": "name of a run under outputs/, or its folder"}
    report = commands.add_parser("report", help="write one HTML file about one or several runs")
    report.add_argument("runs", nargs="+", **a_run)
    report.add_argument("-o", "--output", type=Path, help="where to (default: report.html in the first run's folder)")
    verify = commands.add_parser(
        "verify", help="compute a run's tables again out of its store, and say where a number differs"
    )
    verify.add_argument("run", **a_run)
    _add_overrides(verify, "say where a file of the run lies here: benchmark_dir, embedder, question_source")
    publish = commands.add_parser(
        "publish", help="put a run's model and pairs into a folder with cards; push only when asked"
    )
    publish.add_argument("run", **a_run)
    publish.add_argument("--stage", choices=("finetune", "distil"), default="finetune", help="default: finetune")
    publish.add_argument("-o", "--output", type=Path, help="where to (default: publish/ in the run's folder)")
    publish.add_argument(
        "--push", metavar="OWNER/NAME", help="also push to this hub repository; private unless --public"
    )
    publish.add_argument("--public", action="store_true", help="make the pushed repositories public")
    for name, parser in (("report", report), ("verify", verify), ("publish", publish)):
        parser.set_defaults(do=_command_of(name))


def _add_overrides(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("-p", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help=purpose)


def _command_of(module: str) -> Callable[[argparse.Namespace], int]:
    """Return the command of a module, which is loaded when it is called: all of them take two seconds."""
    return lambda arguments: int(importlib.import_module(f".{module}", __package__).command(arguments))


def _find_run(name: str) -> Path:
    """Return the folder of a run by its name under outputs/, or by its path."""
    outputs = runs.ROOT / "outputs"
    for folder in (Path(name), outputs / name):
        if any((folder / stage / "manifest.json").exists() for stage in runs.STAGES):
            return folder
    known = sorted({path.parent.parent.relative_to(outputs).as_posix() for path in outputs.rglob("manifest.json")})
    raise runs.RunError(f"{name}: no run of this name has a finished stage; there: {', '.join(known) or 'none'}")


# --- crescent run ---------------------------------------------------------------------------------


def _run_command(arguments: argparse.Namespace) -> int:
    values = runs.load_profile(arguments.profiles, arguments.overrides)
    stages = runs.STAGES[runs.STAGES.index(arguments.first) : runs.STAGES.index(arguments.last) + 1]
    if not stages:
        raise runs.ParameterError(f"--to {arguments.last}: comes before --from {arguments.first}; swap them")
    _check_input(values, stages)
    settings = _settings_of(stages[0], values)
    engine, reason = generation.choose_engine(settings)
    profile = " ".join(map(str, arguments.profiles))
    print(f"run {settings.run}: {profile}; engine {engine} ({reason})", flush=True)
    if not arguments.plan:
        overrides = [part for text in arguments.overrides for part in ("-p", text)]
        command, told_by = (
            shlex.join(["crescent", name, *map(str, arguments.profiles), *overrides]) for name in ("run", "preflight")
        )
        return _run_stages(values, stages, force=arguments.force, profile=profile, told_by=told_by, command=command)
    from . import plan

    planned = [stage for stage in stages if stage not in runs.left_out_stages(values)]
    print(plan.plan_text(plan.estimate_run(values, planned)))
    return DONE


def _settings_of(stage: str, values: dict[str, Any]) -> Any:
    return runs.settings_from(stage, values)


# --- the check of a run's input -------------------------------------------------------------------


def _check_input(values: dict[str, Any], stages: Sequence[str] = runs.STAGES) -> None:
    """Raise InputError now for what would end the run in an hour: prompts, benchmarks, folders, recipes."""
    from .. import evaluate, finetune, vote

    settings = _settings_of("evaluate", values)
    rewrite_prompt = _settings_of("dedup", values).rewrite_prompt
    domain = runs.get_domain(settings.domain, solve=settings.solve_prompt, rewrite=rewrite_prompt)
    _check_benchmarks(settings, domain, stages)
    if "evaluate" in stages:
        _check_eval_prompts(settings, domain, values, stages)
    evaluate.check_tasks(settings)
    if settings.engine == "server" and not settings.base_urls:
        raise runs.ParameterError("base_urls: engine 'server' needs one at least, e.g. ['http://localhost:8000/v1']")
    if "vote" in stages:
        votes = _settings_of("vote", values)
        vote.token_budget(votes)
        if votes.vote_shots == "exemplars":
            vote.recorded_exemplars(votes, domain, runs.run_folder(votes))
    if "finetune" in stages:
        finetune.earlier_manifests(_settings_of("finetune", values))
    distil = _settings_of("distil", values)
    if distil.student == "none" and distil.student_data != "pairs":
        raise runs.ParameterError(
            f"student_data: {distil.student_data!r} is what a student learns from, and this run has none (student: "
            "none); name one, for instance -p student=without_4_layers"
        )
    _check_recipes(values, stages)
    for name in ("model", "student"):
        place = str(values.get(name, ""))
        if place.startswith((".", "/", "~")) and not (Path(place).expanduser() / "config.json").exists():
            raise runs.ParameterError(
                f"{name}: {place!r} is no model folder (no config.json there); allowed: 'bundled', a folder, a hub id"
            )


def _check_benchmarks(settings: runs.Evaluate, domain: runs.Domain, stages: Sequence[str]) -> None:
    from .. import benchmarks

    names = settings.evaluate_on or domain.benchmarks
    if "evaluate" in stages and not names:
        raise runs.ParameterError(
            f"evaluate_on: the domain {domain.name} names no benchmark; name one of "
            f"{', '.join(benchmarks.benchmark_names())}, or stop at --to distil"
        )
    split = settings.benchmark_split
    for name in names:
        is_fetched = name in benchmarks.benchmark_names() and name != "arithmetic"
        if not is_fetched or split != "test":  # these cost nothing to try; the others may have to be downloaded
            benchmarks.load_benchmark(name, split=split, items=settings.benchmark_items, seed=settings.benchmark_seed)
    is_chosen_on_development = settings.best_prompt or settings.matched_temperature
    if "evaluate" in stages and is_chosen_on_development and all(map(benchmarks.is_generated, names)):
        benchmarks.load_development(settings, domain, 1)


def _check_eval_prompts(
    settings: runs.Evaluate, domain: runs.Domain, values: dict[str, Any], stages: Sequence[str]
) -> None:
    """Raise InputError for a prompt whose worked examples will not be there."""
    if "exemplars" in settings.eval_prompts and not domain.exemplars:
        raise runs.ParameterError(
            f"eval_prompts: 'exemplars' needs worked examples, and the domain {domain.name} has none; write "
            "`exemplars` into its file"
        )
    if "own" in settings.eval_prompts:
        if "vote" not in stages:
            runs.own_exemplars(runs.run_folder(settings))
        elif _settings_of("vote", values).vote_shots != "own":
            raise runs.ParameterError(
                "eval_prompts: 'own' needs exemplars that the vote makes itself; set vote_shots: own, or leave it out"
            )


def _check_recipes(values: dict[str, Any], stages: Sequence[str]) -> None:
    """Raise ParameterError for what this machine cannot train."""
    from .. import finetune

    for stage, batch_parameter in (("finetune", "batch_size"), ("distil", "student_batch_size")):
        settings = _settings_of(stage, values)
        if stage not in stages or settings.engine == "replay":
            continue
        try:
            finetune.check_recipe(finetune.recipe_of(settings), batch_parameter)
        except finetune.TrainingError as error:
            raise runs.ParameterError(str(error)) from None


# --- the run of the stages ------------------------------------------------------------------------


def _run_profile(values: dict[str, Any], stages: Sequence[str] = runs.STAGES) -> int:
    """Run the notebooks with one run's parameters, for sweeps, rounds and studies; return the exit status."""
    _check_input(values, stages)
    print(f"\nrun {values['run']}", flush=True)
    return _run_stages(values, stages, force=False)


def _run_stages(
    values: dict[str, Any],
    stages: Sequence[str],
    *,
    force: bool,
    profile: str = "",
    told_by: str = "",
    command: str = "a sweep, rounds or a study",
) -> int:
    """Run the `stages`.

    The report's commands name the `profile`, the line before a training the command `told_by`, and the notebooks the
    `command` that their values are from.
    """
    from .kernel import Kernel

    folder = runs.run_folder(_settings_of(stages[0], values))
    folder.mkdir(parents=True, exist_ok=True)
    with Kernel(folder / "kernel.log", command) as kernel:
        for stage in stages:
            if reason := runs.left_out_stages(values).get(stage):
                print(f"{_label(stage)} left out ({reason})", flush=True)
                continue
            if stage == "finetune" and (force or not runs.is_current(stage, _settings_of(stage, values))):
                _say_headroom(values, told_by)
            status = _run_stage(stage, values, kernel, force=force)
            if status != DONE:
                return status
    if stages[-1] == "evaluate":
        runs.save_file(_finish(folder, profile), _settings_of("evaluate", values))
    return DONE


def _run_stage(stage: str, values: dict[str, Any], kernel: Kernel, *, force: bool) -> int:
    """Run one notebook unless its stage is current; print one line about it; return the exit status."""
    settings = _settings_of(stage, values)
    folder = runs.run_folder(settings)
    if not force and runs.is_current(stage, settings):
        print(f"{_label(stage)} unchanged, skipped", flush=True)
        return DONE
    target = folder / f"{runs.NOTEBOOKS[stage]}.ipynb"
    if sys.stdout.isatty():
        print(f"{_label(stage)} running …", end="", flush=True)
    started = time.monotonic()
    notebook = runs.ROOT / "notebooks" / target.name
    failure = kernel.execute(notebook, target, runs.parameters_of(stage, values), _label(stage))
    manifest = runs.read_manifest(folder, stage)
    if not failure and manifest is None:  # a dead kernel leaves cells that read "completed"; only the manifest tells
        failure = " failed: it ended without a manifest"
    if failure or manifest is None:
        print(f"{runs.line_start(sys.stdout)}{_label(stage)}{failure}\n    see {runs.shown_path(target)}", flush=True)
        return FAILED
    runs.save_file(target, settings)
    counts = ", ".join(f"{name} {count:,}" for name, count in manifest["counts"].items())
    print(f"{runs.line_start(sys.stdout)}{_label(stage)} {time.monotonic() - started:6.0f} s  {counts}", flush=True)
    return DONE


def _say_headroom(values: dict[str, Any], told_by: str = "") -> None:
    """Print, before a training, whether there is anything to gain, or that the command `told_by` tells.

    It stops nobody: what is missing, 04 will say.
    """
    if values.get("engine", "replay") == "replay":
        return
    from . import preflight

    with contextlib.suppress(runs.InputError):
        if line := preflight.line_before_training(values, told_by):
            print(f"  {'headroom':<12} {line}", flush=True)


def _label(stage: str) -> str:
    return f"  {runs.NOTEBOOKS[stage]:<12}"


def _finish(folder: Path, profile: str) -> Path:
    """Print the comparisons of a finished run and its verdict; write its report, whose commands name the profile.

    Returns the report's path.
    """
    from . import report

    run = report.load_run(folder, profile)
    print("\n" + report.result_table(run.table("evaluate/comparisons")))
    print("\n" + report.verdict_text(run))
    target = report.write_page([run], folder / "report.html")
    print(f"\nreport: {runs.shown_path(target)}")
    return target


if __name__ == "__main__":
    sys.exit(main())
