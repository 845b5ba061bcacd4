"""Prompts: the bait, rewrite and solve prompts of each domain, with the gates that make a question valid there.

A *domain* is all that the method needs to know about a kind of question. `math_word_problems` is the paper's
(Crescent, section 2); `arithmetic` is ours, the one in which a 135M-parameter model has signal on two CPU cores.
Every prompt here is worded by us and can be replaced by a parameter of the notebooks.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

Message = dict[str, str]


@dataclass(frozen=True)
class Domain:
    """What one kind of question needs: prompts, gates, threshold.

    `baits` take turns over the samples; each bait is combined with each of `bait_prefixes`, a start of the
    reply that the model continues ("" lets it begin by itself). `pattern` is a regular expression that a whole question has to
    match ("" accepts any). `similarity_threshold` is a cosine of MiniLM vectors (no unit, -1..1).
    """

    name: str
    baits: tuple[str, ...]
    bait_prefixes: tuple[str, ...]
    bait_stop: tuple[str, ...]
    rewrite: str
    solve_system: str
    solve: str
    min_quantities: int
    min_words: int
    max_words: int
    pattern: str
    similarity_threshold: float
    answer_type: Literal["number", "choice"]
    benchmarks: tuple[str, ...]


_NUMBER = r"\d{1,3}"
_OPERATION = r"(?:\+|-|−|–|\*|x|×|plus|minus|times|multiplied by|added to)"

ARITHMETIC = Domain(  # ours: DESIGN of the kit, not in either paper
    name="arithmetic",
    baits=("Write one short arithmetic question with two numbers. Write only the question.",),
    # A 135M model seldom obeys the bait; a prefilled first digit gives valid questions and spreads them.
    bait_prefixes=tuple(f"What is {digit}" for digit in range(1, 10)),
    bait_stop=("\n", "?"),
    rewrite=(
        "This arithmetic question is too similar to one that we already have.\n"
        "Question: {question}\nToo similar to: {neighbour}\n"
        "Write a different short arithmetic question with two other numbers. Write only the question."
    ),
    solve_system="You are good at arithmetic.",
    solve="{question} Answer with the final number at the end.",
    min_quantities=2,
    min_words=3,
    max_words=12,
    pattern=rf"What is {_NUMBER} ?{_OPERATION} ?{_NUMBER}\?",
    similarity_threshold=0.95,
    answer_type="number",
    benchmarks=("arithmetic",),
)

MATH_WORD_PROBLEMS = Domain(
    name="math_word_problems",
    # Crescent, released Llama-3 bait, its content in our words: creative, unique, diverse, high-school level, only the problem.
    baits=(
        "Be creative and make up one math word problem at high-school level. It should be unlike the usual ones: "
        "unique, special and diverse. Give me nothing but the problem itself.\nProblem:",
    ),
    bait_prefixes=("",),
    bait_stop=(),
    rewrite=(
        "Here is a math word problem:\n{question}\n\nIt is too close to this one:\n{neighbour}\n\n"
        "Change the first problem so that it differs clearly from the second in its story, its quantities and the way "
        "to its solution. Give me nothing but the new problem.\nProblem:"
    ),
    solve_system="",
    solve=(
        "{question}\n\nSolve this problem step by step, then state the final answer on a last line of the form "
        "'The answer is <number>'."
    ),
    min_quantities=1,
    min_words=8,
    max_words=250,
    pattern="",
    similarity_threshold=0.85,  # Crescent, released scripts: cosine within a batch
    answer_type="number",
    benchmarks=("gsm8k", "asdiv", "gsm_plus_mini"),
)

PLACEHOLDERS = {"rewrite_prompt": ("{question}", "{neighbour}"), "solve_prompt": ("{question}",)}
_DOMAINS = {domain.name: domain for domain in (ARITHMETIC, MATH_WORD_PROBLEMS)}


def domain_names() -> list[str]:
    """Names that the parameter `domain` may take."""
    return sorted(_DOMAINS)


def is_file(name: str) -> bool:
    """Say whether `name` means a domain of the user's own, in a YAML file, rather than one of the kit's."""
    return name.endswith((".yaml", ".yml"))


def get_domain(
    name: str,
    *,
    bait: list[str] | None = None,
    bait_prefixes: list[str] | None = None,
    rewrite: str = "",
    solve: str = "",
) -> Domain:
    """Return the domain `name` (one of `domain_names`, or a YAML file), with any prompt that is given in the place of its own.

    Raises ValueError naming the nearest known domain, or what is wrong in the file.
    """
    if is_file(name):
        from . import domains

        domain = domains.load(name)
    elif name in _DOMAINS:
        domain = _DOMAINS[name]
    else:
        near = difflib.get_close_matches(name, _DOMAINS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"domain: {name!r} is unknown; allowed: {', '.join(domain_names())}, or a .yaml file.{hint}")
    if bait:
        domain = replace(domain, baits=tuple(bait))
    if bait_prefixes:
        domain = replace(domain, bait_prefixes=tuple(bait_prefixes))
    for field, text in (("rewrite", rewrite), ("solve", solve)):
        if text:
            check_placeholders(f"{field}_prompt", text)
            domain = replace(domain, rewrite=text) if field == "rewrite" else replace(domain, solve=text)
    return domain


def check_placeholders(name: str, text: str) -> None:
    """Raise ValueError where the prompt of parameter `name` lacks a placeholder that it needs."""
    missing = [part for part in PLACEHOLDERS[name] if part not in text]
    if missing:
        raise ValueError(f"{name}: {text!r} lacks {', '.join(missing)}; put the placeholder where the text belongs")


def gates(domain: Domain) -> dict[str, Any]:
    """Return the domain's validity gates as keywords of `questions.extract_question`."""
    return {
        "min_quantities": domain.min_quantities,
        "min_words": domain.min_words,
        "max_words": domain.max_words,
        "pattern": domain.pattern,
        "bait": "\n".join(domain.baits),
    }


def bait_messages(domain: Domain, number: int, system: str = "") -> tuple[list[Message], str]:
    """Return the messages and the prefilled start of the reply for bait request `number` (they take turns)."""
    prefix = domain.bait_prefixes[number % len(domain.bait_prefixes)]
    bait = domain.baits[number // len(domain.bait_prefixes) % len(domain.baits)]
    return [*_system(system), {"role": "user", "content": bait}], prefix


def bait_count(domain: Domain) -> int:
    """Number of different bait requests: each bait with each prefix."""
    return len(domain.baits) * len(domain.bait_prefixes)


def rewrite_messages(domain: Domain, question: str, neighbour: str, system: str = "") -> list[Message]:
    """Return the request to change `question` because it is too similar to `neighbour` (Crescent, self-deduplication)."""
    text = _fill(domain.rewrite, question=question, neighbour=neighbour)
    return [*_system(system), {"role": "user", "content": text}]


def solve_messages(domain: Domain, question: str, system: str = "") -> list[Message]:
    """Return the request to answer `question`: the same for voting, for training and for evaluation."""
    return [
        *_system(system or domain.solve_system),
        {"role": "user", "content": _fill(domain.solve, question=question)},
    ]


def _fill(template: str, **values: str) -> str:
    # One pass over the template for the known placeholders alone: other braces, there (\\boxed{}) or in a question, are text.
    return re.sub("|".join(rf"\{{{name}\}}" for name in values), lambda found: values[found[0][1:-1]], template)


def _system(text: str) -> list[Message]:
    return [{"role": "system", "content": text}] if text else []
