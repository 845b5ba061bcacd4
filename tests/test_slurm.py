"""The scripts in params/slurm: what they hand to `sbatch` and to `crescent run`, and what a signal does to a task."""

import os
import shlex
import signal
import subprocess
import time

import pytest
from shared import ROOT

from crescent_utils.cli import main
from crescent_utils.runs import load_profile

SCRIPTS = sorted((ROOT / "params" / "slurm").iterdir())
# A program that appends its arguments, one line a call, to $CALLS.
RECORDER = '#!/usr/bin/env bash\n{ printf "%q " "${0##*/}" "$@"; echo; } >> "$CALLS"\n'


@pytest.fixture
def shell(tmp_path):
    """An environment whose `sbatch`, `scontrol` and crescent write down what they are asked for."""
    programs = {"sbatch": "echo 77\n", "scontrol": "", "crescent": ""}
    for name, answer in programs.items():
        write_program(tmp_path / name, RECORDER + answer)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "HF_", "SCRATCH"))},
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls.txt"),
        "CRESCENT": str(tmp_path / "crescent"),
    }


def write_program(path, text):
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def run_script(shell, name, *arguments):
    command = ["bash", f"params/slurm/{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, timeout=60)


def calls(shell):
    """What the recorded programs were asked for, as lists of words."""
    with open(shell["CALLS"], encoding="utf-8") as lines:
        return [shlex.split(line) for line in lines]


def parameters(call):
    """The parameters of a recorded `crescent run`, read and checked as crescent itself does."""
    arguments = main._parser().parse_args(call[1:])
    return load_profile([ROOT / path for path in arguments.profiles], arguments.overrides)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_and_says_what_it_is_for(script):
    subprocess.run(["bash", "-n", script], check=True)
    first, second, *_ = script.read_text(encoding="utf-8").splitlines()
    assert first == "#!/usr/bin/env bash" and second.startswith("# ")


@pytest.mark.parametrize("name", ["seed.sh", "pool.sh", "seeds.sh", "submit.sh"])
def test_too_few_arguments_end_with_2_and_the_right_ones(shell, name):
    ended = run_script(shell, name, "params/cpu.yaml")
    assert ended.returncode == 2 and f"params/slurm/{name}" in ended.stderr
    assert not os.path.exists(shell["CALLS"])


def test_seeds_run_one_after_the_other_and_are_pooled(shell):
    ended = run_script(shell, "seeds.sh", "params/cpu.yaml", "mine", "4 5 6", "-p", "votes=3")
    assert ended.returncode == 0, ended.stderr
    *seeds, pooled = map(parameters, calls(shell))
    assert [(values["run"], values["seed"]) for values in seeds] == [(f"mine/seed{seed}", seed) for seed in (4, 5, 6)]
    assert all((values["other_runs"], values["engine"], values["votes"]) == ([], "auto", 3) for values in seeds)
    assert (pooled["run"], pooled["seed"], pooled["votes"]) == ("mine/pooled", 4, 3)
    assert (pooled["engine"], pooled["replay_from"]) == ("replay", "mine/seed4")
    assert pooled["other_runs"] == ["mine/seed5", "mine/seed6"]


def test_a_seed_that_fails_ends_it(shell, tmp_path):
    write_program(tmp_path / "crescent", RECORDER + "exit 1\n")
    assert run_script(shell, "seeds.sh", "params/cpu.yaml", "mine", "4 5").returncode == 1
    assert len(calls(shell)) == 1


def test_an_overlay_is_another_profile(shell):
    both = "params/llama3_8b.yaml params/two_nodes.yaml"
    assert run_script(shell, "seed.sh", both, "mine", "1", "--to", "vote").returncode == 0
    (call,) = calls(shell)
    values = parameters(call)
    assert (values["engine"], values["model"]) == ("server", "meta-llama/Meta-Llama-3-8B-Instruct")
    assert call[-2:] == ["--to", "vote"]


@pytest.mark.parametrize("scratch", [True, False])
def test_the_scratch_folder_takes_runs_models_and_caches(shell, tmp_path, scratch):
    write_program(tmp_path / "crescent", RECORDER + 'echo "${HF_HOME:-unset} ${TRITON_CACHE_DIR:-unset}"\n')
    ended = run_script(
        {**shell, **({"SCRATCH": f"{tmp_path}/a b"} if scratch else {})}, "seed.sh", "params/cpu.yaml", "mine", "1"
    )
    (call,) = calls(shell)
    if scratch:
        assert ended.stdout == f"{tmp_path}/a b/huggingface {tmp_path}/a b/cache/triton\n"
        assert parameters(call)["outputs"] == f"{tmp_path}/a b/crescent"
    else:
        assert ended.stdout == "unset unset\n"
        assert "outputs" not in parameters(call)


def test_slurm_gets_an_array_over_the_seeds_and_a_job_that_waits_for_it(shell):
    shell["SBATCH_OPTIONS"] = "--account=lab --time=01:00:00"
    ended = run_script(shell, "submit.sh", "params/h100_80gb.yaml", "big", "1 2 5", "-p", "model=my model")
    assert ended.returncode == 0, ended.stderr
    array, pool = calls(shell)
    assert array[:2] == ["sbatch", "--parsable"]
    assert "--array=1,2,5" in array and "--account=lab" in array
    assert array[-5:] == ["params/slurm/seed.sbatch", "params/h100_80gb.yaml", "big", "-p", "model=my model"]
    assert "--dependency=afterok:77" in pool and "--account=lab" not in pool
    wrapped = shlex.split(pool[pool.index("--wrap") + 1])
    assert wrapped == [
        "bash", "params/slurm/pool.sh", "params/h100_80gb.yaml", "big", "1 2 5", "-p", "model=my model"
    ]  # fmt: skip


# ---- a task of the array

WORKER = """#!{python}
import os, signal, sys, time
try:
    print("seed", sys.argv[sys.argv.index("-p") + 1], flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    time.sleep(0.3)  # it keeps what it has
    sys.exit({status})
"""


def task(shell, **environment):
    # Tests that were started in the background ignore an interrupt, and what they start would inherit that.
    command = ["env", "--default-signal=INT", "bash", "params/slurm/seed.sbatch", "params/cpu.yaml", "mine"]
    of_slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3"}
    return subprocess.Popen(
        command, env={**shell, **of_slurm, **environment}, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_task_runs_its_seed_and_ends_as_the_run_does(shell, tmp_path):
    write_program(tmp_path / "crescent", RECORDER + "exit 1\n")
    process = task(shell)
    process.communicate(timeout=60)
    assert process.returncode == 1
    (call,) = calls(shell)  # nothing is put back into the queue
    assert (parameters(call)["run"], parameters(call)["seed"]) == ("mine/seed3", 3)


@pytest.mark.parametrize(
    ("restarts", "status", "again"), [("", 130, True), ("4", 130, True), ("20", 130, False), ("", 0, False)]
)
@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM])
def test_a_task_that_is_cut_interrupts_its_run_and_goes_back_into_the_queue(
    shell, tmp_path, sent, restarts, status, again
):
    python = subprocess.run(["which", "python3"], capture_output=True, text=True, check=True).stdout.strip()
    write_program(tmp_path / "crescent", WORKER.format(python=python, status=status))
    process = task(shell, **({"SLURM_RESTART_COUNT": restarts} if restarts else {}))
    assert process.stdout.readline() == "seed run=mine/seed3\n"
    started = time.monotonic()
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert time.monotonic() - started < 20
    assert process.returncode == status
    assert os.path.exists(shell["CALLS"]) == again
    if again:
        assert calls(shell) == [["scontrol", "requeue", "77_3"]]
