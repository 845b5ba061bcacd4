"""Commands over several runs, and what leaves the kit: `crescent sweep`, `crescent rounds`, `crescent publish`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import benchmarks, generation, runs
from ..generation import StoreError

RunOne = Callable[[dict[str, Any]], int]


def add_commands(commands: Any, run_one: RunOne, find_run: Callable[[str], Path]) -> None:
    """Add the commands to the parser's `commands`; `run_one` runs a profile's stages, `find_run` finds a run's folder by its name."""
    sweep = commands.add_parser(
        "sweep", help="run a profile with each of several overlays and seeds; say what each changed"
    )
    sweep.add_argument(
        "--overlays", nargs="*", type=Path, default=[], metavar="YAML", help="e.g. params/ablations/*.yaml"
    )
    sweep.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="N", help="default: 1")
    sweep.set_defaults(do=lambda arguments: _sweep(arguments, run_one))
    rounds = commands.add_parser("rounds", help="let each tuned model make the next run's data; watch for a collapse")
    rounds.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    rounds.set_defaults(do=lambda arguments: _rounds(arguments, run_one))
    for parser in (sweep, rounds):
        parser.add_argument("profiles", nargs="+", metavar="PARAMS.yaml", type=Path, help="profile; later files win")
        parser.add_argument(
            "-p", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help="override one parameter"
        )
        parser.add_argument("--list", action="store_true", help="name the runs, check their parameters, run nothing")
    publish = commands.add_parser(
        "publish", help="put a run's model and pairs into a folder with cards; push only when asked"
    )
    publish.add_argument("run", metavar="RUN", help="name of a run under outputs/, or its folder")
    publish.add_argument("--stage", choices=("finetune", "distil"), default="finetune", help="default: finetune")
    publish.add_argument("-o", "--output", type=Path, help="where to (default: publish/ in the run's folder)")
    publish.add_argument(
        "--push", metavar="OWNER/NAME", help="also push to this repository of the hub; private unless --public"
    )
    publish.add_argument("--public", action="store_true", help="make the pushed repositories public")
    publish.set_defaults(do=lambda arguments: _publish(arguments, find_run))


def _sweep(arguments: argparse.Namespace, run_one: RunOne) -> int:
    from . import sweep

    return sweep.sweep_command(arguments, run_one)


def _rounds(arguments: argparse.Namespace, run_one: RunOne) -> int:
    from . import rounds

    return rounds.rounds_command(arguments, run_one)


def _publish(arguments: argparse.Namespace, find_run: Callable[[str], Path]) -> int:
    from . import publish

    return publish.publish_command(arguments, find_run(arguments.run))


DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["doctor"]:
        from . import doctor

        return doctor.doctor_command(arguments[1:])
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.do(parsed))
    except generation.EngineError as error:
        print(f"crescent: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    except (runs.ParameterError, runs.RunError, benchmarks.BenchmarkError, generation.ModelError, StoreError) as error:
        print(f"crescent: {error}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crescent", description="Reproduce, check and extend self-improvement of language models."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the six notebooks with a profile, skipping what is done")
    run.add_argument("profiles", nargs="+", metavar="PARAMS.yaml", type=Path, help="profile; later files win")
    run.add_argument(
        "-p", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help="override one parameter"
    )
    run.add_argument("--from", dest="first", choices=runs.STAGES, default=runs.STAGES[0], help="first stage to run")
    run.add_argument("--to", dest="last", choices=runs.STAGES, default=runs.STAGES[-1], help="last stage to run")
    run.add_argument(
        "--plan", action="store_true", help="sample nothing but a probe; say what the run would ask for and take"
    )
    run.add_argument("--force", action="store_true", help="run stages again that are complete (what is sampled stays)")
    run.set_defaults(do=_run)
    report = commands.add_parser("report", help="write one HTML file about one or several runs")
    report.add_argument("runs", nargs="+", metavar="RUN", help="name of a run under outputs/, or its folder")
    report.add_argument("-o", "--output", type=Path, help="where to (default: report.html in the first run's folder)")
    report.set_defaults(do=_report)
    generation.add_store_commands(commands)
    verify = commands.add_parser(
        "verify", help="compute a run's tables again out of its store, and say where a number differs"
    )
    verify.add_argument("run", metavar="RUN", help="name of a run under outputs/, or its folder")
    verify.add_argument("--benchmark-dir", default="", metavar="FOLDER", help="benchmark files, where the run used any")
    verify.set_defaults(do=_verify)
    add_commands(commands, _run_profile, _find_run)
    commands.add_parser("doctor", help="say what this machine can run, and what is left over from a killed run")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    values = runs.load_profile(arguments.profiles, arguments.overrides)
    stages = runs.STAGES[runs.STAGES.index(arguments.first) : runs.STAGES.index(arguments.last) + 1]
    if not stages:
        raise runs.ParameterError(f"--to {arguments.last}: comes before --from {arguments.first}; swap them")
    _check_input(values, stages)
    settings = runs.build_settings(stages[0], runs.parameters_of(stages[0], values))
    print(
        f"run {settings.run}: {', '.join(str(path) for path in arguments.profiles)}; engine {_engine(settings)}",
        flush=True,
    )
    if arguments.plan:
        from . import plan

        print(
            plan.plan_text(
                plan.estimate_run(values, [stage for stage in stages if stage not in runs.left_out_stages(values)])
            )
        )
        return DONE
    return _run_stages(values, stages, force=arguments.force)


def _run_stages(values: dict[str, Any], stages: Sequence[str], *, force: bool) -> int:
    for stage in stages:
        if why := runs.left_out_stages(values).get(stage):
            print(f"  {runs.NOTEBOOKS[stage]:<12} left out ({why})", flush=True)
            continue
        status = _run_stage(stage, values, force=force)
        if status != DONE:
            return status
    if stages[-1] == "evaluate":
        _finish(runs.run_folder(runs.build_settings("evaluate", runs.parameters_of("evaluate", values))))
    return DONE


def _run_profile(values: dict[str, Any]) -> int:
    """Run all six notebooks with one run's parameters: what sweeps and rounds do again and again."""
    _check_input(values)
    print(f"\nrun {values['run']}", flush=True)
    return _run_stages(values, runs.STAGES, force=False)


def _check_input(values: dict[str, Any], stages: Sequence[str] = runs.STAGES) -> None:
    """Find out now what could not be had in an hour: benchmarks, the model's folder, the domain's prompts."""
    from .. import runs, vote
    from ..evaluate import check_tasks

    evaluate = runs.build_settings("evaluate", runs.parameters_of("evaluate", values))
    dedup = runs.build_settings("dedup", runs.parameters_of("dedup", values))
    try:
        domain = runs.get_domain(evaluate.domain, solve=evaluate.solve_prompt, rewrite=dedup.rewrite_prompt)
    except ValueError as error:
        raise runs.ParameterError(str(error)) from None
    if "evaluate" in stages and not (evaluate.evaluate_on or domain.benchmarks):
        raise runs.ParameterError(
            f"evaluate_on: the domain {domain.name} names no benchmark; name one of "
            f"{', '.join(benchmarks.benchmark_names())}, or stop at --to distil"
        )
    check_tasks(evaluate)
    split, items = evaluate.benchmark_split, evaluate.benchmark_items
    for name in evaluate.evaluate_on or domain.benchmarks:
        if (
            name == "arithmetic" or name not in benchmarks.benchmark_names() or split != "test"
        ):  # these cost nothing to try
            benchmarks.load_benchmark(name, split=split, items=items, seed=evaluate.benchmark_seed)
    if evaluate.engine == "server" and not evaluate.base_urls:
        raise runs.ParameterError("base_urls: engine 'server' needs one at least, e.g. ['http://localhost:8000/v1']")
    if "vote" in stages:
        vote.token_budget(runs.build_settings("vote", runs.parameters_of("vote", values)))
    _check_recipes(values, stages)
    for name in ("model", "student"):
        text = str(values.get(name, ""))
        if text.startswith((".", "/", "~")) and not (Path(text).expanduser() / "config.json").exists():
            raise runs.ParameterError(
                f"{name}: {text!r} is no model folder (no config.json there); allowed: 'bundled', a folder, a hub id"
            )


def _check_recipes(values: dict[str, Any], stages: Sequence[str]) -> None:
    """Find out now what this machine cannot train."""
    from .. import finetune

    for stage, name in (("finetune", "batch_size"), ("distil", "student_batch_size")):
        settings = runs.build_settings(stage, runs.parameters_of(stage, values))
        if stage in stages and settings.engine != "replay":
            try:
                finetune.check_recipe(finetune.recipe_of(settings), name)
            except finetune.TrainingError as error:
                raise runs.ParameterError(str(error)) from None


def _engine(settings: runs.Common) -> str:
    from .. import generation

    name, why = generation.choose_engine(settings)
    return f"{name} ({why})"


def _run_stage(stage: str, values: dict[str, Any], *, force: bool) -> int:
    """Run one notebook unless it is current; print one line."""
    import papermill

    own = runs.parameters_of(stage, values)
    settings = runs.build_settings(stage, own)
    folder = runs.run_folder(settings)
    label = f"  {runs.NOTEBOOKS[stage]:<12}"
    if not force and runs.is_current(stage, settings):
        print(f"{label} unchanged, skipped", flush=True)
        return DONE
    folder.mkdir(parents=True, exist_ok=True)
    source, target = (
        runs.ROOT / "notebooks" / f"{runs.NOTEBOOKS[stage]}.ipynb",
        folder / f"{runs.NOTEBOOKS[stage]}.ipynb",
    )
    if sys.stdout.isatty():
        print(f"{label} running …", end="", flush=True)
    started = time.monotonic()
    try:
        with _quiet_kernel(folder / "kernel.log"):
            papermill.execute_notebook(
                source, target, parameters=own, progress_bar=False, log_output=False, kernel_name="python3",
                stderr_file=runs.ProgressEcho(sys.stdout, label),
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        print(
            f"{_over()}{label} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n    see {runs.shown_path(target)}",
            flush=True,
        )
        return FAILED
    except Exception as error:  # a dead kernel, a full disk: papermill raises many kinds
        print(
            f"{_over()}{label} failed: {type(error).__name__}: {error}\n    see {runs.shown_path(target)}", flush=True
        )
        return FAILED
    manifest = runs.read_manifest(folder, stage)
    if manifest is None:  # a dead kernel leaves cells that read "completed"; only the manifest says that it is done
        print(f"{_over()}{label} failed: it ended without a manifest; see {runs.shown_path(target)}", flush=True)
        return FAILED
    counts = ", ".join(f"{name} {count:,}" for name, count in manifest["counts"].items())
    print(f"{_over()}{label} {time.monotonic() - started:6.0f} s  {counts}", flush=True)
    return DONE


def _over() -> str:
    """Return what goes back to the start of the line and clears it, in a terminal; a log has a line for each message."""
    return "\r\x1b[K" if sys.stdout.isatty() else ""


@contextlib.contextmanager
def _quiet_kernel(log: Path) -> Iterator[None]:
    """Send what the kernel and the engines print on standard error to `log`, and find the kernel of this very environment."""
    logger = logging.getLogger("papermill")
    level, path, shown = logger.level, os.environ.get("PATH", ""), os.dup(2)
    logger.setLevel(logging.ERROR)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    os.environ.setdefault(runs.PROGRESS_SECONDS, "1" if sys.stdout.isatty() else "20")
    try:
        with open(log, "a", encoding="utf-8") as handle:
            os.dup2(handle.fileno(), 2)
            yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        logger.setLevel(level)
        os.environ["PATH"] = path


def _finish(folder: Path) -> None:
    import pandas as pd

    from . import report

    comparisons = pd.read_parquet(folder / "evaluate" / "comparisons.parquet")
    print("\n" + report.result_table(comparisons))
    target = report.write_report([folder], folder / "report.html", defaults=_defaults())
    print(f"\nreport: {runs.shown_path(target)}")


def _defaults() -> dict[str, Any]:
    """Return every parameter's default, for the report to show what a run changed."""
    return {
        name: field.get_default(call_default_factory=True)
        for model in runs.STAGE_SETTINGS.values()
        for name, field in model.model_fields.items()
    }


def _report(arguments: argparse.Namespace) -> int:
    from . import report

    folders = [_find_run(name) for name in arguments.runs]
    target = report.write_report(folders, arguments.output or folders[0] / "report.html", defaults=_defaults())
    print(runs.shown_path(target))
    return DONE


def _verify(arguments: argparse.Namespace) -> int:
    from . import verify

    folder = _find_run(arguments.run)
    differences = verify.verify(folder, benchmark_dir=arguments.benchmark_dir)
    for difference in differences:
        print(difference)
    print(
        f"{runs.shown_path(folder)}: {f'{len(differences)} differences' if differences else 'every table came out the same'}"
    )
    return FAILED if differences else DONE


def _find_run(name: str) -> Path:
    for folder in (Path(name), runs.ROOT / "outputs" / name):
        if any((folder / stage / "manifest.json").exists() for stage in runs.STAGES):
            return folder
    outputs = runs.ROOT / "outputs"
    known = sorted({p.parent.parent.relative_to(outputs).as_posix() for p in outputs.rglob("manifest.json")})
    raise runs.RunError(f"{name}: no run of this name has a finished stage; there: {', '.join(known) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
