"""Checks of auto-gptq and AutoAWQ, run in their environment."""

from unittest.mock import patch

import tiny_models
import torch
from library_checks.checks import run_checks
from library_checks.quantizers import (
    CPU,
    GPTQ,
    LAYERS,
    check_awq_scales,
    check_gptq_bad_input,
    check_gptq_by_hand,
    check_properties,
    expect_error,
    first_block,
    llama,
    quantized,
    text,
)
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lowbit.quantization.quantize_model import CALIBRATION_BATCH
from lowbit.quantization.quantized import dequantize
from lowbit.quantizers import awq_autoawq, gptq_auto_gptq
from lowbit.quantizers.gptq_layers import reading_groups

AWQ = {"bits": 3, "group_size": 32, "clipping": True}


def gptq_properties() -> None:
    check_properties(gptq_auto_gptq, GPTQ)
    check_properties(gptq_auto_gptq, GPTQ | {"activation_order": True, "symmetric": True})


def library_gptq(**settings: object) -> dict[str, Tensor]:
    """The weights that auto-gptq's own run over a whole model leaves."""
    from auto_gptq.modeling import BaseQuantizeConfig, LlamaGPTQForCausalLM, _base

    model = llama()
    config = BaseQuantizeConfig(
        bits=settings["bits"],
        group_size=-1 if settings["group_size"] == "row" else settings["group_size"],
        damp_percent=settings["damping"],
        desc_act=settings["activation_order"],
        sym=settings["symmetric"],
    )
    examples = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in text()]
    with (
        patch.object(_base, "CUDA_0", CPU),
        patch.object(_base, "pack_model", lambda **packing: None),
        patch.object(torch.cuda, "synchronize", lambda: None),
    ):
        LlamaGPTQForCausalLM(model, False, config).quantize(examples, batch_size=CALIBRATION_BATCH)
    return dict(model.state_dict())


def gptq_parity() -> None:
    """Exactly the library's weights, in every variant."""
    variants = [
        {},
        {"symmetric": True},
        {"activation_order": True},
        {"activation_order": True, "symmetric": True, "bits": 4, "damping": 0.05},
        {"group_size": "row", "activation_order": True},
    ]
    for variant in variants:
        settings = GPTQ | variant
        expected = library_gptq(**settings)
        layers, replaced = quantized(gptq_auto_gptq, llama(), **settings)
        assert len(layers) == 7 * LAYERS
        assert not replaced
        for name, layer in layers.items():
            difference = (dequantize(layer) - expected[f"{name}.weight"]).abs().max()
            assert difference == 0, (variant, name, difference)
            assert (layer.zeros is None) == settings["symmetric"]


def gptq_by_hand() -> None:
    check_gptq_by_hand(gptq_auto_gptq)


def gptq_bad_input() -> None:
    check_gptq_bad_input(gptq_auto_gptq)


def gptq_groups() -> None:
    """Layers that read the same input come together, in the order in which they run."""
    expected = [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
    ]
    assert reading_groups(first_block(llama())) == expected
    for model in ("opt", "bloom", "gpt-neox", "gemma2", "qwen3", "qwen2"):
        block = first_block(tiny_models.build(model))
        groups = reading_groups(block)
        names = [name for group in groups for name in group]
        assert sorted(names) == sorted(block.linears), (model, groups)


def awq_properties() -> None:
    check_properties(awq_autoawq, AWQ)
    check_properties(awq_autoawq, AWQ | {"clipping": False, "group_size": "row"})


class Repaired(awq_autoawq.AwqQuantizer):
    """The library's quantizer with a snapshot that is a copy, and nothing else changed."""

    def _compute_best_scale(self, *arguments: object) -> Tensor:
        inspected = arguments[3]
        state = inspected.state_dict
        inspected.state_dict = lambda: tree_map(torch.clone, dict(state()))
        try:
            return super()._compute_best_scale(*arguments)
        finally:
            del inspected.state_dict


def library_awq(model: nn.Module, **settings: object) -> dict[str, Tensor]:
    """All tensors that AutoAWQ's own run over a whole model leaves, its rounding included."""
    from awq.models.llama import LlamaAWQForCausalLM

    model.config.use_cache = False  # as its from_pretrained does; a cache would see other samples
    whole = LlamaAWQForCausalLM(model, "llama", False, model.config, None, None)
    rows = [row.tolist() for row in text()]
    whole.quantize(
        tokenizer=None,
        quant_config={"w_bit": settings["bits"], "q_group_size": settings["group_size"]},
        calib_data=rows,
        max_calib_samples=len(rows),
        max_calib_seq_len=len(rows[0]),
        n_parallel_calib_samples=CALIBRATION_BATCH,
        export_compatible=True,
        apply_clip=settings["clipping"],
        quantizer_cls=Repaired,
    )
    tensors = dict(model.state_dict())
    for name, module in model.model.layers.named_modules():
        if isinstance(module, nn.Linear):
            rounded = whole.quantizer.pseudo_quantize_tensor(module.weight.data)[0]
            tensors[f"model.layers.{name}.weight"] = rounded
    return tensors


def awq_parity() -> None:
    """Exactly the library's weights and norms, repaired."""
    for heads, settings in ((4, AWQ), (2, AWQ | {"clipping": False}), (4, AWQ | {"bits": 4})):
        expected = library_awq(llama(heads), **settings)
        layers, replaced = quantized(awq_autoawq, llama(heads), **settings)
        found = replaced | {f"{n}.weight": dequantize(layer) for n, layer in layers.items()}
        assert len(replaced) == 2 * LAYERS
        for name, tensor in found.items():
            assert torch.equal(tensor, expected[name]), (heads, settings, name)


def awq_scales() -> None:
    models = {
        "llama": lambda: llama(),
        "grouped-query": lambda: llama(2),
        "qwen2": lambda: tiny_models.build("qwen2"),
        "qwen3": lambda: tiny_models.build("qwen3"),
        "gemma": lambda: tiny_models.build("gemma"),
        "gemma2": lambda: tiny_models.build("gemma2"),
        "mistral": lambda: tiny_models.build("mistral"),
        "opt": lambda: tiny_models.build("opt"),
    }
    for name, build in models.items():
        layers = check_awq_scales(awq_autoawq, build()).layers
        shares = [layers[n].output_scale is not None for n in layers if "v_proj" in n]
        assert shares == [name in ("llama", "opt")], (name, shares)  # heads of their own


def awq_bad_input() -> None:
    """Architectures that the library does not know or fit, layers it cannot clip: errors."""
    settings = AWQ | {"clipping": False}
    for name, words in (
        ("gemma3", "autoawq does not know the architecture gemma3_text; it knows RefinedWeb"),
        ("bloom", "autoawq scales the activation function of bloom"),
        ("gpt-neox", "autoawq scales the activation function of gpt_neox"),
        ("opt-350m", "does not fit this model"),  # its norms come after what the table scales
        ("qwen3-moe", "does not fit this model"),  # the table forgets the router
    ):
        block = first_block(tiny_models.build(name))
        expect_error(words, lambda block=block: awq_autoawq.quantize_block(block, **settings))
    expect_error(
        "32 outputs, not a multiple of 64; write clipping: false",
        lambda: awq_autoawq.quantize_block(first_block(llama(2)), **AWQ),
    )
    constant = llama()
    constant.model.layers[0].mlp.up_proj.weight.data[3] = 0.25
    expect_error(
        "model.layers.0.mlp.up_proj has a group of equal weights",
        lambda: awq_autoawq.quantize_block(first_block(constant), **AWQ),
    )


CHECKS = {
    function.__name__: function
    for function in (
        gptq_properties,
        gptq_parity,
        gptq_by_hand,
        gptq_groups,
        gptq_bad_input,
        awq_properties,
        awq_parity,
        awq_scales,
        awq_bad_input,
    )
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    run_checks(CHECKS)
