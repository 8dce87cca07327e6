"""Score documents with the full-precision model and any number of quantized ones in one walk.

A method whose scores are already there, made from the same model, tokens, weights, settings and
code, is not scored again. An interrupted walk goes on where it was (`lowbit.unfinished`).
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from lowbit.errors import run
from lowbit.files import sha256, write_json


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
    from lowbit.experiments.kept_scores import fingerprint, stored
    from lowbit.unfinished import remove

    unfinished = arguments.output.with_suffix(".unfinished")
    methods = {method["name"]: method for method in arguments.methods}
    fingerprints = {
        name: fingerprint(
            arguments.model,
            arguments.tokens,
            method["record"],
            arguments.settings,
            arguments.code,
        )
        for name, method in methods.items()
    }
    pending = [
        name
        for name, method in methods.items()
        if stored(method["scores"], b"fingerprint") != fingerprints[name]
    ]
    if pending:
        score(arguments, methods, pending, fingerprints, unfinished)
    scores = {name: Path(method["scores"]) for name, method in methods.items()}
    gates = {name: json.loads(stored(path, b"gates")) for name, path in scores.items()}
    write_json(arguments.gates, gates)
    write_json(
        arguments.output,
        {name: {"path": str(path), "sha256": sha256(path)} for name, path in scores.items()},
    )
    remove(unfinished)  # also where a run was killed just before it


def score(
    arguments: argparse.Namespace,
    methods: dict[str, dict[str, Any]],
    pending: list[str],
    fingerprints: dict[str, str],
    unfinished: Path,
) -> None:
    """Walk the full-precision model and all `pending` methods over the documents; write each.

    Args:
        unfinished: folder for what is done before the walk's end.
    """
    from tqdm import tqdm

    from lowbit.engine.engine import Engine
    from lowbit.experiments.kept_scores import made_from, weights_hash, write_scores
    from lowbit.experiments.scoring import Scores, put, room_for, score_documents
    from lowbit.inputs.tokens import read_tokens
    from lowbit.names import FULL
    from lowbit.unfinished import Parts

    # Of all methods: those that are pending are fewer when some have been written.
    weights = {name: weights_hash(method["record"]) for name, method in methods.items()}
    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        methods=weights,
    )
    parts = Parts.open(unfinished, sources)
    engine = Engine.open(arguments.model, arguments.settings)
    variants = [
        engine.quantized(name, Path(methods[name]["record"])) for name in pending if name != FULL
    ]
    doc_ids, token_ids = read_tokens(arguments.tokens)
    gates = engine.check(variants, token_ids)
    found: dict[str, Scores] = {}
    done = 0
    walk = partial(score_documents, engine, variants, token_ids)
    with tqdm(total=len(doc_ids), unit="document", desc=f"1 + {len(variants)} streams") as bar:
        for shard in parts.walk(Scores, [FULL, *pending], walk):
            if not found:
                found = {name: room_for(shard[name], len(doc_ids)) for name in pending}
            for name in pending:
                put(shard[name], found[name], done)
            documents = len(shard[FULL].nll)
            done += documents
            bar.update(documents)
    for name in pending:
        metadata = {"fingerprint": fingerprints[name], "gates": json.dumps(gates[name])}
        columns = {"doc_id": doc_ids} | vars(found[name])
        write_scores(methods[name]["scores"], columns, metadata)


if __name__ == "__main__":
    run(main)
