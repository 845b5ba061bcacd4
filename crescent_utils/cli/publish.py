"""Publish: a run's trained model and its question-answer pairs in a folder, each with a card that its manifests fill.

Nothing is pushed unless asked for, and then to private repositories unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generation, runs

if TYPE_CHECKING:
    import pandas as pd

LABELS = {"finetune": "tuned", "distil": "student_tuned"}
BEFORE = {"finetune": "base", "distil": "student"}
KIT = "crescent-kit"
PAPERS = "Crescent (Sun et al., ACL Findings 2025, arXiv 2502.13441); LMSI (Huang et al. 2022, arXiv 2210.11610)"
# The bundled model's card on the hub: HuggingFaceTB/SmolLM2-135M-Instruct, apache-2.0.
BUNDLED = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
FILES = (".yaml", ".yml", ".json", ".jsonl", ".csv", ".parquet")
MAY_BE_PLACES = ("model", "student", "embedder", "domain", "question_source")  # a file or folder: its name is left


def command(arguments: argparse.Namespace) -> int:
    """Export a run, push it if `--push` says so, print where it went; return the exit status."""
    if arguments.public and not arguments.push:
        raise runs.ParameterError("--public: nothing is pushed without --push OWNER/NAME")
    target = export_run(arguments.run, arguments.output or arguments.run / "publish", arguments.stage)
    print(f"{target}: model/ and dataset/, each with its card; nothing has left this machine")
    if arguments.push:
        for address in push_to_hub(target, arguments.push, public=arguments.public):
            print(f"pushed ({'public' if arguments.public else 'private'}): {address}")
    return 0


def export_run(run: Path, target: Path, stage: str = "finetune") -> Path:
    """Write `target`/model (weights, tokenizer, template) and `target`/dataset (the pairs), each with README.md.

    Raises RunError where the stage is not complete, ModelError where its weights are gone.
    """
    manifests = {name: manifest for name in runs.STAGES if (manifest := runs.read_manifest(run, name))}
    if stage not in manifests:
        raise runs.RunError(
            f"{run.name}: stage {stage!r} is not complete; run notebooks/{runs.NOTEBOOKS[stage]}.ipynb first"
        )
    parameters = manifests[stage]["parameters"]
    weights = _trained_weights(run, stage, manifests[stage])
    qa = runs.read_table(run, "vote", "qa")
    shutil.rmtree(target / "model", ignore_errors=True)
    shutil.copytree(weights, target / "model", ignore=shutil.ignore_patterns("training_args.bin", "README.md"))
    _write_generation_config(target / "model")
    (target / "dataset").mkdir(parents=True, exist_ok=True)
    qa.to_parquet(target / "dataset" / "qa.parquet", index=False)
    teacher = licence(parameters["model"])
    has_own_base = stage == "distil" and not generation.is_part_of_teacher(parameters["student"])
    base = licence(parameters["student"]) if has_own_base else teacher
    (target / "model" / "README.md").write_text(model_card(run, manifests, stage, base), encoding="utf-8")
    (target / "dataset" / "README.md").write_text(dataset_card(qa, manifests, teacher), encoding="utf-8")
    return target


def _trained_weights(run: Path, stage: str, manifest: dict[str, Any]) -> Path:
    """Return the folder of the trained weights; where only an adapter is left, it is put on the base model again."""
    folder = run / stage / "model"
    if (folder / "config.json").exists():
        return folder
    if {"model", "student"} & set(manifest.get("hidden", [])):
        raise generation.ModelError(
            f"{run.name}: the weights in {stage}/model are gone, and the manifest does not say where the base model "
            f"lay; run notebooks/{runs.NOTEBOOKS[stage]}.ipynb again"
        )
    parameters = manifest["parameters"]
    base = generation.resolve_model(parameters["model"])
    before = base if stage == "finetune" else generation.resolve_student(parameters["student"], base)
    return generation.load_trained(run / stage, before, LABELS[stage]).locate()


def _write_generation_config(folder: Path) -> None:
    """Make sure that the end of turn, which was trained, also ends a generation."""
    from transformers import GenerationConfig

    tokenizer = generation.load_tokenizer(folder)
    path = folder / "generation_config.json"
    config = GenerationConfig.from_pretrained(folder) if path.exists() else GenerationConfig()
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    config.eos_token_id = [tokenizer.eos_token_id, *(end for end in ends if end not in (None, tokenizer.eos_token_id))]
    config.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    config.save_pretrained(folder)


def licence(name: str) -> tuple[str, str]:
    """Return a base model's name on the hub and its licence, each "" where it is not known (a folder, no network)."""
    if name == "bundled":
        return BUNDLED
    if not _has_public_name(name):
        return "", ""
    from huggingface_hub import HfApi

    try:
        card = HfApi().model_info(name).card_data
    except Exception:  # offline, gated, renamed: the card then says that the licence has to be looked up
        return name, ""
    return name, str(getattr(card, "license", "") or "")


def _has_public_name(name: str) -> bool:
    """Tell whether a name means the same elsewhere: the kit's own or a hub id, no place of this machine."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(FILES)
    return not is_path and not any((place / name).is_dir() for place in (Path(), runs.ROOT))


def model_card(run: Path, manifests: dict[str, dict[str, Any]], stage: str, origin: tuple[str, str]) -> str:
    """Return the card of the model that `stage` of `run` trained: method, counts, scores, parameters, licence.

    `origin` is the base model's name and licence, see `licence`.
    """
    manifest = manifests[stage]
    domain = Path(manifest["parameters"]["domain"]).stem
    name, terms = origin
    front_matter = {"library_name": "transformers", "pipeline_tag": "text-generation", "license": terms or "other",
                    "base_model": name, "tags": ["self-improvement", "synthetic-data", domain]}  # fmt: skip
    how = (
        f"This model was {'fine-tuned' if stage == 'finetune' else 'as a student trained'} on question-answer pairs. "
        f"{_method(manifests)} Method: {PAPERS}."
    )
    if earlier := manifest["parameters"].get("accumulate_runs"):
        how += f" The pairs of {', '.join(earlier)} were learned too; the dataset beside this model does not hold them."
    use = (
        "Research on self-improvement: to check or extend the comparison above. It was trained on one narrow kind of "
        f"question (`{domain}`), labels that no one checked are among what it learned, and nothing was done about "
        "safety beyond the base model's own training. Do not rely on its answers."
    )
    sections = {
        "What it was made of": _counts(manifests), "Scores": _scores(run, stage), "Parameters": _parameters(manifest),
        "Intended use": use, "Licence": _licence_terms(origin), "How it was made": _provenance(manifest),
    }  # fmt: skip
    return _card(front_matter, f"{run.name}: {LABELS[stage].replace('_', ' ')}", how, sections)


def dataset_card(qa: pd.DataFrame, manifests: dict[str, dict[str, Any]], origin: tuple[str, str]) -> str:
    """Return the card of the pairs: how they were made, counts, columns, and what is known of the labels."""
    front_matter = {"license": origin[1] or "other", "task_categories": ["text-generation"], "tags": ["synthetic"],
                    "configs": [{"config_name": "default", "data_files": "qa.parquet"}]}  # fmt: skip
    how = (
        f"{len(qa):,} pairs of {qa['id'].nunique():,} questions. {_method(manifests)} `answer` is the "
        f"majority's, `path` a reasoning that reached it, `agreement` the majority's share. {PAPERS}."
    )
    verdicts: Any = qa.drop_duplicates("id")["correct"].dropna().astype(bool) if "correct" in qa else []
    right = f"{verdicts.mean():.1%} of {len(verdicts):,}" if len(verdicts) else "not known"
    stages = [name for name in ("elicit", "dedup", "vote") if name in manifests]
    sections = {
        "Counts": _counts(manifests),
        "Labels": f"No label was checked by anyone. Right, where that can be computed: {right}.",
        "Columns": "\n".join(f"- `{name}` ({kind})" for name, kind in qa.dtypes.astype(str).items()),
        "Parameters": "\n\n".join(f"`{name}`:\n\n{_parameters(manifests[name])}" for name in stages),
        "Licence": _licence_terms(origin),
    }
    return _card(front_matter, "Question-answer pairs that a model wrote by itself", how, sections)


def _method(manifests: dict[str, dict[str, Any]]) -> str:
    """Say who asked and who answered: Crescent's model makes its questions up, LMSI's are given to it."""
    vote = manifests["vote"]
    name = BUNDLED[0] if vote["parameters"]["model"] == "bundled" else vote["parameters"]["model"]
    answered = f"`{name}`" if _has_public_name(name) else "A local model"
    asked = "came without their answers from elsewhere"
    if "dedup" in vote["upstream"]:
        asked = "were made up by the same model, without seed data, and near-duplicates were removed"
    return f"{answered} answered each question several times, and the majority is the label. The questions {asked}."


def _card(front_matter: dict[str, Any], title: str, how: str, sections: dict[str, str]) -> str:
    import yaml

    stated = {name: value for name, value in front_matter.items() if value}
    parts = [f"---\n{yaml.safe_dump(stated, sort_keys=False)}---\n# {title}", how]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def _licence_terms(origin: tuple[str, str]) -> str:
    name, terms = origin
    base = f"the base model `{name}`" if name else "the base model (a local folder)"
    known_terms = f"**{terms}**" if terms else "**not known to the kit: look it up before you share this**"
    return (
        f"The weights and every text here come from {base}, whose licence is {known_terms}; its terms pass on to this. "
        "The kit's own code is MIT."
    )


def _counts(manifests: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, manifest in manifests.items():
        rows.append((name, ", ".join(f"{key} {value:,}" for key, value in manifest["counts"].items())))
    return _table(("stage", "counts"), rows)


def _scores(run: Path, stage: str) -> str:
    rows = []
    if (run / "evaluate" / "comparisons.parquet").exists():
        table = runs.read_table(run, "evaluate", "comparisons")
        pair = (table["before"] == BEFORE[stage]) & (table["after"] == LABELS[stage])
        for row in table[pair & (table["scoring"] == "symbolic")].itertuples():
            rows.append((
                f"{row.benchmark}, {row.shots}-shot, {row.decoding}",
                f"{row.n:,} x {row.seeds} seed{'s' if row.seeds > 1 else ''}",
                f"{row.before_accuracy:.1%}",
                f"{row.after_accuracy:.1%} [{row.after_low:.1%}, {row.after_high:.1%}]",
                f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
                f"{row.p_value:.3g}",
            ))  # fmt: skip
    if not rows:
        return "It has not been evaluated."
    return _table(("benchmark", "n", "before", "after [95 %]", "difference in points [95 %]", "p"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _parameters(manifest: dict[str, Any]) -> str:
    """Return a stage's parameters as JSON, without those that say where a machine did it, or how fast.

    These may hold a key, a host or the name of a person.
    """
    shown = {name: value for name, value in manifest["parameters"].items() if name not in runs.NOT_IN_FINGERPRINT}
    for name in MAY_BE_PLACES:
        if name in shown and not _has_public_name(shown[name]):
            shown[name] = f".../{Path(shown[name]).name}"
    return "```json\n" + json.dumps(shown, indent=1, ensure_ascii=False) + "\n```"


def _provenance(manifest: dict[str, Any]) -> str:
    versions = manifest["versions"]
    libraries = [f"{name} {version}" for name, version in versions.items() if name not in ("python", "crescent")]
    facts = {"kit": f"{KIT} {versions.get('crescent', '')}", "commit": manifest.get("git_commit", ""),
             "seed": manifest["seed"], "device": manifest["device"], "made": manifest.get("created", ""),
             "libraries": ", ".join(libraries)}  # fmt: skip
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value != "")


def push_to_hub(folder: Path, repository: str, *, public: bool = False, endpoint: str | None = None) -> list[str]:
    """Push `folder`/model to `repository` of the hub, `folder`/dataset to `repository`-pairs; return their addresses.

    Both are made private unless `public`. Raises RunError where one is public already without being asked to be.
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
