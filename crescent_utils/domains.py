"""Domains of one's own: a kind of question described in one YAML file, checked line by line before anything loads.

The parameter `domain` takes the path of such a file in the place of a name; `params/domains/` holds an example. Ours.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from . import params, prompts

ROOT = Path(__file__).resolve().parent.parent


class Gates(BaseModel):
    """What makes a question valid: see `questions.extract_question`."""

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


class DomainFile(BaseModel):
    """The lines of a domain's file. A prompt has the name of the parameter that replaces it for one run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    bait: list[str] = Field(min_length=1)
    bait_prefixes: list[str] = Field(default_factory=lambda: [""], min_length=1)
    bait_stop: list[str] = Field(default_factory=list)
    rewrite_prompt: str
    solve_system: str = ""
    solve_prompt: str
    gates: Gates = Field(default_factory=lambda: Gates.model_validate({}))
    similarity_threshold: float = Field(0.85, gt=0, le=1)  # Crescent, released scripts
    answer_type: Literal["number", "choice"] = "number"
    benchmarks: list[str] = Field(default_factory=list)

    @field_validator("bait")
    @classmethod
    def _says_something(cls, value: list[str]) -> list[str]:
        if not all(text.strip() for text in value):
            raise ValueError("a bait is empty; write what the model is asked for")
        return value

    @field_validator("rewrite_prompt", "solve_prompt")
    @classmethod
    def _has_its_placeholders(cls, value: str, info: Any) -> str:
        prompts.check_placeholders(info.field_name, value)
        return value


def load(name: str) -> prompts.Domain:
    """Read the domain in the YAML file `name`: an absolute path, or one relative to the kit's folder; its name is the file's stem.

    Raises params.ParameterError (a ValueError) that names the file, the line's name, what is allowed and the nearest known name.
    """
    path = ROOT / Path(name).expanduser()
    values = params.read_yaml(path, "domain")
    for key in values:
        if key not in DomainFile.model_fields:
            near = difflib.get_close_matches(str(key), DomainFile.model_fields, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(DomainFile.model_fields)
            raise params.ParameterError(f"domain: {path}: {key!r} is unknown; allowed: {known}.{hint}")
    try:
        read = DomainFile(**values)
    except ValidationError as error:
        raise params.ParameterError(f"domain: {path}: {'; '.join(params.complaints(error))}") from None
    return prompts.Domain(
        name=path.stem,
        baits=tuple(read.bait),
        bait_prefixes=tuple(read.bait_prefixes),
        bait_stop=tuple(read.bait_stop),
        rewrite=read.rewrite_prompt,
        solve_system=read.solve_system,
        solve=read.solve_prompt,
        similarity_threshold=read.similarity_threshold,
        answer_type=read.answer_type,
        benchmarks=tuple(read.benchmarks),
        **read.gates.model_dump(),
    )
