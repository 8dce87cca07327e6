"""Patch quantized models with full-precision activations and weights, on D_large and D_ctrl.

For every method one stream per condition (which activation or weights, in which blocks) walks
beside the full-precision and the quantized model; what is written is the NLL of each document. An
interrupted walk goes on where it was (`lowbit.unfinished`).
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.errors import InputError, run
from lowbit.files import read_json, write_json, write_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.experiments.conditions import Condition
    from lowbit.unfinished import Parts


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
    parser.add_argument(
        "--patch",
        nargs="+",
        required=True,
        choices=["upper", "single", "suffix"],
        help="blocks patched at once: the upper half, each alone, each and all after it",
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", default="", help="digest of the job's code")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--output", type=Path, required=True, help="Parquet to write")
    return parser.parse_args()


def main() -> None:
    """Walk every method with all its conditions; write the NLLs and the checks."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.engine.roles import ROLES
    from lowbit.experiments.conditions import list_conditions
    from lowbit.experiments.kept_scores import made_from, weights_hash
    from lowbit.inputs.tokens import read_tokens
    from lowbit.quantization.quantized import scales_unknown
    from lowbit.unfinished import Parts

    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        sets=arguments.sets,
        methods=[{**each, "record": weights_hash(each["record"])} for each in arguments.methods],
        patch=arguments.patch,
    )
    parts = Parts.open(arguments.output.with_suffix(".unfinished"), sources)
    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    sets = pd.read_parquet(arguments.sets)
    absent = set(ROLES) - engine.decoder.roles
    conditions = list_conditions(len(engine.decoder), arguments.patch, absent)
    gates: dict[str, dict[str, float]] = {}
    tables = []
    for method in arguments.methods:
        documents, rows = choose_documents(sets, method, doc_ids)
        kept = parts.of(method["name"])
        unknown = scales_unknown(read_json(method["record"]))
        notes = {each: each.left_out(engine.decoder.roles, unknown) for each in conditions}
        possible = [each for each, note in notes.items() if not note]
        nll, measured = patch_method(engine, method, possible, token_ids, rows, kept)
        gates |= measured
        name = method["name"]
        tables += [condition_table(documents, each, nll, name, notes[each]) for each in conditions]
    write_json(arguments.gates, gates)
    write_parquet(arguments.output, pd.concat(tables, ignore_index=True))
    parts.remove()


def choose_documents(
    sets: "pd.DataFrame", method: dict[str, str], doc_ids: "Sequence[str]"
) -> tuple["pd.DataFrame", "np.ndarray"]:
    """List the documents of a method's two sets (method, sets_of, set, doc_id), and their rows.

    Raises:
        InputError: the table of sets has none of this method.
    """
    from lowbit.names import SETS

    chosen = sets[(sets["method"] == method["sets_of"]) & sets["set"].isin(SETS)]
    if chosen.empty:
        raise InputError(f"the table of sets has no documents of the method {method['sets_of']}")
    places = {doc_id: place for place, doc_id in enumerate(doc_ids)}
    chosen = chosen.assign(
        row=chosen["doc_id"].map(places), sets_of=method["sets_of"], method=method["name"]
    ).sort_values(["set", "row"], ascending=[False, True], ignore_index=True)  # D_large first
    return chosen[["method", "sets_of", "set", "doc_id"]], chosen["row"].to_numpy()


def patch_method(
    engine: "Engine",
    method: dict[str, str],
    conditions: "Sequence[Condition]",
    token_ids: "np.ndarray",
    rows: "np.ndarray",
    parts: "Parts",
) -> tuple[dict[str, "np.ndarray"], dict[str, dict[str, float]]]:
    """Walk one method under some conditions.

    Returns:
        Mean NLL [rows] by stream and condition, in nats, and the checks of the engine.
    """
    import numpy as np
    from tqdm import tqdm

    from lowbit.experiments.patching import condition_nll, groups
    from lowbit.names import FULL

    name, record = method["name"], Path(method["record"])
    quantized, donor = engine.quantized(name, record), engine.donor(name, record, token_ids)
    gates = engine.check([quantized], token_ids)
    total = len(rows) * len(groups(conditions, len(engine.decoder)))
    with tqdm(total=total, unit="document", desc=f"{name}, {len(conditions)} conditions") as bar:
        ids = token_ids[rows]
        nll = condition_nll(engine, quantized, donor, conditions, ids, bar.update, parts)
    gates[name]["donor_shift"] = float(np.abs(nll[donor.name] - nll[FULL]).max())
    return nll, gates


def condition_table(
    documents: "pd.DataFrame",
    condition: "Condition",
    nll: dict[str, "np.ndarray"],
    method: str,
    note: str,
) -> "pd.DataFrame":
    """Rows of one condition: one per document, or per set where it was not run.

    Args:
        documents: method, sets_of, set, doc_id.
        nll: [documents] by stream and condition.
        note: why it was not run; empty where it was.
    """
    from lowbit.experiments.conditions import NONE
    from lowbit.names import FULL

    values = {
        "kind": condition.kind,
        "role": condition.role,
        "layers": condition.layers,
        "first_block": condition.first + 1,
        "last_block": condition.last + 1,
        "nll": nll.get(str(condition), float("nan")),
        "nll_full": nll[FULL],
        "nll_quantized": nll[method],
        "note": "",
    }
    table = documents.assign(**values)
    if not note:
        return table
    absent = {"kind": NONE, "doc_id": None, "note": note}
    return table.drop_duplicates("set").assign(
        **absent, nll_full=float("nan"), nll_quantized=float("nan")
    )


if __name__ == "__main__":
    run(main)
