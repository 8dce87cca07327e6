"""Perturb weights and activations of the full-precision model, and score texts again.

lowbit/experiments/perturbation_conditions.py lists what is tried. A perturbation of intensity 0 is
tried first, and must change nothing. An interrupted walk goes on where it was
(`lowbit.unfinished`).
"""

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import run
from lowbit.files import sha256, write_json, write_parquet

if TYPE_CHECKING:
    import numpy as np

    from lowbit.engine.engine import Engine
    from lowbit.experiments.perturbing import PerturbationEdit, Reference


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--reference", required=True, help="name of the reference method")
    parser.add_argument("--reference-record", type=Path, required=True, help="its method.json")
    parser.add_argument(
        "--perturbation", type=json.loads, required=True, help="JSON: config `perturbation`"
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", default="", help="digest of the job's code")
    parser.add_argument("--seed", type=int, required=True, help="of the study, for the noise")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--norms", type=Path, required=True, help="Parquet to write: sizes")
    parser.add_argument("--scores", type=Path, required=True, help="Parquet to write: scores")
    parser.add_argument(
        "--sets", type=json.loads, default={}, help="JSON: {evaluation set: its rows.parquet}"
    )
    parser.add_argument("--evaluation", type=Path, help="Parquet to write: scores on these sets")
    return parser.parse_args()


def main() -> None:
    """Check the engine, walk documents and evaluation sets, check the norms."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.experiments.comparison import document_table, set_table, spread
    from lowbit.experiments.kept_scores import made_from, weights_hash
    from lowbit.experiments.perturbing import check_norms
    from lowbit.inputs.evaluation import read_rows
    from lowbit.inputs.tokens import read_tokens
    from lowbit.unfinished import Parts

    wanted = arguments.perturbation
    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        perturbation=[wanted, arguments.seed],
        reference=[arguments.reference, weights_hash(arguments.reference_record)],
        sets={name: sha256(rows) for name, rows in arguments.sets.items()},
    )
    parts = Parts.open(arguments.scores.with_suffix(".unfinished"), sources)
    engine = Engine.open(arguments.model, arguments.settings)
    reference = open_reference(engine, arguments)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    # Read block by block, so that it is not kept: only its errors' norms are wanted later.
    stream = engine.by_block().quantized(arguments.reference, arguments.reference_record)
    gates: dict[str, Any] = engine.check([stream], token_ids)
    gates["share_of_weights_perturbed"] = reference.share_perturbed()
    gates["intensity_0"] = nothing_changes(engine, reference, doc_ids, token_ids)

    everywhere, alone = list_edits(engine, reference, wanted)
    edits = everywhere | alone
    keys = {name: asdict(edit.condition) for name, edit in edits.items()}
    chosen = spread(len(doc_ids), wanted["documents"])
    ids = [doc_ids[row] for row in chosen]
    scores = document_table(engine, edits, keys, ids, token_ids[chosen], parts.of("documents"))
    gates["norms"] = check_norms(edits)
    write_parquet(arguments.scores, scores)
    sizes = [{**keys[name], **row} for name, edit in edits.items() for row in edit.norms.rows()]
    write_parquet(arguments.norms, pd.DataFrame(sizes))
    if arguments.sets:
        sets = {name: read_rows(path) for name, path in arguments.sets.items()}
        table = set_table(engine, everywhere, keys, sets, parts.of("sets"))
        write_parquet(arguments.evaluation, table)
        gates["norms"] = check_norms(edits)
    write_json(arguments.gates, gates)
    parts.remove()


def open_reference(engine: "Engine", arguments: argparse.Namespace) -> "Reference":
    """The quantization errors whose norms noise gets."""
    from lowbit.experiments.perturbing import Reference
    from lowbit.quantization.activations import ActivationQuantization, quantize_activation

    bits = arguments.perturbation["activation_bits"]
    settings = ActivationQuantization(bits=bits, granularity="token")
    quantize = partial(quantize_activation, settings=settings)
    return Reference(engine, arguments.reference_record, quantize, arguments.seed)


def nothing_changes(
    engine: "Engine", reference: "Reference", doc_ids: list[str], token_ids: "np.ndarray"
) -> float:
    """Largest change of a document's NLL by perturbations of intensity 0, nats."""
    from lowbit.engine.sizes import PROBE_DOCUMENTS
    from lowbit.experiments.comparison import document_table
    from lowbit.experiments.perturbation_conditions import list_nothings
    from lowbit.experiments.perturbing import PerturbationEdit, check_nothing

    edits = {str(c): PerturbationEdit(c, engine, reference) for c in list_nothings()}
    keys = {name: asdict(edit.condition) for name, edit in edits.items()}
    probe = slice(PROBE_DOCUMENTS)
    return check_nothing(document_table(engine, edits, keys, doc_ids[probe], token_ids[probe]))


def list_edits(
    engine: "Engine", reference: "Reference", wanted: dict[str, Any]
) -> tuple[dict[str, "PerturbationEdit"], dict[str, "PerturbationEdit"]]:
    """What is done to all projections, and to each alone; those that draw the same eps in a row."""
    from lowbit.experiments.perturbation_conditions import (
        Plan,
        list_perturbations,
        list_sensitivities,
    )
    from lowbit.experiments.perturbing import PerturbationEdit

    plan = Plan(wanted["intensities"], wanted["quantiles"], wanted["seeds"])
    kinds = reference.kinds(wanted["projections"])
    alone = list_sensitivities(kinds, plan) if wanted["sensitivity"] else []
    everywhere, of_single = (
        {
            str(condition): PerturbationEdit(condition, engine, reference)
            for condition in sorted(conditions, key=lambda each: each.seed)
        }
        for conditions in (list_perturbations(plan), alone)
    )
    return everywhere, of_single


if __name__ == "__main__":
    run(main)
