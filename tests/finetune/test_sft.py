"""Training that can be cut, resumed, spread over processes and stopped: on a tiny model, with TRL's own trainer."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import shared
import tiny
from hypothesis import given
from hypothesis import strategies as st
from shared import ROOT, pairs

from crescent_utils.finetune import masks, recipes, sft, training
from crescent_utils.finetune.masks import TrainingError
from crescent_utils.generation import models
from crescent_utils.runs import domains, params

DOMAIN = domains.get_domain("arithmetic")
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 12}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return models.from_folder(tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model"), "base")


def recipe(method="full", **changes):
    return shared.recipe(method, **{"learning_rate": 1e-3, **changes})


# --- a kill and what comes after ------------------------------------------------------------------------------------


def cut(work, base, examples, how, after):
    """Train in another process and kill it with -9 as soon as checkpoint number `after` is whole."""
    sft.prepare_job(work, base, examples, how)
    process = subprocess.Popen(
        [sys.executable, "-m", "crescent_utils.finetune.sft", str(work)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not (work / f"checkpoint-{after}" / sft.MARK).exists():
        assert process.poll() is None and time.monotonic() < until, "it ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (work / "result.json").exists(), "it was over before the kill"


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_a_training_killed_with_9_ends_like_an_uncut_one(base, tmp_path, method):
    how = recipe(method, epochs=6, checkpoint_steps=3)
    examples = pairs()
    whole = training.train(base, examples, tmp_path / "whole", how, "tuned")
    cut(tmp_path / "cut" / "trainer", base, examples, how, after=3)
    half = tmp_path / "cut" / "trainer" / "checkpoint-999"  # and one that was cut while it was being written
    shutil.copytree(sft.last_checkpoint(tmp_path / "cut" / "trainer"), half)
    (half / sft.MARK).unlink()
    began = sft.last_checkpoint(tmp_path / "cut" / "trainer")
    assert began is not None and 3 <= int(began.name.split("-")[1]) < 18
    again = training.train(base, examples, tmp_path / "cut", how, "tuned")
    assert again.counts == whole.counts and again.counts["steps"] == 18
    pd.testing.assert_frame_equal(again.log, whole.log, rtol=1e-6)
    assert again.model.fingerprint == whole.model.fingerprint, "the very same weights"
    assert again.cost.seconds > 0
    assert not (tmp_path / "cut" / "trainer").exists(), "what is done needs no checkpoints"


def test_other_parameters_or_pairs_do_not_go_on_from_old_checkpoints(base, tmp_path):
    def left():
        return [path.name for path in tmp_path.glob("checkpoint-*")]

    def mark():
        (tmp_path / "checkpoint-3").mkdir()
        (tmp_path / "checkpoint-3" / sft.MARK).write_text("{}")

    sft.prepare_job(tmp_path, base, pairs(), recipe())
    mark()
    sft.prepare_job(tmp_path, base, pairs(), recipe())
    assert left() == ["checkpoint-3"]
    for other in (
        (base, pairs(), recipe(learning_rate=2e-3)),
        (base, pairs(11), recipe()),
        (models.Model("base", "other", base.locate), pairs(), recipe()),
    ):
        sft.prepare_job(tmp_path, *other)
        assert left() == []
        mark()


# --- what stops a training ------------------------------------------------------------------------------------------


def test_a_divergence_stops_and_the_last_good_checkpoint_stays(base, tmp_path):
    from transformers import AutoModelForCausalLM

    how = recipe(
        epochs=10, learning_rate=30.0, checkpoint_steps=1, warmup_ratio=1.0
    )  # the rate grows until it is too much
    with pytest.raises(
        TrainingError, match=r"has diverged .*last good checkpoint is trainer/checkpoint-\d+.*learning_rate"
    ):
        training.train(base, pairs(), tmp_path, how, "tuned")
    assert not (tmp_path / "trained.json").exists() and not (tmp_path / "model").exists()
    last = sft.last_checkpoint(tmp_path / "trainer")
    assert last is not None
    state = json.loads((last / "trainer_state.json").read_text())
    assert all(math.isfinite(entry["loss"]) for entry in state["log_history"] if "loss" in entry)
    kept = AutoModelForCausalLM.from_pretrained(last)
    assert all(bool(value.isfinite().all()) for value in kept.state_dict().values())


def history(losses, norms=None):
    norms = norms or [1.0] * len(losses)
    return [
        {"step": i + 1, "loss": loss, "grad_norm": norm}
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True))
    ]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0, 2.0, 1.0, 0.5], None),
        ([3.0, float("nan")], 2),
        ([3.0, float("inf")], 2),
        ([0.2] * 5 + [0.6] * 5, None),  # three times as much, but not 1 nat more
        ([0.5] * 5 + [1.6] * 5, 6),
        ([4.0] * 5 + [7.9] * 5, None),
        ([4.0] * 5 + [8.1] * 5, 6),
        ([0.5] * 9 + [3.0], None),  # one hard batch
    ],
)
def test_what_counts_as_gone_wrong(losses, expected):
    assert sft.diverged(history(losses)) == expected


def test_a_norm_that_is_no_number_condemns_the_weights_after_it():
    found = history([1.0, 1.0], [1.0, float("inf")])
    assert sft.diverged(found) == 3, "the loss of step 2 was that of good weights, checkpoint-2 is not good"
    assert sft.diverged(found, half=True) is None, "a scaler skips such a step"


def test_a_disk_too_small_is_named_before_the_first_step(base, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5))
    with pytest.raises(TrainingError, match=r"outputs: training needs about 0\.\d+ GB.*free some.*method: lora"):
        training.train(base, pairs(), tmp_path, recipe(), "tuned")
    assert not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.parametrize(
    ("interval", "rows", "expected"), [(1, 100, 7), (2, 100, 4), (6, 100, 2), (500, 100, 2), (0, 12, 3), (0, 400, 2)]
)
def test_enough_checkpoints_stay_to_go_back_before_a_divergence(interval, rows, expected):
    assert recipes.checkpoints_kept(recipe(checkpoint_steps=interval), rows) == expected
    every = interval or rows // 4
    steps = range(every, 20 * every, every)
    for first_bad in range(
        2 * every + 3, 12 * every
    ):  # seen 4 steps later; good is what was written before the bad step's weights
        there = [step for step in steps if step < first_bad + recipes.WINDOW][-expected:]
        assert any(step < first_bad - 1 for step in there)


def test_the_need_for_disk_is_what_is_written(base, tmp_path):
    how = recipe(epochs=4, checkpoint_steps=1)
    sft.prepare_job(tmp_path / "trainer", base, pairs(), how)
    sft.run_job(tmp_path / "trainer")
    model = recipes.load_for_training(base.locate(), how)
    one = sum(path.stat().st_size for path in sft.last_checkpoint(tmp_path / "trainer").rglob("*") if path.is_file())
    counted = 12 * sum(p.numel() for p in model.parameters())
    assert counted <= one < counted * 1.2, "12 bytes a trained parameter, and little more"
    assert len(list((tmp_path / "trainer").glob("checkpoint-*"))) == recipes.checkpoints_kept(how, 12) == 7


# --- what this machine cannot do ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "qlora"}, "method: 'qlora' needs"),
        ({"dtype": "float16"}, "dtype: 'float16' trains on an NVIDIA GPU alone"),
        ({"report_to": ["wandb"]}, "report_to: 'wandb' is not installed"),
        ({"batch_size": 6}, "batch_size: 6 is no multiple of micro_batch_size 4"),
        ({"batch_size": 4, "processes": 3, "micro_batch_size": 1}, "batch_size: 4 is no multiple .* 3 processes"),
    ],
)
def test_what_cannot_be_trained_here_is_refused_by_name_before_a_model_loads(base, tmp_path, changes, message):
    import importlib.util

    import torch

    if torch.cuda.is_available() or ("report_to" in changes and importlib.util.find_spec("wandb")):
        pytest.skip("this machine can")

    def nowhere():
        raise AssertionError("a model was asked for")

    with pytest.raises(TrainingError, match=message):
        training.train(models.Model("base", "x", nowhere), pairs(), tmp_path, recipe(**changes), "tuned")


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_weights_that_are_trained_in_full_are_float32(method):
    import torch

    weights, bf16, fp16 = recipes.precision("bfloat16", method)
    assert (bf16, fp16) == (True, False)
    assert weights == (torch.float32 if method == "full" else torch.bfloat16)


@pytest.mark.parametrize(
    ("instructions", "mixed"),
    [({"avx2": True, "avx512_bf16": False}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_a_cpu_trains_in_bfloat16_where_it_computes_in_it(instructions, mixed, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert recipes.precision("auto", "full") == (torch.float32, mixed, False)
    assert recipes.precision("auto", "lora") == (torch.bfloat16 if mixed else torch.float32, mixed, False)


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_auto_is_float16_on_a_gpu_that_only_emulates_bfloat16(monkeypatch, has_bfloat16):
    import torch

    from crescent_utils.generation.engines import transformers

    def is_supported(including_emulation=True):  # torch says yes to a T4 too
        return including_emulation or has_bfloat16

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    weights = torch.bfloat16 if has_bfloat16 else torch.float16
    assert recipes.precision("auto", "lora") == (weights, has_bfloat16, not has_bfloat16)
    assert recipes.precision("auto", "full") == (torch.float32, has_bfloat16, not has_bfloat16)
    assert transformers._fast_dtype("cuda") == ("auto" if has_bfloat16 else "float16")
    assert transformers._fast_dtype("cpu") == "float32"


@pytest.mark.parametrize("adapter", ["float16", "bfloat16"])
def test_mixed_float16_scales_the_gradients_of_what_is_trained(adapter):
    """The scaler refuses 16-bit weights, so that an adapter would stop a T4 at its first step."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2, dtype=torch.float16), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    model[1].to(getattr(torch, adapter))
    recipes.train_in_float32(model)
    assert {p.dtype for p in model[0].parameters()} == {torch.float16}, "what is not trained stays small"
    assert {p.dtype for p in model[1].parameters()} == {torch.float32}
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=1.0)
    scaler.scale(model[1](torch.ones(1, 2)).sum()).backward()
    scaler.unscale_(optimizer)
    assert model[1].bias.grad.tolist() == [1.0, 1.0]


# --- the ways to train ----------------------------------------------------------------------------------------------


def first_loss(base, folder, how, count=12):
    return training.train(base, pairs(count), folder, how, "tuned").log["loss"].iloc[0]


def test_only_learned_tokens_go_through_the_head(base, tmp_path, monkeypatch):
    import trl.trainer.utils as of_trainers

    def losses_and_positions(folder):
        positions = []
        apply = of_trainers._ChunkedLogProbFunction.apply
        with monkeypatch.context() as patch:
            patch.setattr(
                of_trainers._ChunkedLogProbFunction,
                "apply",
                lambda rows, *rest: positions.append(len(rows)) or apply(rows, *rest),
            )
            trained = training.train(base, pairs(), folder, recipe(epochs=1), "tuned")
        return trained.log["loss"].tolist(), sum(positions)

    alone, learned = losses_and_positions(tmp_path / "alone")
    monkeypatch.setattr(sft, "_learned_tokens_alone", contextlib.nullcontext)
    everywhere, all_positions = losses_and_positions(tmp_path / "everywhere")
    tokenizer = models.load_tokenizer(base.locate())
    assert learned == sum(learned for pair in pairs() for _, learned in masks.loss_mask(tokenizer, pair))
    assert learned < all_positions / 2
    assert alone == pytest.approx(everywhere, abs=1e-5)


def test_gradient_checkpointing_changes_no_loss(base, tmp_path):
    plain = training.train(base, pairs(), tmp_path / "plain", recipe(), "tuned").log["loss"]
    thrifty = training.train(base, pairs(), tmp_path / "thrifty", recipe(gradient_checkpointing=True), "tuned").log[
        "loss"
    ]
    assert thrifty.tolist() == pytest.approx(plain.tolist(), abs=1e-5)


def test_packed_examples_do_not_see_each_other(base, tmp_path):
    # All twelve in one step, packed into rows of 512: the same mean over the same tokens as one by one.
    whole = first_loss(base, tmp_path / "plain", recipe(batch_size=12, micro_batch_size=12))
    packed = training.train(
        base, pairs(), tmp_path / "packed", recipe(packing=True, max_length=512, batch_size=12), "tuned"
    )
    assert packed.counts["steps"] == 1
    assert packed.log["loss"].iloc[0] == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_mixed_bfloat16_follows_float32(base, tmp_path, method):
    plain = training.train(base, pairs(), tmp_path / "plain", recipe(method), "tuned")
    mixed = training.train(base, pairs(), tmp_path / "mixed", recipe(method, dtype="bfloat16"), "tuned")
    assert mixed.log["loss"].tolist() == pytest.approx(plain.log["loss"].tolist(), rel=0.02)
    assert mixed.model.fingerprint != plain.model.fingerprint


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_two_processes_train_as_one_does(base, tmp_path, method):
    examples = pairs(16)  # whole batches: a last one that is not would be filled up with examples from the start
    one = training.train(
        base, examples, tmp_path / "one", recipe(method, epochs=2, batch_size=4, held_out=0.25), "tuned"
    )
    both = recipe(method, epochs=2, batch_size=4, micro_batch_size=2, held_out=0.25, processes=2)
    two = training.train(base, examples, tmp_path / "two", both, "tuned")
    assert two.counts["steps"] == one.counts["steps"] == 6
    assert two.log["loss"].dropna().tolist() == pytest.approx(one.log["loss"].dropna().tolist(), abs=2e-5)
    assert two.log["eval_loss"].dropna().tolist() == pytest.approx(one.log["eval_loss"].dropna().tolist(), abs=2e-5)
    # Both processes' tokens are counted; smaller micro-batches are padded less.
    assert 0.8 * one.counts["tokens"] < two.counts["tokens"] <= one.counts["tokens"]


def test_a_process_that_fails_is_heard(base, tmp_path):
    with pytest.raises(TrainingError, match=r"not a number.*learning_rate"):
        training.train(base, pairs(), tmp_path, recipe(processes=2, learning_rate=1e38, warmup_ratio=0.0), "tuned")


# --- which pairs ----------------------------------------------------------------------------------------------------


def qa(count=20):
    return pd.DataFrame({
        "id": [i // 2 for i in range(count)], "question": [f"q{i // 2}" for i in range(count)],
        "path": [f"path {i}" for i in range(count)], "agreement": [i / count for i in range(count)],
    })  # fmt: skip


def chosen(**values):
    return training.chosen_rows(qa(), params.build_settings("finetune", values))


def test_without_a_wish_every_pair_is_learned():
    pd.testing.assert_frame_equal(chosen(), qa())


def test_pairs_are_filtered_by_agreement_and_drawn_by_seed():
    assert (chosen(train_min_agreement=0.5)["agreement"] >= 0.5).all() and len(chosen(train_min_agreement=0.5)) == 10
    drawn = [chosen(max_pairs=6, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0].equals(drawn[1]) and not drawn[0].equals(drawn[2])
    assert all(len(table) == 6 and table["id"].is_monotonic_increasing for table in drawn)
    assert len(chosen(max_pairs=6, train_min_agreement=0.9)) == 2
    assert len(chosen(max_pairs=100)) == 20


@given(st.lists(st.integers(0, 9), min_size=2).filter(lambda ids: len(set(ids)) > 1), st.integers(0, 99), st.booleans())
def test_random_labels_belong_to_another_question(ids, seed, with_formats):
    rows = pd.DataFrame({"id": ids, "question": [f"q{i}" for i in ids], "agreement": 1.0})
    kinds = ["cot", "direct"] if with_formats else [""]
    rows = pd.concat([rows.assign(format=kind) for kind in kinds]).sort_values("id", kind="stable")
    rows = rows.reset_index(drop=True).assign(path=lambda table: [f"{i}" for i in table.index])
    learned = rows if with_formats else rows.drop(columns="format")
    mixed = training.with_paths_of_others(learned, seed)
    pd.testing.assert_frame_equal(mixed.drop(columns="path"), learned.drop(columns="path"))
    givers = rows.loc[mixed["path"].astype(int)].reset_index(drop=True)
    assert (givers["id"] != rows["id"]).all() and (givers["format"] == rows["format"]).all()
    giver_of = {
        (question, kind): giver for question, kind, giver in zip(rows["id"], rows["format"], givers["id"], strict=True)
    }
    assert len(set(zip(giver_of.values(), (kind for _, kind in giver_of), strict=True))) == len(giver_of), (
        "each gives once"
    )
    if rows.groupby(["id", "format"]).size().nunique() == 1:
        assert sorted(mixed["path"]) == sorted(rows["path"]), "the same texts, each as often"
    assert training.with_paths_of_others(learned, seed)["path"].tolist() == mixed["path"].tolist()


def test_a_single_question_has_no_other_answer():
    for rows in (qa(2), qa(4).assign(format=["cot", "cot", "cot", "direct"])):
        with pytest.raises(TrainingError, match="random_label_control: true needs two questions"):
            training.with_paths_of_others(rows, 1)


def test_other_prompts_than_the_votes_are_refused():
    settings = params.build_settings("finetune", {"system_prompt": "s", "train_prompt": "solve"})
    voted = {"parameters": params.build_settings("vote", {"system_prompt": "s"}).model_dump()}
    assert "same model, domain" in training.check_asked_alike(voted, settings)
    for name, value in (
        ("system_prompt", "t"),
        ("solve_prompt", "{question}!"),
        ("model", "other"),
        ("domain", "math_word_problems"),
    ):
        with pytest.raises(TrainingError, match=f"{name}: .*but the vote sampled with"):
            training.check_asked_alike({"parameters": voted["parameters"] | {name: value}}, settings)


def test_a_bare_question_needs_the_votes_model_and_not_its_solve_prompt():
    settings = params.build_settings("finetune", {"train_prompt": "bare"})
    values = {"solve_prompt": "{question}!", "vote_shots": "none"}
    voted = {"parameters": params.build_settings("vote", values).model_dump()}
    line = training.check_asked_alike(voted, settings)
    assert line == "the bare question, not the vote's request: same model, domain, system prompt"
    shown = training.check_asked_alike({"parameters": voted["parameters"] | {"vote_shots": "own"}}, settings)
    assert "not the vote's request, without its exemplars (own): same model" in shown
    for name, value in (("system_prompt", "t"), ("model", "other"), ("domain", "math_word_problems")):
        with pytest.raises(TrainingError, match=f"{name}: .*but the vote sampled with"):
            training.check_asked_alike({"parameters": voted["parameters"] | {name: value}}, settings)


# --- on-policy distillation -----------------------------------------------------------------------------------------


def test_a_student_follows_its_teacher_on_its_own_words(base, tmp_path):
    student = models.Model("student", "half", lambda: models.halve_layers(base.locate(), tmp_path / "half"))
    teacher = sft.Teacher(base, SAMPLING)
    how = recipe(epochs=4, batch_size=12, micro_batch_size=12, learning_rate=3e-3, held_out=0.25)
    trained = training.train(student, pairs(), tmp_path / "distil", how, "student_tuned", teacher)
    assert trained.counts["held_out"] == 0 and trained.counts["steps"] == 4
    losses = trained.log["loss"].tolist()
    assert losses[-1] < losses[0], "the divergence from the teacher falls"


def test_a_student_of_another_family_is_refused(base, tmp_path):
    other = models.from_folder(tiny.model_folder(tmp_path / "llama3", "llama3"), "student")
    with pytest.raises(
        TrainingError, match="student_data: 'on_policy' needs a student with its teacher's own tokenizer"
    ):
        training.train(other, pairs(), tmp_path, recipe(), "student_tuned", sft.Teacher(base, SAMPLING))
