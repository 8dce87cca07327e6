"""FP4 (sign, two bits of exponent, one of mantissa) by bitsandbytes."""

from torch import Tensor

from lowbit.quantization.quantized import QuantizedLayer
from lowbit.quantizers.bitsandbytes_4bit import quantize_4bit

LIBRARIES = ("bitsandbytes",)


def quantize(
    weight: Tensor, *, bits: int, group_size: int, double_quantization: bool
) -> QuantizedLayer:
    """Quantize `weight` `[out, in]` to FP4 in blocks of `group_size`; see `quantize_4bit`."""
    return quantize_4bit(weight, "fp4", bits, group_size, double_quantization)
