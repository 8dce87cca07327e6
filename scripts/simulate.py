"""Simulate quantization of weights and activations, uniform or not, and score documents.

lowbit/experiments/simulation_settings.py lists what is tried.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from lowbit.errors import run
from lowbit.files import write_json, write_parquet


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
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--sizes", type=Path, required=True, help="Parquet to write: errors of x")
    parser.add_argument("--scores", type=Path, required=True, help="Parquet to write: scores")
    return parser.parse_args()


def main() -> None:
    """Check the engine, find static ranges, walk all simulations."""
    arguments = parse_arguments()
    import pandas as pd
    from tqdm import tqdm

    from lowbit.engine.edits import Edited
    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import FULL
    from lowbit.experiments.edited_documents import document_nll, walks
    from lowbit.experiments.simulating import OF_ACTIVATIONS, SimulationEdit, static_ranges
    from lowbit.experiments.simulation_settings import TRANSFORMS, list_simulations
    from lowbit.inputs.tokens import read_tokens

    wanted = arguments.simulation
    transforms = wanted["transforms"] or TRANSFORMS
    of_activations = [name for name in OF_ACTIVATIONS if name in transforms]
    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    write_json(arguments.gates, engine.check([], token_ids))
    _, calibration = read_tokens(arguments.calibration)
    ranges = static_ranges(engine, calibration)
    simulations = list_simulations(wanted["settings"], transforms, of_activations)
    edits = {str(s): SimulationEdit(s, engine, wanted["group_size"], ranges) for s in simulations}
    packs = [{name: Edited(FULL, edit)} for name, edit in edits.items()]
    chosen = slice(wanted["documents"])
    total = len(walks(packs)) * len(token_ids[chosen])
    with tqdm(total=total, unit="document", desc=f"{len(edits)} simulations") as bar:
        ids = token_ids[chosen]
        nll = document_nll(engine.by_block(), [engine.full], packs, ids, bar.update)
    keys = {
        name: {"setting": e.simulation.setting, **asdict(e.simulation)} for name, e in edits.items()
    }
    columns = {"doc_id": doc_ids[chosen], "nll_full": nll[FULL]}
    scores = [pd.DataFrame({**keys[name], **columns, "nll": nll[name]}) for name in edits]
    write_parquet(arguments.scores, pd.concat(scores, ignore_index=True))
    sizes = [{**keys[name], **row} for name, edit in edits.items() for row in edit.sizes()]
    write_parquet(arguments.sizes, pd.DataFrame(sizes))


if __name__ == "__main__":
    run(main)
