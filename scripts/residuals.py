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
    parser.add_argument("--output", type=Path, required=True, help="Parquet to write: documents")
    parser.add_argument("--dimensions", type=Path, required=True, help="the same: dimensions of r")
    return parser.parse_args()


def main() -> None:
    """Walk the full-precision model; write means by document, and by dimension."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from lowbit.engine.engine import Engine
    from lowbit.experiments.residuals import measure_residuals, norm_weights
    from lowbit.inputs.tokens import read_tokens

    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check([], token_ids))
    batches = []
    with tqdm(total=len(doc_ids), unit="document") as bar:
        for batch in measure_residuals(engine, token_ids):
            batches.append(batch)
            bar.update(len(batch.documents["z"]))
    layers = np.arange(1, len(engine.decoder) + 1)
    columns = {
        name: np.concatenate([batch.documents[name] for batch in batches]).ravel()
        for name in batches[0].documents
    }
    keys = {"doc_id": np.repeat(doc_ids, len(layers)), "layer": np.tile(layers, len(doc_ids))}
    write_parquet(arguments.output, pd.DataFrame(keys | columns))
    magnitude = sum(batch.magnitude for batch in batches) / len(doc_ids)
    gamma = norm_weights(engine)
    columns = {
        "layer": np.repeat(layers, magnitude.shape[1]),
        "dimension": np.tile(np.arange(magnitude.shape[1]), len(layers)),
        "magnitude": magnitude.ravel(),
        "gamma": np.full(magnitude.size, np.nan) if gamma is None else gamma.ravel(),
    }
    write_parquet(arguments.dimensions, pd.DataFrame(columns))


if __name__ == "__main__":
    run(main)
