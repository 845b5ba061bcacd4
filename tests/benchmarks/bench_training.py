"""Training through the kit over bare `SFTTrainer` with the same settings; LoRA's memory and time against full training.

`python tests/benchmarks/bench_training.py [--examples 40] [--rounds 2] [--model bundled] [--what speed memory]`. Every
measurement is a process of its own, and the ways take turns. Seconds are those of `trainer.train()`, its checkpoint at
the end of the epoch included in both; tokens are all that the model read, padding not among them. Memory is the
process's largest resident size.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from crescent_utils.finetune import masks, training
from crescent_utils.generation import models
from crescent_utils.runs import Finetune, costs, domains, folders, params


def pairs(count: int) -> list:
    """Return pairs of the reference run, again from the start where there are too few."""
    qa = folders.read_table(params.ROOT / "outputs" / "reference", "vote", "qa")
    qa = pd.concat([qa] * (1 + count // len(qa)), ignore_index=True).head(count)
    return training.training_pairs(qa, domains.get_domain("arithmetic"))


def bare(base: models.Model, examples: list, work: Path, recipe: Finetune) -> float:
    """Train with TRL alone; return the seconds of `train()`."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    cpu = not torch.cuda.is_available()
    args = SFTConfig(
        output_dir=str(work), per_device_train_batch_size=recipe.micro_batch_size, learning_rate=recipe.learning_rate,
        gradient_accumulation_steps=recipe.batch_size // recipe.micro_batch_size, num_train_epochs=recipe.epochs,
        max_length=recipe.max_length, completion_only_loss=True, use_cpu=cpu, bf16=not cpu,
        seed=recipe.seed, logging_steps=1, save_strategy="epoch",
        report_to="none", disable_tqdm=True, gradient_checkpointing=False, dataloader_pin_memory=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(base.locate(), dtype=torch.float32)
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=Dataset.from_list(examples).shuffle(seed=recipe.seed),
        processing_class=models.load_tokenizer(base.locate()),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


def measure(way: str, options: argparse.Namespace) -> dict:
    """Train once, in this process; return seconds, tokens a second and peak memory."""
    base, examples = models.resolve_model(options.model), pairs(options.examples)
    method = "lora" if way == "lora" else "full"
    recipe = Finetune(method=method, learning_rate=2e-5, epochs=1, batch_size=8, micro_batch_size=8, held_out=0.0)
    words = models.load_tokenizer(base.locate())
    tokens = sum(len(masks.loss_mask(words, pair)) for pair in examples)
    with tempfile.TemporaryDirectory() as work:
        if way == "SFTTrainer":
            seconds = bare(base, examples, Path(work), recipe)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        else:
            from crescent_utils.finetune import sft

            sft.prepare_job(Path(work) / "trainer", base, examples, recipe)
            seconds = sft.launch_job(Path(work) / "trainer", recipe)["cost"]["seconds"]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"way": way, "seconds": seconds, "tokens": tokens, "peak GB": peak * 1024 / 1e9}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--what", nargs="+", choices=("speed", "memory"), default=["speed", "memory"])
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options)))
        return
    models.resolve_model(options.model).locate()  # made once, outside of what is measured
    ways = [
        *(["SFTTrainer", "kit"] if "speed" in options.what else []),
        *(["full", "lora"] if "memory" in options.what else []),
    ]
    rows = []
    for number in range(options.rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            command = [
                sys.executable,
                __file__,
                "--way",
                way,
                "--examples",
                str(options.examples),
                "--model",
                options.model,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)  # what is measured is not lost where the rest is cut
    table = pd.DataFrame(rows).groupby("way").agg({"seconds": "sum", "tokens": "sum", "peak GB": "max"})
    table["tokens/s"] = table["tokens"] / table["seconds"]
    print(
        f"{options.rounds} rounds of {options.examples} examples, batch 8, one epoch; "
        f"{options.model}; {costs.device_name()}"
    )
    print(table.round(3).to_string())
    for one, two in (("kit", "SFTTrainer"), ("lora", "full")):
        if {one, two} <= set(table.index):
            speed, memory = (table.loc[one, name] / table.loc[two, name] for name in ("tokens/s", "peak GB"))
            print(f"{one} over {two}: tokens/s {speed:.3f}, peak memory {memory:.3f}")


if __name__ == "__main__":
    main()
