"""What every job of the engine starts from: a model taken apart, its settings, its documents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine import gates
from lowbit.engine.decoder import Decoder
from lowbit.engine.loading import load_decoder, pick_device
from lowbit.engine.sizes import PROBE_DOCUMENTS, STREAM_SHARD
from lowbit.engine.streams import folded_stream, quantized_stream
from lowbit.engine.walk import Stream
from lowbit.inputs.checkpoint import directory_of
from lowbit.names import FULL


@dataclass(frozen=True)
class Engine:
    """One model, ready to walk."""

    decoder: Decoder
    full: Stream
    dtype: torch.dtype
    device: torch.device
    batch_size: int
    resident: bool

    @classmethod
    def open(cls, model_record: Path, settings: Mapping[str, Any]) -> "Engine":
        """Load the model that `model.json` records, with the config's `engine` settings."""
        torch.set_num_threads(settings["threads"])
        device, dtype = pick_device(settings["device"]), getattr(torch, settings["dtype"])
        directory = directory_of(model_record)
        decoder, parameters = load_decoder(directory, settings["mode"], dtype, device)
        resident = settings["mode"] == "resident"
        full = Stream(FULL, parameters)
        return cls(decoder, full, dtype, device, settings["batch_size"], resident)

    def by_block(self) -> "Engine":
        """The same, walking many batches before the next block, so that what is made for a block
        (noise on its weights) is made once for them, and kept for one block only."""
        return replace(self, resident=False)

    def quantized(self, name: str, record: Path) -> Stream:
        """Return the stream of a method from its `method.json`."""
        return quantized_stream(
            name, record, self.decoder, self.full, self.resident, self.dtype, self.device
        )

    def donor(self, name: str, record: Path, token_ids: NDArray[np.int32]) -> Stream:
        """Return the stream whose activations are on the scales of method `name`.

        That is `full`, or, where the method moves scales between layers, the full-precision model
        with these scales.

        Raises:
            GateError: the scales change what the full-precision model predicts.
        """
        folded = folded_stream(name, record, self.decoder, self.full, self.resident)
        if folded is None:
            return self.full
        gates.folding(self.decoder, self.full, folded, self._rows(token_ids[:PROBE_DOCUMENTS]))
        return folded

    def shards(
        self,
        token_ids: NDArray[np.int32],
        lengths: NDArray[np.int64] | None = None,
        first: int = 0,
    ) -> Iterator[list[Tensor]]:
        """Cut `[documents, length]` into shards of batches.

        Resident weights: a shard is one batch. Else it is many, so that reading a block pays.

        Args:
            first: where to begin, at the end of a batch; those before it are done.
            lengths: of documents that are padded on the right, `[documents]`. Only neighbours of
                one length share a batch, so that no padding is walked: sort them.
        """
        rows = self._rows(token_ids)
        batches: Sequence[Tensor] = rows.split(self.batch_size)
        if lengths is not None:
            ends = np.flatnonzero(np.diff(lengths, append=-1)) + 1
            runs = rows.split(np.diff(ends, prepend=0).tolist())
            batches = [
                batch[:, :length]
                for run, length in zip(runs, lengths[ends - 1].tolist(), strict=True)
                for batch in run.split(self.batch_size)
            ]
        ends = np.cumsum([len(batch) for batch in batches])
        batches = batches[np.searchsorted(ends, first, side="right") :]
        per_shard = 1 if self.resident else max(1, STREAM_SHARD // self.batch_size)
        for start in range(0, len(batches), per_shard):
            yield list(batches[start : start + per_shard])

    def check(
        self, variants: Sequence[Stream], token_ids: NDArray[np.int32]
    ) -> dict[str, dict[str, float]]:
        """Run the gates of every stream on the first documents; per stream differences in nats.

        Raises:
            GateError: one of them fails.
        """
        batch = self._rows(token_ids[: max(PROBE_DOCUMENTS, self.batch_size)])
        probe = batch[:PROBE_DOCUMENTS]
        floor = gates.noise_floor(self.decoder, self.full, batch)
        parity = gates.parity(self.decoder, self.full, probe, floor)
        measured = {FULL: {"batch_noise_floor": floor, "parity_with_plain_forward": parity}}
        for stream in variants:
            measured[stream.name] = {
                "self_patch": gates.self_patch(self.decoder, stream, probe),
                "full_patch": gates.full_patch(self.decoder, self.full, stream, probe),
            }
        return measured

    def _rows(self, token_ids: NDArray[np.int32]) -> Tensor:
        return torch.tensor(token_ids, dtype=torch.long, device=self.device)
