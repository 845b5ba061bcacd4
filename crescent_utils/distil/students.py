"""Students: train a weaker model on what the teacher labelled, or take over the student of a recorded run.

The loss and its masks are those of `finetune`; only who learns, and from what, is decided here.
"""

from __future__ import annotations

from typing import Any

from .. import finetune, generation, runs


def train_student(stage: runs.Stage, pairs: list[dict[str, Any]]) -> finetune.Trained:
    """Train the student of `05_distil` on `pairs` and return it; in a replay, return the one that was recorded.

    With student_data "on_policy" the student answers the pairs' prompts itself and follows the teacher's probabilities.
    Raises TrainingError where the training cannot start or fails, ModelError where a model cannot be had.
    """
    settings: Any = stage.settings
    if settings.engine == "replay":
        return finetune.recorded_training(stage, pairs, "student_tuned")
    base = generation.resolve_model(settings.model)
    student = generation.resolve_student(settings.student, base)
    teacher = None
    if settings.student_data == "on_policy":
        voted = runs.recorded_parameters(stage.upstream["vote"])
        teacher = finetune.Teacher(base, voted["vote_temperature"], voted["vote_top_p"], voted["vote_max_tokens"])
    recipe = finetune.recipe_of(settings)
    return finetune.train(student, pairs, stage.folder, recipe, "student_tuned", teacher)
