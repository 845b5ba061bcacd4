"""One kernel for a run: it forgets between notebooks, and dies at most once without harm."""

from __future__ import annotations

import os
import signal
import sys

import nbformat
import pytest

from crescent_utils.cli.kernel import Kernel, bars_alone


@pytest.fixture
def kernel(tmp_path):
    with Kernel(tmp_path / "kernel.log") as kernel:
        yield kernel


def execute(kernel, folder, source):
    """Execute a notebook of one cell; return how it failed, and what its cell printed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "source.ipynb")
    failure = kernel.execute(folder / "source.ipynb", folder / "target.ipynb", {}, "a notebook")
    cell = nbformat.read(folder / "target.ipynb", as_version=4).cells[-1]
    return failure, "".join(output.get("text", "") for output in cell.outputs), cell.execution_count


def test_the_next_notebook_has_the_same_python_and_none_of_the_names(kernel, tmp_path):
    first = execute(kernel, tmp_path, "import os\nleft_over = 1\nprint(os.getpid())")
    second = execute(kernel, tmp_path, "import os\nprint(os.getpid(), 'left_over' in globals())")
    assert first[0] == second[0] == ""
    assert second[1] == first[1].strip() + " False\n"
    assert first[2] == second[2] == 1


def test_the_next_notebook_can_start_processes_as_an_engine_does(kernel, tmp_path):
    execute(kernel, tmp_path, "print(1)")
    source = "import multiprocessing, os\nprocess = multiprocessing.get_context('spawn').Process(target=os.getpid)\n"
    source += "process.start()\nprocess.join()\nprint(process.exitcode, sorted(n for n in globals() if n == 'sys'))"
    assert execute(kernel, tmp_path, source)[:2] == ("", "0 []\n")


def test_a_mistake_names_its_cell_and_the_kernel_goes_on(kernel, tmp_path):
    failure, _, _ = execute(kernel, tmp_path, "raise ValueError('no such thing')")
    assert failure == " failed in cell 1: ValueError: no such thing"
    assert execute(kernel, tmp_path, "print(3)")[:2] == ("", "3\n")


def test_a_kernel_that_dies_is_started_once_more_and_then_given_up(kernel, tmp_path, capsys):
    mark = tmp_path / "mark"
    die_once = f"import os, pathlib\np = pathlib.Path({str(mark)!r})\n"
    die_once += "if not p.exists():\n    p.touch()\n    os.kill(os.getpid(), 9)\nprint('alive')"
    assert execute(kernel, tmp_path, die_once)[:2] == ("", "alive\n")
    assert "once more on a new one" in capsys.readouterr().out
    assert "its kernel died twice" in execute(kernel, tmp_path, "import os\nos.kill(os.getpid(), 9)")[0]
    assert execute(kernel, tmp_path, "print(4)")[:2] == ("", "4\n")


def test_an_interrupt_reaches_the_cell_before_the_kernel_ends(tmp_path):
    mark = tmp_path / "stored"
    source = f"import os, pathlib, signal, time\ntry:\n    os.kill({os.getpid()}, signal.SIGINT)\n    time.sleep(60)\n"
    source += "except KeyboardInterrupt:\n    time.sleep(1)  # as storing takes; a second interrupt would end it\n"
    source += f"    pathlib.Path({str(mark)!r}).touch()\n    raise"
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt), Kernel(tmp_path / "kernel.log") as kernel:
            execute(kernel, tmp_path, source)
    finally:
        signal.signal(signal.SIGINT, former)
    assert mark.exists()


def test_of_what_an_engine_prints_the_bars_are_shown_alone(tmp_path, capfd):
    bar = "base  50% |........        | 1/2 completions, 3 tokens/s [00:01<00:01]"
    with bars_alone(tmp_path / "new" / "engine.log", "  asking"):
        os.write(2, b"from C++\n")
        os.system("echo from another process >&2")
        print("from Python", bar, sep="\n", file=sys.stderr)
    print("after", file=sys.stderr)
    shown = capfd.readouterr()
    assert shown.out == f"  asking {bar}\n" and shown.err == "after\n"
    log = (tmp_path / "new" / "engine.log").read_text(encoding="utf-8")
    assert log.splitlines() == ["from C++", "from another process"]
