"""Recipes: how to train, in terms of TRL and transformers; what this machine cannot train is refused early.

A recipe is the settings of `04_finetune`. `batch_size` counts the examples (with `packing`: packed rows) of a step over
all processes together.
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

from ..runs import Distil, Finetune, Training, parameters_of
from .masks import TrainingError

WINDOW = 5  # steps, ours: the loss is averaged over this many to tell a divergence
LEARNING_SETTINGS = set(  # they decide what is learned, `runs.SPEED_SETTINGS` how fast and in how much memory
    "method learning_rate epochs batch_size max_length held_out seed dtype packing "
    "warmup_ratio lr_schedule weight_decay lora_rank lora_alpha lora_targets".split()
)


def recipe_of(settings: Training) -> Finetune:
    """Return the recipe that the parameters of `04_finetune` or `05_distil` describe.

    A student is trained in full: one that lost layers has no skill yet for an adapter to adapt.
    """
    values = parameters_of("finetune", settings.model_dump())
    if isinstance(settings, Distil):
        values |= {
            "method": "full",
            "learning_rate": settings.student_learning_rate,
            "epochs": settings.student_epochs,
            "batch_size": settings.student_batch_size,
        }
    return Finetune(**values)


def examples_at_once(recipe: Finetune) -> int:
    """Return the number of examples that one process computes at a time, at most `micro_batch_size`."""
    return max(1, min(recipe.micro_batch_size, recipe.batch_size // recipe.processes))


def check_recipe(recipe: Finetune, batch_parameter: str = "batch_size") -> None:
    """Raise TrainingError for a recipe that this machine cannot train, before any model loads."""
    micro_batch = examples_at_once(recipe)
    if recipe.batch_size % (micro_batch * recipe.processes):
        times = f" x {recipe.processes} processes" if recipe.processes > 1 else ""
        raise TrainingError(
            f"{batch_parameter}: {recipe.batch_size} is no multiple of micro_batch_size {micro_batch}{times}"
        )
    for name in recipe.report_to:
        if importlib.util.find_spec(name) is None:
            raise TrainingError(f"report_to: {name!r} is not installed; pip install {name}, or take it out")
    if recipe.method != "qlora" and recipe.dtype != "float16":
        return

    import torch  # for these two alone: a recipe of others is checked without it

    gpu = torch.cuda.is_available()
    if recipe.method == "qlora" and not gpu:
        raise TrainingError("method: 'qlora' needs an NVIDIA GPU, which is not here; allowed here: lora, full")
    if recipe.method == "qlora" and not importlib.util.find_spec("bitsandbytes"):
        raise TrainingError("method: 'qlora' needs the package bitsandbytes; pip install bitsandbytes, or take lora")
    if recipe.dtype == "float16" and not gpu:
        why = "none is in reach (in Colab: Runtime, Change runtime type, T4)"
        if not torch.version.cuda:
            why = "torch is a CPU build here (python3 setup_env.py --cuda brings another; Colab has one)"
        raise TrainingError(
            f"dtype: 'float16' trains on an NVIDIA GPU alone, and {why}; allowed here: auto, float32, bfloat16"
        )


def precision(dtype: str, method: str) -> tuple[Any, bool, bool]:
    """Return the dtype of the loaded weights, and whether steps are computed in mixed bfloat16 or in mixed float16.

    "auto" is bfloat16 where the GPU or the CPU computes in it, float16 on an older GPU, else float32. Weights that are
    trained are always float32: in 16 bits most updates of a small learning rate would be rounded away.
    """
    import torch

    if dtype == "auto" and torch.cuda.is_available():
        # torch also says yes to a GPU that only emulates bfloat16, such as a T4, and is slow at it
        dtype = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    elif dtype == "auto":
        instructions = torch.cpu.get_capabilities()
        dtype = "bfloat16" if instructions.get("avx512_bf16") or instructions.get("amx_bf16") else "float32"
    weights = torch.float32 if method == "full" else getattr(torch, dtype)
    return weights, dtype == "bfloat16", dtype == "float16"


def load_for_training(base: Path, recipe: Finetune) -> Any:
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


def train_in_float32(model: Any) -> None:
    """Turn the weights of `model` that are trained into float32, which mixed float16 needs.

    Its scaler of gradients refuses float16 weights (PEFT's troubleshooting guide, "Attempting to unscale FP16
    gradients"), and has no kernel on a GPU for bfloat16 ones, in which TRL leaves the adapter of a quantised model.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def trainer_arguments(config: Any, work: Path, recipe: Finetune, rows: int, **own: Any) -> Any:
    """Return the arguments of one of TRL's trainers, of its class `config`, for this many training `rows`.

    Checkpoints and logs go to `work`. `own` are the arguments that only this trainer has.
    """
    import torch

    _, bfloat16, float16 = precision(recipe.dtype, recipe.method)
    micro_batch, gpu = examples_at_once(recipe), torch.cuda.is_available()
    if "tensorboard" in recipe.report_to:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(work.parent / "tensorboard"))
    arguments = config(
        output_dir=str(work),
        per_device_train_batch_size=micro_batch,
        per_device_eval_batch_size=micro_batch,
        gradient_accumulation_steps=recipe.batch_size // (micro_batch * recipe.processes),
        learning_rate=recipe.learning_rate,
        num_train_epochs=recipe.epochs,
        warmup_steps=recipe.warmup_ratio,
        lr_scheduler_type=recipe.lr_schedule,
        weight_decay=recipe.weight_decay,
        ddp_backend="gloo" if recipe.processes > 1 and not gpu else None,
        use_cpu=not gpu and not torch.backends.mps.is_available(),
        bf16=bfloat16,
        fp16=float16,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would log an earlier mean in the place of a loss that is no number
        save_strategy="steps" if recipe.checkpoint_steps else "epoch",
        save_steps=recipe.checkpoint_steps or 500,
        save_total_limit=checkpoints_kept(recipe, rows),
        report_to=recipe.report_to or "none",
        run_name=work.parent.parent.name,
        disable_tqdm=True,
        gradient_checkpointing=recipe.gradient_checkpointing,
        dataloader_pin_memory=False,
        include_num_input_tokens_seen="all",
        **own,
    )
    if arguments.n_gpu > 1:  # one process would spread each batch over all GPUs that it sees, and train on a larger one
        arguments._n_gpu = 1
    return arguments


def checkpoints_kept(recipe: Finetune, rows: int) -> int:
    """Return how many checkpoints to keep so that one is older than a divergence, seen `WINDOW` steps late."""
    interval = recipe.checkpoint_steps or math.ceil(rows / recipe.batch_size)
    return 1 + math.ceil((WINDOW + 1) / interval)
