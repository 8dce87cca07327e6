"""What lm-evaluation-harness makes of a model directory: last words of items, NLL of token rows.

`python lm_eval_items.py <model> <items.jsonl> <rows.npy>` prints one line of JSON. The items go
through the library's own task of LAMBADA (OpenAI variant), read from a file instead of the hub; the
rows `[rows, length]` through its scoring of given tokens, the first of each row being the context.
"""

import json
import sys
from pathlib import Path

import lm_eval
import numpy as np
import yaml
from lm_eval.models.huggingface import HFLM


def last_words(model: HFLM, items: str) -> dict:
    """Accuracy, perplexity of the last word, and per item in the file's order both."""
    file = Path(lm_eval.__file__).parent / "tasks" / "lambada" / "lambada_openai.yaml"
    task = yaml.safe_load(file.read_text()) | {
        "task": "local_items",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": items}},
    }
    found = lm_eval.simple_evaluate(model, tasks=[task], bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"]["local_items"], key=lambda sample: sample["doc_id"])
    means = found["results"]["local_items"]
    return {
        "accuracy": means["acc,none"],
        "perplexity": means["perplexity,none"],
        "correct": [bool(sample["acc"]) for sample in samples],
        "nll": [-float(sample["perplexity"]) for sample in samples],
    }


def row_nll(model: HFLM, rows: np.ndarray) -> list[float]:
    """Sum of the NLL of all tokens of a row but the first, nats."""
    requests = [(("", ""), row[:1].tolist(), row[1:].tolist()) for row in rows]
    return [-score for score, _ in model._loglikelihood_tokens(requests, disable_tqdm=True)]


def main() -> None:
    directory, items, rows = sys.argv[1:]
    model = HFLM(directory, device="cpu", dtype="float32", batch_size=4)
    result = {"items": last_words(model, items), "rows": row_nll(model, np.load(rows))}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
