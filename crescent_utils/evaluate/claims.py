"""The claims ledger: what the two papers claim, what the comparisons say of it, and a verdict for each.

The rule, ours, is the same for every claim. It is *reproduced* when its interval excludes zero in the claimed
direction (for "does not fall": excludes a fall by the margin) and its p-value, Holm-corrected over all claims
that have a run, is below alpha. It is *not reproduced* when the interval's upper end stays under the smallest
effect of interest (for "does not fall": under zero). Anything else is *inconclusive*, with the number of
items that would probably settle it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from ..benchmarks import SCORINGS
from ..stats import holm

if TYPE_CHECKING:
    import pandas as pd


NORMAL = NormalDist()
SMALLEST_EFFECT = 0.02  # ours: less than two points would not make anybody change a pipeline
MARGIN = 0.02  # ours: the loss that "does not fall" and "is kept" allow
GENERAL = ("bbh",)  # of this kit's own benchmarks
REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NO_RUN = "reproduced", "not reproduced", "inconclusive", "no run"


@dataclass(frozen=True)
class Claim:
    """One line of the ledger; numbers are shares (0.02 is two points), nan and 0 where there is no run."""

    id: str
    hypothesis: str
    comparison: str
    effect: float
    low: float
    high: float
    n: int
    seeds: int
    p: float
    p_holm: float
    detectable: float  # smallest effect that this n would have shown with 80 % power at the corrected level
    verdict: str
    paper: str
    command: str


@dataclass(frozen=True)
class Spec:
    """What a claim says and which rows of a comparisons table bear on it."""

    id: str
    hypothesis: str
    before: str
    after: str
    command: str
    few_shot: bool | None = None  # None: any number of shots
    general: bool = False
    margin: bool = False  # judged as "does not fall by more than the margin"
    method: str = "crescent"
    paper: str = ""


# Labels beyond base, tuned, student and student_tuned come from `compare_runs`: they name what the other run was left without.
_COMPARE = "{profile} --from evaluate -p compare_runs="
# fmt: off
SPECS = (
    Spec("C1", "0-shot math improves", "base", "tuned", "crescent run {profile}", few_shot=False),
    Spec("C2", "5-shot math does not fall", "base", "tuned", "crescent run {profile} --from evaluate -p shots='[0, 5]'",
         few_shot=True, margin=True),
    Spec("C3", "general ability is kept", "base", "tuned",
         "crescent run {profile} --from evaluate -p general_tasks='[arc_challenge, hellaswag, winogrande]'",
         general=True, margin=True),
    Spec("C4", "Crescent data distils better than seed augmentation at equal budget", "student_seed", "student_tuned",
         "crescent run " + _COMPARE + "'{{student_seed: [RUN_ON_SEED_DATA]}}'"),
    Spec("C5", "without dedup it is worse", "tuned_no_dedup", "tuned",
         "crescent run {profile} params/ablations/no_dedup.yaml && crescent run " + _COMPARE
         + "'{{tuned_no_dedup: [cpu_no_dedup]}}'"),
    Spec("C6", "without the vote it is worse", "tuned_no_vote", "tuned",
         "crescent run {profile} params/ablations/votes_1.yaml && crescent run " + _COMPARE
         + "'{{tuned_no_vote: [cpu_votes_1]}}'"),
    Spec("L1", "LMSI improves math", "base", "tuned", "crescent run params/lmsi_cpu.yaml --from vote", method="lmsi",
         paper="GSM8K 74.4 -> 82.1 (self-consistency)"),
    Spec("L2", "the CoT formats are what matters", "tuned_no_cot_formats", "tuned",
         "crescent run params/lmsi_cpu.yaml params/ablations/no_cot_formats.yaml --from vote && "
         "crescent run params/lmsi_cpu.yaml --from evaluate -p compare_runs='{{tuned_no_cot_formats: [lmsi_cpu_no_cot_formats]}}'",
         method="lmsi", paper="GSM8K: all four formats 73.5, without the CoT formats 61.6, few-shot CoT only 69.4"),
)


def claims_ledger(
    comparisons: pd.DataFrame,
    *,
    method: str = "crescent",
    profile: str = "params/cpu.yaml",
    smallest: float = SMALLEST_EFFECT,
    margin: float = MARGIN,
    alpha: float = 0.05,
) -> list[Claim]:
    """Judge every claim from a comparisons table (see `stats.compare`); claims without rows are blanks.

    `method` says whose tuned model the table's `tuned` is: "crescent" or "lmsi". Symbolic scoring decides,
    and greedy decoding where there is any.
    """
    evidence = [_evidence(comparisons, spec, method, margin) for spec in SPECS]
    corrected = holm([found["p"] for found in evidence])
    tests = sum(not math.isnan(p) for p in corrected)
    claims = []
    for spec, found, p_holm in zip(SPECS, evidence, corrected, strict=True):
        bounds = {"smallest": smallest, "margin": margin, "alpha": alpha, "tests": tests}
        shown = _detectable(spec, found, bounds)
        verdict = _verdict(spec, found, p_holm, bounds, shown)
        command = spec.command.format(profile=profile)
        claims.append(
            Claim(
                spec.id,
                spec.hypothesis,
                **found,
                p_holm=p_holm,
                detectable=shown,
                verdict=verdict,
                paper=spec.paper,
                command=command,
            )
        )
    return claims


def ledger_to_json(claims: Iterable[Claim]) -> str:
    """Claims as JSON for machines; blanks are null."""
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(c).items()} for c in claims]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def ledger_from_json(text: str) -> list[Claim]:
    """Read what `to_json` wrote."""
    numbers = ("effect", "low", "high", "p", "p_holm", "detectable")
    rows: list[dict[str, Any]] = json.loads(text)
    return [Claim(**{**row, **{k: math.nan for k in numbers if row.get(k) is None}}) for row in rows]


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims as a table for a notebook, effects in percentage points."""
    import pandas as pd

    return pd.DataFrame(
        {
            "claim": [c.id for c in claims],
            "hypothesis": [c.hypothesis for c in claims],
            "comparison": [c.comparison for c in claims],
            "effect (points)": [_points(c) for c in claims],
            "n": [c.n or "" for c in claims],
            "seeds": [c.seeds or "" for c in claims],
            "could show": ["" if math.isnan(c.detectable) else f"{100 * c.detectable:.1f}" for c in claims],
            "p (Holm)": ["" if math.isnan(c.p_holm) else f"{c.p_holm:.3g}" for c in claims],
            "verdict": [c.verdict for c in claims],
            "paper": [c.paper for c in claims],
            "command": [c.command if c.verdict == NO_RUN else "" for c in claims],
        }
    )


def verdict_line(claims: Sequence[Claim]) -> str:
    """Say in one plain sentence whether the model improved itself."""
    main = next((c for c in claims if c.id in ("C1", "L1") and c.verdict != NO_RUN), None)
    if main is None:
        return "No verdict yet: no run compares the model before and after training."
    where = main.comparison.split(": ")[-1]
    numbers = f"{_points(main)} points on {where} (n = {main.n:,}, {_seeds(main.seeds)})"
    if main.verdict == REPRODUCED:
        p = "p < 0.001" if main.p_holm < 0.001 else f"p = {main.p_holm:.3f}"
        return f"Yes, the model improved itself: {numbers}, {p} after Holm's correction."
    if main.verdict == NOT_REPRODUCED:
        return f"No, the claimed gain did not appear: {numbers}."
    return f"It cannot be told yet: {numbers}; {main.verdict}."


def _points(claim: Claim) -> str:
    if claim.verdict == NO_RUN:
        return ""
    return f"{100 * claim.effect:+.1f} [{100 * claim.low:+.1f}, {100 * claim.high:+.1f}]"


def _seeds(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def _evidence(comparisons: pd.DataFrame, spec: Spec, method: str, margin: float) -> dict[str, Any]:
    rows = _bearing(comparisons, spec, method)
    if rows.empty:
        blank = math.nan
        return {"comparison": "", "effect": blank, "low": blank, "high": blank, "n": 0, "seeds": 0, "p": blank}
    # Ends are averaged as though the benchmarks' errors moved together (they share the trained models): the
    # interval is never too narrow. With one row this is the row's own interval.
    share = rows["n"] / rows["n"].sum()
    effect, low, high = (float((rows[name] * share).sum()) for name in ("difference", "low", "high"))
    null = -margin if spec.margin else 0.0
    if len(rows) == 1 and not spec.margin:
        p = float(rows["p_value"].iloc[0])
    else:
        z = (effect - null) / _standard_error(low, high)
        p = 1 - NORMAL.cdf(z) if spec.margin else 2 * (1 - NORMAL.cdf(abs(z)))
    names = " + ".join(f"{r.benchmark} {r.shots}-shot {r.decoding}" for r in rows.itertuples())
    comparison = f"{spec.before} -> {spec.after}: {names}"
    seeds, n = int(rows["seeds"].min()), int(rows["n"].sum())
    return {"comparison": comparison, "effect": effect, "low": low, "high": high, "n": n, "seeds": seeds, "p": p}


def _bearing(comparisons: pd.DataFrame, spec: Spec, method: str) -> pd.DataFrame:
    if comparisons.empty or spec.method != method:
        return comparisons.iloc[:0]
    own = comparisons["scoring"].isin(SCORINGS)  # the harness's own tasks are scored by its own metrics
    is_general = comparisons["benchmark"].str.lower().str.startswith(GENERAL) | ~own
    chosen = comparisons[
        (comparisons["before"] == spec.before) & (comparisons["after"] == spec.after) & (is_general == spec.general)
    ]
    chosen = chosen[~chosen["scoring"].isin(["strict", "flexible"])]
    if spec.few_shot is not None:
        chosen = chosen[(chosen["shots"] > 0) == spec.few_shot]
    greedy = chosen[chosen["decoding"] != "sampled"]
    return chosen if greedy.empty else greedy


def _verdict(spec: Spec, found: dict[str, Any], p_holm: float, bounds: dict[str, float], detectable: float) -> str:
    if not found["n"]:
        return NO_RUN
    null, nothing = (-bounds["margin"], 0.0) if spec.margin else (0.0, bounds["smallest"])
    if found["low"] > null and p_holm < bounds["alpha"]:
        return REPRODUCED
    if found["high"] < nothing:
        return NOT_REPRODUCED
    # For the effect seen, or the smallest one of interest if that is larger; with a margin, for a true difference of zero.
    effect = bounds["margin"] if spec.margin else max(abs(found["effect"]), bounds["smallest"])
    needed = found["n"] * (detectable / effect) ** 2
    return f"{INCONCLUSIVE} (needs about n = {_rounded(max(needed, found['n'] + 1)):,})"


def _detectable(spec: Spec, found: dict[str, Any], bounds: dict[str, float]) -> float:
    """Smallest effect (with a margin: distance from it) shown with 80 % power at the level that Bonferroni's first step leaves."""
    if not found["n"]:
        return math.nan
    level = bounds["alpha"] / bounds["tests"] / (1 if spec.margin else 2)
    return (NORMAL.inv_cdf(1 - level) + NORMAL.inv_cdf(0.8)) * _standard_error(found["low"], found["high"])


def _standard_error(low: float, high: float) -> float:
    return max(high - low, 1e-12) / (2 * NORMAL.inv_cdf(0.975))


def _rounded(n: float) -> int:
    """Round up to two leading digits: more would pretend to know."""
    step = 10 ** max(0, math.floor(math.log10(n)) - 1)
    return int(math.ceil(n / step) * step)
