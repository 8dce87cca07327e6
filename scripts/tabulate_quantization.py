"""Put what every method's quantization cost into one table."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="method.json files")
    parser.add_argument("--names", required=True, help="JSON: their methods' names, in order")
    parser.add_argument("--csv", type=Path, required=True, help="table to write")
    parser.add_argument("--markdown", type=Path, required=True, help="page to write")
    return parser.parse_args()


def main() -> None:
    """Read the records, write table and page."""
    arguments = parse_arguments()
    from lowbit.analysis.quantization import quality_markdown, quality_table
    from lowbit.files import read_json, write_csv, write_text
    from lowbit.settings import parse_json

    names = parse_json(arguments.names, "--names")
    records = {name: read_json(path) for name, path in zip(names, arguments.records, strict=True)}
    quality = quality_table(records)
    write_csv(arguments.csv, quality)
    write_text(arguments.markdown, quality_markdown(arguments.model, quality))


if __name__ == "__main__":
    run(main)
