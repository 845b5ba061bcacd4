"""Parameters: what is wrong is refused by name, whatever it is; profiles merge key by key; settings cannot change."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shared import ROOT

from crescent_utils.runs import params, settings_from
from crescent_utils.runs.params import ParameterError

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def profile(folder, name="one.yaml", **values):
    path = folder / name
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def refused(paths, overrides=()):
    with pytest.raises(ParameterError) as caught:
        params.load_profile(list(paths), list(overrides))
    return str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(params.STAGES),
    st.dictionaries(st.sampled_from(params.NAMES) | st.text(max_size=6), VALUES, max_size=4),
)
@example("elicit", {"run": "\0"})
@example("elicit", {"domain": "\ud800"})
def test_build_gives_a_model_or_a_parameter_error_and_nothing_else(stage, values):
    try:
        made = params.build_settings(stage, values)
    except ParameterError as error:
        assert any(name in str(error) for name in values), "the message names a parameter"
    else:
        assert values.keys() <= type(made).model_fields.keys()
        assert {name: getattr(made, name) for name in values} == values


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(params.NAMES) | st.text(max_size=6), st.text(max_size=12) | VALUES.map(repr))
@example("run", "2024-99-99")
@example("seed", "0b_")
@example("bait", "[" * 4000)
@example("engine_args", "&a [*a]")
@example("engine_args", "!!python/object:os.system {}")
def test_no_override_ends_in_anything_but_a_parameter_error(name, value):
    try:
        merged = params.load_profile([], [f"{name}={value}"])
    except ParameterError as error:
        assert str(error)
    else:
        assert list(merged) == [name.strip()]


@pytest.mark.parametrize("stage", params.STAGES)
def test_defaults_are_valid_and_frozen(stage):
    made = params.build_settings(stage, {})
    with pytest.raises(ValueError, match="frozen"):
        made.seed = 2
    assert made.seed == 1


def test_a_notebooks_other_variables_are_left_alone():
    made = settings_from("vote", {"seed": 3, "votes": 5, "pd": object(), "elicit_samples": "not ours"})
    assert (made.seed, made.votes) == (3, 5)
    with pytest.raises(ParameterError, match="votes"):
        settings_from("vote", {"votes": 0})


@pytest.mark.parametrize(
    "wrong, near",
    [
        ("learning_rates", "learning_rate"),
        ("elicit_sample", "elicit_samples"),
        ("Seed", "seed"),
        ("min_agrement", "min_agreement"),
    ],
)
def test_an_unknown_name_is_named_with_the_nearest_known_one(tmp_path, wrong, near):
    for message in (refused([profile(tmp_path, **{wrong: 1})]), refused([], [f"{wrong}=1"])):
        assert f"{wrong}:" in message
        assert f"Did you mean {near!r}?" in message
    assert "Did you mean" not in refused([], ["qqqqzzzz=1"])


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("engine", "vlm", "'vllm'"), ("protocol", "Paper", "'released'"), ("seed", -1, "greater than or equal to 0"),
        ("seed", True, "integer"), ("seed", "1", "integer"), ("seed", 1.5, "integer"),
        ("votes", 0, "greater than or equal to 1"),
        ("min_agreement", 1.5, "less than or equal to 1"), ("elicit_top_p", 0, "greater than 0"),
        ("bait", "one", "list"),
        ("eval_temperature", math.nan, "finite"), ("engine_args", [], "dict"), ("domain", "arithmetics", "arithmetic"),
        ("run", "../elsewhere", "relative folder name"), ("run", "/elsewhere", "relative folder name"),
        ("run", "", "relative"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path, name, value, allowed):
    message = refused([profile(tmp_path, **{name: value})])
    assert name in message and allowed in message
    assert value != value or repr(value) in message


def test_the_nearest_domain_is_named(tmp_path):
    assert "Did you mean 'math_word_problems'?" in refused([], ["domain=math_word_problem"])


@pytest.mark.parametrize("text", ["1e-5", "2E3", "1.5e2", "+3.e1", "2e+1"])
def test_a_float_that_yaml_reads_as_text_is_refused_with_the_way_to_write_it(tmp_path, text):
    # YAML 1.1 wants a point and a sign: 1e-5 and 1.5e2 are strings, and would end a run an hour later.
    path = tmp_path / "one.yaml"
    path.write_text(f"learning_rate: {text}\n", encoding="utf-8")
    for message in (refused([path]), refused([], [f"learning_rate={text}"])):
        assert "learning_rate" in message and repr(text) in message
        advice = re.search(r"write (\S+)$", message)
        assert advice, "the message says how to write it"
        assert yaml.safe_load(advice[1]) == float(text), f"{advice[1]} is no float to YAML either"
    assert params.load_profile([], ["learning_rate=1.0e-5"]) == {"learning_rate": 1.0e-5}


@pytest.mark.parametrize("name", ["elicit_temperature", "learning_rate", "epochs"])
def test_infinity_is_no_setting(name):
    assert name in refused([], [f"{name}=.inf"])


def test_files_merge_key_by_key_and_overrides_win(tmp_path):
    first = profile(tmp_path, "a.yaml", seed=1, votes=3, bait=["a", "b"], epochs=2)
    second = profile(tmp_path, "b.yaml", seed=2, bait=["c"])
    assert params.load_profile([first, second], []) == {"seed": 2, "votes": 3, "bait": ["c"], "epochs": 2}
    assert params.load_profile([second, first], [])["seed"] == 1
    merged = params.load_profile([first, second], ["seed=3", "seed=4", "bait=[d]", "system_prompt=a=b"])
    assert (merged["seed"], merged["bait"], merged["system_prompt"]) == (4, ["d"], "a=b")


def test_for_stage_takes_what_the_stage_has():
    values = {"seed": 2, "votes": 3, "learning_rate": 0.1}
    assert params.parameters_of("vote", values) == {"seed": 2, "votes": 3}
    assert params.parameters_of("finetune", values) == {"seed": 2, "learning_rate": 0.1}


def test_a_missing_profile_is_named_with_those_that_are_there(tmp_path):
    profile(tmp_path, "cpu.yaml", seed=1)
    message = refused([tmp_path / "gpu.yaml"])
    assert "gpu.yaml" in message and "cpu.yaml" in message
    assert "no YAML file" in refused([tmp_path / "none" / "gpu.yaml"])
    assert str(tmp_path) in refused([tmp_path])


@pytest.mark.parametrize(
    "content, expected",
    [(b"- a\n- b\n", "list"), (b"seed 3\n", "str"), (b"a: [\n", "not YAML"), (b"\xff\xfe\x00seed: 1", "bad.yaml"),
    (b"1: 2\n", "1:"),
     (b"run: 2024-13-45\n", "bad.yaml"), (b"seed: 0b_\n", "bad.yaml")],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_named(tmp_path, content, expected):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert expected in refused([path])


def test_a_profile_of_the_kit_is_found_from_any_folder(tmp_path, monkeypatch):
    """In Colab a cell's folder is notebooks/, where `!crescent run params/cpu_small.yaml` found no such file."""
    monkeypatch.chdir(tmp_path)
    assert params.load_profile([Path("params/cpu_small.yaml")], [])["run"] == "cpu_small"
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "cpu_small.yaml").write_text("run: here")
    assert params.load_profile([Path("params/cpu_small.yaml")], [])["run"] == "here"


def test_an_empty_profile_changes_nothing(tmp_path):
    (tmp_path / "e.yaml").write_text("# nothing\n", encoding="utf-8")
    assert params.load_profile([tmp_path / "e.yaml"], []) == {}


@pytest.mark.parametrize("text", ["seed", "=3", "", " =3"])
def test_an_override_without_name_or_value_shows_how_to_write_one(text):
    message = refused([], [text])
    assert "NAME=VALUE" in message or "no notebook has a parameter" in message


@pytest.mark.parametrize("run", ["cpu", "reference/seed2", "a.b", "Lauf 1"])
def test_a_run_is_a_folder_below_outputs(run):
    assert params.build_settings("elicit", {"run": run}).run == run


@pytest.mark.parametrize("run", [".", "./", "a/../..", "..", "../x", "a/../../b", "/tmp", "", "a\0b"])
def test_a_run_never_is_or_leaves_outputs(run):
    with pytest.raises(ParameterError, match="run"):
        params.build_settings("elicit", {"run": run})


# --- profiles for GPUs ----------------------------------------------------------------------------------

GPU_PROFILES = ("t4_colab", "l4_24gb", "h100_80gb", "llama3_8b", "llama2_7b", "two_nodes")


@pytest.mark.parametrize("name", GPU_PROFILES)
def test_a_gpu_profile_says_on_what_for_how_long_and_whether_it_was_run(name):
    path = ROOT / "params" / f"{name}.yaml"
    values = params.load_profile([path], [])
    head = " ".join(line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line[0] == "#")
    for label in ("Hardware", "Memory", "Tokens", "Time"):
        assert re.search(rf"\b{label}: \S", head), label
    assert re.search(r"Run by us: (?:no\b|yes, \d{4}-\d\d-\d\d)", head)
    sums = head.partition("Tokens: ")[2].partition(" M. ")[0]
    if "in all" in sums:
        *parts, whole = map(float, re.findall(r"(?:=|in all) ([\d.]+)", sums))
        assert len(parts) == 4 and sum(parts) == pytest.approx(whole, abs=0.5)
        assert f"01 {values['elicit_samples']:,} x" in sums
        assert f"x {values['votes']} paths" in sums


def test_a_gpu_below_8_0_samples_and_trains_in_float16_without_vllm():
    values = params.load_profile([ROOT / "params" / "t4_colab.yaml"], [])
    assert (values["engine"], values["dtype"], values["method"]) == ("transformers", "float16", "lora")
