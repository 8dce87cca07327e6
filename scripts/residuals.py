"""Measure the full-precision model's residual magnitudes on every document and layer.

An interrupted walk goes on where it was (`lowbit.unfinished`).
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.errors import run
from lowbit.files import write_json, write_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from lowbit.engine.engine import Engine
    from lowbit.unfinished import Parts


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", default="", help="digest of the job's code")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--output", type=Path, required=True, help="Parquet to write: documents")
    parser.add_argument("--dimensions", type=Path, required=True, help="the same: dimensions of r")
    return parser.parse_args()


def main() -> None:
    """Walk the full-precision model; write means by document, and by dimension."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.experiments.kept_scores import made_from
    from lowbit.experiments.residuals import norm_weights
    from lowbit.inputs.tokens import read_tokens
    from lowbit.unfinished import Parts

    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        mode=arguments.settings["mode"],  # shards are added up one by one
    )
    parts = Parts.open(arguments.output.with_suffix(".unfinished"), sources)
    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check([], token_ids))
    measures, magnitude = walk_documents(engine, token_ids, parts)
    magnitude /= len(doc_ids)
    layers = np.arange(1, len(engine.decoder) + 1)
    columns = {name: of_layers.ravel() for name, of_layers in measures.items()}
    keys = {"doc_id": np.repeat(doc_ids, len(layers)), "layer": np.tile(layers, len(doc_ids))}
    write_parquet(arguments.output, pd.DataFrame(keys | columns))
    gamma = norm_weights(engine)
    columns = {
        "layer": np.repeat(layers, magnitude.shape[1]),
        "dimension": np.tile(np.arange(magnitude.shape[1]), len(layers)),
        "magnitude": magnitude.ravel(),
        "gamma": np.full(magnitude.size, np.nan) if gamma is None else gamma.ravel(),
    }
    write_parquet(arguments.dimensions, pd.DataFrame(columns))
    parts.remove()


def walk_documents(
    engine: "Engine", token_ids: "np.ndarray", parts: "Parts"
) -> tuple[dict[str, "np.ndarray"], "np.ndarray"]:
    """Measure all documents, with a progress bar.

    Returns:
        Per measure `[documents, layers]`, and the sum over documents of |r|, `[layers, hidden]`.
    """
    from types import SimpleNamespace

    import numpy as np
    import torch
    from tqdm import tqdm

    from lowbit.experiments.residuals import measure_residuals
    from lowbit.names import FULL

    shape = len(engine.decoder), engine.decoder.model.config.hidden_size
    magnitude = torch.zeros(shape, dtype=torch.float64)

    def walk(first: int) -> "Iterator[dict[str, SimpleNamespace]]":
        for shard in measure_residuals(engine, token_ids, first):
            magnitude.add_(torch.from_numpy(shard.magnitude))
            yield {FULL: SimpleNamespace(**shard.documents)}

    shards = []
    with tqdm(total=len(token_ids), unit="document") as bar:
        for shard in parts.walk(SimpleNamespace, [FULL], walk, {"magnitude": magnitude}):
            shards.append(vars(shard[FULL]))
            bar.update(len(shards[-1]["z"]))
    names = shards[0]
    measures = {name: np.concatenate([shard[name] for shard in shards]) for name in names}
    return measures, magnitude.numpy()


if __name__ == "__main__":
    run(main)
