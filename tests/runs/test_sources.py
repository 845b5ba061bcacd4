"""Sources: what is set wins over the profile, the profile over the defaults, and a session remembers its run."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import ROOT

from crescent_utils.runs import describe_sources, load_profile, params, sessions, settings_from, sources
from crescent_utils.runs.params import ParameterError

CPU = "params/cpu.yaml"


def notebook(stage, injected=None, **changed):
    """The variables of a notebook whose parameters cell has `changed` in it, and which papermill gave `injected`."""
    defaults = params.build_settings(stage, {}).model_dump()
    cells = ["", "from crescent_utils import runs", "run: str = 'replay'"]
    if injected is not None:
        cells.append("# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in injected.items()))
    return {"In": cells, "runs": object(), **defaults, **changed, **(injected or {})}


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "_session_file", lambda: tmp_path / "sessions" / "7-8.json")
    return tmp_path


def test_a_profile_wins_over_the_defaults_and_what_is_set_over_the_profile():
    made = settings_from("vote", notebook("vote", profile=CPU, seed=3, run="mine"))
    default = params.build_settings("vote", {}).votes
    assert "votes" not in load_profile([ROOT / CPU], [])
    assert (made.engine, made.seed, made.run, made.votes) == ("auto", 3, "mine", default)
    told = describe_sources("vote", notebook("vote", profile=CPU, seed=3, run="mine"))
    assert told.startswith("set here: ") and "run = 'mine'" in told and "seed = 3" in told
    assert "REPLAY" not in told and "REPLAY of the run 'reference'" in describe_sources("vote", notebook("vote"))
    assert f"from {CPU}: engine = 'auto'" in told and "all other parameters: the notebook's defaults" in told


def test_values_that_the_command_hands_over_are_told_as_its_own(monkeypatch):
    values = notebook("vote", {"engine": "auto", "seed": 3})
    assert describe_sources("vote", values).startswith("set here: engine = 'auto', seed = 3\n")
    monkeypatch.setenv(sources.VALUES_FROM, "crescent run params/mine.yaml -p seed=3")
    told = describe_sources("vote", values)
    assert told.startswith("from crescent run params/mine.yaml -p seed=3: engine = 'auto', seed = 3\n")
    assert "set here" not in told


def test_what_papermill_sets_wins_even_where_it_is_the_default():
    made = settings_from("evaluate", notebook("evaluate", {"profile": CPU, "engine": "replay"}))
    assert (made.engine, made.run, made.other_runs) == ("replay", "cpu", [])


def test_only_the_last_cell_of_papermill_counts():
    values = notebook("vote", {"profile": CPU, "engine": "replay"})
    values["In"].append(f"# Parameters\nprofile = {CPU!r}\n")
    assert settings_from("vote", values).engine == "auto"


@pytest.mark.parametrize("stage", params.STAGES)
@pytest.mark.parametrize("profile", ["cpu.yaml", "lmsi_cpu.yaml", "t4_colab.yaml"])
def test_crescent_run_papermill_with_the_file_and_papermill_with_its_name_make_the_same_settings(stage, profile):
    path = ROOT / "params" / profile
    given_values = load_profile([path], ["seed=2"])
    by_command = settings_from(stage, given_values)  # what `crescent run` checks, and then injects
    injected = params.parameters_of(stage, given_values)
    for values in (injected, {"profile": f"params/{profile}", "seed": 2}):
        made = settings_from(stage, notebook(stage, values))
        assert made.model_copy(update={"profile": ""}) == by_command
    by_name = load_profile([], [f"profile={path}", "seed=2"])
    assert settings_from(stage, by_name).model_copy(update={"profile": ""}) == by_command


def test_an_override_of_the_command_wins_over_its_profile():
    assert load_profile([], [f"profile={CPU}", "engine=vllm"])["engine"] == "vllm"


def test_a_profile_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ParameterError, match=r"params/cpux\.yaml.*cpu\.yaml"):
        settings_from("vote", notebook("vote", profile="params/cpux.yaml"))
    with pytest.raises(ParameterError, match="is no file name"):
        settings_from("vote", notebook("vote", profile="\0"))


def test_a_profile_names_no_other_profile(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"profile: {CPU}\n")
    with pytest.raises(ParameterError, match="names no other profile"):
        settings_from("vote", notebook("vote", profile=str(tmp_path / "mine.yaml")))


# ---- names that no notebook has

TYPED = 'profile: str = ""\nrun: str = "replay"\n{}: int = 250  # raw completions'


def test_a_wrong_name_that_papermill_set_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterError, match=r"^elicit_sample: no notebook .* Did you mean 'elicit_samples'\?$"):
        settings_from("elicit", notebook("elicit", {"profile": CPU, "elicit_sample": 250}))
    with pytest.raises(ParameterError, match=r"^colour: .* See the parameters cell"):
        describe_sources("elicit", notebook("elicit", {"colour": 1}))


def test_the_paths_that_papermill_may_inject_are_no_wrong_names():
    paths = {"PAPERMILL_INPUT_PATH": "in.ipynb", "PAPERMILL_OUTPUT_PATH": "out.ipynb"}  # of its --inject-paths
    assert settings_from("elicit", notebook("elicit", {"seed": 2, **paths})).seed == 2


@pytest.mark.parametrize("stage", params.STAGES)
def test_a_loop_may_hand_the_same_values_to_all_notebooks(stage):
    defaults = {name: value for each in params.STAGES for name, value in params.build_settings(each, {})}
    assert sorted(defaults) == params.NAMES
    assert settings_from(stage, notebook(stage, defaults)) == params.build_settings(stage, {})


@pytest.mark.parametrize("line", ["elicit_sample: int = 250", "elicit_sample = 250", "elicit_sample: int"])
def test_a_wrong_name_in_the_parameters_cell_is_refused(line):
    values = notebook("elicit")
    values["In"] += [TYPED.format("elicit_samples") + "\n" + line, "runs.settings_from('elicit', globals())"]
    with pytest.raises(ParameterError, match=r"^elicit_sample: .* Did you mean 'elicit_samples'\?$"):
        settings_from("elicit", values)


def test_a_parameter_that_was_renamed_by_hand_does_not_fall_back_to_its_default():
    values = notebook("elicit")
    del values["elicit_samples"]
    values["In"].append(TYPED.format("elicit_sample"))
    with pytest.raises(ParameterError, match="Did you mean 'elicit_samples'"):
        settings_from("elicit", values)


def test_a_name_that_was_put_right_counts_no_more_and_other_cells_name_what_they_like():
    values = notebook("elicit", {"seed": 1}, elicit_samples=250)
    values["In"] += [
        TYPED.format("elicit_sample"),
        TYPED.format("elicit_samples"),
        "colour: int = 3",
        "if",
        "x = 'run'",
    ]
    assert settings_from("elicit", values).elicit_samples == 250


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(params.Vote.model_fields)), st.integers(-3, 3) | st.text(max_size=3)))
def test_in_a_notebook_a_value_that_is_not_the_default_is_set(changed):
    here, is_batch = sources._set_values("vote", notebook("vote", **changed))
    defaults = params.build_settings("vote", {}).model_dump()
    assert here == {name: value for name, value in changed.items() if value != defaults[name]} and not is_batch


# ---- sessions


def test_outside_of_a_kernel_there_is_no_session(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert sessions._session_file() is None
    monkeypatch.setenv("JPY_PARENT_PID", "1" if os.getppid() != 1 else "2")  # inherited from a kernel further up
    assert sessions._session_file() is None
    sessions.remember_run(params.build_settings("elicit", {}))
    assert sessions.remembered_run() == ("", {})


def test_a_kernel_of_a_server_has_the_servers_session(tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getppid()))
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path))
    ended = tmp_path / "sessions" / "99999999-1.json"
    ended.parent.mkdir()
    ended.write_text("{}")
    sessions.remember_run(params.build_settings("elicit", {"run": "mine", "engine": "auto"}))
    assert sessions.remembered_run()[1]["run"] == "mine"
    assert not ended.exists(), "a session whose server has ended is forgotten"
    assert len(list(ended.parent.iterdir())) == 1


def test_the_notebooks_after_01_go_on_with_its_run_without_an_edit(session):
    first = settings_from("elicit", notebook("elicit", profile=CPU, run="mine", seed=4, elicit_samples=600))
    sessions.remember_run(first)
    for stage in params.STAGES[1:]:
        made = settings_from(stage, notebook(stage))
        assert (made.run, made.engine, made.seed, made.profile) == ("mine", "auto", 4, CPU)
    assert settings_from("evaluate", notebook("evaluate")).other_runs == []
    assert settings_from("dedup", notebook("dedup", max_rewrites=4)).run == "mine"
    told = describe_sources("dedup", notebook("dedup", max_rewrites=4))
    assert "goes on with the run 'mine' that 01_elicit began" in told and 'profile = "params/replay.yaml"' in told
    assert "set here: max_rewrites = 4" in told and "seed = 4" in told


def test_a_session_says_nothing_to_a_notebook_with_a_run_of_its_own_or_in_a_batch(session):
    sessions.remember_run(settings_from("elicit", notebook("elicit", profile=CPU, run="mine")))
    assert settings_from("vote", notebook("vote", run="other")).engine == "replay"
    assert settings_from("vote", notebook("vote", profile="params/replay.yaml")).run == "replay"
    assert settings_from("vote", notebook("vote", {"seed": 1})).run == "replay"
    assert settings_from("vote", {"seed": 1}).run == "replay"
    assert settings_from("elicit", notebook("elicit")).run == "replay"


@pytest.mark.parametrize("variation", [{}, {"run": "as_released", "protocol": "released"}])
def test_after_a_replay_of_01_the_others_replay_the_recorded_run(session, variation):
    """Going on with a varied replay, 02 worked for minutes and then asked for rewrites that were never sampled."""
    sessions.remember_run(settings_from("elicit", notebook("elicit", profile=CPU)))
    sessions.remember_run(settings_from("elicit", notebook("elicit", **variation)))
    assert settings_from("vote", notebook("vote")) == params.build_settings("vote", {})
    assert describe_sources("vote", notebook("vote")).startswith("all parameters: the notebook's defaults")


def test_a_replay_of_a_run_of_ones_own_is_gone_on_with(session):
    sessions.remember_run(settings_from("elicit", notebook("elicit", run="again", replay_from="mine")))
    made = settings_from("vote", notebook("vote"))
    assert (made.run, made.replay_from, made.engine) == ("again", "mine", "replay")


def test_a_damaged_memory_and_that_of_another_checkout_are_none(session):
    path = session / "sessions" / "7-8.json"
    sessions.remember_run(params.build_settings("elicit", {"run": "mine", "engine": "auto"}))
    path.write_text(path.read_text().replace(str(ROOT), "elsewhere"))
    assert sessions.remembered_run() == ("", {})
    path.write_text("{")
    assert sessions.remembered_run() == ("", {})
