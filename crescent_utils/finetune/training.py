"""Training: from rows of the vote to trained weights, or to what an earlier run trained.

The prompt of a pair is the request of `03_vote` without its exemplars, or the bare question, through the same chat
template; the loss counts the completion alone, its end-of-turn token included. Both are checked before the first step.
`sft.py` holds the training itself.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generation, runs
from ..runs import Cost, Finetune, Training
from . import masks, recipes, sft
from .masks import TrainingError
from .sft import Teacher

if TYPE_CHECKING:
    import pandas as pd

PAIRS_SHOWN = 3  # pairs whose tokens are kept for a look
PROMPT_PARAMETERS = ("model", "domain", "system_prompt", "solve_prompt")  # they decide how a question is asked
LOG_COLUMNS = {  # of the log table, by their names in the trainer's history
    "step": "step",
    "epoch": "epoch",
    "loss": "loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "num_input_tokens_seen": "tokens",
}


@dataclass(frozen=True)
class Trained:
    """A trained model, the log of its training (one row per logged step), what was counted, and what it took.

    `tokens` are those of the first pairs (`masks.token_table`).
    """

    model: generation.Model
    log: pd.DataFrame
    counts: dict[str, int]
    cost: Cost
    tokens: pd.DataFrame


def chosen_rows(qa: pd.DataFrame, settings: Training) -> pd.DataFrame:
    """Return the rows of the vote's table `qa` that are learned from: all, unless the parameters say less.

    `train_min_agreement` filters, `max_pairs` draws that many by `seed`.
    """
    rows = qa[qa["agreement"] >= settings.train_min_agreement]
    if settings.max_pairs and settings.max_pairs < len(rows):
        rows = rows.sample(settings.max_pairs, random_state=settings.seed).sort_index()
    return rows.reset_index(drop=True)


def with_paths_of_others(qa: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return `qa` with each question given the paths of another one, drawn by `seed`; none keeps its own.

    The same texts are learned then, but they answer nothing. With LMSI's formats each format is shuffled by itself, so
    that a prompt keeps a reply of its form. Raises TrainingError for a single question.
    """
    import pandas as pd

    if "format" not in qa:
        return _shuffled_paths(qa, seed)
    parts = [_shuffled_paths(part, seed) for _, part in qa.groupby("format", sort=False)]
    return pd.concat(parts).loc[qa.index]


def _shuffled_paths(qa: pd.DataFrame, seed: int) -> pd.DataFrame:
    ids = list(dict.fromkeys(qa["id"]))
    if len(ids) < 2:
        raise TrainingError(
            f"random_label_control: true needs two questions at least (with path_formats: of each format) to swap "
            f"their answers, and there are {len(ids)}; sample more questions, or set random_label_control: false"
        )
    random.Random(seed).shuffle(ids)
    paths_of = qa.groupby("id")["path"].apply(list)
    givers = zip(ids, ids[1:] + ids[:1], strict=True)
    foreign_paths = {question: itertools.cycle(paths_of[giver]) for question, giver in givers}
    return qa.assign(path=[next(foreign_paths[question]) for question in qa["id"]])


def check_asked_alike(voted: Mapping[str, Any], settings: Training) -> str:
    """Return a line which says how training asks beside the vote, whose manifest is `voted`.

    Raises TrainingError naming a parameter that differs and should not. With train_prompt "bare" the solve prompt is
    not learned, so it may differ. That both become the same tokens is checked by `train`.
    """
    bare = settings.train_prompt == "bare"
    alike = [name for name in PROMPT_PARAMETERS if not (bare and name == "solve_prompt")]
    for name, of_vote, value in runs.differing_parameters(voted, settings, alike):
        raise TrainingError(
            f"{name}: {value} here, but the vote sampled with {of_vote}; set it alike, or the model is "
            "trained on other prompts than it is asked"
        )
    shots = voted["parameters"].get("vote_shots", "none")
    asked = "the bare question, not the vote's request" if bare else "asked as in the vote"
    without = "" if shots == "none" else f", without its exemplars ({shots})"
    return f"{asked}{without}: same " + ", ".join(name.replace("_", " ") for name in alike)


def training_pairs(
    qa: pd.DataFrame, domain: runs.Domain, system_prompt: str = "", train_prompt: str = "solve"
) -> list[dict[str, Any]]:
    """Return (question, winning path) pairs in TRL's conversational prompt-completion form.

    `train_prompt` "solve" learns the path as the answer to the vote's request; "bare" as the answer to the question
    alone, without the domain's system prompt (without `system_prompt` the chat template says what it says by itself).
    A row with a `prompt` of its own (one of LMSI's formats) is learned as the answer to that prompt; ParameterError
    with "bare".
    """
    if train_prompt == "bare" and "prompt" in qa:
        raise runs.ParameterError(
            "train_prompt: 'bare' contradicts the vote's path_formats, whose rows bring prompts of their own; set "
            "train_prompt: solve, or path_formats: [] in the vote"
        )
    pairs = []
    for row in qa.itertuples():
        if train_prompt == "bare":
            prompt = runs.bare_messages(row.question, system_prompt)
        else:
            prompt = runs.solve_messages(domain, row.question, system_prompt)
        if "prompt" in qa:
            prompt[-1] = {"role": "user", "content": row.prompt}
        pairs.append({"prompt": prompt, "completion": [{"role": "assistant", "content": row.path}]})
    return pairs


def train(
    base: generation.Model,
    pairs: list[dict[str, Any]],
    target: Path,
    recipe: Finetune,
    label: str,
    teacher: Teacher | None = None,
) -> Trained:
    """Fine-tune `base` on `pairs` with TRL and leave the whole model in `target`/model (LoRA: also `target`/adapter).

    A finished training in `target` with the same pairs, recipe, base and teacher is taken over, and a line says so; one
    that was cut goes on from its last checkpoint. Deterministic on CPU for a seed and a number of threads. With a
    `teacher` the student answers the pairs' prompts itself and follows the teacher's distribution on what it wrote
    (on-policy distillation); the pairs' completions are not read. Raises TrainingError for too few pairs, a recipe that
    cannot be trained here, a disk too small, or a loss that is not finite or diverges (the last good checkpoint stays).
    """
    if teacher:
        recipe = recipe.model_copy(update={"held_out": 0.0})  # its loss is measured on what the student writes
    if len(pairs) - int(len(pairs) * recipe.held_out) < 2:
        raise TrainingError(
            f"{len(pairs)} pairs are too few to train on; sample more questions (elicit_samples) or lower min_agreement"
        )
    recipes.check_recipe(recipe)
    tokenizer = generation.load_tokenizer(base.locate())
    masks.check_pairs(tokenizer, pairs, recipe.max_length)
    learning_settings = recipe.model_dump(include=recipes.LEARNING_SETTINGS)
    key = sft.training_key(base, pairs, learning_settings, teacher)
    record = _finished_training(target, key, base)
    if record is None:
        record = _train_anew(base, pairs, target, recipe, teacher, key)
    else:
        print(f"{target.name}: the same pairs, recipe and base were trained here before; that training is taken over")
    return Trained(
        generation.load_trained(target, base, label),
        _log_table(record["history"]),
        record["counts"],
        Cost(**record["cost"]),
        masks.token_table(tokenizer, pairs[:PAIRS_SHOWN]),
    )


def train_control(stage: runs.Stage, rows: pd.DataFrame, domain: runs.Domain) -> Trained | None:
    """Train the negative control on `rows`, each question with another one's paths; None without random_label_control.

    Its recipe is that of the tuned model, so that whatever it gains comes from the form of the texts alone. It lies in
    `finetune/control`. A replay returns the recorded one. Raises what `train` and `recorded_training` raise.
    """
    settings: Any = stage.settings
    if not settings.random_label_control:
        return None
    shuffled = with_paths_of_others(rows, settings.seed)
    pairs = training_pairs(shuffled, domain, settings.system_prompt, settings.train_prompt)
    if settings.engine == "replay":
        return recorded_training(stage, pairs, runs.CONTROL)
    base, recipe = generation.resolve_model(settings.model), recipes.recipe_of(settings)
    return train(base, pairs, runs.control_folder(stage.folder.parent), recipe, runs.CONTROL)


def _finished_training(target: Path, key: str, base: generation.Model) -> dict[str, Any] | None:
    """Return the record of the training with this key in `target`; None without it, or without its weights."""
    if not (target / "trained.json").exists():
        return None
    record: dict[str, Any] = json.loads((target / "trained.json").read_text(encoding="utf-8"))
    if record.get("key") != key or record["fingerprint"] != _weights_fingerprint(target, base):
        return None
    return record


def _weights_fingerprint(target: Path, base: generation.Model) -> str:
    """Return the fingerprint of the weights in `target`: an adapter on its base, or the whole model; "" for none."""
    adapter = target / "adapter" / "adapter_model.safetensors"
    if adapter.exists():
        return generation.combined_fingerprint(base.fingerprint, runs.file_sha256(adapter))
    if (target / "model").exists():
        return runs.folder_fingerprint(target / "model")
    return ""


def _train_anew(
    base: generation.Model,
    pairs: list[dict[str, Any]],
    target: Path,
    recipe: Finetune,
    teacher: Teacher | None,
    key: str,
) -> dict[str, Any]:
    """Train, move the weights to their place, and return the record that `target`/trained.json keeps of it."""
    import torch

    work = target / "trainer"
    sft.prepare_job(work, base, pairs, recipe, teacher)
    result = sft.launch_job(work, recipe)
    (target / "trained.json").unlink(missing_ok=True)
    _place_weights(work / "out", base, target, recipe)
    record = {
        "fingerprint": _weights_fingerprint(target, base),
        "base": base.fingerprint,
        "key": key,
        "pairs_sha256": _pairs_hash(pairs),
        **result,
    }
    runs.write_json(target / "trained.json", record)
    shutil.rmtree(work)
    torch.cuda.empty_cache()
    return record


def recorded_training(stage: runs.Stage, pairs: list[dict[str, Any]], label: str) -> Trained:
    """Return what the replayed run trained in this stage; nothing is trained and no weights are read.

    With the label of the control it is that one. Raises TrainingError where that run was not trained (has no control),
    trained by another recipe, or on other pairs.
    """
    is_control = label == runs.CONTROL
    recorded = runs.control_folder(stage.replayed) if is_control else stage.replayed / stage.name
    manifest = runs.read_manifest(stage.replayed, stage.name)
    if is_control and manifest is not None and label not in manifest["models"]:
        raise TrainingError(
            f"random_label_control: run {stage.settings.replay_from!r} has trained no control; set engine: auto to "
            "train one, or random_label_control: false"
        )
    if manifest is None or not (recorded / "trained.json").exists():
        raise TrainingError(
            f"{stage.name}: run {stage.settings.replay_from!r} has not been trained; set engine: auto to train it"
        )
    _check_trained_alike(manifest, stage.settings)
    record = json.loads((recorded / "trained.json").read_text(encoding="utf-8"))
    if record["pairs_sha256"] != _pairs_hash(pairs):
        raise TrainingError(
            f"{stage.name}: run {stage.settings.replay_from!r} was trained on other pairs than the stages before "
            "this one gave; set engine: auto to train on these, or take back the changed parameters"
        )

    def nowhere() -> Path:
        raise generation.ModelError("a replay has no weights; choose engine: auto")

    prefix = "control_" if is_control else ""
    return Trained(
        generation.Model(label, record["fingerprint"], nowhere),
        runs.read_table(stage.replayed, stage.name, f"{prefix}log"),
        record["counts"],
        Cost(**record.get("cost", {})),
        runs.read_table(stage.replayed, stage.name, f"{prefix}tokens"),
    )


def _check_trained_alike(manifest: Mapping[str, Any], settings: runs.Common) -> None:
    """Raise TrainingError where `settings` ask for another training than the one that `manifest` tells of.

    A replay shows what was recorded, so it must not go under the name of a training that never happened.
    """
    decisive = recipes.LEARNING_SETTINGS | {"model", "train_prompt"}
    names = [name for name in type(settings).model_fields if name in decisive or name.startswith("student")]
    differences = [
        f"{name}: {recorded}, not {value}"
        for name, recorded, value in runs.differing_parameters(manifest, settings, names)
    ]
    if differences:
        raise TrainingError(
            f"{manifest['stage']}: the replayed run was trained with {'; '.join(differences)}. A replay trains "
            "nothing: set engine: auto to train with these, or take back the changed parameters"
        )


def _pairs_hash(pairs: list[dict[str, Any]]) -> str:
    return generation.combined_fingerprint(*(json.dumps(pair, sort_keys=True) for pair in pairs))


def _log_table(history: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the trainer's history as one row per step, with training and held-out loss side by side."""
    import pandas as pd

    entries = pd.DataFrame(history).reindex(columns=list(LOG_COLUMNS)).rename(columns=LOG_COLUMNS)
    entries = entries.dropna(subset=["loss", "eval_loss"], how="all")
    table = entries.groupby("step", as_index=False).last()
    return table.astype({name: float for name in table.columns if name != "step"})


def _place_weights(written: Path, base: generation.Model, target: Path, recipe: Finetune) -> None:
    """Move what training wrote to its place, and merge an adapter into the base's weights.

    An adapter is stored in bfloat16, without the path of this machine that peft writes into its files.
    """
    import torch
    from safetensors.torch import load_file, save_file

    for name in ("adapter", "model"):
        shutil.rmtree(target / name, ignore_errors=True)
    if recipe.method == "full":
        generation.move_into_place(written, target / "model")
        return
    weights = written / "adapter_model.safetensors"
    values = {name: value.to(torch.bfloat16) for name, value in load_file(weights).items()}
    save_file(values, weights, metadata={"format": "pt"})
    settings = json.loads((written / "adapter_config.json").read_text(encoding="utf-8"))
    runs.write_json(written / "adapter_config.json", settings | {"base_model_name_or_path": None})
    (written / "README.md").unlink(missing_ok=True)
    generation.move_into_place(written, target / "adapter")
    generation.merge_adapter(target / "adapter", base.locate(), target / "model")
