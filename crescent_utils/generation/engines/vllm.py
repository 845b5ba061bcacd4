"""vLLM, offline, on CPU or CUDA: continuous batching.

On CPU the engine works within this process: processes of its own would import everything twice more, for 40 seconds a
start, and sample the same at the same speed. On CUDA it has processes of its own. On CPU a per-request seed needs
chunked prefill off (vLLM 0.32: a seeded CPU generator cannot be cut), and `gpu_memory_utilization` means the share of
host memory; both were found by running it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import leftovers
from ..store import LENGTH, STOP, Completion, Request
from . import EngineError, Job, Prompts, free_memory

AHEAD = 4096  # requests in the engine's queue: many more than it works on at once, few enough for its memory
_CPU_ENVIRONMENT = {
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # use both cores of a small machine
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
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
    try:
        importlib.metadata.distribution("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return "no CUDA GPU, and the installed vLLM is not the CPU build (vllm-cpu)"
    return ""


def start_vllm(start: Callable[[], Any]) -> Any:
    """Return what `start()` gives, a vLLM engine whose processes from now on count as this process's own.

    `start` must import vLLM itself: on CPU the environment that vLLM reads is set before. Where it fails or is
    interrupted, none of its processes is left.
    """
    import torch

    if not torch.cuda.is_available():
        # A run that was killed leaves its engine behind, with its memory; nobody else would end it.
        leftovers.end_processes(leftovers.leftover_engines())
        for name, value in _CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        logging.getLogger("vllm.triton_utils").setLevel(logging.ERROR)  # it warns before vLLM reads the level above
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\b")
        # One engine has its place within this process, a second one has to have processes of its own.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(_is_within_this_process()))
    others = {process.pid for process in leftovers.own_engines()}
    try:
        engine = start()
    except BaseException:
        leftovers.end_processes([process for process in leftovers.own_engines() if process.pid not in others])
        raise
    leftovers.claim_engines()
    return engine


def _is_within_this_process() -> bool:
    """Return whether an engine works within this process: it has set up torch's process group of one."""
    import torch

    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def shut_down(engine: Any) -> None:
    """Shut down vLLM's `llm_engine`, and end what is left of this process's engine processes."""
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.v1.engine.core_client import InprocClient

    processes = leftovers.own_engines()
    try:
        engine.engine_core.shutdown()
    finally:
        if isinstance(engine.engine_core, InprocClient) and _is_within_this_process():
            cleanup_dist_env_and_memory()  # a trainer in this process must not find itself in vLLM's process group
        leftovers.end_processes(processes, patience=10.0)


class VllmEngine:
    """vLLM behind the `Engine` protocol. Prompts are token ids, rendered by the caller."""

    name = "vllm"

    def __init__(
        self,
        folder: Path | str,
        render: Callable[[Request], list[int]],
        *,
        dtype: str = "auto",
        max_model_len: int = 1024,
        engine_args: dict[str, Any] | None = None,
    ) -> None:
        """`render(request)` gives the prompt's token ids; `engine_args` go to `vllm.LLM` and win over ours.

        They take vLLM's own names: tensor_parallel_size, gpu_memory_utilization, enable_prefix_caching …
        Raises EngineError where the engine does not start; then none of its processes is left either.
        """
        import torch

        cuda = torch.cuda.is_available()
        arguments = {**_defaults(cuda, dtype, max_model_len), "model": str(folder), **(engine_args or {})}
        if int(arguments.get("data_parallel_size", 1)) > 1:
            raise EngineError(
                f"engine_args: data_parallel_size {arguments['data_parallel_size']} needs vLLM's own server: start "
                "`vllm serve MODEL --data-parallel-size N`, then choose engine: server and its address in base_urls"
            )

        def start() -> Any:
            from vllm import LLM

            if not gc.get_freeze_count():
                # Starting and ending an engine collects garbage nine times, 0.4 s each with all of vLLM's modules to
                # look through; what is imported is there to stay.
                gc.freeze()
            return LLM(**arguments)

        try:
            self._llm: Any = start_vllm(start)
        except Exception as error:
            raise EngineError(
                f"vLLM could not start on {folder}: {error}. engine: transformers runs without it"
            ) from error
        self._prompts = Prompts(render)
        devices = int(arguments.get("tensor_parallel_size", 1)) * int(arguments.get("pipeline_parallel_size", 1))
        self.devices = devices if cuda else 1
        self.guarantee = (
            "seeded per sample; on CPU, in bfloat16, batch, order and cuts changed 1 of 1,190 completions (measured)"
            if not cuda
            else "seeded per sample; on CUDA the batch can change rounding and so, now and then, a completion"
        )

    def sample(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Completion]]:
        """Feed the jobs to the engine's queue, a bounded number ahead, and yield each as it finishes."""
        engine = self._llm.llm_engine
        waiting = deque(enumerate(jobs))
        requested: set[str] = set()
        try:
            while waiting or requested:
                while waiting and len(requested) < AHEAD:
                    index, job = waiting.popleft()
                    prompt = self._prompts.get(job.request)
                    if isinstance(prompt, Completion):
                        yield index, prompt
                        continue
                    engine.add_request(str(index), {"prompt_token_ids": prompt}, _parameters(job))
                    requested.add(str(index))
                for output in self._step() if requested else ():
                    if output.finished:
                        number = output.request_id.split("-")[0]
                        requested.discard(number)
                        yield int(number), _completion(output)
        finally:
            if requested:  # the consumer left early; an engine that the same interrupt has ended cannot be asked
                with contextlib.suppress(Exception):
                    engine.abort_request(list(requested))

    def _step(self) -> list[Any]:
        try:
            return list(self._llm.llm_engine.step())
        except Exception as error:  # out of memory, a worker that died
            raise EngineError(f"vLLM failed while sampling: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Shut the engine's processes down and free the memory, so that training may follow on the same device."""
        llm, self._llm = self._llm, None
        if llm is not None:
            shut_down(llm.llm_engine)
        del llm
        free_memory()


def _defaults(cuda: bool, dtype: str, max_model_len: int) -> dict[str, Any]:
    common = {"dtype": dtype, "max_model_len": max_model_len, "enable_prefix_caching": True, "disable_log_stats": True}
    if cuda:
        return common
    return common | {
        "dtype": "bfloat16" if dtype == "auto" else dtype,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(8192, max_model_len),
        "max_num_seqs": 128,
        "gpu_memory_utilization": 0.2,
        "block_size": 32,  # prompts are short: with the CPU's default of 128 tokens no block of theirs is ever shared
    }


def _parameters(job: Job) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = job.request.sampling
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop) or None,
        include_stop_str_in_output=bool(sampling.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
        seed=job.seed if sampling.temperature > 0 else None,
    )


def _completion(output: Any) -> Completion:
    best = output.outputs[0]
    if best.finish_reason not in (STOP, LENGTH):  # aborted or failed: no completion, and nothing to store
        raise EngineError(
            f"vLLM ended a completion with {best.finish_reason!r}; what was sampled is stored, run again to go on"
        )
    return Completion(best.text, best.finish_reason, len(output.prompt_token_ids), len(best.token_ids))
