"""Find out which modules to keep in higher precision, and try it on documents not used for that.

Each module of the base method alone is put into higher precision, on one half of the documents.
Models mixed by that ranking, from the end and at random are then scored on the other half. An
interrupted walk goes on where it was (`lowbit.unfinished`).
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
    import pandas as pd

    from lowbit.engine.engine import Engine
    from lowbit.engine.walk import Stream
    from lowbit.experiments.module_precision import HigherPrecision
    from lowbit.unfinished import Parts


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--base", required=True, help="name of the method that is improved")
    parser.add_argument("--base-record", type=Path, required=True, help="its method.json")
    parser.add_argument("--higher", required=True, help="name of the higher method, or full")
    parser.add_argument("--higher-record", type=Path, help="its method.json; none for full")
    parser.add_argument(
        "--extra-bits", type=float, required=True, help="bits per weight that may be spent"
    )
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", default="", help="digest of the job's code")
    parser.add_argument("--seed", type=int, required=True, help="seed of halves and choices")
    parser.add_argument("--gates", type=Path, required=True, help="JSON to write: engine checks")
    parser.add_argument("--plan", type=Path, required=True, help="JSON to write: what was mixed")
    parser.add_argument(
        "--modules", type=Path, required=True, help="Parquet to write: NLL of each module restored"
    )
    parser.add_argument(
        "--models", type=Path, required=True, help="Parquet to write: scores of mixed models"
    )
    return parser.parse_args()


def main() -> None:
    """Check the engine, rank the modules, mix models of them and score these."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd

    from lowbit.analysis.mechanisms.mixed_precision import (
        HIGHER,
        choose,
        halves,
        recovered_nll,
        require_budget,
    )
    from lowbit.engine.engine import Engine
    from lowbit.experiments.edited_documents import read_once
    from lowbit.experiments.kept_scores import made_from, weights_hash
    from lowbit.experiments.module_precision import HigherPrecision, check_scales
    from lowbit.inputs.tokens import read_tokens
    from lowbit.unfinished import Parts

    sources = made_from(
        arguments.model,
        arguments.settings,
        arguments.code,
        tokens=arguments.tokens,
        base=[arguments.base, weights_hash(arguments.base_record)],
        higher=[arguments.higher, weights_hash(arguments.higher_record)],
        extra_bits=arguments.extra_bits,
        seed=arguments.seed,
    )
    parts = Parts.open(arguments.models.with_suffix(".unfinished"), sources)
    engine = Engine.open(arguments.model, arguments.settings)
    doc_ids, token_ids = read_tokens(arguments.tokens)
    base = read_once(engine.quantized(arguments.base, arguments.base_record))
    others = {}
    if arguments.higher_record is not None:
        others[HIGHER] = engine.quantized(arguments.higher, arguments.higher_record)
    gates: dict[str, Any] = engine.check([base, *others.values()], token_ids)
    precision = HigherPrecision(engine, arguments.base_record, arguments.higher_record)
    modules = pd.DataFrame([{"module": m.name, **asdict(m)} for m in precision.modules])
    modules = modules.drop(columns="linears")
    require_budget(modules, arguments.extra_bits)
    scales = check_scales(engine, arguments.base_record, base, token_ids)
    gates[base.name]["moved_scales"] = scales
    write_json(arguments.gates, gates)

    ranking, held_out = halves(len(doc_ids), arguments.seed)
    ids = np.array(doc_ids)
    kept = parts.of("modules")
    restored = restore_each(engine, precision, base, ids[ranking], token_ids[ranking], kept)
    write_parquet(arguments.modules, restored)
    recovered = recovered_nll(restored, modules)
    chosen = choose(recovered, modules, arguments.extra_bits, arguments.seed)
    plan = {"base": arguments.base, "higher": arguments.higher, "extra_bits": arguments.extra_bits}
    plan |= {"modules": modules.to_dict("records"), "chosen": chosen}
    write_json(arguments.plan, plan)
    models = mixed_models(precision, base, chosen) | others
    kept = parts.of("models")
    scores = score_models(engine, base, models, ids[held_out], token_ids[held_out], kept)
    write_parquet(arguments.models, scores)
    parts.remove()


def restore_each(
    engine: "Engine",
    precision: "HigherPrecision",
    base: "Stream",
    doc_ids: "np.ndarray",
    token_ids: "np.ndarray",
    kept: "Parts",
) -> "pd.DataFrame":
    """NLL of every document with each module alone in higher precision, and without any."""
    import pandas as pd
    from tqdm import tqdm

    from lowbit.engine.edits import Edited
    from lowbit.experiments.edited_documents import document_nll, walks

    packs = [
        {module.name: Edited(base.name, precision.edit([module], base))}
        for module in precision.modules
    ]
    total = len(walks(packs)) * len(doc_ids)
    with tqdm(total=total, unit="document", desc=f"{len(packs)} modules, one by one") as bar:
        nll = document_nll(engine, [base], packs, token_ids, bar.update, parts=kept)
    unrestored = nll.pop(base.name)
    parts = [
        pd.DataFrame({"doc_id": doc_ids, "module": name, "nll_base": unrestored, "nll": each})
        for name, each in nll.items()
    ]
    return pd.concat(parts, ignore_index=True)


def mixed_models(
    precision: "HigherPrecision", base: "Stream", chosen: Mapping[str, Sequence[str]]
) -> dict[str, "Stream"]:
    """Make the stream of every mixed model that has a module in higher precision."""
    from lowbit.engine.edits import edited

    modules = {module.name: module for module in precision.modules}
    return {
        name: edited(
            f"{base.name}, {name}", base, precision.edit([modules[each] for each in names], base)
        )
        for name, names in chosen.items()
        if names
    }


def score_models(
    engine: "Engine",
    base: "Stream",
    models: Mapping[str, "Stream"],
    doc_ids: "np.ndarray",
    token_ids: "np.ndarray",
    kept: "Parts",
) -> "pd.DataFrame":
    """NLL and KL of every model, and NLL of the full-precision one; few models at a time."""
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from lowbit.analysis.mechanisms.mixed_precision import BASE
    from lowbit.experiments.edited_documents import EDITS_AT_ONCE
    from lowbit.experiments.scoring import Scores, score_documents
    from lowbit.names import FULL

    names = list(models)
    groups = [names[at : at + EDITS_AT_ONCE] for at in range(0, len(names), EDITS_AT_ONCE)]
    scores = {}
    total = len(groups) * len(doc_ids)
    with tqdm(total=total, unit="document", desc=f"{len(names)} models") as bar:
        for number, group in enumerate(groups):
            streams = [base, *(models[name] for name in group)]
            walk = partial(score_documents, engine, streams, token_ids)
            walked = [FULL, *(stream.name for stream in streams)]
            found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in walked}
            for shard in kept.of(str(number)).walk(Scores, walked, walk):
                for name in walked:
                    found[name].append((shard[name].nll, shard[name].kl))
                bar.update(len(shard[FULL].nll))
            scores |= {name: np.concatenate(found[name], axis=1) for name in walked}
    labels = {BASE: base.name} | {name: stream.name for name, stream in models.items()}
    columns = {"doc_id": doc_ids, "nll_full": scores[FULL][0]}
    parts = [
        pd.DataFrame({"model": label, **columns, "nll": scores[name][0], "kl": scores[name][1]})
        for label, name in labels.items()
    ]
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    run(main)
