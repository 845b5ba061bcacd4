"""Equality of answers: against exact fractions, as an equivalence, with a parser that is slow, dies or is orphaned."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT

from crescent_utils.answers import equality
from crescent_utils.answers.equality import answers_equal
from crescent_utils.answers.normal_form import normal_form

MESSY = st.text(alphabet="0123456789.,-/ :$%\\{}frac^x=+*()eE½−pmd", max_size=14)

FRACTIONS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=400)


def grouped(value: int) -> str:
    return f"{value:,}"


@st.composite
def written(draw: st.DrawFn) -> tuple[Fraction, str]:
    """A fraction and one of the ways to write it."""
    value = draw(FRACTIONS)
    sign, size = ("-" if value < 0 else ""), abs(value)
    whole, rest = divmod(size, 1)
    k = draw(st.integers(1, 9))
    forms = [
        f"{sign}{size.numerator}/{size.denominator}",
        f"{sign}{k * size.numerator}/{k * size.denominator}",
        f"{sign}\\frac{{{size.numerator}}}{{{size.denominator}}}",
        f"${sign}{grouped(size.numerator)} / {size.denominator}$",
    ]
    if rest and whole:
        forms.append(f"{sign}{whole} {rest.numerator}/{rest.denominator}")
    if size.denominator == 1:
        n = size.numerator
        forms += [f"{sign}{n}", f"{sign}${grouped(n)}", f"{sign}{n}.00", f"{sign}{grouped(n)} apples", f"{sign}{n}%"]
        forms += [f"{sign}{n}e0", f"x = {sign}{n}", f"\\text{{about }}{sign}{n}", f"−{n}" if sign else f"{n}."]
    return value, draw(st.sampled_from(forms))


@settings(deadline=None)
@given(written(), written())
def test_equality_is_that_of_exact_fractions(a: tuple[Fraction, str], b: tuple[Fraction, str]) -> None:
    assert answers_equal(a[1], b[1]) == (a[0] == b[0])
    assert answers_equal(a[1], a[1])


@settings(deadline=None)
@given(st.data())
def test_two_ways_to_write_a_number_are_equal(data: st.DataObject) -> None:
    value, text = data.draw(written())
    assert answers_equal(text, f"{value.numerator}/{value.denominator}")
    assert not answers_equal(text, f"{value.numerator + value.denominator}/{value.denominator}")


@settings(deadline=None)
@given(st.lists(MESSY | written().map(lambda w: w[1]), min_size=3, max_size=3))
def test_equality_is_an_equivalence(texts: list[str]) -> None:
    forms = [normal_form(t) for t in texts]
    a, b, c = texts
    equal = [[x == y for y in forms] for x in forms]
    assert all(answers_equal(x, y) >= equal[i][j] for i, x in enumerate(texts) for j, y in enumerate(texts))
    assert answers_equal(a, b) == answers_equal(b, a)
    assert not (answers_equal(a, b) and answers_equal(b, c)) or answers_equal(a, c)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("1,234", "1234.0", True),
        ("1,234", "$1234", True),
        ("1/2", "0.5", True),
        ("50%", "50", True),
        ("50%", "0.5", False),
        ("1/3", "0.333333", False),
        ("1,00,000", "100000", True),
        ("3, 500", "3,500", False),
        ("5 6", "56", False),
        ("4:6", "2:3", True),
        ("3:30", "3:30 pm", True),
        ("3:30", "3.5", False),
        ("5:00", "5 pm", True),
        ("15:18", "5:6", False),
        ("2^10", "1024", True),
        ("1.2 \\times 10^{3}", "1200", True),
        ("twenty-two", "22", True),
        ("two thirds", "2/3", True),
        ("$1.5 million", "1500000", True),
        ("60 km/h", "60", True),
        ("5x", "5", False),
        ("5\\pi", "5", False),
        ("٣٤", "34", True),
        ("3½", "3.5", True),
        ("(B)", "b", True),
        ("The cat.", "cat", True),
        ("5/0", "6/0", False),
        ("0.1" + "0" * 400, "1/10", True),
        ("1e999999999", "10e999999998", True),
        ("1e999999999", "1e999999998", False),
        ("9" * 5000, "9" * 5000 + ".0", True),
        ("-0", "0", True),
        ("", "0", False),
        ("three hundred and five", "305", True),
    ],
)
def test_worked_equalities(a: str, b: str, same: bool) -> None:
    assert answers_equal(a, b) is same
    assert answers_equal(b, a) is same


def test_symbolic_answers_are_named_by_their_value() -> None:
    pytest.importorskip("math_verify")
    assert answers_equal("\\sqrt{8}", "2\\sqrt{2}")
    assert answers_equal("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}")
    assert answers_equal("\\sqrt{4}", "2")
    assert answers_equal("(x+1)^2", "x^2+2x+1")
    assert answers_equal("0.5\\pi", "\\frac{\\pi}{2}") and not answers_equal("0.333333333333\\pi", "\\frac{\\pi}{3}")
    assert (
        answers_equal("(x-1)(x+1)", "x^2-1")
        and answers_equal("1/3+1/6", "1/2")
        and answers_equal("2^{0.5}", "\\sqrt{2}")
    )
    assert not answers_equal("\\frac{x}{0}", "\\frac{y}{0}")
    assert not answers_equal("\\sqrt{2}", "\\sqrt{3}")
    start = time.perf_counter()
    assert not answers_equal("\\sqrt{9^{9^{9^{9}}}}", "1")
    assert time.perf_counter() - start < 20


SYMBOLIC = [
    "\\sqrt{8}",
    "2\\sqrt{2}",
    "8^{0.5}",
    "\\pi/2",
    "0.5\\pi",
    "\\frac{\\pi}{2}",
    "x^2-1",
    "(x-1)(x+1)",
    "1.5x",
    "\\frac{3x}{2}",
    "2+3",
    "5",
    "5.0",
    "10/2",
    "1/3+1/6",
    "0.5",
    "\\frac{1}{2}",
    "\\frac{x}{0}",
    "\\sqrt{",
    "9^{9^{9}}",
    "cat",
    "3 cats",
    "3",
]


def test_equality_is_transitive_over_symbolic_answers_and_whoever_asks() -> None:
    pytest.importorskip("math_verify")
    equal = {(a, b): answers_equal(a, b) for a in SYMBOLIC for b in SYMBOLIC}
    assert all(equal[a, a] and equal[a, b] == equal[b, a] for a, b in equal)
    assert all(equal[a, c] for a, b in equal if equal[a, b] for c in SYMBOLIC if equal[b, c])
    assert equal["8^{0.5}", "2\\sqrt{2}"] and not equal["x^2-1", "1.5x"]
    with ThreadPoolExecutor(4) as pool:  # the parser fails outside a main thread, its process does not
        assert list(pool.map(lambda pair: answers_equal(*pair), equal)) == list(equal.values())


# --- the parser's process ---------------------------------------------------------------------------------------------

SLOW = [f"(x+y+z+{n}w)^{{40}}" for n in range(1, 8)]  # seconds to expand, each of them


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A parser that no other test has used, with nothing in its cache and no time-out on record."""
    equality._parser.close()
    monkeypatch.setattr(equality, "TIMEOUTS", Counter())
    equality._parsed_value.cache_clear()
    yield
    equality._parser.close()
    equality._parsed_value.cache_clear()


@pytest.mark.filterwarnings("ignore:no value for:RuntimeWarning")
def test_many_timeouts_do_not_switch_the_comparison_off(parser: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "TIME_LIMIT", 0.2)
    assert not any(answers_equal(form, "1") for form in SLOW)
    assert set(equality.TIMEOUTS) == set(SLOW)
    monkeypatch.setattr(equality, "TIME_LIMIT", 20.0)
    assert answers_equal("\\sqrt{8}", "2\\sqrt{2}")


@pytest.mark.filterwarnings("ignore:no value for:RuntimeWarning")
def test_a_comparison_that_timed_out_is_counted_and_warned_of_and_tried_again(
    parser: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = "(x+y+z)^{60}", "(z+y+x)^{60}"
    monkeypatch.setattr(equality, "TIME_LIMIT", 0.05)
    with pytest.warns(RuntimeWarning, match=r"no value for '\(x\+y\+z\)\^\{60\}' within 0.05 s"):
        assert not answers_equal(one, other)
    assert equality.TIMEOUTS == {one: 1, other: 1}
    monkeypatch.setattr(equality, "TIME_LIMIT", 60.0)
    assert answers_equal(one, other), "the time-out was taken for a difference"


@pytest.mark.filterwarnings("ignore:no value for:RuntimeWarning")
def test_one_answer_that_always_times_out_holds_a_run_up_a_few_times_only(
    parser: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equality, "TIME_LIMIT", 0.05)
    for _ in range(equality.TRIES + 3):
        assert not answers_equal(SLOW[0], "1")
    assert equality.TIMEOUTS == {SLOW[0]: equality.TRIES}


@pytest.mark.filterwarnings("ignore:no value for:RuntimeWarning")
def test_a_parser_that_dies_is_replaced(parser: None) -> None:
    assert answers_equal("\\sqrt{12}", "2\\sqrt{3}")
    for process in psutil.Process().children(recursive=True):
        process.kill()
        process.wait()
    # The one that is lost with its process may be compared as text, on record; it is tried again.
    assert any(answers_equal("\\sqrt{75}", "5\\sqrt{3}") for _ in range(2))


def test_a_forked_process_has_a_parser_of_its_own(parser: None) -> None:
    assert answers_equal("\\sqrt{12}", "2\\sqrt{3}")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(answers_equal, "\\sqrt{27}", "3\\sqrt{3}").result(timeout=60)
    assert answers_equal("\\sqrt{75}", "5\\sqrt{3}"), "the parent's parser was ended with the child"


SCRIPT = """
import os, signal, psutil
from crescent_utils.answers import answers_equal
assert answers_equal("1,234", "1234.0") and not answers_equal("cat", "dog")
assert not psutil.Process().children(), "a process for what needs no parser"
print("read", flush=True)
assert answers_equal("\\\\sqrt{8}", "2\\\\sqrt{2}")
for child in psutil.Process().children(recursive=True):
    print(child.pid, flush=True)
"""
ENDINGS = {
    "normal": "",
    "an exception": "raise SystemError",
    "sys.exit": "import sys; sys.exit(3)",
    "a kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "in the middle of an answer": "import threading, time\n"
    "threading.Thread(target=answers_equal, args=('(x+y+z+w)^{99}', '1'), daemon=True).start()\n"
    "time.sleep(0.5)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_script_starts_the_parser_when_it_is_needed_and_leaves_no_process_behind(ending: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # with no `if __name__ == "__main__"`, as scripts are
    script.write_text(SCRIPT + ENDINGS[ending], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    read, *children = done.stdout.splitlines()
    assert read == "read" and children, done.stderr
    deadline = time.monotonic() + 10
    while (alive := [pid for pid in map(int, children) if psutil.pid_exists(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive
