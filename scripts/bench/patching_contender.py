"""Patch one model's activations with another's in one of several ways; print what it took.

Prints one JSON line: seconds (loading and one warm-up batch left out) and the peak memory of the
process. The per-token NLLs are written, by which the driver sees that all did the same work.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from lowbit.experiments.conditions import PATCH, SINGLE, SUFFIX, Condition

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

MODULES = {"mlp_down": "mlp.down_proj", "attn_out": "self_attn.o_proj"}
"""Roles that are patched, and the module of a Llama block whose output each one is."""

Run = Callable[["np.ndarray"], "np.ndarray | None"]
"""From token ids `[documents, length]` to per-token NLL `[2 + K, documents, length - 1]`: donor,
target, and the target under each condition. None where no loss is computed."""


@dataclass
class Pair:
    """Two models that differ in their blocks alone, and what is patched from donor into target."""

    donor: "nn.Module"
    target: "nn.Module"
    conditions: Sequence[Condition]
    batch_size: int


def each_block(blocks: int) -> list[Condition]:
    """The MLP of each block alone and of the upper half, and attention of the upper half."""
    end, upper = blocks - 1, blocks // 2
    single = [Condition(PATCH, "mlp_down", SINGLE, index, index) for index in range(blocks)]
    return single + [Condition(PATCH, role, SUFFIX, upper, end) for role in MODULES]


def upper_half(blocks: int) -> list[Condition]:
    """As many conditions that all start in the upper half: the walk shares what is below it."""
    end = blocks - 1
    ranges = [(index, index) for index in range(blocks // 2, blocks)] + [(blocks // 2, end)]
    return [Condition(PATCH, role, SINGLE, *blocks) for role in MODULES for blocks in ranges]


def from_first_block(blocks: int) -> list[Condition]:
    """As many conditions that all start in the first block: the walk has nothing to share."""
    ranges = [(0, index) for index in range(blocks - blocks // 2)] + [(0, blocks - 1)]
    return [Condition(PATCH, role, SINGLE, *blocks) for role in MODULES for blocks in ranges]


CONDITIONS = {f.__name__: f for f in (each_block, upper_half, from_first_block)}


def bare_forwards(pair: Pair) -> Run:
    """As many Hugging Face forwards with their head as the others need, and no loss."""
    from torch import inference_mode

    models = [pair.donor, *[pair.target] * (1 + len(pair.conditions))]

    def run(rows: "np.ndarray") -> None:
        with inference_mode():
            for token_ids in batches(rows, pair.batch_size):
                for model in models:
                    model(token_ids)

    return run


def walk(pair: Pair) -> Run:
    """This project: every condition a stream of one walk, activations handed over in each block."""
    import numpy as np
    import torch

    from lowbit.engine.decoder import Decoder
    from lowbit.engine.edits import Edited, Patch, edited_nll
    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import Stream, own_parameters
    from lowbit.names import FULL

    cpu, full = torch.device("cpu"), Stream(FULL, own_parameters)
    engine = Engine(Decoder(pair.donor), full, torch.float32, cpu, pair.batch_size, resident=True)
    blocks = [dict(block.named_parameters()) for block in Decoder(pair.target).blocks]
    streams = [full, Stream("target", blocks.__getitem__)]
    edits = {str(c): Edited("target", Patch(c.role, c.blocks)) for c in pair.conditions}

    def run(rows: "np.ndarray") -> "np.ndarray":
        parts = edited_nll(engine, streams, edits, rows, donor=FULL)
        return np.concatenate([np.stack(list(part.values())) for part in parts], axis=1)

    return run


def plain_hooks(pair: Pair) -> Run:
    """PyTorch hooks on the Hugging Face models: the donor's activations kept, then given."""

    def of_batch(token_ids: "Tensor") -> list["Tensor"]:
        kept: dict[tuple[str, int], Tensor] = {}

        def keep(place: tuple[str, int]) -> Callable[..., None]:
            return lambda module, args, output: kept.__setitem__(place, output)

        def give(place: tuple[str, int]) -> Callable[..., "Tensor"]:
            return lambda module, args, output: kept[place]

        with hooked(pair.donor, {place: keep(place) for place in places(pair.conditions)}):
            found = [nll(pair.donor(token_ids).logits, token_ids)]
        for condition in [None, *pair.conditions]:
            patched = places([condition]) if condition else []
            with hooked(pair.target, {place: give(place) for place in patched}):
                found.append(nll(pair.target(token_ids).logits, token_ids))
        return found

    return over_batches(of_batch, pair.batch_size)


def nnsight(pair: Pair) -> Run:
    """nnsight: one trace of the donor whose activations are saved, one for each condition."""
    from nnsight import NNsight, save

    donor, target = NNsight(pair.donor), NNsight(pair.target)
    kept_places = places(pair.conditions)

    def of_batch(token_ids: "Tensor") -> list["Tensor"]:
        with donor.trace(input_ids=token_ids):
            kept = save({})
            for role, index in kept_places:
                kept[role, index] = module_of(donor, role, index).output
            logits = save(donor.output.logits)
        found = [nll(logits, token_ids)]
        for condition in [None, *pair.conditions]:
            patched = places([condition]) if condition else []
            with target.trace(input_ids=token_ids):
                for role, index in patched:
                    module_of(target, role, index).output = kept[role, index]
                logits = save(target.output.logits)
            found.append(nll(logits, token_ids))
        return found

    return over_batches(of_batch, pair.batch_size)


CONTENDERS: dict[str, Callable[[Pair], Run]] = {
    f.__name__: f for f in (bare_forwards, walk, plain_hooks, nnsight)
}


def places(conditions: Sequence[Condition]) -> list[tuple[str, int]]:
    """Role and block of all that conditions patch, in the order in which a forward reaches them."""
    found = {(c.role, index) for c in conditions for index in c.blocks}
    return sorted(found, key=lambda place: (place[1], place[0]))


def module_of(model: Any, role: str, index: int) -> Any:
    """Find a Llama's module, in the model itself or in what a library wraps around it."""
    found = model.model.layers[index]
    for name in MODULES[role].split("."):
        found = getattr(found, name)
    return found


@contextmanager
def hooked(model: "nn.Module", hooks: dict[tuple[str, int], Callable]) -> Iterator[None]:
    """Attach forward hooks to modules for a while."""
    handles = [module_of(model, *at).register_forward_hook(hook) for at, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def batches(rows: "np.ndarray", size: int) -> Sequence["Tensor"]:
    """Cut token ids `[documents, length]` into batches."""
    from torch import from_numpy

    return from_numpy(rows).long().split(size)


def over_batches(of_batch: Callable[["Tensor"], list["Tensor"]], size: int) -> Run:
    """Make a run of what gives the NLLs `[batch, length - 1]` of one batch."""
    import torch

    def run(rows: "np.ndarray") -> "np.ndarray":
        with torch.inference_mode():
            parts = [torch.stack(of_batch(part)) for part in batches(rows, size)]
        return torch.cat(parts, 1).numpy()

    return run


def nll(logits: "Tensor", token_ids: "Tensor") -> "Tensor":
    """Per-token NLL in nats, `[batch, length - 1]`, from logits `[batch, length, vocabulary]`."""
    from torch.nn.functional import cross_entropy, pad

    targets = pad(token_ids[:, 1:], (0, 1), value=-100)  # as transformers does: no copy of logits
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(token_ids.shape)[:, :-1]


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contender", choices=CONTENDERS, required=True)
    parser.add_argument("--conditions", choices=CONDITIONS, required=True, help="what is patched")
    parser.add_argument("--donor", type=Path, required=True, help="Hugging Face directory, Llama")
    parser.add_argument("--target", type=Path, required=True, help="another of the same shape")
    parser.add_argument(
        "--tokens", type=Path, required=True, help=".npy, int32 [documents, length]"
    )
    parser.add_argument("--batch-size", type=int, required=True, help="documents")
    parser.add_argument("--threads", type=int, required=True, help="CPU threads")
    parser.add_argument("--nll", type=Path, required=True, help=".npy to write: per-token NLL")
    return parser.parse_args()


def main() -> None:
    """Load, warm up, measure."""
    arguments = parse_arguments()
    import numpy as np
    import torch

    from lowbit.inputs.checkpoint import load_model

    torch.set_num_threads(arguments.threads)
    donor = load_model(arguments.donor, torch.float32)
    target = load_model(arguments.target, torch.float32)
    conditions = CONDITIONS[arguments.conditions](donor.config.num_hidden_layers)
    run = CONTENDERS[arguments.contender](Pair(donor, target, conditions, arguments.batch_size))
    rows = np.load(arguments.tokens)
    run(rows[: arguments.batch_size])
    start = time.perf_counter()
    found = run(rows)
    seconds = time.perf_counter() - start
    if found is not None:
        np.save(arguments.nll, found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "streams": 2 + len(conditions)}))


if __name__ == "__main__":
    main()
