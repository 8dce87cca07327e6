"""NF4 by bitsandbytes, the library of QLoRA (arXiv 2305.14314)."""

from torch import Tensor

from lowbit.quantization.quantized import QuantizedLayer
from lowbit.quantizers.bitsandbytes_4bit import quantize_4bit

LIBRARIES = ("bitsandbytes",)


def quantize(
    weight: Tensor, *, bits: int, group_size: int, double_quantization: bool
) -> QuantizedLayer:
    """Quantize `weight` `[out, in]` to NF4 in blocks of `group_size`; see `quantize_4bit`."""
    return quantize_4bit(weight, "nf4", bits, group_size, double_quantization)
