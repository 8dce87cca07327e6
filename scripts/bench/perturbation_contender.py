"""Score documents under K perturbations in a process of its own; print what it took."""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lowbit.engine.edits import Edit, Edited
from lowbit.engine.engine import Engine
from lowbit.engine.loading import load_decoder
from lowbit.engine.walk import Stream
from lowbit.experiments.edited_documents import document_nll
from lowbit.experiments.perturbation_conditions import ACTIVATIONS, WEIGHTS, Perturbation
from lowbit.experiments.perturbing import PerturbationEdit, Reference
from lowbit.experiments.simulating import SimulationEdit
from lowbit.experiments.simulation_settings import ROW, TOKEN, UNIFORM, Simulation
from lowbit.files import sha256, write_json
from lowbit.names import FULL
from lowbit.quantization.activations import ActivationQuantization, quantize_activation
from lowbit.quantization.blocks import linears_of
from lowbit.quantization.quantized import describe, write_quantized
from lowbit.quantizers import rtn

BARE = "1 + K bare forwards"
SEEDS = 3
"""As in a study: every third perturbation draws the same eps."""


def noises(target: str, engine: Engine, count: int, folder: Path) -> dict[str, Edit]:
    """Gaussian noise of rising intensity, on weights or activations."""
    quantize = partial(
        quantize_activation, settings=ActivationQuantization(bits=8, granularity=TOKEN)
    )
    reference = Reference(engine, write_reference(engine, folder), quantize)
    found = [
        Perturbation(target, intensity=1.0 + number // SEEDS, seed=number % SEEDS)
        for number in range(count)
    ]
    ordered = sorted(found, key=lambda each: each.seed)
    return {str(each): PerturbationEdit(each, engine, reference) for each in ordered}


def eight_bits(engine: Engine, count: int, folder: Path) -> dict[str, Edit]:
    """W8A8: one scale per output row and per token."""
    simulation = Simulation(8, 8, UNIFORM, ROW, TOKEN)
    return {str(number): SimulationEdit(simulation, engine, 64, {}) for number in range(count)}


Edits = Callable[[Engine, int, Path], Mapping[str, Edit]]
CONTENDERS: dict[str, Edits | None] = {
    BARE: None,
    "walk, noise on weights": partial(noises, WEIGHTS),
    "walk, noise on activations": partial(noises, ACTIVATIONS),
    "walk, W8A8": eight_bits,
}


def write_reference(engine: Engine, folder: Path) -> Path:
    """Write the model rounded to 3 bits, as a quantize job does; return its record."""
    layers = {
        f"{engine.decoder.blocks_name}.{name}": rtn.quantize(
            linear.weight.detach(), bits=3, group_size="row"
        )
        for name, linear in linears_of(engine.decoder.blocks).items()
    }
    weights = folder / "weights.safetensors"
    write_quantized(weights, layers, {})
    described = {name: describe(layer) for name, layer in layers.items()}
    record = {"layers": described, "weights_sha256": sha256(weights)}
    write_json(folder / "method.json", record)
    return folder / "method.json"


def bare_forwards(engine: Engine, rows: np.ndarray, count: int) -> None:
    """The Hugging Face forward with its head, 1 + K times."""
    for batch in torch.from_numpy(rows).long().split(engine.batch_size):
        for _ in range(1 + count):
            engine.decoder.model(batch, use_cache=False)


def perturbed(engine: Engine, rows: np.ndarray, edits: Mapping[str, Edit]) -> None:
    """One walk with all edits."""
    pack = {name: Edited(FULL, edit) for name, edit in edits.items()}
    document_nll(engine.by_block(), [engine.full], [pack], rows)


def main() -> None:
    """Warm up on one batch, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", choices=CONTENDERS, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help=".npy [documents, length]")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--perturbations", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cpu, rows = torch.device("cpu"), np.load(arguments.tokens)
    decoder, parameters = load_decoder(arguments.model, "resident", torch.float32, cpu)
    full = Stream(FULL, parameters)
    engine = Engine(decoder, full, torch.float32, cpu, arguments.batch_size, resident=True)
    make = CONTENDERS[arguments.contender]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        if make is None:
            run = partial(bare_forwards, engine, count=arguments.perturbations)
        else:
            edits = make(engine, arguments.perturbations, Path(folder))
            run = partial(perturbed, engine, edits=edits)
        run(rows=rows[: arguments.batch_size])
        start = time.perf_counter()
        run(rows=rows)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


if __name__ == "__main__":
    main()
