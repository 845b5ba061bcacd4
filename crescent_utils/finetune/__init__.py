"""Finetune: the model learns from its own winning answers, with TRL.

In come the rows of the vote's `qa`, and of earlier runs that accumulate (`learned_rows` takes those that the parameters
want); `training_pairs` words them as prompt and completion, `train` trains (LoRA, QLoRA or full) from checkpoint to
checkpoint, so that a cut run goes on. Out go the trained weights (`model/`, with LoRA also `adapter/`), `log` (step,
epoch, loss, eval_loss, learning_rate, tokens), `tokens` (pair, token, learned): which tokens of the first pairs the
loss counts, and `left_out` (run, id, question, agreement, reason): the rows that are not learned. `recorded_training`
gives the same from an earlier run. `train_control` trains a negative control by the same recipe on the same rows, each
question with another one's paths; its weights lie in `control/`, its tables are `control_log` and `control_tokens`.
"""

from .accumulation import earlier_manifests, learned_counts, learned_rows
from .masks import TrainingError, coloured, loss_mask
from .recipes import check_recipe, recipe_of
from .sft import Teacher
from .training import Trained, check_asked_alike, chosen_rows, recorded_training, train, train_control, training_pairs

__all__ = [
    "Teacher",
    "Trained",
    "TrainingError",
    "check_asked_alike",
    "check_recipe",
    "chosen_rows",
    "coloured",
    "earlier_manifests",
    "learned_counts",
    "learned_rows",
    "loss_mask",
    "recipe_of",
    "recorded_training",
    "train",
    "train_control",
    "training_pairs",
]
