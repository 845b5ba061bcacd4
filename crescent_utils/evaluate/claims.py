"""The claims ledger: what the two papers claim, what the comparisons say of it, and a verdict for each.

The rule, ours, is fixed beforehand and can fall either way. A gain is *reproduced* if its 95 % interval lies above zero
and its p-value, Holm-corrected over the method's whole family of claims, is below ALPHA; else *not reproduced* if the
interval lies below SMALLEST_EFFECT (the equivalence margin: a loss, or a gain too small to matter); else
*inconclusive*. For "does not fall" the same holds with -MARGIN in the place of zero, and zero in the place of
SMALLEST_EFFECT.

The family is named in FAMILIES. A claim without a run counts in it with p = 1: what happens to be filled neither eases
nor hardens the test of the others.

The estimand follows from the seeds. Over several of them it is the mean gain of a training run by this recipe, over
seeds and items as two populations; with one seed it is the gain of this one trained model, over items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from ..benchmarks import SCORINGS, most_items
from ..stats import LEAST_P, holm, p_text, points_text
from .evaluation import deciding_rows

if TYPE_CHECKING:
    import pandas as pd

NORMAL = NormalDist()
SMALLEST_EFFECT = 0.02  # ours: less than two points would not make anybody change a pipeline
MARGIN = 0.02  # ours: the loss that "does not fall" and "is kept" allow
ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 100  # ours: nobody will be advised to train more models
SPREAD = ("seed_sd", "item_sd", "rest_sd")  # columns of a comparisons table
FAMILIES = {"crescent": ("C1", "C2", "C3", "C4", "C5", "C6"), "lmsi": ("L1", "L2")}  # tested together, see above
GENERAL = ("bbh",)  # benchmarks of this kit that are about general ability
REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NO_RUN = "reproduced", "not reproduced", "inconclusive", "no run"
ONE_TRAINING = "One training speaks here: how much another seed would differ is not in the interval."
# In a command these stand for the reader's own profile, such as params/cpu.yaml and params/lmsi_cpu.yaml.
PROFILES = {"crescent": "PARAMS.yaml", "lmsi": "LMSI_PARAMS.yaml"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One line of the ledger; numbers are shares (0.02 is two points), nan and 0 where there is no run."""

    id: str
    hypothesis: str
    comparison: str = ""
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    seeds: int = 0
    seed_sd: float = math.nan  # of the effect between seeds, between items, and beyond both; see `stats.Paired`
    item_sd: float = math.nan
    rest_sd: float = math.nan
    most_items: int = 0  # how many items the benchmarks have; 0: not known
    p: float = math.nan
    p_holm: float = math.nan
    detectable: float = math.nan  # smallest effect that this n would have shown with 80 % power at the family's level
    verdict: str = NO_RUN
    paper: str = ""
    command: str  # how to fill the claim; the profile may be a placeholder, see PROFILES

    @property
    def standard_error(self) -> float:
        """The standard error that the 95 % interval implies."""
        return max(self.high - self.low, 1e-12) / (2 * NORMAL.inv_cdf(0.975))

    @property
    def points(self) -> str:
        """The effect with its interval, in percentage points."""
        return points_text(self.effect, self.low, self.high)


@dataclass(frozen=True)
class Spec:
    """What a claim says, and which rows of a comparisons table are evidence for it."""

    id: str
    hypothesis: str
    command: str
    before: str = "base"
    after: str = "tuned"
    few_shot: bool | None = None  # None: any number of shots
    general: bool = False
    margin: bool = False  # judged as "does not fall by more than the margin"
    method: str = "crescent"
    paper: str = ""


_RUN = "crescent run {profile}"
_GENERAL = _RUN + " -p general_tasks='[arc_challenge, hellaswag, winogrande]'"
# A sweep runs the profile with and without the overlay and compares the two. Its labels are those of `before` here.
_SWEEP = "crescent sweep {profile} --overlays params/ablations/"
# Without a vote no question is rejected: the arms learn from equally many pairs, or size alone could decide.
_NO_VOTE = _SWEEP + "no_vote.yaml -p max_pairs={pairs}"
SPECS = (
    Spec("C1", "0-shot math improves", _RUN, few_shot=False),
    Spec("C2", "5-shot math does not fall", _RUN + " -p shots='[0, 5]'", few_shot=True, margin=True),
    Spec("C3", "general ability is kept", _GENERAL, general=True, margin=True),
    Spec(
        "C4",
        "Crescent data distils better than seed augmentation at equal budget",
        _SWEEP + "seed_augmentation.yaml",
        "student_seed",
        "student_tuned",
    ),
    Spec("C5", "without dedup it is worse", _SWEEP + "no_dedup.yaml", "tuned_no_dedup"),
    Spec("C6", "without the vote it is worse", _NO_VOTE, "tuned_no_vote"),
    Spec("L1", "LMSI improves math", _RUN, method="lmsi", paper="GSM8K 74.4 -> 82.1 (self-consistency)"),
    Spec(
        "L2",
        "the CoT formats are what matters",
        _SWEEP + "no_cot_formats.yaml",
        "tuned_no_cot_formats",
        method="lmsi",
        paper="GSM8K: all four formats 73.5, without the CoT formats 61.6, few-shot CoT only 69.4",
    ),
)


def claims_ledger(
    comparisons: pd.DataFrame, *, method: str = "crescent", profile: str = "", pairs: int = 200
) -> list[Claim]:
    """Judge every claim from a comparisons table (see `stats.compare_models`); a claim without rows is a blank.

    The rule, the family and the estimand are those of this module's first lines.

    `method` says by whose method the table's `tuned` was made: "crescent" or "lmsi". Symbolic scoring decides, and
    greedy decoding where there is any. The commands name `profile` (several, with blanks between; "": a placeholder),
    and C6's gives both its arms `pairs` pairs.
    """
    profiles = PROFILES | ({method: profile} if profile else {})
    claims = []
    for spec in SPECS:
        command = spec.command.format(profile=profiles[spec.method], pairs=pairs)
        blank = Claim(id=spec.id, hypothesis=spec.hypothesis, paper=spec.paper, command=command)
        claims.append(_with_evidence(blank, spec, comparisons, method))
    family = FAMILIES[method]
    corrected = holm([1.0 if claim.n == 0 else claim.p for claim in claims if claim.id in family])
    p_of = dict(zip(family, corrected, strict=True))
    return [
        _judged(replace(claim, p_holm=p_of[claim.id]), spec, len(family)) if claim.n else claim
        for claim, spec in zip(claims, SPECS, strict=True)
    ]


def ledger_to_json(claims: Iterable[Claim]) -> str:
    """Return claims as JSON text; what is not a number becomes null."""
    rows = [
        {name: None if value != value else value for name, value in asdict(claim).items()}  # nan is not itself
        for claim in claims
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Return claims as a table for a notebook, effects in percentage points.

    What a run could have shown stands only beside a verdict that left something to be shown.
    """
    import pandas as pd

    could_show = [f"{100 * c.detectable:.1f}" if c.n and c.verdict != REPRODUCED else "" for c in claims]
    return pd.DataFrame(
        {
            "claim": [c.id for c in claims],
            "hypothesis": [c.hypothesis for c in claims],
            "effect (points)": [c.points if c.n else "" for c in claims],
            "n": [f"{c.n:,}" if c.n else "" for c in claims],
            "seeds": [c.seeds or "" for c in claims],
            "p (Holm)": [p_text(c.p_holm) for c in claims],
            "verdict": [c.verdict for c in claims],
            "could show": could_show,
            "comparison": [c.comparison.replace("_", " ") for c in claims],
            "paper": [c.paper for c in claims],
        }
    ).set_index("claim")


def missing_runs(claims: Sequence[Claim]) -> str:
    """Return a line for each claim that no run speaks of yet, with the command that would fill it; "" for none."""
    lines = [f"{claim.id}: {claim.command}" for claim in claims if claim.verdict == NO_RUN]
    return "\n".join(["A run for each blank:", *lines]) if lines else ""


def main_claim(claims: Sequence[Claim]) -> Claim | None:
    """Return the claim that the model improved itself, C1 or L1; None where no run speaks of it."""
    return next((claim for claim in claims if claim.id in ("C1", "L1") and claim.verdict != NO_RUN), None)


def verdict_line(claims: Sequence[Claim]) -> str:
    """Return one plain sentence that says whether the model improved itself."""
    main = main_claim(claims)
    if main is None:
        return "No verdict yet: no run compares the model before and after training."
    where = main.comparison.split(": ")[-1]
    seeds = "one seed" if main.seeds == 1 else f"{main.seeds} seeds"
    numbers = f"{main.points} points on {where} (n = {main.n:,}, {seeds})"
    p = f"p < {LEAST_P}" if main.p_holm < LEAST_P else f"p = {p_text(main.p_holm)}"
    if main.verdict == REPRODUCED:
        said = f"Yes, the model improved itself: {numbers}, {p} after Holm's correction."
    elif main.verdict == NOT_REPRODUCED:
        said = f"No, the claimed gain did not appear: {numbers}."
    else:
        said = f"It cannot be told yet: {numbers}, {p} after Holm's correction; {main.verdict}."
    return f"{said} {ONE_TRAINING}" if main.seeds == 1 else said


def verdict_text(claims: Sequence[Claim], sources: pd.DataFrame, baselines: pd.DataFrame) -> str:
    """Return the verdict with what belongs beside it: what the gain is made of, and which rivals it does not beat.

    `sources` and `baselines` are 06's tables of these names, without rows where a run has none. Only a split of the
    very gain that was judged counts.
    """
    main = main_claim(claims)
    parts = [verdict_line(claims)]
    if main is not None:
        parts += [_of_completed(main, sources), _of_rivals(main, baselines)]
    return " ".join(filter(None, parts))


def _of_completed(main: Claim, sources: pd.DataFrame) -> str:
    """Say how much of the gain comes from items on which the base's answer had come to an end."""
    for (benchmark, shots), rows in sources.groupby(["benchmark", "shots"]) if len(sources) else []:
        is_judged = main.comparison == f"base -> tuned: {benchmark} {shots}-shot greedy"
        if is_judged and math.isclose(rows["gain"].sum(), main.effect, abs_tol=1e-9):
            complete = rows.set_index("base_answer").loc["complete"]
            points = points_text(complete["gain"], complete["low"], complete["high"])
            return (
                f"Of these points, {points} come from the {complete['share']:.1%} of items on which the base's answer "
                "had come to an end; on the others it was cut, could not be read, or went on."
            )
    return ""


def _of_rivals(main: Claim, baselines: pd.DataFrame) -> str:
    """Say which of the greedy rivals that need no such training the tuned model is worse than, or not surely better."""
    worse: list[str] = []
    unsettled: list[str] = []
    for row in baselines.to_dict("records"):
        rival = _rival(str(row["baseline"]))
        is_judged_pair = math.isclose(row["difference"], main.effect, abs_tol=1e-9)
        if not rival or row["tuned"] != "greedy" or row["low"] > 0 or is_judged_pair:
            continue
        points = points_text(row["difference"], row["low"], row["high"])
        (worse if row["high"] < 0 else unsettled).append(f"{rival} ({points})")
    said = [f"is worse than {' and '.join(worse)}"] if worse else []
    said += [f"is not surely better than {' and '.join(unsettled)}"] if unsettled else []
    return f"But the tuned model {', and '.join(said)}." if said else ""


def _rival(baseline: str) -> str:
    """Return in words a row of the table `baselines` that is a rival; "" for an ablated model, which is none."""
    if baseline.startswith("random labels"):
        return "a model trained on random labels"
    base, _, asked = baseline.partition(", ")
    if base != "base":
        return ""
    if asked.startswith("best zero-shot prompt"):
        return "the base with its best zero-shot prompt"
    prompt = asked.partition(",")[0]
    words = {"own": "its own exemplars", "exemplars": "exemplars by hand", "bare": "the bare question"}
    return f"the base asked with {words.get(prompt, f'the {prompt} prompt')}"


def _with_evidence(blank: Claim, spec: Spec, comparisons: pd.DataFrame, method: str) -> Claim:
    """Return the claim with what the comparisons say of it."""
    rows = _rows_of(comparisons, spec, method)
    if rows.empty:
        return blank
    # The ends are averaged as if the benchmarks' errors moved together (they share the trained models), so that the
    # interval is never too narrow. With one row this is the row's own interval.
    weights = rows["n"] / rows["n"].sum()
    effect, low, high = (float((rows[name] * weights).sum()) for name in ("difference", "low", "high"))
    names = " + ".join(f"{row.benchmark} {row.shots}-shot {row.decoding}" for row in rows.itertuples())
    comparison = f"{spec.before} -> {spec.after}: {names}"
    n, seeds = int(rows["n"].sum()), int(rows["seeds"].min())
    claim = replace(blank, comparison=comparison, effect=effect, low=low, high=high, n=n, seeds=seeds)
    available = [most_items(name) for name in rows["benchmark"]]
    claim = replace(claim, most_items=max(n, sum(available)) if all(available) else 0)
    if set(SPREAD) <= set(rows):  # a table of an older kit has none of them
        seed_sd, item_sd, rest_sd = (float((rows[name] * weights).sum(skipna=False)) for name in SPREAD)
        claim = replace(claim, seed_sd=seed_sd, item_sd=item_sd, rest_sd=rest_sd)
    if spec.margin:
        p = 1 - NORMAL.cdf((effect + MARGIN) / claim.standard_error)
    elif len(rows) == 1:
        p = float(rows["p_value"].iloc[0])
    else:
        p = 2 * (1 - NORMAL.cdf(abs(effect / claim.standard_error)))
    return replace(claim, p=p)


def _rows_of(comparisons: pd.DataFrame, spec: Spec, method: str) -> pd.DataFrame:
    """Return the rows of a comparisons table that are evidence for a claim."""
    if comparisons.empty or spec.method != method:
        return comparisons.iloc[:0]
    kit_scoring = comparisons["scoring"].isin(SCORINGS)  # the harness's own tasks are scored by their own metrics
    general = comparisons["benchmark"].str.lower().str.startswith(GENERAL) | ~kit_scoring
    same_models = (comparisons["before"] == spec.before) & (comparisons["after"] == spec.after)
    rows = comparisons[same_models & (general == spec.general)]
    rows = deciding_rows(rows)
    if spec.few_shot is not None:
        rows = rows[(rows["shots"] > 0) == spec.few_shot]
    greedy = rows[rows["decoding"] != "sampled"]
    return rows if greedy.empty else greedy


def _judged(claim: Claim, spec: Spec, family: int) -> Claim:
    """Return a claim that has a run with its verdict, and with the smallest effect that it would have shown.

    That is with 80 % power, at the level of Bonferroni's first step in the family; for a claim with a margin, the
    smallest distance from the margin.
    """
    level = ALPHA / family / (1 if spec.margin else 2)
    detectable = (NORMAL.inv_cdf(1 - level) + NORMAL.inv_cdf(POWER)) * claim.standard_error
    must_exceed, equivalent = (-MARGIN, 0.0) if spec.margin else (0.0, SMALLEST_EFFECT)
    if claim.low > must_exceed and claim.p_holm < ALPHA:
        verdict = REPRODUCED
    elif claim.high < equivalent:
        verdict = NOT_REPRODUCED
    else:
        # What would settle it if the effect seen (or the smallest of interest, if larger) is the true one. For a claim
        # with a margin: if the true difference is zero.
        effect = MARGIN if spec.margin else max(abs(claim.effect), SMALLEST_EFFECT)
        verdict = f"{INCONCLUSIVE} ({_what_would_settle(claim, effect, level)})"
    return replace(claim, detectable=detectable, verdict=verdict)


def _what_would_settle(claim: Claim, effect: float, level: float) -> str:
    """Say how many seeds and items would show `effect` with 80 % power at `level`: the fewest seeds that suffice.

    It never asks for more items than there are. A single seed does not tell how seeds differ: then it speaks of items
    as long as there are enough.
    """
    from scipy.special import stdtrit

    item_sd = claim.standard_error * math.sqrt(claim.n) if math.isnan(claim.item_sd) else claim.item_sd
    if claim.seeds == 1 or math.isnan(claim.seed_sd):
        target = effect / (NORMAL.inv_cdf(1 - level) + NORMAL.inv_cdf(POWER))
        items = max((item_sd / target) ** 2, claim.n + 1)
        if not claim.most_items or items <= claim.most_items:
            return f"needs about {_round_up(items, claim.most_items):,} items"
        return f"the {claim.most_items:,} items that there are do not settle it for one seed; run more seeds"
    for seeds in range(claim.seeds, MOST_SEEDS + 1):
        degrees = seeds - 1 if claim.seed_sd > 0 else claim.n - 1
        target = effect / float(stdtrit(degrees, 1 - level) + stdtrit(degrees, POWER))
        item_variance = target**2 - claim.seed_sd**2 / seeds
        if item_variance <= 0:
            continue
        items = (item_sd**2 + claim.rest_sd**2 / seeds) / item_variance
        items = max(items, claim.n + (seeds == claim.seeds))
        if not claim.most_items or items <= claim.most_items:
            return f"needs about {_round_up(items, claim.most_items):,} items and {seeds} seeds"
    most = f" of all {claim.most_items:,} items" if claim.most_items else ""
    return f"{MOST_SEEDS} seeds{most} would not settle it"


def _round_up(n: float, most: int) -> int:
    """Round up to two leading digits, since more would pretend to know, but not beyond `most` (0: no limit)."""
    step = 10 ** max(0, math.floor(math.log10(n)) - 1)
    rounded = int(math.ceil(n / step) * step)
    return min(rounded, most) if most else rounded
