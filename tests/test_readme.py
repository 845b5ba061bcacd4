"""The README: what it takes from runs is what the runs say, and what it names is there."""

import itertools
import json
import re
import subprocess
import xml.etree.ElementTree as ET

import make_readme
import pandas as pd
import pytest
from shared import REFERENCE, ROOT

from crescent_utils import __version__
from crescent_utils.cli.main import _parser

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name):
    return README.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- end of {name} -->")[0]


def test_the_readme_says_what_the_reference_says():
    assert block("reference") == make_readme.reference_block(REFERENCE), "run python tests/make_readme.py"


def test_the_readmes_result_has_the_numbers_of_the_comparisons():
    comparisons = pd.read_parquet(REFERENCE / "evaluate" / "comparisons.parquet")
    own = comparisons.query("scoring == 'symbolic' and before == 'base' and after == 'tuned'")
    assert len(own) >= 2 and (own["n"] >= 300).all()
    lines = [line.split(" | ") for line in block("reference").splitlines() if line.startswith("| the model itself")]
    assert len(lines) == len(own)
    for row, (_, asked, before, after, difference, p) in zip(own.itertuples(), lines, strict=True):
        assert ("one sample" in asked) == (row.decoding == "sampled")
        assert [float(cell.removesuffix(" %")) for cell in (before, after)] == pytest.approx(
            [100 * row.before_accuracy, 100 * row.after_accuracy], abs=0.05
        )
        numbers = [float(number) for number in re.findall(r"[+-][\d.]+", difference.replace("−", "-"))]
        assert numbers == pytest.approx([100 * row.difference, 100 * row.low, 100 * row.high], abs=0.05)
        value = p.removesuffix(" |")
        assert row.p_value < 0.001 if value == "< 0.001" else float(value) == pytest.approx(row.p_value, abs=5e-4)


def test_the_reference_has_several_seeds():
    comparisons = pd.read_parquet(REFERENCE / "evaluate" / "comparisons.parquet")
    seeds = comparisons.query("before == 'base' and after == 'tuned'")["seeds"]  # the first run alone has a student
    assert (seeds >= 3).all() and (seeds == len(make_readme.seed_folders(REFERENCE))).all()


def test_the_readmes_result_has_the_counts_of_every_seed():
    folders = make_readme.seed_folders(REFERENCE)
    facts = block("reference").split("\n\n")[-1].replace("\n", " ")
    for stage, name in make_readme.COUNTS:
        counts = [json.loads((at / stage / "manifest.json").read_text())["counts"][name] for at in folders]
        assert f"{min(counts):,}" in facts and f"{max(counts):,}" in facts
    right = [pd.read_parquet(at / "vote" / "qa.parquet")["correct"].mean() for at in folders]
    assert f"{100 * min(right):.0f}" in facts and f"{100 * max(right):.0f} % are right" in facts


def texts_of(svg):
    return re.findall(r"<!-- (.+?) -->", svg)  # a text is drawn as paths, and stands before them as a comment


def test_the_picture_is_the_same_each_time_and_has_every_seed(tmp_path):
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for target in (first, second):
        make_readme.write_headline(REFERENCE, target)
    assert first.read_bytes() == second.read_bytes() and len(first.read_bytes()) < 200_000
    text = first.read_text(encoding="utf-8")
    assert "<dc:date>" not in text and ET.fromstring(text).tag.endswith("svg")
    drawn = texts_of(text)
    for number in range(1, len(make_readme.seed_folders(REFERENCE)) + 1):
        assert f"seed {number}" in drawn
    comparisons = pd.read_parquet(REFERENCE / "evaluate" / "comparisons.parquet").query(
        "scoring == 'symbolic' and before == 'base' and after == 'tuned' and decoding == 'greedy'"
    )
    (row,) = comparisons.itertuples()
    means = " ".join(drawn)
    assert f"base (mean {row.before_accuracy:.1%})" in means
    assert f"self-improved (mean {row.after_accuracy:.1%})" in means and "student" not in means


def test_the_readme_shows_the_picture_of_this_reference(tmp_path):
    assert "](outputs/reference/headline.svg)" in README
    make_readme.write_headline(REFERENCE, tmp_path / "now.svg")
    committed, now = (path.read_text(encoding="utf-8") for path in (REFERENCE / "headline.svg", tmp_path / "now.svg"))
    assert texts_of(committed) == texts_of(now), "run python tests/make_readme.py"


def test_the_readme_is_a_front_door():
    lines = README.splitlines()
    assert len(lines) < 250
    prose = list(itertools.filterfalse(lambda line: line.startswith(("|", "[![")), lines))
    assert max(map(len, prose)) <= 140


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 8 and all((ROOT / link).exists() for link in local)
    address = re.search(r'Repository = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert f"{address.replace('github.com', 'colab.research.google.com/github')}/blob/main/notebooks/01_" in README
    assert f"url = {{{address}}}" in README and f"version = {{{__version__}}}" in README


def test_the_commands_of_the_readme_are_there():
    (commands,) = (action.choices for action in _parser()._actions if action.choices)
    named = set(re.findall(r"^(?:\.venv/bin/)?crescent (\w+)", README, flags=re.MULTILINE))
    named |= set(re.findall(r"`([a-z]+)`", README.split("`crescent --help` has the others")[1].split(")")[0]))
    assert named == set(commands)
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`make (\w+)`", README)) <= targets


def test_the_readme_names_every_profile_and_says_truly_whether_we_ran_it():
    rows = [line.split(" | ") for line in README.splitlines() if line.startswith("| `") and ".yaml`" in line]
    named = {name: row[-1] for row in rows for name in re.findall(r"`(\w+\.yaml)`", " ".join(row[:2]))}
    assert set(named) == {path.name for path in (ROOT / "params").glob("*.yaml")} - {"replay.yaml", "study.yaml"}
    for name, run_by_us in named.items():
        stated = re.search(r"^# Run by us: (\w+)", (ROOT / "params" / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert stated is None or stated[1] in re.findall(r"\w+", run_by_us), name


def test_the_tree_names_every_folder():
    tree = README.split("## The tree")[1].split("```")[1]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {path.split("/")[0] for path in listed if "/" in path and not path.startswith(".")}
    folders |= {path.split("/")[1] for path in listed if path.startswith("crescent_utils/") and path.count("/") > 1}
    assert folders and all(f"{folder}/" in tree for folder in folders)
