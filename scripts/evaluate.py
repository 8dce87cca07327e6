"""Evaluate the full-precision model and any number of quantized ones on evaluation sets.

All methods of a set walk together. A method whose scores on a set are already there, made from the
same model, rows, weights, settings and code, is not scored again. An interrupted walk goes on where
it was (`lowbit.unfinished`).
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.errors import run
from lowbit.files import sha256, write_json, write_parquet

if TYPE_CHECKING:
    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import Stream
    from lowbit.experiments.evaluation import RowScores
    from lowbit.inputs.evaluation import EvaluationRows
    from lowbit.unfinished import Parts

COLUMNS = ["set", "kind", "method", "row", "nll", "tokens", "correct"]


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument(
        "--methods",
        type=json.loads,
        required=True,
        help='JSON list of {"name", "record" (method.json; null for full), "scores" '
        "({set: Parquet})}",
    )
    parser.add_argument(
        "--sets", type=json.loads, required=True, help="JSON: {set: its rows.parquet}"
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", required=True, help="digest of the code that scores")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--output", type=Path, required=True, help="Parquet to write: all scores")
    return parser.parse_args()


def main() -> None:
    """Score what is missing, then put the scores of all sets and methods into one table."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.experiments.kept_scores import stored
    from lowbit.unfinished import remove

    unfinished = arguments.output.with_suffix(".unfinished")
    missing = {name: missing_methods(arguments, name) for name in arguments.sets}
    if any(missing.values()):
        score(arguments, missing, unfinished)
    gates = {
        name: {
            method["name"]: json.loads(stored(method["scores"][name], b"gates"))
            for method in arguments.methods
        }
        for name in arguments.sets
    }
    write_json(arguments.gates, gates)
    tables = [
        pd.read_parquet(method["scores"][name]).assign(set=name, method=method["name"])
        for name in arguments.sets
        for method in arguments.methods
    ]
    table = pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)
    write_parquet(arguments.output, table.astype({"correct": "boolean"}))
    remove(unfinished)  # also where a run was killed just before it


def missing_methods(arguments: argparse.Namespace, name: str) -> dict[str, str]:
    """Methods that have no scores on a set made from what is there now, with what to mark them by.

    Returns:
        Method -> fingerprint of what its scores are to be made from.
    """
    from lowbit.experiments.kept_scores import fingerprint, stored

    fingerprints = {
        method["name"]: fingerprint(
            arguments.model,
            arguments.sets[name],
            method["record"],
            arguments.settings,
            arguments.code,
        )
        for method in arguments.methods
    }
    return {
        method["name"]: fingerprints[method["name"]]
        for method in arguments.methods
        if stored(method["scores"][name], b"fingerprint") != fingerprints[method["name"]]
    }


def score(
    arguments: argparse.Namespace, missing: dict[str, dict[str, str]], unfinished: Path
) -> None:
    """Walk each set with the methods that have no scores on it.

    Args:
        unfinished: folder for what is done before a walk's end.
    """
    from lowbit.engine.engine import Engine
    from lowbit.experiments.kept_scores import made_from, weights_hash, write_scores
    from lowbit.inputs.evaluation import read_rows
    from lowbit.names import FULL
    from lowbit.unfinished import Parts

    methods = {method["name"]: method for method in arguments.methods}
    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        sets={name: sha256(rows) for name, rows in arguments.sets.items()},
        methods={name: weights_hash(method["record"]) for name, method in methods.items()},
    )
    parts = Parts.open(unfinished, sources)
    engine = Engine.open(arguments.model, arguments.settings)
    streams: dict[str, Stream] = {FULL: engine.full}
    for name, fingerprints in missing.items():
        if not fingerprints:
            continue
        for method in fingerprints:
            if method not in streams:
                streams[method] = engine.quantized(method, Path(methods[method]["record"]))
        rows = read_rows(arguments.sets[name])
        variants = [streams[method] for method in fingerprints if method != FULL]
        gates = engine.check(variants, rows.inputs)
        walked = [streams[method] for method in fingerprints]
        scored = walk_set(engine, walked, rows, name, parts.of(name))
        for method, fingerprint in fingerprints.items():
            columns = {
                "row": rows.row_ids,
                "kind": [rows.kind] * len(rows),
                "nll": scored[method].nll,
                "tokens": rows.tokens,
                "correct": scored[method].correct,
            }
            metadata = {"fingerprint": fingerprint, "gates": json.dumps(gates[method])}
            write_scores(methods[method]["scores"][name], columns, metadata)


def walk_set(
    engine: "Engine",
    walked: list["Stream"],
    rows: "EvaluationRows",
    name: str,
    parts: "Parts",
) -> dict[str, "RowScores"]:
    """Scores of streams on all rows of a set, by the stream's name."""
    from tqdm import tqdm

    from lowbit.experiments.evaluation import RowScores, evaluation_scores, join_rows

    shards: dict[str, list[RowScores]] = {stream.name: [] for stream in walked}
    walk = partial(evaluation_scores, engine, walked, rows, {}, None)
    with tqdm(total=len(rows), unit="row", desc=f"{name}: {len(walked)} streams") as bar:
        for shard in parts.walk(RowScores, shards, walk):
            for stream, of_stream in shards.items():
                of_stream.append(shard[stream])
            bar.update(len(shard[walked[0].name].nll))
    return {stream: join_rows(of_stream) for stream, of_stream in shards.items()}


if __name__ == "__main__":
    run(main)
