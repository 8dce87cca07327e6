"""Find or fetch a model, check every file of it, and record what it is."""

import argparse
import os
from pathlib import Path

from lowbit.errors import run
from lowbit.files import write_json


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


def link_directory(link: Path, directory: Path) -> None:
    """Point `link` at the directory: relative where it was given so, or the project cannot move."""
    link.parent.mkdir(parents=True, exist_ok=True)
    target = directory
    if not directory.is_absolute():  # real paths: results/ may itself be a link to another disk
        target = Path(os.path.relpath(directory.resolve(), link.parent.resolve()))
    partial = link.with_name(f"{link.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target, target_is_directory=True)
    os.replace(partial, link)


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
