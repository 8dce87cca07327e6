"""Read models out at every layer, and compare their MLP outputs, full precision and quantized."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError, run
from lowbit.files import write_json, write_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import Stream


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument(
        "--methods",
        type=json.loads,
        required=True,
        help='JSON list of {"name", "record" (method.json), "sets_of" (whose D_large and D_ctrl)}',
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--exits", type=Path, required=True, help="Parquet to write: early exit")
    parser.add_argument(
        "--differences", type=Path, required=True, help="Parquet to write: MLP outputs"
    )
    return parser.parse_args()


def main() -> None:
    """Walk models side by side: D_large and D_ctrl for early exit, all documents for the MLPs."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.experiments.trace import mlp_differences
    from lowbit.inputs.tokens import read_tokens

    engine = Engine.open(arguments.model, arguments.settings)
    variants = [engine.quantized(m["name"], Path(m["record"])) for m in arguments.methods]
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check(variants, token_ids))
    sets = pd.read_parquet(arguments.sets)
    by_sets: dict[str, list[Stream]] = {}
    for method, variant in zip(arguments.methods, variants, strict=True):
        by_sets.setdefault(method["sets_of"], []).append(variant)
    exits = [
        read_out(engine, streams, name, sets, np.array(doc_ids), token_ids)
        for name, streams in by_sets.items()
    ]
    write_parquet(arguments.exits, pd.concat(exits, ignore_index=True))
    found = collect(mlp_differences(engine, variants, token_ids), len(doc_ids), "MLP outputs")
    names = {method: {"method": method} for method in found}
    write_parquet(arguments.differences, by_layer(doc_ids, found, names, "mean_squared_difference"))


def read_out(
    engine: "Engine",
    variants: "Sequence[Stream]",
    sets_of: str,
    sets: "pd.DataFrame",
    doc_ids: "np.ndarray",
    token_ids: "np.ndarray",
) -> "pd.DataFrame":
    """Early exit of the full and some quantized models on one method's D_large and D_ctrl.

    Returns:
        model, sets_of, quantity, doc_id, layer, nll.

    Raises:
        InputError: the table of sets has none of this method.
    """
    from lowbit.analysis.tables import membership
    from lowbit.experiments.trace import exit_nll
    from lowbit.names import SETS

    large, control = (membership(sets, sets_of, name, doc_ids) for name in SETS)
    member = large | control
    if not member.any():
        raise InputError(f"the table of sets has no documents of the method {sets_of}")
    batches = exit_nll(engine, [engine.full, *variants], token_ids[member])
    exits = collect(batches, int(member.sum()), f"early exit, documents of {sets_of}")
    names = {key: {"model": key[0], "sets_of": sets_of, "quantity": key[1]} for key in exits}
    return by_layer(doc_ids[member], exits, names, "nll")


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
