"""Measure scoring on a GPU: tokens a second, and how much of its matrix products' rate is reached.

A random Llama with the sizes of a 7B model is built on the GPU in bfloat16 and scores random
tokens. Needs only Python 3.11, torch, transformers, safetensors and numpy. Floating-point
operations are 2 for each weight of a block's matrices and of the head that a token meets; those of
attention (causal, 2 * hidden * length for a token and block) are stated and not counted.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from bench.shape import Shape

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import Stream

TERA = 1e12
PRODUCT = "matrix product, bfloat16"
PRODUCTS = 20
"""Products in one measurement: long enough to be timed."""
NOISE = 0.001
"""Standard deviation by which the second stream's weights differ: a KL that is not 0."""


@dataclass
class Contender:
    """Something that is timed."""

    name: str
    run: Callable[["np.ndarray"], None]
    flops: float
    """Floating-point operations of a run."""
    stream_tokens: int = 0
    """Tokens of all streams in a run; 0 where there are none."""
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Operations a second, from the median run."""
        return self.flops / median(self.seconds)

    def row(self, reference: float) -> dict[str, object]:
        """What is printed; `reference` operations a second are 100 %."""
        tokens = round(self.stream_tokens / median(self.seconds)) if self.stream_tokens else ""
        return {
            "what": self.name,
            "seconds": f"{median(self.seconds):.4g}",
            "stream-tokens/s": tokens,
            "TFLOP/s": f"{self.rate / TERA:.4g}",
            "% of the matrix product": round(100 * self.rate / reference),
        }


def parse_arguments() -> argparse.Namespace:
    """Define and read the options; the defaults are Llama 2 7B's sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="PyTorch device (default %(default)s)")
    sizes = {
        "hidden": 4096,
        "intermediate": 11008,
        "layers": 32,
        "heads": 32,
        "vocabulary": 32000,
        "n": 64,
        "length": 512,
        "batch-size": 16,
        "rounds": 3,
        "product": 8192,
    }
    meanings = {"n": "documents", "product": "rows and columns of the matrix product"}
    for name, value in sizes.items():
        text = f"{meanings.get(name, '')} (default {value})".strip()
        parser.add_argument(f"--{name}", type=int, default=value, help=text)
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    return parser.parse_args()


def main() -> None:
    """Measure in rounds, write the median of each contender, print."""
    arguments = parse_arguments()
    import torch

    from lowbit import markdown

    device = find_device(arguments.device)
    sizes = (getattr(arguments, name) for name in ("hidden", "intermediate", "layers", "heads"))
    shape = Shape(*sizes, vocabulary=arguments.vocabulary)
    try:
        rows = measure(arguments, shape, device)
    except torch.OutOfMemoryError:
        sys.exit(f"error: {device_name(device)} has too little memory; choose fewer --layers")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{device_name(device)}, PyTorch {torch.__version__}, bfloat16; ", end="")
    print(f"{shape.parameters:.3g} parameters, {arguments.n} x {arguments.length} tokens")
    share = attention_flops(shape, arguments.length) / token_flops(shape)
    print(f"Attention, not counted: {share:.1%} of the operations that are.\n")
    print(markdown.table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))


def find_device(name: str) -> "torch.device":
    """Return the PyTorch device of that name.

    Raises:
        SystemExit: a GPU is asked for and there is none.
    """
    import torch

    if name.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(
            "error: no GPU here (PyTorch sees none), so there is nothing to measure. Run this where"
            " a GPU is; on a CPU a small shape proves the path: --device cpu --hidden 256 "
            "--intermediate 704 --layers 2 --heads 4 --vocabulary 1000 --n 4 --length 128 "
            "--batch-size 2 --product 512"
        )
    return torch.device(name)


def token_flops(shape: Shape) -> int:
    """Floating-point operations of a token's matrix products: one multiplication, one addition."""
    return 2 * (shape.layers * shape.block_matrices + shape.head_parameters)


def attention_flops(shape: Shape, length: int) -> int:
    """Operations of a token's attention, mean over a document: scores and their weighted sum.

    A token attends to half of the document on average, with 2 operations for each of `hidden`
    numbers in each of the two products.
    """
    return shape.layers * 2 * 2 * shape.hidden * length // 2


def measure(
    arguments: argparse.Namespace, shape: Shape, device: "torch.device"
) -> list[dict[str, object]]:
    """Time the matrix product and every contender in turn; a row of the table for each."""
    import numpy as np

    engine = build_engine(shape, device, arguments.batch_size, arguments.length)
    size = (arguments.n, arguments.length)
    rows = np.random.default_rng(0).integers(shape.vocabulary, size=size, dtype=np.int32)
    both, tokens = [engine.full, noisy(engine)], token_flops(shape) * rows.size
    contenders = [
        Contender(
            PRODUCT, matrix_products(arguments.product, device), PRODUCTS * 2 * arguments.product**3
        ),
        Contender("plain forward, no loss", partial(plain_forward, engine), tokens, rows.size),
        Contender("walk, NLL", partial(score, engine, both[:1]), tokens, rows.size),
        Contender(
            "walk, NLL + KL, 1 + 1 streams", partial(score, engine, both), 2 * tokens, 2 * rows.size
        ),
    ]
    for contender in contenders:
        contender.run(rows[: arguments.batch_size])
    for _ in range(arguments.rounds):
        for contender in contenders:
            contender.seconds.append(timed(partial(contender.run, rows), device))
    return [contender.row(contenders[0].rate) for contender in contenders]


def build_engine(shape: Shape, device: "torch.device", batch_size: int, length: int) -> "Engine":
    """Build the model in bfloat16 where it is used; random weights, the same each time."""
    import torch
    from transformers import AutoModelForCausalLM

    from lowbit.engine.decoder import Decoder
    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import Stream, own_parameters
    from lowbit.names import FULL

    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(shape.config(length), dtype=torch.bfloat16)
    full = Stream(FULL, own_parameters)
    return Engine(Decoder(model), full, torch.bfloat16, device, batch_size, resident=True)


def noisy(engine: "Engine") -> "Stream":
    """Return a second weight set of the same size, near the first."""
    import torch

    from lowbit.engine.walk import Stream

    with torch.inference_mode():
        blocks = [
            {name: p + NOISE * torch.randn_like(p) for name, p in block.named_parameters()}
            for block in engine.decoder.blocks
        ]
    return Stream("noisy", blocks.__getitem__)


def matrix_products(size: int, device: "torch.device") -> Callable[["np.ndarray"], None]:
    """Return `PRODUCTS` bfloat16 products of random matrices `[size, size]`; rows are ignored."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    result = torch.empty_like(left)

    def run(rows: "np.ndarray") -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=result)

    return run


def plain_forward(engine: "Engine", rows: "np.ndarray") -> None:
    """The Hugging Face forward with its head."""
    import torch

    with torch.inference_mode():
        for (token_ids,) in engine.shards(rows):
            engine.decoder.model(token_ids, use_cache=False)


def score(engine: "Engine", streams: Sequence["Stream"], rows: "np.ndarray") -> None:
    """NLL of one stream; of several also KL and flips against the first."""
    from lowbit.engine.losses import token_losses
    from lowbit.engine.walk import walk

    reference = streams[0].name if len(streams) > 1 else None
    for shard in engine.shards(rows):
        for token_ids, normed in zip(shard, walk(engine.decoder, streams, shard), strict=True):
            token_losses(engine.decoder.logits, normed, token_ids, reference)


def timed(run: Callable[[], None], device: "torch.device") -> float:
    """Seconds until the device has done all that `run` asks of it."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def device_name(device: "torch.device") -> str:
    """Name the GPU, or say that it is none."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"no GPU ({device})"


if __name__ == "__main__":
    main()
