"""Run one contender over the benchmark's documents in a process of its own; print what it took.

Prints one JSON line: stream-tokens, seconds (model loading and one warm-up batch left out), peak
memory of the process, and the mean NLL, by which the driver sees that all did the same work.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

Contender = Callable[[Path, np.ndarray, int], tuple[int, float, float | None]]


def plain_forward(directory: Path, rows: np.ndarray, batch: int) -> tuple[int, float, float | None]:
    """The Hugging Face forward with its head and without any loss."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    batches = torch.from_numpy(rows).long().split(batch)
    with torch.inference_mode():
        model(batches[0])
        start = time.perf_counter()
        for token_ids in batches:
            model(token_ids)
    return rows.size, time.perf_counter() - start, None


def walk_nll(directory: Path, rows: np.ndarray, batch: int) -> tuple[int, float, float | None]:
    """This project's walk: one stream, per-token NLL."""
    return _walk(directory, rows, batch, variants=0)


def walk_nll_kl(directory: Path, rows: np.ndarray, batch: int) -> tuple[int, float, float | None]:
    """This project's walk: 1 + 4 streams, per-token NLL, KL and flips against the first."""
    return _walk(directory, rows, batch, variants=4)


def lm_eval_rolling(
    directory: Path, rows: np.ndarray, batch: int
) -> tuple[int, float, float | None]:
    """lm-evaluation-harness: rolling log-likelihood of the same token ids."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    class GivenTokens(HFLM):
        """Takes row numbers for texts: the very same ids are scored, tokenizing costs nothing."""

        def tok_encode(self, string: str, *args: object, **kwargs: object) -> list[int]:
            return rows[int(string), 1:].tolist()

    model = GivenTokens(
        pretrained=str(directory),
        device="cpu",
        dtype="float32",
        batch_size=batch,
        max_length=rows.shape[1] - 1,
        prefix_token_id=int(rows[0, 0]),
    )

    def requests(numbers: range) -> list[Instance]:
        return [Instance("loglikelihood_rolling", {}, (str(n),), n) for n in numbers]

    model.loglikelihood_rolling(requests(range(batch)), disable_tqdm=True)
    start = time.perf_counter()
    sums = model.loglikelihood_rolling(requests(range(len(rows))), disable_tqdm=True)
    seconds = time.perf_counter() - start
    return rows.size, seconds, -float(np.sum(sums)) / (rows.size - len(rows))


CONTENDERS: dict[str, Contender] = {
    "plain forward, no loss": plain_forward,
    "walk, NLL": walk_nll,
    "walk, NLL + KL, 1 + 4 streams": walk_nll_kl,
    "lm-evaluation-harness, rolling": lm_eval_rolling,
}


def _walk(directory: Path, rows: np.ndarray, batch: int, variants: int) -> tuple[int, float, float]:
    from lowbit.engine.engine import Engine
    from lowbit.engine.loading import load_decoder
    from lowbit.engine.losses import token_losses
    from lowbit.engine.walk import Stream, walk
    from lowbit.names import FULL

    cpu = torch.device("cpu")
    decoder, parameters = load_decoder(directory, "resident", torch.float32, cpu)
    engine = Engine(decoder, Stream(FULL, parameters), torch.float32, cpu, batch, resident=True)
    copies = [
        [{k: p.detach().clone() for k, p in b.named_parameters()} for b in decoder.blocks]
        for _ in range(variants)
    ]
    others = [Stream(str(k), blocks.__getitem__) for k, blocks in enumerate(copies)]
    streams = [engine.full, *others]
    reference = FULL if variants else None

    def losses(part: np.ndarray) -> list[torch.Tensor]:
        return [
            token_losses(decoder.logits, normed, token_ids, reference)[FULL].nll
            for shard in engine.shards(part)
            for token_ids, normed in zip(shard, walk(decoder, streams, shard), strict=True)
        ]

    losses(rows[:batch])
    start = time.perf_counter()
    nll = torch.cat(losses(rows))
    return rows.size * len(streams), time.perf_counter() - start, float(nll.double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", choices=CONTENDERS, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--tokens", type=Path, required=True, help=".npy, int32 [documents, length]"
    )
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = CONTENDERS[arguments.contender]
    tokens, seconds, nll = run(arguments.model, np.load(arguments.tokens), arguments.batch_size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens": tokens, "seconds": seconds, "peak_mib": peak, "nll": nll}))


if __name__ == "__main__":
    main()
