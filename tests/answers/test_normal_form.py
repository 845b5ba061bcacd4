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


@pytest.mark.parametrize("name", NUMBER_FORMS)
def test_the_example_of_a_way_to_write_a_number_is_read_by_its_pattern(name: str) -> None:
    pattern, example, form = NUMBER_FORMS[name]
    alone = re.fullmatch(pattern, example, re.X | re.I)
    among_all = re.fullmatch(VALUE, example, re.X | re.I)
    assert alone and among_all
    assert set(alone.groupdict(default="").items()) <= set(among_all.groupdict(default="").items())
    assert normal_form(example) == form
