"""The claims ledger: its verdict rule, what it picks from a comparisons table, its JSON."""

import json
import math
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from shared import ROOT

from crescent_utils.cli import main, sweep
from crescent_utils.evaluate import claims
from crescent_utils.runs import params


def row(difference=0.1, half=0.04, p=0.001, **other):
    return {
        "benchmark": "gsm8k", "shots": 0, "decoding": "greedy", "scoring": "symbolic", "before": "base",
        "after": "tuned",
        "n": 1000, "seeds": 3, "difference": difference, "low": difference - half, "high": difference + half,
        "p_value": p,
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


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (row(), "reproduced"),
        (row(p=0.2), "inconclusive"),
        (row(difference=0.03, p=0.1), "inconclusive"),
        (row(difference=-0.1), "not reproduced"),
        (row(difference=0.0, half=0.015, p=0.9), "not reproduced"),
    ],
)
def test_verdict_rule(evidence, verdict):
    claim = judged(evidence)["C1"]
    assert claim.verdict.startswith(verdict)
    assert (claim.effect, claim.low, claim.n, claim.seeds) == (evidence["difference"], evidence["low"], 1000, 3)
    if verdict == "inconclusive":
        assert int(re.search(r"n = ([\d,]+)", claim.verdict).group(1).replace(",", "")) > 1000


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


def test_needed_n_follows_the_root_law():
    """Half the effect needs four times the items, and a run of that size is then conclusive four times in five."""
    sizes = [judged(row(d, 0.11, p=0.3))["C1"].verdict for d in (0.04, 0.08)]
    needed = [int(re.search(r"n = ([\d,]+)", text).group(1).replace(",", "")) for text in sizes]
    assert needed[0] / needed[1] == pytest.approx(4, rel=0.1)
    se = 0.11 / 1.959964
    assert needed[1] == pytest.approx(1000 * ((1.959964 + 0.841621) * se / 0.08) ** 2, rel=0.1)


def test_ledger_corrects_over_what_ran():
    found = judged(row(p=0.02), row(p=0.04, before="tuned_no_vote"), row(p=0.5, before="tuned_no_dedup"))
    assert [round(found[name].p_holm, 3) for name in ("C1", "C6", "C5")] == [0.06, 0.08, 0.5]
    assert found["C1"].verdict.startswith("inconclusive") and math.isnan(found["C2"].p_holm)


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
    assert table.loc[0, "effect (points)"] == "+10.0 [+6.0, +14.0]" and table.loc[1, "verdict"] == "no run"


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
    assert np.mean(np.abs(draws) > 1.959964 * error) == pytest.approx(0.8, abs=0.005)
    assert math.isnan(claims.claims_ledger(pd.DataFrame())[0].detectable)
    three = judged(row(half=0.04), row(half=0.04, shots=5), row(half=0.04, scoring="acc"))
    assert three["C1"].detectable > claim.detectable, "three claims at once leave each a lower level"
