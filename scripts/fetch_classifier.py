"""Find or fetch a classifier of texts, check every file of it, and record what it is."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import link_directory, write_json


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="topics.source of the config")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="classifier.json; `files` beside it links to the classifier",
    )
    return parser.parse_args()


def main() -> None:
    """Check, then link, then record, as `fetch_model.py` does."""
    arguments = parse_arguments()
    from lowbit.inputs.classifier_source import describe_classifier, locate_classifier
    from lowbit.inputs.models import pinned

    directory = locate_classifier(arguments.source)
    record = describe_classifier(pinned(arguments.source), directory)
    link_directory(arguments.output.parent / "files", directory)
    write_json(arguments.output, record)


if __name__ == "__main__":
    run(main)
