"""Finished blocks of a quantization that is under way, so that an interrupted one goes on."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowbit.errors import InputError
from lowbit.files import read_json, sha256, write_json
from lowbit.quantization.blocks import QuantizedBlock
from lowbit.quantization.quantized import QuantizedWeights, describe, write_quantized
from lowbit.unfinished import claim, say


class BlockStore:
    """A folder of finished blocks, all made from the same model, settings, text and versions.

    Args:
        folder: where they are; emptied of what was made from something else.
        made_from: all that the blocks depend on, as JSON by its name.
    """

    def __init__(self, folder: Path, made_from: Mapping[str, Any]) -> None:
        self.folder, self.fingerprint = folder, claim(folder, made_from)

    def load(self, index: int) -> QuantizedBlock | None:
        """Return a finished block and its layers' entries; None where there is none to use."""
        record = self._record(index)
        try:
            if read_json(record)["fingerprint"] != self.fingerprint:
                say(f"block {index} in {self.folder} was made from something else: made again")
                return None
            weights = QuantizedWeights(self._weights(index), record)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, InputError) as error:
            say(f"block {index} in {self.folder} is damaged ({error}): made again")
            return None
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
