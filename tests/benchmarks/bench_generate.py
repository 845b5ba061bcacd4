"""Speed of `01_elicit`'s sampling through the kit over bare `vllm.LLM.chat`: same prompts, settings and engine.

`python tests/benchmarks/bench_generate.py [--samples 900] [--rounds 3]`. The ways take turns, and the prefix cache is
emptied before each. The kit looks up and stores each completion and judges it for the progress bar; the bare way only
samples. Both give every sample its own seed; the bare way is also measured without seeds, which is less than the kit
promises.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from crescent_utils.generation import generator, models
from crescent_utils.generation.engines.vllm import VllmEngine
from crescent_utils.generation.store import GenerationStore, Sampling, sample_seed
from crescent_utils.runs import costs, domains
from crescent_utils.vote import tables


def bare(engine: VllmEngine, pairs: list, seeded: bool) -> int:
    """Sample with LLM.chat alone; return the completion tokens."""
    from vllm import SamplingParams

    chats, settings = [], []
    for request, sample in pairs:
        chats.append(
            [{"role": r, "content": c} for r, c in request.messages]
            + [{"role": "assistant", "content": request.prefix}]
        )
        wanted = request.sampling
        settings.append(
            SamplingParams(
                temperature=wanted.temperature,
                top_p=wanted.top_p,
                max_tokens=wanted.max_tokens,
                stop=list(wanted.stop),
                include_stop_str_in_output=True,
                seed=sample_seed(request.key(), sample, wanted.seed) if seeded else None,
            )
        )
    outputs = engine._llm.chat(
        chats, settings, use_tqdm=False, add_generation_prompt=False, continue_final_message=True
    )
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def kit(engine: VllmEngine, model: models.Model, pairs: list, gates: dict, folder: Path) -> int:
    """Sample through a generator with a fresh store; return the completion tokens."""
    made = generator.Generator(GenerationStore(folder / "store.sqlite"), model, 1, lambda: engine, progress=True)
    done = made.complete(pairs, lambda text: tables.is_question(text, gates, "paper"))
    made._engine = None  # the engine serves the next round, too
    made.close()
    return sum(completion.tokens for completion in done)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    domain, model = domains.get_domain("arithmetic"), models.resolve_model("bundled")
    tokenizer = models.load_tokenizer(model.locate())
    engine = VllmEngine(model.locate(), lambda request: models.prompt_token_ids(tokenizer, request, 1024))
    baits = [domains.bait_messages(domain, i) for i in range(domains.bait_count(domain))]
    sampling = Sampling(1.0, 1.0, 24, domain.bait_stop, 1)
    rows = []
    try:
        with tempfile.TemporaryDirectory() as work:
            maker = generator.Generator(GenerationStore(Path(work) / "none.sqlite"), model, 1, None)
            requests = [maker.request(messages, sampling, prefix) for messages, prefix in baits]
            maker.close()
            pairs = [(requests[i % len(requests)], i // len(requests)) for i in range(options.samples)]
            bare(engine, pairs[:64], True)  # to warm up
            for number in range(options.rounds):
                folder = Path(work) / str(number)
                ways = {
                    "LLM.chat": lambda: bare(engine, pairs, True),
                    "LLM.chat, no seeds": lambda: bare(engine, pairs, False),
                    "kit": lambda folder=folder: kit(engine, model, pairs, domains.validity_gates(domain), folder),
                }
                for way, sample in ways.items():
                    engine._llm.reset_prefix_cache()
                    began = time.perf_counter()
                    tokens = sample()
                    rows.append({"way": way, "tokens": tokens, "seconds": time.perf_counter() - began})
    finally:
        engine.close()
    table = pd.DataFrame(rows).groupby("way").sum()
    table["tokens/s"] = table["tokens"] / table["seconds"]
    table["kit over it"] = table.loc["kit", "tokens/s"] / table["tokens/s"]
    print(f"{options.rounds} rounds of {options.samples} completions; {costs.device_name()}")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
