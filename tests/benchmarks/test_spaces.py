"""Problem spaces: their problems against a list made by brute force, their splits against each other."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT

from crescent_utils import benchmarks
from crescent_utils.answers import reading
from crescent_utils.benchmarks import items, spaces
from crescent_utils.benchmarks.files import BenchmarkError
from crescent_utils.elicit import questions
from crescent_utils.runs import domains, params
from crescent_utils.vote import unlabelled

LARGE = ["two_numbers_190", "two_numbers_999x20", "two_numbers_190_products_20", "three_terms_40"]
SMALL = ["two_numbers_12", "two_numbers_20x5", "two_numbers_9_products_7x3", "three_terms_6", "three_terms_9x4x2",
         "three_terms_7_sums", "two_numbers_9x30_sums"]  # fmt: skip


def whole_space(name, seed=2025):
    return [item for split in spaces.SPLITS for item in benchmarks.load_benchmark(name, split=split, seed=seed).items]


def written_problems(name):
    """Each problem of a space as all the texts that ask it, by Python's own arithmetic: key -> {text: value}."""
    numbers = [int(number) for number in re.search(r"_(\d+(?:x\d+)*)", name)[1].split("x")]
    places = 3 if name.startswith("three") else 2
    terms = numbers * places if len(numbers) == 1 else numbers
    cases = [(terms, signs) for signs in itertools.product("+" if "sums" in name else "+-", repeat=places - 1)]
    if products := re.search(r"products_(\d+)x?(\d*)", name):
        cases.append(([int(products[1]), int(products[2] or products[1])], ("*",)))
    problems: dict[object, dict[str, int]] = {}
    for largest, signs in cases:
        for chosen in itertools.product(*(range(1, top + 1) for top in largest)):
            text = str(chosen[0]) + "".join(f" {sign} {n}" for sign, n in zip(signs, chosen[1:], strict=True))
            prefixes = [" ".join(text.split()[:end]) for end in range(3, len(text.split()) + 1, 2)]
            if min(map(eval, prefixes)) < 0:
                continue
            added = sorted(n for sign, n in zip(("+", *signs), chosen, strict=True) if sign != "-")
            taken = sorted(n for sign, n in zip(signs, chosen[1:], strict=True) if sign == "-")
            problems.setdefault((signs == ("*",), *added, "|", *taken), {})[text] = eval(text)
    return problems


@pytest.mark.parametrize("name", SMALL)
def test_a_space_holds_each_problem_once_with_its_value(name):
    expected = written_problems(name)
    loaded = whole_space(name)
    assert len(loaded) == len(expected)
    values = {text: value for texts in expected.values() for text, value in texts.items()}
    texts = [re.fullmatch(r"What is (.+)\?", item.question)[1] for item in loaded]
    assert [item.gold for item in loaded] == [str(values[text]) for text in texts]
    key_of = {text: key for key, texts in expected.items() for text in texts}
    assert {key_of[text] for text in texts} == set(expected)


@pytest.mark.parametrize("name", SMALL)
def test_two_items_never_ask_one_problem_in_other_words(name):
    for texts in written_problems(name).values():
        assert len({items.overlap_key(f"What is {text}?") for text in texts}) == 1
    keys = [items.overlap_key(item.question) for item in whole_space(name)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", LARGE)
def test_a_large_space_has_at_least_1500_test_items_in_a_twentieth(name):
    parts = {split: benchmarks.load_benchmark(name, split=split).items for split in spaces.SPLITS}
    size = sum(map(len, parts.values()))
    assert size > 36_000 and len(parts["test"]) >= 1500 and len(parts["dev"]) >= 300
    assert len(parts["dev"]) + len(parts["test"]) <= size / 20
    questions_of = {split: {item.question for item in part} for split, part in parts.items()}
    assert len(set.union(*questions_of.values())) == size
    loaded = benchmarks.load_benchmark(name, items=100)
    assert loaded.items == parts["test"][:100] and loaded.train == parts["few_shot"]
    assert f"{size:,} problems" in loaded.source and "test split" in loaded.source


@pytest.mark.parametrize(("name", "size", "held_out"), [
    ("three_terms_25_sums", 2925, 585),  # combinations of three out of 25, repeats allowed; a fifth is less than 600
    ("three_terms_40_sums", 11480, 600),  # a twentieth is less than 600
    ("two_numbers_190", 36290, 1814),
])  # fmt: skip
def test_a_small_space_holds_out_more_that_its_items_can_decide_something(name, size, held_out):
    parts = {split: len(benchmarks.load_benchmark(name, split=split).items) for split in spaces.SPLITS}
    assert sum(parts.values()) == size and parts["dev"] + parts["test"] == held_out


def test_what_is_held_out_does_not_depend_on_how_many_items_are_asked():
    domain = domains.get_domain("three_terms")
    few, many = (
        benchmarks.load_held_out(params.build_settings("evaluate", {"benchmark_items": items}), domain)
        for items in (100, 488)
    )
    assert few == many and [len(part.items) for part in few] == [97, 488, 8]
    asked = benchmarks.load_evaluated(params.build_settings("evaluate", {"benchmark_items": 100}), domain)[0]
    assert all(benchmarks.repeated_items([item.question for item in (*asked.items, *asked.train)], few))
    train = benchmarks.load_benchmark("three_terms_25_sums", split="train").items
    assert not any(benchmarks.repeated_items([item.question for item in train], few))


@pytest.mark.parametrize("name", [*SMALL, "arithmetic"])
def test_the_most_items_are_what_can_be_loaded(name):
    most = items.most_items(name)
    assert len(benchmarks.load_benchmark(name, items=most, seed=4).items) == most
    with pytest.raises(BenchmarkError, match=f"benchmark_items: {most + 1} is too many"):
        benchmarks.load_benchmark(name, items=most + 1)
    assert items.most_items("arc_challenge") == 0


def test_seeds_and_names_make_other_splits():
    load = benchmarks.load_benchmark
    assert load("three_terms_6", seed=1) == load("three_terms_6", seed=1)
    assert load("three_terms_6", seed=1).items != load("three_terms_6", seed=2).items


def test_each_problem_is_as_likely_held_out_however_many_ways_there_are_to_write_it():
    # 5 + 5 can be written in one way, 5 + 6 in two: over many seeds both are held out about as often.
    held = [
        items.arithmetic_problem(item.question)
        for seed in range(300)
        for split in ("dev", "test")
        for item in benchmarks.load_benchmark("two_numbers_12", split=split, seed=seed).items
    ]
    sums = [problem for problem in held if problem[1] == "+"]
    doubles = sum(a == b for a, _, b in sums)
    assert 0.10 < doubles / len(sums) < 0.21  # 12 of 78 sums are doubles: 0.154; if ways counted, 12 of 144: 0.083


@pytest.mark.parametrize("name", [*LARGE[:3], "three_terms_9"])
def test_a_worked_example_states_running_totals_and_the_gold(name):
    for item in benchmarks.load_benchmark(name, split="few_shot").items:
        assert reading.extract_answer(item.solution) == item.gold == items.arithmetic_gold(item.question)
        steps = re.findall(r"(\d+ [-+*] \d+) is (\d+)\.", item.solution)
        assert len(steps) == len(re.findall(r"\d+", item.question)) - 1
        assert all(eval(left) == int(value) for left, value in steps) and steps[-1][1] == item.gold


@pytest.mark.parametrize(
    "name",
    ["two_numbers_", "two_numbers_0", "two_numbers_9x", "two_numbers_9x9x9", "two_numbers_190_products_",
     "three_terms_9x9", "three_terms_5_products_5", "three_terms_-3", "three_terms_5_sum",
     "two_numbers_9_sums_products_5"],
)  # fmt: skip
def test_a_name_that_says_no_space_is_refused_with_examples(name):
    with pytest.raises(BenchmarkError, match=rf"evaluate_on: {name!r} names no problem space.*three_terms_40"):
        benchmarks.load_benchmark(name)


def test_a_space_too_large_to_list_and_too_many_items_are_refused():
    with pytest.raises(BenchmarkError, match="'two_numbers_5000' has 50,000,000 ways.*smaller ranges"):
        benchmarks.load_benchmark("two_numbers_5000")
    with pytest.raises(BenchmarkError, match=r"benchmark_items: 400 is too many; three_terms_9 has .* larger range"):
        benchmarks.load_benchmark("three_terms_9", items=400)
    with pytest.raises(BenchmarkError, match="benchmark_split: 'valid' is not allowed"):
        benchmarks.load_benchmark("three_terms_9", split="valid")


TERMS = st.lists(st.tuples(st.sampled_from(["+", "-"]), st.integers(0, 10**6)), min_size=2, max_size=2)
WORDS = {"+": ["+", "plus", "added to"], "-": ["-", "minus", "−"]}


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**6), 10**6), TERMS, st.data())
def test_a_sum_of_three_terms_has_its_value_and_one_key_in_any_order(first, others, data):
    text = str(first) + "".join(f" {data.draw(st.sampled_from(WORDS[sign]))} {number}" for sign, number in others)
    signed = [first, *(-number if sign == "-" else number for sign, number in others)]
    assert Fraction(items.arithmetic_gold(f"What is {text}?")) == sum(signed)
    shuffled = data.draw(st.permutations(signed))
    again = f"{shuffled[0]} + {shuffled[1]} + {shuffled[2]}"
    assert items.overlap_key(f"What is {text}?") == items.overlap_key(f"Compute {again}.")
    other = f"{shuffled[0]} + {shuffled[1]} + {shuffled[2] + 1}"
    assert items.overlap_key(f"What is {text}?") != items.overlap_key(f"Compute {other}.")


def test_the_domain_of_three_terms_is_whole():
    domain = domains.get_domain("three_terms")
    gates = domains.validity_gates(domain)
    for item in benchmarks.load_benchmark(domain.benchmarks[0]).items[:50]:
        assert questions.extract_question(item.question, **gates) == questions.Question(item.question)
    assert isinstance(questions.extract_question("What is 3 + 4?", **gates), questions.Rejected)
    assert isinstance(questions.extract_question("What is 3 * 4 + 2?", **gates), questions.Rejected)
    assert isinstance(questions.extract_question("What is 9 + 4 - 2?", **gates), questions.Rejected)
    for example in domain.exemplars:
        assert items.arithmetic_gold(example.question) == example.answer == reading.extract_answer(example.path)
        first, second = re.findall(r"(\d+ \+ \d+) is (\d+)\.", example.path)
        assert (eval(first[0]), eval(second[0])) == (int(first[1]), int(example.answer))
    lines = yaml.safe_load((ROOT / "params" / "domains" / "three_terms.yaml").read_text(encoding="utf-8"))
    assert "exemplars" in lines and lines["benchmarks"] == ["three_terms_25_sums"]


def test_a_space_gives_training_questions_with_golds():
    settings = params.build_settings("vote", {"question_source": "three_terms_9", "domain": "three_terms"})
    held_out = [benchmarks.load_benchmark("three_terms_9", split=split) for split in spaces.HELD_OUT_SPLITS]
    assert "three_terms_9" in unlabelled.load_unlabelled(settings, held_out).source
    found = unlabelled.load_unlabelled(settings, held_out)
    assert len(found.questions) > 400 and found.rejected.empty
    assert found.questions["gold"].tolist() == [items.arithmetic_gold(text) for text in found.questions["question"]]
