"""Measure the full-precision model's residual magnitudes on every document and layer."""

import argparse
import json
from pathlib import Path

from lowbit.errors import run
from lowbit.files import write_json, write_parquet


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--output", type=Path, required=True, help="Parquet to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from lowbit.engine.engine import Engine
    from lowbit.engine.residuals import residual_norms
    from lowbit.inputs.tokens import read_tokens

    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check([], token_ids))
    batches = []
    with tqdm(total=len(doc_ids), unit="document") as bar:
        for norms in residual_norms(engine, token_ids):
            batches.append(norms)
            bar.update(len(next(iter(norms.values()))))
    columns = {q: np.concatenate([norms[q] for norms in batches]) for q in batches[0]}
    layers = np.arange(1, len(engine.decoder) + 1)
    table = pd.DataFrame(
        {"doc_id": np.repeat(doc_ids, len(layers)), "layer": np.tile(layers, len(doc_ids))}
        | {quantity: norms.ravel() for quantity, norms in columns.items()}
    )
    write_parquet(arguments.output, table)


if __name__ == "__main__":
    run(main)
