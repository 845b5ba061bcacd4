"""Problem spaces: arithmetic benchmarks large enough that test items are few among what a model may write.

A name says its space: the family, then the largest number of each place, one for all or one each, joined by "x".

- `two_numbers_190`: "What is 150 + 37?", sums and differences of two numbers from 1 to 190. `two_numbers_999x20` has a
  second number of at most 20. `two_numbers_190_products_20` adds the products of two numbers up to 20.
- `three_terms_40`: "What is 7 + 12 - 5?", sums and differences of three numbers from 1 to 40; `three_terms_25_sums` has
  sums alone.

Nothing on the way from left to right is below zero. A problem is what it asks to add, take away or multiply, in
whatever order: "7 + 12 - 5" and "12 - 5 + 7" are one problem, which stands in one split. A seed shuffles the problems
of the space. The first of them are held out, a sixth as dev and the rest as test: one in twenty, or of a small space so
many that they can decide something, but at most one in five. The next few are the worked examples, and the remaining
ones are the train split. So the splits share no problem, and no more of the space than what is held out and the worked
examples can fall to decontamination. Ours.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from collections.abc import Iterator

from .files import Benchmark, BenchmarkError, Item

HELD_OUT = 0.05  # ours: share of a space that is dev and test
ENOUGH_HELD_OUT = 600  # ours: problems; where HELD_OUT gives fewer, more are held out ...
MOST_HELD_OUT = 0.2  # ours: ... up to this share
DEV_SHARE = 6  # ours: one in so many held-out problems is dev
WORKED_EXAMPLES = 8  # ours
MOST_WRITTEN = 1_000_000  # ours: to list more ways of writing problems takes longer than some seconds
EXAMPLES = "two_numbers_190, two_numbers_999x20, two_numbers_190_products_20, three_terms_40, three_terms_25_sums"
HELD_OUT_SPLITS = ("dev", "test", "few_shot")  # nothing is trained on their problems
SPLITS = (*HELD_OUT_SPLITS, "train")
_NAME = re.compile(r"(two_numbers|three_terms)_(\d+(?:x\d+)*)(?:_products_(\d+(?:x\d+)?)|_sums)?")
_FAMILIES = ("two_numbers_", "three_terms_")
_KINDS = {
    "+": "addition", "-": "subtraction", "*": "multiplication",
    "++": "three added", "+-": "one taken away", "-+": "one taken away", "--": "two taken away",
}  # fmt: skip

Written = tuple[tuple[int, ...], str]  # the numbers of a problem as it is written, and the signs between them


def is_space(name: str) -> bool:
    """Return whether a benchmark's name is that of a problem space, though its ranges may be wrong."""
    return name.startswith(_FAMILIES)


def load_space(name: str, split: str, items: int, seed: int) -> Benchmark:
    """Return `split` (dev, test, few_shot or train) of the space `name`, as `seed` shuffles it.

    `items` is the number of test items (0: all); the other splits are whole. Raises BenchmarkError for a name that says
    no space, an unknown split, and more test items than the space holds out.
    """
    if split not in SPLITS:
        raise BenchmarkError(f"benchmark_split: {split!r} is not allowed; choose one of {', '.join(SPLITS)}")
    problems = _shuffled(name, seed)
    held_out = _held_out(len(problems))
    dev_items = held_out // DEV_SHARE
    if items > held_out - dev_items:
        raise BenchmarkError(
            f"benchmark_items: {items} is too many; {name} has {len(problems):,} problems, of which "
            f"{held_out - dev_items:,} are test items. Name a larger range, or lower benchmark_items"
        )
    first_train = held_out + WORKED_EXAMPLES
    bounds = {
        "dev": (0, dev_items),
        "test": (dev_items, dev_items + items if items else held_out),
        "few_shot": (held_out, first_train),
        "train": (first_train, len(problems)),
    }
    few_shot = tuple(_item(problem) for problem in problems[held_out:first_train])
    start, end = bounds[split]
    source = f"{split} split of {len(problems):,} problems, {held_out / len(problems):.1%} held out, seed {seed}"
    return Benchmark(name, tuple(_item(problem) for problem in problems[start:end]), few_shot, source)


def test_items(name: str) -> int:
    """Return how many test items the space `name` has, whatever the seed."""
    held_out = _held_out(_problem_count(name))
    return held_out - held_out // DEV_SHARE


@functools.lru_cache(maxsize=4)
def _problem_count(name: str) -> int:
    return len({_identity(numbers, signs) for numbers, signs in _written(name)})


def _held_out(problems: int) -> int:
    return max(int(problems * HELD_OUT), min(ENOUGH_HELD_OUT, int(problems * MOST_HELD_OUT)))


@functools.lru_cache(maxsize=4)
def _shuffled(name: str, seed: int) -> tuple[Written, ...]:
    """Return every problem of the space once, written in one of its ways, in the order that `seed` gives."""
    generator = random.Random(f"{name} {seed}")
    written = list(_written(name))
    generator.shuffle(written)
    once = {_identity(numbers, signs): (numbers, signs) for numbers, signs in written}
    problems = sorted(once.values())  # else a problem with more ways of writing would tend to come first
    generator.shuffle(problems)
    return tuple(problems)


def _identity(numbers: tuple[int, ...], signs: str) -> tuple[int | str, ...]:
    """Return what makes a problem itself: its factors, or its terms with their signs, in order of size."""
    if signs == "*":
        return ("*", *sorted(numbers))
    signed = (-number if sign == "-" else number for sign, number in zip(f"+{signs}", numbers, strict=True))
    return tuple(sorted(signed))


def _written(name: str) -> Iterator[Written]:
    """Yield every way in which a problem of the space can be written: (150, 37), "+"."""
    terms, factors = _ranges(name)
    sign_sets = ["".join(signs) for signs in itertools.product(_signs(name), repeat=len(terms) - 1)]
    for signs in sign_sets:
        for numbers in itertools.product(*(range(1, largest + 1) for largest in terms)):
            if min(_running_totals(numbers, signs)) >= 0:
                yield numbers, signs
    if factors:
        for numbers in itertools.product(*(range(1, largest + 1) for largest in factors)):
            yield numbers, "*"


def _running_totals(numbers: tuple[int, ...], signs: str) -> list[int]:
    """Return the totals from left to right, the last of which is the answer: 7 + 12 - 5 gives 19, 14."""
    if signs == "*":
        return [numbers[0] * numbers[1]]
    signed = [-number if sign == "-" else number for sign, number in zip(signs, numbers[1:], strict=True)]
    return list(itertools.accumulate(signed, initial=numbers[0]))[1:]


def _ranges(name: str) -> tuple[list[int], list[int]]:
    """Return the largest number of each place: of sums and differences, and of products (none: [])."""
    match = _NAME.fullmatch(name)
    places = 3 if name.startswith("three_terms") else 2
    if match and not (places == 3 and match[3]):
        terms, factors = _largest(match[2], places), _largest(match[3] or "", 2)
        if len(terms) == places and len(factors) in (0, 2) and min(terms + factors) >= 1:
            ways = math.prod(terms) * len(_signs(name)) ** (places - 1) + (math.prod(factors) if factors else 0)
            if ways <= MOST_WRITTEN:
                return terms, factors
            raise BenchmarkError(
                f"evaluate_on: {name!r} has {ways:,} ways of writing its problems, at most {MOST_WRITTEN:,} are "
                "listed; name smaller ranges"
            )
    raise BenchmarkError(
        f"evaluate_on: {name!r} names no problem space: the family, then the largest number for all places or for "
        f"each, such as {EXAMPLES}"
    )


def _signs(name: str) -> str:
    return "+" if name.endswith("_sums") else "+-"


def _largest(text: str, places: int) -> list[int]:
    """Return "40" as 40 for each place, "999x20" as 999 and 20."""
    numbers = [int(number) for number in text.split("x") if number]
    return numbers * places if len(numbers) == 1 else numbers


def _item(problem: Written) -> Item:
    """Return the problem as an item; its solution works from left to right, a sentence for each step."""
    numbers, signs = problem
    totals = _running_totals(numbers, signs)
    expression = str(numbers[0]) + "".join(f" {sign} {n}" for sign, n in zip(signs, numbers[1:], strict=True))
    steps = [
        f"{left} {sign} {right} is {total}."
        for left, sign, right, total in zip([numbers[0], *totals], signs, numbers[1:], totals, strict=False)
    ]
    solution = " ".join([*steps, f"The answer is {totals[-1]}."])
    return Item(f"What is {expression}?", str(totals[-1]), solution, kind=_KINDS[signs])
