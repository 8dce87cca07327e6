"""Fetch a published quantized checkpoint from the hub, and record what it is."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import sha256, write_json


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="methods.<name>.quantized of the config")
    parser.add_argument("--output", type=Path, required=True, help="JSON to write")
    return parser.parse_args()


def main() -> None:
    """Download what read_checkpoint.py reads, which may run where there is no network."""
    arguments = parse_arguments()
    from lowbit.inputs.models import pinned
    from lowbit.quantization.published.description import checkpoint_files, locate_checkpoint

    directory = locate_checkpoint(arguments.source)
    files = {
        name: {"sha256": sha256(directory / name), "bytes": (directory / name).stat().st_size}
        for name in checkpoint_files(directory)
    }
    write_json(arguments.output, {"source": pinned(arguments.source), "files": files})


if __name__ == "__main__":
    run(main)
