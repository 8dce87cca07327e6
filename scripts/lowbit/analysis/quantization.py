"""What each method's quantization cost in bits and in layers' errors, beside RTN."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lowbit.markdown import table

HEADERS = {
    "method": "method",
    "library": "made by",
    "bits": "bits",
    "group_size": "group",
    "bits_per_weight": "stored bits per weight",
    "weight_error": "weight error",
    "rtn_weight_error": "RTN's",
    "output_error": "output error",
    "rtn_output_error": "RTN's ",
    "output_ratio": "output error / RTN's",
    "worse_layers": "layers worse than RTN",
}
NOTE = (
    "Means over the model's linear layers. Weight error: ||W - Wq|| / ||W||. Output error: "
    "||XW - XWq|| / ||XW|| for the X that reaches the layer in the full-precision model on the "
    "method's calibration text. RTN: asymmetric rounding to nearest at the same bits and groups. "
    "Stored bits count codes, scales, zeros and codebooks as they are stored (scales in float32); "
    "embeddings, norms and output head are not quantized and not counted. Seconds and memory are "
    "in `benchmarks/quantize/` of the model's shared folder. A dash: scales were moved between the "
    "layers of a published checkpoint and are not stored, so its weights cannot be compared.\n"
)


def quality_table(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per method from its record (`method.json`), in the order given.

    Errors are means over layers; `worse_layers` counts layers whose output error is above RTN's,
    and `layer_bits` tells how many layers have how many bits where not all have the same. Where no
    layer has an error, there is no number.
    """
    rows = [_row(name, record) for name, record in records.items()]
    return pd.DataFrame(rows).astype({"worse_layers": "Int64"})


def _row(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    errors = ["weight_error", "rtn_weight_error", "output_error", "rtn_output_error"]
    layers = pd.DataFrame(record["layers"].values()).astype(dict.fromkeys(errors, float))
    means = layers[errors].mean()
    library, version = next(iter(record["versions"].items()))
    bits = layers["bits"].value_counts().sort_index()
    worse = layers["output_error"] > layers["rtn_output_error"]
    return {
        "method": name,
        "quantizer": record["quantizer"],
        "backend": record["backend"],
        "library": "this project" if record["backend"] == "own" else f"{library} {version}",
        "bits": record["settings"]["bits"],
        "group_size": record["settings"]["group_size"],
        "bits_per_weight": record["bits_per_weight"],
        **means,
        "output_ratio": means["output_error"] / means["rtn_output_error"],
        "worse_layers": worse.sum() if layers["output_error"].notna().any() else None,
        "layers": len(layers),
        "layer_bits": " ".join(f"{count}x{width}" for width, count in bits.items()),
        "kept_in_full_precision": len(record["kept_in_full_precision"]),
    }


def quality_markdown(model: str, quality: pd.DataFrame) -> str:
    """The table as a page."""
    rows = [
        [
            row.method,
            row.library,
            str(row.bits) if " " not in row.layer_bits else row.layer_bits,
            str(row.group_size),
            f"{row.bits_per_weight:.2f}",
            *(_cell(getattr(row, key), ".4f") for key in list(HEADERS)[5:9]),
            _cell(row.output_ratio, ".2f"),
            "-" if pd.isna(row.worse_layers) else f"{row.worse_layers} of {row.layers}",
        ]
        for row in quality.itertuples()
    ]
    return f"# Quantization of {model}\n\n{NOTE}\n{table(list(HEADERS.values()), rows)}"


def _cell(value: float, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)
