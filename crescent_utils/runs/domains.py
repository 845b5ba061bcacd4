"""Domains: what the method needs to know about one kind of question, from a YAML file, and the prompts made of it.

The kit's own domains lie in params/domains/: `math_word_problems` is the paper's (Crescent, section 2), `arithmetic` is
the one in which a 135M-parameter model has signal on two CPU cores, `commonsense` shows multiple choice. The parameter
`domain` takes one of their names, or the path of a file of your own; all are read and checked, line by line, by the
same loader. Every prompt is worded by us and can be replaced by a parameter of the notebooks. Ours.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from . import params
from .params import ParameterError

Message = dict[str, str]
PLACEHOLDERS = {"rewrite_prompt": ("{question}", "{neighbour}"), "solve_prompt": ("{question}",)}
# YAML gives lists; tuples cannot be changed by accident. Strictness would refuse a list for a tuple.
Texts = Annotated[tuple[str, ...], Field(strict=False)]


class Gates(BaseModel):
    """What makes a question valid: see `elicit.extract_question`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

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


class Exemplar(BaseModel):
    """A worked example for few-shot prompts: a question, a reasoning path that answers it, and the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    question: str
    path: str
    answer: str


class Domain(BaseModel):
    """What one kind of question needs; the fields are the lines of a domain's file, and `name`, the file's stem.

    The prompts of `bait` take turns over the samples; each is combined with each of `bait_prefixes`, a start of the
    reply that the model continues ("" lets it begin by itself). `similarity_threshold` is a cosine of MiniLM vectors
    (no unit, -1 to 1). A prompt has the name of the parameter that replaces it for one run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    bait: Texts = Field(min_length=1)
    bait_prefixes: Texts = Field(("",), min_length=1)
    bait_stop: Texts = ()
    rewrite_prompt: str
    solve_system: str = ""
    solve_prompt: str
    gates: Gates = Field(default_factory=lambda: Gates.model_validate({}))
    similarity_threshold: float = Field(0.85, gt=0, le=1)  # Crescent, released scripts
    answer_type: Literal["number", "choice"] = "number"
    benchmarks: Texts = ()
    exemplars: Annotated[tuple[Exemplar, ...], Field(strict=False)] = ()

    @field_validator("bait", mode="before")
    @classmethod
    def _is_a_list(cls, value: Any) -> Any:
        if isinstance(value, str):  # a tuple of its letters, otherwise
            raise ValueError("is a text; a list of baits is wanted: put each behind a dash")
        return value

    @field_validator("bait")
    @classmethod
    def _says_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(text.strip() for text in value):
            raise ValueError("a bait is empty; write what the model is asked for")
        return value

    @field_validator("rewrite_prompt", "solve_prompt")
    @classmethod
    def _has_its_placeholders(cls, value: str, info: Any) -> str:
        check_placeholders(info.field_name, value)
        return value


def is_file(name: str) -> bool:
    """Tell whether `name` means a domain of the user's own, in a YAML file, rather than one of the kit's."""
    return name.endswith((".yaml", ".yml"))


def get_domain(
    name: str,
    *,
    bait: list[str] | None = None,
    bait_prefixes: list[str] | None = None,
    rewrite: str = "",
    solve: str = "",
) -> Domain:
    """Return the domain `name` (one of the kit's, or a YAML file), with the given prompts in the place of its own.

    Raises ParameterError naming the nearest known domain, or what is wrong in the file.
    """
    if is_file(name):
        domain = load_domain_file(params.ROOT / Path(name).expanduser())
    else:
        params.check_domain_name(name)
        domain = load_domain_file(params.DOMAINS / f"{name}.yaml")
    changes: dict[str, Any] = {}
    if bait:
        changes["bait"] = tuple(bait)
    if bait_prefixes:
        changes["bait_prefixes"] = tuple(bait_prefixes)
    for field, text in (("rewrite_prompt", rewrite), ("solve_prompt", solve)):
        if text:
            check_placeholders(field, text)
            changes[field] = text
    return domain.model_copy(update=changes)


def load_domain_file(path: Path) -> Domain:
    """Read a domain's YAML file; its name is the file's stem.

    Raises ParameterError that names the file, the line's name, what is allowed and the nearest known name.
    """
    lines = params.read_yaml(path, "domain")
    allowed = [field for field in Domain.model_fields if field != "name"]
    for key in lines:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ParameterError(f"domain: {path}: {key!r} is unknown; allowed: {', '.join(allowed)}.{hint}")
    try:
        return Domain(name=path.stem, **lines)
    except ValidationError as error:
        raise ParameterError(f"domain: {path}: {'; '.join(params.complaints(error))}") from None


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
    return [*_system(system), {"role": "user", "content": bait}], prefix


def bait_count(domain: Domain) -> int:
    """Return the number of different bait requests: each bait with each prefix."""
    return len(domain.bait) * len(domain.bait_prefixes)


def rewrite_messages(domain: Domain, question: str, neighbour: str, system: str = "") -> list[Message]:
    """Return the request to change `question` because it is too similar to `neighbour` (Crescent, section 2)."""
    text = _fill(domain.rewrite_prompt, question=question, neighbour=neighbour)
    return [*_system(system), {"role": "user", "content": text}]


def solve_messages(domain: Domain, question: str, system: str = "") -> list[Message]:
    """Return the request to answer `question`: the same for voting, for training and for evaluation."""
    return [
        *_system(system or domain.solve_system),
        {"role": "user", "content": _fill(domain.solve_prompt, question=question)},
    ]


def _fill(template: str, **values: str) -> str:
    # One pass, for the known placeholders alone: other braces, in the template (\\boxed{}) or in a question, are text.
    return re.sub("|".join(rf"\{{{name}\}}" for name in values), lambda match: values[match[0][1:-1]], template)


def _system(text: str) -> list[Message]:
    return [{"role": "system", "content": text}] if text else []
