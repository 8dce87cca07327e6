"""Errors beside the weights they belong to, on models of several architectures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mechanism_inputs import SETTINGS, linear_weights, open_engine, write_model
from run_script import run_script
from tiny_models import build

from lowbit.experiments import rounding
from lowbit.experiments.rounding import rounded_weights
from lowbit.quantization.quantized import dequantize
from lowbit.quantizers import power, rtn


@pytest.mark.parametrize("name", ["llama", "opt", "bloom", "gpt-neox"])
def test_every_projection_is_there_with_its_own_quantized_weights(name: str) -> None:
    model = build(name)
    found = {
        (each.module, each.transform): each
        for each in rounded_weights(open_engine(model), [4], ["uniform", "power"])
    }
    weights = linear_weights(model)
    assert len(found) == 2 * len(weights)
    for full_name, weight in weights.items():
        (module,) = {m for m, _ in found if full_name.endswith(f".{m}")}
        for transform, quantize in (("uniform", rtn.quantize), ("power", power.quantize)):
            options = {"symmetric": True} if transform == "uniform" else {}
            expected = dequantize(quantize(weight, bits=4, group_size="tensor", **options))
            each = found[module, transform]
            np.testing.assert_array_equal(each.x, weight.flatten().numpy())
            np.testing.assert_array_equal(each.quantized, expected.flatten().numpy())


def test_large_matrices_are_sampled_alike_for_every_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "SAMPLE", 100)
    engine = open_engine(build("llama"))
    first, again = (list(rounded_weights(engine, [4, 8], ["uniform"])) for _ in range(2))
    assert {len(each.x) for each in first} == {100}
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.quantized, other.quantized)
    of_module = [each.x for each in first if each.module == "0.mlp.up_proj"]
    np.testing.assert_array_equal(*of_module)


def test_the_script_finds_the_slopes_of_the_grids(tmp_path: Path) -> None:
    write_model(tmp_path, "llama")
    arguments = ("--settings", json.dumps(SETTINGS), "--bits", 4, 8)
    written = []
    for number in range(2):
        output = tmp_path / f"{number}.csv"
        assert not run_script(
            *("relate_errors.py", Path.cwd(), "--model", tmp_path / "model.json", *arguments),
            *("--output", output),
        )
        written.append(output.read_bytes())
    assert written[0] == written[1]
    table = pd.read_csv(tmp_path / "0.csv")
    assert list(table.columns[:4]) == ["module", "bits", "transform", "values"]
    fine = table[(table["bits"] == 8) & (table["values"] == "not rounded to 0")]
    slopes = fine.groupby("transform")["slope"].median()
    assert slopes["uniform"] == pytest.approx(0, abs=0.05)
    assert slopes["power"] == pytest.approx(2 / 3, abs=0.05)
