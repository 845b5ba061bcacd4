"""Recipes: how to train, in terms of TRL, transformers and peft; what this machine cannot train is refused early."""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..generation import Model, load_tokenizer
from ..runs import SPEED_SETTINGS, Distil, Training
from .masks import TrainingError

WINDOW = 5  # steps, ours: the loss is averaged over this many to tell a divergence


@dataclass(frozen=True)
class Recipe:
    """How to train.

    `batch_size` is the number of examples (with `packing`: of packed rows) a step, over all processes together.
    `held_out` is the share of pairs kept for the loss curve. `checkpoint_steps` 0 means a checkpoint at the end of each
    epoch.
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

    @property
    def examples_at_once(self) -> int:
        """The number of examples that one process computes at a time, at most `micro_batch_size`."""
        return max(1, min(self.micro_batch_size, self.batch_size // self.processes))

    def learning_settings(self) -> dict[str, Any]:
        """Return the settings that decide what is learned: all but those of speed and memory."""
        return {name: value for name, value in asdict(self).items() if name not in SPEED_SETTINGS}


@dataclass(frozen=True)
class Teacher:
    """The model that an on-policy student follows, and how that student samples its replies."""

    model: Model
    temperature: float
    top_p: float
    max_tokens: int


def recipe_of(settings: Training) -> Recipe:
    """Return the recipe that the parameters of `04_finetune` or `05_distil` describe.

    A student is trained in full: one that lost layers has no skill yet for an adapter to adapt.
    """
    values = {item.name: getattr(settings, item.name) for item in fields(Recipe) if hasattr(settings, item.name)}
    if isinstance(settings, Distil):
        values |= {
            "method": "full",
            "learning_rate": settings.student_learning_rate,
            "epochs": settings.student_epochs,
            "batch_size": settings.student_batch_size,
        }
    return Recipe.of(values)


def check_recipe(recipe: Recipe, batch_parameter: str = "batch_size") -> None:
    """Raise TrainingError for a recipe that this machine cannot train, before any model loads."""
    if recipe.batch_size % (recipe.examples_at_once * recipe.processes):
        times = f" x {recipe.processes} processes" if recipe.processes > 1 else ""
        raise TrainingError(
            f"{batch_parameter}: {recipe.batch_size} is no multiple of "
            f"micro_batch_size {recipe.examples_at_once}{times}"
        )
    if recipe.method == "qlora" or recipe.dtype == "float16":
        _check_gpu(recipe)
    for name in recipe.report_to:
        if importlib.util.find_spec(name) is None:
            raise TrainingError(f"report_to: {name!r} is not installed; pip install {name}, or take it out")


def _check_gpu(recipe: Recipe) -> None:
    import torch

    gpu = torch.cuda.is_available()
    if recipe.method == "qlora" and not gpu:
        raise TrainingError("method: 'qlora' needs an NVIDIA GPU, which is not here; allowed here: lora, full")
    if recipe.method == "qlora" and not importlib.util.find_spec("bitsandbytes"):
        raise TrainingError("method: 'qlora' needs the package bitsandbytes; pip install bitsandbytes, or take lora")
    if recipe.dtype == "float16" and not gpu:
        raise TrainingError("dtype: 'float16' trains on an NVIDIA GPU alone; allowed here: auto, float32, bfloat16")


def precision(dtype: str, method: str) -> tuple[Any, bool, bool]:
    """Return the dtype of the loaded weights, and whether steps are computed in mixed bfloat16 or in mixed float16.

    "auto" is bfloat16 on a GPU that has it, float16 on one that has not, else float32. Weights that are trained are
    always float32: in 16 bits most updates of a small learning rate would be rounded away.
    """
    import torch

    if dtype == "auto" and not torch.cuda.is_available():
        dtype = "float32"
    elif dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    weights = torch.float32 if method == "full" else getattr(torch, dtype)
    return weights, dtype == "bfloat16", dtype == "float16"


def load_for_training(base: Path, recipe: Recipe) -> Any:
    """Load the model in folder `base` as the recipe trains it: float32, 16 bits, or quantised to 4 bits."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    weights, _, float16 = precision(recipe.dtype, recipe.method)
    options: dict[str, Any] = {"dtype": weights, "trust_remote_code": False}
    if recipe.method == "qlora":  # Dettmers et al. 2023, section 3: NF4, double quantisation
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float16 if float16 else torch.bfloat16,
        )
    return AutoModelForCausalLM.from_pretrained(base, **options)


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


def sft_arguments(work: Path, recipe: Recipe, *, rows: int, held_out: bool) -> Any:
    """Return TRL's SFTConfig for a recipe and this many training `rows`; checkpoints and logs go to `work`."""
    from trl import SFTConfig

    arguments = SFTConfig(
        **_shared_arguments(work, recipe, rows),
        eval_strategy="epoch" if held_out else "no",
        max_length=recipe.max_length,
        completion_only_loss=True,
        packing=recipe.packing,
        eval_packing=False,
    )
    return _on_one_device(arguments)


def on_policy_arguments(
    work: Path, recipe: Recipe, rows: int, temperature: float, top_p: float, max_tokens: int
) -> Any:
    """Return TRL's DistillationConfig: how the student samples, and that it follows the teacher by the reverse KL.

    Agarwal et al. 2023 (arXiv 2306.13649) call it GKD with lambda 1; beta 1, the reverse KL, is TRL's default.
    """
    from trl import DistillationConfig

    arguments = DistillationConfig(
        **_shared_arguments(work, recipe, rows),
        temperature=temperature,
        top_p=top_p,
        max_completion_length=max_tokens,
        beta=1.0,
    )
    return _on_one_device(arguments)


def _on_one_device(arguments: Any) -> Any:
    if (
        arguments.n_gpu > 1
    ):  # one process would spread each batch over all GPUs that it sees, and so train on a larger one
        arguments._n_gpu = 1
    return arguments


def _shared_arguments(work: Path, recipe: Recipe, rows: int) -> dict[str, Any]:
    """Return the arguments that both of TRL's trainers take."""
    import torch

    _, bfloat16, float16 = precision(recipe.dtype, recipe.method)
    if "tensorboard" in recipe.report_to:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(work.parent / "tensorboard"))
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": recipe.examples_at_once,
        "per_device_eval_batch_size": recipe.examples_at_once,
        "gradient_accumulation_steps": recipe.batch_size // (recipe.examples_at_once * recipe.processes),
        "learning_rate": recipe.learning_rate,
        "num_train_epochs": recipe.epochs,
        "warmup_steps": recipe.warmup_ratio,
        "lr_scheduler_type": recipe.lr_schedule,
        "weight_decay": recipe.weight_decay,
        "ddp_backend": "gloo" if recipe.processes > 1 and not torch.cuda.is_available() else None,
        "use_cpu": not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        "bf16": bfloat16,
        "fp16": float16,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log an earlier mean in the place of a loss that is no number
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


def checkpoints_kept(recipe: Recipe, rows: int) -> int:
    """Return how many checkpoints to keep so that one is older than a divergence, seen `WINDOW` steps late."""
    interval = recipe.checkpoint_steps or math.ceil(rows / recipe.batch_size)
    return 1 + math.ceil((WINDOW + 1) / interval)


def check_one_tokenizer(student: Path, teacher: Path) -> None:
    """Raise TrainingError unless both models read text as the same tokens, which on-policy training compares."""
    of_student, of_teacher = load_tokenizer(student), load_tokenizer(teacher)
    same_vocabulary = of_student.get_vocab() == of_teacher.get_vocab()
    if not same_vocabulary or of_student.chat_template != of_teacher.chat_template:
        raise TrainingError(
            "student_data: 'on_policy' needs a student with its teacher's own tokenizer and chat template; "
            "take student_data: pairs, or a student of the same family"
        )
