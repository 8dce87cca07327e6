"""Score files, found through `scores.json` and read only if they are the files it records."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from lowbit.errors import InputError
from lowbit.files import read_json, sha256
from lowbit.names import FULL

DOCUMENT_COLUMNS = ["doc_id", "nll", "kl", "top1_flip_rate"]
FULL_COLUMNS = [*DOCUMENT_COLUMNS, "entropy"]
"""Only the full-precision model's entropy is kept."""


def score_paths(record: Path) -> dict[str, Path]:
    """Path of every method's scores, `full` first.

    Raises:
        InputError: a file is missing or is not the recorded one.
    """
    paths = {}
    for method, entry in read_json(record).items():
        path = Path(entry["path"])
        if not path.exists() or sha256(path) != entry["sha256"]:
            raise InputError(
                f"{path} is missing or is not the file that {record} records for '{method}': "
                f"delete {path} and {record} and run again, so that it is scored anew"
            )
        paths[method] = path
    return paths


def read_scores(record: Path) -> dict[str, pd.DataFrame]:
    """Read what every method's scores say of whole documents."""
    return {
        method: pd.read_parquet(path, columns=FULL_COLUMNS if method == FULL else DOCUMENT_COLUMNS)
        for method, path in score_paths(record).items()
    }


def read_token_scores(path: Path, column: str) -> np.ndarray:
    """Read a column of one method's scores that has a value per predicted token.

    Args:
        column: `token_nll` (nats), `token_flip` (bool) or, of `full`, `token_confidence`.

    Returns:
        `[documents, length - 1]`.
    """
    with pq.ParquetFile(path) as file:
        values = file.read(columns=[column])[column].combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), values.type.list_size)
