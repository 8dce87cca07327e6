"""Read models out at every layer, and compare their MLP outputs, full precision and quantized."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lowbit.errors import run
from lowbit.files import write_json, write_parquet


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument(
        "--methods", type=json.loads, required=True, help="JSON: {method: its method.json}"
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--exits", type=Path, required=True, help="Parquet to write: early exit")
    parser.add_argument(
        "--differences", type=Path, required=True, help="Parquet to write: MLP outputs"
    )
    return parser.parse_args()


def main() -> None:
    """Walk models side by side: a method's sets for its early exit, all documents for the MLPs."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.experiments.trace import exit_nll, mlp_differences
    from lowbit.inputs.tokens import read_tokens

    engine = Engine.open(arguments.model, arguments.settings)
    variants = [engine.quantized(name, Path(path)) for name, path in arguments.methods.items()]
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check(variants, token_ids))
    sets = pd.read_parquet(arguments.sets)
    parts = []
    for variant in variants:
        mine = (sets["method"] == variant.name) & sets["set"].isin(["large", "control"])
        member = np.isin(doc_ids, sets.loc[mine, "doc_id"])
        batches = exit_nll(engine, [engine.full, variant], token_ids[member])
        exits = collect(batches, sum(member), f"early exit, {variant.name}")
        names = {key: {"model": key[0], "quantity": key[1]} for key in exits}
        parts.append(by_layer(np.array(doc_ids)[member], exits, names, "nll"))
    # A document in the sets of several methods was read out of the full model each time.
    exits = pd.concat(parts).drop_duplicates(["model", "quantity", "doc_id", "layer"])
    write_parquet(arguments.exits, exits)
    found = collect(mlp_differences(engine, variants, token_ids), len(doc_ids), "MLP outputs")
    names = {method: {"method": method} for method in found}
    write_parquet(arguments.differences, by_layer(doc_ids, found, names, "mean_squared_difference"))


def collect(batches: Iterable[dict], documents: int, what: str) -> dict:
    """Join `[batch, layers]` arrays of all batches, with a progress bar."""
    import numpy as np
    from tqdm import tqdm

    parts = []
    with tqdm(total=documents, unit="document", desc=what) as bar:
        for batch in batches:
            parts.append(batch)
            bar.update(len(next(iter(batch.values()))))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def by_layer(doc_ids: Any, arrays: dict, names: dict, value: str) -> Any:
    """One row per document and layer of every `[documents, layers]` array, with its names."""
    import numpy as np
    import pandas as pd

    def rows(key: Any, array: Any) -> pd.DataFrame:
        layers = np.arange(1, array.shape[1] + 1)
        keys = {"doc_id": np.repeat(doc_ids, len(layers)), "layer": np.tile(layers, len(array))}
        return pd.DataFrame({**names[key], **keys, value: array.ravel()})

    return pd.concat([rows(key, array) for key, array in arrays.items()], ignore_index=True)


if __name__ == "__main__":
    run(main)
