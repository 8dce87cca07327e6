"""Ask a classifier what the text of each document is about.

An interrupted job goes on where it was (`lowbit.unfinished`).
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.errors import run
from lowbit.files import read_json, sha256, write_parquet

if TYPE_CHECKING:
    import torch

    from lowbit.experiments.topics import Classified
    from lowbit.unfinished import Parts


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--classifier", type=Path, required=True, help="classifier.json of fetch_classifier.py"
    )
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet with the texts")
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: config `engine`")
    parser.add_argument("--code", required=True, help="digest of the code that classifies")
    parser.add_argument(
        "--output", type=Path, required=True, help="Parquet to write: doc_id, topic, probability"
    )
    return parser.parse_args()


def main() -> None:
    """Classify every document's text, in the order of the tokens."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd
    import torch

    from lowbit.engine.loading import pick_device
    from lowbit.unfinished import Parts

    record, settings = read_json(arguments.classifier), arguments.settings
    torch.set_num_threads(settings["threads"])
    device = pick_device(settings["device"])
    made_from = {
        "classifier": record["files"],
        "tokens": sha256(arguments.tokens),
        "settings": settings | {"device": device.type},
        "code": arguments.code,
    }
    parts = Parts.open(arguments.output.with_suffix(".unfinished"), made_from)
    documents = pd.read_parquet(arguments.tokens, columns=["doc_id", "text"])
    found = classified(arguments.classifier, documents["text"].tolist(), device, parts)
    labels = np.concatenate([each.label for each in found])
    table = documents[["doc_id"]].assign(
        topic=np.array(record["labels"])[labels],
        probability=np.concatenate([each.probability for each in found]),
    )
    write_parquet(arguments.output, table)
    parts.remove()


def classified(
    classifier: Path, texts: list[str], device: "torch.device", parts: "Parts"
) -> list["Classified"]:
    """Labels of all texts; those of an interrupted job are taken over."""
    from tqdm import tqdm

    from lowbit.experiments.topics import STREAM, Classified, classify
    from lowbit.inputs.checkpoint import directory_of
    from lowbit.inputs.classifier import load_classifier

    tokenizer, model = load_classifier(directory_of(classifier))
    make = partial(classify, tokenizer, model.to(device), texts)
    found = []
    with tqdm(total=len(texts), unit="document", desc="classify") as bar:
        for shard in parts.walk(Classified, [STREAM], make):
            found.append(shard[STREAM])
            bar.update(len(shard[STREAM].label))
    return found


if __name__ == "__main__":
    run(main)
