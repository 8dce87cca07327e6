"""Result tables as arrays: documents in rows, methods or layers in columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lowbit.errors import InputError

QUANTITIES = ("r", "z", "h")
"""Mean L2 norms: residual after attention (r), after the MLP (z), and the MLP's input (h)."""

KURTOSES = ("r_kurtosis", "h_kurtosis")
"""Excess kurtosis over dimensions, of r and of h."""

PARALLEL_RESIDUAL = "attention and MLP run in parallel"
"""Why an architecture has no r: there is no residual stream between the two."""

CSV_ROUNDING = 1e-8
"""Relative: `write_csv` keeps nine digits, Parquet all."""

MEAN_OF_METHODS = "mean of methods"
"""Name of a table's rows over all methods; no method of a study can be called that."""


@dataclass(frozen=True)
class Method:
    """What analyses need to know of a method: its name, quantizer and bits."""

    name: str
    quantizer: str
    bits: int


def methods_from_config(config: dict) -> list[Method]:
    """Build methods from {name: {"quantizer", "bits", ...}}, in the config's order."""
    try:
        return [Method(name, entry["quantizer"], entry["bits"]) for name, entry in config.items()]
    except (KeyError, TypeError) as error:
        raise InputError(
            f'--methods must be {{name: {{"quantizer": ..., "bits": ...}}}}; wrong or missing: '
            f"{error}"
        ) from error


def require_methods(frame: pd.DataFrame, methods: Sequence[Method]) -> None:
    """Raise `InputError` unless the table holds exactly the methods of the config."""
    found, expected = set(frame["method"]), {method.name for method in methods}
    if found != expected:
        raise InputError(
            f"the table of errors has the methods {sorted(found)}, --methods has "
            f"{sorted(expected)}: compute the errors again"
        )


def of_different_quantizers(pairs: pd.DataFrame, methods: Sequence[Method]) -> pd.DataFrame:
    """Rows of a table of pairs (method_a, method_b) that count in means over pairs.

    Two settings of one quantizer are hardly two methods: the paper leaves such pairs out.
    """
    quantizers = {method.name: method.quantizer for method in methods}
    return pairs[pairs["method_a"].map(quantizers) != pairs["method_b"].map(quantizers)]


def by_document(frame: pd.DataFrame, column: str, names: Sequence[str]) -> np.ndarray:
    """Turn a long table into [documents, names], documents as in the first method's rows.

    Args:
        frame: doc_id, method and `column`.
        names: methods to take, in this order.
    """
    wide = frame.pivot(index="doc_id", columns="method", values=column)
    return wide.loc[document_ids(frame), list(names)].to_numpy(float)


def matching(table: pd.DataFrame, wanted: Mapping[str, object]) -> np.ndarray:
    """Tell which rows have these values in these columns; bool [rows].

    A float equals what `write_csv` makes of it.
    """
    chosen = np.ones(len(table), bool)
    for column, value in wanted.items():
        if isinstance(value, float):
            chosen &= np.isclose(table[column], value, rtol=CSV_ROUNDING, atol=0)
        else:
            chosen &= (table[column] == value).to_numpy()
    return chosen


def document_ids(frame: pd.DataFrame) -> np.ndarray:
    """Documents in the order of the table."""
    return frame["doc_id"].drop_duplicates().to_numpy()


def norms_by_document(
    residuals: pd.DataFrame, doc_ids: np.ndarray, quantities: Sequence[str] = QUANTITIES
) -> tuple[np.ndarray, list[int]]:
    """Turn residuals (doc_id, layer, r, z, h, ...) into ([documents, quantity, layer], layers).

    A quantity that the architecture does not have, and the table no column of, is nan throughout;
    see `present_quantities`.

    Raises `InputError` if a document of the errors has no residuals.
    """
    layers = sorted(int(layer) for layer in residuals["layer"].unique())
    missing = sorted(set(doc_ids) - set(residuals["doc_id"]))
    if missing:
        raise InputError(
            f"{len(missing)} documents with errors have no residuals, '{missing[0]}' first: "
            "compute residuals and errors from the same tokens"
        )
    complete = residuals.reindex(columns=["doc_id", "layer", *quantities])
    wide = complete.pivot(index="doc_id", columns="layer", values=list(quantities))
    columns = pd.MultiIndex.from_product([quantities, layers])
    values = wide.loc[doc_ids, columns].to_numpy(float)
    return values.reshape(len(doc_ids), len(quantities), len(layers)), layers


def present_quantities(norms: np.ndarray, quantities: Sequence[str] = QUANTITIES) -> list[str]:
    """Names of the quantities in norms [documents, quantity, layer] that are not all nan."""
    absent = np.isnan(norms).all(axis=(0, 2))
    return [name for name, missing in zip(quantities, absent, strict=True) if not missing]


def method_on(method: str, sets_of: str) -> str:
    """Name a method, and whose documents it is on where they are not its own."""
    return method if method == sets_of else f"{method} (documents of {sets_of})"


def membership(sets: pd.DataFrame, method: str, name: str, doc_ids: np.ndarray) -> np.ndarray:
    """Tell which documents are in a method's set (`large`, `control`); bool [documents]."""
    chosen = sets.loc[(sets["method"] == method) & (sets["set"] == name), "doc_id"]
    return np.isin(doc_ids, chosen.to_numpy())
