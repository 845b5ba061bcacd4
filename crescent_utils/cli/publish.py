"""Cards: what leaves the kit, a model folder and its pairs, each with a card filled from the run's manifests and tables.

Nothing is pushed unless `push` is called, and then to private repositories unless told otherwise.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generation, runs
from ..runs import STAGES

if TYPE_CHECKING:
    import pandas as pd

LABELS = {"finetune": "tuned", "distil": "student_tuned"}
BEFORE = {"finetune": "base", "distil": "student"}
KIT = "crescent-kit"
PAPERS = "Crescent (Sun et al., ACL Findings 2025, arXiv 2502.13441); LMSI (Huang et al. 2022, arXiv 2210.11610)"
# The bundled model's card on the hub: HuggingFaceTB/SmolLM2-135M-Instruct, apache-2.0.
BUNDLED = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")


def export_run(run: Path, target: Path, stage: str = "finetune") -> Path:
    """Write `target`/model (weights, tokenizer, template, generation config) and `target`/dataset (the pairs), each with README.md.

    Raises RunError where the stage is not complete, ModelError where its weights are gone.
    """
    manifests = {name: found for name in STAGES if (found := runs.read_manifest(run, name))}
    if stage not in manifests:
        raise runs.RunError(
            f"{run.name}: stage {stage!r} is not complete; run notebooks/{runs.NOTEBOOKS[stage]}.ipynb first"
        )
    parameters = manifests[stage]["parameters"]
    base = generation.resolve_model(parameters["model"])
    start = base if stage == "finetune" else generation.resolve_student(parameters["student"], base)
    weights = generation.load_trained(run / stage, start, LABELS[stage]).locate()
    qa = runs.read_table(run, "vote", "qa")
    shutil.rmtree(target / "model", ignore_errors=True)
    shutil.copytree(weights, target / "model", ignore=shutil.ignore_patterns("training_args.bin", "README.md"))
    _generation_config(target / "model")
    (target / "dataset").mkdir(parents=True, exist_ok=True)
    qa.to_parquet(target / "dataset" / "qa.parquet", index=False)
    origin = licence(parameters["model"])
    (target / "model" / "README.md").write_text(model_card(run, manifests, stage, origin), encoding="utf-8")
    (target / "dataset" / "README.md").write_text(dataset_card(qa, manifests, origin), encoding="utf-8")
    return target


def _generation_config(folder: Path) -> None:
    """Make sure that the end of turn, which was trained, also ends a generation, and that greedy decoding is what the scores are of."""
    from transformers import GenerationConfig

    tokenizer = generation.load_tokenizer(folder)
    path = folder / "generation_config.json"
    config = GenerationConfig.from_pretrained(folder) if path.exists() else GenerationConfig()
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [token for token in ends if token is not None]
    config.eos_token_id = list(dict.fromkeys([tokenizer.eos_token_id, *ends]))
    pad = tokenizer.pad_token_id
    config.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    config.save_pretrained(folder)


def licence(name: str) -> tuple[str, str]:
    """Return a base model's name on the hub and its licence; "" where a folder does not say, or the hub cannot be asked."""
    if name == "bundled":
        return BUNDLED
    if name.startswith((".", "/", "~")) or Path(name).expanduser().is_dir():
        return "", ""
    from huggingface_hub import HfApi

    try:
        data = HfApi().model_info(name).card_data
    except Exception:  # offline, gated, renamed: the card then says that the licence has to be looked up
        return name, ""
    return name, str(getattr(data, "license", "") or "")


def _front(values: dict[str, Any]) -> str:
    import yaml

    return f"---\n{yaml.safe_dump({k: v for k, v in values.items() if v}, sort_keys=False)}---\n"


def _chain(origin: tuple[str, str]) -> str:
    name, terms = origin
    base = f"the base model `{name}`" if name else "the base model (a local folder)"
    known = f"**{terms}**" if terms else "**not known to the kit: look it up before you share this**"
    return (
        f"The weights and every text here come from {base}, whose licence is {known}; its terms pass on to this. "
        "The kit's own code is MIT."
    )


def model_card(run: Path, manifests: dict[str, dict[str, Any]], stage: str, origin: tuple[str, str]) -> str:
    """Return the card of the model that `stage` of `run` trained: method, counts, parameters, scores with intervals, use, licence."""
    own = manifests[stage]
    front = {"library_name": "transformers", "pipeline_tag": "text-generation", "license": origin[1] or "other",
             "base_model": origin[0], "tags": ["self-improvement", "synthetic-data", own["parameters"]["domain"]]}  # fmt: skip
    kind = "fine-tuned on" if stage == "finetune" else "a student trained on"
    return _front(front) + "\n".join([
        f"# {run.name}: {LABELS[stage].replace('_', ' ')}\n",
        f"This model was {kind} question-answer pairs that {origin[0] or 'its base model'} wrote by itself, without seed data or labels: "
        f"it made up questions, removed its own near-duplicates, and took the majority of its own answers as labels. Method: {PAPERS}.\n",
        "## What it was made of\n", _counts(manifests), "## Scores\n", _scores(run, stage),
        "## Parameters\n", _parameters(own), "## Intended use\n",
        "Research on self-improvement: to check or extend the comparison above. It was trained on one narrow kind of question "
        f"(`{own['parameters']['domain']}`), labels that no one checked are among what it learned, and nothing was done about safety "
        "beyond the base model's own training. Do not rely on its answers.\n",
        "## Licence\n", _chain(origin) + "\n", "## How it was made\n", _provenance(own),
    ])  # fmt: skip


def dataset_card(qa: pd.DataFrame, manifests: dict[str, dict[str, Any]], origin: tuple[str, str]) -> str:
    """Return the card of the pairs: how they were made, counts at each step, columns, and what is known of the labels."""
    front = {"license": origin[1] or "other", "task_categories": ["text-generation"], "tags": ["synthetic"],
             "configs": [{"config_name": "default", "data_files": "qa.parquet"}]}  # fmt: skip
    known = qa.dropna(subset=["correct"]).drop_duplicates("id") if "correct" in qa else qa.iloc[:0]
    right = f"{known['correct'].astype(bool).mean():.1%} of {len(known):,}" if len(known) else "not known"
    return _front(front) + "\n".join([
        "# Question-answer pairs that a model wrote by itself\n",
        f"{len(qa):,} pairs of {qa['id'].nunique():,} questions. `{origin[0] or 'a local model'}` made up the questions and answered each "
        f"several times; `answer` is the majority's, `path` a reasoning that reached it, `agreement` the majority's share. {PAPERS}.\n",
        "## Counts\n", _counts(manifests), "## Labels\n",
        f"No label was checked by anyone. Right, where that can be computed: {right}.\n",
        "## Columns\n", "\n".join(f"- `{name}` ({kind})" for name, kind in qa.dtypes.astype(str).items()) + "\n",
        "## Parameters\n", *(f"`{name}`:\n\n{_parameters(manifests[name])}" for name in ("elicit", "dedup", "vote") if name in manifests),
        "## Licence\n", _chain(origin) + "\n",
    ])  # fmt: skip


def _counts(manifests: dict[str, dict[str, Any]]) -> str:
    rows = [
        f"| {name} | {', '.join(f'{key} {value:,}' for key, value in found['counts'].items())} |"
        for name, found in manifests.items()
    ]
    return "\n".join(["| stage | counts |", "| --- | --- |", *rows]) + "\n"


def _scores(run: Path, stage: str) -> str:
    path = run / "evaluate" / "comparisons.parquet"
    if not path.exists():
        return "It has not been evaluated.\n"
    table = runs.read_table(run, "evaluate", "comparisons")
    table = table[
        (table["scoring"] == "symbolic") & (table["before"] == BEFORE[stage]) & (table["after"] == LABELS[stage])
    ]
    rows = [
        f"| {r.benchmark}, {r.shots}-shot, {r.decoding} | {r.n:,} x {r.seeds} seed{'s' if r.seeds > 1 else ''} | {r.before_accuracy:.1%} | "
        f"{r.after_accuracy:.1%} [{r.after_low:.1%}, {r.after_high:.1%}] | "
        f"{100 * r.difference:+.1f} [{100 * r.low:+.1f}, {100 * r.high:+.1f}] | {r.p_value:.3g} |"
        for r in table.itertuples()
    ]  # fmt: skip
    head = [
        "| benchmark | n | before | after [95 %] | difference in points [95 %] | p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows]) + "\n" if rows else "It has not been evaluated.\n"


def _parameters(manifest: dict[str, Any]) -> str:
    return "```json\n" + json.dumps(manifest["parameters"], indent=1, ensure_ascii=False) + "\n```\n"


def _provenance(manifest: dict[str, Any]) -> str:
    made = {"kit": f"{KIT} {manifest['versions'].get('crescent', '')}", "commit": manifest.get("git_commit", ""),
            "seed": manifest["seed"], "device": manifest["device"], "made": manifest.get("created", ""),
            "libraries": ", ".join(f"{k} {v}" for k, v in manifest["versions"].items() if k not in ("python", "crescent"))}  # fmt: skip
    return "\n".join(f"- {name}: {value}" for name, value in made.items() if value != "") + "\n"


def push_to_hub(folder: Path, repository: str, *, public: bool = False, endpoint: str | None = None) -> list[str]:
    """Push `folder`/model to `repository` of the hub and `folder`/dataset to `repository`-pairs; return their addresses.

    Both are made private unless `public`. Raises RunError where one exists already and is public without being asked to be.
    """
    from huggingface_hub import HfApi

    api, addresses = HfApi(endpoint=endpoint), []
    for kind, name in (("model", repository), ("dataset", f"{repository}-pairs")):
        made = api.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
        if not public and not api.repo_info(name, repo_type=kind).private:
            raise runs.RunError(
                f"--push {name}: exists and is public; pass --public to add to it, or take another name"
            )
        api.upload_folder(folder_path=folder / kind, repo_id=name, repo_type=kind, commit_message=f"{kind} from {KIT}")
        addresses.append(str(made))
    return addresses
