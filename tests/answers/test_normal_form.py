"""The normal form of an answer: exact, and its own normal form."""

import re
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crescent_utils.answers.normal_form import NUMBER_FORMS, VALUE, normal_form


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=6), st.integers(-20, 20))
def test_decimals_and_exponents_are_exact(number: object, exponent: int) -> None:
    text = f"{number:f}"
    form = normal_form(f"{text}e{exponent}")
    assert Fraction(form) == Fraction(text) * Fraction(10) ** exponent
    assert "e" not in form


MESSY = st.text(alphabet="0123456789.,-/ :$%\\{}frac^x=+*()eE½−pmd", max_size=14)


@given(MESSY | st.text(max_size=30))
@example("0/$1")
@settings(max_examples=400, deadline=None)
def test_a_normal_form_is_its_own(text: str) -> None:
    form = normal_form(text)
    assert normal_form(form) == form


WAYS_TO_WRITE = [  # the pattern, an example, its normal form
    ("mixed number", "1 and 3/4", "1.75"),
    ("number and a part", "3 and a half", "3.5"),
    ("time or ratio", "03:30", "3:30"),
    ("fraction", "1,000/3", "1000/3"),
    ("power of ten", "1.2 x 10^{3}", "1200"),
    ("power", "2^10", "1024"),
    ("plain number", "1,23,456.50", "123456.5"),
]


def test_each_way_to_write_a_number_has_an_example() -> None:
    assert [name for name, _, _ in WAYS_TO_WRITE] == list(NUMBER_FORMS)


@pytest.mark.parametrize(("name", "example", "form"), WAYS_TO_WRITE)
def test_the_example_of_a_way_to_write_a_number_is_read_by_its_pattern(name: str, example: str, form: str) -> None:
    alone = re.fullmatch(NUMBER_FORMS[name], example, re.X | re.I)
    among_all = re.fullmatch(VALUE, example, re.X | re.I)
    assert alone and among_all
    assert set(alone.groupdict(default="").items()) <= set(among_all.groupdict(default="").items())
    assert normal_form(example) == form
