"""Quantize a model's linear layers with one quantizer; write codes and what they cost."""

import argparse
import inspect
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from lowbit.errors import InputError, run
from lowbit.files import read_json, sha256, write_json
from lowbit.settings import parse_json


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--probe", type=Path, required=True, help="probe.json of probe_model.py")
    parser.add_argument("--calibration", type=Path, required=True, help="its tokens.parquet")
    parser.add_argument("--module", required=True, help="such as lowbit.quantizers.rtn")
    parser.add_argument(
        "--method",
        required=True,
        help='JSON: {"quantizer", "backend", "settings": {"bits": 3, "group_size": 64, ...}}',
    )
    parser.add_argument("--name", default="<name>", help="the method's name, for messages")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--code", default="", help="digest of the code that quantizes")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--record", type=Path, required=True, help="JSON to write")
    return parser.parse_args()


def main() -> None:
    """Check the model in this environment, quantize it, measure, write."""
    arguments = parse_arguments()
    method = parse_json(arguments.method, "--method")
    implementation = load_implementation(arguments.module)
    settings = method["settings"]
    check_settings(implementation, settings, arguments.name)
    import torch

    from lowbit.engine.loading import pick_device
    from lowbit.inputs.checkpoint import directory_of, load_model
    from lowbit.inputs.tokens import read_tokens
    from lowbit.quantization import quantized
    from lowbit.quantization.block_store import BlockStore
    from lowbit.quantization.measure import measure_layers
    from lowbit.quantization.probe import check_probe
    from lowbit.quantization.quantize_model import check_blocks, quantize_model

    torch.set_num_threads(arguments.threads)
    device = pick_device(arguments.device)
    model = load_model(directory_of(arguments.model), torch.float32)
    check_probe(model, read_json(arguments.probe))
    axis = settings.get("axis", 1)
    kept = check_blocks(model, settings["group_size"], axis, arguments.name)
    token_ids = torch.tensor(read_tokens(arguments.calibration)[1], dtype=torch.long)
    libraries = versions(implementation.LIBRARIES)
    sources = made_from(arguments, libraries, device.type)
    store = BlockStore(arguments.weights.parent / "blocks", sources)
    layers, replaced = quantize_model(
        model, token_ids, implementation, settings, store, arguments.seed, device
    )
    entries = measure_layers(model, token_ids, layers, device)
    quantized.write_quantized(arguments.weights, layers, replaced)
    write_json(
        arguments.record,
        {
            **method,
            "versions": libraries,
            "seed": arguments.seed,
            "calibration": {
                "sha256": sha256(arguments.calibration),
                "n": token_ids.shape[0],
                "length": token_ids.shape[1],
            },
            "compute_dtype": quantized.COMPUTE_DTYPE,
            "bits_per_weight": quantized.bits_per_weight(layers),
            "weights_sha256": sha256(arguments.weights),
            "kept_in_full_precision": kept,
            "changed": sorted(replaced),
            "layers": entries,
        },
    )
    store.remove()


def load_implementation(name: str) -> ModuleType:
    """Import a quantizer and the library behind it.

    Raises:
        InputError: a library is missing from this environment.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name} needs the package {error.name}, which this environment does not have; run it "
            "through the workflow (make study), which makes the right one"
        ) from error


def check_settings(implementation: ModuleType, settings: dict[str, Any], method: str) -> None:
    """Raise `InputError` for a setting that the quantizer does not take, or one that is missing."""
    function = getattr(implementation, "quantize_block", None) or implementation.quantize
    try:
        inspect.signature(function).bind(None, **settings)
    except TypeError as error:
        raise InputError(f"methods.{method}: {implementation.__name__}: {error}") from error


def made_from(
    arguments: argparse.Namespace, libraries: dict[str, str], device: str
) -> dict[str, Any]:
    """All that finished blocks depend on."""
    return {
        "model": read_json(arguments.model)["files"],
        "calibration": sha256(arguments.calibration),
        "method": arguments.method,
        "versions": libraries,
        "seed, threads or device": [arguments.seed, arguments.threads, device],
        "code": arguments.code,
    }


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Versions of what made the weights, without the hardware that a torch build is for."""
    names = dict.fromkeys([*libraries, "torch", "transformers"])
    return {name: version(name).partition("+")[0] for name in names}


if __name__ == "__main__":
    run(main)
