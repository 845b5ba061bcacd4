"""Parameters: one validated, frozen model a notebook, and the merging of `params/*.yaml` profiles.

A parameter has one flat name that means the same in every notebook, so that one YAML file drives all six, by papermill
or by `crescent run`. The notebooks' literals are the defaults; a test holds names, types and values equal to these
models.
"""

from __future__ import annotations

import copy
import difflib
import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .credentials import find_credential

ROOT = Path(__file__).resolve().parents[2]  # the repository
DOMAINS = ROOT / "params" / "domains"  # the kit's own domains, a YAML file each
YAML_SUFFIXES = (".yaml", ".yml")
CONTROL = "tuned_random_labels"  # label of the model that `random_label_control` trains
EvalPrompt = Literal["solve", "bare", "stock", "own", "exemplars"]
PathFormat = Literal["few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct"]


class InputError(Exception):
    """What a user gave cannot be used; the message names it, what is allowed and the fix. A command ends with 2."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a notebook: the message alone, since no line of code is to be mended."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(InputError, ValueError):
    """A parameter or a profile that cannot be used; the message names it, what is allowed and the fix."""


class Frozen(BaseModel):
    """Values that cannot change, each of just its type; a name that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Common(Frozen):
    """Parameters that every notebook has."""

    profile: str = ""  # YAML file of values that win over the defaults, not over what is set; see sources.py
    run: str = "replay"  # name of the run: results go to outputs/<run>/
    replay_from: str = "reference"  # run whose store and models are replayed when engine is "replay"
    outputs: str = ""  # folder of all runs; empty: the repository's outputs/
    save_to: str = ""  # folder that gets a copy of each finished stage, for sessions whose disk is lost
    engine: Literal["auto", "vllm", "transformers", "server", "replay"] = "replay"
    model: str = "bundled"  # hub id, local folder, or "bundled" (SmolLM2-135M-Instruct)
    domain: str = "arithmetic"
    protocol: Literal["paper", "released", "strict"] = "paper"
    seed: int = Field(1, ge=0)
    system_prompt: str = ""  # empty: the chat template's own default
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: int = Field(1024, ge=64)  # tokens of prompt and completion together
    engine_args: dict[str, Any] = {}  # passed on to vLLM
    base_urls: list[str] = []  # OpenAI-compatible servers, for engine "server"
    served_names: dict[str, str] = {}  # label -> the servers' name for it; default: model, or the label
    concurrency: int = Field(64, ge=1)  # requests at a time to the servers

    @field_validator("run")
    @classmethod
    def _run_is_a_folder_name(cls, value: str) -> str:
        parts = Path(value).parts
        if not parts or Path(value).is_absolute() or ".." in parts or "\0" in value:
            raise ValueError("must be a relative folder name such as 'cpu' or 'reference/seed2'")
        return value


class Elicit(Common):
    """`01_elicit`: bait prompting (Crescent, section 2)."""

    bait: list[str] = []  # empty: the domain's own
    bait_prefixes: list[str] = []  # empty: the domain's own
    elicit_samples: int = Field(1000, ge=1)
    elicit_temperature: float = Field(1.0, ge=0)  # Crescent, released scripts: 1
    elicit_top_p: float = Field(1.0, gt=0, le=1)  # Crescent, released scripts: 1
    elicit_max_tokens: int = Field(24, ge=1)  # ours for arithmetic; released scripts: 2048
    elicit_temperatures: list[Annotated[float, Field(ge=0)]] = []  # take turns; empty: elicit_temperature alone
    elicit_until: int = Field(0, ge=0)  # ours: stop at so many different questions; 0: take all elicit_samples
    elicit_min_yield: float = Field(0.0, ge=0, le=1)  # ours: stop when a chunk's share of new questions is below
    elicit_chunk: int = Field(450, ge=1)  # ours: completions after which the two above are looked at


class Dedup(Common):
    """`02_dedup`: rejection-sampling self-deduplication (Crescent, section 2)."""

    rewrite_prompt: str = ""  # empty: the domain's own
    bait_prefixes: list[str] = []
    embedder: str = "bundled"
    similarity_threshold: float = Field(0.0, ge=0, le=2)  # 0: the domain's own; above 1: nothing is too similar
    exact_rows: int = Field(60_000, ge=0)  # ours
    max_rewrites: int = Field(2, ge=0)
    rewrite_temperature: float = Field(1.0, ge=0)
    rewrite_max_tokens: int = Field(24, ge=1)
    decontaminate: bool = True  # ours: reject a question that repeats an item of a benchmark
    contamination_overlap: float = Field(0.7, gt=0, le=1)  # PaLM, section 8: 70 % of the 8-grams
    contamination_similarity: float = Field(0.0, ge=0, le=1)  # ours; 0: the similarity threshold
    evaluate_on: list[str] = []  # empty: the domain's own
    benchmark_dir: str = ""
    benchmark_items: int = Field(1500, ge=1)
    benchmark_seed: int = Field(2025, ge=0)


class Vote(Common):
    """`03_vote`: consensus by majority vote (Crescent, section 2; LMSI, section 3)."""

    question_source: str = "pool"  # "pool": 02's questions; LMSI: a benchmark's train split, a file, or a hub id
    question_items: int = Field(0, ge=0)  # questions drawn from another source than the pool; 0: all
    token_budget: int = Field(0, ge=0)  # ours: completion tokens after which no further question is asked; 0: no limit
    decontaminate: bool = True  # as in 02, for questions that did not pass through it
    evaluate_on: list[str] = []
    benchmark_dir: str = ""
    benchmark_items: int = Field(1500, ge=1)
    benchmark_seed: int = Field(2025, ge=0)
    solve_prompt: str = ""  # empty: the domain's own
    budget_of: str = ""  # ours: run whose 01 to 03 give the budget in the place of token_budget
    votes: int = Field(12, ge=1)  # ours; Crescent, released scripts: 3; LMSI: 32
    vote_temperature: float = Field(0.8, ge=0)  # ours; LMSI, section 3: 0.7; Crescent, released scripts: 1
    vote_top_p: float = Field(1.0, gt=0, le=1)
    vote_max_tokens: int = Field(40, ge=1)
    vote_shots: Literal["none", "exemplars", "own"] = "own"  # LMSI, section 3.1: exemplars by hand; "own": ours
    own_questions: int = Field(60, ge=1)  # ours: questions whose zero-shot votes the model's own exemplars come from
    own_shots: int = Field(4, ge=1)  # ours: at most so many own exemplars
    min_agreement: float = Field(0.58, ge=0, le=1)  # ours: 7 votes of 12
    min_margin: float = Field(0.0, ge=0, le=1)  # ours
    path_choice: Literal["shortest", "random", "first", "all", "most_likely"] = "shortest"
    path_formats: list[PathFormat] = []  # LMSI, section 3.2: all four; empty: the pair as it was asked


class Training(Common):
    """What fine-tuning and distillation share."""

    solve_prompt: str = ""
    train_min_agreement: float = Field(0.0, ge=0, le=1)  # ours: learn only from pairs with at least this agreement
    max_pairs: int = Field(0, ge=0)  # 0: all; else so many, drawn by `seed`
    accumulate_runs: list[str] = []  # Gerstgrasser et al. 2024: earlier runs whose pairs are learned from too
    train_prompt: Literal["solve", "bare"] = "bare"  # "bare", the question alone: Crescent, released scripts
    micro_batch_size: int = Field(16, ge=1)
    max_length: int = Field(256, ge=16)
    packing: bool = False
    gradient_checkpointing: bool = False
    held_out: float = Field(0.1, ge=0, lt=1)
    checkpoint_steps: int = Field(0, ge=0)  # 0: at the end of each epoch
    processes: int = Field(1, ge=1)
    accelerate_args: list[str] = []  # passed on to `accelerate launch`
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []

    @field_validator("accumulate_runs")
    @classmethod
    def _other_runs_each_once(cls, value: list[str], info: Any) -> list[str]:
        if len(set(value)) < len(value) or info.data.get("run") in value:
            raise ValueError("name other runs than this one, each once")
        return value


class Finetune(Training):
    """`04_finetune`: SFT of the same model on its own question-answer pairs."""

    random_label_control: bool = True  # ours: also train a control on the same questions with each other's answers
    method: Literal["lora", "qlora", "full"] = "lora"
    lora_rank: int = Field(8, ge=1)
    lora_alpha: int = Field(16, ge=1)
    lora_targets: list[str] = ["q_proj", "v_proj"]
    learning_rate: float = Field(1.0e-3, gt=0)
    epochs: float = Field(3.0, gt=0)
    batch_size: int = Field(16, ge=1)
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = Field(0.0, ge=0)


class Distil(Training):
    """`05_distil`: the same pairs train a weaker student."""

    # "half": every second layer removed; "without_4_layers": so many; a hub id or folder; "none": 05 is left out
    student: str = "without_4_layers"
    student_learning_rate: float = Field(2.0e-4, gt=0)
    student_epochs: float = Field(2.0, gt=0)
    student_batch_size: int = Field(16, ge=1)
    student_data: Literal["pairs", "on_policy", "self_samples", "seed_augmented"] = "pairs"
    seed_set: str = ""  # benchmark whose training split is the labelled seed set; empty: the domain's first
    seed_items: int = Field(50, ge=1)
    rewrite_temperature: float = Field(1.0, ge=0)
    rewrite_max_tokens: int = Field(24, ge=1)
    benchmark_dir: str = ""
    benchmark_items: int = Field(1500, ge=1)
    benchmark_seed: int = Field(2025, ge=0)


class Evaluate(Common):
    """`06_evaluate`: what changed, paired, with intervals."""

    solve_prompt: str = ""
    student: str = "without_4_layers"  # as in 05: which student was trained; "none": none
    evaluate_on: list[str] = []  # empty: the domain's own
    benchmark_dir: str = ""
    benchmark_split: Literal["dev", "test"] = "test"
    benchmark_items: int = Field(1500, ge=1)
    benchmark_seed: int = Field(2025, ge=0)
    shots: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)  # Crescent, section 3: 0 and 5
    eval_prompts: list[EvalPrompt] = Field(["bare", "own"], min_length=1)  # ours; the first is the headline
    best_prompt: bool = True  # ours
    matched_temperature: bool = True  # ours
    eval_samples: int = Field(1, ge=0)
    eval_temperature: float = Field(0.7, ge=0)
    eval_max_tokens: int = Field(40, ge=1)
    general_tasks: list[str] = []  # tasks of lm-evaluation-harness, for claim C3
    general_shots: int = Field(0, ge=0)
    general_items: int = Field(0, ge=0)  # of each task; 0: all
    other_runs: list[str] = [f"reference/seed{number}" for number in range(2, 6)]
    compare_runs: dict[str, list[str]] = {}  # label of an ablated model -> runs, one a seed
    claims_of: Literal["crescent", "lmsi"] = "crescent"  # whose method the tuned model was made by
    resamples: int = Field(10000, ge=100)

    @field_validator("eval_prompts")
    @classmethod
    def _each_once_and_the_first_alone_with_shots(cls, value: list[str], info: Any) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("name each prompt once")
        if value[0] in ("own", "exemplars") and info.data.get("shots", [0]) != [0]:
            raise ValueError(f"{value[0]!r} has worked examples of its own, as the first prompt it needs shots: [0]")
        return value

    @field_validator("compare_runs")
    @classmethod
    def _labels_say_who_is_meant(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for label in value:
            if not re.fullmatch(r"(?:tuned|student)_(?!tuned$)\w+", label):
                raise ValueError(
                    f"{label!r} is no label of an ablated model: use tuned_no_dedup, tuned_no_vote, student_seed …"
                )
            if label == CONTROL:
                raise ValueError(
                    f"{label!r} is the control that a run trains itself: set random_label_control: true, and pool the "
                    "runs that have one through other_runs"
                )
        return value


_MODELS: tuple[type[Common], ...] = (Elicit, Dedup, Vote, Finetune, Distil, Evaluate)
STAGE_SETTINGS = {model.__name__.lower(): model for model in _MODELS}  # a stage has the name of its settings
STAGES = tuple(STAGE_SETTINGS)
NAMES = sorted({name for model in _MODELS for name in model.model_fields})  # of all parameters


def build_settings(stage: str, values: Mapping[str, Any]) -> Any:
    """Validate `values` (names of one stage only) into its frozen model. Raises ParameterError, never a pydantic error.

    A value that holds what looks like a credential is refused, see `credentials.py`; the message does not repeat it.
    """
    for name, value in values.items():
        if why := find_credential(value):
            raise ParameterError(
                f"{name}: {why} looks like a credential, which would stand in every notebook that the run writes; "
                "take it out and put a server's key into the environment as CRESCENT_API_KEY (the hub's: HF_TOKEN)"
            )
    try:
        return STAGE_SETTINGS[stage](**values)
    except ValidationError as error:
        raise ParameterError("; ".join(complaints(error))) from None


def complaints(error: ValidationError) -> list[str]:
    """Say what is wrong, a line a value: its name, the value, what is allowed."""
    return [f"{'.'.join(map(str, item['loc']))}: {_complaint(item)}" for item in error.errors()]


def _complaint(item: Any) -> str:
    value = item["input"]
    text = f"{value!r} is not allowed: {item['msg']}"
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+", value):
        mantissa, _, exponent = value.lower().partition("e")
        signed = exponent if exponent[0] in "+-" else f"+{exponent}"  # YAML 1.1 wants the point and the sign
        text += f". YAML reads {value} as text; write {mantissa if '.' in mantissa else mantissa + '.0'}e{signed}"
    return text


def load_profile(paths: list[Path], overrides: list[str]) -> dict[str, Any]:
    """Merge YAML files (later wins, key by key) and NAME=VALUE overrides; check names and types against every stage.

    The file of an override `profile=FILE` stands below all others, as a notebook's `profile` does. Raises
    ParameterError on a missing file, unknown name (with the nearest known one) or a wrong type.
    """
    values: dict[str, Any] = {}
    for path in paths:
        values.update(read_yaml(profile_file(str(path))))
        if "profile" in values:
            raise ParameterError(f"{path}: a profile names no other profile; give both: crescent run A.yaml B.yaml")
    for text in overrides:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ParameterError(f"-p {text!r}: write NAME=VALUE, for example -p seed=2")
        values[name.strip()] = _parse_yaml(value, f"-p {name}")
    check_names(values)
    if isinstance(base := values.get("profile"), str) and base:
        values = load_profile([profile_file(base)], []) | values
    if isinstance(values.get("domain"), str):
        domain_file(values["domain"])
    for stage in STAGES:
        build_settings(stage, parameters_of(stage, values))
    return values


def parameters_of(stage: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `values` that `stage` has."""
    return {name: value for name, value in values.items() if name in STAGE_SETTINGS[stage].model_fields}


def check_names(names: Iterable[str]) -> None:
    """Raise ParameterError for a name that no notebook has, with the nearest known one."""
    for name in names:
        if name not in NAMES:
            hint = did_you_mean(str(name), NAMES) or " See the parameters cell of each notebook."
            raise ParameterError(f"{name}: no notebook has a parameter of this name.{hint}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the nearest known name; "" if none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def profile_file(name: str) -> Path:
    """Return the file of a notebook's `profile`: seen from the present folder, or from the repository."""
    place = os.path.expanduser(name)
    if "\0" in place:
        raise ParameterError(f"profile: {name!r} is no file name; allowed: a YAML file such as params/cpu.yaml")
    return Path(place) if os.path.exists(place) else ROOT / place


def domain_file(name: str) -> Path:
    """Return the file of a domain: of the user's own (`name` is its path), or of the kit's.

    Raises ParameterError, with the nearest known name, where the kit has no domain of this name.
    """
    if name.endswith(YAML_SUFFIXES):
        return ROOT / os.path.expanduser(name)
    known = sorted(path.stem for path in DOMAINS.glob("*.yaml"))
    if name not in known:
        raise ParameterError(
            f"domain: {name!r} is unknown; allowed: {', '.join(known)}, or a .yaml file.{did_you_mean(name, known)}"
        )
    return DOMAINS / f"{name}.yaml"


def read_yaml(path: Path, what: str = "profile") -> dict[str, Any]:
    """Read a file of `name: value` lines. Raises ParameterError naming the file and `what` it should be."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: is not UTF-8 text, so it is no {what}") from None
    except OSError as error:
        here = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ParameterError(
            f"{path}: cannot be read ({error.strerror}); there: {', '.join(here) or 'no YAML file'}"
        ) from None
    values = _parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: a {what} is a list of `name: value` lines, this is a {type(values).__name__}")
    return values


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return copy.deepcopy(_loaded(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-45 is a ValueError
        raise ParameterError(f"{where}: is not YAML: {error}") from None


@functools.lru_cache(maxsize=64)  # every stage of every run of a study reads its domain
def _loaded(text: str) -> Any:
    return yaml.safe_load(text)
