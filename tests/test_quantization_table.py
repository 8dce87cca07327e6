"""The table of what quantization cost, and the check of calibration against what is scored."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from run_script import run_script

from lowbit.inputs.near_duplicates import nearest_pair
from lowbit.inputs.tokens import TokenRows, write_tokens


def record(outputs: list[float], bits: list[int], backend: str = "auto-gptq") -> dict:
    layers = {
        f"model.layers.{place}.fc": {
            "bits": width,
            "weight_error": 0.2,
            "rtn_weight_error": 0.1,
            "output_error": output,
            "rtn_output_error": 0.2,
        }
        for place, (output, width) in enumerate(zip(outputs, bits, strict=True))
    }
    return {
        "quantizer": "gptq",
        "backend": backend,
        "settings": {"bits": 3, "group_size": 64},
        "versions": {"auto-gptq": "0.7.1", "torch": "2"},
        "bits_per_weight": 3.625,
        "kept_in_full_precision": [],
        "layers": layers,
    }


def tabulate(folder: Path, records: dict[str, dict]) -> tuple[pd.DataFrame, str]:
    paths = []
    for name, each in records.items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(each))
    table, page = folder / "quantization.csv", folder / "quantization.md"
    options = ["--names", json.dumps(list(records)), "--csv", table, "--markdown", page]
    told = run_script(
        "tabulate_quantization.py", folder, "--model", "m", "--records", *paths, *options
    )
    assert told == ""
    return pd.read_csv(table), page.read_text()


def test_errors_are_means_over_layers_beside_rtn(tmp_path: Path) -> None:
    table, page = tabulate(tmp_path, {"a": record([0.1, 0.3, 0.05], [3, 3, 3])})
    row = table.iloc[0]
    assert row["method"] == "a"
    assert row["output_error"] == 0.15
    assert row["output_ratio"] == 0.75
    assert (row["worse_layers"], row["layers"], row["layer_bits"]) == (1, 3, "3x3")
    assert (
        "| a | auto-gptq 0.7.1 | 3 | 64 | 3.62 | 0.2000 | 0.1000 | 0.1500 | 0.2000 | 0.75 " in page
    )


def test_layers_of_different_bits_and_undefined_errors_are_shown(tmp_path: Path) -> None:
    mixed = record([0.1, None, 0.1], [4, 8, 4], backend="own")
    table, page = tabulate(tmp_path, {"b": record([0.1], [3]), "a": mixed})
    assert list(table["method"]) == ["b", "a"]
    assert table["layer_bits"][1] == "2x4 1x8"
    assert table["output_error"][1] == 0.1
    assert "| a | this project | 2x4 1x8 |" in page


def test_errors_that_cannot_be_known_are_dashes_and_not_beside_rtn(tmp_path: Path) -> None:
    unknown = record([None, None], [4, 4], backend="published")
    for layer in unknown["layers"].values():
        layer["weight_error"] = None
    table, page = tabulate(tmp_path, {"a": record([0.3], [3]), "b": unknown})
    assert table["worse_layers"][0] == 1
    assert table["worse_layers"].isna()[1]
    assert "| - | 0.1000 | - | 0.2000 | - | - |" in page


def check_calibration(folder: Path, scored: np.ndarray, texts: np.ndarray) -> str:
    for name, table in (("scored", scored), ("texts", texts)):
        ids = [f"{name}{row}" for row in range(len(table))]
        rows = TokenRows(ids, table.astype(np.int32), 0, len(table))
        write_tokens(folder / f"{name}.parquet", rows)
    return run_script(
        "check_calibration.py",
        folder,
        *("--tokens", "scored.parquet", "--calibration", "texts.parquet", "--names", '["c"]'),
        *("--settings", '{"duplicate_ngram": 5, "duplicate_jaccard": 0.1}'),
        *("--output", "overlap.json"),
    )


def test_calibration_far_from_what_is_scored_is_recorded(tmp_path: Path) -> None:
    scored = np.arange(120).reshape(4, 30)
    texts = np.arange(1000, 1040).reshape(2, 20)
    texts[1, 3:8] = scored[2, 6:11]  # one shared 5-gram of 16 + 26 - 1
    assert check_calibration(tmp_path, scored, texts) == ""
    found = json.loads((tmp_path / "overlap.json").read_text())["c"]
    assert found == {"largest_jaccard": round(1 / 41, 6), "text": "texts1", "document": "scored2"}


def test_calibration_that_is_scored_is_refused(tmp_path: Path) -> None:
    scored = np.arange(120).reshape(4, 30)
    told = check_calibration(tmp_path, scored, scored[1:2, :20])
    assert "calibration.c and documents overlap: texts0 and scored1 share token 5-grams" in told
    assert not (tmp_path / "overlap.json").exists()


def test_nearest_pair_of_tables_without_a_shared_ngram_or_too_short() -> None:
    first, second = np.arange(10).reshape(1, 10), np.arange(10, 24).reshape(2, 7)
    assert nearest_pair(first, second, 5) == (0.0, 0, 0)
    assert nearest_pair(first, first[:, :4], 5) == (0.0, 0, 0)
    assert nearest_pair(first, first, 5) == (1.0, 0, 0)
