"""AWQ (arXiv 2306.00978) by AutoAWQ: its search for scales and clipping, block by block.

The library's tables say which layers share a scale and which module before them takes it back. It
searches on full-precision activations.
"""

import inspect
import warnings
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.errors import InputError
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.grid import layer_on_grid
from lowbit.quantization.quantized import GroupSize, QuantizedLayer, split_groups
from lowbit.quantizers.awq_scales import (
    Found,
    changed_parameters,
    check_output,
    first_output,
    other_parameters,
    scales_by_layer,
)

with warnings.catch_warnings(record=True):  # deprecations in a package that has been archived
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP
    from awq.quantize.quantizer import AwqQuantizer
    from awq.quantize.scale import apply_clip, apply_scale

LIBRARIES = ("autoawq",)

_CLIPPED_ROWS = 64
"""The library can clip a layer whose number of outputs is a multiple of this."""


@torch.no_grad()
def quantize_block(
    block: CalibratedBlock, *, bits: int, group_size: GroupSize, clipping: bool = True
) -> QuantizedBlock:
    """Search scales and clipping on the full-precision stream, apply them, and round.

    `block.module` is left with scaled, clipped weights. Beside the layers come the norms and biases
    that took scales in.

    Raises:
        InputError: an architecture that AutoAWQ does not know or cannot scale exactly, a layer that
            no calibration text reaches or whose outputs it cannot clip, a group of equal weights.
        GateError: the codes do not give the library's weight back.
    """
    table = _find_table(block)
    _check_weights(block, group_size)
    search = BlockSearch(block, bits, group_size)
    others = other_parameters(block)
    expected = first_output(block)
    features = _input_features(block, search)
    entries = table.get_layers_for_scaling(block.module, features, search.module_kwargs)
    found = [search._search_best_scale(block.module, **entry) for entry in entries]
    apply_scale(block.module, found, input_feat_dict=features)
    block.module.to(block.device)  # the library leaves on the CPU what it has scaled
    check_output(block, expected, "autoawq")
    if clipping:
        clips = search._search_best_clip(block.module, block.linears, features)
        apply_clip(block.module, clips)
    folded, divided = scales_by_layer(block, found)
    layers = {
        name: _round(search, linear, block.full_name(name), folded.get(name), divided.get(name))
        for name, linear in block.linears.items()
    }
    return QuantizedBlock(layers, changed_parameters(block, others))


class BlockSearch(AwqQuantizer):
    """The library's quantizer for one block, which takes its inputs from the block."""

    def __init__(self, block: CalibratedBlock, bits: int, group_size: GroupSize) -> None:
        self.block, self.rows = block, group_size == "row"
        super().__init__(
            SimpleNamespace(model_type=block.model.config.model_type),
            block.module,
            tokenizer=None,
            w_bit=bits,
            group_size=-1 if self.rows else group_size,
            zero_point=True,
            version=None,
            calib_data=None,
            split=None,
            text_column=None,
            duo_scaling=True,
            n_parallel_calib_samples=block.batches[0].full.shape[0],
        )

    def init_quant(self, **limits: int) -> tuple[list[nn.Module], dict[str, Any], Tensor]:
        """Give the block, its arguments and its inputs `[n, length, hidden]`."""
        inputs = list(self.block.inputs("full"))
        args, kwargs = inputs[0][1]
        names = list(inspect.signature(self.block.module.forward).parameters)[1:]
        arguments = dict(zip(names, args, strict=False)) | kwargs
        arguments = {name: _one_row(value, len(inputs[0][0])) for name, value in arguments.items()}
        return [self.block.module], arguments, torch.cat([states for states, _ in inputs])

    def _search_best_scale(self, module: nn.Module, **entry: Any) -> Found:
        """As in the library, which cannot do this with one group per row."""
        if self.rows:
            self.group_size = entry["layers"][0].in_features
        try:
            return super()._search_best_scale(module, **entry)
        finally:
            self.group_size = -1 if self.rows else self.group_size

    def _compute_best_scale(
        self, x: Tensor, w_mean: Tensor, x_mean: Tensor, module2inspect: nn.Module, *rest: Any
    ) -> Tensor:
        """As in the library, but with the weights put back after each trial.

        It saves them with `.cpu()`, which copies nothing where they are on the CPU: the first trial
        would stay in them. The hook makes the saved state a copy.
        """
        hook = module2inspect.register_state_dict_post_hook(_copy_state)
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest)
        finally:
            hook.remove()

    def _compute_best_clip(self, weight: Tensor, features: Tensor, **options: Any) -> Tensor:
        """As in the library, which stops here for other numbers of outputs."""
        if weight.shape[0] % _CLIPPED_ROWS:
            raise InputError(
                f"autoawq cannot clip block {self.block.index}: a layer has {weight.shape[0]} "
                f"outputs, not a multiple of {_CLIPPED_ROWS}; write clipping: false"
            )
        return super()._compute_best_clip(weight, features, **options)


def _copy_state(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for name, tensor in state.items():
        state[name] = tensor.clone()


def _one_row(value: Any, batch: int) -> Any:
    """Masks without padding are the same in each row; one row serves a batch of any size."""
    if isinstance(value, Tensor) and value.dim() > 1 and len(value) == batch:
        return value[:1]
    return value


def _find_table(block: CalibratedBlock) -> Any:
    """The library's table for the model's architecture."""
    model_type = block.model.config.model_type
    table = AWQ_CAUSAL_LM_MODEL_MAP.get(model_type)
    if table is None:
        raise InputError(
            f"autoawq does not know the architecture {model_type}; it knows "
            f"{', '.join(sorted(AWQ_CAUSAL_LM_MODEL_MAP))}. Use another quantizer or backend"
        )
    if table.get_act_for_scaling(block.module)["is_scalable"]:
        raise InputError(
            f"autoawq scales the activation function of {model_type}, which quantized weights "
            "cannot hold; use another quantizer or backend"
        )
    return table


def _check_weights(block: CalibratedBlock, group_size: GroupSize) -> None:
    """Refuse groups of one value other than 0: the library's grid spans [min, max] without 0."""
    for name, linear in block.linears.items():
        groups, extent = split_groups(linear.weight, group_size)
        low, high = groups.amin(extent), groups.amax(extent)
        if bool(((low == high) & (low != 0)).any()):
            raise InputError(
                f"{block.full_name(name)} has a group of equal weights, which autoawq would turn "
                "to almost 0; use another quantizer"
            )


def _input_features(block: CalibratedBlock, search: BlockSearch) -> dict[str, Tensor]:
    """What reaches each layer, by its name."""
    try:
        features = search._get_input_feat(block.module, block.linears)
    except AssertionError as error:
        raise InputError(f"block {block.index}: autoawq: {error}") from error
    missing = [name for name in block.linears if name not in features]
    if missing:
        raise block.not_reached(missing, "AWQ")
    return features


def _round(
    search: BlockSearch,
    linear: nn.Linear,
    name: str,
    folded: Tensor | None,
    divided: Tensor | None,
) -> QuantizedLayer:
    """Take codes out of the library's rounding of one weight."""
    weight = linear.weight.detach().float().cpu()
    rounded, scales, zeros = search.pseudo_quantize_tensor(weight)
    return layer_on_grid(
        rounded,
        scales,
        zeros,
        bits=search.w_bit,
        name=name,
        library="autoawq",
        folded_scale=folded,
        output_scale=divided,
    )
