"""Quantize a model's linear layers with one quantizer; write codes and what they cost."""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lowbit.errors import run
from lowbit.files import read_json, sha256, write_json
from lowbit.quantizers import QUANTIZERS, complete_settings, load_quantizer
from lowbit.settings import parse_json


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--probe", type=Path, required=True, help="probe.json of probe_model.py")
    parser.add_argument("--quantizer", required=True, choices=sorted(QUANTIZERS))
    parser.add_argument(
        "--settings", required=True, help='JSON: {"bits": 3, "group_size": 64, ...}'
    )
    parser.add_argument("--name", default="<name>", help="the method's name, for messages")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--record", type=Path, required=True, help="JSON to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    settings = parse_json(arguments.settings, "--settings")
    settings = complete_settings(arguments.quantizer, settings, arguments.name)
    import torch

    from lowbit.inputs.checkpoint import directory_of, load_model
    from lowbit.quantization import quantize_model, quantized
    from lowbit.quantization.probe import check_probe

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model = load_model(directory_of(arguments.model), torch.float32)
    probe = read_json(arguments.probe)
    check_probe(model, probe)
    found = quantize_model.find_block_weights(model)
    axis = settings.get("axis", 1)
    quantize_model.check_weights(found.linears, settings["group_size"], axis, arguments.name)
    tokens = torch.tensor(probe["token_ids"])
    inputs = quantize_model.capture_inputs(model, found.linears, tokens)
    quantizer = load_quantizer(arguments.quantizer)
    layers, entries = quantize_model.quantize_layers(
        found.linears, inputs, quantizer.quantize, settings
    )
    quantized.write_quantized(arguments.weights, layers, extra={})
    write_json(
        arguments.record,
        {
            "quantizer": arguments.quantizer,
            "versions": versions(quantizer.LIBRARY),
            "settings": settings,
            "seed": arguments.seed,
            "calibration": None,
            "compute_dtype": quantized.COMPUTE_DTYPE,
            "bits_per_weight": quantized.bits_per_weight(layers),
            "weights_sha256": sha256(arguments.weights),
            "output_error_inputs": "the probe's random tokens",
            "kept_in_full_precision": found.kept,
            "layers": entries,
        },
    )


def versions(library: str) -> dict[str, Any]:
    """Versions of what made the weights, without the hardware that a torch build is for."""
    names = dict.fromkeys([library, "torch", "transformers"])
    return {name: version(name).partition("+")[0] for name in names}


if __name__ == "__main__":
    run(main)
