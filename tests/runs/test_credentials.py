"""Credentials: one in a parameter is refused, before any file is written and without being said."""

from __future__ import annotations

import pytest
import yaml

from crescent_utils.cli import main
from crescent_utils.runs import params

TOKEN = "hf_" + "a1B2" * 9
CREDENTIALS = {
    "a password in an address": {"base_urls": ["http://me:hunter2@host:8000/v1"]},
    "an address that is no list": {"base_urls": "http://me:hunter2@host:8000/v1"},
    "a token of the hub": {"engine_args": {"load_format": TOKEN.replace("a1B2", "hunter2")}},
    "a key of a dictionary": {"engine_args": {"hf_token": "hunter2"}},
    "a key deep in a dictionary": {"engine_args": {"speculative_config": {"api-key": "hunter2"}}},
    "an option and its value": {"accelerate_args": ["--num_machines", "2", "--x-token", "hunter2"]},
    "an option with its value": {"accelerate_args": ["--wandb_password=hunter2"]},
    "a file behind a password": {"question_source": "https://me:hunter2@host/questions.jsonl"},
}


def stage_with(values):
    """Return a stage that has the parameters `values`."""
    return next(stage for stage, model in params.STAGE_SETTINGS.items() if values.keys() <= model.model_fields.keys())


@pytest.mark.parametrize("values", CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_credential_in_a_parameter_is_refused_without_being_said(values):
    with pytest.raises(params.ParameterError, match="CRESCENT_API_KEY") as caught:
        params.build_settings(stage_with(values), values)
    assert "hunter2" not in str(caught.value) and str(caught.value).startswith(next(iter(values)))


def test_what_only_sounds_like_a_credential_is_allowed():
    allowed = {
        "engine_args": {"tokenizer": "org/name", "max_num_batched_tokens": 8192, "hf_token": True, "key": ""},
        "base_urls": ["http://host:8000/v1"],
        "solve_prompt": "{question} The password of room 7 is secret: token@home?",
    }
    assert params.build_settings("vote", allowed).engine_args == allowed["engine_args"]
    arguments = ["--num_machines", "2", "--tokenizer", "x", "--main_process_ip=10.0.0.1"]
    params.build_settings("finetune", {"accelerate_args": arguments})


def test_the_command_refuses_it_before_a_file_is_written(tmp_path, capsys):
    profile = tmp_path / "p.yaml"
    profile.write_text(yaml.safe_dump({"outputs": str(tmp_path / "o"), "engine_args": {"hf_token": "hunter2"}}))
    assert main.main(["run", str(profile)]) == main.BAD_INPUT
    captured = capsys.readouterr()
    assert "engine_args" in captured.err and "hunter2" not in captured.err + captured.out
    assert not (tmp_path / "o").exists()
