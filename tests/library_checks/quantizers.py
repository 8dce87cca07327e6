"""What the checks of all libraries that look at activations have in common."""

from collections.abc import Callable
from types import ModuleType

import tiny_models
import torch
from torch import Tensor, nn
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
from lowbit.quantizers import rtn
from lowbit.quantizers.awq_scales import first_output

CPU = torch.device("cpu")
GPTQ = {
    "bits": 3,
    "group_size": 32,
    "symmetric": False,
    "activation_order": False,
    "damping": 0.01,
}
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


def one_layer(weight: Tensor, inputs: Tensor) -> CalibratedBlock:
    """A block of a single linear layer."""
    block = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    block[0].weight.data = weight.clone()
    batches = [CalibrationBatch(inputs, inputs, [((), {})])]
    return CalibratedBlock(llama(), 0, block, batches, CPU)


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


def check_gptq_by_hand(module: ModuleType) -> None:
    """Uncorrelated inputs: rounding. Correlated: the output is closer than rounding's."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 6, generator=generator)
    settings = GPTQ | {"group_size": "row"}
    nearest = rtn.quantize(weight, bits=3, group_size="row")
    diagonal = torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.5, 1.5, 2.5]))
    layer = module.quantize_block(one_layer(weight, diagonal[None]), **settings).layers["0"]
    assert torch.equal(layer.codes, nearest.codes)
    assert torch.equal(dequantize(layer), dequantize(nearest))
    mixed = torch.randn(1, 200, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    mixed = mixed + 0.1 * torch.randn(1, 200, 6, generator=generator)
    layer = module.quantize_block(one_layer(weight, mixed), **settings).layers["0"]
    error, rounding = (
        torch.linalg.norm(mixed @ (weight - dequantize(one)).T) for one in (layer, nearest)
    )
    assert error < 0.6 * rounding, (error, rounding)


def check_gptq_bad_input(module: ModuleType) -> None:
    """Dead inputs work; a Hessian of too low rank, or no text at all, is an error by name."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 6, generator=generator)
    inputs = torch.randn(1, 200, 6, generator=generator)
    inputs[..., 2] = 0
    settings = GPTQ | {"group_size": 6}
    layer = module.quantize_block(one_layer(weight, inputs), **settings)
    assert torch.equal(dequantize(layer.layers["0"])[:, 2], torch.zeros(8))
    low_rank = torch.ones(1, 1, 6) * 1e3
    settings["damping"] = 1e-9
    expect_error(
        "the Hessian of model.layers.0.0 is not positive definite; write a larger damping than "
        "1e-09, such as 1e-08",
        lambda: module.quantize_block(one_layer(weight, low_rank), **settings),
    )
    broken = torch.full((1, 4, 6), torch.nan)
    expect_error(
        "the inputs of model.layers.0.0 on the calibration text are not finite",
        lambda: module.quantize_block(one_layer(weight, broken), **settings),
    )
    block = one_layer(weight, inputs)
    block.module.register_module("unread", nn.Linear(6, 6))
    block.module.forward = lambda states: block.module[0](states)
    expect_error(
        "no calibration text reaches model.layers.0.unread, so GPTQ knows nothing",
        lambda: module.quantize_block(block, **settings),
    )


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
def check_awq_scales(module: ModuleType, model: nn.Module) -> QuantizedBlock:
    """Scales alone change nothing; without them codes stand for the original weight.

    Returns:
        The first block, quantized to 8 bits.
    """
    decoder = Decoder(model)
    batches = enter(decoder, tiny_models.token_ids(6, 40), CALIBRATION_BATCH)
    block = calibrated_block(decoder, 0, batches, CPU)
    made = module.quantize_block(block, bits=8, group_size=32, clipping=False)
    fresh = calibrated_block(decoder, 0, batches, CPU)
    for name, layer in made.layers.items():
        weight = fresh.linears[name].weight
        error = torch.linalg.norm(unfolded(layer) - weight) / torch.linalg.norm(weight)
        assert error < 0.02, (name, error)
    expected = first_output(fresh)
    substitute(fresh.module, scaled(fresh, made))
    error = torch.linalg.norm(first_output(fresh) - expected) / torch.linalg.norm(expected)
    assert error < 1e-5, error
    assert made.replaced
    return made
