"""EfficientQAT (arXiv 2407.11062), phase 1: block-wise training of all parameters (Block-AP).

Phase 2, the end-to-end training of step sizes, is in `eqat_end_to_end`.

A block that reads what the quantized blocks before it give is trained to give what the
full-precision block gives in the full-precision model. Per group of weights w, with step size s and
zero point z:

    q = clamp(round(w / s) + round(z), 0, 2**bits - 1)        w' = (q - round(z)) s

Rounding counts as the identity in gradients (straight-through), the clamp of q does not. Weights
and norms, step sizes and zero points are trained together; biases stay as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_map
from tqdm import tqdm

from lowbit.engine.decoder import Decoder
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.quantized import GroupSize, QuantizedLayer, join_groups, split_groups
from lowbit.quantizers import rtn
from lowbit.quantizers.eqat_end_to_end import finish
from lowbit.quantizers.eqat_training import cosine, require_finite

__all__ = ["LIBRARIES", "FakeQuantizer", "finish", "quantize_block"]

LIBRARIES = ("torch",)

SMALLEST_STEP, LARGEST_STEP = 1e-4, 1e4
"""Bounds of step sizes."""
LAST_RATE = 1 / 20
"""Where the learning rates end, relative to where they start."""


@dataclass(frozen=True)
class _Training:
    """Settings of Block-AP; see `study.config.methods.Eqat`."""

    epochs: int
    batch_size: int
    quantization_learning_rate: float
    weight_learning_rate: float


def quantize_block(
    block: CalibratedBlock,
    *,
    bits: int,
    group_size: GroupSize,
    epochs: int,
    batch_size: int,
    quantization_learning_rate: float,
    weight_learning_rate: float,
    end_to_end_epochs: int,
    end_to_end_batch_size: int,
    end_to_end_learning_rate: float,
) -> QuantizedBlock:
    """Train a block and quantize it; `dequantize` gives the trained w' to the last bit.

    It starts from asymmetric RTN (`lowbit.quantizers.rtn`) and is just that at 0 epochs. Settings
    `end_to_end_...` belong to `finish`.

    Memory beside the block's own training: the targets, as large as one stream of hidden states.

    Raises:
        InputError: training diverged; names the learning rates.
    """
    training = _Training(epochs, batch_size, quantization_learning_rate, weight_learning_rate)
    targets = _outputs(block) if epochs else []
    linears = block.linears
    block.module.requires_grad_(False)
    quantizers = {name: FakeQuantizer(m.weight, bits, group_size) for name, m in linears.items()}
    norms = _norms(block.module)
    for name, linear in linears.items():
        parametrize.register_parametrization(linear, "weight", quantizers[name])
    if epochs:
        weights = [linear.parametrizations.weight.original for linear in linears.values()]
        moved = [p for quantizer in quantizers.values() for p in quantizer.parameters()]
        _train(block, targets, moved, [*weights, *norms.values()], training)
    layers = {
        name: quantizer.bake(linears[name].parametrizations.weight.original)
        for name, quantizer in quantizers.items()
    }
    replaced = {name: norm.detach().cpu() for name, norm in norms.items()} if epochs else {}
    return QuantizedBlock(layers, replaced)


class FakeQuantizer(nn.Module):
    """Quantizes a weight `[out, in]` and takes it back to float32, with gradients for everything.

    The authors' bounds of step sizes are widened to where a group starts: a group of weights so
    small that RTN takes a smaller step would otherwise become 0.
    """

    def __init__(self, weight: Tensor, bits: int, group_size: GroupSize) -> None:
        super().__init__()
        start = rtn.quantize(weight.detach(), bits=bits, group_size=group_size)
        self.bits, self.group_size = bits, group_size
        self.scales = nn.Parameter(start.scales.unsqueeze(2))
        self.zeros = nn.Parameter(start.zeros.to(torch.float32).unsqueeze(2))
        self.register_buffer("smallest", self.scales.detach().clamp(max=SMALLEST_STEP))
        self.register_buffer("largest", self.scales.detach().clamp(min=LARGEST_STEP))

    def forward(self, weight: Tensor) -> Tensor:
        """Return w' `[out, in]`."""
        codes, scales, zeros = self._quantized(weight)
        return ((codes - zeros) * scales).reshape(weight.shape)

    @torch.no_grad()
    def bake(self, weight: Tensor) -> QuantizedLayer:
        """Return codes, step sizes and integer zero points, on the CPU."""
        codes, scales, zeros = (part.cpu() for part in self._quantized(weight))
        return join_groups(codes, scales, zeros.to(torch.uint8), bits=self.bits)

    def _quantized(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, step sizes and zero points on the view `[out, groups, size]`, float32."""
        highest = 2**self.bits - 1
        scales = _through(self.scales.clamp(self.smallest, self.largest), self.scales)
        zeros = _through(self.zeros.round().clamp(0, highest), self.zeros)
        ratios = split_groups(weight, self.group_size)[0] / scales
        codes = (_through(ratios.round(), ratios) + zeros).clamp(0, highest)
        return codes, scales, zeros


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(context: object, value: Tensor, source: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


def _through(value: Tensor, source: Tensor) -> Tensor:
    """Return `value`, whose gradient goes to `source` as it is."""
    return _StraightThrough.apply(value.detach(), source)


def _norms(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of norms by name: the vectors that are not in a linear layer."""
    return {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, part in module.named_modules()
        if not isinstance(part, nn.Linear)
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.dim() == 1
    }


@torch.no_grad()
def _outputs(block: CalibratedBlock) -> list[Tensor]:
    """What the full-precision block gives, one `[length, hidden]` per sequence, on the CPU."""
    batches = (block.run(states, call).cpu() for states, call in block.inputs("full"))
    return [sequence for batch in batches for sequence in batch]


def _train(
    block: CalibratedBlock,
    targets: list[Tensor],
    quantization: list[nn.Parameter],
    weights: list[nn.Parameter],
    training: _Training,
) -> None:
    """Minimise the mean squared error of the block's output; always in the same order."""
    inputs = [sequence for batch in block.batches for sequence in batch.quantized]
    rates = (training.quantization_learning_rate, training.weight_learning_rate)
    groups = [{"params": quantization, "lr": rates[0]}, {"params": weights, "lr": rates[1]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    trained = [parameter.requires_grad_() for parameter in [*quantization, *weights]]
    starts = list(range(0, len(inputs), training.batch_size)) * training.epochs
    where, named = f"block {block.index}", "quantization_learning_rate or weight_learning_rate"
    calls = _Calls(block, inputs[0].shape[0])
    for position, start in enumerate(tqdm(starts, unit="step", desc=where, leave=False)):
        rows = slice(start, start + training.batch_size)
        hidden_states, target = (torch.stack(s[rows]).to(block.device) for s in (inputs, targets))
        output = block.run(hidden_states, calls.of(len(hidden_states)))
        loss = nn.functional.mse_loss(output, target)
        require_finite(loss, position, where, named)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * cosine(position, len(starts), LAST_RATE)
        optimizer.zero_grad()
        loss.backward(inputs=trained)
        optimizer.step()
    for parameter in trained:
        require_finite(parameter, len(starts), where, named)


class _Calls:
    """What the model passes a block beside hidden states, for batches of any size.

    Masks and positions depend on the shape of a batch only, not on its tokens: calibration
    sequences are all of one length, without padding.
    """

    def __init__(self, block: CalibratedBlock, length: int) -> None:
        self.block, self.length, self.known = block, length, {}

    @torch.no_grad()
    def of(self, size: int) -> tuple[tuple, dict]:
        """Positional and keyword arguments for `[size, length, hidden]`."""
        if size not in self.known:
            tokens = torch.zeros(size, self.length, dtype=torch.long)
            call = Decoder(self.block.model).enter(tokens).calls[self.block.index]
            device = self.block.device
            self.known[size] = tree_map(
                lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, call
            )
        return self.known[size]
