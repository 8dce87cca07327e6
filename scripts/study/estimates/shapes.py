"""What of a model decides what its jobs take: its sizes, from config.json and tensor headers."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lowbit.inputs import models as model_sources
from lowbit.inputs.hub import Listing
from lowbit.inputs.model_files import ModelFiles, files_of

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
"""Of one number, by the name that safetensors has for its type."""
OTHER_BYTES = 4
"""Of types that no unquantized weight has."""
_NUMBER = re.compile(r"\.(\d+)\.")
_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")
"""Keys of config.json for the experts of a block; a token goes through `num_experts_per_tok`."""

Tensor = tuple[str, str, Sequence[int]]
"""Name, stored type and shape of a tensor."""


@dataclass(frozen=True)
class Matrix:
    """Matrices of the decoder blocks that have one name but for their numbers, and one shape."""

    name: str
    """With * for numbers: `model.layers.*.mlp.up_proj`."""
    outputs: int
    inputs: int
    count: int
    """In all blocks together."""

    @property
    def is_expert(self) -> bool:
        """Whether a token goes through a few of them only: blocks and experts are numbered."""
        return self.name.count("*") > 1

    @property
    def weights(self) -> int:
        """Of one of them."""
        return self.outputs * self.inputs


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a causal language model."""

    parameters: int
    stored_bytes: int
    """Of all tensors, as they are stored."""
    block_parameters: int
    """In all decoder blocks together; the rest are embeddings, output head and final norm."""
    matrices: tuple[Matrix, ...]
    """What quantizers work on."""
    layers: int
    hidden: int
    heads: int
    vocabulary: int
    context: int | None
    expert_share: float = 1.0
    """Share of a block's experts that one token goes through."""

    @property
    def block_weights(self) -> int:
        """Entries of all matrices of all blocks."""
        return sum(matrix.count * matrix.weights for matrix in self.matrices)

    @property
    def active_weights(self) -> float:
        """Entries of the blocks' matrices that one token meets."""
        return sum(
            matrix.count * matrix.weights * (self.expert_share if matrix.is_expert else 1)
            for matrix in self.matrices
        )

    @property
    def kept_parameters(self) -> int:
        """Parameters outside the decoder blocks."""
        return self.parameters - self.block_parameters

    @property
    def widest(self) -> int:
        """Largest number of outputs of a matrix: the width inside the MLP."""
        return max(matrix.outputs for matrix in self.matrices)

    @property
    def largest_matrix(self) -> int:
        """Entries of the largest matrix of a block."""
        return max(matrix.weights for matrix in self.matrices)


def model_shape(config: Mapping[str, Any], tensors: Iterable[Tensor]) -> ModelShape:
    """Work out the sizes.

    Args:
        config: config.json; only what the tensors do not tell is read from it.
        tensors: all tensors of the weight files.

    Raises:
        ValueError: no decoder blocks, or no embeddings, are among the tensors.
    """
    tensors = list(tensors)
    blocks = [each for each in tensors if _NUMBER.search(f".{each[0]}")]
    found = Counter(
        (_pattern(name), *shape)
        for name, _, shape in blocks
        if name.endswith(".weight") and len(shape) == 2
    )
    others = [shape for name, _, shape in tensors if not _NUMBER.search(f".{name}")]
    tables = [shape for shape in others if len(shape) == 2]
    if not found or not tables:
        raise ValueError("no decoder blocks or no embeddings among the tensors")
    vocabulary, width = max(tables, key=prod)
    hidden = config.get("hidden_size") or config.get("n_embd") or width
    experts = next((config[key] for key in _EXPERTS if config.get(key)), None)
    return ModelShape(
        parameters=sum(prod(shape) for _, _, shape in tensors),
        stored_bytes=sum(prod(shape) * BYTES.get(kind, OTHER_BYTES) for _, kind, shape in tensors),
        block_parameters=sum(prod(shape) for _, _, shape in blocks),
        matrices=tuple(Matrix(*key, count) for key, count in sorted(found.items())),
        layers=len({_NUMBER.search(f".{name}")[1] for name, _, _ in blocks}),
        hidden=hidden,
        heads=config.get("num_attention_heads") or config.get("n_head") or 1,
        vocabulary=config.get("vocab_size") or vocabulary,
        context=model_sources.context_length(dict(config)),
        expert_share=config.get("num_experts_per_tok", experts) / experts if experts else 1.0,
    )


def _pattern(name: str) -> str:
    """A matrix's name with * for numbers, as in `lowbit.inputs.models.block_linears`."""
    return _NUMBER.sub(".*.", f".{name}")[1:].removesuffix(".weight")


def shape_of(place: Path | ModelFiles) -> ModelShape:
    """Work out the sizes of a model in a local directory, or of one that the hub lists."""
    files = files_of(place)
    tensors = [
        (name, entry["dtype"], entry["shape"])
        for file in model_sources.weight_files(files)
        for name, entry in files.header(file).items()
    ]
    return model_shape(model_sources.read_config(files), tensors)


def download_bytes(
    place: Path | Listing,
    wanted: Callable[[Path | Listing], Iterable[str]] = model_sources.model_files,
) -> int:
    """Bytes that are downloaded of a model or checkpoint; 0 for a local one.

    Args:
        place: local directory, or what the hub lists.
        wanted: names the files that are read of one.
    """
    if isinstance(place, Path):
        return 0
    return sum(place.files[name].bytes for name in wanted(place))
