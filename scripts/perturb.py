"""Perturb weights and activations of the full-precision model, and score documents again.

lowbit/experiments/perturbation_conditions.py lists what is tried. A perturbation of intensity 0 is
tried first, and must change nothing.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import run
from lowbit.files import write_json, write_parquet

if TYPE_CHECKING:
    import numpy as np

    from lowbit.engine.engine import Engine
    from lowbit.experiments.perturbing import PerturbationEdit


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
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--norms", type=Path, required=True, help="Parquet to write: sizes")
    parser.add_argument("--scores", type=Path, required=True, help="Parquet to write: scores")
    return parser.parse_args()


def main() -> None:
    """Check the engine, list the perturbations, walk them and check their norms."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.engine.engine import PROBE_DOCUMENTS, Engine
    from lowbit.experiments.perturbation_conditions import (
        Plan,
        list_nothings,
        list_perturbations,
        list_sensitivities,
    )
    from lowbit.experiments.perturbing import (
        PerturbationEdit,
        Reference,
        check_norms,
        check_nothing,
    )
    from lowbit.inputs.tokens import read_tokens
    from lowbit.quantization.activations import ActivationQuantization, quantize_activation

    wanted = arguments.perturbation
    plan = Plan(wanted["intensities"], wanted["quantiles"], wanted["seeds"])
    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    bits = ActivationQuantization(bits=wanted["activation_bits"], granularity="token")
    reference = Reference(
        engine, arguments.reference_record, partial(quantize_activation, settings=bits)
    )
    stream = engine.quantized(arguments.reference, arguments.reference_record)
    gates: dict[str, Any] = engine.check([stream], token_ids)
    nothings = {str(c): PerturbationEdit(c, engine, reference) for c in list_nothings()}
    probe = token_ids[:PROBE_DOCUMENTS]
    gates["intensity_0"] = check_nothing(walk_edits(engine, nothings, probe))

    conditions = list_perturbations(plan)
    if wanted["sensitivity"]:
        conditions += list_sensitivities(reference.kinds(wanted["projections"]), plan)
    edits = {str(c): PerturbationEdit(c, engine, reference) for c in conditions}
    chosen = slice(wanted["documents"])
    nll = walk_edits(engine, edits, token_ids[chosen])
    gates["norms"] = check_norms(edits)
    write_json(arguments.gates, gates)
    rows = {str(c): asdict(c) for c in conditions}
    tables = [
        pd.DataFrame({**rows[name], "doc_id": doc_ids[chosen], "nll": nll[name]}) for name in edits
    ]
    scores = pd.concat(tables, ignore_index=True)
    full = dict(zip(doc_ids[chosen], nll["full"], strict=True))
    write_parquet(arguments.scores, scores.assign(nll_full=scores["doc_id"].map(full)))
    sizes = [{**rows[name], **row} for name, edit in edits.items() for row in edit.norms.rows()]
    write_parquet(arguments.norms, pd.DataFrame(sizes))


def walk_edits(
    engine: "Engine", edits: Mapping[str, "PerturbationEdit"], token_ids: "np.ndarray"
) -> dict[str, "np.ndarray"]:
    """Mean NLL [documents] of the full model and under every edit, nats; seed by seed."""
    from tqdm import tqdm

    from lowbit.engine.edits import Edited
    from lowbit.engine.walk import FULL
    from lowbit.experiments.edited_documents import document_nll, walks

    ordered: Sequence[str] = sorted(edits, key=lambda name: edits[name].condition.seed)
    packs = [{name: Edited(FULL, edits[name])} for name in ordered]
    total = len(walks(packs)) * len(token_ids)
    with tqdm(total=total, unit="document", desc=f"{len(edits)} perturbations") as bar:
        return document_nll(engine.by_block(), [engine.full], packs, token_ids, bar.update)


if __name__ == "__main__":
    run(main)
