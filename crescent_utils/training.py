"""Training: supervised fine-tuning and distillation with TRL, on pairs that the model wrote itself.

The prompt of a pair is the very request of `03_vote`, through the same chat template; the loss is on the completion alone, its
end-of-turn token included. Both are checked before the first step.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import costs, models, prompts, runs
from .costs import Cost
from .params import Distil, Finetune

if TYPE_CHECKING:
    import pandas as pd


class TrainingError(RuntimeError):
    """Training that cannot start or has failed; the message says why and what to change."""


@dataclass(frozen=True)
class Recipe:
    """How to train. `batch_size` is the effective one; `held_out` is the share of pairs kept for the loss curve."""

    method: Literal["lora", "full"]
    learning_rate: float
    epochs: float
    batch_size: int
    micro_batch_size: int
    max_length: int
    held_out: float
    seed: int
    dtype: str = "auto"
    warmup_ratio: float = 0.03
    lr_schedule: str = "linear"
    weight_decay: float = 0.0
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    system_prompt: str = ""


@dataclass(frozen=True)
class Trained:
    """A trained model: its folder (whole weights), its fingerprint, the log (a row a logged step), what was counted, what it took."""

    model: models.Model
    log: pd.DataFrame
    counts: dict[str, int]
    cost: Cost


def finetune_recipe(settings: Finetune) -> Recipe:
    """Take the recipe out of the parameters of `04_finetune`."""
    values = {item.name: getattr(settings, item.name) for item in fields(Recipe)}  # they have the same names
    return Recipe(**{**values, "lora_targets": tuple(settings.lora_targets)})


def distil_recipe(settings: Distil) -> Recipe:
    """Take the recipe out of the parameters of `05_distil`; a student that lost layers is trained in full."""
    return Recipe(
        "full",
        settings.student_learning_rate,
        settings.student_epochs,
        settings.student_batch_size,
        settings.micro_batch_size,
        settings.max_length,
        settings.held_out,
        settings.seed,
        settings.dtype,
        system_prompt=settings.system_prompt,
    )


def training_pairs(qa: pd.DataFrame, domain: prompts.Domain, system_prompt: str = "") -> list[dict[str, Any]]:
    """Return (question, winning path) pairs in TRL's conversational prompt-completion form."""
    return [
        {
            "prompt": prompts.solve_messages(domain, row.question, system_prompt),
            "completion": [{"role": "assistant", "content": row.path}],
        }
        for row in qa.itertuples()
    ]


def loss_mask(tokenizer: Any, pair: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return a pair's tokens as text, each with whether the loss counts it: context first, then what is learned.

    Raises TrainingError where the template's tokens for the prompt are no start of those for the pair.
    """
    context = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(pair["prompt"] + pair["completion"], return_dict=True)["input_ids"]
    if whole[: len(context)] != context:
        raise TrainingError(
            "the chat template renders a prompt differently once it is answered, so the loss cannot be masked by it"
        )
    learned = whole[len(context) :]
    if tokenizer.eos_token_id not in learned:
        raise TrainingError(
            f"the end-of-turn token {tokenizer.eos_token!r} is not in what is learned: the model would never stop"
        )
    return [(tokenizer.decode([token]), place >= len(context)) for place, token in enumerate(whole)]


def train(base: models.Model, pairs: list[dict[str, Any]], target: Path, recipe: Recipe, label: str) -> Trained:
    """Fine-tune `base` on `pairs` with TRL and leave the whole model in `target`/model (LoRA: also `target`/adapter).

    Deterministic on CPU for a seed and a number of threads. Raises TrainingError for too few pairs or a loss that is not finite.
    """
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, set_seed
    from trl import SFTTrainer

    held = int(len(pairs) * recipe.held_out)
    if len(pairs) - held < 2:
        raise TrainingError(
            f"{len(pairs)} pairs are too few to train on; sample more questions (elicit_samples) or lower min_agreement"
        )
    folder = base.locate()
    tokenizer = models.load_tokenizer(folder)
    loss_mask(tokenizer, pairs[0])
    _check_lengths(tokenizer, pairs, recipe.max_length)
    set_seed(recipe.seed)
    disable_progress_bars()
    pairs_hash = _pairs_hash(pairs)
    rows = Dataset.from_list(pairs).shuffle(seed=recipe.seed)
    with models.quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=_dtype(recipe.dtype), trust_remote_code=False)
        trainer = SFTTrainer(
            model=model,
            args=_arguments(target / "trainer", recipe, held),
            train_dataset=rows.select(range(held, len(pairs))),
            eval_dataset=rows.select(range(held)) if held else None,
            processing_class=tokenizer,
            peft_config=_peft(recipe),
        )
        _silence(trainer)
        meter = costs.Meter()
        trainer.train()
    cost = Cost(**meter.lap())
    log = _log(trainer.state.log_history)
    if not all(math.isfinite(entry.get("loss", 0.0)) for entry in trainer.state.log_history):
        raise TrainingError("the loss is not a number; lower learning_rate, or train in dtype: float32")
    counts = {"pairs": len(pairs), "held_out": held, "trained": len(pairs) - held, "steps": int(trainer.state.global_step),
              "tokens": int(trainer.state.num_input_tokens_seen or 0)}  # fmt: skip
    with models.quiet():
        trained = _save(trainer, tokenizer, base, target, recipe, label)
    record = {
        "fingerprint": trained.fingerprint,
        "base": base.fingerprint,
        "pairs_sha256": pairs_hash,
        "counts": counts,
        "cost": cost.rounded(),
    }
    runs.write_json(target / "trained.json", record)
    del trainer, model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Trained(trained, log, counts, cost)


def replay(recorded: Path, pairs: list[dict[str, Any]], label: str) -> Trained:
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
        raise models.ModelError("a replay has no weights; choose engine: auto")

    log = pd.read_parquet(recorded / "log.parquet")
    cost = Cost(**record.get("cost", {}))
    return Trained(models.Model(label, record["fingerprint"], nowhere), log, record["counts"], cost)


def _pairs_hash(pairs: list[dict[str, Any]]) -> str:
    return models.hash_of(*(json.dumps(pair, sort_keys=True, ensure_ascii=True) for pair in pairs))


def _dtype(name: str) -> Any:
    import torch

    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def _check_lengths(tokenizer: Any, pairs: list[dict[str, Any]], limit: int) -> None:
    # TRL would cut a longer pair, and with it the end of turn that the model has to learn, or drop it without a word.
    chats = [pair["prompt"] + pair["completion"] for pair in pairs]
    lengths = [len(tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]) for chat in chats]
    if max(lengths) > limit:
        long = sum(length > limit for length in lengths)
        raise TrainingError(
            f"max_length: {limit} cuts {long} of {len(pairs)} pairs; the longest has {max(lengths)} tokens"
        )


def _arguments(folder: Path, recipe: Recipe, held: int) -> Any:
    import torch
    from trl import SFTConfig

    micro = min(recipe.micro_batch_size, recipe.batch_size)
    if recipe.batch_size % micro:
        raise TrainingError(f"batch_size: {recipe.batch_size} is no multiple of micro_batch_size {micro}")
    on_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.batch_size // micro,
        per_device_eval_batch_size=micro,
        learning_rate=recipe.learning_rate,
        num_train_epochs=recipe.epochs,
        warmup_steps=recipe.warmup_ratio,
        lr_scheduler_type=recipe.lr_schedule,
        weight_decay=recipe.weight_decay,
        max_length=recipe.max_length,
        completion_only_loss=True,
        packing=False,
        use_cpu=on_cpu,
        bf16=False,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would log the mean of the steps before in the place of a loss that is no number
        eval_strategy="epoch" if held else "no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        include_num_input_tokens_seen="all",
    )


def _peft(recipe: Recipe) -> Any:
    if recipe.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=list(recipe.lora_targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def _silence(trainer: Any) -> None:
    # The log becomes a table; printed line by line it would only fill the notebook.
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _log(history: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    names = {"step": "step", "epoch": "epoch", "loss": "loss", "eval_loss": "eval_loss", "learning_rate": "learning_rate",
             "num_input_tokens_seen": "tokens", "num_tokens": "tokens"}  # fmt: skip
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            rows.setdefault(entry["step"], {}).update({names[k]: v for k, v in entry.items() if k in names})
    frame = pd.DataFrame([rows[step] for step in sorted(rows)], columns=list(dict.fromkeys(names.values())))
    return frame.astype({name: float for name in frame.columns if name != "step"})


def _save(trainer: Any, tokenizer: Any, base: models.Model, target: Path, recipe: Recipe, label: str) -> models.Model:
    import torch

    model = trainer.model
    if recipe.method == "lora":
        shutil.rmtree(target / "adapter", ignore_errors=True)
        for parameter in model.parameters():  # half the size on disk; the merge below reads these very values back
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)
        model.save_pretrained(target / "adapter", save_embedding_layers=False)
        _tidy_adapter(target / "adapter")
        fingerprint = models.hash_of(
            base.fingerprint, models.file_sha256(target / "adapter" / "adapter_model.safetensors")
        )
        models.merge_adapter(target / "adapter", base.locate(), target / "model")
    else:
        shutil.rmtree(target / "model", ignore_errors=True)
        model.save_pretrained(target / "model")
        tokenizer.save_pretrained(target / "model")
        fingerprint = models.fingerprint(target / "model")
    return models.Model(label, fingerprint, lambda: target / "model")


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
