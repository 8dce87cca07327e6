"""Tiny random models of every architecture in `lowbit.engine.roles`."""

from collections.abc import Callable

import torch
import transformers as hf
from torch import nn

VOCABULARY = 100
_SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_GATED = _SHAPE | {"intermediate_size": 128, "num_key_value_heads": 2}
_HEADS = _GATED | {"head_dim": 16}
_EXPERTS = _HEADS | {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
_OPT = _SHAPE | {"ffn_dim": 128, "max_position_embeddings": 64, "pad_token_id": 1}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GATED)),
    "llama-tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GATED, tie_word_embeddings=True)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_GATED)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_HEADS)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_GATED)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**_HEADS)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_HEADS)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(
            **_HEADS,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**_OPT)),
    "opt-350m": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(**_OPT, do_layer_norm_before=False, word_embed_proj_dim=32)
    ),
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(hidden_size=64, n_layer=3, n_head=4, vocab_size=VOCABULARY)
    ),
    "gpt-neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_SHAPE, intermediate_size=128)),
    "gpt-neox-serial": lambda: hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(**_SHAPE, intermediate_size=128, use_parallel_residual=False)
    ),
    "qwen3-moe": lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**_EXPERTS, num_experts=4)),
    "glm4-moe": lambda: hf.Glm4MoeForCausalLM(
        hf.Glm4MoeConfig(
            **_EXPERTS, n_routed_experts=4, first_k_dense_replace=1, n_group=1, topk_group=1
        )
    ),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Build one of `MODELS` in float32; noise on every parameter gives norms and biases a say."""
    torch.manual_seed(seed)
    model = MODELS[name]().float().eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model


def token_ids(rows: int = 3, length: int = 17, seed: int = 1) -> torch.Tensor:
    """Random token ids `[rows, length]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (rows, length), generator=generator)
