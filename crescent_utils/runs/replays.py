"""Replays: which stages a replay borrows from the recorded run, and in which parameters it differs from that run.

A replay reads what it lacks from the run that it replays. What it has of its own must then be of the same history: a
vote with another threshold does not belong to the recorded training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import contents, layout, params
from .layout import RunError
from .params import Common


def all_stages_before(name: str, settings: Common) -> list[str]:
    """Return the stages that stage `name` rests on, directly or not, in the order of the notebooks."""
    direct = layout.stages_before(name, settings)
    found = {*direct, *(further for above in direct for further in all_stages_before(above, settings))}
    return [stage for stage in params.STAGES if stage in found]


def borrowed_stages(name: str, settings: Common) -> list[str]:
    """Return those of the stages before `name` that a replay takes from the replayed run, since this run lacks them."""
    own = layout.run_folder(settings)
    return [stage for stage in all_stages_before(name, settings) if layout.run_of_stage(stage, settings) != own]


def changed_parameters(stage: str, given: Mapping[str, Any], settings: Common) -> list[str]:
    """Return in words in which parameters of `stage` the values `given` differ from those of the replayed run.

    A parameter that the recorded manifest does not have, an older kit's, had what is now its default.
    """
    recorded = layout.read_manifest(layout.run_folder(settings, settings.replay_from), stage)
    if recorded is None:
        return []
    defaults = params.build_settings(stage, {}).model_dump()
    changed = []
    for name, default in defaults.items():
        there = recorded["parameters"].get(name, default)
        is_told = name in given and name not in contents.NOT_IN_FINGERPRINT and name not in recorded.get("hidden", [])
        here = layout.portable_path(given[name]) if is_told and isinstance(given[name], str) else given.get(name)
        if is_told and here != there:
            changed.append(f"{name} = {here!r} (recorded: {there!r})")
    return changed


def changes_of_replay(settings: Common) -> list[str]:
    """Return in words what a replay changed beside the recorded run: here, and in the stages that it has of its own."""
    stage = type(settings).__name__.lower()
    if settings.engine != "replay" or stage not in params.STAGES:
        return []
    changes = changed_parameters(stage, settings.model_dump(), settings)
    for above in all_stages_before(stage, settings):
        if manifest := layout.read_manifest(layout.run_folder(settings), above):
            changed = changed_parameters(above, manifest["parameters"], settings)
            changes += [f"{layout.NOTEBOOKS[above]} of this run has {text}" for text in changed]
    return changes


def check_one_history(name: str, settings: Common) -> None:
    """Raise RunError where stage `name` of a replay would read two stages that were not made one from the other."""
    borrowed = borrowed_stages(name, settings) if settings.engine == "replay" else []
    for stage in borrowed:
        for above in all_stages_before(stage, settings):
            own = layout.read_manifest(layout.run_folder(settings), above)
            if own is None or above in borrowed:
                continue
            if changed := changed_parameters(above, own["parameters"], settings):
                notebooks = layout.NOTEBOOKS
                raise RunError(
                    f"{name}: run {settings.run!r} has a {notebooks[above]} of its own with {'; '.join(changed)}, to "
                    f"which the recorded {notebooks[stage]} does not belong; run notebooks/{notebooks[stage]}.ipynb "
                    f"first, or {notebooks[above]} again without the change, or set `run` to a new name"
                )
