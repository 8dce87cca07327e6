"""Score files that are kept: one per method, made again only if what it depends on has changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.files import atomic, read_json, sha256


def fingerprint(
    model: Path, rows: Path, record: str | None, settings: Mapping[str, Any], code: str
) -> str:
    """Hash all that a method's scores depend on; `mode` is left out, for it changes no number.

    The device is the one found here: a full model scored on a GPU is none to set beside a method
    scored on a CPU.

    Args:
        model: model.json.
        rows: the token rows that are scored.
        record: the method's method.json; None for the unquantized model.
        settings: the config's `engine`.
        code: digest of the code that scores.
    """
    from lowbit.engine.loading import pick_device

    made_from = {
        "model": read_json(model)["files"],
        "tokens": sha256(rows),
        "weights": None if record is None else read_json(record)["weights_sha256"],
        "settings": {key: value for key, value in settings.items() if key != "mode"}
        | {"device": pick_device(settings["device"]).type},
        "code": code,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def stored(path: str | Path, key: bytes) -> str | None:
    """Read one entry of a score file's metadata; None where the file is absent or damaged."""
    try:
        return pq.read_schema(path).metadata[key].decode()
    except (FileNotFoundError, pa.lib.ArrowInvalid):
        return None


def write_scores(path: str | Path, columns: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write one method's scores as Parquet.

    Args:
        columns: values per row, `[rows]` or `[rows, tokens]`; None leaves a column out.
        metadata: entries that `stored` finds again.
    """

    def column(values: Any) -> pa.Array:
        if np.ndim(values) == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    present = {name: column(values) for name, values in columns.items() if values is not None}
    table = pa.table(present).replace_schema_metadata(dict(metadata))
    with atomic(path) as partial:
        pq.write_table(table, partial, compression="zstd")
