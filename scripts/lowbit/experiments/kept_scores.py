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
    """Hash all that a method's scores depend on.

    Args:
        model: model.json.
        rows: the token rows that are scored.
        record: the method's method.json; None for the unquantized model.
        settings: the config's `engine`.
        code: digest of the code that scores.
    """
    found = made_from(model, settings, code, tokens=rows, weights=weights_hash(record))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def made_from(model: Path, settings: Mapping[str, Any], code: str, **others: Any) -> dict[str, Any]:
    """All that a job of the engine depends on; `mode` is left out, for it changes no number.

    The device is the one found here: a full model scored on a GPU is none to set beside a method
    scored on a CPU.

    Args:
        model: model.json.
        settings: the config's `engine`.
        code: digest of the job's code.
        others: what else it depends on, as JSON; a path stands for the file's content.
    """
    from lowbit.engine.loading import pick_device

    return {
        "model": read_json(model)["files"],
        "settings": {key: value for key, value in settings.items() if key != "mode"}
        | {"device": pick_device(settings["device"]).type},
        "code": code,
    } | {name: sha256(each) if isinstance(each, Path) else each for name, each in others.items()}


def weights_hash(record: str | Path | None) -> str | None:
    """Content hash of a method's weights, from its method.json; None for the unquantized model."""
    return None if record is None else read_json(record)["weights_sha256"]


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
