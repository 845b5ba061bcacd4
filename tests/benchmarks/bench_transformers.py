"""The transformers engine over plain `model.generate` in fixed batches: same prompts, settings, model and batch size.

The first questions of the reference's pool are asked eight times each, as `03_vote` does.
"""

from __future__ import annotations

from measure import Row, compare, reference

from crescent_utils.generation import models
from crescent_utils.generation.engines import Job
from crescent_utils.generation.engines.transformers import TransformersEngine
from crescent_utils.generation.store import Request, Sampling, sample_seed
from crescent_utils.runs import domains

VOTES, BATCH = 8, 64
SAMPLING = Sampling(0.7, 1.0, 40, (), 1)


def plain(engine: TransformersEngine, prompts: list[list[int]]) -> int:
    """Tokens of `model.generate` over the prompts in order, padded on the left."""
    import torch

    model, tokens = engine._model, 0
    pad, end = engine._tokenizer.pad_token_id, model.generation_config.eos_token_id
    for batch in (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)):
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch], device=model.device)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, temperature=SAMPLING.temperature, top_k=0,
                top_p=SAMPLING.top_p, max_new_tokens=SAMPLING.max_tokens, pad_token_id=pad,
            )  # fmt: skip
        tokens += sum(row.index(end) + 1 if end in row else len(row) for row in out[:, width:].tolist())
    return tokens


def sampling(scale: float) -> Row:
    """Tokens a second of both."""
    questions, domain = reference("dedup", "questions", "question"), domains.get_domain("arithmetic")
    requests = [
        Request.of("bench", domains.solve_messages(domain, text), SAMPLING) for text in questions[: round(16 * scale)]
    ]
    folder = models.bundled_folder()
    tokenizer = models.load_tokenizer(folder)
    engine = TransformersEngine(
        folder, lambda request: models.prompt_token_ids(tokenizer, request, 1024), batch_size=BATCH
    )
    jobs = [Job(r, i, sample_seed(r.key(), i, 1)) for r in requests for i in range(VOTES)]
    prompts = [models.prompt_token_ids(tokenizer, job.request) for job in jobs]

    def ours() -> int:
        return sum(completion.tokens for _, completion in engine.sample(jobs))

    list(engine.sample(jobs[:8]))  # to warm up
    return compare("model.generate", "tokens/s", ours, lambda: plain(engine, prompts), rounds=2)


ROWS = {"sampling, transformers": sampling}
