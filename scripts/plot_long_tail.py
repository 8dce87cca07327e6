"""Draw the errors against the full-precision model's NLL."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="long_tail.csv")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--figure", **files, help="output: documents and means by bucket")
    return parser.parse_args()


def main() -> None:
    """Read the tables, write one figure."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.figures import plotting
    from lowbit.figures.long_tail import error_by_nll
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    table, errors = pd.read_csv(arguments.table), pd.read_parquet(arguments.errors)
    require_methods(errors, methods)
    plotting.start()
    plotting.save(error_by_nll(table, errors, methods), arguments.figure)


if __name__ == "__main__":
    run(main)
