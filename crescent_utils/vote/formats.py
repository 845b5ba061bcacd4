"""LMSI's four formats: each winning path is learned with and without exemplars, with and without a chain of thought."""

from __future__ import annotations

from collections.abc import Sequence

from ..runs import Exemplar

STEP_BY_STEP = "Let's think step by step."  # Kojima et al. 2022, as LMSI uses it


def lmsi_formats(question: str, path: str, answer: str, exemplars: Sequence[Exemplar]) -> list[dict[str, str]]:
    """Return LMSI's four training texts of one path, each with its `format`, `prompt`, and the `path` to learn."""
    cot_shots = "".join(f"Q: {shot.question}\nA: {shot.path}\n\n" for shot in exemplars)
    direct_shots = "".join(f"Q: {shot.question}\nA: The answer is {shot.answer}.\n\n" for shot in exemplars)
    bare = f"Q: {question}\nA:"
    direct = f"The answer is {answer}."
    return [
        {"path": path, "format": "few_shot_cot", "prompt": cot_shots + bare},
        {"path": direct, "format": "few_shot_direct", "prompt": direct_shots + bare},
        {"path": path, "format": "zero_shot_cot", "prompt": f"{bare} {STEP_BY_STEP}"},
        {"path": direct, "format": "zero_shot_direct", "prompt": bare},
    ]
