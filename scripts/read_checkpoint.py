"""Read a published quantized checkpoint of a model; write its codes as quantize.py would."""

import argparse
from pathlib import Path
from typing import Any

from lowbit.errors import run
from lowbit.files import read_json, sha256, write_json

NOT_COMPARED = {"weight_error": None, "output_error": None}
"""In place of a layer's errors, where its weights are on scales that nobody knows."""


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--probe", type=Path, required=True, help="probe.json of probe_model.py")
    parser.add_argument("--calibration", type=Path, required=True, help="its tokens.parquet")
    parser.add_argument("--source", required=True, help="methods.<name>.quantized of the config")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--record", type=Path, required=True, help="JSON to write")
    return parser.parse_args()


def main() -> None:
    """Check the model, read the checkpoint, measure, write."""
    arguments = parse_arguments()
    import torch

    from lowbit.engine.loading import pick_device
    from lowbit.inputs.checkpoint import directory_of, load_model
    from lowbit.inputs.models import pinned
    from lowbit.inputs.tokens import read_tokens
    from lowbit.quantization import quantized
    from lowbit.quantization.probe import check_probe
    from lowbit.quantization.published.description import (
        checkpoint_files,
        describe_checkpoint,
        locate_checkpoint,
    )
    from lowbit.quantization.published.reader import read_published

    torch.set_num_threads(arguments.threads)
    device = pick_device(arguments.device)
    directory = locate_checkpoint(arguments.source)
    described = describe_checkpoint(directory)
    model = load_model(directory_of(arguments.model), torch.float32)
    check_probe(model, read_json(arguments.probe))
    published = read_published(directory, model)
    token_ids = torch.tensor(read_tokens(arguments.calibration)[1], dtype=torch.long)
    entries = measure(model, token_ids, published.layers, device)
    quantized.write_quantized(arguments.weights, published.layers, published.replaced)
    record = {
        "quantizer": described["quantizer"],
        "backend": "published",
        "settings": {key: described[key] for key in ("bits", "group_size")},
        "checkpoint": pinned(arguments.source),
        "source": {name: sha256(directory / name) for name in checkpoint_files(directory)},
        "versions": published.versions,
        "seed": None,
        "calibration": {
            "sha256": sha256(arguments.calibration),
            "n": token_ids.shape[0],
            "length": token_ids.shape[1],
        },
        "compute_dtype": quantized.COMPUTE_DTYPE,
        "bits_per_weight": quantized.bits_per_weight(published.layers),
        "weights_sha256": sha256(arguments.weights),
        "kept_in_full_precision": published.kept,
        "changed": sorted(published.replaced),
        "not_applied": published.not_applied,
        "layers": entries,
    }
    if quantized.scales_unknown(record):
        record["layers"] = {name: entry | NOT_COMPARED for name, entry in entries.items()}
    write_json(arguments.record, record)


def measure(model: Any, token_ids: Any, layers: dict[str, Any], device: Any) -> dict[str, Any]:
    """Errors of the quantized layers beside RTN's, each expert's linear layer by itself."""
    from lowbit.quantization.blocks import linears_of
    from lowbit.quantization.experts import separate_experts
    from lowbit.quantization.measure import measure_layers
    from lowbit.quantizers import rtn

    separate_experts(model)
    # Layers in full precision have no errors; a stand-in is measured for them and left out.
    kept = {
        name: rtn.quantize(linear.weight.detach(), bits=8, group_size="row")
        for name, linear in linears_of(model).items()
        if name not in layers
    }
    entries = measure_layers(model, token_ids, {**kept, **layers}, device)
    return {name: entry for name, entry in entries.items() if name in layers}


if __name__ == "__main__":
    run(main)
