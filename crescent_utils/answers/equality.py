"""Equality: whether two answers are the same, and the name of the class of equal answers that one belongs to.

Most answers are settled by their normal form ("1,234" is "1234.0"). For a short expression that is not ("2*sqrt(3)"),
the class is named by its exact value, which Math-Verify's parser and SymPy work out. Classes are compared and never
answers in pairs, so that equality stays transitive.

The parser fails outside a main thread and cannot be interrupted, so it runs in one process of its own with a time limit
for each expression. The process starts when the first expression is compared and ends with this one.
An expression without a value (no mathematics, a division by zero) is compared as text. One that overruns the limit is
compared as text too, but that is no finding: it is counted in `TIMEOUTS`, warned of, and tried again the next time.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from .normal_form import is_integer, is_number, normal_form

TIME_LIMIT = 2.0  # ours: seconds for one expression
TRIES = 3  # ours: an expression that has timed out so often is left alone, so that a hostile one cannot hold up a run
LONGEST_ORPHAN = 30.0  # ours: seconds of computing after which the parser ends where its killed parent cannot end it
LONGEST = 120  # ours: longer expressions are compared as text
TIMEOUTS: Counter[str] = Counter()  # expressions without a value in time, and how often

_COMMAND = re.compile(r"\\([A-Za-z]+)")
_MATHEMATICS = frozenset(
    "sqrt frac dfrac tfrac pi cdot times div ln log sin cos tan left right pm theta infty e".split()
)
_LOOKS_SYMBOLIC = re.compile(r"\\|[A-Za-z)][*^]|[*+^][A-Za-z({]|\d[+*]\d|\)\(|\d[a-z](?![a-z])")
_TOWER = re.compile(r"\^\{[^{}]*\^|\^\(?-?\w+\)?\^|\^\{?-?\d{4}|!!|\d{3}!")  # "9^9^9", "2^1000", "5!!": too large


def answers_equal(a: str, b: str) -> bool:
    """Return whether two answers are the same; an equivalence, since it compares their classes."""
    if is_integer(a) and is_integer(b):  # by far the most frequent case
        return a == b
    form_a, form_b = normal_form(a), normal_form(b)
    if form_a == form_b or (is_number(form_a) and is_number(form_b)):
        return form_a == form_b
    return equality_class(a) == equality_class(b)


def equality_class(answer: str) -> str:
    """Return the name of an answer's class: its normal form, or the value of a symbolic expression."""
    form = normal_form(answer)
    return normal_form(_symbolic_value(form)) if is_expression(form) else form


def equality_classes(answers: Iterable[Any]) -> list[str | None]:
    """Return the class of each answer; None where there is no text (in a table, a missing answer may be nan)."""
    return [equality_class(answer) if isinstance(answer, str) else None for answer in answers]


def is_expression(form: str) -> bool:
    """Return whether a normal form is a short expression that is worth parsing."""
    if len(form) > LONGEST or not _LOOKS_SYMBOLIC.search(form) or _TOWER.search(form):
        return False
    if form.count("{") != form.count("}") or form.count("(") != form.count(")"):
        return False
    return all(command in _MATHEMATICS for command in _COMMAND.findall(form))


def _symbolic_value(form: str) -> str:
    """Return the canonical text of an expression's value, or the expression where there is none (in time)."""
    if TIMEOUTS[form] >= TRIES:
        return form
    try:
        return _parsed_value(form) or form
    except TimeoutError:
        TIMEOUTS[form] += 1
        warnings.warn(
            f"no value for {form!r} within {TIME_LIMIT:g} s: it was compared as text", RuntimeWarning, stacklevel=2
        )
        return form


@lru_cache(maxsize=1 << 14)
def _parsed_value(form: str) -> str | None:  # a TimeoutError is not cached
    return _parser.value(form)


# --- the parser's process ---------------------------------------------------------------------------------------------


class _Parser:
    """A process that parses, started at the first use.

    The pools of pebble and of the standard library were tried: with a process that is killed while it waits, or an exit
    in the middle of an answer, both can hang. One process and a pipe have neither threads nor locks to wait for.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a forked process must: the parser answers to its parent."""
        self.process: Any = None
        self.connection: Any = None
        self.lock = threading.Lock()

    def value(self, form: str) -> str | None:
        """Return the canonical text of an expression, None where it has none; TimeoutError if that takes too long."""
        with self.lock:
            try:
                if self.process is None or not self.process.is_alive():
                    self._start()
                self.connection.send(form)
                if self.connection.poll(TIME_LIMIT):
                    value: str | None = self.connection.recv()
                    return value
            except (EOFError, OSError):  # it was killed
                pass
            self.close()
            raise TimeoutError

    def _start(self) -> None:
        import math_verify  # noqa: F401 - loaded here once, each new process has it from its first moment

        self.close()
        # "fork", for a spawned process would run a script without `if __name__ == "__main__"` a second time.
        context = multiprocessing.get_context("fork")
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=[far_end, self.connection], daemon=True)
        self.process.start()
        far_end.close()

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
        self.process = None


_parser = _Parser()
os.register_at_fork(after_in_child=_parser.forget)


def _serve(connection: Any, parents_end: Any) -> None:
    """Answer each expression that arrives until the parent ends (inside the parser's process)."""
    parents_end.close()  # or the pipe would stay open when the parent is killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupting a notebook is no concern of the parser
    while True:
        try:
            form = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, LONGEST_ORPHAN)
        connection.send(_canonical(form))


def _canonical(form: str) -> str | None:
    """Parse and expand one expression (inside the parser's process)."""
    try:
        import sympy
        from math_verify import parse

        parsed = parse(f"${form}$")
        if not parsed or isinstance(parsed[0], str):
            return None
        value = sympy.expand(_exact(parsed[0]))
        return None if value.has(sympy.zoo, sympy.nan, sympy.oo) else str(value)
    except Exception:  # whatever a hostile expression raises, it only means that it has no value
        return None


def _exact(expression: Any) -> Any:
    """Return the expression built anew: the parser leaves the root of 8 as it is, and a decimal as a float."""
    if getattr(expression, "is_Float", False):
        import sympy

        return sympy.Rational(str(expression))
    if not expression.args:
        return expression
    return expression.func(*map(_exact, expression.args))
