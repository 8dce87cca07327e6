"""GPTQ (arXiv 2210.17323) by GPTQModel, the successor of auto-gptq, block by block.

Its own `GPTQ` object quantizes each layer, as in its whole-model run with `act_group_aware=False`
(its own variant of the order of columns) and `fallback=None`.
"""

import os
from functools import partial
from unittest.mock import patch

import torch
from logbar import LogBar
from torch import Tensor, nn

from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.grid import layer_on_grid
from lowbit.quantization.quantized import GroupSize, QuantizedLayer
from lowbit.quantizers.gptq_layers import (
    Settings,
    check_finite,
    not_positive_definite,
    quantize_in_order,
)

with patch.dict(os.environ):  # it changes some, such as the places of Hugging Face's files
    LogBar.shared().setLevel("ERROR")  # or it prints a banner and advice
    from gptqmodel import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

LIBRARIES = ("GPTQModel",)


@torch.no_grad()
def quantize_block(
    block: CalibratedBlock,
    *,
    bits: int,
    group_size: GroupSize,
    symmetric: bool = False,
    activation_order: bool = False,
    damping: float = 0.01,
) -> QuantizedBlock:
    """Quantize every linear layer of the block; its weights in `block.module` are replaced.

    With `activation_order`, groups are runs of the columns in the order of their quantization, so
    the layer has a `permutation`.

    Raises:
        InputError: no calibration text reaches a layer, activations are not finite, or the Hessian
            is not positive definite, where the library would go on with another one.
        GateError: the codes do not give the library's weight back.
    """
    settings = Settings(bits, group_size, symmetric, activation_order, damping)
    prepare = partial(_prepare, _library_settings(settings, block.device))
    # Its CUDA extension would be compiled first, where there is a compiler.
    with patch.dict(os.environ, GPTQMODEL_DISABLE_GPTQ_CUDA="1"):
        return quantize_in_order(block, prepare, partial(_solve, settings))


def _library_settings(settings: Settings, device: torch.device) -> QuantizeConfig:
    """The library's own words for the settings."""
    return QuantizeConfig(
        bits=settings.bits,
        group_size=-1 if settings.group_size == "row" else settings.group_size,
        sym=settings.symmetric,
        desc_act=settings.activation_order,
        act_group_aware=False,
        damp_percent=settings.damping,
        damp_auto_increment=0,
        fallback=None,
        device=device.type,
        offload_to_disk=False,
    )


class StrictGPTQ(GPTQ):
    """The library's, which here refuses to change a Hessian that is not positive definite."""

    def hessian_inverse(self, H: Tensor) -> tuple[Tensor, float]:
        """As in the library, without its larger dampings and raised diagonals."""
        diagonal = H.diagonal().clone()
        factor, damping = super().hessian_inverse(H)
        given = self.qcfg.damp_percent
        if factor is None or damping != given or not torch.equal(H.diagonal(), diagonal):
            raise not_positive_definite(self.name, given)
        return factor, damping


def _prepare(library_settings: QuantizeConfig, linear: nn.Linear) -> StrictGPTQ:
    solver = StrictGPTQ(linear, library_settings)
    solver.quantizer.configure(perchannel=True)
    return solver


def _solve(settings: Settings, solver: StrictGPTQ, name: str) -> QuantizedLayer:
    """Let the library quantize one layer, and take the codes out of what it returns."""
    solver.name = name
    check_finite(solver.finalize_hessian(), name)
    weight, scales, zeros, group_of_input, *_ = solver.quantize()
    solver.module.weight.data = weight
    solver.free()
    return layer_on_grid(
        weight,
        scales,
        None if settings.symmetric else zeros,
        bits=settings.bits,
        name=name,
        library="GPTQModel",
        permutation=settings.permutation(group_of_input),
    )
