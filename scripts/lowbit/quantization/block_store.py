"""Finished blocks of a quantization that is under way, so that an interrupted one goes on."""

import shutil
from pathlib import Path

from lowbit.errors import InputError
from lowbit.files import read_json, sha256, write_json
from lowbit.quantization.blocks import QuantizedBlock
from lowbit.quantization.quantized import QuantizedWeights, describe, write_quantized


class BlockStore:
    """A folder of finished blocks, all made from the same model, settings, text and versions.

    Args:
        folder: created when the first block is saved.
        fingerprint: of all that the blocks depend on; blocks with another one are not used.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self, index: int) -> QuantizedBlock | None:
        """Return a finished block and its layers' entries; None where there is none to use."""
        record = self._record(index)
        try:
            if read_json(record)["fingerprint"] != self.fingerprint:
                return None
            weights = QuantizedWeights(self._weights(index), record)
        except (OSError, ValueError, KeyError, InputError):
            return None  # damaged or not there: it is made again
        layers = {name: weights.layer(name) for name in weights.names}
        return QuantizedBlock(layers, weights.replaced)

    def save(self, index: int, block: QuantizedBlock) -> None:
        """Write a finished block; its record comes last and makes it count."""
        write_quantized(self._weights(index), block.layers, block.replaced)
        write_json(
            self._record(index),
            {
                "fingerprint": self.fingerprint,
                "weights_sha256": sha256(self._weights(index)),
                "layers": {name: describe(layer) for name, layer in block.layers.items()},
            },
        )

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _weights(self, index: int) -> Path:
        return self.folder / f"{index}.safetensors"

    def _record(self, index: int) -> Path:
        return self.folder / f"{index}.json"
