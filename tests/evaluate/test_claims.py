"""The claims ledger: its verdict rule, what it picks from a comparisons table, its JSON."""

import json
import math
import re
import shlex
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from shared import REFERENCE, ROOT

from crescent_utils import benchmarks
from crescent_utils.cli import main, sweep
from crescent_utils.evaluate import claims
from crescent_utils.runs import params


def row(difference=0.1, half=0.04, p=0.001, **other):
    return {
        "benchmark": "gsm8k", "shots": 0, "decoding": "greedy", "scoring": "symbolic", "before": "base",
        "after": "tuned",
        "n": 1000, "seeds": 3, "difference": difference, "low": difference - half, "high": difference + half,
        "p_value": p, "seed_sd": 0.0, "item_sd": half / 1.959964 * 1000**0.5, "rest_sd": 0.0,
        **other,
    }  # fmt: skip


def judged(*rows, **options):
    return {claim.id: claim for claim in claims.claims_ledger(pd.DataFrame(list(rows)), **options)}


def test_ledger_blanks():
    found = claims.claims_ledger(pd.DataFrame())
    assert [claim.id for claim in found] == ["C1", "C2", "C3", "C4", "C5", "C6", "L1", "L2"]
    assert {claim.verdict for claim in found} == {"no run"}
    assert all(claim.command.startswith(("crescent run ", "crescent sweep ")) for claim in found)
    papers = {claim.id: claim.paper for claim in found}
    assert "74.4 -> 82.1" in papers["L1"] and all(figure in papers["L2"] for figure in ("73.5", "61.6", "69.4"))
    assert not any(papers[name] for name in papers if name.startswith("C"))
    assert claims.verdict_line(found).startswith("No verdict yet")


def settles_with(claim):
    """What an inconclusive claim says that it needs: (items, seeds)."""
    items, seeds = re.search(r"needs about ([\d,]+) items(?: and (\d+) seeds)?", claim.verdict).groups()
    return int(items.replace(",", "")), int(seeds or 1)


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (row(), "reproduced"),
        (row(p=0.2), "inconclusive"),
        (row(difference=0.03, p=0.1), "inconclusive"),
        (row(difference=-0.1), "not reproduced"),
        (row(difference=0.0, half=0.015, p=0.9), "not reproduced"),
        (row(difference=-0.2, half=0.19, p=0.04), "not reproduced"),  # a significant loss, however wide
        (row(difference=0.012, half=0.007, p=0.0001), "reproduced"),
        (row(difference=0.01, half=0.009, p=0.03), "not reproduced"),  # under the equivalence margin, and p x 6
        (row(difference=0.0, half=0.05, p=1.0), "inconclusive"),
    ],
)
def test_verdict_rule(evidence, verdict):
    claim = judged({**evidence, "benchmark": "mine"})["C1"]
    assert claim.verdict.startswith(verdict)
    assert (claim.effect, claim.low, claim.n, claim.seeds) == (evidence["difference"], evidence["low"], 1000, 3)
    if verdict == "inconclusive":
        items, seeds = settles_with(claim)
        assert items > 1000 or seeds > 3


@pytest.mark.parametrize(
    ("difference", "half", "verdict"),
    [(0.0, 0.01, "reproduced"), (-0.01, 0.005, "reproduced"), (0.05, 0.01, "reproduced"), (0.0, 0.04, "inconclusive"),
     (-0.08, 0.02, "not reproduced")],
)  # fmt: skip
def test_margin_rule(difference, half, verdict):
    five = judged(row(difference, half, shots=5))
    assert five["C2"].verdict.startswith(verdict) and five["C1"].verdict == "no run"
    general = judged(row(difference, half, benchmark="arc_challenge", scoring="acc_norm", decoding="log-likelihood"))
    assert general["C3"].verdict.startswith(verdict) and general["C1"].verdict == "no run"


Z = {alpha: NormalDist().inv_cdf(1 - alpha) for alpha in (0.05 / 12, 0.2)}  # six claims, two sides; power


@pytest.mark.parametrize("seeds", [1, 3])
def test_needed_items_follow_the_root_law(seeds):
    """Half the effect needs four times the items, and a run of that size is then conclusive four times in five."""
    unknown = {"benchmark": "mine", "seeds": seeds, "seed_sd": 0.0 if seeds > 1 else math.nan}
    claims_of = [judged(row(d, 0.11, p=0.3, **unknown))["C1"] for d in (0.04, 0.08)]
    needed = [settles_with(claim) for claim in claims_of]
    assert needed[0][0] / needed[1][0] == pytest.approx(4, rel=0.1) and {many for _, many in needed} == {seeds}
    assert needed[1][0] == pytest.approx(1000 * (sum(Z.values()) * 0.11 / 1.959964 / 0.08) ** 2, rel=0.1)


def test_what_is_needed_are_seeds_where_seeds_differ():
    """Simulated: with so many seeds and items the effect is found at the family's level four times in five."""
    claim = judged(row(0.06, 0.2, p=0.3, seed_sd=0.03, item_sd=0.4, rest_sd=0.5, n=350, benchmark="mine"))["C1"]
    items, seeds = settles_with(claim)
    assert seeds > 3
    rng = np.random.default_rng(3)
    means = 0.06 + rng.normal(0, 0.4 / items**0.5, (4000, 1))
    means = means + rng.normal(0, (0.03**2 + 0.5**2 / items) ** 0.5, (4000, seeds))
    errors = np.sqrt(means.var(axis=1, ddof=1) / seeds + 0.4**2 / items)
    reached = scipy_stats.t.sf(means.mean(axis=1) / errors, seeds - 1) < 0.05 / 12
    assert 0.75 <= reached.mean() <= 0.95


def test_no_more_items_are_asked_for_than_there_are():
    few = judged(row(0.05, 0.06, p=0.5, benchmark="arithmetic", n=350, item_sd=0.3, seed_sd=0.02))["C1"]
    items, seeds = settles_with(few)
    assert few.most_items == benchmarks.most_items("arithmetic") >= items and seeds > 3
    one = judged(row(0.01, 0.03, p=0.5, benchmark="arithmetic", n=350, item_sd=0.5, seed_sd=math.nan, seeds=1))["C1"]
    assert f"the {one.most_items:,} items that there are do not settle it for one seed; run more seeds" in one.verdict
    hopeless = judged(row(0.01, 0.5, p=0.5, benchmark="arithmetic", n=350, item_sd=0.9, seed_sd=0.9))["C1"]
    assert hopeless.verdict == f"inconclusive (100 seeds of all {hopeless.most_items:,} items would not settle it)"
    old = row(0.01, 0.03, p=0.5, benchmark="three_terms_40", n=350)
    del old["seed_sd"], old["item_sd"], old["rest_sd"]
    claim = judged(old)["C1"]
    assert claim.most_items == 1862 and math.isnan(claim.seed_sd) and "inconclusive" in claim.verdict


def test_the_family_of_claims_is_fixed_whatever_is_filled():
    found = judged(row(p=0.02), row(p=0.04, before="tuned_no_vote"), row(p=0.5, before="tuned_no_dedup"))
    assert [round(found[name].p_holm, 3) for name in ("C1", "C6", "C5")] == [0.12, 0.2, 1.0]
    assert found["C1"].verdict.startswith("inconclusive") and math.isnan(found["C2"].p_holm)
    alone = judged(row(p=0.005))
    assert alone["C1"].p_holm == pytest.approx(0.03) and alone["C1"].verdict == "reproduced"
    assert judged(row(p=0.005), method="lmsi")["L1"].p_holm == pytest.approx(0.01)
    assert {name for family in claims.FAMILIES.values() for name in family} == {spec.id for spec in claims.SPECS}
    for method, family in claims.FAMILIES.items():
        assert family == tuple(spec.id for spec in claims.SPECS if spec.method == method)


def test_ledger_chooses_and_pools():
    found = judged(
        row(0.1, n=1000), row(0.2, n=3000, benchmark="asdiv"), row(0.9, scoring="strict"), row(0.9, decoding="sampled")
    )["C1"]  # fmt: skip
    assert found.effect == pytest.approx(0.175) and found.n == 4000
    assert found.high - found.low == pytest.approx(0.08) and "gsm8k" in found.comparison and "asdiv" in found.comparison
    assert judged(row(decoding="sampled"))["C1"].verdict == "reproduced"


def test_ledger_of_lmsi():
    found = judged(row(), row(before="tuned_no_cot_formats"), method="lmsi", profile="x.yaml")
    assert [name for name, claim in found.items() if claim.verdict != "no run"] == ["L1", "L2"]
    assert claims.verdict_line(list(found.values())).startswith("Yes, the model improved itself: +10.0 [+6.0, +14.0]")


def test_claims_json_and_table():
    found = claims.claims_ledger(pd.DataFrame([row()]))
    text = claims.ledger_to_json(found)
    assert "NaN" not in text
    rows = json.loads(text)
    assert claims.Claim(**rows[0]) == found[0] and rows[1]["effect"] is None
    table = claims.claims_table(found)
    assert table.loc["C1", "effect (points)"] == "+10.0 [+6.0, +14.0]" and table.loc["C2", "verdict"] == "no run"
    assert table["could show"].eq("").all(), "C1 is reproduced and the others have no run"
    assert claims.missing_runs(found).splitlines()[1:] == [f"{claim.id}: {claim.command}" for claim in found[1:]]
    assert claims.missing_runs(found[:1]) == ""


def test_could_show_stands_beside_what_was_left_open():
    found = judged(row(0.001, low=-0.02, high=0.022, p=0.9))
    assert claims.claims_table(list(found.values())).loc["C1", "could show"] == f"{100 * found['C1'].detectable:.1f}"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("effect", [0.1, 0.01, -0.1])
def test_the_verdict_of_one_training_says_what_its_interval_leaves_out(effect, seeds):
    found = judged(row(effect, half=0.04, seeds=seeds))
    assert claims.verdict_line(list(found.values())).endswith(claims.ONE_TRAINING) == (seeds == 1)


LEDGER = claims.claims_ledger(pd.DataFrame())
PROFILES = {"PARAMS.yaml": ("cpu", "cpu_full", "llama3_8b", "t4_colab"), "LMSI_PARAMS.yaml": ("lmsi_cpu", "lmsi_gsm8k")}


def parsed_commands(claim):
    """Yield a claim's command, parsed, once for each profile that may stand where it names none."""
    for placeholder, profiles in PROFILES.items():
        words = shlex.split(claim.command)
        if placeholder not in words:
            continue
        for profile in profiles:
            yield main._parser().parse_args([
                str(ROOT / "params" / f"{profile}.yaml") if word == placeholder else word for word in words[1:]
            ])  # fmt: skip


@pytest.mark.parametrize("claim", LEDGER, ids=lambda claim: claim.id)
def test_a_command_runs_with_any_profile_and_fills_its_claim(claim, tmp_path, monkeypatch):
    """Its overlays exist, its parameters are known and valid, and it compares the models of its claim."""
    monkeypatch.chdir(ROOT)
    spec = next(spec for spec in claims.SPECS if spec.id == claim.id)
    commands = list(parsed_commands(claim))
    assert len(commands) >= 2, "a command names no profile of its own"
    for parsed in commands:
        if not hasattr(parsed, "overlays"):
            params.load_profile(parsed.profiles, parsed.overrides)
            assert {spec.before, spec.after} == {"base", "tuned"}
        else:
            jobs = sweep.plan_sweep(parsed.profiles, parsed.overlays, parsed.seeds, parsed.overrides)
            whole, ablated = jobs
            trained = "student_tuned" if spec.after == "student_tuned" else "tuned"
            label = sweep.CLAIM_LABELS.get((ablated.overlay, trained), f"{trained}_{ablated.overlay}")
            assert (label, trained) == (spec.before, spec.after) and whole.overlay == sweep.WHOLE


def test_with_and_without_the_vote_as_many_pairs_are_learned():
    claim = next(claim for claim in claims.claims_ledger(pd.DataFrame(), pairs=123) if claim.id == "C6")
    for parsed in parsed_commands(claim):
        jobs = sweep.plan_sweep(parsed.profiles, parsed.overlays, parsed.seeds, parsed.overrides)
        assert [job.parameters["max_pairs"] for job in jobs] == [123, 123]
        assert [job.parameters.get("votes", 8) > 1 for job in jobs] == [True, False]


def test_commands_name_the_profile_that_is_given():
    ledger = claims.claims_ledger(pd.DataFrame(), profile="mine.yaml more.yaml")
    assert all(" mine.yaml more.yaml" in claim.command for claim in ledger if claim.id.startswith("C"))
    assert all("params/cpu" not in claim.command and "params/lmsi" not in claim.command for claim in ledger)


def test_what_n_could_have_shown_is_the_power_of_a_normal_test():
    """Simulated: an effect of that size is found significant four times in five."""
    claim = judged(row(difference=0.01, half=0.04, p=0.6))["C1"]
    error = 0.04 / 1.959964
    draws = np.random.default_rng(1).normal(claim.detectable, error, 200_000)
    assert np.mean(np.abs(draws) > Z[0.05 / 12] * error) == pytest.approx(0.8, abs=0.005)
    assert math.isnan(claims.claims_ledger(pd.DataFrame())[0].detectable)
    two = judged(row(half=0.04), method="lmsi")["L1"]
    assert two.detectable < claim.detectable, "a smaller family leaves each claim a higher level"


def baseline(name, difference, half=0.03, tuned="greedy"):
    ends = {"low": difference - half, "high": difference + half}
    return {"baseline": name, "tuned": tuned, "difference": difference, **ends}


def test_the_verdict_names_the_rivals_that_training_did_not_surely_beat():
    """A newcomer read "improved itself" on top, and found below that the untrained model with exemplars was better."""
    found = list(judged(row(0.053, half=0.02)).values())
    rows = [
        baseline("base, bare, greedy", 0.053, 0.02),
        baseline("base, own, greedy", -0.1, 0.05),
        baseline("random labels, greedy", 0.03, 0.034),
        baseline("base, best zero-shot prompt (chosen …)", 0.05, 0.02),
        baseline("tuned_no_vote, greedy", -0.2),
        baseline("base, own, greedy", -0.3, tuned="one sample"),
    ]
    said = claims.verdict_text(found, pd.DataFrame(), pd.DataFrame(rows))
    assert said == claims.verdict_line(found) + (
        " But the tuned model is worse than the base asked with its own exemplars (-10.0 [-15.0, -5.0]), and is not "
        "surely better than a model trained on random labels (+3.0 [-0.4, +6.4])."
    )
    assert claims.verdict_text(found, pd.DataFrame(), pd.DataFrame(rows[:1])) == claims.verdict_line(found)
    nothing = claims.claims_ledger(pd.DataFrame())
    assert claims.verdict_text(nothing, pd.DataFrame(), pd.DataFrame(rows)) == claims.verdict_line(nothing)


def test_every_baseline_of_06_has_a_name_in_words():
    baselines = pd.read_parquet(REFERENCE / "evaluate" / "baselines.parquet")["baseline"]
    assert all(claims._rival(name) for name in baselines)
    assert claims._rival("tuned_no_vote, greedy") == ""


def test_what_cannot_be_told_says_its_corrected_p():
    """An interval above zero may stand beside a p that Holm's correction puts above 0.05: the line says which."""
    found = judged(row(0.067, low=0.02, high=0.12, p=0.013, n=150))
    assert found["C1"].low > 0 and found["C1"].verdict.startswith("inconclusive")
    line = claims.verdict_line(list(found.values()))
    assert f"p = {found['C1'].p_holm:.3f} after Holm's correction; inconclusive" in line
