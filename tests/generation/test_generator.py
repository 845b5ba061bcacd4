"""The generator: what is stored is not sampled again, and a sample depends on its seed alone."""

from __future__ import annotations

import random

import pytest
import tiny

from crescent_utils.generation import generator as generator_module
from crescent_utils.generation import models
from crescent_utils.generation.engines import EngineError, Job
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.generator import STORE_NAME, Generator, ReplayMiss, choose_engine, open_generator
from crescent_utils.generation.store import GenerationStore, Request, Sampling, sample_seed
from crescent_utils.runs import folders, params

SAMPLING = Sampling(1.0, 1.0, 12, (), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def engine(folder):
    words = models.load_tokenizer(folder)
    made = TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, 512), batch_size=7)
    yield made
    made.close()


def ask(content, sampling=SAMPLING, prefix=""):
    return Request.of("tiny", [{"role": "user", "content": content}], sampling, prefix)


def jobs_of(requests, samples):
    return [Job(r, i, sample_seed(r.key(), i, r.sampling.seed)) for r in requests for i in range(samples)]


class Counting:
    """A real engine that counts what it is asked to sample and can be cut off."""

    name, guarantee = "transformers", "as the engine inside"

    def __init__(self, inner, limit=10**9):
        self.inner, self.limit, self.sampled, self.closed = inner, limit, 0, False

    def sample(self, jobs):
        for got in self.inner.sample(jobs):
            if self.sampled == self.limit:
                raise KeyboardInterrupt
            self.sampled += 1
            yield got

    def close(self):
        self.closed = True

    @property
    def devices(self):
        return self.inner.devices


def _kept(engine):
    # Closing a generator closes its engine; the one of this module serves several.
    return engine if isinstance(engine, Counting) else Counting(engine)


def generator(path, engine):
    return Generator(GenerationStore(path), models.Model("base", "tiny", lambda: path), 1, lambda: _kept(engine))


def test_a_completion_depends_on_its_seed_alone_whatever_batch_and_order(engine):
    requests = [ask("x" * (1 + 5 * i % 37), prefix="" if i % 2 else "So") for i in range(60)]
    jobs = jobs_of(requests, 9)
    assert len(jobs) >= 500
    first = dict(engine.sample(jobs))
    shuffled = random.Random(1).sample(range(len(jobs)), len(jobs))
    engine._batch_size = 16
    second = {shuffled[i]: got for i, got in engine.sample([jobs[i] for i in shuffled])}
    engine._batch_size = 7
    assert first == second
    assert len({c.text for c in first.values()}) > 400  # they are draws, not one text


def test_different_seeds_draw_from_the_models_distribution(engine):
    # One token, many draws: the frequencies are those of the softmax, within three standard errors.
    import torch

    request = ask("a", Sampling(1.0, 1.0, 1, (), 3))
    drawn = [c.text for _, c in engine.sample(jobs_of([request], 600))]
    words = engine._tokenizer
    with torch.inference_mode():
        logits = engine._model(torch.tensor([engine._prompts.get(request)])).logits[0, -1].double()
    share, token = logits.softmax(-1).max(-1)
    expected = float(share)
    seen = drawn.count(words.decode([int(token)], skip_special_tokens=True)) / 600
    assert abs(seen - expected) < 3.5 * (expected * (1 - expected) / 600) ** 0.5 + 1e-9


def test_top_p_keeps_the_smallest_set_that_reaches_it(engine):
    tight = {c.text for _, c in engine.sample(jobs_of([ask("a", Sampling(1.0, 1e-6, 4, (), 3))], 20))}
    greedy = {c.text for _, c in engine.sample(jobs_of([ask("a", Sampling(0.0, 1.0, 4))], 1))}
    assert tight == greedy


def test_what_is_stored_is_not_sampled_again(tmp_path, engine):
    requests = [ask(str(i)) for i in range(10)]
    counted = Counting(engine)
    with generator(tmp_path / "s.sqlite", counted) as made:
        first = made.generate(requests, 3)
        assert made.cost.sampled == counted.sampled == 30
        made.generate(requests, 5)
        assert counted.sampled == 50
    assert counted.closed
    with generator(tmp_path / "s.sqlite", Counting(engine, limit=0)) as again:
        assert again.generate(requests, 3) == first
        assert again.cost.sampled == 0


def test_a_cut_run_ends_like_an_uncut_one(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(generator_module, "COMMIT_EVERY", 8)
    requests = [ask(str(i)) for i in range(20)]
    with generator(tmp_path / "whole.sqlite", engine) as whole:
        expected = whole.generate(requests, 2)
    with generator(tmp_path / "cut.sqlite", Counting(engine, limit=21)) as cut, pytest.raises(KeyboardInterrupt):
        cut.generate(requests, 2)
    resumed = Counting(engine)
    with generator(tmp_path / "cut.sqlite", resumed) as cut:
        assert cut.generate(requests, 2) == expected
    assert resumed.sampled == 40 - 21


def test_a_completion_costs_the_same_whether_it_is_sampled_resumed_or_replayed(tmp_path, engine):
    requests = [ask(str(i)) for i in range(9)]
    with generator(tmp_path / "s.sqlite", Counting(engine, limit=17)) as cut, pytest.raises(KeyboardInterrupt):
        cut.generate(requests, 3)
    with generator(tmp_path / "s.sqlite", engine) as resumed:
        done = resumed.generate(requests, 3)
    store = GenerationStore(tmp_path / "s.sqlite", read_only=True)
    with Generator(store, models.Model("base", "tiny", lambda: tmp_path), 1, None) as replay:
        replay.generate(requests, 3)
        recorded = sum(store.batch(number)["seconds"] for number in {c.batch for row in done for c in row})
    assert resumed.cost.seconds == pytest.approx(replay.cost.seconds) == pytest.approx(recorded)
    assert replay.cost.seconds > 0 and replay.cost.device_seconds == pytest.approx(replay.cost.seconds)
    assert (resumed.cost.sampled, replay.cost.sampled) == (10, 0)
    assert replay.cost.completions == 27 and replay.cost.unmetered == 0
    assert replay.cost.completion_tokens == sum(c.tokens for row in done for c in row)
    assert replay.guarantee == resumed.guarantee == "as the engine inside" and replay.engine_name == "replay"


def test_an_overlong_prompt_comes_back_by_name_and_is_tried_again_where_it_fits(tmp_path, folder):
    words = models.load_tokenizer(folder)
    requests = [ask("a"), ask("x" * 100)]

    def made(limit):
        engine = TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, limit))
        model = models.Model("base", "tiny", lambda: tmp_path)
        return Generator(GenerationStore(tmp_path / "s.sqlite"), model, 1, lambda: engine, max_model_len=limit)

    with made(80) as small:
        (good,), (long,) = small.generate(requests)
        assert (long.finish, long.text, long.tokens) == ("prompt too long", "", 0) and long.prompt_tokens > 100
        assert good.tokens > 0 and small.cost.too_long == 1
    with made(80) as again:
        again.generate(requests)
        assert again.cost.sampled == 0
    with made(512) as large:
        (same,), (now,) = large.generate(requests)
        assert large.cost.sampled == 1 and same == good and now.tokens > 0


def test_a_call_whose_prompts_are_all_too_long_returns_each_of_them_as_too_long(tmp_path, folder):
    words = models.load_tokenizer(folder)
    engine = TransformersEngine(folder, lambda request: models.prompt_token_ids(words, request, 80))
    model = models.Model("base", "tiny", lambda: tmp_path)
    store = GenerationStore(tmp_path / "s.sqlite")
    with Generator(store, model, 1, lambda: engine, max_model_len=80) as small:
        with pytest.warns(UserWarning, match="max_model_len: 80 is too small for all 2 prompts, the shortest of 1"):
            completions = small.complete([(ask("x" * 100), 0), (ask("y" * 120), 0)])
        assert [completion.finish for completion in completions] == ["prompt too long"] * 2
        assert [completion.text for completion in completions] == ["", ""]
        assert (small.cost.completions, small.cost.too_long, small.store.count()) == (2, 2, 2)


def test_looking_up_one_sample_reads_no_other(tmp_path, engine, monkeypatch):
    with generator(tmp_path / "s.sqlite", engine) as sampled:
        sampled.generate([ask("a", Sampling(1.0, 1.0, 2, (), 1))], 40)
        rows_read = []
        check = GenerationStore._checked
        monkeypatch.setattr(GenerationStore, "_checked", lambda self, row: rows_read.append(row) or check(self, row))
        sampled.complete([(ask("a", Sampling(1.0, 1.0, 2, (), 1)), 39)])
    assert len(rows_read) == 1


def test_what_is_done_is_stored_before_a_chunk_is_full(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(generator_module, "COMMIT_SECONDS", 0.0)
    made = generator(tmp_path / "s.sqlite", Counting(engine, limit=9))
    with pytest.raises(KeyboardInterrupt):
        made.generate([ask(str(i)) for i in range(20)])
    batches = made.store._db.execute("SELECT count(*) FROM batches").fetchone()[0]
    assert made.store.count() == 9 and batches == 9
    made.close()


def test_the_same_pair_twice_is_sampled_once(tmp_path, engine):
    counted = Counting(engine)
    with generator(tmp_path / "s.sqlite", counted) as made:
        one, two, other = made.complete([(ask("a"), 0), (ask("a"), 0), (ask("a"), 1)])
    assert one == two and counted.sampled == 2
    assert other != one


def test_replay_names_the_first_missing_request(tmp_path, engine):
    run = tmp_path / "outputs" / "done"
    with generator(run / STORE_NAME, engine) as made:
        made.generate([made.request([{"role": "user", "content": "here"}], SAMPLING)])
    settings = params.build_settings("elicit", {"outputs": str(tmp_path / "outputs"), "replay_from": "done"})
    with open_generator(settings) as replay:
        replay.generate([replay.request([{"role": "user", "content": "here"}], SAMPLING)])
        with pytest.raises(ReplayMiss, match="engine: auto.*not there"):
            replay.generate([replay.request([{"role": "user", "content": "not there"}], SAMPLING)])
    assert sorted(p.name for p in run.iterdir()) == ["store.sqlite", "store.sqlite.lock"]


@pytest.mark.parametrize("style", ["chatml", "llama3", "llama2"])
def test_a_prompt_has_one_bos_and_the_prefix_at_its_end(style):
    words = tiny.tokenizer(style)
    ids = models.prompt_token_ids(words, ask("What is 3 + 4?", prefix="It is"), 512)
    if style != "chatml":  # there the first special token opens every turn
        assert ids.count(words.bos_token_id) == 1
    assert ids[0] == words.bos_token_id
    assert words.decode(ids).endswith("It is")


def test_an_overlong_prompt_is_refused_by_name():
    with pytest.raises(models.ModelError, match="max_model_len: 64.*'xxx"):
        models.prompt_token_ids(tiny.tokenizer(), ask("x" * 80), 64)


def test_greedy_equals_transformers_own_generate(engine):
    import torch

    request = ask("What is 3 + 4?", Sampling(0.0, 1.0, 10))
    ((_, got),) = engine.sample(jobs_of([request], 1))
    ids = torch.tensor([engine._prompts.get(request)])
    with torch.inference_mode():
        plain = engine._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
    assert got.text == engine._tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
    assert got.prompt_tokens == ids.shape[1]
    assert (got.finish == "length") == (got.tokens == 10)


def test_auto_says_which_engine_and_why():
    name, why = choose_engine(params.build_settings("elicit", {"engine": "auto"}))
    assert name in {"vllm", "transformers"} and why
    assert choose_engine(params.build_settings("elicit", {"engine": "server"}))[0] == "server"
    assert folders.library_versions()["crescent"]


def started_one_by_one(path, engines):
    waiting = iter(engines)
    return Generator(GenerationStore(path), models.Model("base", "tiny", lambda: path), 1, lambda: next(waiting))


class Failing(Counting):
    """Dies, as a worker without memory does, after `limit` completions."""

    def sample(self, jobs):
        try:
            yield from super().sample(jobs)
        except KeyboardInterrupt:
            raise EngineError("the worker died") from None


def test_an_engine_that_dies_is_ended_and_started_again_as_long_as_each_start_gets_further(engine, tmp_path, capsys):
    requests = [ask("x" * i) for i in range(1, 9)]
    engines = [Failing(engine, 3), Failing(engine, 2), Counting(engine)]
    with started_one_by_one(tmp_path / "store.sqlite", engines) as sampler:
        texts = [done[0].text for done in sampler.generate(requests)]
        assert sampler.cost.sampled == sampler.cost.completions == 8
    assert [one.sampled for one in engines] == [3, 2, 3] and all(one.closed for one in engines)
    assert "started again for 5 completions (the worker died)" in capsys.readouterr().out
    assert texts == [done.text for _, done in sorted(engine.sample(jobs_of(requests, 1)))]
    dead = [Failing(engine, 0), Counting(engine)]
    with started_one_by_one(tmp_path / "dead.sqlite", dead) as sampler, pytest.raises(EngineError, match="worker died"):
        sampler.generate(requests)
    assert dead[0].closed and not dead[1].sampled


def test_after_an_interrupt_the_engine_is_ended_and_the_next_cell_starts_another(engine, tmp_path):
    engines = [Counting(engine, 3), Counting(engine)]
    with started_one_by_one(tmp_path / "store.sqlite", engines) as sampler:
        with pytest.raises(KeyboardInterrupt):
            sampler.generate([ask("x" * i) for i in range(1, 9)])
        assert engines[0].closed
        sampler.generate([ask("x" * i) for i in range(1, 9)])
    assert [one.sampled for one in engines] == [3, 5]
    assert sampler.engine_name == "transformers"  # a manifest is written when the engine has been given back


def test_an_engine_waits_for_the_next_stage_of_a_run_and_ends_for_another_model_or_a_training(monkeypatch, tmp_path):
    started = []

    def start(settings, model):
        started.append(NamedEngine())
        return started[-1]

    class NamedEngine:
        name, closed = "vllm", False

        def close(self):
            self.closed = True

    monkeypatch.setattr(generator_module, "start_engine", start)
    settings = params.build_settings("elicit", {"engine": "vllm", "outputs": str(tmp_path)})
    base, tuned = (models.Model(label, label, lambda: tmp_path) for label in ("base", "tuned"))

    def run_a_stage(model, settings=settings):
        with open_generator(settings, model) as sampler:
            sampler._engine = sampler._start()

    run_a_stage(base)
    assert started[0].closed  # a notebook of its own ends its engine
    monkeypatch.setenv(generator_module.KEEP_ENGINE, "1")
    run_a_stage(base)
    run_a_stage(base)
    assert len(started) == 2 and not started[1].closed
    run_a_stage(base, params.build_settings("elicit", {**dict(settings), "max_model_len": 512}))
    assert len(started) == 3 and started[1].closed and not started[2].closed
    run_a_stage(tuned)
    assert len(started) == 4 and started[2].closed and not started[3].closed
    generator_module.release_engine()
    assert started[3].closed
