"""Progress: what a bar says, and that a log gets bars and nothing else."""

from __future__ import annotations

import io
import re

import pytest

from crescent_utils.runs import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch, capsys):
    monkeypatch.setenv(progress.PROGRESS_SECONDS, "0.0001")
    monkeypatch.setenv("TQDM_DISABLE", "1")  # an engine's environment may say so; its bars are meant
    bar = progress.ProgressBar("base", shown=True)
    bar.start(4)
    for accepted in (True, False, True):
        bar.update(25, accepted)
    bar.start(1)
    bar.update(25, None)
    bar.close()
    return capsys.readouterr().err


def test_a_bar_counts_completions_tokens_and_what_was_accepted(shown):
    last = progress.LINE.findall(shown)[-1]
    assert last.startswith("base  80% |") and "4/5 completions, " in last
    assert re.search(r"[\d,]+ tokens/s, 67% accepted", last)


def test_a_bar_says_what_it_counts_and_gives_likelihoods_no_tokens(monkeypatch, capsys):
    monkeypatch.setenv(progress.PROGRESS_SECONDS, "0.0001")
    bar = progress.ProgressBar("base", shown=True, unit="likelihoods")
    bar.start(2)
    bar.update(0, None)
    bar.close()
    last = progress.LINE.findall(capsys.readouterr().err)[-1]
    assert "1/2 likelihoods [" in last and "tokens" not in last


def test_a_bar_that_nobody_wants_or_that_has_nothing_to_do_prints_nothing(capsys):
    for bar in (progress.ProgressBar("base", shown=False), progress.ProgressBar("base", shown=True)):
        if not bar._shown:
            bar.start(3)
            bar.update(5, True)
        bar.pause()
        bar.close()
    assert capsys.readouterr().err == ""


def test_a_bar_foretells_no_time_before_some_per_cent_are_done(monkeypatch, capsys):
    monkeypatch.setenv(progress.PROGRESS_SECONDS, "0")
    bar = progress.ProgressBar("base", shown=True)
    bar.start(200)
    for _ in range(20):
        bar.update(25, None)
    bar.start(600)  # 20 of 800 are few again
    bar.update(25, None)
    steps = progress.ProgressBar("training", shown=True, unit="steps")
    steps.start(9)
    steps.step(1, 0.6)
    lines = progress.LINE.findall(capsys.readouterr().err)
    foretold = {re.search(r"\d+/\d+", line)[0]: "<" in line.rpartition("[")[2] for line in lines}
    assert foretold["9/200"] is False and foretold["10/200"] is foretold["20/200"] is True
    assert foretold["21/800"] is False and foretold["1/9"] is True
    assert all(re.search(r" \[\d\d:\d\d(<[^\]]*)?\]$", line) for line in lines)


def test_a_log_gets_a_line_a_bar_and_no_noise(shown):
    log = io.StringIO()
    echo = progress.ProgressEcho(log, "01_elicit")
    echo.write("UserWarning: this is no bar 3/4\n")
    echo.write(shown)
    echo.write(shown)
    echo.write("\r")
    assert re.fullmatch(r"01_elicit base  80% \|.*\]\n", log.getvalue())


def test_a_terminal_gets_one_line_over_and_over(shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    screen = Terminal()
    echo = progress.ProgressEcho(screen, "01_elicit")
    echo.write(shown)
    echo.write(shown.replace("5 completions", "6 completions"))
    parts = screen.getvalue().split("\r\x1b[K")
    assert len(parts) == 3 and "\n" not in screen.getvalue()
    assert all(len(part) <= 59 for part in parts)
