"""Models: what a name means, fingerprints, the half student against a forward pass by hand, adapters merged."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import tiny

from crescent_utils.generation import models
from crescent_utils.generation.models import ModelError
from crescent_utils.generation.store import Request, Sampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model")


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


# --- names


def test_the_bundled_model_is_known_before_it_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path / "cache"))
    model = models.resolve_model("bundled")
    assert (model.label, model.fingerprint) == ("base", models.BUNDLED_FINGERPRINT)
    assert not (tmp_path / "cache").exists(), "to resolve is not to convert"


def test_a_folder_is_known_by_its_content(folder, tmp_path):
    model = models.resolve_model(str(folder), "tuned")
    assert (model.label, model.locate()) == ("tuned", folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert models.resolve_model(str(copy)).fingerprint == model.fingerprint
    (copy / "README.md").write_text("of no weight", encoding="utf-8")
    assert models.folder_fingerprint(copy) == model.fingerprint
    for path in sorted(path for path in copy.iterdir() if path.name != "README.md"):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert models.folder_fingerprint(copy) != model.fingerprint, path.name
        path.write_bytes(before)
    (copy / "config.json").rename(copy / "other.json")
    assert models.folder_fingerprint(copy) != model.fingerprint
    with pytest.raises(ModelError, match=r"no config\.json"):
        models.resolve_model(str(copy))


@pytest.mark.parametrize("name", ["./none", "/none/such", "~/none-such", "../none"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(ModelError, match=f"no folder '{name}'.*bundled"):
        models.resolve_model(name)


def test_a_hub_id_that_cannot_be_had_says_what_to_do(tmp_path):
    code = """
        from crescent_utils import generation
        try:
            generation.resolve_model("nobody/no-such-model")
        except generation.ModelError as error:
            print(error)
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment
    ).stdout
    assert "'nobody/no-such-model'" in out and "model: bundled" in out


def test_a_missing_package_is_named_with_the_way_to_install_it():
    with pytest.raises(ModelError, match=r"no-such-package is not installed.*setup_env\.py"):
        models._package_file("no-such-package", ".gguf")
    with pytest.raises(ModelError, match=r"numpy holds no file \.gguf"):
        models._package_file("numpy", ".gguf")


def test_another_gguf_than_the_one_measured_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "other.gguf").write_bytes(b"GGUF, but not that one")
    monkeypatch.setattr(models, "_package_file", lambda *_: tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"other\.gguf is not the file.*reinstall"):
        models.bundled_folder()


def test_the_embedder_is_the_bundled_one_or_what_is_named():
    assert models.embedder_folder("someone/else") == "someone/else"
    assert os.path.exists(os.path.join(models.embedder_folder("bundled"), "modules.json"))


def test_a_hash_of_parts_knows_where_they_end():
    assert models.combined_fingerprint("ab", "c") != models.combined_fingerprint("a", "bc")
    assert len(models.combined_fingerprint("a")) == 32


# --- publish


def test_a_folder_appears_whole_and_the_first_one_stays(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "in").mkdir(parents=True, mode=0o700)
        (tmp_path / name / "in" / "x").write_text(name, encoding="utf-8")
    models.move_into_place(tmp_path / "one", tmp_path / "target")
    models.move_into_place(tmp_path / "two", tmp_path / "target")
    assert (tmp_path / "target" / "in" / "x").read_text(encoding="utf-8") == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]
    assert (tmp_path / "target" / "in").stat().st_mode & 0o777 == 0o755
    with pytest.raises(OSError):
        models.move_into_place(tmp_path / "none", tmp_path / "elsewhere")


# --- the tokenizer


def test_a_tokenizer_without_a_chat_template_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "plain")
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((copy / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="plain.*no chat template.*instruct"):
        models.load_tokenizer(copy)


@pytest.mark.parametrize("room", [0, 1])
def test_a_prompt_fits_with_its_completion_to_the_last_token(room):
    words = tiny.tokenizer()
    request = Request.of("tiny", [{"role": "user", "content": "What is 3 + 4?"}], Sampling(max_tokens=10), "It is")
    length = len(models.prompt_token_ids(words, request, 10**6))
    if room:
        assert len(models.prompt_token_ids(words, request, length + 10)) == length
    else:
        with pytest.raises(
            ModelError, match=f"max_model_len: {length + 9} is too small for a prompt of {length} tokens and 10 new"
        ):
            models.prompt_token_ids(words, request, length + 9)


# --- the student


def test_half_a_model_is_every_second_layer_of_it(folder, tmp_path):
    import torch

    target = models.halve_layers(folder, tmp_path / "half")
    whole, half = load(folder), load(target)
    assert (whole.config.num_hidden_layers, half.config.num_hidden_layers) == (4, 2)
    expected = load(folder)
    expected.model.layers = torch.nn.ModuleList([whole.model.layers[0], whole.model.layers[2]])
    ids = torch.arange(1, 40)[None]
    with torch.inference_mode():
        by_hand, got = expected(ids, use_cache=False).logits, half(ids, use_cache=False).logits
        assert torch.allclose(by_hand, got, atol=1e-6)
        assert not torch.allclose(whole(ids).logits, got, atol=1e-2)
        # With the cache, token by token, it writes the same: each layer knows its number.
        cached = half.generate(ids, max_new_tokens=8, do_sample=False, use_cache=True, pad_token_id=0)
        plain = half.generate(ids, max_new_tokens=8, do_sample=False, use_cache=False, pad_token_id=0)
    assert cached.tolist() == plain.tolist()
    assert models.load_tokenizer(target).chat_template == models.load_tokenizer(folder).chat_template


@pytest.mark.parametrize(("layers", "removed", "numbers"), [(30, 4, [6, 12, 17, 23]), (4, 1, [2]), (4, 2, [1, 2])])
def test_the_layers_that_a_student_lacks_are_evenly_spread(layers, removed, numbers):
    assert models.spread_layers(layers, removed) == numbers


def test_layers_are_spread_in_the_middle_whatever_their_number():
    for layers in range(3, 50):
        for removed in range(1, layers - 1):
            numbers = models.spread_layers(layers, removed)
            assert len(set(numbers)) == removed and 0 < min(numbers) and max(numbers) < layers - 1
            gaps = [b - a for a, b in itertools.pairwise([0, *numbers, layers - 1])]
            assert max(gaps) - min(gaps) <= 1, "each gap is the others' size but for rounding"
    for removed in (0, 3):
        with pytest.raises(ModelError, match=f"student: 'without_{removed}_layers' .* remove 1 to 2"):
            models.spread_layers(4, removed)


def test_a_student_may_lack_a_few_layers(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path / "cache"))
    student = models.resolve_student("without_1_layers", models.from_folder(folder, "base"))
    weights, whole = load(student.locate()), load(folder)
    assert weights.config.num_hidden_layers == 3
    for own, number in zip(weights.model.layers, (0, 1, 3), strict=True):
        assert own.mlp.up_proj.weight.equal(whole.model.layers[number].mlp.up_proj.weight)
    assert models.is_part_of_teacher("without_12_layers") and not models.is_part_of_teacher("without_layers")


def test_the_student_is_made_when_it_is_needed_and_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path / "cache"))
    teacher = models.from_folder(folder, "base")
    student = models.resolve_student("half", teacher)
    assert student.label == "student" and teacher.fingerprint in student.fingerprint != teacher.fingerprint
    assert not (tmp_path / "cache").exists()
    made = student.locate()
    stamp = (made / "config.json").stat().st_mtime_ns
    assert student.locate() == made and (made / "config.json").stat().st_mtime_ns == stamp
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [made.name], "no rubbish is left"
    assert models.resolve_student(str(folder), teacher).fingerprint == teacher.fingerprint
    assert models.resolve_student(str(folder), teacher).label == "student"


# --- trained models


@pytest.fixture
def adapted(folder, tmp_path):
    """A folder as training leaves it, without its merged weights, which are not committed: adapter and record alone."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model = get_peft_model(
        load(folder), LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"], init_lora_weights=False)
    )
    model.save_pretrained(tmp_path / "finetune" / "adapter", save_embedding_layers=False)
    (tmp_path / "finetune" / "trained.json").write_text('{"fingerprint": "f"}', encoding="utf-8")
    return tmp_path / "finetune", model.eval()


def test_an_adapter_is_put_on_its_base_when_the_weights_are_asked_for(folder, adapted):
    import torch

    trained, expected = adapted
    model = models.load_trained(trained, models.from_folder(folder, "base"), "tuned")
    assert (model.label, model.fingerprint) == ("tuned", "f")
    assert not (trained / "model").exists()
    ids = torch.arange(1, 30)[None]
    with torch.inference_mode():
        assert torch.allclose(load(model.locate())(ids).logits, expected(ids).logits, atol=1e-3)
        assert not torch.allclose(load(folder)(ids).logits, expected(ids).logits, atol=0.1)
    assert model.locate() == trained / "model" and models.load_tokenizer(model.locate())
    assert sorted(path.name for path in trained.iterdir()) == ["adapter", "model", "trained.json"]


def test_what_has_not_been_trained_is_named(tmp_path, folder):
    with pytest.raises(ModelError, match="tuned: nothing has been trained in finetune/"):
        models.load_trained(tmp_path / "finetune", models.from_folder(folder, "base"), "tuned")


def test_whole_weights_that_are_gone_are_named(tmp_path, folder):
    (tmp_path / "trained.json").write_text('{"fingerprint": "f"}', encoding="utf-8")
    with pytest.raises(ModelError, match="tuned|adapter"):
        models.load_trained(tmp_path, models.from_folder(folder, "base"), "tuned").locate()


def test_quiet_leaves_the_logging_as_it_was():
    import transformers
    from transformers.utils import logging

    logging.enable_progress_bar()
    transformers.logging.set_verbosity_info()
    with models.quiet_transformers():
        assert not logging.is_progress_bar_enabled()
        assert logging.get_verbosity() == logging.ERROR
    assert logging.is_progress_bar_enabled() and logging.get_verbosity() == logging.INFO
    transformers.logging.set_verbosity_warning()
