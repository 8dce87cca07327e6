"""AWQ (arXiv 2306.00978) by autoawq, the library that made it common, one block at a time.

The search for scales and clipping ranges is the library's own, on the activations of the
full-precision model as there. Repaired: on a CPU it takes its snapshot of the weights by reference
and so never undoes the first candidate (see `_BlockSearch._compute_best_scale`).
"""

import warnings
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.engine.roles import decoder_blocks
from lowbit.errors import InputError
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.quantized import QuantizedLayer, dequantize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it announces that it is archived
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP
    from awq.modules.act import ScaledActivation
    from awq.quantize.quantizer import AwqQuantizer, apply_clip, apply_scale

LIBRARIES = ("autoawq",)

CLIPPED_ROWS = 64
"""The library searches clipping ranges for this many rows at once, and needs a multiple of it."""

Scaling = tuple[str, tuple[str, ...], Tensor]
"""Name of what comes before, names of the layers scaled, and their factors `[in]`."""


@torch.no_grad()
def quantize_block(
    block: CalibratedBlock, *, bits: int, group_size: int, clipping: bool
) -> QuantizedBlock:
    """Search scales (and clipping ranges) for a block, fold them in, round.

    The factors stay in the result: `folded_scale` of the layers that were multiplied,
    `output_scale` of the linear layer before them that was divided; norms that were divided are
    among the replaced parameters.

    Raises:
        InputError: the library does not know the architecture, or cannot scale or clip it so that
            weights alone hold the result.
    """
    search = _BlockSearch(block, bits, group_size, clipping)
    linears = block.linears
    if clipping:
        _check_rows(linears)
    features = search._get_input_feat(block.module, linears)
    groups = search.awq_model.get_layers_for_scaling(block.module, features, search.module_kwargs)
    scalings = [search._search_best_scale(block.module, **group) for group in groups]
    apply_scale(block.module, scalings, input_feat_dict=features)
    block.module.to(block.device)  # the library leaves what it touched on the CPU
    if any(isinstance(module, ScaledActivation) for module in block.module.modules()):
        raise InputError(
            f"autoawq scales an activation function of {type(block.model).__name__}, which no "
            "quantized weight can hold; use another quantizer for this model"
        )
    if clipping:
        apply_clip(block.module, search._search_best_clip(block.module, linears, features))
        block.module.to(block.device)
    return _result(block, search, scalings)


class _BlockSearch(AwqQuantizer):
    """The library's quantizer, looking at one block only."""

    def __init__(self, block: CalibratedBlock, bits: int, group_size: int, clipping: bool) -> None:
        self.block = block
        super().__init__(
            awq_model=_architecture(block.model),
            model=block.model,
            tokenizer=None,
            w_bit=bits,
            group_size=group_size,
            zero_point=True,
            version="GEMM",
            calib_data=None,
            split=None,
            text_column=None,
            duo_scaling=True,
            export_compatible=True,
            apply_clip=clipping,
            n_parallel_calib_samples=len(block.batches[0].full),
        )

    def init_quant(
        self, n_samples: int = 0, max_seq_len: int = 0
    ) -> tuple[list[nn.Module], dict[str, Any], Tensor]:
        """Take the activations that our walk brought here instead of running the model."""
        batches = list(self.block.inputs("full"))
        _, kwargs = batches[0][1]
        return [self.block.module], dict(kwargs), torch.cat([states for states, _ in batches])

    def _compute_best_scale(self, x: Tensor, *arguments: Any) -> Tensor:
        """Give the library a real copy of the weights it tries candidates on."""

        def copied(module: nn.Module, state: dict[str, Tensor], prefix: str, extra: Any) -> None:
            for name in list(state):
                state[name] = state[name].clone()

        inspected = arguments[2]
        handle = inspected.register_state_dict_post_hook(copied)
        try:
            return super()._compute_best_scale(x, *arguments)
        finally:
            handle.remove()


def _architecture(model: nn.Module) -> SimpleNamespace:
    """What the library must know of an architecture: which layers are scaled with which."""
    kind = model.config.model_type
    if kind not in AWQ_CAUSAL_LM_MODEL_MAP:
        known = ", ".join(sorted(AWQ_CAUSAL_LM_MODEL_MAP))
        raise InputError(f"autoawq does not know the architecture {kind}; it knows {known}")
    scaling = AWQ_CAUSAL_LM_MODEL_MAP[kind].get_layers_for_scaling
    return SimpleNamespace(model_type=kind, get_layers_for_scaling=scaling)


def _check_rows(linears: dict[str, nn.Linear]) -> None:
    wrong = [name for name, each in linears.items() if each.weight.shape[0] % CLIPPED_ROWS]
    if wrong:
        raise InputError(
            f"autoawq can search clipping ranges only for layers whose outputs are a multiple of "
            f"{CLIPPED_ROWS}; {wrong[0]} has {linears[wrong[0]].weight.shape[0]}. Write "
            "clipping: false"
        )


def _result(
    block: CalibratedBlock, search: _BlockSearch, scalings: list[Scaling]
) -> QuantizedBlock:
    """Round the scaled and clipped weights; keep what was folded where."""
    linears = block.linears
    folded = {name: torch.ones(each.in_features) for name, each in linears.items()}
    outputs = {name: torch.ones(each.out_features) for name, each in linears.items()}
    for before, names, factors in scalings:
        for name in names:
            folded[name] *= factors.view(-1).cpu().float()
        if before in outputs:
            outputs[before][-factors.numel() :] *= factors.view(-1).cpu().float()
    layers = {
        name: _layer(search, linear, folded[name], outputs[name], f"{block.index}.{name}")
        for name, linear in linears.items()
    }
    original = dict(decoder_blocks(block.model)[1][block.index].named_parameters())
    weights = {f"{name}.weight" for name in linears}
    replaced = {
        name: parameter.detach().float().cpu()
        for name, parameter in block.module.named_parameters()
        if name not in weights and not torch.equal(parameter.cpu(), original[name].cpu())
    }
    return QuantizedBlock(layers, replaced)


def _layer(
    search: _BlockSearch, linear: nn.Linear, folded: Tensor, outputs: Tensor, name: str
) -> QuantizedLayer:
    weight = linear.weight.data.float()
    rounded, scales, zeros = search.pseudo_quantize_tensor(weight)
    size = search.group_size
    steps, offsets = (part.repeat_interleave(size, 1) for part in (scales, zeros))
    codes = ((weight / steps).round() + offsets).clamp(0, 2**search.w_bit - 1)
    layer = QuantizedLayer(
        codes=codes.to(torch.uint8).cpu(),
        bits=search.w_bit,
        group_size=size,
        scales=scales.contiguous().cpu(),
        zeros=zeros.to(torch.uint8).contiguous().cpu(),
        folded_scale=None if bool((folded == 1).all()) else folded,
        output_scale=None if bool((outputs == 1).all()) else outputs,
    )
    if not torch.equal(dequantize(layer), rounded.cpu()):
        raise InputError(f"block {name}: codes do not give the weight that autoawq computed")
    return layer
