"""Publish: folders that transformers loads, cards that say what the manifests say, and nothing pushed unasked."""

from __future__ import annotations

import json
import shutil
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pandas as pd
import pytest
import tiny
import yaml
from shared import REFERENCE, ROOT, recipe

from crescent_utils.cli import main, publish
from crescent_utils.finetune import training
from crescent_utils.generation import models
from crescent_utils.runs import domains, params
from crescent_utils.runs.folders import RunError, begin_stage, read_manifest

ORIGIN = ("owner/base", "apache-2.0")


def manifests():
    return {
        name: read_manifest(REFERENCE, name) for name in ("elicit", "dedup", "vote", "finetune", "distil", "evaluate")
    }


def front(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model folder of one's own."""
    return tiny.model_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def run(tmp_path_factory, base):
    """The reference run with a tiny model trained in the place of the real one."""
    return trained_run(tmp_path_factory.mktemp("outputs") / "mine", base)


def trained_run(folder, base, **parameters):
    """Copy the reference run's tables to `folder` and train the model in `base` on eight of its pairs, as 04 does."""
    for stage in ("elicit", "dedup", "vote", "evaluate"):
        shutil.copytree(REFERENCE / stage, folder / stage)
    values = {"run": folder.name, "outputs": str(folder.parent), "engine": "transformers", "model": str(base)}
    settings = params.build_settings("finetune", values | parameters)
    stage = begin_stage("finetune", settings)
    rows = stage.read_table("vote", "qa").head(8)
    pairs = training.training_pairs(rows, domains.get_domain(settings.domain))
    trained = training.train(models.from_folder(base, "base"), pairs, stage.folder, recipe("lora", 1e-3), "tuned")
    stage.finish({"pairs": len(pairs), "trained": len(pairs)}, models={"tuned": trained.model.fingerprint})
    return folder


def test_the_model_card_says_what_the_manifests_say():
    card = publish.model_card(REFERENCE, manifests(), "finetune", ORIGIN)
    assert front(card)["base_model"] == "owner/base" and front(card)["license"] == "apache-2.0"
    for name, manifest in manifests().items():
        for key, value in manifest["counts"].items():
            assert f"{key} {value:,}" in card, (name, key)
    written = json.loads(card.split("```json\n")[1].split("```")[0])
    assert written.items() <= manifests()["finetune"]["parameters"].items()
    assert {"model", "learning_rate", "lora_rank", "batch_size", "seed"} <= written.keys()
    row = pd.read_parquet(REFERENCE / "evaluate" / "comparisons.parquet").query(
        "scoring == 'symbolic' and before == 'base' and after == 'tuned' and decoding == 'greedy'"
    ).iloc[0]  # fmt: skip
    assert (
        f"{row.before_accuracy:.1%} | {row.after_accuracy:.1%} [" in card
        and f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]" in card
    )
    assert "2502.13441" in card and "Intended use" in card and "its terms pass on" in card


def test_the_model_card_names_the_earlier_runs_whose_pairs_were_learned_too():
    made = manifests()
    assert "learned too" not in publish.model_card(REFERENCE, made, "finetune", ORIGIN)
    of_training = made["finetune"]["parameters"] | {"accumulate_runs": ["cpu/round2", "cpu/round1"]}
    made["finetune"] = made["finetune"] | {"parameters": of_training}
    card = publish.model_card(REFERENCE, made, "finetune", ORIGIN)
    assert "The pairs of cpu/round2, cpu/round1 were learned too" in card


def test_a_student_is_compared_with_the_student_and_an_unknown_licence_is_said_to_be_unknown():
    card = publish.model_card(REFERENCE, manifests(), "distil", ("", ""))
    table = pd.read_parquet(REFERENCE / "evaluate" / "comparisons.parquet").query(
        "scoring == 'symbolic' and before == 'student'"
    )
    assert card.count("seed") >= 1 and f"{table.iloc[0].after_accuracy:.1%}" in card
    assert "not known to the kit: look it up" in card and front(card)["license"] == "other"


def test_the_dataset_card_counts_the_pairs_and_the_right_labels():
    qa = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")
    card = publish.dataset_card(qa, manifests(), ORIGIN)
    assert f"{len(qa):,} pairs of {qa['id'].nunique():,} questions" in card
    assert f"{qa['correct'].astype(bool).mean():.1%} of {len(qa):,}" in card
    assert all(f"`{name}`" in card for name in qa.columns)
    assert "not known." in publish.dataset_card(qa.drop(columns="correct"), manifests(), ORIGIN)


SECRETS = {
    "engine_args": {"hf_token": "hf_SECRET"}, "base_urls": ["http://jane:SECRET@10.0.0.7:8000/v1"],
    "served_names": {"base": "SECRET-name"}, "outputs": "/data/SECRET", "benchmark_dir": "/data/SECRET",
    "accelerate_args": ["--main_process_ip", "SECRET-host"], "model": "/data/SECRET/model",
    "student": "~/SECRET/student", "embedder": "./SECRET/embedder", "domain": "SECRET/own.yaml",
    "question_source": "SECRET/questions.jsonl", "replay_from": "/data/SECRET/run",
}  # fmt: skip


def test_no_card_holds_a_secret_or_a_place():
    manifests_with_secrets = manifests()
    for manifest in manifests_with_secrets.values():
        manifest["parameters"] |= SECRETS
    qa = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")
    origin = publish.licence(SECRETS["model"])
    cards = [publish.model_card(REFERENCE, manifests_with_secrets, stage, origin) for stage in ("finetune", "distil")]
    for card in (*cards, publish.dataset_card(qa, manifests_with_secrets, origin)):
        assert "SECRET" not in card and "jane" not in card and "10.0.0.7" not in card
        assert ".../model" in card and "own.yaml" in card
    assert "questions.jsonl" in card, "what was read keeps its name"


def test_a_card_says_who_asked_the_questions():
    qa = pd.read_parquet(REFERENCE / "vote" / "qa.parquet")
    lmsi = manifests() | {"vote": manifests()["vote"] | {"upstream": {}}}
    for given, says in (
        (manifests(), "made up by the same model"),
        (lmsi, "came without their answers from elsewhere"),
    ):
        for card in (publish.dataset_card(qa, given, ORIGIN), publish.model_card(REFERENCE, given, "finetune", ORIGIN)):
            assert says in card


def test_a_card_names_the_model_that_the_weights_come_from():
    card = publish.model_card(REFERENCE, manifests(), "distil", ("owner/student", "mit"))
    assert front(card)["base_model"] == "owner/student" and front(card)["license"] == "mit"
    assert f"`{publish.BUNDLED[0]}` answered each question" in card, "the teacher"


def test_a_run_that_was_not_evaluated_has_no_scores(tmp_path):
    assert "It has not been evaluated." in publish.model_card(tmp_path, manifests(), "finetune", ORIGIN)


def test_what_is_exported_loads_and_stops_where_it_was_taught_to(run, base, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    target = publish.export_run(run, tmp_path / "out")
    names = {path.name for path in (target / "model").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    } <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names), "safetensors alone"
    words = AutoTokenizer.from_pretrained(target / "model")
    assert words.chat_template == models.load_tokenizer(run / "finetune" / "model").chat_template
    model = AutoModelForCausalLM.from_pretrained(target / "model")
    ends = GenerationConfig.from_pretrained(target / "model").eos_token_id
    assert words.eos_token_id in (ends if isinstance(ends, list) else [ends])
    ids = words.apply_chat_template(
        [{"role": "user", "content": "What is 3 + 4?"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids["input_ids"].shape[1]
    pd.testing.assert_frame_equal(
        pd.read_parquet(target / "dataset" / "qa.parquet"), pd.read_parquet(run / "vote" / "qa.parquet")
    )
    places = {str(path) for path in (run, base, Path.home(), tmp_path)}
    for path in [*target.rglob("*.md"), *target.rglob("*.json")]:
        assert not any(place in path.read_text(encoding="utf-8") for place in places if len(place) > 6), path


def test_a_run_on_a_model_of_ones_own_with_a_domain_of_ones_own_is_published(base, tmp_path):
    domain = tmp_path / "private" / "sums.yaml"
    domain.parent.mkdir()
    shutil.copy(ROOT / "params" / "domains" / "arithmetic.yaml", domain)
    own = trained_run(tmp_path / "outputs" / "own", base, domain=str(domain))
    target = publish.export_run(own, tmp_path / "out")
    card = (target / "model" / "README.md").read_text(encoding="utf-8")
    assert front(card)["tags"][-1] == "sums" and "a local folder" in card
    assert str(tmp_path) not in card and "private" not in card


def test_the_second_round_is_published(base, tmp_path):
    first = trained_run(tmp_path / "outputs" / "round1", base)
    models.load_trained(first / "finetune", models.from_folder(base, "base"), "tuned").locate()
    second = trained_run(tmp_path / "outputs" / "round2", first / "finetune" / "model")
    target = publish.export_run(second, tmp_path / "out")
    assert (target / "model" / "model.safetensors").exists()
    shutil.rmtree(second / "finetune" / "model")
    with pytest.raises(models.ModelError, match="weights in finetune/model are gone.*run notebooks/04"):
        publish.export_run(second, tmp_path / "again")


def test_a_stage_that_is_not_done_cannot_leave(run, tmp_path):
    with pytest.raises(RunError, match="stage 'distil' is not complete"):
        publish.export_run(run, tmp_path, "distil")


class Hub:
    """A server that notes what the hub's own client asks of it and refuses every upload."""

    def __enter__(self):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked.append((self.path, body))
                made = self.path == "/api/repos/create"
                self.answer(200 if made else 403, {"url": "https://huggingface.co/o/n"} if made else {"error": "no"})

            def do_GET(self):
                asked.append((self.path, b""))
                self.answer(200, {"id": "o/n", "private": self.server.private, "siblings": [], "sha": "0" * 40})

            def answer(self, status, value):
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.server.private = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()


def folders(place):
    for kind in ("model", "dataset"):
        (place / kind).mkdir()
        (place / kind / "README.md").write_text("# a card")
    return place


@pytest.mark.parametrize("public", [False, True])
def test_a_push_makes_private_repositories_unless_told_otherwise(tmp_path, public, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "none")
    target = folders(tmp_path)
    with Hub() as hub, pytest.raises(Exception, match="403|Forbidden|no"):
        publish.push_to_hub(target, "o/n", public=public, endpoint=hub.endpoint)
    path, body = hub.asked[0]
    assert path == "/api/repos/create" and json.loads(body)["name"] == "n"
    sent = json.loads(body)
    assert sent.get("private", sent.get("visibility") == "private") is (not public)


def test_a_repository_that_is_public_already_is_not_added_to_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "none")
    target = folders(tmp_path)
    with Hub() as hub:
        hub.server.private = False
        with pytest.raises(RunError, match="exists and is public; pass --public"):
            publish.push_to_hub(target, "o/n", endpoint=hub.endpoint)
        assert not any("commit" in path or "preupload" in path for path, _ in hub.asked), "nothing was uploaded"


def test_publish_pushes_nothing_unasked(run, tmp_path, monkeypatch, capsys):
    import socket

    def refuse(*_):
        raise AssertionError("it reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main.main(["publish", str(run), "-o", str(tmp_path / "out")]) == 0
    assert "nothing has left this machine" in capsys.readouterr().out
    assert (tmp_path / "out" / "model" / "README.md").exists()


def test_public_without_a_push_is_refused(capsys):
    assert main.main(["publish", "reference", "--public"]) == 2
    assert "--push OWNER/NAME" in capsys.readouterr().err


@pytest.mark.live
@pytest.mark.slow
def test_what_is_exported_says_the_same_in_vllm_as_in_transformers(tmp_path):
    from crescent_utils.generation.engines import Job
    from crescent_utils.generation.engines.transformers import TransformersEngine
    from crescent_utils.generation.engines.vllm import VllmEngine, why_not
    from crescent_utils.generation.store import Request, Sampling

    if why_not():
        pytest.skip(why_not())
    # vLLM on CPU has no attention for the tiny model's heads of 16
    run = trained_run(tmp_path / "mine", models.bundled_folder())
    folder = publish.export_run(run, tmp_path / "out") / "model"
    words = models.load_tokenizer(folder)
    request = Request.of("m", [{"role": "user", "content": "What is 3 + 4?"}], Sampling(0.0, 1.0, 12))
    said = []
    for start in (partial(VllmEngine, max_model_len=256), TransformersEngine):
        engine = start(folder, lambda request: models.prompt_token_ids(words, request, 256), dtype="float32")
        try:
            (done,) = [completion for _, completion in engine.sample([Job(request, 0, 1)])]
        finally:
            engine.close()
        said.append((done.text, done.finish, done.tokens))
    assert said[0] == said[1] and said[0][2] >= 1
