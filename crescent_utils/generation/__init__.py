"""Generation: sample completions from a model, store each of them, and never sample the same twice.

In come requests (messages, start of the reply, sampling settings) and how many samples of each are wanted. A
`Generator` looks them up in the `GenerationStore`, samples only what is missing through an engine (vLLM, transformers,
a server), and stores every completion as it ends. With engine "replay" there is the store alone. So a run can be cut
anywhere and continued, and checked again without a model. `resolve_model` says which weights a name means; a model is
known by its fingerprint. `describe_place` says where a notebook runs. The store is one SQLite file,
`outputs/<run>/store.sqlite`.
"""

from .engines import EngineError, Job
from .engines.transformers import best_device
from .engines.vllm import shut_down, start_vllm
from .generator import KEEP_ENGINE, STORE_NAME, Generator, ReplayMiss, choose_engine, open_generator, release_engine
from .leftovers import end_processes, leftover_engines
from .models import (
    Model,
    ModelError,
    combined_fingerprint,
    embedder_folder,
    is_part_of_teacher,
    load_tokenizer,
    load_trained,
    merge_adapter,
    move_into_place,
    prompt_token_ids,
    quiet_transformers,
    resolve_model,
    resolve_student,
)
from .place import describe_place
from .store import TOO_LONG, Completion, GenerationStore, Request, Sampling, StoreError
from .upkeep import add_store_commands, holds_more, merge_stores

__all__ = [
    "Completion", "EngineError", "GenerationStore", "Generator", "Job", "KEEP_ENGINE", "Model", "ModelError",
    "ReplayMiss", "Request", "STORE_NAME", "Sampling", "StoreError", "TOO_LONG", "add_store_commands", "best_device",
    "choose_engine", "combined_fingerprint", "describe_place", "embedder_folder", "end_processes", "holds_more",
    "is_part_of_teacher", "leftover_engines", "load_tokenizer", "load_trained", "merge_adapter", "merge_stores",
    "move_into_place", "open_generator", "prompt_token_ids", "quiet_transformers", "release_engine", "resolve_model",
    "resolve_student", "shut_down", "start_vllm",
]  # fmt: skip
