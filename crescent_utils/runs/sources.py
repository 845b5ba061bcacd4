"""Sources: where the value of each parameter of a notebook comes from.

A value that is set in the parameters cell, or by papermill, wins over the notebook's `profile`, and the profile over
the default. Where neither a profile nor a `run` is set, a notebook goes on with the run that the first notebook of this
session began.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import layout, params, replays, sessions

SHOWN_CHARACTERS = 60  # of a value
VALUES_FROM = "CRESCENT_VALUES_FROM"  # environment of a kernel: the command that hands over all values of its notebooks


@dataclass(frozen=True)
class Sources:
    """Values of one stage by where they come from; a later one wins: `profile`, `session`, `here`."""

    profile_name: str
    profile: dict[str, Any]
    session_stage: str
    session: dict[str, Any]
    here: dict[str, Any]

    def values(self) -> dict[str, Any]:
        """Return the values that are not left to the defaults."""
        return {**self.profile, **self.session, **self.here}


def settings_from(stage: str, namespace: Mapping[str, Any]) -> Any:
    """Build the settings of `stage` out of a notebook's variables and its `profile`. Raises ParameterError.

    `namespace` is the notebook's `globals()`, or any mapping of values, which then all count as set.
    """
    return params.build_settings(stage, sources_of(stage, namespace).values())


def sources_of(stage: str, namespace: Mapping[str, Any]) -> Sources:
    """Say where the parameters of `stage` come from. Raises ParameterError for a profile that cannot be read."""
    here, is_batch = _set_values(stage, namespace)
    session_stage = ""
    session: dict[str, Any] = {}
    if not is_batch and not {"run", "profile"} & here.keys():
        session_stage, session = sessions.remembered_run()
        session = params.parameters_of(stage, session) if session_stage != stage else {}
    name = here.get("profile", session.get("profile", ""))
    profile = params.load_profile([params.profile_file(name)], []) if name and isinstance(name, str) else {}
    return Sources(name, params.parameters_of(stage, profile), session_stage, session, here)


def _set_values(stage: str, namespace: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the values that were set, and whether that was not done by hand in a notebook.

    In a notebook a parameter counts as set if papermill set it, or it is not its default: the parameters cell assigns
    all of them. Raises ParameterError for a name that either cell assigns and no notebook has, since its value would
    count nowhere. A name of another notebook is harmless: a loop may hand the same values to all six.
    """
    values = params.parameters_of(stage, namespace)
    if "In" not in namespace:
        return values, True
    by_hand, injected = _parameter_cells([str(cell) for cell in namespace["In"]])
    # papermill itself adds PAPERMILL_INPUT_PATH and the like with its option --inject-paths
    params.check_names(name for name in [*by_hand, *(injected or [])] if not name.startswith("PAPERMILL_"))
    defaults = params.build_settings(stage, {}).model_dump()
    here = {name: value for name, value in values.items() if name in (injected or []) or value != defaults[name]}
    return here, injected is not None


def _parameter_cells(cells: list[str]) -> tuple[list[str], list[str] | None]:
    """Return the names that the parameters cell assigns, and those that papermill's cell does; None: there is none.

    IPython keeps the cells that ran in `In`; of a cell that ran several times the last one counts. Papermill's begins
    with "# Parameters"; the parameters cell assigns `profile` and `run` with their types.
    """
    by_hand: list[str] = []
    injected = None
    for cell in cells:
        plain, typed = _assigned_names(cell)
        if cell.startswith("# Parameters\n"):
            injected = plain
        if {"profile", "run"} <= set(typed):
            by_hand = typed + plain
    return by_hand, injected


def _assigned_names(code: str) -> tuple[list[str], list[str]]:
    """Return the names that a cell assigns without and with their type; none of a cell that is not Python."""
    try:
        nodes = ast.parse(code).body
    except (SyntaxError, ValueError):
        return [], []
    plain = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    typed: list[ast.expr] = [node.target for node in nodes if isinstance(node, ast.AnnAssign)]
    return _names_of(plain), _names_of(typed)


def _names_of(targets: list[ast.expr]) -> list[str]:
    return [target.id for target in targets if isinstance(target, ast.Name)]


def describe_sources(stage: str, namespace: Mapping[str, Any]) -> str:
    """Say in a few lines where the parameters come from, and which stages a replay reads from the recorded run."""
    sources = sources_of(stage, namespace)
    settings = params.build_settings(stage, sources.values())
    lines = [f"{where}: {_assignments(values)}" for where, values in _by_source(stage, sources).items() if values]
    lines.append(f"{'all other' if lines else 'all'} parameters: the notebook's defaults")
    if "run" in sources.session and settings.run != params.build_settings(stage, {}).run:
        lines.append(
            f"this notebook goes on with the run {settings.run!r} that {layout.NOTEBOOKS[sources.session_stage]} began "
            'in this session; for the reference run again: profile = "params/replay.yaml"'
        )
    if settings.engine == "replay":
        lines.append(
            f"REPLAY of the run {settings.replay_from!r}: nothing is sampled. For a run of your own set `profile` and "
            "`run` as in its 01 (in Colab `save_to` too)"
        )
    if borrowed := replays.borrowed_stages(stage, settings):
        names = ", ".join(layout.NOTEBOOKS[name] for name in borrowed)
        lines.append(
            f"read from the recorded run {settings.replay_from!r}, since run {settings.run!r} has none: {names}"
        )
    return "\n".join(lines)


def _by_source(stage: str, sources: Sources) -> dict[str, dict[str, Any]]:
    """Return the values that count by where they come from, in words; what equals the default is left out."""
    defaults = params.build_settings(stage, {}).model_dump()
    profile, session = f"from {sources.profile_name}", "as in the first notebook of this session's run"
    command = os.environ.get(VALUES_FROM)
    here = f"from {command}" if command else "set here"
    told: dict[str, dict[str, Any]] = {here: {}, profile: {}, session: {}}
    for name, value in sources.values().items():
        if name in sources.here:
            told[here][name] = value
        elif name in sources.profile and sources.profile[name] == value:
            told[profile][name] = value
        elif value != defaults[name]:
            told[session][name] = value
    return told


def _assignments(values: Mapping[str, Any]) -> str:
    texts = {name: repr(value) for name, value in values.items()}
    return ", ".join(
        f"{name} = {text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + '…'}"
        for name, text in texts.items()
    )
