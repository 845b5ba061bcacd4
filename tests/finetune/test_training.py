"""Training with TRL on a tiny model: what is learned and what is not, the loss by hand, and the same seed twice."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import shared
import tiny
from shared import pairs

from crescent_utils.finetune import masks, recipes, sft, training
from crescent_utils.finetune.masks import TrainingError
from crescent_utils.generation import models
from crescent_utils.runs import domains, folders, params, progress

DOMAIN = domains.get_domain("arithmetic")
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 12}
IGNORED = -100


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return models.from_folder(tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model"), "base")


def recipe(method="lora", **changes):
    return shared.recipe(method, **{"learning_rate": 1e-2, **changes})


@pytest.fixture
def seen(monkeypatch):
    """What the real trainer gives to the real loss: input ids, labels and attention masks of each batch."""
    import trl

    batches = []

    class Watched(trl.SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if model.training:
                batches.append({name: inputs[name].clone() for name in ("input_ids", "labels", "attention_mask")})
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(trl, "SFTTrainer", Watched)
    return batches


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def loss_by_hand(base, examples, system=""):
    """Mean negative log-likelihood over all tokens of all completions and their end of turn, one example at a time."""
    import torch

    model, words = load(base.locate()), models.load_tokenizer(base.locate())
    total, tokens = 0.0, 0
    for pair in examples:
        text = (
            "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in pair["prompt"])
            + "<|im_start|>assistant\n"
        )
        context = words(text, add_special_tokens=False)["input_ids"]
        learned = words(pair["completion"][0]["content"] + "<|im_end|>\n", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([context + learned])).logits[0, len(context) - 1 : -1].double()
        total -= float(logits.log_softmax(-1).gather(1, torch.tensor(learned)[:, None]).sum())
        tokens += len(learned)
    return total / tokens


# --- pairs and masks ------------------------------------------------------------------------------------------------


def test_a_pair_asks_as_the_vote_and_the_evaluation_ask():
    (pair,) = training.training_pairs(
        pd.DataFrame({"question": ["What is {3} + 4?"], "path": ["It is 7."]}), DOMAIN, "Be brief."
    )
    assert pair["prompt"] == domains.solve_messages(DOMAIN, "What is {3} + 4?", "Be brief.")
    assert pair["completion"] == [{"role": "assistant", "content": "It is 7."}]


def test_a_bare_pair_is_the_question_alone_and_its_path():
    rows = pd.DataFrame({"question": ["What is {3} + 4?"], "path": ["It is 7."]})
    (pair,) = training.training_pairs(rows, DOMAIN, train_prompt="bare")
    assert pair["prompt"] == [{"role": "user", "content": "What is {3} + 4?"}]
    assert pair["completion"] == [{"role": "assistant", "content": "It is 7."}]
    (pair,) = training.training_pairs(rows, DOMAIN, "Be brief.", "bare")
    assert pair["prompt"][0] == {"role": "system", "content": "Be brief."} and len(pair["prompt"]) == 2
    with pytest.raises(params.ParameterError, match="train_prompt: 'bare' contradicts the vote's path_formats"):
        training.training_pairs(rows.assign(format="zero_shot_cot", prompt="Q: …"), DOMAIN, "", "bare")


@pytest.mark.parametrize("style", ["chatml", "llama3", "llama2", "gemma"])
def test_a_bare_pair_is_rendered_in_training_as_it_is_asked(style):
    bare = training.training_pairs(pd.DataFrame({"question": ["3 + 4?"], "path": ["7"]}), DOMAIN, "", "bare")
    masks.check_pairs(tiny.tokenizer(style), bare, 200)


@pytest.mark.parametrize("style", ["chatml", "llama3", "llama2", "gemma"])
def test_the_mask_covers_the_prompt_and_leaves_the_reply_with_its_end(style):
    words = tiny.tokenizer(style)
    pair = {**pairs(1)[0], "prompt": pairs(1)[0]["prompt"][-1:]}  # Llama 2 has no system turn of its own
    masked = masks.loss_mask(words, pair)
    context = "".join(text for text, learned in masked if not learned)
    reply = "".join(text for text, learned in masked if learned)
    assert context + reply == words.apply_chat_template(pair["prompt"] + pair["completion"], tokenize=False)
    assert context.endswith(words.apply_chat_template(pair["prompt"], add_generation_prompt=True, tokenize=False)[-20:])
    end = {"gemma": "<end_of_turn>"}.get(style, words.eos_token)
    assert re.fullmatch(rf"\s*0 \+ 4 = 4\s*{re.escape(end)}\s*", reply)
    assert [learned for _, learned in masked] == sorted(learned for _, learned in masked)


def test_a_template_that_cannot_be_masked_or_never_ends_is_refused():
    words = tiny.tokenizer()
    words.chat_template = "{% if add_generation_prompt %}A{% else %}B{% endif %}" + tiny.CHATML
    with pytest.raises(TrainingError, match="renders a prompt differently"):
        masks.loss_mask(words, pairs(1)[0])
    for end in ("", "\\n", "</reply>"):
        words.chat_template = "{% for m in messages %}{{ m['content'] }}{{ '" + end + "' }}{% endfor %}"
        with pytest.raises(TrainingError, match="would never stop"):
            masks.loss_mask(words, pairs(1)[0])


@pytest.mark.parametrize(
    "reply", ["'<think></think>' + m['content']", "m['content'] | upper", "m['content'] + ' Goodbye.'"]
)
def test_a_template_that_makes_another_reply_of_the_completion_is_refused(reply):
    words = tiny.tokenizer()
    words.chat_template = tiny.CHATML.replace(
        "m['content']", f"({reply} if m['role'] == 'assistant' else m['content'])"
    )
    pair = {**pairs(1)[0], "completion": [{"role": "assistant", "content": "It is 7."}]}
    with pytest.raises(TrainingError, match="more or less than the completion"):
        masks.loss_mask(words, pair)


@pytest.mark.parametrize("style", ["chatml", "gemma"])
def test_the_trainer_learns_just_the_replies_and_their_ends(seen, tmp_path, style):
    base = models.from_folder(tiny.model_folder(tmp_path / "base", style), "base")
    examples = pairs()
    training.train(base, examples, tmp_path, recipe("full"), "tuned")
    words = models.load_tokenizer(base.locate())
    learned, contexts = [], []
    for batch in seen:
        for ids, labels, attended in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            real = attended.bool()
            assert (labels[~real] == IGNORED).all(), "padding is not learned"
            assert (labels[labels != IGNORED] == ids[labels != IGNORED]).all()
            learned.append(words.decode(labels[labels != IGNORED]))
            contexts.append(words.decode(ids[real & (labels == IGNORED)]))
    start, end = {
        "chatml": ("<|im_start|>assistant\n", "<|im_end|>\n"),
        "gemma": ("<start_of_turn>model\n", "<end_of_turn>\n"),
    }[style]
    assert sorted(learned) == sorted(pair["completion"][0]["content"] + end for pair in examples)
    assert all(text.endswith(start) and "What is" in text for text in contexts)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("micro", [12, 3])
def test_the_first_loss_is_the_one_worked_out_by_hand(base, tmp_path, method, micro):
    # A new adapter changes nothing, so that the first step's loss is the untrained model's, however the batch is cut.
    trained = training.train(base, pairs(), tmp_path, recipe(method, batch_size=12, micro_batch_size=micro), "tuned")
    assert trained.counts["steps"] == 1
    assert trained.log["loss"].iloc[0] == pytest.approx(loss_by_hand(base, pairs()), abs=1e-4)


# --- what training leaves -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    return folder, training.train(
        base, pairs(), folder, recipe(epochs=2, lora_rank=4, lora_alpha=12, held_out=0.25), "tuned"
    )


@pytest.fixture(scope="module")
def full(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return folder, training.train(base, pairs(), folder, recipe("full", epochs=2, learning_rate=1e-3), "tuned")


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def test_the_merged_model_is_base_plus_adapter(base, lora):
    import torch
    from safetensors.torch import load_file

    folder, _ = lora
    before, after = load_file(base.locate() / "model.safetensors"), weights(folder)
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    changed = set()
    for name, value in before.items():
        stem = "base_model.model." + name.removesuffix(".weight")
        if f"{stem}.lora_A.weight" in adapter:
            a, b = adapter[f"{stem}.lora_A.weight"].float(), adapter[f"{stem}.lora_B.weight"].float()
            assert a.shape[0] == 4
            assert torch.allclose(after[name], value + 12 / 4 * b @ a, atol=1e-6), name
            changed.add(name.split(".")[-2])
        else:
            assert torch.equal(after[name], value), name
    assert changed == {"q_proj", "v_proj"}
    assert any(not torch.equal(before[name], after[name]) for name in before), "it did learn something"


def test_both_ways_of_training_lower_the_loss(base, lora, full):
    for _, trained in (lora, full):
        losses = trained.log["loss"].dropna()
        assert losses.iloc[-1] < losses.iloc[0]
    assert loss_by_hand(models.from_folder(full[0] / "model", "tuned"), pairs()) < loss_by_hand(base, pairs())


def test_no_file_names_a_folder_of_this_machine(base, lora, full):
    for folder, _ in (lora, full):
        places = {str(path).encode() for path in (folder, base.locate(), Path.home(), Path.cwd(), folder.parent)}
        for path in (path for path in folder.rglob("*") if path.is_file() and path.name != "training_args.bin"):
            content = path.read_bytes()
            assert not any(place in content for place in places), path.name
    settings = json.loads((lora[0] / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] is None
    assert sorted(path.name for path in (lora[0] / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_an_adapter_is_small(lora):
    from safetensors.torch import load_file

    adapter = load_file(lora[0] / "adapter" / "adapter_model.safetensors")
    assert {str(value.dtype) for value in adapter.values()} == {"torch.bfloat16"}
    assert all("lora_" in name for name in adapter), "no embedding goes along"


def test_what_was_counted(lora, full):
    assert lora[1].counts.items() >= {"pairs": 12, "held_out": 3, "trained": 9, "steps": 6}.items()
    assert full[1].counts.items() >= {"pairs": 12, "held_out": 0, "trained": 12, "steps": 6}.items()
    assert full[1].counts["tokens"] > 12 * 2 * 50
    assert lora[1].log["eval_loss"].notna().sum() == 2 and full[1].log["eval_loss"].notna().sum() == 0
    assert full[1].log["step"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_same_seed_gives_the_same_model_and_another_another(base, tmp_path, method):
    made = [
        training.train(base, pairs(), tmp_path / str(i), recipe(method, seed=seed), "tuned")
        for i, seed in enumerate((1, 1, 2))
    ]
    prints = [trained.model.fingerprint for trained in made]
    assert prints[0] == prints[1] != prints[2] != base.fingerprint
    assert made[0].log.equals(made[1].log)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_was_trained_is_found_again(base, lora, full, kind):
    folder, trained = {"lora": lora, "full": full}[kind]
    again = models.load_trained(folder, base, "tuned")
    assert again.fingerprint == trained.model.fingerprint
    assert again.locate() == trained.model.locate() == folder / "model"
    record = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
    assert record["base"] == base.fingerprint and record["counts"] == trained.counts


def test_training_again_takes_the_place_of_what_was_there(base, tmp_path):
    import torch

    first = training.train(base, pairs(), tmp_path, recipe(lora_rank=2), "tuned")
    training.train(base, pairs(), tmp_path / "other", recipe(lora_rank=2, seed=2), "tuned")
    second = training.train(base, pairs(), tmp_path, recipe(lora_rank=2, seed=2), "tuned")
    assert first.model.fingerprint != second.model.fingerprint
    whole, expected = weights(tmp_path), weights(tmp_path / "other")
    assert all(torch.equal(whole[name], expected[name]) for name in expected), "the merged model is the new one"


# --- a training that is already there -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_with_the_same_rows_recipe_and_base_is_taken_over(base, tmp_path, seen, capsys, method):
    first = training.train(base, pairs(), tmp_path, recipe(method), "tuned")
    batches = len(seen)
    again = training.train(base, pairs(), tmp_path, recipe(method), "tuned")
    assert len(seen) == batches, "no second training was started"
    assert "taken over" in capsys.readouterr().out
    assert again.model.fingerprint == first.model.fingerprint and again.counts == first.counts
    assert again.cost == first.cost, "what it cost when it was trained"
    pd.testing.assert_frame_equal(again.log, first.log)
    pd.testing.assert_frame_equal(again.tokens, first.tokens)
    assert again.model.locate() == tmp_path / "model"
    training.train(base, pairs(), tmp_path, recipe(method, micro_batch_size=2), "tuned")
    assert len(seen) == batches, "how the work is spread over memory does not change what is learned"


def test_another_training_is_not_taken_over(base, tmp_path, seen):
    training.train(base, pairs(), tmp_path, recipe("full"), "tuned")
    other_base = models.Model("base", "other", base.locate)
    teacher = sft.Teacher(base, SAMPLING)
    for changed in (
        (base, pairs(11), recipe("full")),
        (base, pairs(), recipe("full", learning_rate=2e-2)),
        (base, pairs(), recipe("lora")),
        (other_base, pairs(), recipe("full")),
    ):
        batches = len(seen)
        last = training.train(changed[0], changed[1], tmp_path, changed[2], "tuned")
        assert len(seen) > batches
    on_policy = training.train(base, pairs(), tmp_path, recipe("full"), "tuned", teacher)
    assert on_policy.model.fingerprint != last.model.fingerprint, "a student on policy learns something else"


@pytest.mark.parametrize("damage", ["the weights are gone", "the weights are others"])
def test_a_training_whose_weights_are_not_there_is_done_again(base, tmp_path, seen, damage):
    first = training.train(base, pairs(), tmp_path, recipe(), "tuned")
    batches = len(seen)
    if damage == "the weights are gone":
        shutil.rmtree(tmp_path / "adapter")
        shutil.rmtree(tmp_path / "model")
    else:
        weights_file = tmp_path / "adapter" / "adapter_model.safetensors"
        weights_file.write_bytes(weights_file.read_bytes()[:-2] + b"xx")
    again = training.train(base, pairs(), tmp_path, recipe(), "tuned")
    assert len(seen) == 2 * batches and again.model.fingerprint == first.model.fingerprint


# --- replay ---------------------------------------------------------------------------------------------------------


def stage_of(tmp_path, run, name="finetune", **values):
    """A stage of `run` as begin_stage opens it, its upstream left aside; it replays the run "recorded"."""
    own = params.build_settings(name, {"outputs": str(tmp_path), "run": run, "replay_from": "recorded", **values})
    return folders.Stage(name, own, tmp_path / run / name, {}, {})


def record(tmp_path, folder, trained, **values):
    """Put a training of this test into the folder of the run "recorded", as notebook 04 or 05 leaves it."""
    stage = stage_of(tmp_path, "recorded", **values)
    stage.folder.mkdir(parents=True)
    (stage.folder / "trained.json").write_bytes((folder / "trained.json").read_bytes())
    stage.write_table("log", trained.log)
    stage.write_table("tokens", trained.tokens)
    stage.finish(trained.counts)


def test_a_replay_gives_the_record_and_needs_no_weights(lora, tmp_path):
    folder, trained = lora
    record(tmp_path, folder, trained)
    stage = stage_of(tmp_path, "replay")
    replayed = training.recorded_training(stage, pairs(), "tuned")
    assert (replayed.model.fingerprint, replayed.counts) == (trained.model.fingerprint, trained.counts)
    pd.testing.assert_frame_equal(replayed.log, trained.log)
    pd.testing.assert_frame_equal(replayed.tokens, trained.tokens)
    with pytest.raises(models.ModelError, match="engine: auto"):
        replayed.model.locate()
    for other in (
        pairs(11),
        pairs()[::-1],
        [{**pairs()[0], "completion": [{"role": "assistant", "content": "8"}]}, *pairs()[1:]],
    ):
        with pytest.raises(TrainingError, match="trained on other pairs.*engine: auto"):
            training.recorded_training(stage, other, "tuned")
    with pytest.raises(TrainingError, match="finetune: run 'none' has not been trained"):
        training.recorded_training(stage_of(tmp_path, "replay", replay_from="none"), pairs(), "tuned")


@pytest.mark.parametrize(
    ("name", "value"),
    [("method", "full"), ("learning_rate", 2.0e-5), ("lora_targets", ["k_proj"]), ("epochs", 1.0), ("model", "other")],
)
def test_a_replay_does_not_show_a_recorded_training_as_another_one(lora, tmp_path, name, value):
    record(tmp_path, *lora)
    with pytest.raises(TrainingError, match=rf"finetune: .*was trained with {name}: .*, not .*engine: auto"):
        training.recorded_training(stage_of(tmp_path, "replay", **{name: value}), pairs(), "tuned")


@pytest.mark.parametrize(
    ("name", "value"), [("student_data", "on_policy"), ("student", "HuggingFaceTB/x"), ("student_epochs", 1.0)]
)
def test_a_replay_does_not_show_a_recorded_student_as_another_one(lora, tmp_path, name, value):
    record(tmp_path, *lora, name="distil")
    with pytest.raises(TrainingError, match=rf"distil: .*was trained with {name}: .*, not .*engine: auto"):
        training.recorded_training(stage_of(tmp_path, "replay", "distil", **{name: value}), pairs(), "student_tuned")


def test_a_replay_may_differ_in_what_changes_no_training(lora, tmp_path):
    record(tmp_path, *lora)
    own = {"micro_batch_size": 2, "checkpoint_steps": 5, "gradient_checkpointing": True, "concurrency": 3}
    replayed = training.recorded_training(stage_of(tmp_path, "replay", **own), pairs(), "tuned")
    assert replayed.counts == lora[1].counts


# --- the control ----------------------------------------------------------------------------------------------------


ROWS = pd.DataFrame({"id": range(12), "question": [f"What is {i} + 4?" for i in range(12)],
                     "path": [f"{i} + 4 = {i + 4}" for i in range(12)]})  # fmt: skip
SHORT = {"random_label_control": True, "train_prompt": "solve", "epochs": 1.0, "batch_size": 4, "micro_batch_size": 4,
         "held_out": 0.25}  # fmt: skip


@pytest.fixture(scope="module")
def controlled(base, tmp_path_factory):
    """The stage of the run "recorded" with its control, as notebook 04 leaves them, and the control."""
    outputs = tmp_path_factory.mktemp("outputs")
    stage = stage_of(outputs, "recorded", model=str(base.locate()), engine="transformers", **SHORT)
    stage.folder.mkdir(parents=True)
    control = training.train_control(stage, ROWS, DOMAIN)
    own = training.train(
        base, training.training_pairs(ROWS, DOMAIN), stage.folder, recipes.recipe_of(stage.settings), "tuned"
    )
    for prefix, trained in (("", own), ("control_", control)):
        stage.write_table(f"{prefix}log", trained.log)
        stage.write_table(f"{prefix}tokens", trained.tokens)
    stage.finish(own.counts, models={each.model.label: each.model.fingerprint for each in (own, control)})
    return stage, own, control


def test_the_control_learns_the_same_texts_by_the_same_recipe_in_a_folder_of_its_own(controlled, base):
    stage, own, control = controlled
    assert control.model.label == "tuned_random_labels"
    alike = {"pairs": 12, "held_out": 3, "trained": 9, "steps": 3}
    assert own.counts.items() >= alike.items() <= control.counts.items() and len(control.log) == len(own.log)
    assert len({base.fingerprint, own.model.fingerprint, control.model.fingerprint}) == 3
    assert control.model.locate() == stage.folder / "control" / "model" != own.model.locate() == stage.folder / "model"
    first = "".join(control.tokens.query("pair == 0")["token"])
    assert "What is 0 + 4?" in first and "0 + 4 = 4" not in first and " + 4 = " in first
    assert models.load_trained(stage.folder / "control", base, "x").fingerprint == control.model.fingerprint


def test_without_the_parameter_there_is_no_control(tmp_path):
    assert training.train_control(stage_of(tmp_path, "r", random_label_control=False), ROWS, DOMAIN) is None


def test_a_replay_gives_the_recorded_control_and_no_other(controlled, tmp_path):
    recorded, own, control = controlled
    outputs = recorded.folder.parent.parent

    def replay(rows=ROWS, **values):
        values = {"model": recorded.settings.model, **SHORT, **values}
        return training.train_control(stage_of(outputs, "replay", **values), rows, DOMAIN)

    replayed = replay()
    assert (replayed.model.fingerprint, replayed.counts) == (control.model.fingerprint, control.counts)
    assert replayed.model.label == "tuned_random_labels" and replayed.cost == control.cost
    pd.testing.assert_frame_equal(replayed.log, control.log)
    pd.testing.assert_frame_equal(replayed.tokens, control.tokens)
    assert not replayed.tokens.equals(own.tokens)
    with pytest.raises(TrainingError, match="trained on other pairs.*engine: auto"):
        replay(ROWS.head(11))
    with pytest.raises(TrainingError, match="trained on other pairs.*engine: auto"):
        replay(seed=1, train_prompt="solve", rows=ROWS.assign(path=ROWS["path"] + "."))
    with pytest.raises(TrainingError, match="was trained with train_prompt: 'solve', not 'bare'"):
        replay(train_prompt="bare")
    with pytest.raises(TrainingError, match="was trained with learning_rate"):
        replay(learning_rate=2.0e-5)
    with pytest.raises(TrainingError, match="run 'none' has not been trained"):
        replay(replay_from="none")


def test_a_replay_of_a_run_without_a_control_says_so(lora, tmp_path):
    record(tmp_path, *lora)
    with pytest.raises(TrainingError, match="random_label_control: run 'recorded' has trained no control"):
        training.train_control(stage_of(tmp_path, "replay", random_label_control=True), ROWS, DOMAIN)


# --- what cannot be trained -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "held_out"), [(0, 0.1), (1, 0.0), (2, 0.5)])
def test_too_few_pairs_are_refused_with_what_to_change(base, tmp_path, count, held_out):
    with pytest.raises(TrainingError, match=f"{count} pairs are too few.*min_agreement"):
        training.train(base, pairs(count), tmp_path, recipe(held_out=held_out), "tuned")


def test_a_share_that_holds_out_nobody_is_no_trouble(base, tmp_path):
    trained = training.train(base, pairs(5), tmp_path, recipe(held_out=0.1), "tuned")
    assert trained.counts["held_out"] == 0 and trained.counts["trained"] == 5


def test_batches_have_to_divide(base, tmp_path):
    with pytest.raises(TrainingError, match="batch_size: 6 is no multiple of micro_batch_size 4"):
        training.train(base, pairs(), tmp_path, recipe(batch_size=6, micro_batch_size=4), "tuned")


def test_a_loss_that_is_no_number_is_not_shipped(base, tmp_path):
    with pytest.raises(TrainingError, match="learning_rate"):
        training.train(
            base,
            pairs(),
            tmp_path,
            recipe("full", learning_rate=1e38, warmup_ratio=0.0, lr_schedule="constant"),
            "tuned",
        )
    assert not (tmp_path / "trained.json").exists()


@pytest.mark.parametrize("cut", ["all of it", "the end of the longest"])
def test_a_pair_longer_than_max_length_does_not_lose_its_end_in_silence(base, tmp_path, cut):
    words = models.load_tokenizer(base.locate())
    longest = max(len(masks.loss_mask(words, pair)) for pair in pairs())
    training.train(base, pairs(), tmp_path / "whole", recipe(max_length=longest), "tuned")
    with pytest.raises(TrainingError, match="max_length"):
        training.train(
            base, pairs(), tmp_path / "cut", recipe(max_length=64 if cut == "all of it" else longest - 2), "tuned"
        )


def test_a_notebook_shows_a_bar_that_counts_the_steps_and_nothing_else(base, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv(progress.PROGRESS_SECONDS, "0.0001")
    training.train(base, pairs(), tmp_path, recipe("full", held_out=0.25), "tuned")
    out, err = capfd.readouterr()
    last = progress.LINE.findall(err)[-1]
    assert out == "" and all(line.startswith("training ") for line in re.split(r"[\r\n]+", err) if line.strip())
    assert last.startswith("training 100% |") and re.search(r"\| 3/3 steps, loss \d\.\d{3} \[", last)


def test_recipes_come_out_of_the_parameters():
    tuned = recipes.recipe_of(
        params.build_settings("finetune", {"learning_rate": 0.5, "lora_targets": ["k_proj"], "seed": 9})
    )
    assert (tuned.learning_rate, tuned.lora_targets, tuned.seed) == (0.5, ["k_proj"], 9)
    for name in ("epochs", "batch_size", "micro_batch_size", "max_length", "held_out", "warmup_ratio", "lr_schedule",
    "weight_decay",
                 "lora_rank", "lora_alpha", "dtype", "method"):  # fmt: skip
        field = params.Finetune.model_fields[name]
        other = {"method": "full", "lr_schedule": "cosine", "dtype": "float16", "max_length": 32, "held_out": 0.5}.get(
            name, type(field.default)(1)
        )
        assert getattr(recipes.recipe_of(params.build_settings("finetune", {name: other})), name) == other
    student = recipes.recipe_of(
        params.build_settings("distil", {"student_learning_rate": 0.5, "student_epochs": 2.0, "student_batch_size": 8})
    )
    assert (student.method, student.learning_rate, student.epochs, student.batch_size) == ("full", 0.5, 2.0, 8)


# --- the student ----------------------------------------------------------------------------------------------------


def test_the_student_is_trained_in_its_own_right(base, tmp_path, monkeypatch):
    monkeypatch.setenv("CRESCENT_CACHE", str(tmp_path / "cache"))
    student = models.resolve_student("half", base)
    trained = training.train(student, pairs(), tmp_path / "distil", recipe("full"), "student_tuned")
    assert trained.model.label == "student_tuned"
    assert load(trained.model.locate()).config.num_hidden_layers == 2
    assert trained.model.fingerprint not in (student.fingerprint, base.fingerprint)
