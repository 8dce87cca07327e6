"""Score documents with the full-precision model and any number of quantized ones in one walk.

A method whose scores are already there, made from the same model, tokens, weights, settings and
code, is not scored again.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from lowbit.errors import run
from lowbit.files import atomic, read_json, sha256, write_json


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument(
        "--methods",
        type=json.loads,
        required=True,
        help='JSON list of {"name", "record" (method.json; null for full), "scores" (Parquet)}',
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", required=True, help="digest of the code that scores")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--output", type=Path, required=True, help="JSON to write: score files")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    methods = {method["name"]: method for method in arguments.methods}
    fingerprints = {name: fingerprint(arguments, method) for name, method in methods.items()}
    pending = [
        name
        for name, method in methods.items()
        if stored(method["scores"], b"fingerprint") != fingerprints[name]
    ]
    if pending:
        score(arguments, methods, pending, fingerprints)
    scores = {name: Path(method["scores"]) for name, method in methods.items()}
    gates = {name: json.loads(stored(path, b"gates")) for name, path in scores.items()}
    write_json(arguments.gates, gates)
    write_json(
        arguments.output,
        {name: {"path": str(path), "sha256": sha256(path)} for name, path in scores.items()},
    )


def fingerprint(arguments: argparse.Namespace, method: dict[str, Any]) -> str:
    """Hash all that a method's scores depend on; `mode` is left out, for it changes no number.

    The device is the one found here: a full model scored on a GPU is none to set beside a method
    scored on a CPU.
    """
    from lowbit.engine.loading import pick_device

    record = method["record"]
    made_from = {
        "model": read_json(arguments.model)["files"],
        "tokens": sha256(arguments.tokens),
        "weights": None if record is None else read_json(record)["weights_sha256"],
        "settings": {k: v for k, v in arguments.settings.items() if k != "mode"}
        | {"device": pick_device(arguments.settings["device"]).type},
        "code": arguments.code,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def stored(path: str | Path, key: bytes) -> str | None:
    """Read one entry of a score file's metadata; None where the file is absent or damaged."""
    import pyarrow.lib
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(path).metadata[key].decode()
    except (FileNotFoundError, pyarrow.lib.ArrowInvalid):
        return None


def score(
    arguments: argparse.Namespace,
    methods: dict[str, dict[str, Any]],
    pending: list[str],
    fingerprints: dict[str, str],
) -> None:
    """Walk the full-precision model and all `pending` methods over the documents; write each."""
    from tqdm import tqdm

    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import FULL
    from lowbit.experiments.scoring import join, score_documents
    from lowbit.inputs.tokens import read_tokens

    engine = Engine.open(arguments.model, arguments.settings)
    variants = [
        engine.quantized(name, Path(methods[name]["record"])) for name in pending if name != FULL
    ]
    doc_ids, token_ids = read_tokens(arguments.tokens)
    gates = engine.check(variants, token_ids)
    parts: dict[str, list] = {name: [] for name in (FULL, *pending)}
    with tqdm(total=len(doc_ids), unit="document", desc=f"1 + {len(variants)} streams") as bar:
        for batch in score_documents(engine, variants, token_ids):
            for name, scores in batch.items():
                parts[name].append(scores)
            bar.update(len(scores.nll))
    for name in pending:
        metadata = {"fingerprint": fingerprints[name], "gates": json.dumps(gates[name])}
        write_scores(methods[name]["scores"], doc_ids, join(parts[name]), metadata)


def write_scores(path: str, doc_ids: list[str], scores: Any, metadata: dict[str, str]) -> None:
    """Write one method's scores as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet

    def column(values: Any) -> pa.Array:
        if values.ndim == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    present = {name: values for name, values in vars(scores).items() if values is not None}
    columns = {"doc_id": pa.array(doc_ids)} | {n: column(v) for n, v in present.items()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with atomic(path) as partial:
        pa.parquet.write_table(table, partial, compression="zstd")


if __name__ == "__main__":
    run(main)
