"""Recipes: how to train, in the words of TRL, transformers and peft; what this machine cannot do is refused before a model loads."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..generation import Model, load_tokenizer
from .masks import TrainingError

WINDOW = 5  # steps, ours: over so many the loss is averaged to tell a divergence


@dataclass(frozen=True)
class Recipe:
    """How to train. `batch_size` is the effective one, over all processes (of packed rows where `packing`); `held_out` is the share
    of pairs kept for the loss curve; `checkpoint_steps` 0 means the end of each epoch.
    """

    method: Literal["lora", "qlora", "full"]
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
    packing: bool = False
    gradient_checkpointing: bool = False
    checkpoint_steps: int = 0
    processes: int = 1
    accelerate_args: tuple[str, ...] = ()
    report_to: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: dict[str, Any]) -> Recipe:
        """Build a recipe from plain values, as parameters and JSON have them: a list becomes a tuple."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)


@dataclass(frozen=True)
class Teacher:
    """The model that an on-policy student follows, and how the student samples what it is judged on, at most `max_tokens` a reply."""

    model: Model
    temperature: float
    top_p: float
    max_tokens: int


def check_recipe(recipe: Recipe, name_of_batch: str = "batch_size") -> None:
    """Raise TrainingError for a recipe that this machine cannot train, before any model loads."""
    import importlib.util

    share = max(1, min(recipe.micro_batch_size, recipe.batch_size // recipe.processes))
    if recipe.batch_size % (share * recipe.processes):
        each = f" x {recipe.processes} processes" if recipe.processes > 1 else ""
        raise TrainingError(f"{name_of_batch}: {recipe.batch_size} is no multiple of micro_batch_size {share}{each}")
    if recipe.method == "qlora" or recipe.dtype == "float16":
        import torch

        gpu = torch.cuda.is_available()
        if recipe.method == "qlora" and not (gpu and importlib.util.find_spec("bitsandbytes")):
            missing = "the package bitsandbytes (pip install bitsandbytes)" if gpu else "an NVIDIA GPU"
            raise TrainingError(f"method: 'qlora' needs {missing}, which is not here; allowed here: lora, full")
        if recipe.dtype == "float16" and not gpu:
            raise TrainingError("dtype: 'float16' trains on an NVIDIA GPU alone; allowed here: auto, float32, bfloat16")
    for name in recipe.report_to:
        if importlib.util.find_spec(name) is None:
            raise TrainingError(f"report_to: {name!r} is not installed; pip install {name}, or take it out")


def precision(dtype: str, method: str) -> tuple[Any, bool, bool]:
    """Return in what the weights are loaded, and whether steps are computed in mixed bfloat16 or mixed float16.

    "auto" is bfloat16 on a GPU that has it, float16 on one that has not, else float32. Weights that are trained are always
    float32: in 16 bits most updates of a small learning rate would be rounded away.
    """
    import torch

    if dtype == "auto":
        cuda = torch.cuda.is_available()
        dtype = "float32" if not cuda else "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    weights = torch.float32 if method == "full" else getattr(torch, dtype)
    return weights, dtype == "bfloat16", dtype == "float16"


def load_for_training(base: Path, recipe: Recipe) -> Any:
    """Load the model in folder `base` as the recipe trains it: float32, 16 bits, or quantised to 4."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    weights, _, half = precision(recipe.dtype, recipe.method)
    more: dict[str, Any] = {}
    if recipe.method == "qlora":  # Dettmers et al. 2023, section 3: NF4, double quantisation
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float16 if half else torch.bfloat16,
        )  # fmt: skip
    return AutoModelForCausalLM.from_pretrained(base, dtype=weights, trust_remote_code=False, **more)


def sft_arguments(work: Path, recipe: Recipe, *, rows: int, held_out: bool) -> Any:
    """Return TRL's SFTConfig for a recipe and so many training `rows`; checkpoints and logs go to `work`."""
    from trl import SFTConfig

    own = {
        "max_length": recipe.max_length,
        "completion_only_loss": True,
        "packing": recipe.packing,
        "eval_packing": False,
    }
    return _on_one_device(SFTConfig(**_shared(work, recipe, rows, held_out), **own))


def on_policy_arguments(
    work: Path, recipe: Recipe, rows: int, temperature: float, top_p: float, max_tokens: int
) -> Any:
    """Return TRL's DistillationConfig for a recipe: the student samples so, and follows the teacher by the reverse KL.

    Agarwal et al. 2023 (arXiv 2306.13649) call it GKD with lambda 1; beta 1, the reverse KL, is TRL's default.
    """
    from trl import DistillationConfig

    own = {"temperature": temperature, "top_p": top_p, "max_completion_length": max_tokens, "beta": 1.0}
    return _on_one_device(DistillationConfig(**_shared(work, recipe, rows, False), **own))


def checkpoints_kept(recipe: Recipe, rows: int) -> int:
    """Return how many checkpoints have to stay so that one of them is from before a divergence, which takes `WINDOW` steps to see."""
    interval = recipe.checkpoint_steps or math.ceil(rows / recipe.batch_size)
    return 1 + math.ceil((WINDOW + 1) / interval)


def _on_one_device(made: Any) -> Any:
    if made.n_gpu > 1:  # one process would spread each batch over all the GPUs it sees, and so train on a larger one
        made._n_gpu = 1
    return made


def _shared(work: Path, recipe: Recipe, rows: int, held_out: bool) -> dict[str, Any]:
    import torch

    _, bf16, fp16 = precision(recipe.dtype, recipe.method)
    micro = max(1, min(recipe.micro_batch_size, recipe.batch_size // recipe.processes))
    if "tensorboard" in recipe.report_to:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(work.parent / "tensorboard"))
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": recipe.batch_size // (micro * recipe.processes),
        "per_device_eval_batch_size": micro,
        "learning_rate": recipe.learning_rate,
        "num_train_epochs": recipe.epochs,
        "warmup_steps": recipe.warmup_ratio,
        "lr_scheduler_type": recipe.lr_schedule,
        "weight_decay": recipe.weight_decay,
        "ddp_backend": "gloo" if recipe.processes > 1 and not torch.cuda.is_available() else None,
        "use_cpu": not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        "bf16": bf16,
        "fp16": fp16,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log the mean of the steps before in the place of a loss that is no number
        "eval_strategy": "epoch" if held_out else "no",
        "save_strategy": "steps" if recipe.checkpoint_steps else "epoch",
        "save_steps": recipe.checkpoint_steps or 500,
        "save_total_limit": checkpoints_kept(recipe, rows),
        "report_to": list(recipe.report_to) or "none",
        "run_name": work.parent.parent.name,
        "disable_tqdm": True,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "dataloader_pin_memory": False,
        "include_num_input_tokens_seen": "all",
    }


def adapter_settings(recipe: Recipe) -> Any:
    """Return the settings of the adapter, None where the whole model is trained."""
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


def check_one_tokenizer(student: Path, teacher: Path) -> None:
    """Raise TrainingError unless both models read text as the same tokens: on-policy distillation compares them token by token."""
    one, two = load_tokenizer(student), load_tokenizer(teacher)
    if one.get_vocab() != two.get_vocab() or one.chat_template != two.chat_template:
        raise TrainingError(
            "student_data: 'on_policy' needs a student with its teacher's own tokenizer and chat template; "
            "take student_data: pairs, or a student of the same family"
        )
