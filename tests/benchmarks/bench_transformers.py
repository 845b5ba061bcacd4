"""Speed of the transformers engine over plain `model.generate` in fixed batches, on the same prompts, in one run.

`python tests/benchmarks/bench_transformers.py [--questions 32] [--votes 8]` asks the first questions of the reference
run's pool so many times each, as `03_vote` does. The plain way takes the prompts in order, in batches of each given
size, and keeps the best.
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
import torch

from crescent_utils.generation import models
from crescent_utils.generation.engines import Job
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.store import Request, Sampling, sample_seed
from crescent_utils.runs import costs, domains, folders


def plain(model, tokenizer, asked: list[list[int]], sampling: Sampling, size: int) -> tuple[int, float]:
    """Tokens and seconds of `model.generate` over fixed batches of `size` prompts, padded on the left."""
    tokens, began, pad = 0, time.perf_counter(), tokenizer.pad_token_id
    ends = model.generation_config.eos_token_id
    for start in range(0, len(asked), size):
        batch = asked[start : start + size]
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in batch])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch])
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=sampling.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=sampling.max_tokens,
                pad_token_id=pad,
            )
        for row in out[:, width:].tolist():
            tokens += row.index(ends) + 1 if ends in row else len(row)
    return tokens, time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--votes", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    options = parser.parse_args()
    domain = domains.get_domain("arithmetic")
    sampling = Sampling(0.7, 1.0, 40, (), 1)
    questions = folders.read_table(folders.ROOT / "outputs" / "reference", "dedup", "questions")["question"][
        : options.questions
    ]
    requests = [Request.of("bench", domains.solve_messages(domain, text), sampling) for text in questions]
    folder = models.bundled_folder()
    tokenizer = models.load_tokenizer(folder)
    engine = TransformersEngine(folder, lambda request: models.prompt_token_ids(tokenizer, request, 1024))
    jobs = [Job(r, i, sample_seed(r.key(), i, 1)) for r in requests for i in range(options.votes)]
    list(engine.sample(jobs[:8]))  # to warm up
    began = time.perf_counter()
    tokens = sum(completion.tokens for _, completion in engine.sample(jobs))
    spent = time.perf_counter() - began
    rows = [{"way": "ours", "batch": 64, "tokens": tokens, "seconds": spent}]
    print(f"ours: {tokens / spent:.1f} tokens/s", flush=True)
    for size in options.sizes:
        made, seconds = plain(
            engine._model, tokenizer, [engine._prompts.get(job.request) for job in jobs], sampling, size
        )
        rows.append({"way": "model.generate", "batch": size, "tokens": made, "seconds": seconds})
        print(f"model.generate, batches of {size}: {made / seconds:.1f} tokens/s", flush=True)
    table = pd.DataFrame(rows)
    table["tokens/s"] = table["tokens"] / table["seconds"]
    table["ours over it"] = table["tokens/s"][0] / table["tokens/s"]
    print(
        f"{len(jobs)} completions of {len(requests)} prompts; {costs.device_name()}; torch {torch.__version__}, float32"
    )
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
