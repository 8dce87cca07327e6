"""Find or fetch a model, check every file of it, and record what it is."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import link_directory, write_json


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="models.<name>.source of the config")
    parser.add_argument("--demo", type=Path, required=True, help="directory of the embedded model")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="model.json; `files` beside it links to the model",
    )
    return parser.parse_args()


def main() -> None:
    """Check, then link, then record: a record without a usable model cannot be left behind."""
    arguments = parse_arguments()
    from lowbit.inputs.models import locate_model, pinned, resolve

    directory = locate_model(arguments.source, arguments.demo)
    record = resolve(pinned(arguments.source), directory)
    link_directory(arguments.output.parent / "files", directory)
    write_json(arguments.output, record)


if __name__ == "__main__":
    run(main)
