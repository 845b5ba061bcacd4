"""Domains: what the method needs to know about one kind of question, from a YAML file, and the prompts made of it.

The kit's own domains lie in params/domains/: `math_word_problems` is the paper's (Crescent, section 2), `arithmetic` is
the one in which a 135M-parameter model has signal on two CPU cores, `commonsense` shows multiple choice. The parameter
`domain` takes one of their names, or the path of a file of your own; all are read and checked, line by line, by the
same loader. Every prompt is worded by us and can be replaced by a parameter of the notebooks. Ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from . import layout, params
from .layout import RunError
from .params import Frozen, ParameterError

Message = dict[str, str]
PLACEHOLDERS = {"rewrite_prompt": ("{question}", "{neighbour}"), "solve_prompt": ("{question}",)}
# YAML gives lists, which strictness would refuse for a tuple; tuples cannot be changed by accident.
Texts = Annotated[tuple[str, ...], Field(strict=False)]


class Gates(Frozen):
    """What makes a question valid: see `elicit.extract_question`."""

    min_quantities: int = Field(0, ge=0)
    min_words: int = Field(3, ge=1)
    max_words: int = Field(250, ge=1)
    pattern: str = ""  # regular expression that the whole question has to match; empty: any

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression ({error}); leave it empty to accept any question") from None
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Gates:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}: nothing could pass")
        return self


class Exemplar(Frozen):
    """A worked example for few-shot prompts: a question, a reasoning path that answers it, and the answer."""

    question: str
    path: str
    answer: str


class Domain(Frozen):
    """What one kind of question needs; the fields are the lines of a domain's file, and `name`, the file's stem.

    The prompts of `bait` take turns over the samples; each is combined with each of `bait_prefixes`, a start of the
    reply that the model continues ("" lets it begin by itself). `similarity_threshold` is a cosine of MiniLM vectors
    (no unit, -1 to 1). A prompt has the name of the parameter that replaces it for one run. `prompts` are other
    zero-shot wordings of the user's turn that 06 tries for the base model (`best_prompt`).
    """

    name: str
    bait: Texts = Field(min_length=1)
    bait_prefixes: Texts = Field(("",), min_length=1)
    bait_stop: Texts = ()
    rewrite_prompt: str
    solve_system: str = ""
    solve_prompt: str
    gates: Gates = Gates.model_validate({})
    similarity_threshold: float = Field(0.85, gt=0, le=1)  # Crescent, released scripts
    answer_type: Literal["number", "choice"] = "number"
    benchmarks: Texts = ()
    exemplars: Annotated[tuple[Exemplar, ...], Field(strict=False)] = ()
    prompts: Texts = ()

    @field_validator("bait", mode="before")
    @classmethod
    def _is_a_list_of_texts(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("is a text; a list of baits is wanted: put each behind a dash")
        if isinstance(value, list) and not all(str(text).strip() for text in value):
            raise ValueError("a bait is empty; write what the model is asked for")
        return value

    @field_validator("prompts")
    @classmethod
    def _hold_the_question(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if "{question}" not in text:
                raise ValueError(f"{text!r} lacks {{question}}; put the placeholder where the question belongs")
        return value

    @field_validator("rewrite_prompt", "solve_prompt")
    @classmethod
    def _has_its_placeholders(cls, value: str, info: Any) -> str:
        check_placeholders(info.field_name, value)
        return value


def get_domain(
    name: str,
    *,
    bait: list[str] | None = None,
    bait_prefixes: list[str] | None = None,
    rewrite: str = "",
    solve: str = "",
) -> Domain:
    """Return the domain `name` (one of the kit's, or a YAML file), with the given prompts in the place of its own.

    Raises ParameterError that names the nearest known domain, or the file and the line that is wrong in it.
    """
    path = params.domain_file(name)
    lines = params.read_yaml(path, "domain")
    allowed = [field for field in Domain.model_fields if field != "name"]
    for key in lines:
        if key not in allowed:
            hint = params.did_you_mean(str(key), allowed)
            raise ParameterError(f"domain: {path}: {key!r} is unknown; allowed: {', '.join(allowed)}.{hint}")
    try:
        domain = Domain(name=path.stem, **lines)
    except ValidationError as error:
        raise ParameterError(f"domain: {path}: {'; '.join(params.complaints(error))}") from None
    prompts = {"rewrite_prompt": rewrite, "solve_prompt": solve}
    replaced = {"bait": tuple(bait or ()), "bait_prefixes": tuple(bait_prefixes or ()), **prompts}
    for field, text in prompts.items():
        if text:
            check_placeholders(field, text)
    return domain.model_copy(update={field: value for field, value in replaced.items() if value})


def check_placeholders(name: str, text: str) -> None:
    """Raise ParameterError where the prompt of parameter `name` lacks a placeholder that it needs."""
    missing = [part for part in PLACEHOLDERS[name] if part not in text]
    if missing:
        raise ParameterError(f"{name}: {text!r} lacks {', '.join(missing)}; put the placeholder where the text belongs")


def validity_gates(domain: Domain) -> dict[str, Any]:
    """Return the domain's validity gates as keywords of `elicit.extract_question`."""
    return {**domain.gates.model_dump(), "bait": "\n".join(domain.bait)}


def bait_messages(domain: Domain, number: int, system: str = "") -> tuple[list[Message], str]:
    """Return the messages and the prefilled start of the reply for bait request `number` (they take turns)."""
    prefix = domain.bait_prefixes[number % len(domain.bait_prefixes)]
    bait = domain.bait[number // len(domain.bait_prefixes) % len(domain.bait)]
    return _messages(system, bait), prefix


def bait_count(domain: Domain) -> int:
    """Return the number of different bait requests: each bait with each prefix."""
    return len(domain.bait) * len(domain.bait_prefixes)


def rewrite_messages(domain: Domain, question: str, neighbour: str, system: str = "") -> list[Message]:
    """Return the request to change `question` because it is too similar to `neighbour` (Crescent, section 2)."""
    return _messages(system, _fill(domain.rewrite_prompt, question=question, neighbour=neighbour))


def solve_messages(
    domain: Domain, question: str, system: str = "", exemplars: Sequence[Exemplar] = ()
) -> list[Message]:
    """Return the request to answer `question`: the same for voting, for training and for evaluation.

    Each of the `exemplars` is a turn of the user and one of the assistant before it, as lm-evaluation-harness puts few
    shots to a chat model: so the model's reply ends with its turn, and needs no stop text before a next question.
    """
    chat = _messages(system or domain.solve_system, _fill(domain.solve_prompt, question=question))
    turns = []
    for exemplar in exemplars:
        turns.append({"role": "user", "content": _fill(domain.solve_prompt, question=exemplar.question)})
        turns.append({"role": "assistant", "content": exemplar.path})
    return [*chat[:-1], *turns, chat[-1]]


def bare_messages(question: str, system: str = "") -> list[Message]:
    """Return the request that is the question alone, without the domain's words around it or its system prompt.

    Without `system` the chat template says what it says by itself.
    """
    return _messages(system, question)


def own_exemplars(folder: Path) -> list[Exemplar]:
    """Return the exemplars that the run in `folder` made itself, in the order of the prompt: `vote/exemplars.parquet`.

    Raises RunError where its vote made none.
    """
    if not (folder / "vote" / "exemplars.parquet").exists():
        raise RunError(
            f"vote/exemplars.parquet is not in run {folder.name!r}: its vote made no exemplars of its own; run "
            "notebooks/03_vote.ipynb there with vote_shots: own"
        )
    table = layout.read_table(folder, "vote", "exemplars")
    return [Exemplar(question=row.question, path=row.path, answer=row.answer) for row in table.itertuples()]


def _fill(template: str, **values: str) -> str:
    # One pass, for the known placeholders alone: other braces, in the template (\\boxed{}) or in a question, are text.
    return re.sub("|".join(rf"\{{{name}\}}" for name in values), lambda match: values[match[0][1:-1]], template)


def _messages(system: str, user: str) -> list[Message]:
    instructions = [{"role": "system", "content": system}] if system else []
    return [*instructions, {"role": "user", "content": user}]
