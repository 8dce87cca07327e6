"""Relate the size of quantization errors to that of the weights they belong to."""

import argparse
import json
from pathlib import Path

from lowbit.errors import run
from lowbit.files import write_csv


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--bits", type=int, nargs="+", required=True, help="of the grids")
    parser.add_argument("--output", type=Path, required=True, help="table to write")
    return parser.parse_args()


def main() -> None:
    """Quantize every projection by the uniform grid and the cube root, and relate the errors."""
    arguments = parse_arguments()
    import pandas as pd
    from tqdm import tqdm

    from lowbit.analysis.error_magnitude import error_magnitude
    from lowbit.engine.engine import Engine
    from lowbit.experiments.rounding import rounded_weights
    from lowbit.experiments.simulation_settings import POWER, UNIFORM

    engine = Engine.open(arguments.model, arguments.settings)
    tables = []
    for found in tqdm(rounded_weights(engine, arguments.bits, [UNIFORM, POWER]), unit="matrix"):
        keys = {"module": found.module, "bits": found.bits, "transform": found.transform}
        tables.append(error_magnitude(found.x, found.quantized).assign(**keys))
    table = pd.concat(tables, ignore_index=True)
    write_csv(arguments.output, table[[*keys, *table.columns.drop([*keys])]])


if __name__ == "__main__":
    run(main)
