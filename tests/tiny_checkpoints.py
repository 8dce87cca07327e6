"""Tiny model directories as Hugging Face publishes them, tokenizer included, made on the fly."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 320
CONTEXT = 64
TEXTS = ["the cat sat on the mat", "a model of language is a table of counts", "0123456789"] * 4
_SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "max_position_embeddings": CONTEXT,
}
CONFIGS: dict[str, Any] = {
    "llama": hf.LlamaConfig(**_SHAPE, intermediate_size=96, num_key_value_heads=2),
    "mistral": hf.MistralConfig(**_SHAPE, intermediate_size=96, num_key_value_heads=2),
    "qwen2": hf.Qwen2Config(**_SHAPE, intermediate_size=96, num_key_value_heads=2),
    "opt": hf.OPTConfig(**_SHAPE | {"pad_token_id": 1}, ffn_dim=96, word_embed_proj_dim=64),
    "gpt-neox": hf.GPTNeoXConfig(**_SHAPE, intermediate_size=96),
    "bloom": hf.BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=VOCABULARY),
}
START_TOKENS = {"llama": 0, "mistral": 0, "opt": 0, "qwen2": None, "bloom": None, "gpt-neox": None}
"""What each family's tokenizer really puts before a text."""

_CLASSES = {
    "llama": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"},
    "mistral": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"},
    "qwen2": {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None},
    "opt": {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "add_bos_token": True},
    "gpt-neox": {"tokenizer_class": "GPTNeoXTokenizer", "bos_token": "<s>"},
    "bloom": {"tokenizer_class": "BloomTokenizerFast", "bos_token": "<s>"},
}


def train_tokenizer() -> Tokenizer:
    """Byte-level BPE with `<s>` = 0 and `</s>` = 1 that adds no special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 20,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def write_tokenizer(directory: Path, family: str) -> None:
    """Write the files this family's tokenizer is published as (OPT: vocabulary and merges only)."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    if family in ("llama", "mistral"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    if family == "opt":
        tokenizer.model.save(str(directory))
    else:
        tokenizer.save(str(directory / "tokenizer.json"))
    settings = _CLASSES[family] | {"eos_token": "</s>", "unk_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def write_checkpoint(directory: Path, family: str = "llama") -> Path:
    """Write config, random weights and tokenizer; return the directory."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[family])
    model.save_pretrained(directory)
    write_tokenizer(directory, family)
    return directory
