"""Simulate quantization of weights and activations, uniform or not, and score texts.

lowbit/experiments/simulation_settings.py lists what is tried. An interrupted walk goes on where it
was (`lowbit.unfinished`).
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import run
from lowbit.files import sha256, write_json, write_parquet

if TYPE_CHECKING:
    from lowbit.experiments.simulation_settings import Simulation


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument(
        "--calibration", type=Path, required=True, help="tokens.parquet that static ranges are of"
    )
    parser.add_argument(
        "--simulation", type=json.loads, required=True, help="JSON: config `simulation`"
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", default="", help="digest of the job's code")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--sizes", type=Path, required=True, help="Parquet to write: errors of x")
    parser.add_argument("--scores", type=Path, required=True, help="Parquet to write: scores")
    parser.add_argument(
        "--sets", type=json.loads, default={}, help="JSON: {evaluation set: its rows.parquet}"
    )
    parser.add_argument("--evaluation", type=Path, help="Parquet to write: scores on these sets")
    return parser.parse_args()


def main() -> None:
    """Check the engine, find static ranges, walk documents and evaluation sets."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.experiments.comparison import document_table, set_table, spread
    from lowbit.experiments.kept_scores import made_from
    from lowbit.experiments.simulating import SimulationEdit, static_ranges
    from lowbit.inputs.evaluation import read_rows
    from lowbit.inputs.tokens import read_tokens
    from lowbit.unfinished import Parts

    wanted = arguments.simulation
    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        calibration=arguments.calibration,
        simulation=wanted,
        sets={name: sha256(rows) for name, rows in arguments.sets.items()},
    )
    parts = Parts.open(arguments.scores.with_suffix(".unfinished"), sources)
    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check([], token_ids))
    _, calibration = read_tokens(arguments.calibration)
    ranges = static_ranges(engine, calibration)
    simulations = list_wanted(wanted)
    edits = {str(s): SimulationEdit(s, engine, wanted["group_size"], ranges) for s in simulations}
    keys = {str(s): {"setting": s.setting, **asdict(s)} for s in simulations}
    chosen = spread(len(doc_ids), wanted["documents"])
    ids = [doc_ids[row] for row in chosen]
    scores = document_table(engine, edits, keys, ids, token_ids[chosen], parts.of("documents"))
    write_parquet(arguments.scores, scores)
    sizes = [{**keys[name], **row} for name, edit in edits.items() for row in edit.sizes()]
    write_parquet(arguments.sizes, pd.DataFrame(sizes))
    if arguments.sets:
        sets = {name: read_rows(path) for name, path in arguments.sets.items()}
        table = set_table(engine, edits, keys, sets, parts.of("sets"))
        write_parquet(arguments.evaluation, table)
    parts.remove()


def list_wanted(wanted: dict[str, Any]) -> "list[Simulation]":
    """The simulations that the config asks for."""
    from lowbit.experiments.simulation_settings import TRANSFORMS, list_simulations

    transforms = wanted["transforms"] or TRANSFORMS
    return list_simulations(wanted["settings"], transforms, wanted["activation_transforms"])


if __name__ == "__main__":
    run(main)
