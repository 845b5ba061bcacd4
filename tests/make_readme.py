"""Write again what the README takes from runs: its picture, the reference's result, and the table of claims.

`python tests/make_readme.py` does all three; `tests/make_reference.py` does so at its end. No number of the reference
is typed by hand: `tests/test_readme.py` checks that the README has what these functions write. The claims come out of
`outputs/study/claims.json`, or while there is none out of the reference's.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from crescent_utils import evaluate, figures, runs
from crescent_utils.cli import study

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "outputs" / "reference"
BUNDLED = "SmolLM2-135M-Instruct"
COMPARED = {  # how the README calls two models of a comparison
    ("base", "tuned"): "the model itself",
    ("base", runs.CONTROL): "control: random labels",
    ("student", "student_tuned"): "a smaller student",
}
COUNTS = (("elicit", "sampled"), ("elicit", "kept"), ("dedup", "kept"), ("finetune", "pairs"))
WIDTH = 138  # columns of the README's prose


def write_all(readme: Path, outputs: Path) -> str:
    """Write the picture and both blocks; return where the claims are from."""
    write_headline(outputs / "reference", outputs / "reference" / "headline.svg")
    write_block(readme, "reference", reference_block(outputs / "reference"))
    return write_claims(readme, outputs)


def write_claims(readme: Path, outputs: Path) -> str:
    """Put the table of claims into the README; return where its claims are from."""
    source, rows = study.recorded_claims(outputs)
    write_block(readme, "claims", study.claims_markdown(rows))
    return source


def write_block(readme: Path, name: str, text: str) -> None:
    """Put `text` between the README's two comments of this name."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    readme.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


def reference_block(reference: Path) -> str:
    """Return what the README says of the reference run: the result as a table, the verdict, and what it took."""
    claims = json.loads((reference / "evaluate" / "claims.json").read_text(encoding="utf-8"))
    ledger = [
        evaluate.Claim(**{name: math.nan if value is None else value for name, value in row.items()}) for row in claims
    ]
    main = next(claim for claim in ledger if claim.id in ("C1", "L1"))
    verdict = f'**{main.id}, "{main.hypothesis}".** {evaluate.verdict_line(ledger)}'
    paragraphs = [textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in (verdict, reference_facts(reference))]
    return "\n\n".join([paragraphs[0], reference_table(reference / "evaluate", reference), paragraphs[1]])


def reference_table(evaluated: Path, reference: Path) -> str:
    """Return what stands in `evaluated`, the folder of a stage 06, as a table in Markdown.

    First the comparisons on which claims are judged, then the baselines that are none of them. How 06 asked stands in
    the manifest of `reference`.
    """
    asked = _parameters(reference)
    prompt, sample = asked["eval_prompts"][0], f"one sample at T = {asked['eval_temperature']:g}"
    comparisons = evaluate.deciding_rows(pd.read_parquet(evaluated / "comparisons.parquet"))
    several = comparisons["benchmark"].nunique() > 1
    lines = ["| model | asked | before | after | difference [95 %] | p |", "| --- | --- | --- | --- | --- | --- |"]
    for row in comparisons.to_dict("records"):
        pair = COMPARED.get((row["before"], row["after"]), f"{row['after']} against {row['before']}")
        how = [sample if row["decoding"] == "sampled" else row["decoding"], f"{row['shots']}-shot"]
        how += [row["benchmark"]] if several else []
        lines.append(_line(pair, ", ".join(how), row["before_accuracy"], row["after_accuracy"], row))
    for row in pd.read_parquet(evaluated / "baselines.parquet").to_dict("records"):
        if row["baseline"] != f"base, {prompt}, {row['tuned']}":  # else it is one of the lines above
            how = f"{row['tuned']}, 0-shot" + (f", {row['benchmark']}" if several else "")
            lines.append(
                _line(f"itself, against: {row['baseline']}", how, row["baseline_accuracy"], row["tuned_accuracy"], row)
            )
    return "\n".join(lines)


def reference_facts(reference: Path) -> str:
    """Return a paragraph: model, machine, items and seeds of the reference, and what each of its runs made and took."""
    evaluated = runs.read_manifest(reference, "evaluate") or {}
    asked, comparisons = _parameters(reference), pd.read_parquet(reference / "evaluate" / "comparisons.parquet")
    model = BUNDLED if asked["model"] == "bundled" else asked["model"]
    folders = seed_folders(reference)
    manifests = [{stage: runs.read_manifest(folder, stage) or {} for stage in runs.STAGES} for folder in folders]
    sampled, kept, different, pairs = (
        _spread([one[stage]["counts"][name] for one in manifests]) for stage, name in COUNTS
    )
    right = [100 * pd.read_parquet(folder / "vote" / "qa.parquet")["correct"].mean() for folder in folders]
    seconds = [sum(stage.get("seconds", 0) for stage in one.values()) for one in manifests]
    seeds = "one seed" if len(folders) == 1 else f"{len(folders)} seeds"
    engine = f"{evaluated['engine']} {evaluated['versions'].get(evaluated['engine'], '')}".strip()
    return (
        f"{model}, {seeds} of `params/cpu.yaml`, {evaluated['created'][:10]}, {evaluated['device']}, "
        f"{engine}; n = {comparisons['n'].max():,} items of `{comparisons['benchmark'].iloc[0]}` that "
        "no training question repeats. Differences are paired by item, in percentage points, with intervals over "
        f"items{'' if len(folders) == 1 else ' and seeds'}; p is two-sided and not corrected. Each seed sampled "
        f"{sampled} completions, read {kept} questions out of them, had {different} left after dedup, and learned "
        f"from {pairs} pairs, of whose labels {_spread(right)} % are right, in "
        f"{_spread([round(value / 60) for value in seconds])} minutes."
    )


def seed_folders(reference: Path) -> list[Path]:
    """Return the folders of the reference's runs: the first lies in the reference itself, the others in seed2, …"""
    return [reference, *numbered_seeds(reference)]


def numbered_seeds(folder: Path) -> list[Path]:
    """Return the runs seed1, seed2 … in a folder, in the order of their numbers."""
    return sorted(folder.glob("seed*"), key=lambda path: int(path.name.removeprefix("seed")))


def write_headline(reference: Path, target: Path) -> None:
    """Draw the README's picture as SVG: each seed's accuracy before and after training.

    The card brings its own ground, so that light and dark pages show it alike. The same tables give the same bytes:
    names inside the file are salted with a word, and neither date nor version stands in it.
    """
    asked = _parameters(reference)
    scores = pd.concat([pd.read_parquet(folder / "evaluate" / "scores.parquet") for folder in seed_folders(reference)])
    shown = evaluate.headline_scores(scores, asked["eval_prompts"][0])
    if shown["benchmark"].nunique() == 1:  # the domain's name is shorter, and leaves room for the models'
        shown = shown.assign(benchmark=Path(asked["domain"]).stem)
    figure, _ = figures.accuracy_by_seed(shown[~shown["model"].str.startswith("student")])
    with matplotlib.rc_context({"svg.hashsalt": "crescent", "svg.fonttype": "path"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


def _parameters(reference: Path) -> dict[str, Any]:
    return (runs.read_manifest(reference, "evaluate") or {})["parameters"]


def _line(model: str, asked: str, before: float, after: float, row: dict[str, Any]) -> str:
    difference, low, high = (f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("difference", "low", "high"))
    p = "< 0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.3f}"
    effect = f"{difference} [{low}, {high}]"
    model += "" if row["seeds"] > 1 else " (one seed)"
    return f"| {model} | {asked} | {100 * before:.1f} % | {100 * after:.1f} % | {effect} | {p} |"


def _spread(values: Iterable[float]) -> str:
    """Return "590", or "590 to 610" where the values differ; whole numbers."""
    ends = sorted({round(value) for value in values})
    return f"{ends[0]:,}" if len(ends) == 1 else f"{ends[0]:,} to {ends[-1]:,}"


if __name__ == "__main__":
    print(f"README.md: the reference, and claims of {write_all(ROOT / 'README.md', ROOT / 'outputs')}")
