"""Draw what the documents that break are about."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="topics.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--figure", **files, help="output: shares and errors by topic")
    return parser.parse_args()


def main() -> None:
    """Read the table, write one figure."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config
    from lowbit.figures import plotting
    from lowbit.figures.topics import topics_of_large
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    plotting.start()
    plotting.save(topics_of_large(pd.read_csv(arguments.table), methods), arguments.figure)


if __name__ == "__main__":
    run(main)
