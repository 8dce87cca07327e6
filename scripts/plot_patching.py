"""Draw what patching and weights put back restore on D_large and D_ctrl."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="patching.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "metavar": ("PNG", "SVG")}
    parser.add_argument("--roles-figure", **files, required=True, help="output: by activation")
    parser.add_argument(
        "--last-figure", **files, required=True, help="output: last blocks' weights"
    )
    parser.add_argument("--single-figure", **files, help="output: each block alone, if patched")
    parser.add_argument("--suffix-figure", **files, help="output: each and all after it, likewise")
    return parser.parse_args()


def main() -> None:
    """Read the table, write the figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config
    from lowbit.experiments.conditions import SINGLE, SUFFIX
    from lowbit.figures import patching, plotting
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    shares = pd.read_csv(arguments.table)
    plotting.start()
    plotting.save(patching.share_by_role(shares, methods), arguments.roles_figure)
    plotting.save(patching.last_blocks(shares, methods), arguments.last_figure)
    maps = {SINGLE: arguments.single_figure, SUFFIX: arguments.suffix_figure}
    for layers, paths in maps.items():
        if paths:
            plotting.save(patching.share_by_block(shares, methods, layers), paths)


if __name__ == "__main__":
    run(main)
