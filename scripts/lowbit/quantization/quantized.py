"""Quantized weights: what they are in memory, on disk, and how full weights come back from them.

On disk a module has `<module>.codes` (packed by `bitstream`), and as the quantizer needs them
`.scales`, `.zeros`, `.codebook`, `.permutation`, `.folded_scale`, `.output_scale`; every other
tensor of the file is a parameter of the model that the quantizer changed, under its own name. The
method's record holds each module's shape, bits, group size and axis (`describe`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from lowbit.errors import InputError
from lowbit.files import atomic, read_json, sha256
from lowbit.inputs.tensor_file import TensorFile
from lowbit.quantization.bitstream import pack, row_bytes, unpack

GroupSize = int | str
"""Weights that share a scale: a number of them, "row" (one output row) or "tensor" (all)."""

COMPUTE_DTYPE = "float32"
"""The type in which codes become weights; scales and zeros are stored in it too."""

_FOLDED = ("folded_scale", "output_scale")
"""Parts that no weight is made from."""
_PARTS = ("scales", "zeros", "codebook", "permutation", *_FOLDED)


@dataclass(frozen=True)
class QuantizedLayer:
    """The quantized weight `[out, in]` of one linear layer, its codes not yet packed."""

    codes: Tensor
    """uint8 `[out, in]`, each below 2**bits."""
    bits: int
    group_size: int
    """Weights of one group along the grouped dimension; the whole row for "row" and "tensor"."""
    scales: Tensor | None = None
    """float32 `[out, groups]` (axis 1), `[groups, in]` (axis 0) or `[1, 1]` (one for all)."""
    zeros: Tensor | None = None
    """The code that means 0, shaped like `scales`; integer or fractional. None: 2**(bits - 1)."""
    codebook: Tensor | None = None
    """What the codes stand for: float32 `[levels]`, or `[out, levels]`, a row its own."""
    axis: int = 1
    """1: groups are runs along the input dimension. 0: group g holds the output rows o with
    o % groups == g, the layout of the hqq package."""
    permutation: Tensor | None = None
    """int32 `[in]`: column j of the codes is input channel permutation[j]; groups run over j."""
    folded_scale: Tensor | None = None
    """float32 `[in]`: factors multiplied into the weight before it was quantized, and taken out of
    the layer's input elsewhere (AWQ). `dequantize` leaves them in, `unfolded` takes them out."""
    output_scale: Tensor | None = None
    """float32 `[out]`: factors the weight (and bias) was divided by before it was quantized,
    because a following layer's `folded_scale` multiplies by them."""


def scales_unknown(record: Mapping[str, Any]) -> bool:
    """Whether scales were moved between a method's layers, and are not stored with it.

    So it is in published checkpoints of AWQ and SmoothQuant: the norms alone, which are not the
    model's, tell of it. No single weight, and no activation between a norm and the projection that
    its scales were moved into, can then be compared with the model's. Norms that were trained look
    the same, and count as scaled.

    Args:
        record: the method's `method.json`.
    """
    published = record.get("backend") == "published"
    return published and any(name.endswith(".weight") for name in record["changed"])


def require_scales(record: Path, key: str) -> None:
    """Raise `InputError` unless the scales that a method moved, if any, are known.

    Args:
        record: the method's `method.json`.
        key: of the config, which names the method.
    """
    if scales_unknown(read_json(record)):
        raise InputError(
            f"{key} names a published checkpoint whose norms differ from the model's. Scales were "
            "moved between its layers and are not stored (AWQ, SmoothQuant), so that its weights "
            "cannot be compared with the model's one by one: write a method that is quantized "
            "here, such as {quantizer: awq, ...}, or a checkpoint that leaves the norms as they are"
        )


def split_groups(
    weight: Tensor, group_size: GroupSize, axis: int = 1
) -> tuple[Tensor, tuple[int, ...]]:
    """View `[out, in]` by groups, and say over which dimensions of the view a group extends.

    The view is `[out, groups, size]` for axis 1 and `[size, groups, in]` for axis 0, so that a
    reduction with `keepdim=True` over those dimensions broadcasts against it.

    Raises:
        InputError: the size does not divide the grouped dimension.
    """
    if group_size == "tensor":
        return weight.unsqueeze(1), (0, 1, 2)
    size = weight.shape[1] if group_size == "row" else int(group_size)
    if weight.shape[axis] % size:
        raise InputError(f"group_size {size} does not divide a dimension of {weight.shape[axis]}")
    if axis == 1:
        return weight.reshape(weight.shape[0], -1, size), (2,)
    return weight.reshape(size, -1, weight.shape[1]), (0,)


def join_groups(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    codebook: Tensor | None = None,
    *,
    bits: int,
    axis: int = 1,
) -> QuantizedLayer:
    """Make a layer of codes and per-group values computed on a `split_groups` view (kept dims)."""
    position = 2 if axis == 1 else 0
    return QuantizedLayer(
        codes=(codes.flatten(1) if axis == 1 else codes.flatten(0, 1)).to(torch.uint8),
        bits=bits,
        group_size=codes.shape[position],
        scales=scales.squeeze(position),
        zeros=None if zeros is None else zeros.squeeze(position),
        codebook=codebook,
        axis=axis,
    )


def dequantize(layer: QuantizedLayer) -> Tensor:
    """Return the float32 weight `[out, in]`: (code - zero) * scale, or codebook[code] * scale."""
    values = _levels(layer)
    if layer.scales is not None:
        position = 2 if layer.axis == 1 else 0
        view, _ = split_groups(values, layer.group_size, layer.axis)
        if layer.codebook is None and layer.zeros is not None:
            view = view - layer.zeros.to(torch.float32).unsqueeze(position)
        values = (view * layer.scales.unsqueeze(position)).reshape(layer.codes.shape)
    if layer.permutation is not None:
        restored = torch.empty_like(values)
        restored[:, layer.permutation] = values
        return restored
    return values


def unfolded(layer: QuantizedLayer) -> Tensor:
    """Return what stands for the original weight `[out, in]`: without scales moved between layers.

    Wq = diag(output_scale) dequantize(layer) diag(1 / folded_scale).
    """
    weight = dequantize(layer)
    if layer.folded_scale is not None:
        weight = weight / layer.folded_scale
    return weight if layer.output_scale is None else weight * layer.output_scale.unsqueeze(1)


def _levels(layer: QuantizedLayer) -> Tensor:
    """What the codes stand for before zeros and scales, float32 `[out, in]`."""
    if layer.codebook is None:
        offset = 2 ** (layer.bits - 1) if layer.zeros is None else 0
        return layer.codes.to(torch.float32) - offset
    if layer.codebook.dim() == 2:
        return layer.codebook.gather(1, layer.codes.to(torch.int64))
    flat = layer.codes.reshape(-1).to(torch.int32)
    return layer.codebook.index_select(0, flat).view(layer.codes.shape)


def relative_error(reference: Tensor, approximation: Tensor) -> float | None:
    """||reference - approximation|| / ||reference|| (Frobenius); None where the reference is 0."""
    norm = torch.linalg.vector_norm(reference, dtype=torch.float64).item()
    difference = torch.linalg.vector_norm(reference - approximation, dtype=torch.float64).item()
    return difference / norm if norm > 0 else None


def sqnr_db(reference: Tensor, approximation: Tensor) -> float | None:
    """Signal over quantization noise, 10 log10(||x||^2 / ||x - Q(x)||^2), in decibels.

    Infinite where nothing is lost; None where the reference is 0.
    """
    relative = relative_error(reference, approximation)
    if relative is None:
        return None
    return -20 * math.log10(relative) if relative > 0 else math.inf


def describe(layer: QuantizedLayer) -> dict[str, Any]:
    """Return what the record must say of a layer for `QuantizedWeights` to read it."""
    return {
        "shape": list(layer.codes.shape),
        "bits": layer.bits,
        "group_size": layer.group_size,
        "axis": layer.axis,
    }


def bits_per_weight(layers: Mapping[str, QuantizedLayer]) -> float:
    """Return stored bits per quantized weight: padded codes, and all that weights are made from."""
    stored = sum(_stored_bytes(layer) for layer in layers.values())
    return 8 * stored / sum(layer.codes.numel() for layer in layers.values())


def _stored_bytes(layer: QuantizedLayer) -> int:
    rows, columns = layer.codes.shape
    return rows * row_bytes(columns, layer.bits) + sum(
        part.nbytes for name, part in _parts(layer).items() if name not in _FOLDED
    )


def _parts(layer: QuantizedLayer) -> dict[str, Tensor]:
    present = {name: getattr(layer, name) for name in _PARTS}
    return {name: part for name, part in present.items() if part is not None}


def write_quantized(
    path: str | Path, layers: Mapping[str, QuantizedLayer], extra: Mapping[str, Tensor]
) -> None:
    """Write layers by module name, and changed parameters of the model by full name.

    The same tensors give the same bytes (no metadata: its order would not be fixed).
    """
    tensors = dict(extra)
    for name, layer in layers.items():
        tensors[f"{name}.codes"] = pack(layer.codes, layer.bits)
        tensors |= {f"{name}.{part}": tensor for part, tensor in _parts(layer).items()}
    # A copy each: safetensors refuses layers that share one codebook's memory.
    copies = {name: t.detach().clone().contiguous() for name, t in tensors.items()}
    # Not `save_file`: it makes files that only their owner can read, and hides a full disk's errno.
    with atomic(path) as partial:
        partial.write_bytes(save(copies))


class QuantizedWeights:
    """Reads a file of `write_quantized` module by module; nothing is loaded before it is asked for.

    Args:
        path: the weights file.
        record: the `method.json` written with it.

    Raises:
        InputError: the file is missing, or damaged, incomplete or another one than the record's.
    """

    def __init__(self, path: str | Path, record: str | Path) -> None:
        again = "Delete its folder and run the same command again."
        described = read_json(record)
        try:
            found = sha256(path)
        except OSError as error:
            raise InputError(f"{path} is missing or cannot be read ({error}). {again}") from error
        if found != described["weights_sha256"]:
            raise InputError(
                f"{path} is damaged, incomplete or not the file that {record} describes. {again}"
            )
        self._file = TensorFile(Path(path))
        self._layers: dict[str, Any] = described["layers"]
        self._stored = frozenset(self._file.names)

    @property
    def names(self) -> list[str]:
        """The quantized modules, in the model's order."""
        return list(self._layers)

    @cached_property
    def replaced(self) -> dict[str, Tensor]:
        """The parameters of the model that the quantizer changed, by full name."""
        parts = {f"{name}.{part}" for name in self._layers for part in ("codes", *_PARTS)}
        return {name: self._file.read(name) for name in sorted(self._stored - parts)}

    def layer(self, module: str, device: str | torch.device = "cpu") -> QuantizedLayer:
        """Load and unpack one module."""
        entry = self._layers[module]
        stream = self._file.read(f"{module}.codes").to(device)
        parts = {part: self._file.read(key).to(device) for part, key in self._keys(module)}
        return QuantizedLayer(
            codes=unpack(stream, entry["bits"], entry["shape"][1]),
            bits=entry["bits"],
            group_size=entry["group_size"],
            axis=entry["axis"],
            **parts,
        )

    def folds(self, module: str) -> dict[str, Tensor]:
        """Scales that the quantizer moved between this and other modules; most move none."""
        return {part: self._file.read(k) for part, k in self._keys(module) if part in _FOLDED}

    def dequantize(
        self,
        module: str,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """Return the module's weight `[out, in]`: computed in float32, then rounded to `dtype`."""
        return dequantize(self.layer(module, device)).to(dtype)

    def _keys(self, module: str) -> Iterator[tuple[str, str]]:
        return ((p, f"{module}.{p}") for p in _PARTS if f"{module}.{p}" in self._stored)
