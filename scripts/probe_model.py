"""Score a few random tokens with the unquantized model: what other environments must reproduce."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import read_json, write_json


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output", type=Path, required=True, help="JSON to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    import torch

    from lowbit.inputs.checkpoint import directory_of, load_model
    from lowbit.quantization.probe import make_probe

    torch.set_num_threads(arguments.threads)
    model = load_model(directory_of(arguments.model), torch.float32)
    write_json(arguments.output, make_probe(model, read_json(arguments.model)["context_length"]))


if __name__ == "__main__":
    run(main)
