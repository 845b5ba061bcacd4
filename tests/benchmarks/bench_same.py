"""What share of completions stays the same in another batch, another order and after cuts, with either engine.

`python tests/benchmarks/bench_same.py [--engine transformers|vllm] [--model bundled] [--dtype auto] [--questions 100]
[--votes 5]` samples the same jobs twice and compares them one by one. On CPU the engines guarantee all of them (float32
for transformers); on CUDA nobody guarantees any, and this says how many.
"""

from __future__ import annotations

import argparse
import json
import random

from crescent_utils import stats
from crescent_utils.generation import models
from crescent_utils.generation.engines import Job
from crescent_utils.generation.generator import start_engine
from crescent_utils.generation.store import Request, Sampling, sample_seed
from crescent_utils.runs import costs, domains, folders, params


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--engine-args", type=json.loads, default={}, help="JSON, as the parameter engine_args")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--votes", type=int, default=5)
    options = parser.parse_args()
    settings = params.build_settings("vote", {"engine": options.engine, "model": options.model, "dtype": options.dtype,
                                     "engine_args": options.engine_args})  # fmt: skip
    model = models.resolve_model(options.model)
    domain = domains.get_domain("arithmetic")
    pool = folders.read_table(folders.ROOT / "outputs" / "reference", "dedup", "questions")["question"][
        : options.questions
    ]
    asked = [
        Request.of(model.fingerprint, domains.solve_messages(domain, text), Sampling(0.7, 1.0, 40, (), 1))
        for text in pool
    ]
    jobs = [Job(request, i, sample_seed(request.key(), i, 1)) for request in asked for i in range(options.votes)]
    engine = start_engine(settings, model)
    try:
        first = dict(engine.sample(jobs))
        order = random.Random(2).sample(range(len(jobs)), len(jobs))
        second = {}
        for start in range(0, len(order), 97):
            part = order[start : start + 97]
            second |= {part[i]: completion for i, completion in engine.sample([jobs[j] for j in part])}
    finally:
        engine.close()
    same = sum(first[i] == second[i] for i in range(len(jobs)))
    sure = stats.wilson(same, len(jobs))
    print(f"{options.engine}, {options.dtype}, {options.engine_args or ''}, {costs.device_name()}")
    share = f"{100 * same / len(jobs):.1f} % [{100 * sure.low:.1f}, {100 * sure.high:.1f}]"
    print(f"{same} of {len(jobs)} completions the same, {share}; the engine says: {engine.guarantee}")


if __name__ == "__main__":
    main()
