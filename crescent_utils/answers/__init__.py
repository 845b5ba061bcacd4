"""Answers: read the final answer out of a text, and say whether two answers are the same.

In comes a text that a model wrote. `extract_answer` finds its final answer (a stated conclusion, a box, a last number)
and gives it in normal form; None means that none could be read. `answers_equal` compares two answers: by normal form
where that settles it ("1,234" is "1234.0"; "1/2" is "0.5"), symbolically where it does not ("2*sqrt(3)" is "sqrt(12)").
`equality_class` names what an answer amounts to, so that a vote can count. Beside them stand the readings of others,
for comparison: `released_answer` (the authors' code), `strict_answer` and `flexible_answer` (lm-evaluation-harness on
GSM8K).
"""

from .equality import answers_equal, equality_class, equality_classes
from .normal_form import normal_form
from .reading import extract_answer, flexible_answer, released_answer, strict_answer

__all__ = [
    "answers_equal",
    "equality_class",
    "equality_classes",
    "extract_answer",
    "flexible_answer",
    "normal_form",
    "released_answer",
    "strict_answer",
]
