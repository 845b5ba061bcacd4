"""LMSI's four formats: each winning path is learned with and without exemplars, with and without a chain of thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..runs import Exemplar, Message

STEP_BY_STEP = "Let's think step by step."  # Kojima et al. 2022, as LMSI uses it
LMSI_FORMATS = ("few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct")


@dataclass(frozen=True)
class FormattedPath:
    """One training text of LMSI: the format's name, the prompt, and the completion to learn."""

    format: str
    prompt: str
    completion: str

    @property
    def messages(self) -> list[Message]:
        """The same as a chat of two turns."""
        return [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.completion}]


def lmsi_formats(question: str, path: str, answer: str, exemplars: Sequence[Exemplar]) -> list[FormattedPath]:
    """LMSI's four formats of one path: few-shot CoT, few-shot direct, zero-shot CoT cue, zero-shot direct."""
    direct = f"The answer is {answer}."

    def few_shot(completions: Sequence[str]) -> str:
        shown = [f"Q: {e.question}\nA: {text}\n\n" for e, text in zip(exemplars, completions, strict=True)]
        return "".join(shown) + f"Q: {question}\nA:"

    prompts = (
        few_shot([e.path for e in exemplars]),
        few_shot([f"The answer is {e.answer}." for e in exemplars]),
        f"Q: {question}\nA: {STEP_BY_STEP}",
        f"Q: {question}\nA:",
    )
    completions = (path, direct, path, direct)
    return [FormattedPath(*row) for row in zip(LMSI_FORMATS, prompts, completions, strict=True)]
