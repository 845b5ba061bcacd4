"""One name for each symbolic value, from Math-Verify's parser in a process of its own, with a time limit (ours).

Answers are compared by these names and never in pairs, so that equality stays transitive. The parser runs in a separate
process because it fails outside a main thread and cannot be interrupted; one that overruns its limit is ended. Where it
gives nothing (not installed, too slow, not mathematics), the answer is its own name.
"""

from __future__ import annotations

import atexit
import json
import re
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Any

TIME_LIMIT = 2.0  # ours: seconds for one answer
START_LIMIT = 60.0  # ours: seconds until the parser is loaded
OVERRUNS = 5  # ours: after so many the parser is left alone, so that hostile answers cannot hold up a run
LONGEST = 120  # ours: longer expressions are compared as text
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_KNOWN = frozenset("sqrt frac dfrac tfrac pi cdot times div ln log sin cos tan left right pm theta infty e".split())
_SIGN = re.compile(r"\\|[A-Za-z)][*^]|[*+^][A-Za-z({]|\d[+*]\d|\)\(|\d[a-z](?![a-z])")
_TOWER = re.compile(r"\^\{[^{}]*\^|\^\(?-?\w+\)?\^|\^\{?-?\d{4}|!!|\d{3}!")


def is_expression(form: str) -> bool:
    """Whether a normal form is a short expression that is worth parsing: known commands, closed brackets, no towers."""
    if len(form) > LONGEST or not _SIGN.search(form) or _TOWER.search(form):
        return False
    if form.count("{") != form.count("}") or form.count("(") != form.count(")"):
        return False
    return all(name in _KNOWN for name in _COMMAND.findall(form))


class _Parser:
    """The process that parses, started at the first use."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()
        self.overruns = 0

    def _read(self, limit: float) -> str | None:
        """One line of its output; None, and no process any more, if that takes too long."""
        assert self.process is not None and self.process.stdout is not None
        timer = threading.Timer(limit, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            self.overruns += 1
            self.close()
            return None
        return line

    def _start(self) -> bool:
        command = [sys.executable, "-P", __file__]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        return self._read(START_LIMIT) is not None

    def name(self, form: str) -> str | None:
        """The canonical text of an expression, None where there is none in time."""
        with self.lock:
            try:
                if self.overruns >= OVERRUNS or (self.process is None and not self._start()):
                    return None
                assert self.process is not None and self.process.stdin is not None
                self.process.stdin.write(json.dumps(form) + "\n")
                self.process.stdin.flush()
                line = self._read(TIME_LIMIT)
            except OSError:
                self.close()
                return None
            found = json.loads(line) if line else None
            return found if isinstance(found, str) else None

    def close(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


_PARSER = _Parser()


atexit.register(_PARSER.close)


@lru_cache(maxsize=1 << 14)
def symbolic_name(form: str) -> str:
    """The canonical name of a symbolic answer: equal names mean equal values."""
    return (_PARSER.name(form) if is_expression(form) else None) or form


def _canonical(form: str) -> str | None:
    """Parse and expand one expression (inside the parser's process)."""
    import sympy
    from math_verify import parse

    try:
        parsed = parse(f"${form}$")
        if not parsed or isinstance(parsed[0], str):
            return None
        value = sympy.expand(_evaluated(parsed[0]))
        return None if value.has(sympy.zoo, sympy.nan, sympy.oo) else str(value)
    except Exception:  # whatever a hostile expression raises, it only means that it has no name
        return None


def _evaluated(expression: Any) -> Any:
    """The expression built anew: the parser leaves the root of 8 as it is, and a decimal as a float; here it is exact."""
    if getattr(expression, "is_Float", False):
        import sympy

        return sympy.Rational(str(expression))
    if not expression.args:
        return expression
    return expression.func(*map(_evaluated, expression.args))


def _serve() -> None:
    """Answer one JSON string a line until the input ends."""
    _canonical("1")
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(_canonical(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
