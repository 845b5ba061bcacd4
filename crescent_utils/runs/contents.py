"""Contents: what a stage reads, as hashes. They tell a finished stage from a stale one.

A stage is current if its parameters, the notebook's code, the domain, the models, the files and the tables that it
reads are those that it was made with, wherever they lie and whatever they are called. Where and how fast the work is
done (engine, batch size, folders) does not count, since completions come from the store whoever sampled them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from .. import __version__
from . import domains, layout, params
from .params import Common

# Parameters that say how fast and in how much memory a model is trained, not what it learns.
SPEED_SETTINGS = set(
    "micro_batch_size gradient_checkpointing checkpoint_steps processes accelerate_args report_to".split()
)
# Parameters that say where or how fast, not what: a change of these does not make a finished stage stale.
NOT_IN_FINGERPRINT = SPEED_SETTINGS | set(
    "profile run replay_from outputs save_to benchmark_dir".split()
    + "engine engine_args base_urls served_names concurrency".split()
)
# Parameters that name something to read: its content counts in the place of the name, see `stage_inputs`.
MODELS = ("model", "student", "embedder")
READ_BY_NAME = {*MODELS, "domain", "question_source", "budget_of", "other_runs", "compare_runs", "accumulate_runs"}
CONTENT_OF = {"budget_of": "budget"}  # those of them whose content has another name in `stage_inputs`
QUESTION_FILES = (".jsonl", ".json", ".parquet", ".csv")
# The files in `benchmark_dir` from which `benchmarks.load_benchmark` makes each benchmark, its few shots included.
BENCHMARK_FILES = {
    "gsm8k": ("gsm8k_test.jsonl", "gsm8k_train.jsonl"),
    "asdiv": ("ASDiv.xml", "gsm8k_train.jsonl"),
    "gsm_plus_mini": ("gsmplus_testmini.jsonl", "gsm8k_train.jsonl"),
    "svamp": ("svamp_test.jsonl", "svamp_train.jsonl"),
    "math500": ("math500.jsonl",),
    "bbh": ("bbh/*.json",),
}
_NOT_WEIGHTS = {"README.md", ".gitattributes", "training_args.bin"}
_SETTLED = 2.0  # seconds: a file that changed later may change again without its time of change showing it


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex; a process reads an unchanged file once."""
    status = path.stat()
    is_settled = time.time() - status.st_mtime >= _SETTLED
    read = _read_sha256 if is_settled else _read_sha256.__wrapped__
    return read(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _read_sha256(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """Return a SHA-256 over the names and contents of a model folder's files (the first 32 hex digits)."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _NOT_WEIGHTS):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + file_sha256(path).encode())
    return digest.hexdigest()[:32]


def hash_json(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, in hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def stage_inputs(stage: str, settings: Any) -> dict[str, Any]:
    """Return what stage `stage` of the run reads, by content: what a manifest records and a fingerprint covers.

    `notebook` and `domain` are hashes; `model`, `student` and `embedder` fingerprints; `upstream` the fingerprints of
    the stages before, `tables` the hashes of their tables, `trained` the fingerprints of the models that they trained;
    then, where the stage has such parameters, `benchmarks` (by file), `prompts` (with `best_prompt`),
    `question_source`, `budget`, `accumulate_runs`, `other_runs` and `compare_runs`.
    """
    folders = {name: layout.run_of_stage(name, settings) for name in layout.stages_before(stage, settings)}
    before = {name: layout.read_manifest(folder, name) or {} for name, folder in folders.items()}
    tables = [path for name, folder in folders.items() for path in sorted((folder / name).glob("*.parquet"))]
    inputs: dict[str, Any] = {
        "notebook": _notebook_code(stage),
        **named_inputs(stage, settings),
        "upstream": {name: manifest.get("fingerprint") for name, manifest in before.items()},
        "tables": {f"{path.parent.name}/{path.stem}": file_sha256(path) for path in tables},
        "trained": {name: manifest.get("models", {}) for name, manifest in before.items()},
    }
    if hasattr(settings, "benchmark_dir"):
        inputs["benchmarks"] = _benchmark_files(settings)
    if getattr(settings, "best_prompt", False):
        inputs["prompts"] = list(domains.get_domain(settings.domain).prompts)
    if hasattr(settings, "budget_of"):
        inputs["budget"] = _tokens_of_run(settings, settings.budget_of)
    if hasattr(settings, "accumulate_runs"):
        inputs["accumulate_runs"] = [_tables(settings, name, "vote", "qa") for name in settings.accumulate_runs]
    if hasattr(settings, "other_runs"):
        scores = ("evaluate", "scores", "general")
        inputs["other_runs"] = [_tables(settings, name, *scores) for name in settings.other_runs]
        compared = settings.compare_runs.items()
        inputs["compare_runs"] = {
            label: [_tables(settings, name, *scores) for name in names] for label, names in compared
        }
    return inputs


def _notebook_code(stage: str) -> str:
    """Return the hash of the notebook's code cells without the parameters; "" where the notebooks are not here."""
    path = params.ROOT / "notebooks" / f"{layout.NOTEBOOKS[stage]}.ipynb"
    if not path.exists():
        return ""
    code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return hash_json(["".join(cell["source"]) for cell in code if "parameters" not in cell["metadata"].get("tags", [])])


def named_inputs(stage: str, settings: Any) -> dict[str, str]:
    """Return the content of what the stage's parameters name: the domain, each model, and the source of questions."""
    inputs = {"domain": domain_content(settings.domain), **model_inputs(stage, settings)}
    if hasattr(settings, "question_source"):
        inputs["question_source"] = _question_source(settings)
    return inputs


def model_inputs(stage: str, settings: Common) -> dict[str, str]:
    """Return the content of each model that the stage's parameters name.

    A replay may run where the weights are not: a model that the replayed run names alike is what that run recorded.
    """
    names = {parameter: getattr(settings, parameter) for parameter in MODELS if hasattr(settings, parameter)}
    contents = {parameter: model_content(name) for parameter, name in names.items()}
    if settings.engine == "replay":
        replayed = layout.read_manifest(layout.run_folder(settings, settings.replay_from), stage) or {"parameters": {}}
        for parameter, name in names.items():
            if replayed["parameters"].get(parameter) == layout.portable_path(name):
                contents[parameter] = replayed.get("inputs", {}).get(parameter, contents[parameter])
    return contents


def model_content(name: str) -> str:
    """Return what a model's name stands for: a folder's fingerprint, a hub id with its cached commit, or a known name.

    A hub id that was not fetched yet ends on "@"; a folder that is not here is its path as it may be shown.
    """
    for folder in (Path(name).expanduser(), params.ROOT / name):
        if folder.is_dir():
            return folder_fingerprint(folder)
    if "/" not in name or name.startswith((".", "/", "~")):
        return layout.portable_path(name)
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub"
    reference = Path(hub).expanduser() / f"models--{name.replace('/', '--')}" / "refs" / "main"
    return f"{name}@{reference.read_text(encoding='utf-8').strip() if reference.is_file() else ''}"


def same_content(recorded: Any, now: Any) -> bool:
    """Say whether two contents are the same; a hub id without a commit is any that was recorded under it."""
    return bool(recorded == now or (str(now).endswith("@") and str(recorded).startswith(now)))


def domain_content(name: str) -> str:
    """Return the hash of all that makes models in the domain `name`, its name included.

    The wordings of `prompts` are no part of it: they are only tried for the base model, in 06.
    """
    return hash_json(domains.get_domain(name).model_dump(exclude={"prompts"}))


def benchmark_folder(benchmark_dir: str) -> str:
    """Return the folder of benchmark files: the parameter, else $CRESCENT_BENCHMARK_DIR, else "" (the hub)."""
    return benchmark_dir or os.environ.get("CRESCENT_BENCHMARK_DIR", "")


def _benchmark_files(settings: Any) -> dict[str, str]:
    """Return the hashes of the benchmark files that the stage may read; those of the hub have none."""
    place = benchmark_folder(settings.benchmark_dir)
    if not place:
        return {}
    names = [*(getattr(settings, "evaluate_on", []) or domains.get_domain(settings.domain).benchmarks)]
    names += [getattr(settings, name, "") for name in ("seed_set", "question_source")]
    patterns = {pattern for name in names for pattern in BENCHMARK_FILES.get(name, ())}
    if getattr(settings, "general_tasks", []):
        patterns.add("**/*.yaml")  # task files of the user's own
        patterns |= {f"bbh/{name.removeprefix('bbh_')}.json" for name in settings.general_tasks if "bbh_" in name}
    folder = Path(place).expanduser()
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def _question_source(settings: Any) -> str:
    name = settings.question_source
    if Path(name).suffix not in QUESTION_FILES:
        return str(name)
    places = (Path(name).expanduser(), Path(settings.benchmark_dir).expanduser() / name)
    path = next((place for place in places if place.is_file()), None)
    return file_sha256(path) if path else layout.portable_path(name)


def _tokens_of_run(settings: Common, run: str) -> list[Any]:
    """Return the completion tokens of 01 to 03 of `run`, a vote's budget; its name where it is not complete."""
    if not run:
        return []
    stages = ("elicit", "dedup", "vote")
    manifests = [layout.read_manifest(layout.run_folder(settings, run), stage) for stage in stages]
    tokens = [manifest["tokens"]["completion"] for manifest in manifests if manifest]
    return tokens if len(tokens) == len(stages) else [run]


def _tables(settings: Common, run: str, stage: str, *tables: str) -> list[str]:
    """Return the hashes of those of another run's tables that there are; its name where it has none yet."""
    paths = [layout.run_folder(settings, run) / stage / f"{table}.parquet" for table in tables]
    return [file_sha256(path) for path in paths if path.exists()] or [run]


def stage_fingerprint(stage: str, settings: Common, inputs: dict[str, Any] | None = None) -> str:
    """Return the hash of what can change a stage's result (16 hex digits); `inputs` default to the present ones."""
    ignored = NOT_IN_FINGERPRINT | READ_BY_NAME
    values = {name: value for name, value in settings.model_dump().items() if name not in ignored}
    inputs = stage_inputs(stage, settings) if inputs is None else inputs
    return hash_json({"stage": stage, "kit": __version__, "parameters": values, "inputs": inputs})[:16]


def is_current(stage: str, settings: Common) -> bool:
    """Say whether stage `stage` is complete with just these settings and just these contents of what it reads."""
    manifest = layout.read_manifest(layout.run_folder(settings), stage)
    before = [
        layout.read_manifest(layout.run_of_stage(name, settings), name)
        for name in layout.stages_before(stage, settings)
    ]
    if manifest is None or None in before:
        return False
    inputs = stage_inputs(stage, settings)
    recorded = manifest.get("inputs", {})
    for name in MODELS:
        if name in inputs and same_content(recorded.get(name, ""), inputs[name]):
            inputs[name] = recorded[name]
    return bool(manifest["fingerprint"] == stage_fingerprint(stage, settings, inputs))
