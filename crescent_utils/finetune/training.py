"""Training: supervised fine-tuning and distillation with TRL, on pairs that the model wrote itself.

The prompt of a pair is the very request of `03_vote`, through the same chat template; the loss is on the completion alone, its
end-of-turn token included. Both are checked before the first step. How a recipe is trained stands in `sft.py`.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generation, runs
from ..runs import Cost, Distil, Finetune, Training
from . import masks, recipes, sft
from .masks import TrainingError
from .recipes import Recipe, Teacher

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 3  # pairs whose tokens are kept for a look
_ASKED_BY = ("model", "domain", "system_prompt", "solve_prompt")  # parameters that decide how a question is asked


@dataclass(frozen=True)
class Trained:
    """A trained model: its folder (whole weights), its fingerprint, the log (a row a logged step), what was counted, what it took.

    `tokens` are those of the first pairs (`masks.token_table`).
    """

    model: generation.Model
    log: pd.DataFrame
    counts: dict[str, int]
    cost: Cost
    tokens: pd.DataFrame


def finetune_recipe(settings: Finetune) -> Recipe:
    """Take the recipe out of the parameters of `04_finetune`."""
    return _recipe(settings, {})


def distil_recipe(settings: Distil) -> Recipe:
    """Take the recipe out of the parameters of `05_distil`; a student that lost layers is trained in full."""
    own = {name: getattr(settings, f"student_{name}") for name in ("learning_rate", "epochs", "batch_size")}
    return _recipe(settings, {"method": "full", **own})


def _recipe(settings: Training, own: dict[str, Any]) -> Recipe:
    names = [item.name for item in fields(Recipe) if hasattr(settings, item.name)]  # they have the same names
    return Recipe.of({name: getattr(settings, name) for name in names} | own)


def chosen_rows(qa: pd.DataFrame, settings: Training) -> pd.DataFrame:
    """Return the rows of the vote's table `qa` that are learned from: all, unless the parameters say less.

    `train_min_agreement` filters, `max_pairs` draws so many by `seed`, and `label_source` "random" gives each question the paths of
    another (none keeps its own), as a negative control: the same texts are learned, but they answer nothing.
    """
    kept = qa[qa["agreement"] >= settings.train_min_agreement]
    if settings.max_pairs and settings.max_pairs < len(kept):
        kept = kept.sample(settings.max_pairs, random_state=settings.seed).sort_index()
    if settings.label_source == "random":
        kept = _relabelled(kept, settings.seed)
    return kept.reset_index(drop=True)


def _relabelled(qa: pd.DataFrame, seed: int) -> pd.DataFrame:
    ids = list(dict.fromkeys(qa["id"]))
    random.Random(seed).shuffle(ids)
    giver = dict(zip(ids, ids[1:] + ids[:1], strict=True))
    paths = {number: list(part["path"]) for number, part in qa.groupby("id")}
    place = qa.groupby("id").cumcount()
    given = [paths[giver[number]][k % len(paths[giver[number]])] for number, k in zip(qa["id"], place, strict=True)]
    return qa.assign(path=given)


def check_asked_alike(voted: Mapping[str, Any], settings: Training) -> str:
    """Check that the prompts of training are those of sampling: `voted` is the manifest of the vote; return a line that says so.

    Raises TrainingError naming the parameter that differs. That both become the same tokens is checked by `train`.
    """
    for name in _ASKED_BY:
        then, now = voted["parameters"].get(name, ""), runs.hide_places(settings.model_dump())[name]
        if then != now:
            raise TrainingError(
                f"{name}: {now!r} here, but the vote sampled with {then!r}; set it alike, or the model is trained on other prompts "
                "than it is asked"
            )
    return "asked as in the vote: same " + ", ".join(name.replace("_", " ") for name in _ASKED_BY)


def training_pairs(qa: pd.DataFrame, domain: runs.Domain, system_prompt: str = "") -> list[dict[str, Any]]:
    """Return (question, winning path) pairs in TRL's conversational prompt-completion form.

    A row with a `prompt` of its own (one of LMSI's formats) is learned as the answer to that.
    """
    pairs = []
    for row in qa.itertuples():
        prompt = runs.solve_messages(domain, row.question, system_prompt)
        if "prompt" in qa:
            prompt[-1] = {"role": "user", "content": row.prompt}
        pairs.append({"prompt": prompt, "completion": [{"role": "assistant", "content": row.path}]})
    return pairs


def on_policy_teacher(model: generation.Model, voted: Mapping[str, Any]) -> Teacher:
    """Return `model` as the teacher of an on-policy student, which samples as `03_vote` did (`voted` is its manifest)."""
    asked = voted["parameters"]
    return Teacher(model, asked["vote_temperature"], asked["vote_top_p"], asked["vote_max_tokens"])


def train(
    base: generation.Model,
    pairs: list[dict[str, Any]],
    target: Path,
    recipe: Recipe,
    label: str,
    teacher: Teacher | None = None,
    *,
    progress: bool = False,
) -> Trained:
    """Fine-tune `base` on `pairs` with TRL and leave the whole model in `target`/model (LoRA: also `target`/adapter).

    Goes on from the last checkpoint in `target`/trainer where the same training was cut before. Deterministic on CPU for a seed and
    a number of threads. With a `teacher` the student answers the pairs' prompts itself and follows the teacher's distribution on
    what it wrote (on-policy distillation); the pairs' completions are not read. Raises TrainingError for too few pairs, a recipe
    that cannot be trained here, a disk too small, or a loss that is not finite or diverges (the last good checkpoint stays).
    """
    import torch

    if teacher:
        recipe = replace(recipe, held_out=0.0)  # its loss is measured on what the student writes
    if len(pairs) - int(len(pairs) * recipe.held_out) < 2:
        raise TrainingError(
            f"{len(pairs)} pairs are too few to train on; sample more questions (elicit_samples) or lower min_agreement"
        )
    recipes.check_recipe(recipe)
    tokenizer = generation.load_tokenizer(base.locate())
    masks.check_pairs(tokenizer, pairs, recipe.max_length)
    work = target / "trainer"
    sft.prepare_job(work, base, pairs, recipe, teacher)
    result = sft.launch_job(work, recipe, progress=progress)
    with generation.quiet_transformers():
        trained = _publish(work / "out", base, target, recipe, label)
    counts = {"pairs": len(pairs), "held_out": result["held_out"], "trained": len(pairs) - result["held_out"],
              "steps": result["steps"], "tokens": result["tokens"]}  # fmt: skip
    record = {
        "fingerprint": trained.fingerprint,
        "base": base.fingerprint,
        "pairs_sha256": _pairs_hash(pairs),
        "counts": counts,
        "cost": result["cost"],
    }
    runs.write_json(target / "trained.json", record)
    shutil.rmtree(work)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    tokens = masks.token_table(tokenizer, pairs[:SHOWN])
    return Trained(trained, _log(result["history"]), counts, Cost(**result["cost"]), tokens)


def recorded_training(recorded: Path, pairs: list[dict[str, Any]], label: str) -> Trained:
    """Return what an earlier run trained on these very pairs, from its folder; nothing is trained and no weights are read.

    Raises TrainingError where that run trained on other pairs.
    """
    import pandas as pd

    try:
        record = json.loads((recorded / "trained.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(
            f"{recorded.name}: run {recorded.parent.name!r} has not been trained; choose engine: auto"
        ) from None
    if record["pairs_sha256"] != _pairs_hash(pairs):
        raise TrainingError(
            f"{recorded.name}: run {recorded.parent.name!r} was trained on other pairs than the stages before this one gave; "
            "set engine: auto to train on these, or take back the changed parameters"
        )

    def nowhere() -> Path:
        raise generation.ModelError("a replay has no weights; choose engine: auto")

    log = pd.read_parquet(recorded / "log.parquet")
    return Trained(
        generation.Model(label, record["fingerprint"], nowhere),
        log,
        record["counts"],
        Cost(**record.get("cost", {})),
        runs.read_table(recorded.parent, recorded.name, "tokens"),
    )


def _pairs_hash(pairs: list[dict[str, Any]]) -> str:
    return generation.combined_fingerprint(*(json.dumps(pair, sort_keys=True, ensure_ascii=True) for pair in pairs))


def _log(history: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    names = {"step": "step", "epoch": "epoch", "loss": "loss", "eval_loss": "eval_loss", "learning_rate": "learning_rate",
             "num_input_tokens_seen": "tokens"}  # fmt: skip
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            rows.setdefault(entry["step"], {}).update({names[k]: v for k, v in entry.items() if k in names})
    frame = pd.DataFrame([rows[step] for step in sorted(rows)], columns=list(dict.fromkeys(names.values())))
    return frame.astype({name: float for name in frame.columns if name != "step"})


def _publish(made: Path, base: generation.Model, target: Path, recipe: Recipe, label: str) -> generation.Model:
    """Move what training wrote to its place, and merge an adapter into the base's weights."""
    if recipe.method == "full":
        shutil.rmtree(target / "model", ignore_errors=True)
        generation.move_into_place(made, target / "model")
        return generation.Model(label, generation.folder_fingerprint(target / "model"), lambda: target / "model")
    shutil.rmtree(target / "adapter", ignore_errors=True)
    generation.move_into_place(made, target / "adapter")
    _tidy_adapter(target / "adapter")
    weights = target / "adapter" / "adapter_model.safetensors"
    fingerprint = generation.combined_fingerprint(base.fingerprint, generation.file_sha256(weights))
    generation.merge_adapter(target / "adapter", base.locate(), target / "model")
    return generation.Model(label, fingerprint, lambda: target / "model")


def _tidy_adapter(folder: Path) -> None:
    """Store an adapter in bfloat16, without the path of this machine that peft writes into its files."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = folder / "adapter_model.safetensors"
    save_file(
        {name: value.to(torch.bfloat16) for name, value in load_file(weights).items()},
        weights,
        metadata={"format": "pt"},
    )
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = None
    runs.write_json(folder / "adapter_config.json", settings)
    (folder / "README.md").unlink(missing_ok=True)
