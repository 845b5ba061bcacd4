"""The command line: bad input ends with status 2 and its name before anything loads, stages run in order and are
skipped when done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
import yaml
from shared import ROOT

from crescent_utils import runs
from crescent_utils.cli import main as main_module
from crescent_utils.cli.main import _find_run
from crescent_utils.runs import params
from crescent_utils.runs.folders import RunError, begin_stage, read_manifest, write_json

HEAVY = {"torch", "vllm", "transformers", "trl", "peft", "datasets", "lm_eval", "sentence_transformers"}


@pytest.fixture
def profile(tmp_path):
    def write(**values):
        path = tmp_path / "p.yaml"
        path.write_text(
            yaml.safe_dump({"outputs": str(tmp_path / "outputs"), "run": "r", "engine": "transformers", **values}),
            encoding="utf-8",
        )
        return str(path)

    return write


def main(capsys, *arguments):
    """Run the command line in this process; return status, output and error output."""
    try:
        status = main_module.main(list(arguments))
    except SystemExit as ended:
        status = ended.code
    return (status, *capsys.readouterr())


# --- bad input ------------------------------------------------------------------------------------

BAD = [
    (["-p", "sed=2"], ["sed:", "Did you mean 'seed'?"]),
    (["-p", "engine=vlm"], ["engine", "'vlm'", "'vllm'", "'transformers'"]),
    (["-p", "votes=0"], ["votes", "greater than or equal to 1"]),
    (["-p", "learning_rate=1e-5"], ["learning_rate", "'1e-5'", "1.0e-5"]),
    (["-p", "domain=arithmatic"], ["domain", "'arithmatic'", "math_word_problems", "Did you mean 'arithmetic'?"]),
    (["-p", "evaluate_on=[gsm8]"], ["evaluate_on", "'gsm8'", "asdiv", "Did you mean 'gsm8k'?"]),
    (["-p", "run=../elsewhere"], ["run", "'../elsewhere'", "relative folder name"]),
    (["-p", "model=./no-such-folder"], ["model", "./no-such-folder", "bundled"]),
    (["-p", "student=/no/such/folder"], ["student", "/no/such/folder"]),
    (
        ["-p", "student=none", "-p", "student_data=seed_augmented"],
        ["student_data", "'seed_augmented'", "student: none", "-p student=without_4_layers"],
    ),
    (["-p", "seed"], ["'seed'", "NAME=VALUE"]),
    (["-p", "solve_prompt=Solve it."], ["solve_prompt", "'Solve it.'", "{question}"]),
    (["-p", "rewrite_prompt=Change {question}."], ["rewrite_prompt", "{neighbour}"]),
    (["-p", "benchmark_items=100000"], ["benchmark_items", "100000", "36,500 problems, of which 1,521 are test items"]),
    (
        ["-p", "evaluate_on=[arithmetic]", "-p", "benchmark_items=947"],
        ["benchmark_items", "947", "arithmetic benchmark has 946 at most"],
    ),
    (["-p", "batch_size=6", "-p", "micro_batch_size=4"], ["batch_size", "6", "micro_batch_size"]),
    (["-p", "engine=server"], ["base_urls"]),
    (["-p", "domain=math_word_problems", "-p", "benchmark_split=dev"], ["benchmark_split", "'dev'", "arithmetic"]),
    (["-p", "eval_prompts=[solve, own]", "-p", "vote_shots=none"], ["eval_prompts", "'own'", "vote_shots: own"]),
    (
        ["-p", "eval_prompts=[exemplars]", "-p", "domain=commonsense", "-p", "evaluate_on=[two_numbers_190]"],
        ["eval_prompts", "'exemplars'", "commonsense has none"],
    ),
    (
        (
            *("-p", "vote_shots=exemplars", "-p", "domain=commonsense"),
            *("-p", "evaluate_on=[two_numbers_190]", "-p", "eval_prompts=[solve]"),
        ),
        ["vote_shots", "'exemplars'", "domain 'commonsense' has none", "vote_shots: own"],
    ),
    (
        ["-p", "best_prompt=true", "-p", "evaluate_on=[two_numbers_4]", "-p", "benchmark_items=4"],
        ["evaluate_on", "two_numbers_4", "best_prompt and matched_temperature to false"],
    ),
    (["--from", "vote", "--to", "dedup"], ["--to dedup", "--from vote"]),
    (["--from", "votes"], ["--from", "'votes'", "evaluate"]),
    (["no-such.yaml"], ["no-such.yaml"]),
]


@pytest.mark.parametrize(("arguments", "named"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_named_and_nothing_is_run(capsys, profile, tmp_path, monkeypatch, arguments, named):
    monkeypatch.setattr(main_module, "_run_stage", lambda *_, **__: pytest.fail("a stage was run"))
    status, out, err = main(capsys, "run", profile(), *arguments)
    assert status == 2
    assert all(part in err for part in named), err
    assert "Traceback" not in err and out == ""
    assert not (tmp_path / "outputs").exists()


def test_bad_input_is_named_before_anything_heavy_loads(profile, tmp_path):
    code = f"""
        import sys
        from crescent_utils.cli import main as reproduce
        bad = (["-p", "sed=2"], ["-p", "votes=0"], ["-p", "evaluate_on=[gsm8]"], ["-p", "model=./none"])
        for more in (*bad, ["--from", "vote", "--to", "dedup"]):
            print(reproduce.main(["run", {profile()!r}, *more]), sorted(set(sys.modules) & {HEAVY!r}))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path)
    assert ended.stdout.splitlines() == ["2 []"] * 5, ended.stderr
    assert ended.stderr.count("crescent: ") == 5


def test_the_installed_command_says_the_same(profile, tmp_path):
    command = Path(sys.executable).with_name("crescent")
    if not command.exists():
        pytest.skip("the kit is not installed into this environment")
    ended = subprocess.run([command, "run", profile(votez=3)], capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "crescent: votez: no notebook has a parameter of this name. Did you mean 'votes'?\n"


@pytest.mark.parametrize("arguments", [[], ["run"], ["report"], ["rn", "x.yaml"], ["run", "x.yaml", "--frmo", "vote"]])
def test_a_wrong_command_line_shows_the_right_one(capsys, arguments):
    status, out, err = main(capsys, *arguments)
    assert status == 2 and "usage: crescent" in err and out == ""


# --- stages ---------------------------------------------------------------------------------------


@pytest.fixture
def stages(monkeypatch):
    """In the place of papermill and six long notebooks: what they leave behind, and in which order they were run."""
    import papermill

    ran = []

    def execute(source, target, parameters, **_):
        stage = Path(source).stem.split("_")[1]
        ran.append((stage, dict(parameters)))
        assert Path(target).parent.is_dir()
        os.write(2, b"noise of an engine\n")
        begin_stage(stage, params.build_settings(stage, parameters)).finish(
            {"sampled": 3000, "kept": 2000, "rejected": 1000}
        )

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(main_module, "_finish", lambda folder, profile: print(f"finished {folder.name}"))
    return ran


def names(ran):
    return [stage for stage, _ in ran]


def test_all_six_run_in_order_with_their_own_parameters_and_a_line_each(capfd, profile, stages):
    status, out, err = main(capfd, "run", profile(votes=3), "-p", "seed=5")
    assert status == 0 and names(stages) == list(params.STAGES)
    for stage, given in stages:
        assert given == {
            name: value for name, value in given.items() if name in params.STAGE_SETTINGS[stage].model_fields
        }
        assert given["seed"] == 5 and ("votes" in given) == (stage == "vote")
    lines = out.rstrip("\n").split("\n")
    assert lines[0].startswith("run r: ") and "engine transformers" in lines[0]
    for number, (line, stage) in enumerate(zip(lines[1:], params.STAGES, strict=False), start=1):
        shown = line.rsplit("\r", 1)[-1]
        assert shown.startswith(f"  {number:02d}_{stage}") and "sampled 3,000" in shown and " s " in shown
    assert lines[-1] == "finished r" and "noise" not in err


def test_what_is_done_is_skipped_until_a_parameter_changes(capsys, profile, stages):
    path = profile(eval_prompts=["bare"])  # no stage that stands in here makes exemplars
    main(capsys, "run", path)
    stages.clear()
    status, out, _ = main(capsys, "run", path)
    assert (status, names(stages)) == (0, []) and out.count("unchanged, skipped") == 6
    main(capsys, "run", path, "-p", "votes=3")
    assert names(stages) == ["vote", "finetune", "distil", "evaluate"]
    stages.clear()
    main(capsys, "run", path, "-p", "votes=3", "-p", "micro_batch_size=1", "-p", "engine=replay")
    assert names(stages) == []
    main(capsys, "run", path, "-p", "votes=3", "--force", "--from", "distil")
    assert names(stages) == ["distil", "evaluate"]


def test_from_and_to_bound_what_is_run(capsys, profile, stages):
    status, out, _ = main(capsys, "run", profile(), "--to", "vote")
    assert (status, names(stages)) == (0, ["elicit", "dedup", "vote"]) and "finished" not in out
    stages.clear()
    status, _, _ = main(capsys, "run", profile(), "--from", "finetune", "--to", "finetune")
    assert (status, names(stages)) == (0, ["finetune"])


def test_without_a_student_nothing_is_distilled_and_the_evaluation_asks_for_none(capsys, profile, stages, tmp_path):
    status, out, _ = main(capsys, "run", profile(), "-p", "student=none")
    assert (status, names(stages)) == (0, [stage for stage in params.STAGES if stage != "distil"])
    assert "05_distil    left out (student: none)" in out and "finished r" in out
    with pytest.raises(RunError, match="student is 'none' in this run") as told:
        begin_stage(
            "distil",
            params.build_settings("distil", {"run": "r", "student": "none", "outputs": str(tmp_path / "outputs")}),
        )
    assert told.value._render_traceback_() == [f"RunError: {told.value}"], "a notebook shows one line in red"
    stages.clear()
    main(capsys, "run", profile())
    assert names(stages) == ["distil", "evaluate"], "with a student there is more to do"


def test_questions_from_elsewhere_need_none_of_the_models_own(capsys, profile, stages):
    status, out, _ = main(capsys, "run", profile(question_source="arithmetic"))
    assert (status, names(stages)) == (0, ["vote", "finetune", "distil", "evaluate"])
    assert out.count("left out (question_source: arithmetic)") == 2


def test_a_cut_run_goes_on_where_it_was_cut(capsys, profile, stages, monkeypatch):
    import papermill

    whole = papermill.execute_notebook

    def cut(source, target, parameters, **more):
        if "03_vote" in str(source):
            raise KeyboardInterrupt
        whole(source, target, parameters, **more)

    monkeypatch.setattr(papermill, "execute_notebook", cut)
    status, _, errors = main(capsys, "run", profile())
    assert status == 130 and "interrupted; the same command goes on" in errors
    monkeypatch.setattr(papermill, "execute_notebook", whole)
    assert main(capsys, "run", profile())[0] == 0
    assert names(stages) == list(params.STAGES)


@pytest.mark.parametrize("how", ["a cell", "the kernel", "no manifest"])
def test_a_failed_stage_ends_the_run_with_status_1(capsys, profile, stages, monkeypatch, how):
    import papermill

    whole = papermill.execute_notebook

    def fail(source, target, parameters, **more):
        if "02_dedup" not in str(source):
            return whole(source, target, parameters, **more)
        if how == "a cell":
            raise papermill.PapermillExecutionError(5, 4, "x = 1", "ValueError", "no good", ["…"])
        if how == "the kernel":
            raise RuntimeError("Kernel died")
        return None

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    status, out, _ = main(capsys, "run", profile())
    shown = out.splitlines()[-2:]
    assert status == 1 and names(stages) == ["elicit"]
    assert "02_dedup" in out and "failed" in out and "02_dedup.ipynb" in shown[-1]
    expected = {
        "a cell": "ValueError: no good",
        "the kernel": "RuntimeError: Kernel died",
        "no manifest": "without a manifest",
    }
    assert expected[how] in out


def test_the_stage_before_is_missing(capsys, profile, stages, monkeypatch):
    status, out, err = main(capsys, "run", profile(), "--from", "vote")
    assert status != 0 and "'dedup'" in out + err


def test_a_real_notebook_runs_through_papermill(capfd, profile, tmp_path, monkeypatch):
    # A small notebook in the place of 01: parameters injected, kernel of this environment, manifest found.
    cells = ["votes: int = 1  # one", "from crescent_utils import runs\n"
             "stage = runs.begin_stage('elicit', runs.settings_from('elicit', globals()))\n"
             "import sys; print('noise', file=sys.stderr)\n"
             "print(runs.describe_sources('elicit', globals()))\n"
             "stage.finish({'sampled': elicit_samples}, note=run)"]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "01_elicit.ipynb")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.chdir(ROOT)
    status, out, err = main(capfd, "run", profile(elicit_samples=7), "-p", "seed=2", "--to", "elicit")
    assert status == 0, out + err
    manifest = read_manifest(tmp_path / "outputs" / "r", "elicit")
    assert manifest["counts"] == {"sampled": 7} and manifest["note"] == "r"
    executed = nbformat.read(tmp_path / "outputs" / "r" / "01_elicit.ipynb", as_version=4)
    printed = "".join(output.get("text", "") for output in executed.cells[-1].outputs)
    assert f"from crescent run {tmp_path}/p.yaml -p seed=2: " in printed and "elicit_samples = 7" in printed
    assert "sampled 7" in out and err == ""


# --- report ---------------------------------------------------------------------------------------


def test_an_unknown_run_is_named_with_the_known_ones(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(params, "ROOT", tmp_path)
    status, out, err = main(capsys, "report", "cpv")
    assert (status, out) == (2, "") and err == "crescent: cpv: no run of this name has a finished stage; there: none\n"
    for name in ("cpu", "reference/seed2", "unfinished"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    for name in ("cpu", "reference/seed2"):
        write_json(tmp_path / "outputs" / name / "elicit" / "manifest.json", {})
    status, _, err = main(capsys, "report", "cpv")
    assert status == 2 and "cpu" in err and "reference/seed2" in err
    assert "unfinished" not in err, "a run without a finished stage can make no report"


def test_a_run_is_found_by_name_or_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(params, "ROOT", tmp_path)
    write_json(tmp_path / "outputs" / "cpu" / "vote" / "manifest.json", {})
    assert _find_run("cpu") == tmp_path / "outputs" / "cpu"
    assert _find_run(str(tmp_path / "outputs" / "cpu")) == tmp_path / "outputs" / "cpu"
