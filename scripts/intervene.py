"""Set the norm of the residual stream, in full-precision and quantized models, and score again.

On each method's D_large and D_ctrl; lowbit/experiments/interventions.py lists what is changed. An
interrupted walk goes on where it was (`lowbit.unfinished`).
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import run
from lowbit.files import write_json, write_parquet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from lowbit.analysis.mechanisms.matched_documents import MatchedDocuments
    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import Stream
    from lowbit.experiments.interventions import Intervention
    from lowbit.unfinished import Parts


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--residuals", type=Path, required=True, help="residuals.parquet")
    parser.add_argument(
        "--methods", type=json.loads, required=True, help="JSON: {method: its method.json}"
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", default="", help="digest of the job's code")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--output", type=Path, required=True, help="Parquet to write: scores")
    return parser.parse_args()


def main() -> None:
    """Check the engine and the sham, then walk every method's documents."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.mechanisms.matched_documents import choose_documents
    from lowbit.engine.engine import Engine
    from lowbit.engine.sizes import PROBE_DOCUMENTS
    from lowbit.experiments.interventions import NORM_INPUT
    from lowbit.experiments.kept_scores import made_from, weights_hash
    from lowbit.experiments.sham import check_sham
    from lowbit.inputs.tokens import read_tokens
    from lowbit.names import FULL
    from lowbit.unfinished import Parts

    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        errors=arguments.errors,
        sets=arguments.sets,
        residuals=arguments.residuals,
        methods={name: weights_hash(record) for name, record in arguments.methods.items()},
    )
    kept = Parts.open(arguments.output.with_suffix(".unfinished"), sources)
    engine = Engine.open(arguments.model, arguments.settings)
    variants = [engine.quantized(name, Path(path)) for name, path in arguments.methods.items()]
    doc_ids, token_ids = read_tokens(arguments.tokens)
    gates: dict[str, Any] = engine.check(variants, token_ids)
    noise_floor = gates[FULL]["batch_noise_floor"]
    if NORM_INPUT in engine.decoder.roles:
        for stream in (engine.full, *variants):
            probe = token_ids[:PROBE_DOCUMENTS]
            gates[stream.name]["sham"] = check_sham(engine, stream, probe, noise_floor)
    errors, sets, residuals = (
        pd.read_parquet(path) for path in (arguments.errors, arguments.sets, arguments.residuals)
    )
    parts = []
    for stream in variants:
        documents = choose_documents(stream.name, doc_ids, errors, sets, residuals)
        scores, of_method = intervene(engine, stream, documents, token_ids, kept.of(stream.name))
        parts.append(scores)
        gates[stream.name] |= of_method
    write_parquet(arguments.output, pd.concat(parts, ignore_index=True))
    write_json(arguments.gates, gates)
    kept.remove()


def intervene(
    engine: "Engine",
    stream: "Stream",
    documents: "MatchedDocuments",
    token_ids: "np.ndarray",
    kept: "Parts",
) -> tuple["pd.DataFrame", dict[str, Any]]:
    """Score one method's D_large and D_ctrl under every intervention.

    Returns:
        One row per intervention and document, and what was checked and left out.
    """
    import pandas as pd
    from tqdm import tqdm

    from lowbit.experiments.edited_documents import document_nll, read_once, walks
    from lowbit.experiments.interventions import check_norms, list_interventions

    stream = read_once(stream)
    found, left_out = list_interventions(engine, stream, documents.norms, documents.partners)
    packs = [each.pack(stream.name) for each in found]
    total = len(walks(packs)) * len(documents.rows)
    with tqdm(total=total, unit="document", desc=f"{stream.name}, {len(found)} changes") as bar:
        streams, ids = [engine.full, stream], token_ids[documents.rows]
        nll = document_nll(engine, streams, packs, ids, bar.update, parts=kept)
    gates: dict[str, Any] = {"left_out": left_out}
    if documents.norms is not None:
        gates["norms"] = check_norms(found, documents.norms, engine.dtype)
    rows = [intervention_rows(each, stream.name, documents, nll) for each in found]
    return pd.concat(rows, ignore_index=True), gates


def intervention_rows(
    each: "Intervention",
    method: str,
    documents: "MatchedDocuments",
    nll: dict[str, "np.ndarray"],
) -> "pd.DataFrame":
    """One row per document, its partner beside it; swaps leave out documents without a partner."""
    import numpy as np
    import pandas as pd

    from lowbit.experiments.intervention_conditions import SWAPS
    from lowbit.names import FULL

    table = pd.DataFrame(
        {
            "method": method,
            "condition": each.condition,
            "layers": each.layers,
            "factor": each.factor,
            "norm_ratio": each.ratio,
            "set": documents.sets,
            "doc_id": documents.doc_ids,
            "partner": documents.doc_ids[documents.partners],
            "nll_full": nll[FULL],
            "nll": nll[method],
            "nll_full_edited": nll[each.name(FULL)],
            "nll_edited": nll[each.name(method)],
        }
    )
    alone = documents.partners == np.arange(len(table))
    return table[~alone] if each.condition in SWAPS else table


if __name__ == "__main__":
    run(main)
