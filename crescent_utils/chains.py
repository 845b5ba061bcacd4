"""Commands over several runs, and what leaves the kit: `crescent sweep`, `crescent rounds`, `crescent publish`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import params, runs

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
    from . import claims, sweep

    jobs = sweep.plan(arguments.profiles, arguments.overlays, arguments.seeds, arguments.overrides)
    if arguments.list:
        print("\n".join(job.values["run"] for job in jobs))
        return 0
    status = sweep.run(jobs, run_one)
    if status:
        return status
    folder = jobs[0].folder.parent
    scores = sweep.scores(jobs)
    table = sweep.comparisons(scores)
    scores.to_parquet(folder / "scores.parquet", index=False)
    table.to_parquet(folder / "comparisons.parquet", index=False)
    ledger = claims.ledger(table)
    (folder / "claims.json").write_text(claims.to_json(ledger), encoding="utf-8")
    shown = table[table["decoding"] == "greedy"]
    names = [
        "benchmark",
        "before",
        "after",
        "n",
        "seeds",
        "before_accuracy",
        "after_accuracy",
        "difference",
        "low",
        "high",
        "p_value",
    ]
    print("\n" + shown[names].round(3).to_string(index=False) + f"\n\n{claims.verdict_line(ledger)}\ntables: {folder}")
    return 0


def _rounds(arguments: argparse.Namespace, run_one: RunOne) -> int:
    from . import models, plots_training, rounds

    chain = rounds.plan(arguments.profiles, arguments.overrides, arguments.rounds)
    if arguments.list:
        print("\n".join(values["run"] for values in chain))
        return 0
    status = rounds.run(chain, run_one)
    if status:
        return status
    folders = [runs.run_folder(params.build("elicit", params.for_stage("elicit", values))) for values in chain]
    table = rounds.monitors(folders, models.resolve(chain[0].get("model", "bundled")).locate())
    folder = folders[0].parent
    table.to_parquet(folder / "rounds.parquet", index=False)
    figure, text = plots_training.rounds(table)
    figure.savefig(folder / "rounds.png", dpi=100)
    print("\n" + table.round(3).to_string(index=False) + f"\n\n{text}\ntable and figure: {folder}")
    return 0


def _publish(arguments: argparse.Namespace, find_run: Callable[[str], Path]) -> int:
    from . import cards

    if arguments.public and not arguments.push:
        raise params.ParameterError("--public: nothing is pushed without --push OWNER/NAME")
    run = find_run(arguments.run)
    target = cards.export(run, arguments.output or run / "publish", arguments.stage)
    print(f"{target}: model/ and dataset/, each with its card; nothing has left this machine")
    if arguments.push:
        for address in cards.push(target, arguments.push, public=arguments.public):
            print(f"pushed ({'public' if arguments.public else 'private'}): {address}")
    return 0
