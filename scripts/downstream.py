"""Let a model, full or quantized, answer the items of a task through lm-evaluation-harness.

The quantized weights are put into the model as plain weights; the harness gets the model itself.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import run
from lowbit.files import read_json, write_json, write_parquet

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("lm_eval", "datasets", "torch", "transformers")


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--probe", type=Path, required=True, help="probe.json of probe_model.py")
    parser.add_argument("--method", required=True, help="name of the method, or full")
    parser.add_argument("--record", type=Path, help="its method.json; none for full")
    parser.add_argument("--name", required=True, help="name of the task in the config")
    parser.add_argument("--task", required=True, help="task file (.yaml), or mmlu")
    parser.add_argument("--shots", type=int, required=True, help="examples in each prompt")
    parser.add_argument("--limit", type=int, help="items to draw; all without it")
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--seed", type=int, required=True, help="seed of items and examples")
    parser.add_argument("--items", type=Path, required=True, help="Parquet to write: every answer")
    parser.add_argument("--output", type=Path, required=True, help="JSON to write: aggregates")
    return parser.parse_args()


def main() -> None:
    """Check environment, model and harness, then let the model answer."""
    arguments = parse_arguments()
    import torch

    from lowbit.downstream.harness import (
        HeldModel,
        check_loglikelihood,
        check_task,
        evaluate,
        load_task,
    )
    from lowbit.inputs.checkpoint import directory_of, load_model
    from lowbit.inputs.tokenizer import load_tokenizer
    from lowbit.quantization.probe import check_probe

    loaded = load_task(arguments.task, arguments.name)
    check_task(loaded, arguments.shots, arguments.name)
    torch.set_num_threads(arguments.settings["threads"])
    directory, probe = directory_of(arguments.model), read_json(arguments.probe)
    check_probe(load_model(directory, torch.float32), probe)
    model, parity = dequantized_model(arguments, probe["token_ids"])
    described = read_json(arguments.model)
    lm = HeldModel(
        model,
        load_tokenizer(directory),
        described["start_token"],
        described["context_length"],
        arguments.settings["batch_size"],
        arguments.name,
    )
    checks = {"parity_with_engine": parity, "loglikelihood": check_loglikelihood(lm)}
    items, aggregates = evaluate(lm, loaded, arguments.shots, arguments.limit, arguments.seed)
    count = int(items["cut"].sum())
    if count:
        print(
            f"{count} of {len(items)} prompts are longer than the context of {lm.max_length} "
            "tokens; lm-evaluation-harness cut off where they begin (column cut)"
        )
    write_parquet(arguments.items, items)
    write_json(arguments.output, record(arguments, len(items), count, checks, aggregates))


def dequantized_model(
    arguments: argparse.Namespace, token_ids: list[list[int]]
) -> tuple["nn.Module", float]:
    """Load the model and put the method's weights into it.

    Returns:
        The model, and by how much its own forward differs from the engine's walk with the method's
        weights, nats per token.

    Raises:
        GateError: it differs by more than the engine's tolerance.
    """
    import torch

    from lowbit.engine import gates
    from lowbit.engine.engine import Engine
    from lowbit.engine.streams import put_into_model, quantized_stream

    # The harness needs all weights in memory, so `mode` makes no difference.
    engine = Engine.open(arguments.model, arguments.settings | {"mode": "resident"})
    stream, decoder = engine.full, engine.decoder
    if arguments.record is not None:
        stream = quantized_stream(
            arguments.method,
            arguments.record,
            decoder,
            engine.full,
            resident=False,
            dtype=engine.dtype,
            device=engine.device,
        )
        put_into_model(decoder, stream)
    rows = torch.tensor(token_ids, device=engine.device)
    parity = gates.parity(decoder, stream, rows, gates.noise_floor(decoder, stream, rows))
    return decoder.model, parity


def record(
    arguments: argparse.Namespace,
    items: int,
    cut: int,
    checks: dict[str, float],
    aggregates: dict[str, Any],
) -> dict[str, Any]:
    """What was asked and found: the JSON beside the items."""
    from importlib.metadata import version

    return {
        "name": arguments.name,
        "task": Path(arguments.task).stem,
        "method": arguments.method,
        "shots": arguments.shots,
        "limit": arguments.limit,
        "seed": arguments.seed,
        "items": items,
        "cut": cut,
        "checks": checks,
        "lm_eval": aggregates,
        "versions": {name: version(name).partition("+")[0] for name in LIBRARIES},
    }


if __name__ == "__main__":
    run(main)
