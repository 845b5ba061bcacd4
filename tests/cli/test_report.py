"""The report: made of real-looking run folders, whole or broken; untrusted text; size; no network."""

import functools
import json
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from shared import REFERENCE, ROOT

from crescent_utils import evaluate, figures, stats
from crescent_utils.cli import main, report
from crescent_utils.runs import STAGES
from crescent_utils.runs.params import build_settings

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)> & \"what\" is 2 + 2?"


def make_scores(items=120, seeds=(1, 2, 3), lift=0.15, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    hard = rng.random(items)
    rows = []
    for model, shift in (("base", 0.0), ("tuned", lift), ("tuned_random_labels", -0.1)):
        for seed in seeds if model != "base" else seeds[:1]:
            for item in range(items):
                right = bool(hard[item] < 0.36 + shift + rng.normal(0, 0.1))
                rows.append({
                    "benchmark": "arithmetic", "kind": "addition", "model": model, "shots": 0,
                    "decoding": "greedy", "item": item, "sample": 0,
                    "seed": seed, "question": EVIL if item < 60 else f"What is {item} + 3?", "gold": str(item + 3),
                    "completion": f"It is {item + (3 if right else 4)}.", "answer": str(item + (3 if right else 4)),
                    "strict": right and item % 3 == 0, "flexible": right, "symbolic": right, "truncated": False,
                })  # fmt: skip
    return pd.DataFrame(rows)


def manifest(stage, run, counts, **parameters):
    return {
        "stage": stage, "run": run, "parameters": {"run": run, "domain": "arithmetic", "seed": 1, **parameters},
        "fingerprint": "ab12", "upstream": {}, "versions": {"python": "3.11.7", "torch": "2.13.0+cpu"},
        "models": {"base": "b179c952"}, "git_commit": "0123abc", "seed": 1, "counts": counts,
        "tokens": {"prompt": 12_345, "completion": 67_890}, "seconds": 81.25,
        "cost": {"completions": 4144, "prompt_tokens": 12_345, "completion_tokens": 67_890, "seconds": 81.25},
        "peak_memory_bytes": 2_345_678_901,
        "device": "Xeon, 2 cores", "engine": "vllm", "created": "2026-01-02T03:04:05+00:00", "note": "",
    }  # fmt: skip


def make_baselines(comparisons):
    """Two rows as 06 writes them: the base's greedy answers, and its best prompt, which a domain's file may word."""
    row = comparisons.iloc[0]
    same = {name: row[name] for name in ("benchmark", "n", "seeds", "difference", "low", "high", "p_value")}
    same |= {"tuned": "greedy", "baseline_accuracy": row["before_accuracy"], "tuned_accuracy": row["after_accuracy"]}
    best = f"base, best zero-shot prompt (chosen on dev, n = 150): {EVIL!r}"
    names = ("base, solve, greedy", best, "random labels, greedy")
    return pd.DataFrame([{"baseline": name, **same} for name in names])


@functools.cache
def run_tables(lift):
    """The tables of a run by stage, computed once for all tests: they write them to folders and change these."""
    rng = np.random.default_rng(3)
    votes = rng.integers(1, 9, 300)
    scores = make_scores(lift=lift)
    comparisons = pd.concat(
        [
            stats.compare_models(scores, "base", after, how, resamples=500)
            for after in ("tuned", "tuned_random_labels")
            for how in ("symbolic", "flexible", "strict")
        ]
    )
    loss = 0.4 + np.exp(-np.arange(57) / 12) + rng.normal(0, 0.03, 57)
    return {
        "elicit": {
            "rejected": pd.DataFrame({"id": range(90), "text": EVIL, "reason": ["no number"] * 60 + ["too long"] * 30}),
        },
        "dedup": {
            "rejected": pd.DataFrame({"id": range(40), "reason": "too similar"}),
            "attempts": pd.DataFrame({"round": rng.integers(1, 4, 200), "accepted": rng.random(200) < 0.4}),
        },
        "vote": {
            "qa": pd.DataFrame({
                "id": range(300), "question": EVIL, "agreement": votes / 8, "votes": votes, "total": 8,
                "tied": votes < 3, "correct": rng.random(300) < votes / 9,
            }),
            "rejected": pd.DataFrame({
                "id": range(5), "question": EVIL, "agreement": [0.25] * 4 + [None], "total": [8.0] * 4 + [None],
                "tied": [True] * 4 + [None], "reason": ["tie"] * 4 + ["serves as an exemplar"],
            }),
        },
        "finetune": {"log": pd.DataFrame({
            "step": range(1, 58), "loss": loss,
            "eval_loss": [x if i % 19 == 18 else None for i, x in enumerate(loss + 0.05)],
            "learning_rate": 2e-5, "tokens": 900,
        })},
        "distil": {},
        "evaluate": {"scores": scores, "comparisons": comparisons, "baselines": make_baselines(comparisons),
                     "sources": evaluate.gain_sources(scores.assign(form="number"))},
    }  # fmt: skip


def make_run(folder, name="cpu", lift=0.15, stages=STAGES, **parameters):
    tables = run_tables(lift)
    counts = {
        "elicit": {"sampled": 1000, "kept": 910, "rejected": 90},
        "dedup": {"sampled": 910, "kept": 518, "rejected": 392, "rewritten": 88},
        "vote": {"questions": 518, "sampled": 4144, "kept": 450, "pairs": 300, "rejected": 68},
        "finetune": {"pairs": 300, "trained": 270},
    }
    for stage in stages:
        (folder / stage).mkdir(parents=True)
        for table, frame in tables[stage].items():
            frame.to_parquet(folder / stage / f"{table}.parquet")
        epochs = {"epochs": 2.0} if stage == "finetune" else {}
        text = json.dumps(manifest(stage, name, counts.get(stage, {}), **epochs, **parameters))
        (folder / stage / "manifest.json").write_text(text)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    whole = make_run(folder / "cpu")
    part = make_run(folder / "no_vote", name="no_vote", lift=0.0, stages=STAGES[:3])
    return whole, part


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    assert report.write_report(runs, target, "params/cpu_full.yaml") == target
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    return target.read_text(encoding="utf-8")


@pytest.fixture
def without_figures(monkeypatch):
    """The page of a test that reads its words and tables: ten figures take most of the time of a page."""
    monkeypatch.setattr(report, "_figures", lambda run: [])


def evaluate_settings():
    return build_settings("evaluate", {"student": "none"})


def words(html):
    """The text that a reader sees, without mark-up."""
    from html import unescape

    shown = re.sub(r"<style>.*?</style>|<wbr>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", shown)))


def test_page_says_the_verdict_first(page):
    text = words(page)
    assert text.index("the model improved itself") < text.index("Claims")
    assert "no_vote. No verdict yet" in text
    assert "no_vote has not finished finetune, distil, evaluate" in text


def test_page_has_every_part(page):
    text = words(page)
    for part in (
        "Claims",
        "Scores",
        "From sampled to trained",
        "Figures",
        "Answers that changed",
        "Cost",
        "Environment",
    ):
        assert part in text
    assert (
        "completions sampled 1,000 1,000" in text
        and "questions kept by the vote 450 450" in text
        and "pairs trained 270" in text
    )
    assert "vote 4,144 12,345 67,890 81.2" in text and "together 24,864 74,070 407,340" in text, "six stages"
    assert "torch 2.13.0+cpu" in text and "model base b179c952" in text
    assert "crescent verify outputs/cpu" in text
    assert "GSM8K 74.4 -> 82.1" in text
    assert text.count("without dedup it is worse") == 1  # a blank of both runs stands there once
    assert "95 %" in text and "t-test with seeds and items random" in text


def test_page_shows_what_training_has_to_beat_and_where_the_gain_comes_from(page, runs):
    beat = words(page[page.index("What the tuned model has to beat") : page.index("<h2>Where the gain comes from")])
    row = pd.read_parquet(runs[0] / "evaluate" / "baselines.parquet").iloc[0]
    shown = f"{100 * row.baseline_accuracy:.1f} % {100 * row.tuned_accuracy:.1f} % {100 * row.difference:+.1f} ["
    assert f"cpu arithmetic base, solve, greedy greedy 120 3 {shown}" in beat
    assert "random labels, greedy greedy 120 3" in beat and "base → tuned_random_labels" in words(page)
    assert "best zero-shot prompt" in beat and beat.count("no_vote") == 0, "it has no 06"
    sources = pd.read_parquet(runs[0] / "evaluate" / "sources.parquet")
    split = words(page[page.index("Had the base's answer come to an end?") :])
    assert set(report.ENDS) == set(sources["base_answer"])
    for source in sources.itertuples():
        end = report.ENDS[source.base_answer]
        assert source.base_answer in end and f"arithmetic, 0-shot {end} 120 3 {100 * source.share:.1f} %" in split
    assert 100 * sources["gain"].sum() == pytest.approx(100 * row.difference)


def test_the_verdict_says_how_much_of_the_gain_is_on_items_that_the_base_completed(tmp_path):
    # Half of the items were cut before training, and these gain more: an independent count of the others' share.
    folder = make_run(tmp_path / "cut", stages=("evaluate",))
    scores = pd.read_parquet(folder / "evaluate" / "scores.parquet")
    scores["truncated"] = (scores["model"] == "base") & (scores["item"] % 2 == 0)
    evaluate.gain_sources(scores.assign(form="number")).to_parquet(folder / "evaluate" / "sources.parquet")
    right = scores[scores["item"] % 2 == 1].groupby("model")["symbolic"].agg(["sum", "size"])
    gain = (right["sum"] / right["size"]).loc["tuned"] - (right["sum"] / right["size"]).loc["base"]
    said = report.verdict_text(report.load_run(folder))
    assert said.startswith("Yes, the model improved itself: +")
    of_completed = rf"Of these points, \{100 * gain / 2:+.1f} \[[-+]\d+\.\d, [-+]\d+\.\d\] come from the 50.0% of items"
    assert re.search(of_completed, said)
    pooled_since = pd.read_parquet(folder / "evaluate" / "sources.parquet").assign(gain=0.01)
    pooled_since.to_parquet(folder / "evaluate" / "sources.parquet")
    assert "Of these points" not in report.verdict_text(report.load_run(folder)), "a split of another gain"


def test_the_parts_of_a_gain_are_named_by_what_they_ask(tmp_path):
    folder = make_run(tmp_path / "parts", stages=("evaluate",))
    scores = pd.read_parquet(folder / "evaluate" / "scores.parquet")
    evaluate.parts_table(scores, evaluate_settings()).to_parquet(folder / "evaluate" / "parts.parquet")
    text = words(report.write_report([folder], tmp_path / "r.html").read_text())
    assert "Right value, in whatever form [95 %]" in text and "Written as the scoring wants it [95 %]" in text
    assert "points = right value +" in text and "points = reasoning" not in text
    rows = re.findall(r"greedy, (\w+) base → (\w+)", text[text.index("or how it is written?") :])
    assert rows[:2] == [("symbolic", "tuned"), ("symbolic", "tuned_random_labels")], "the decisive rows first"
    assert len(rows) == 6


def test_a_run_from_before_there_were_baselines_says_so(tmp_path, without_figures):
    folder = make_run(tmp_path / "old", stages=("evaluate",))
    for name in ("baselines", "sources"):
        (folder / "evaluate" / f"{name}.parquet").unlink()
    text = words(report.write_report([folder], tmp_path / "r.html").read_text())
    assert "No run was set against baselines" in text and "come to an end?" not in text
    assert "come from the" not in text


def test_the_claims_commands_name_the_runs_own_profile(page):
    assert "crescent run params/cpu_full.yaml" in words(page) and "params/cpu.yaml" not in words(page)


def test_a_run_of_lmsi_is_judged_by_lmsis_claims(tmp_path):
    folder = make_run(tmp_path / "lmsi", stages=("evaluate",), claims_of="lmsi")
    judged = [claim.id for claim in report.load_run(folder).claims if claim.n]
    assert judged == ["L1"]
    assert [
        claim.id for claim in report.load_run(make_run(tmp_path / "c", stages=("evaluate",))).claims if claim.n
    ] == ["C1"]


def test_parameters_are_a_difference(page):
    table = words(page[page.index("Parameters that differ") : page.index("<h2>Environment")])
    assert "epochs 3.0 2.0" in table and "run replay cpu no_vote" in table and "domain" not in table


def test_a_parameter_that_some_stages_did_not_have_has_no_empty_place(tmp_path, without_figures):
    folder = make_run(tmp_path / "profiled", stages=STAGES[:3], profile="params/mine.yaml")
    manifest_path = folder / "vote" / "manifest.json"
    without = json.loads(manifest_path.read_text())
    without["parameters"]["profile"] = ""
    manifest_path.write_text(json.dumps(without))
    page = report.write_report([folder], tmp_path / "r.html").read_text()
    assert "profile params/mine.yaml run replay" in words(page[page.index("Parameters that differ") :])


def test_a_stage_that_the_run_leaves_out_is_not_called_unfinished(tmp_path, without_figures):
    without_student = make_run(tmp_path / "a", stages=[stage for stage in STAGES if stage != "distil"], student="none")
    text = words(report.write_report([without_student], tmp_path / "a.html").read_text())
    assert "cpu: distil left out (student: none)" in text and "has not finished" not in text
    cut_short = make_run(tmp_path / "b", stages=STAGES[2:3], question_source="gsm8k")
    text = words(report.write_report([cut_short], tmp_path / "b.html").read_text())
    assert "elicit left out (question_source: gsm8k)" in text and "cpu has not finished finetune, distil, ev" in text


def test_what_a_run_could_show_stands_where_nothing_was_reproduced(tmp_path, without_figures):
    by_verdict = {}
    for lift in (0.15, 0.01):
        folder = make_run(tmp_path / str(lift), lift=lift, stages=("evaluate",))
        claim = next(claim for claim in report.load_run(folder).claims if claim.n)
        page = report.write_report([folder], tmp_path / "r.html").read_text()
        row = words(page[page.index('<td class="k">C1</td>') : page.index('<td class="k">C2</td>')])
        by_verdict[claim.verdict.split()[0]] = f" {100 * claim.detectable:.1f} " in row
    assert by_verdict == {"reproduced": False, "inconclusive": True}


def test_seconds_of_whole_stages_are_not_called_recorded_ones(page):
    cost = words(page[page.index("<h2>Cost") : page.index("<h2>Parameters")])
    assert "whole stage (s)" in cost and "recorded run" not in cost and "so it can be less" in cost


def test_agreement_is_that_of_all_questions_as_in_03_and_labels_are_those_of_the_kept():
    run = report.load_run(REFERENCE)
    texts = [text for _, text in report._figures(run)]
    notebook = nbformat.read(ROOT / "notebooks" / "03_vote.ipynb", 4)
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    of_all = next(text.strip() for text in printed if ", mean agreement" in text)
    assert "at or above 0.58: 48.5%" in of_all and of_all in texts
    kept = run.manifests["vote"]["counts"]["kept"]
    labels = next(text for text in texts if text.startswith("right labels of the questions kept by the vote"))
    assert labels.endswith(f"of {kept}") and kept < int(of_all.split(",")[0].split()[1])


def test_a_question_of_several_formats_counts_once(tmp_path):
    folder = make_run(tmp_path / "lmsi", stages=("vote",))
    qa = pd.read_parquet(folder / "vote" / "qa.parquet")
    pd.concat([qa, qa]).to_parquet(folder / "vote" / "qa.parquet")
    run = report.load_run(folder)
    assert len(run.table("vote/qa")) == 300 and len(run.table("vote/voted")) == 300 + 4
    voted = run.table("vote/voted")
    assert voted["tied"].sum() == qa["tied"].sum() + 4
    figure, _ = figures.agreement_histogram(voted)
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == [f"{votes}/8" for votes in range(1, 9)], "whole votes, although some rejected have none"


def test_untrusted_text_is_escaped(page):
    assert "<script" not in page and "onerror=alert(1)>" not in page.replace("&gt;", "").replace("&#62;", "")
    assert "&lt;script&gt;alert(" in page
    assert re.findall(r"<(?:script|iframe|object|link)\b", page) == []


def test_untrusted_names_are_escaped(tmp_path):
    folder = make_run(tmp_path / "bad", name=EVIL, stages=("elicit", "dedup"))
    pd.DataFrame({"reason": [EVIL, EVIL]}).to_parquet(folder / "dedup" / "rejected.parquet")
    html = report.write_report([folder], tmp_path / "r.html").read_text()
    assert "<script" not in html and "<img src=x" not in html


def test_a_name_may_break_after_its_underscores_and_is_escaped():
    assert report._breakable("a_<b>_c") == "a_<wbr>&lt;b&gt;_<wbr>c"


def test_page_is_small_and_alone(page):
    assert len(page.encode()) < 3_000_000
    addresses = re.findall(r"""(?:src|href)=["']?([^"'>\s]{5})|url\(|@import""", page)
    assert addresses and set(addresses) == {"data:"}
    assert "http" not in re.sub(r"base64,[^\"]+", "", page).replace("http-equiv", "")


def test_figures_give_way_to_size(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FIGURE_BYTES", 100_000)
    html = report.write_report([runs[0]] * 3, tmp_path / "r.html").read_text()
    assert len(html) < 300_000 and 1 <= html.count("<img") < html.count("<figure>")
    assert words(html).count("mean agreement") == 3


def test_broken_and_empty_runs(tmp_path):
    empty, broken = tmp_path / "empty", make_run(tmp_path / "broken", name="broken")
    empty.mkdir()
    (broken / "evaluate" / "scores.parquet").write_bytes(b"not parquet")
    (broken / "dedup" / "manifest.json").write_text("{")
    text = words(report.write_report([empty, broken], tmp_path / "r.html").read_text())
    assert "empty has not finished elicit, dedup, vote, finetune, distil, evaluate" in text
    for name in ("evaluate/scores.parquet", "dedup/manifest.json"):
        assert f"broken: {name} cannot be read" in text
    assert "the model improved itself" in text, "the comparisons are there"


def test_tables_of_an_unfinished_stage_are_not_shown(tmp_path, without_figures):
    folder = make_run(tmp_path / "cut")
    (folder / "evaluate" / "manifest.json").unlink()
    text = words(report.write_report([folder], tmp_path / "r.html").read_text())
    assert "No verdict yet" in text and "No stage evaluate is finished" in text


def a_run(scores):
    return report.Run("r", "r", {}, {} if scores is None else {"evaluate/scores": scores}, [], [])


def test_the_answers_that_changed_are_shown():
    scores = make_scores(items=40, seeds=(1,))
    changed = report.changed_answers(a_run(scores), 1000)
    for way, shift in (("gained", 1), ("lost", -1)):
        for how in ("strict", "flexible", "symbolic"):
            right = scores.pivot_table(index="item", columns="model", values=how, aggfunc="first").astype(int)
            shown = {row["item"] for row in changed["rows"] if row["way"] == way and how in row["scorings"]}
            assert shown == set(right.index[right["tuned"] - right["base"] == shift])
    assert changed["left_out"] == 0 and "kind" not in changed["facets"]
    few = report.changed_answers(a_run(scores), 1)
    ways = {row["way"] for row in changed["rows"]}
    assert len(few["rows"]) == len(ways) and few["left_out"] == len(changed["rows"]) - len(ways)
    for without in (None, scores[scores["model"] == "base"]):
        assert report.changed_answers(a_run(without), 9)["rows"] == []


def test_one_run_is_not_named_in_every_row_and_columns_without_a_value_are_left_out(page, tmp_path):
    folder = make_run(tmp_path / "cpu", stages=("evaluate",))
    alone = report.write_report([folder], tmp_path / "r.html").read_text()
    assert "<th>Run</th>" not in alone and page.count("<th>Run</th>") >= 4
    assert "Could show" not in alone and "The paper's figure" not in alone, "reproduced, and Crescent's"
    assert "The paper: GSM8K 74.4 -> 82.1" in words(alone)
    lmsi = make_run(tmp_path / "lmsi", stages=("evaluate",), claims_of="lmsi", lift=0.01)
    judged = report.write_report([lmsi], tmp_path / "l.html").read_text()
    assert "Could show" in judged and "The paper's figure" in judged
    for html in (alone, page, judged):
        for table in re.findall(r"<table>.*?</table>", html, flags=re.S):
            widths = {
                sum(int(cell or 1) for cell in re.findall(r'<t[dh]\b(?:[^>]*colspan="(\d+)")?', row))
                for row in re.findall(r"<tr\b.*?</tr>", table, flags=re.S)
            }
            assert len(widths) == 1, table[:300]


def test_wide_tables_scroll_and_the_words_of_figures_are_folded(page, runs, tmp_path, monkeypatch):
    assert page.count("<table>") == page.count('<div class="scroll"><table>') > 8
    assert page.count("<figure>") == page.count("<figcaption><details><summary>") > 5
    assert "@media (prefers-color-scheme: dark)" in page
    monkeypatch.setattr(report, "FIGURE_BYTES", 0)
    without_pictures = report.write_report(runs[:1], tmp_path / "r.html").read_text()
    assert "<details>" not in without_pictures and without_pictures.count("<details open>") > 5


def test_every_filter_of_the_page_has_its_rows(page):
    # A radio button, its label, its rule and its rows are tied by names alone: none may dangle.
    buttons = set(re.findall(r'<input type="radio" name="\w+" id="(\w+)"', page))
    labels = set(re.findall(r'<label for="(\w+)"', page))
    assert buttons and buttons == labels
    for button in buttons:
        if button.endswith("v0"):
            continue
        run, name = re.fullmatch(r"(r\d+)(f\d+v\d+)", button).groups()
        assert f"#{button}:checked ~ .scroll tr.flip:not(.{name})" in page
        assert re.search(rf'class="flip[^"]* {name}[ "]', page), (run, name)


def test_result_table_is_aligned():
    comparisons = stats.compare_models(make_scores(), "base", "tuned", resamples=200)
    lines = report.result_table(pd.concat([comparisons, comparisons.assign(benchmark="a longer name")])).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[0].split()[:3] == ["benchmark", "decoding", "scoring"]
    assert lines[1].split()[1] == "0-shot" and "base -> tuned" in lines[1] and "%" in lines[1]
    assert "06_evaluate" in report.result_table(comparisons.iloc[:0])


def test_the_rows_that_decide_come_first_and_zeros_last(runs):
    comparisons = pd.read_parquet(runs[0] / "evaluate" / "comparisons.parquet").reset_index(drop=True)
    models = ["tuned", "tuned_random_labels"]
    zero = comparisons["scoring"] == "strict"
    upside_down = comparisons.iloc[::-1].assign(
        before_accuracy=comparisons["before_accuracy"].mask(zero, 0.0),
        after_accuracy=comparisons["after_accuracy"].mask(zero, 0.0),
    )
    by_models = pd.concat([upside_down[upside_down["after"] == name] for name in models])
    assert by_models["scoring"].tolist() == ["strict", "flexible", "symbolic"] * 2, "as a table of 06 has them"
    lines = [line.split() for line in report.result_table(by_models).splitlines()[1:]]
    assert [(line[3], line[6]) for line in lines] == [
        (scoring, model) for scoring in ("symbolic", "flexible", "strict") for model in models
    ]
    nothing_right = by_models[by_models["scoring"] == "symbolic"].assign(before_accuracy=0.0, after_accuracy=0.0)
    lines = report.result_table(pd.concat([by_models[by_models["scoring"] != "symbolic"], nothing_right])).splitlines()
    assert "symbolic" in lines[1] and "symbolic" in lines[2], "a zero of the rows that decide is a result"


@pytest.mark.parametrize(("lift", "verdict"), [(0.15, "Yes, the model improved itself: +"), (-0.2, "No, the claimed")])
def test_a_run_ends_with_the_verdict_that_its_report_begins_with(tmp_path, capsys, monkeypatch, lift, verdict):
    monkeypatch.chdir(tmp_path)
    main._finish(make_run(tmp_path / "cpu", lift=lift), "p.yaml")
    *table, blank, said, second_blank, where = capsys.readouterr().out.splitlines()
    assert (blank, second_blank, where) == ("", "", "report: cpu/report.html")
    assert table[:2] == ["", table[1]] and table[2].split()[3] == "symbolic" and said.startswith(verdict)
    assert said in words((tmp_path / "cpu" / "report.html").read_text())
