"""What llm-compressor's GPTQ and AWQ have in common: its words for the settings, and its grids."""

import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor import LoggerConfig, configure_logger
from llmcompressor.observers import Observer
from torch import Tensor, nn

from lowbit.quantization.grid import layer_on_grid
from lowbit.quantization.quantized import GroupSize, QuantizedLayer

configure_logger(LoggerConfig(console_log_level="ERROR"))  # or it prints every step it takes


def quantization_args(
    bits: int, group_size: GroupSize, symmetric: bool = False, activation_order: bool = False
) -> QuantizationArgs:
    """The library's own words for the settings."""
    grouping = {"strategy": "channel"}
    if group_size != "row":
        grouping = {"strategy": "group", "group_size": group_size}
    return QuantizationArgs(
        num_bits=bits,
        type="int",
        symmetric=symmetric,
        actorder="weight" if activation_order else None,
        **grouping,
    )


def find_grid(linear: nn.Linear, args: QuantizationArgs) -> dict[str, Tensor | None]:
    """Scales and zeros `[out, groups]` of a weight, by the library's minimum and maximum."""
    observer = Observer.load_from_registry("memoryless_minmax", base_name="weight", args=args)
    return observer(linear.weight).get_qparams()


def signed_layer(
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor,
    args: QuantizationArgs,
    name: str,
    **parts: Tensor | None,
) -> QuantizedLayer:
    """Codes of a weight `[out, in]` on the library's grid, where codes and zeros are signed.

    Args:
        parts: scales folded into the layer; see `layer_on_grid`.

    Raises:
        GateError: the codes do not give the library's weight back.
    """
    unsigned = zeros.to(torch.int32) + 2 ** (args.num_bits - 1)
    return layer_on_grid(
        weight,
        scales,
        None if args.symmetric else unsigned,
        bits=args.num_bits,
        name=name,
        library="llm-compressor",
        **parts,
    )
