"""SFT: one training by TRL, in this process or in several that `accelerate launch` starts.

What to train stands in a work folder (`job.json`, `pairs.jsonl`), so that each process, on this node or another, reads
the same parameters: `accelerate launch … -m crescent_utils.finetune.sft outputs/<run>/finetune/trainer`. The folder
also holds the checkpoints, from which the same job goes on after a kill, and in the end the weights (`out/`) and
`result.json`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import generation, runs
from ..runs import Cost, Finetune, ProgressBar
from . import recipes
from .masks import TrainingError
from .recipes import WINDOW

FACTOR = 2.0  # ours: diverged is a mean loss over `WINDOW` steps of more than twice the lowest such mean, …
MARGIN = 1.0  # … and more than 1 nat above it
MARK = "spent.json"  # written last: a checkpoint without it was cut while it was written


@dataclass(frozen=True)
class Teacher:
    """The model that an on-policy student follows, and how that student samples: temperature, top_p, max_tokens."""

    model: generation.Model
    sampling: dict[str, float]


def training_key(
    base: generation.Model, pairs: list[dict[str, Any]], settings: dict[str, Any], teacher: Teacher | None
) -> str:
    """Return the hash of what a training is: its base, pairs, teacher, and the `settings` of its recipe."""
    description: dict[str, Any] = {"recipe": settings}
    if teacher:
        description["teacher"] = {"fingerprint": teacher.model.fingerprint, **teacher.sampling}
    return generation.combined_fingerprint(
        base.fingerprint, json.dumps(description, sort_keys=True), json.dumps(pairs, sort_keys=True)
    )


def prepare_job(
    work: Path, base: generation.Model, pairs: list[dict[str, Any]], recipe: Finetune, teacher: Teacher | None = None
) -> None:
    """Write the job into `work`: SFT on `pairs`, or, with a teacher, on-policy distillation over their prompts.

    Checkpoints of this very job stay, so that it goes on from them; those of another go.
    """
    settings = recipe.model_dump(include=recipes.LEARNING_SETTINGS | runs.SPEED_SETTINGS)
    job = {
        "hash": training_key(base, pairs, settings, teacher),
        "recipe": settings,
        "base": str(base.locate().resolve()),  # the processes start in another folder
        "teacher_folder": str(teacher.model.locate().resolve()) if teacher else "",
        "sampling": teacher.sampling if teacher else {},
    }
    job_file = work / "job.json"
    if not job_file.exists() or json.loads(job_file.read_text(encoding="utf-8"))["hash"] != job["hash"]:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    for folder in work.glob("checkpoint-*"):
        if not (folder / MARK).exists():
            shutil.rmtree(folder)
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (work / "pairs.jsonl").write_text(lines, encoding="utf-8")
    runs.write_json(job_file, job)


def launch_job(work: Path, recipe: Finetune) -> dict[str, Any]:
    """Train the job in `work`, here with a progress bar or in processes, and return its result.

    Keys of the result: `counts` (pairs, held_out, trained, steps, tokens), `cost`, `history` (the trainer's log).
    Raises TrainingError with the last lines of a process that failed.
    """
    generation.release_engine()  # training needs the memory
    if recipe.processes == 1 and not recipe.accelerate_args:
        run_job(work, progress=True)
    else:
        _run_processes(work, recipe)
    result: dict[str, Any] = json.loads((work / "result.json").read_text(encoding="utf-8"))
    return result


def _run_processes(work: Path, recipe: Finetune) -> None:
    """Train in processes of `accelerate launch`, or of torchrun on CPU, where accelerate wants an MPI."""
    import torch

    if torch.cuda.is_available():
        launcher = ["accelerate.commands.launch", "--num_processes"]
    else:
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node"]
    options = [*launcher, str(recipe.processes), *recipe.accelerate_args]
    command = [sys.executable, "-m", *options, "-m", "crescent_utils.finetune.sft", str(work.resolve())]
    module_path = os.pathsep.join([str(runs.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": module_path}
    with open(work / "processes.log", "w", encoding="utf-8") as log:
        ended = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=runs.ROOT, check=False
        )
    if ended.returncode:
        raise TrainingError(_failure_of_processes(work, ended.returncode))


def _failure_of_processes(work: Path, status: int) -> str:
    """Return the message of the TrainingError that a process raised, else the lines of its log that name an error."""
    lines = (work / "processes.log").read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        before, separator, message = line.partition("TrainingError: ")
        if separator and "Traceback" not in before:
            return message
    errors = " | ".join(line.strip() for line in lines if "Error" in line)[-600:] or "no message"
    return f"processes: a training process ended with status {status}: {errors}; see {work.name}/processes.log"


def run_job(work: Path, *, progress: bool = False) -> None:
    """Train the job in `work` in this process: the only one, or one of those that `accelerate launch` started."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import PrinterCallback, set_seed

    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    recipe, base = Finetune(**job["recipe"]), Path(job["base"])
    set_seed(recipe.seed)
    disable_progress_bars()
    lines = (work / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = Dataset.from_list([json.loads(line) for line in lines]).shuffle(seed=recipe.seed)
    checkpoint = last_checkpoint(work)
    with generation.quiet_transformers(), _learned_tokens_alone():
        trainer = (_on_policy_trainer if job["teacher_folder"] else _sft_trainer)(work, job, recipe, rows)
        running = trainer.accelerator.num_processes
        if running != recipe.processes:  # the effective batch would not be the recipe's
            raise TrainingError(
                f"processes: the recipe says {recipe.processes} and {running} run; look at accelerate_args"
            )
        check_disk(work, trainer.model, base, trainer.args.save_total_limit)
        meter = runs.Meter(recipe.processes if torch.cuda.is_available() else 1)
        watch = _watch(work, checkpoint, meter, ProgressBar("training", shown=progress, unit="steps"))
        trainer.add_callback(watch)
        trainer.remove_callback(PrinterCallback)  # the log becomes a table; line by line it would fill the notebook
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        cost = watch.spent()
        _write_weights(trainer, work / "out", recipe, base)
    if trainer.is_world_process_zero():
        held_out = len(trainer.eval_dataset or [])
        counts = {
            "pairs": len(rows),
            "held_out": held_out,
            "trained": len(rows) - held_out,
            "steps": int(trainer.state.global_step),
            "tokens": int(trainer.state.num_input_tokens_seen or 0),
        }
        result = {"counts": counts, "cost": cost.rounded(), "history": trainer.state.log_history}
        runs.write_json(work / "result.json", result)


@contextlib.contextmanager
def _learned_tokens_alone() -> Iterator[None]:
    """Let TRL project through the head only those positions on CPU whose token is learned, as it does on a GPU.

    TRL 1.16 projects them all where Triton is not, for the sake of devices that compile each shape anew. A CPU does
    not, and the head takes half the time of a step of a small model. The loss is the same.
    """
    import torch
    import trl.trainer.utils as of_trainers

    here = getattr(of_trainers, "_use_triton", None)
    if here is None or torch.cuda.is_available():
        yield
        return
    of_trainers._use_triton = lambda device: True
    try:
        yield
    finally:
        of_trainers._use_triton = here


def _sft_trainer(work: Path, job: dict[str, Any], recipe: Finetune, rows: Any) -> Any:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    base, held_out = Path(job["base"]), int(len(rows) * recipe.held_out)
    adapter = None
    if recipe.method != "full":
        adapter = LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            target_modules=recipe.lora_targets,
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
    arguments = recipes.trainer_arguments(
        SFTConfig,
        work,
        recipe,
        len(rows) - held_out,
        eval_strategy="epoch" if held_out else "no",
        max_length=recipe.max_length,
        completion_only_loss=True,
        packing=recipe.packing,
        eval_packing=False,
    )
    trainer = SFTTrainer(
        model=recipes.load_for_training(base, recipe),
        args=arguments,
        train_dataset=rows.select(range(held_out, len(rows))),
        eval_dataset=rows.select(range(held_out)) if held_out else None,
        processing_class=generation.load_tokenizer(base),
        peft_config=adapter,
    )
    if arguments.fp16:
        recipes.train_in_float32(trainer.model)
    return trainer


def _on_policy_trainer(work: Path, job: dict[str, Any], recipe: Finetune, rows: Any) -> Any:
    """Return a trainer by which the student answers the prompts itself and follows the teacher by the reverse KL.

    Agarwal et al. 2023 (arXiv 2306.13649) call it GKD with lambda 1; beta 1, the reverse KL, is TRL's default. Raises
    TrainingError unless both models read text as the same tokens, which are compared.
    """
    with warnings.catch_warnings():  # it looks for a vLLM that it would only need to sample on a server
        warnings.simplefilter("ignore")
        try:
            from trl import DistillationConfig, DistillationTrainer
        except ImportError:
            version = metadata.version("trl")
            raise TrainingError(
                f"student_data: 'on_policy' needs the DistillationTrainer of TRL, which TRL {version} does not have; "
                'pip install "trl>=1.16" and restart, or take student_data: pairs'
            ) from None

    base, teacher, sampling = Path(job["base"]), Path(job["teacher_folder"]), job["sampling"]
    tokenizer, of_teacher = generation.load_tokenizer(base), generation.load_tokenizer(teacher)
    same_vocabulary = tokenizer.get_vocab() == of_teacher.get_vocab()
    if not same_vocabulary or tokenizer.chat_template != of_teacher.chat_template:
        raise TrainingError(
            "student_data: 'on_policy' needs a student with its teacher's own tokenizer and chat template; "
            "take student_data: pairs, or a student of the same family"
        )
    arguments = recipes.trainer_arguments(
        DistillationConfig,
        work,
        recipe,
        len(rows),
        temperature=sampling["temperature"],
        top_p=sampling["top_p"],
        max_completion_length=sampling["max_tokens"],
        beta=1.0,
    )
    return DistillationTrainer(
        model=recipes.load_for_training(base, recipe),
        teacher_model=recipes.load_for_training(teacher, recipe),
        args=arguments,
        train_dataset=rows.select_columns(["prompt"]),
        processing_class=tokenizer,
    )


def last_checkpoint(work: Path) -> Path | None:
    """Return the newest whole checkpoint in `work`; None if there is none."""
    whole = [folder for folder in work.glob("checkpoint-*") if (folder / MARK).exists()]
    return max(whole, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def check_disk(work: Path, model: Any, base: Path, checkpoints: int) -> None:
    """Raise TrainingError where the disk cannot take what training will write: checkpoints, in the end the whole model.

    A checkpoint holds what is trained in float32 with the two moments of Adam, 12 bytes a parameter; while one is
    written, one more than are kept stands there. Adapters are merged into weights as large as the base's.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # The final weights are written beside the old ones, then moved.
    final = 2 * sum(path.stat().st_size for path in base.glob("*.safetensors"))
    written = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    need = max(0, (checkpoints + 1) * 12 * trained - written) + final
    free = shutil.disk_usage(work).free
    if need > free:
        raise TrainingError(
            f"outputs: training needs about {need / 1e9:.1f} GB on the disk of {work.parent.name}/ (checkpoints and "
            f"the trained model), and {free / 1e9:.1f} GB are free; free some, name another folder as outputs, or "
            "train with method: lora"
        )


def _watch(work: Path, checkpoint: Path | None, meter: runs.Meter, bar: ProgressBar) -> Any:
    """Return the callback that moves the bar, stops a training gone wrong and marks each checkpoint that is whole."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        cost = Cost(**json.loads((checkpoint / MARK).read_text(encoding="utf-8"))) if checkpoint else Cost()

        def spent(self) -> Cost:
            self.cost += Cost(**meter.lap())
            return self.cost

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.start(state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" not in logs:  # the entry of an evaluation, or the last one, of the whole training
                return
            bar.step(state.global_step, logs["loss"])
            bad_step = diverged(state.log_history, half=args.fp16)
            if bad_step is not None:
                _stop(work, bad_step, state)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                runs.write_json(work / f"checkpoint-{state.global_step}" / MARK, self.spent().rounded())

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.close()

    return Watch()


def _stop(work: Path, bad_step: int, state: Any) -> None:
    """Remove the checkpoints that a divergence has spoilt and raise TrainingError."""
    if state.is_world_process_zero:
        for folder in work.glob("checkpoint-*"):
            if _step_of(folder) >= bad_step - 1:  # the loss of a step is that of the weights after the step before
                shutil.rmtree(folder)
    kept = last_checkpoint(work)
    remains = (
        f"the last good checkpoint is {work.name}/{kept.name}" if kept else "no good checkpoint was written before"
    )
    raise TrainingError(
        f"the loss at step {state.global_step} is not a number or has diverged (from step {bad_step} on); {remains}; "
        "lower learning_rate, or train in dtype: float32"
    )


def diverged(history: list[dict[str, Any]], half: bool = False) -> int | None:
    """Return the first step of `history` (the trainer's log so far) from which the loss went wrong; None if it is well.

    Wrong is a loss or a norm of gradients that is no finite number (in mixed float16 the norm alone is no sign: the
    scaler skips such steps), or a mean loss over the last 5 steps of more than twice, and 1 nat above, the lowest mean
    over 5 steps; ours.
    """
    logged = [entry for entry in history if "loss" in entry]
    if not math.isfinite(logged[-1]["loss"]):
        return int(logged[-1]["step"])
    if not half and not math.isfinite(logged[-1].get("grad_norm", 0.0)):
        return int(logged[-1]["step"]) + 1  # the step's loss was well, the weights that it leaves are not
    losses = [entry["loss"] for entry in logged]
    means = [sum(losses[i : i + WINDOW]) / WINDOW for i in range(len(losses) - WINDOW + 1)]
    if means and means[-1] > FACTOR * min(means) and means[-1] > min(means) + MARGIN:
        return int(logged[-WINDOW]["step"])
    return None


def _write_weights(trainer: Any, out: Path, recipe: Finetune, base: Path) -> None:
    """Write the adapter, or the whole model in its base's own dtype, from whichever processes hold it."""
    from transformers import AutoConfig

    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if not trainer.is_world_process_zero():
        return
    shutil.rmtree(out, ignore_errors=True)
    if recipe.method == "full":
        model = trainer.model if sharded else trainer.model.to(AutoConfig.from_pretrained(base).dtype)
        model.save_pretrained(out, state_dict=state)
        trainer.processing_class.save_pretrained(out)
    else:
        trainer.model.save_pretrained(out, state_dict=state, save_embedding_layers=False)


if __name__ == "__main__":
    run_job(Path(sys.argv[1]))
