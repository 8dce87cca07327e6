"""Read models out at every layer, and compare their MLP outputs, full precision and quantized.

An interrupted walk goes on where it was (`lowbit.unfinished`).
"""

import argparse
import json
from functools import partial
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
    from lowbit.unfinished import Make, Parts


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    parser.add_argument("--code", default="", help="digest of the job's code")
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
    from lowbit.experiments.kept_scores import made_from, weights_hash
    from lowbit.experiments.trace import Differences, mlp_differences
    from lowbit.inputs.tokens import read_tokens
    from lowbit.unfinished import Parts

    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        sets=arguments.sets,
        methods=[{**each, "record": weights_hash(each["record"])} for each in arguments.methods],
    )
    parts = Parts.open(arguments.exits.with_suffix(".unfinished"), sources)
    engine = Engine.open(arguments.model, arguments.settings)
    variants = [engine.quantized(m["name"], Path(m["record"])) for m in arguments.methods]
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check(variants, token_ids))
    sets = pd.read_parquet(arguments.sets)
    by_sets: dict[str, list[Stream]] = {}
    for method, variant in zip(arguments.methods, variants, strict=True):
        by_sets.setdefault(method["sets_of"], []).append(variant)
    exits = [
        read_out(engine, streams, name, sets, np.array(doc_ids), token_ids, parts.of(name))
        for name, streams in by_sets.items()
    ]
    write_parquet(arguments.exits, pd.concat(exits, ignore_index=True))
    walk = partial(mlp_differences, engine, variants, token_ids)
    # Beside the folders of `sets_of`, which are names of methods.
    kept = parts.of("MLP outputs")
    found = collect(walk, Differences, len(doc_ids), "MLP outputs", kept)
    names = {key: {"method": key[0]} for key in found}
    write_parquet(arguments.differences, by_layer(doc_ids, found, names, "mean_squared_difference"))
    parts.remove()


def read_out(
    engine: "Engine",
    variants: "Sequence[Stream]",
    sets_of: str,
    sets: "pd.DataFrame",
    doc_ids: "np.ndarray",
    token_ids: "np.ndarray",
    parts: "Parts",
) -> "pd.DataFrame":
    """Early exit of the full and some quantized models on one method's D_large and D_ctrl.

    Returns:
        model, sets_of, quantity, doc_id, layer, nll.

    Raises:
        InputError: the table of sets has none of this method.
    """
    from lowbit.analysis.tables import membership
    from lowbit.experiments.trace import Exits, exit_nll
    from lowbit.names import SETS

    large, control = (membership(sets, sets_of, name, doc_ids) for name in SETS)
    member = large | control
    if not member.any():
        raise InputError(f"the table of sets has no documents of the method {sets_of}")
    walk = partial(exit_nll, engine, [engine.full, *variants], token_ids[member])
    what = f"early exit, documents of {sets_of}"
    exits = collect(walk, Exits, int(member.sum()), what, parts)
    names = {key: {"model": key[0], "sets_of": sets_of, "quantity": key[1]} for key in exits}
    return by_layer(doc_ids[member], exits, names, "nll")


def collect(
    walk: "Make", kind: type, documents: int, what: str, parts: "Parts"
) -> dict[tuple[str, str], "np.ndarray"]:
    """Walk all documents, with a progress bar; join the arrays `[documents, layers]` of all shards.

    Args:
        kind: what holds a stream's arrays.

    Returns:
        By stream and the array's name.
    """
    import numpy as np
    from tqdm import tqdm

    shards: dict[tuple[str, str], list[np.ndarray]] = {}
    with tqdm(total=documents, unit="document", desc=what) as bar:
        for shard in parts.walk(kind, (), walk):
            for stream, columns in shard.items():
                present = {k: array for k, array in vars(columns).items() if array is not None}
                for name, array in present.items():
                    shards.setdefault((stream, name), []).append(array)
            bar.update(len(array))
    return {key: np.concatenate(arrays) for key, arrays in shards.items()}


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
