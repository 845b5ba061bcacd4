"""vLLM, offline, on CPU or CUDA: continuous batching in a process of its own.

On CPU a per-request seed needs chunked prefill off (vLLM 0.32: a seeded CPU generator cannot be cut), and
`gpu_memory_utilization` means the share of host memory; both were found by running it.
"""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import leftovers
from ..store import Completion
from . import EngineError, Job

_CPU_ENVIRONMENT = {
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # use both cores of a small machine
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits must not spin on the core that the scheduler needs
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
}


def why_not() -> str:
    """Return why vLLM cannot be used here; "" where it can."""
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    import torch

    if torch.cuda.is_available():
        if torch.cuda.get_device_capability() < (8, 0):
            return f"vLLM needs compute capability 8.0, {torch.cuda.get_device_name(0)} has less"
        return ""
    names = {d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "" if "vllm-cpu" in names else "no CUDA GPU, and the installed vLLM is not the CPU build (vllm-cpu)"


class VllmEngine:
    """vLLM behind the `Engine` protocol. Prompts are token ids, rendered by the caller."""

    name = "vllm"

    def __init__(
        self,
        folder: Path | str,
        render: Any,
        *,
        dtype: str = "auto",
        max_model_len: int = 1024,
        engine_args: dict[str, Any] | None = None,
    ) -> None:
        """`render(request) -> list[int]` gives the prompt's token ids; `engine_args` go to `vllm.LLM` and win over ours."""
        import torch

        cuda = torch.cuda.is_available()
        arguments: dict[str, Any] = {
            "model": str(folder),
            "dtype": dtype,
            "max_model_len": max_model_len,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        }
        if not cuda:
            # A run that was killed leaves its engine behind, with its memory; nobody else would end it.
            leftovers.end_processes(leftovers.leftovers())
            for name, value in _CPU_ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            arguments |= {
                "dtype": "bfloat16" if dtype == "auto" else dtype,
                "enforce_eager": True,
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(8192, max_model_len),
                "max_num_seqs": 128,
                "gpu_memory_utilization": 0.2,
                "block_size": 32,  # prompts are short: with the CPU's default of 128 tokens no block of theirs is ever shared
            }
        arguments |= engine_args or {}
        try:
            from vllm import LLM

            self._llm: Any = LLM(**arguments)
        except Exception as error:
            raise EngineError(
                f"vLLM could not start on {folder}: {error}. engine: transformers runs without it"
            ) from error
        self._render = render
        self.max_model_len = max_model_len
        self.guarantee = (
            "seeded per sample; on CPU in one dtype a completion does not depend on its batch"
            if not cuda
            else "seeded per sample; on CUDA the batch can change rounding and so, now and then, a completion"
        )

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Feed all jobs to the engine's queue and yield each as it finishes."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self._llm.llm_engine
        for index, job in enumerate(jobs):
            sampling = job.request.sampling
            parameters = SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                stop=list(sampling.stop) or None,
                include_stop_str_in_output=bool(sampling.stop),
                output_kind=RequestOutputKind.FINAL_ONLY,
                seed=job.seed if sampling.temperature > 0 else None,
            )
            engine.add_request(str(index), {"prompt_token_ids": self._render(job.request)}, parameters)
        try:
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        best = output.outputs[0]
                        yield (
                            int(output.request_id.split("-")[0]),
                            Completion(
                                best.text,
                                best.finish_reason or "stop",
                                len(output.prompt_token_ids),
                                len(best.token_ids),
                            ),
                        )
        finally:
            if engine.has_unfinished_requests():  # the consumer left early
                engine.abort_request([str(index) for index in range(len(jobs))])

    def close(self) -> None:
        """Shut the engine's processes down and free the memory, so that training may follow on the same device."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
