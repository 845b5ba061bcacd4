"""Prompts: the ways in which a model is asked the same item, so that a gain over a bad prompt is seen as such.

- solve: the domain's solve prompt, with which the vote asks and training teaches, unless `train_prompt` is another.
- bare: the question alone, without the domain's system prompt.
- stock: lm-evaluation-harness's own prompt for GSM8K, which begins "Question:" and ends "Answer:"; an answer ends where
  the model goes on with a next "Question:".
- exemplars: the solve prompt after the domain's worked examples, as turns of a chat.
- own: the same with the examples that the run's vote made itself (`vote_shots: own`).

The first of `eval_prompts` is the headline: claims are judged on it, and it alone is asked with the `shots` of the
benchmark, sampled, and put to students. The others are put to base and tuned model, which answer greedily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .. import benchmarks, generation, runs
from ..benchmarks import Benchmark, Item
from ..runs import Domain, Evaluate, Exemplar, Message

if TYPE_CHECKING:
    import pandas as pd

BARE = "{question}"
STOCK = "Question: {question}\nAnswer:"  # lm-evaluation-harness 0.4, lm_eval/tasks/gsm8k/gsm8k.yaml: doc_to_text
STOCK_STOP = ("Question:",)  # the same file: generation_kwargs, until
ZERO_SHOT = ("solve", "bare", "stock")
WITH_EXAMPLES = ("exemplars", "own")


@dataclass(frozen=True)
class Asked:
    """How a benchmark is put: the domain with the words, the benchmark with the worked examples, and how many of them.

    An answer ends where one of `stop` begins.
    """

    domain: Domain
    benchmark: Benchmark
    shots: int = 0
    stop: tuple[str, ...] = ()

    def chat(self, question: str, system: str) -> list[Message]:
        """Return the chat in which `question` is asked, worked examples and all."""
        chat = runs.solve_messages(self.domain, question, system)
        examples: list[Message] = []
        for item in self.benchmark.train[: self.shots]:
            examples.append(runs.solve_messages(self.domain, item.question, system)[-1])
            examples.append({"role": "assistant", "content": item.solution or item.gold})
        return [*chat[:-1], *examples, chat[-1]]

    def request(
        self, generator: generation.Generator, question: str, settings: Evaluate, temperature: float = 0.0
    ) -> generation.Request:
        """Return the request for an answer to `question`, as the evaluation samples it."""
        sampling = generation.Sampling(temperature, 1.0, settings.eval_max_tokens, self.stop)
        return generator.request(self.chat(question, settings.system_prompt), sampling)


def asked_with(
    prompt: str, benchmark: Benchmark, settings: Evaluate, domain: Domain, shots: int = 0, own: Sequence[Exemplar] = ()
) -> Asked:
    """Return how `benchmark` is put with `prompt`: one of `eval_prompts`, or a wording of the domain's `prompts`.

    The exemplars of `own` are those that the run's vote made, unless some are given. Raises BenchmarkError for
    `exemplars` in a domain that has none, RunError for `own` where the vote made none.
    """
    if prompt == "solve":
        return Asked(_worded(benchmark, domain), benchmark, shots)
    if prompt in WITH_EXAMPLES:
        examples: Sequence[Exemplar] = domain.exemplars
        if prompt == "own":
            examples = own or runs.own_exemplars(runs.run_of_stage("vote", settings))
        if not examples:
            raise benchmarks.BenchmarkError(
                f"eval_prompts: 'exemplars' needs worked examples, and the domain {domain.name} has none; write "
                "`exemplars` into its file"
            )
        items = tuple(Item(example.question, example.answer, example.path) for example in examples)
        return Asked(domain, replace(benchmark, train=items), len(items))
    template = {"bare": BARE, "stock": STOCK}.get(prompt, prompt)
    words = domain.model_copy(update={"solve_prompt": template, "solve_system": ""})
    return Asked(words, benchmark, shots, STOCK_STOP if prompt == "stock" else ())


def _worded(benchmark: Benchmark, domain: Domain) -> Domain:
    """Return the domain with the benchmark's own wording, if it has one.

    The domain's request for a final number says nothing where a letter is asked for.
    """
    if not benchmark.solve:
        return domain
    return domain.model_copy(update={"solve_prompt": benchmark.solve, "solve_system": ""})


def first_prompts(benchmark: Benchmark, settings: Evaluate, domain: Domain) -> dict[str, list[Message]]:
    """Return the chat in which the first item is asked, for each of `eval_prompts`, for a notebook to show."""
    chats: dict[str, list[Message]] = {}
    for prompt in settings.eval_prompts:
        shots = max(settings.shots) if prompt == settings.eval_prompts[0] else 0
        asked = asked_with(prompt, benchmark, settings, domain, shots)
        chats[prompt] = asked.chat(benchmark.items[0].question, settings.system_prompt)
    return chats


def headline_scores(scores: pd.DataFrame, prompt: str = "solve") -> pd.DataFrame:
    """Return the answers on which claims are judged: those to the headline `prompt`, the first of `eval_prompts`.

    A table from before there were several prompts is returned as it is.
    """
    if "prompt" not in scores:
        return scores
    kept = scores[(scores["prompt"] == prompt) & scores["decoding"].isin(["greedy", "sampled"])]
    return kept.reset_index(drop=True)
