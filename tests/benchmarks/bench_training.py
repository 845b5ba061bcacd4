"""Training through the kit over bare `SFTTrainer` with the same settings: LoRA, one epoch, on the reference's pairs.

Seconds are those of `trainer.train()`, its checkpoint at the end of the epoch included in both; tokens are all that the
model read, padding not among them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from measure import REFERENCE, Row, compare

from crescent_utils.finetune import masks, recipes, sft, training
from crescent_utils.generation import models
from crescent_utils.runs import Finetune, domains, layout

RECIPE = Finetune(epochs=1, held_out=0.0, batch_size=8, micro_batch_size=8)


def bare(base: models.Model, examples: list[dict[str, Any]], work: Path) -> float:
    """Train with TRL alone; return the seconds of `train()`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    cpu = not torch.cuda.is_available()
    weights, bfloat16, float16 = recipes.precision(RECIPE.dtype, RECIPE.method)  # the same for both
    arguments = SFTConfig(
        output_dir=str(work), per_device_train_batch_size=RECIPE.micro_batch_size, learning_rate=RECIPE.learning_rate,
        num_train_epochs=RECIPE.epochs, warmup_steps=RECIPE.warmup_ratio, max_length=RECIPE.max_length,
        completion_only_loss=True, use_cpu=cpu, bf16=bfloat16, fp16=float16, seed=RECIPE.seed,
        logging_steps=1, save_strategy="epoch",
        report_to="none", disable_tqdm=True, gradient_checkpointing=RECIPE.gradient_checkpointing,
        dataloader_pin_memory=False, model_init_kwargs={"dtype": weights},
    )  # fmt: skip
    adapter = LoraConfig(
        r=RECIPE.lora_rank, lora_alpha=RECIPE.lora_alpha, target_modules=RECIPE.lora_targets, task_type="CAUSAL_LM"
    )
    trainer = SFTTrainer(
        model=str(base.locate()), args=arguments, train_dataset=Dataset.from_list(examples).shuffle(seed=RECIPE.seed),
        processing_class=models.load_tokenizer(base.locate()), peft_config=adapter,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


def kit(base: models.Model, examples: list[dict[str, Any]], work: Path) -> float:
    """Train as `04_finetune` does; return the seconds that it counts."""
    sft.prepare_job(work, base, examples, RECIPE)
    return float(sft.launch_job(work, RECIPE)["cost"]["seconds"])


def sft_row(scale: float) -> Row:
    """Tokens a second of both."""
    base = models.resolve_model("bundled")
    qa = layout.read_table(REFERENCE, "vote", "qa").head(round(48 * scale))
    examples = training.training_pairs(qa, domains.get_domain("arithmetic"))
    tokenizer = models.load_tokenizer(base.locate())
    tokens = sum(len(masks.loss_mask(tokenizer, pair)) for pair in examples)

    def by(train: Any, count: int = len(examples)) -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as work:
            return tokens, train(base, examples[:count], Path(work) / "trainer")

    by(bare, RECIPE.batch_size)  # to warm up
    return compare("bare SFTTrainer", "tokens/s", lambda: by(kit), lambda: by(bare), rounds=2)


ROWS = {"training": sft_row}
