"""Sampling as `01_elicit` does, through the kit, over bare `vllm.LLM.chat`: same prompts, settings, seeds and engine.

The prefix cache is emptied before each. The kit looks up and stores each completion and judges it for the progress bar;
the bare way only samples. A start is all from importing vLLM to the first completion: one in this process, whose engine
then samples, and each other in a process of its own.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import SECONDS, Row, compare, row_of

from crescent_utils.elicit import is_question
from crescent_utils.generation import generator, models
from crescent_utils.generation.engines import vllm as engine_module
from crescent_utils.generation.store import GenerationStore, Sampling, sample_seed
from crescent_utils.runs import domains, params

DOMAIN = domains.get_domain("arithmetic")
Pairs = list[tuple[generator.Request, int]]


def baits(count: int) -> Pairs:
    """Requests of `01_elicit` with the numbers of their samples."""
    model, sampling = models.resolve_model("bundled"), Sampling(1.0, 1.0, 24, DOMAIN.bait_stop, 1)
    chats = [domains.bait_messages(DOMAIN, i) for i in range(domains.bait_count(DOMAIN))]
    requests = [generator.Request.of(model.fingerprint, messages, sampling, prefix) for messages, prefix in chats]
    return [(requests[i % len(requests)], i // len(requests)) for i in range(count)]


def bare(llm: Any, pairs: Pairs) -> int:
    """Sample with LLM.chat alone; return the completion tokens."""
    from vllm import SamplingParams

    chats, settings = [], []
    for request, sample in pairs:
        messages = [{"role": role, "content": content} for role, content in request.messages]
        chats.append([*messages, {"role": "assistant", "content": request.prefix}])
        wanted = request.sampling
        settings.append(
            SamplingParams(
                temperature=wanted.temperature, top_p=wanted.top_p, max_tokens=wanted.max_tokens,
                stop=list(wanted.stop), include_stop_str_in_output=True,
                seed=sample_seed(request.key(), sample, wanted.seed),
            )
        )  # fmt: skip
    outputs = llm.chat(chats, settings, use_tqdm=False, add_generation_prompt=False, continue_final_message=True)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def kit(engine: engine_module.VllmEngine, pairs: Pairs) -> int:
    """Sample through a generator with a fresh store; return the completion tokens. The engine goes on."""
    gates = domains.validity_gates(DOMAIN)
    with tempfile.TemporaryDirectory() as folder:
        store, model = GenerationStore(Path(folder) / "store.sqlite"), models.resolve_model("bundled")
        with generator.Generator(
            store, model, 1, lambda: engine, give_back=lambda _: None, progress="completions"
        ) as sampler:
            completions = sampler.complete(pairs, lambda text: is_question(text, gates, "paper"))
    return sum(completion.tokens for completion in completions)


@functools.cache
def start_kit() -> tuple[Any, float]:
    """Start this process's engine as a run does; return it and the seconds to the first completion."""
    pairs, settings = baits(1), params.build_settings("elicit", {"engine": "vllm"})
    began = time.perf_counter()
    engine = generator.start_engine(settings, models.resolve_model("bundled"))
    kit(engine, pairs)
    return engine, time.perf_counter() - began


def start_bare() -> tuple[Any, float]:
    """Start bare vLLM with the same arguments; return it and the seconds to the first completion."""
    pairs, folder = baits(1), models.bundled_folder()
    began = time.perf_counter()
    import torch

    cuda = torch.cuda.is_available()
    os.environ.update({} if cuda else {**engine_module._CPU_ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    from vllm import LLM

    llm = LLM(model=str(folder), **engine_module._defaults(cuda, "auto", 1024))
    bare(llm, pairs)
    return llm, time.perf_counter() - began


def seconds_elsewhere(start: str) -> float:
    """Seconds of a start in a process of its own."""
    path = [str(params.ROOT), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {path}; import bench_vllm; print('seconds', bench_vllm.{start}()[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("seconds ")), "")
    if not line:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"{start} printed nothing"])[-1])
    return float(line.split()[1])


def starting(_: float) -> Row:
    """Two starts of each, ours, bare, bare, ours, after an import that brings the files into memory."""
    check()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import vllm"], capture_output=True)
    ways = ("start_kit", "start_bare", "start_bare")
    first, *alternative = [1 / seconds_elsewhere(way) for way in ways]
    ours = [first, 1 / start_kit()[1]]
    return row_of("bare vLLM", SECONDS, ours, alternative, 1, time.perf_counter() - began)


def sampling(scale: float) -> Row:
    """Tokens a second of both, with one engine."""
    check()
    engine, pairs = start_kit()[0], baits(round(240 * scale))

    def after_reset(sample: Any, sampler: Any) -> int:
        engine._llm.reset_prefix_cache()
        return int(sample(sampler, pairs))

    bare(engine._llm, pairs[:64])  # to warm up
    ways = (lambda: after_reset(kit, engine), lambda: after_reset(bare, engine._llm))
    return compare("LLM.chat", "tokens/s", *ways)


def check() -> None:
    """Raise RuntimeError where vLLM cannot be had."""
    if trouble := engine_module.why_not():
        raise RuntimeError(trouble)


ROWS = {"start to first completion": starting, "sampling, vLLM": sampling}  # in this order: the start counts imports
