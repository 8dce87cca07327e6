"""Checks of auto-gptq and AutoAWQ, run in their environment: `archived.py <check>`."""

import sys
from collections.abc import Callable
from types import ModuleType
from unittest.mock import patch

import tiny_models
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import LlamaConfig, LlamaForCausalLM

from lowbit.engine.decoder import Decoder
from lowbit.errors import InputError
from lowbit.quantization.block_store import BlockStore
from lowbit.quantization.blocks import (
    CalibratedBlock,
    CalibrationBatch,
    QuantizedBlock,
    calibrated_block,
    enter,
    substitute,
)
from lowbit.quantization.measure import measure_layers
from lowbit.quantization.quantize_model import CALIBRATION_BATCH, quantize_model
from lowbit.quantization.quantized import QuantizedLayer, dequantize, split_groups, unfolded
from lowbit.quantizers import awq_autoawq, gptq_auto_gptq, rtn

CPU = torch.device("cpu")
GPTQ = {
    "bits": 3,
    "group_size": 32,
    "symmetric": False,
    "activation_order": False,
    "damping": 0.01,
}
AWQ = {"bits": 3, "group_size": 32, "clipping": True}
LAYERS = 2


class NoStore(BlockStore):
    """Keeps nothing."""

    def __init__(self) -> None:
        pass

    def load(self, index: int) -> None:
        return None

    def save(self, index: int, block: QuantizedBlock) -> None:
        pass


def llama(key_value_heads: int = 4, **changes: int) -> nn.Module:
    """A random Llama of two blocks whose activations have channels of very different sizes."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": LAYERS}
    shape |= {"num_attention_heads": 4, "vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1}
    model = LlamaForCausalLM(
        LlamaConfig(**shape | {"num_key_value_heads": key_value_heads} | changes)
    )
    for parameter in model.parameters():
        spread = torch.rand_like(parameter).mul(2).exp() if parameter.dim() == 1 else 3
        parameter.data.mul_(spread)
    return model.float().eval()


def text(rows: int = 8) -> Tensor:
    return tiny_models.token_ids(rows, 64)


def quantized(
    module: ModuleType, model: nn.Module, rows: int = 8, **settings: object
) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    return quantize_model(model, text(rows), module, settings, NoStore(), 0, CPU)


def first_block(model: nn.Module) -> CalibratedBlock:
    decoder = Decoder(model)
    return calibrated_block(decoder, 0, enter(decoder, text(), CALIBRATION_BATCH), CPU)


def output_errors(model: nn.Module, layers: dict[str, QuantizedLayer]) -> tuple[float, float]:
    """Means over layers of the output's error, of the quantizer and of RTN."""
    entries = measure_layers(model, text(), layers, CPU).values()
    own, nearest = (
        sum(e[key] for e in entries) / len(entries) for key in ("output_error", "rtn_output_error")
    )
    return own, nearest


def expect_error(words: str, function: Callable[[], object]) -> None:
    message = "no error"
    try:
        function()
    except InputError as error:
        message = str(error)
    assert words in message, f"{words!r} is not in: {message}"


def check_properties(module: ModuleType, settings: dict[str, object]) -> None:
    """Few levels, error falling with bits and below rounding's, the same twice."""
    model = llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    errors = []
    for bits in (2, 3, 4):
        layers, _ = quantized(module, model, **settings | {"bits": bits})
        for name, layer in layers.items():
            order = slice(None) if layer.permutation is None else layer.permutation
            groups, _ = split_groups(dequantize(layer)[:, order], layer.group_size)
            assert max(len(group.unique()) for group in groups.flatten(0, 1)) <= 2**bits, name
        own, nearest = output_errors(model, layers)
        assert own < nearest, (bits, own, nearest)
        errors.append(own)
    assert errors == sorted(errors, reverse=True), errors
    again, _ = quantized(module, model, **settings | {"bits": 4})
    for name, layer in layers.items():
        assert torch.equal(layer.codes, again[name].codes), name
        assert torch.equal(layer.scales, again[name].scales), name
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the model has changed"


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


def one_layer(weight: Tensor, inputs: Tensor) -> CalibratedBlock:
    """A block of a single linear layer."""
    block = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    block[0].weight.data = weight.clone()
    batches = [CalibrationBatch(inputs, inputs, [((), {})])]
    return CalibratedBlock(llama(), 0, block, batches, CPU)


def gptq_by_hand() -> None:
    """Uncorrelated inputs: rounding. Correlated: the output is closer than rounding's."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 6, generator=generator)
    settings = GPTQ | {"group_size": "row"}
    nearest = rtn.quantize(weight, bits=3, group_size="row")
    diagonal = torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.5, 1.5, 2.5]))
    layer = gptq_auto_gptq.quantize_block(one_layer(weight, diagonal[None]), **settings).layers["0"]
    assert torch.equal(layer.codes, nearest.codes)
    assert torch.equal(dequantize(layer), dequantize(nearest))
    mixed = torch.randn(1, 200, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    mixed = mixed + 0.1 * torch.randn(1, 200, 6, generator=generator)
    layer = gptq_auto_gptq.quantize_block(one_layer(weight, mixed), **settings).layers["0"]
    error, rounding = (
        torch.linalg.norm(mixed @ (weight - dequantize(one)).T) for one in (layer, nearest)
    )
    assert error < 0.6 * rounding, (error, rounding)


def gptq_groups() -> None:
    """Layers that read the same input come together, in the order in which they run."""
    expected = [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
    ]
    assert gptq_auto_gptq.reading_groups(first_block(llama())) == expected
    for model in ("opt", "bloom", "gpt-neox", "gemma2", "qwen3", "qwen2"):
        block = first_block(tiny_models.build(model))
        groups = gptq_auto_gptq.reading_groups(block)
        names = [name for group in groups for name in group]
        assert sorted(names) == sorted(block.linears), (model, groups)


def gptq_bad_input() -> None:
    """Dead inputs work; a Hessian of too low rank, or no text at all, is an error by name."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 6, generator=generator)
    inputs = torch.randn(1, 200, 6, generator=generator)
    inputs[..., 2] = 0
    layer = gptq_auto_gptq.quantize_block(one_layer(weight, inputs), **GPTQ | {"group_size": 6})
    assert torch.equal(dequantize(layer.layers["0"])[:, 2], torch.zeros(8))
    low_rank = torch.ones(1, 1, 6) * 1e3
    settings = GPTQ | {"group_size": 6, "damping": 1e-9}
    expect_error(
        "the Hessian of model.layers.0.0 is not positive definite; write a larger damping",
        lambda: gptq_auto_gptq.quantize_block(one_layer(weight, low_rank), **settings),
    )
    broken = torch.full((1, 4, 6), torch.nan)
    expect_error(
        "the inputs of model.layers.0.0 on the calibration text are not finite",
        lambda: gptq_auto_gptq.quantize_block(one_layer(weight, broken), **settings),
    )
    block = one_layer(weight, inputs)
    block.module.register_module("unread", nn.Linear(6, 6))
    block.module.forward = lambda states: block.module[0](states)
    expect_error(
        "no calibration text reaches unread in block 0",
        lambda: gptq_auto_gptq.quantize_block(block, **settings),
    )


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


def scaled(block: CalibratedBlock, made: QuantizedBlock) -> dict[str, Tensor]:
    """The block's own parameters with the scales of AWQ moved between layers, nothing rounded."""
    parameters = dict(made.replaced)
    for name, layer in made.layers.items():
        weight = block.linears[name].weight.detach().clone()
        if layer.folded_scale is not None:
            weight *= layer.folded_scale
        if layer.output_scale is not None:
            weight /= layer.output_scale.unsqueeze(1)
        parameters[f"{name}.weight"] = weight
    return parameters


@torch.no_grad()
def awq_scales() -> None:
    """Scales alone change nothing; without them codes stand for the original weight."""
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
        decoder_model = build()
        ids = tiny_models.token_ids(6, 40)
        decoder = Decoder(decoder_model)
        batches = enter(decoder, ids, CALIBRATION_BATCH)
        block = calibrated_block(decoder, 0, batches, CPU)
        made = awq_autoawq.quantize_block(block, **AWQ | {"bits": 8, "clipping": False})
        fresh = calibrated_block(decoder, 0, batches, CPU)
        for layer_name, layer in made.layers.items():
            weight = fresh.linears[layer_name].weight
            error = torch.linalg.norm(unfolded(layer) - weight) / torch.linalg.norm(weight)
            assert error < 0.02, (name, layer_name, error)
        expected = awq_autoawq._first_output(fresh)
        substitute(fresh.module, scaled(fresh, made))
        output = awq_autoawq._first_output(fresh)
        error = torch.linalg.norm(output - expected) / torch.linalg.norm(expected)
        assert error < 1e-5, (name, error)
        assert made.replaced, name
        shares = [made.layers[n].output_scale is not None for n in made.layers if "v_proj" in n]
        one_head_each = name in ("llama", "opt")
        assert shares == [one_head_each], (name, shares)


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
    CHECKS[sys.argv[1]]()
