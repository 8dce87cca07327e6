"""EfficientQAT (arXiv 2407.11062), phase 2: end-to-end training of step sizes (E2E-QP).

Codes and zero points are fixed; the step sizes of all layers are trained together to lower the
language-model loss of the whole quantized model on the calibration text.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from lowbit.engine.decoder import Decoder
from lowbit.engine.sizes import LOGITS_PER_CHUNK
from lowbit.files import atomic
from lowbit.quantization.block_store import BlockStore
from lowbit.quantization.blocks import QuantizedBlock
from lowbit.quantization.quantized import QuantizedLayer, dequantize
from lowbit.quantizers.eqat_training import cosine, require_finite
from lowbit.unfinished import say

LARGEST_GRADIENT = 0.3
"""Norm of the gradient over all step sizes above which it is scaled down."""
MICRO_BATCH = 4
"""Sequences that are run at once; a step adds up as many as it needs."""
SAVE_EVERY = 60
"""Seconds between checkpoints; there is one after each epoch, too."""


def finish(
    decoder: Decoder,
    blocks: Sequence[QuantizedBlock],
    token_ids: Tensor,
    store: BlockStore,
    device: torch.device,
    *,
    end_to_end_epochs: int,
    end_to_end_batch_size: int,
    end_to_end_learning_rate: float,
    **of_blocks: Any,
) -> list[QuantizedBlock]:
    """Return blocks with trained step sizes; at 0 epochs, the blocks as they are.

    The model moves to `device` as a whole, beside it all codes (a byte per weight), step sizes with
    gradient and AdamW's two moments, a hidden state per block, and the float32 weights and
    activations of one block: what lies inside blocks is computed again on the way back. Progress is
    kept in the store, so that an interrupted training goes on where it was.

    Args:
        token_ids: calibration text `[n, length]`.
        of_blocks: the settings of `quantize_block`, which do not matter here.

    Raises:
        InputError: training diverged; names the learning rate.
    """
    if not end_to_end_epochs:
        return list(blocks)
    home = next(decoder.model.parameters()).device
    try:
        decoder.model.to(device)
        model = _QuantizedModel(decoder, blocks, device)
        progress = _Progress(store, model.scales, end_to_end_learning_rate)
        batches = list(token_ids.split(end_to_end_batch_size))
        _train(model, batches, end_to_end_epochs, progress)
        return model.trained()
    finally:
        decoder.model.to(home)


class _QuantizedModel:
    """The quantized model as a function of its step sizes."""

    def __init__(
        self, decoder: Decoder, blocks: Sequence[QuantizedBlock], device: torch.device
    ) -> None:
        self.decoder, self.blocks, self.device = decoder, blocks, device
        self.layers = [{n: _moved(layer, device) for n, layer in b.layers.items()} for b in blocks]
        self.replaced = [{n: t.to(device) for n, t in block.replaced.items()} for block in blocks]
        self.block_scales = [
            {n: nn.Parameter(layer.scales.clone()) for n, layer in layers.items()}
            for layers in self.layers
        ]

    @property
    def scales(self) -> list[nn.Parameter]:
        """All step sizes, in the model's order."""
        return [scales for of_block in self.block_scales for scales in of_block.values()]

    def trained(self) -> list[QuantizedBlock]:
        """The blocks with the step sizes as they are now, on the CPU."""
        return [
            QuantizedBlock(
                {n: replace(block.layers[n], scales=s.detach().cpu()) for n, s in scales.items()},
                block.replaced,
            )
            for block, scales in zip(self.blocks, self.block_scales, strict=True)
        ]

    def loss(self, token_ids: Tensor) -> Tensor:
        """Negative log-likelihood of `[batch, length]` in nats, summed over predicted tokens."""
        token_ids = token_ids.to(self.device)
        with torch.no_grad():
            entered = self.decoder.enter(token_ids)
        states = entered.hidden_states
        for index in range(len(self.decoder)):
            states = _recomputed(self._run_block, index, states, entered.calls[index])
        normed = self.decoder.leave(token_ids, states)[:, :-1].flatten(0, 1)
        targets = token_ids[:, 1:].flatten()
        step = max(1, LOGITS_PER_CHUNK // self.decoder.model.config.vocab_size)
        chunks = zip(normed.split(step), targets.split(step), strict=True)
        return torch.stack([_recomputed(self._chunk_loss, *chunk) for chunk in chunks]).sum()

    def _run_block(self, index: int, states: Tensor, call: tuple[tuple, dict]) -> Tensor:
        scales = self.block_scales[index]
        weights = {
            f"{name}.weight": dequantize(replace(layer, scales=scales[name]))
            for name, layer in self.layers[index].items()
        }
        return self.decoder.run_block(index, states, call, weights | self.replaced[index])

    def _chunk_loss(self, normed: Tensor, targets: Tensor) -> Tensor:
        logits = self.decoder.logits(normed)
        return nn.functional.cross_entropy(logits, targets, reduction="sum")


def _moved(layer: QuantizedLayer, device: torch.device) -> QuantizedLayer:
    return replace(
        layer,
        codes=layer.codes.to(device),
        scales=layer.scales.to(device),
        zeros=layer.zeros.to(device),
    )


def _recomputed(function: Any, *arguments: Any) -> Tensor:
    """Call a function whose intermediate results are not kept for the gradient but made again."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


class _Progress:
    """Step sizes under training, their optimizer and steps done; kept in a file of the store."""

    def __init__(self, store: BlockStore, scales: list[nn.Parameter], rate: float) -> None:
        self.path: Path = store.folder / "end_to_end.pt"
        self.fingerprint, self.scales, self.rate, self.done = store.fingerprint, scales, rate, 0
        self.optimizer = torch.optim.AdamW(scales, lr=rate, weight_decay=0.0)
        self._saved_at = time.monotonic()
        self._resume()

    def save(self, always: bool) -> None:
        """Write the file, unless the last one is recent."""
        if not always and time.monotonic() - self._saved_at < SAVE_EVERY:
            return
        state = {
            "fingerprint": self.fingerprint,
            "done": self.done,
            "scales": [scales.detach().cpu() for scales in self.scales],
            "optimizer": self.optimizer.state_dict(),
        }
        # Into a file of Python's: PyTorch's own would hide a full disk's errno.
        with atomic(self.path) as partial, open(partial, "wb") as file:
            torch.save(state, file)
        self._saved_at = time.monotonic()

    @torch.no_grad()
    def _resume(self) -> None:
        state = self._read()
        if not state:
            return
        if state.get("fingerprint") != self.fingerprint:
            say(f"{self.path} was made from something else: training starts anew")
            return
        self.done = state["done"]
        self.optimizer.load_state_dict(state["optimizer"])
        for scales, saved in zip(self.scales, state["scales"], strict=True):
            scales.copy_(saved)

    def _read(self) -> Mapping[str, Any]:
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return {}
        except Exception as error:  # torch has no one error for a damaged file
            say(f"{self.path} is damaged ({error}): training starts anew")
            return {}


def _train(
    model: _QuantizedModel, batches: Sequence[Tensor], epochs: int, progress: _Progress
) -> None:
    """Take the steps that are left, always in the same order."""
    steps = len(batches) * epochs
    bar = tqdm(total=steps, initial=progress.done, unit="step", desc="end to end", leave=False)
    with bar:
        while progress.done < steps:
            for group in progress.optimizer.param_groups:
                group["lr"] = progress.rate * cosine(progress.done, steps)
            _step(model, batches[progress.done % len(batches)], progress)
            bar.update()
            progress.save(always=progress.done % len(batches) == 0)


def _step(model: _QuantizedModel, token_ids: Tensor, progress: _Progress) -> None:
    """Move the step sizes once, by the mean loss over the tokens of `[batch, length]`."""
    where, named = "the whole model", "end_to_end_learning_rate"
    progress.optimizer.zero_grad()
    for rows in token_ids.split(MICRO_BATCH):
        loss = model.loss(rows) / token_ids[:, 1:].numel()
        require_finite(loss, progress.done, where, named)
        loss.backward(inputs=progress.scales)
    norm = nn.utils.clip_grad_norm_(progress.scales, LARGEST_GRADIENT)
    require_finite(norm, progress.done, where, named)
    progress.optimizer.step()
    progress.done += 1
