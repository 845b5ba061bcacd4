"""A tiny Llama with random weights and a chat template, made on the spot: real engine code and no download."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<s>[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' </s>' }}{% endif %}{% endfor %}"
)
# Gemma closes a turn with a token that is not the tokenizer's eos, puts a newline after it, and trims what is said.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' "
    "+ ('model' if m['role'] == 'assistant' else m['role']) + '\n' "
    "+ (m['content'] | trim) + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
SPECIAL = {  # bos, eos, what else closes or opens a turn, and the template
    "chatml": ("<|im_start|>", "<|im_end|>", [], CHATML),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", [], LLAMA3),
    "llama2": ("<s>", "</s>", [], LLAMA2),
    "gemma": ("<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"], GEMMA),
}


def tokenizer(style: str = "chatml"):
    """A byte-level tokenizer of 256 bytes and the style's special tokens, which adds BOS by itself as Llama's do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    bos, eos, others, template = SPECIAL[style]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([bos, eos, *others])
    inner.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token=eos, pad_token=eos)
    made.chat_template = template
    return made


def model_folder(folder: Path, style: str = "chatml", layers: int = 4) -> Path:
    """Write the tiny model to `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    words = tokenizer(style)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.eos_token_id, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
