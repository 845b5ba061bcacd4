"""LMSI's four formats: each winning path is learned with and without exemplars, with and without a chain of thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..runs import Exemplar

STEP_BY_STEP = "Let's think step by step."  # Kojima et al. 2022, as LMSI uses it


@dataclass(frozen=True)
class FormattedPath:
    """One training text of LMSI: the format's name, the prompt, and the completion to learn."""

    format: str
    prompt: str
    completion: str


def lmsi_formats(question: str, path: str, answer: str, exemplars: Sequence[Exemplar]) -> list[FormattedPath]:
    """Return LMSI's four formats of one path: few-shot CoT, few-shot direct, zero-shot CoT cue, zero-shot direct."""
    direct = f"The answer is {answer}."
    cot_shots = "".join(f"Q: {shot.question}\nA: {shot.path}\n\n" for shot in exemplars)
    direct_shots = "".join(f"Q: {shot.question}\nA: The answer is {shot.answer}.\n\n" for shot in exemplars)
    bare = f"Q: {question}\nA:"
    return [
        FormattedPath("few_shot_cot", cot_shots + bare, path),
        FormattedPath("few_shot_direct", direct_shots + bare, direct),
        FormattedPath("zero_shot_cot", f"{bare} {STEP_BY_STEP}", path),
        FormattedPath("zero_shot_direct", bare, direct),
    ]
