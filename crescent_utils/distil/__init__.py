"""Distil: the same pairs teach a weaker student, beside what else it could learn from at the same budget.

In come the vote's tables. A student learns from the pairs, from the teacher's raw samples without a vote (`raw_samples`), from
an augmented seed set (`seed_augmented`), or on its own answers under the teacher's eyes; `within_budget` cuts the others to the
pairs' number and tokens. Out go the student's weights, `log` and `tokens` as in `04_finetune`, and `learned`, the rows that
were learned from, where these are not the pairs.
"""

from ..finetune import check_asked_alike, chosen_rows, training_pairs
from .student_data import raw_samples, seed_augmented, within_budget
from .students import train_student

__all__ = [
    "check_asked_alike",
    "chosen_rows",
    "raw_samples",
    "seed_augmented",
    "train_student",
    "training_pairs",
    "within_budget",
]
