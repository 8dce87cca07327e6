"""What quantization cost each layer, beside what rounding to nearest would have cost."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowbit.engine.decoder import Decoder
from lowbit.quantization.blocks import calibrated_block, enter
from lowbit.quantization.quantized import (
    QuantizedLayer,
    describe,
    relative_error,
    unfolded,
)
from lowbit.quantizers import rtn

BATCH = 4
"""Calibration sequences that are run at once."""


@torch.no_grad()
def measure_layers(
    model: nn.Module,
    token_ids: Tensor,
    layers: Mapping[str, QuantizedLayer],
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """Compare each layer, and asymmetric RTN at its bits and groups, with the full-precision one.

    Relative errors of the weight, ||W - Wq|| / ||W||, and of the output, ||XW - XWq|| / ||XW||, for
    the X that reaches the layer in the full-precision model on the calibration text; to six digits,
    None where the norm is 0 or no token reached the layer.

    Args:
        token_ids: calibration text `[n, length]`.
        layers: by full name.

    Returns:
        Shape, bits, groups and errors of each layer, by full name.
    """
    decoder = Decoder(model)
    batches = enter(decoder, token_ids, BATCH)
    entries = {}
    for index in tqdm(range(len(decoder)), unit="block", desc="measure"):
        block = calibrated_block(decoder, index, batches, device)
        prefix = f"{decoder.blocks_name}.{index}."
        costs = {
            name: _Cost(linear, layers[prefix + name]) for name, linear in block.linears.items()
        }
        with ExitStack() as hooks:
            for cost in costs.values():
                hooks.callback(cost.linear.register_forward_pre_hook(cost.add).remove)
            for batch, (hidden_states, call) in zip(batches, block.inputs("full"), strict=True):
                batch.full = block.run(hidden_states, call).cpu()
        entries |= {prefix + name: cost.entry() for name, cost in costs.items()}
    return entries


class _Cost:
    """Sums up one layer's errors over batches."""

    def __init__(self, linear: nn.Linear, layer: QuantizedLayer) -> None:
        self.linear, self.layer = linear, layer
        weight = linear.weight.float()
        own = unfolded(layer).to(weight.device)
        self.differences = [weight - own, weight - _nearest(weight, layer)]
        self.sums = torch.zeros(3, dtype=torch.float64)

    def add(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Forward hook: add the squares of the outputs of W, W - Wq and W - Wrtn."""
        for place, matrix in enumerate([module.weight.float(), *self.differences]):
            output = arguments[0] @ matrix.T
            self.sums[place] += torch.linalg.vector_norm(output, dtype=torch.float64).cpu() ** 2

    def entry(self) -> dict[str, Any]:
        """The layer's part of the record."""
        weight = self.linear.weight.float()
        errors = [relative_error(weight, weight - difference) for difference in self.differences]
        norm, *rest = self.sums.sqrt().tolist()
        outputs = [value / norm if norm > 0 else None for value in rest]
        return describe(self.layer) | {
            "weight_error": _rounded(errors[0]),
            "output_error": _rounded(outputs[0]),
            "rtn_weight_error": _rounded(errors[1]),
            "rtn_output_error": _rounded(outputs[1]),
        }


def _nearest(weight: Tensor, layer: QuantizedLayer) -> Tensor:
    """Asymmetric RTN with the bits and groups of `layer`."""
    whole = layer.scales is not None and layer.scales.numel() == 1
    size = "tensor" if whole else layer.group_size
    return unfolded(rtn.quantize(weight, bits=layer.bits, group_size=size, axis=layer.axis))


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
