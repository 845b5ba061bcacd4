"""Distil: the same pairs teach a weaker student, beside what else it could learn from at the same budget.

In come the vote's tables. `student_pairs` gives what the student learns from: the pairs, the teacher's raw samples
without a vote, an augmented seed set (both cut to the pairs' number and tokens), or the pairs' prompts for a student
that learns on its own answers under the teacher's eyes. `train_student` trains it. Out go the student's weights, `log`
and `tokens` as in `04_finetune`, and, where the student does not learn from the pairs, `learned` (id, question, path,
agreement, with LMSI's formats format and prompt, for a seed set source) and `rejected` (round, source, text, reason).
"""

from ..finetune import check_asked_alike, learned_rows, training_pairs
from .students import student_pairs, train_student

__all__ = ["check_asked_alike", "learned_rows", "student_pairs", "train_student", "training_pairs"]
