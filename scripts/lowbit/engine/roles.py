"""Where each architecture keeps the activations the papers speak of.

A *role* is one activation of a decoder block in the papers' notation (arXiv 2506.12044, section 4):

    residual_mid (r)   residual stream after attention, before the MLP's norm
    mlp_norm_in        r as the MLP's norm alone reads it; the stream beside it stays as it is
    residual_out (z)   residual stream after the block
    mlp_in       (h)   what the MLP reads: r after its norm
    attn_out           output of the attention module's output projection
    mlp_gate_in        what the gate projection alone reads: h, the up projection's own not replaced
    mlp_gate           gate branch of a gated MLP, after the activation function
    mlp_up             output of the up projection (fc1 where there is no gate)
    mlp_down           output of the down projection (fc2)
    mlp_out            what the MLP adds to the residual stream

A new architecture is one entry of `ARCHITECTURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lowbit.errors import InputError

if TYPE_CHECKING:
    from torch import nn

ROLES = (
    "residual_mid",
    "residual_out",
    "mlp_norm_in",
    "mlp_in",
    "attn_out",
    "mlp_gate_in",
    "mlp_gate",
    "mlp_up",
    "mlp_down",
    "mlp_out",
)

Site = tuple[str, Literal["input", "output"]]
"""A submodule of the block ('' is the block itself) and the side of it where the activation is."""


@dataclass(frozen=True)
class Architecture:
    """How one Hugging Face decoder block maps to roles."""

    blocks: str
    """Dotted name of the list of decoder blocks in the causal language model."""
    sites: Callable[[Any], dict[str, Site]]
    """From the model's config to the place of each role; a role that is not there is absent."""
    block_returns_tuple: bool = False
    """Whether a block returns `(hidden_states, ...)` instead of `hidden_states`."""
    norm_offset: float = 0.0
    """What a norm adds to its weight before it multiplies by it (Gemma's adds 1)."""


def _gated(config: Any) -> dict[str, Site]:
    """Llama-like blocks: pre-norm, SwiGLU or GeGLU."""
    return {
        "residual_mid": ("post_attention_layernorm", "input"),
        "residual_out": ("", "output"),
        "mlp_norm_in": ("post_attention_layernorm", "input"),
        "mlp_in": ("post_attention_layernorm", "output"),
        "attn_out": ("self_attn", "output"),
        "mlp_gate_in": ("mlp.gate_proj", "input"),
        "mlp_gate": ("mlp.act_fn", "output"),
        "mlp_up": ("mlp.up_proj", "output"),
        "mlp_down": ("mlp.down_proj", "output"),
        "mlp_out": ("mlp", "output"),
    }


def _sandwich(config: Any) -> dict[str, Site]:
    """Gemma 2 and 3: a norm before and after both attention and MLP."""
    return _gated(config) | {
        "residual_mid": ("pre_feedforward_layernorm", "input"),
        "mlp_norm_in": ("pre_feedforward_layernorm", "input"),
        "mlp_in": ("pre_feedforward_layernorm", "output"),
        "attn_out": ("post_attention_layernorm", "output"),
        "mlp_out": ("post_feedforward_layernorm", "output"),
    }


def _opt(config: Any) -> dict[str, Site]:
    """OPT; the 350M model normalises after each addition, so there r already is the MLP's input."""
    pre_norm = config.do_layer_norm_before
    norm: dict[str, Site] = {"mlp_norm_in": ("final_layer_norm", "input")} if pre_norm else {}
    return norm | {
        "residual_mid": ("final_layer_norm" if pre_norm else "fc1", "input"),
        "residual_out": ("", "output"),
        "mlp_in": ("fc1", "input"),
        "attn_out": ("self_attn", "output"),
        "mlp_up": ("fc1", "output"),
        "mlp_down": ("fc2", "output"),
        "mlp_out": ("fc2", "output"),
    }


def _bloom(config: Any) -> dict[str, Site]:
    """BLOOM; its attention and MLP add the residual themselves, so roles sit inside them."""
    return {
        "residual_mid": ("post_attention_layernorm", "input"),
        "residual_out": ("", "output"),
        "mlp_norm_in": ("post_attention_layernorm", "input"),
        "mlp_in": ("post_attention_layernorm", "output"),
        "attn_out": ("self_attention.dense", "output"),
        "mlp_up": ("mlp.dense_h_to_4h", "output"),
        "mlp_down": ("mlp.dense_4h_to_h", "output"),
        "mlp_out": ("mlp.dense_4h_to_h", "output"),
    }


def _gpt_neox(config: Any) -> dict[str, Site]:
    """GPT-NeoX; with the parallel residual nothing lies between attention and MLP, so no r."""
    sites: dict[str, Site] = {
        "residual_out": ("", "output"),
        "mlp_norm_in": ("post_attention_layernorm", "input"),
        "mlp_in": ("post_attention_layernorm", "output"),
        "attn_out": ("attention", "output"),
        "mlp_up": ("mlp.dense_h_to_4h", "output"),
        "mlp_down": ("mlp.dense_4h_to_h", "output"),
        "mlp_out": ("mlp", "output"),
    }
    if not config.use_parallel_residual:
        sites["residual_mid"] = ("post_attention_layernorm", "input")
    return sites


_LLAMA_LIKE = Architecture("model.layers", _gated)
_GEMMA_2_AND_3 = Architecture("model.layers", _sandwich, norm_offset=1.0)

ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": _LLAMA_LIKE,
    "MistralForCausalLM": _LLAMA_LIKE,
    "Qwen2ForCausalLM": _LLAMA_LIKE,
    "Qwen3ForCausalLM": _LLAMA_LIKE,
    "GemmaForCausalLM": Architecture("model.layers", _gated, norm_offset=1.0),
    "Gemma2ForCausalLM": _GEMMA_2_AND_3,
    "Gemma3ForCausalLM": _GEMMA_2_AND_3,
    "Qwen3MoeForCausalLM": _LLAMA_LIKE,
    "Glm4MoeForCausalLM": _LLAMA_LIKE,
    "OPTForCausalLM": Architecture("model.decoder.layers", _opt),
    "BloomForCausalLM": Architecture("transformer.h", _bloom, block_returns_tuple=True),
    "GPTNeoXForCausalLM": Architecture("gpt_neox.layers", _gpt_neox),
}


def find_architecture(name: str) -> Architecture:
    """Return the entry for a Hugging Face class name such as `LlamaForCausalLM`.

    Raises:
        InputError: the architecture has no entry, so all its roles are missing.
    """
    if name not in ARCHITECTURES:
        raise InputError(
            f"architecture {name} is not known: its roles {', '.join(ROLES)} are missing. "
            f"Known are {', '.join(sorted(ARCHITECTURES))}. "
            "Add one entry to ARCHITECTURES in scripts/lowbit/engine/roles.py."
        )
    return ARCHITECTURES[name]


def decoder_blocks(model: "nn.Module") -> tuple[str, "nn.ModuleList"]:
    """Return the dotted name and the list of a causal language model's decoder blocks."""
    name = find_architecture(type(model).__name__).blocks
    return name, model.get_submodule(name)


def role_sites(block: "nn.Module", sites: dict[str, Site]) -> dict[str, Site]:
    """Keep the roles whose submodule this block has (a block of experts has no `up_proj`)."""
    present = {name for name, _ in block.named_modules()}
    return {role: site for role, site in sites.items() if site[0] in present}
