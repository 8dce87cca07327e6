"""How |error| goes with |x|: on errors that are known, and on those of the quantizers."""

import numpy as np
import pandas as pd
import pytest
import torch

from lowbit.analysis.error_magnitude import BINS, error_by_magnitude, error_magnitude
from lowbit.errors import InputError
from lowbit.quantization.activations import ActivationQuantization, quantize_activation

FINE = 1e-9
"""Errors are small beside values, so that no quantized value is 0."""


def values(n: int = 40_000, seed: int = 0) -> np.ndarray:
    """Of random sign, their logarithms even from ln 0.05 to 0."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(0.05), 0, n)) * rng.choice([-1.0, 1.0], n)


def quantized(x: np.ndarray, bits: int, exponent: float | None) -> np.ndarray:
    """By one range for all; no exponent is the uniform grid."""
    transform = "uniform" if exponent is None else "power"
    chosen = ActivationQuantization(
        bits=bits, granularity="tensor", transform=transform, parameter=exponent
    )
    return quantize_activation(torch.from_numpy(x).view(1, -1, 1), chosen).numpy().reshape(-1)


def row(table: pd.DataFrame, of: str) -> pd.Series:
    return table.set_index("values").loc[of]


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.5, 2 / 3, 1.0])
def test_the_slope_of_known_errors(slope: float) -> None:
    x = values()
    noise = np.random.default_rng(1).standard_normal(len(x)) * np.abs(x) ** slope * FINE
    found = row(error_magnitude(x, x + noise), "all")
    assert found["n"] == len(x)
    assert found["slope"] == pytest.approx(slope, abs=0.03)
    assert np.sign(round(found["pearson"], 1)) == np.sign(slope)
    assert np.sign(round(found["spearman"], 1)) == np.sign(slope)


def test_errors_of_constant_size_relative_to_x_are_wholly_correlated() -> None:
    x = values()
    found = row(error_magnitude(x, x * (1 + FINE)), "all")
    assert [found["pearson"], found["spearman"]] == pytest.approx([1, 1], abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_uniform_error_is_independent_of_the_value(seed: int) -> None:
    """With even density, which does not fall within a step; bounds of 4 standard errors."""
    x = np.random.default_rng(seed).uniform(-1, 1, 40_000)
    for values in ("all", "not rounded to 0"):
        found = row(error_magnitude(x, quantized(x, 8, None)), values)
        assert abs(found["slope"]) < 0.01
        assert abs(found["pearson"]) < 4 / np.sqrt(len(x))
        assert abs(found["spearman"]) < 4 / np.sqrt(len(x))


@pytest.mark.parametrize("exponent", [1 / 3, 1 / 2])
@pytest.mark.parametrize("seed", range(5))
def test_power_error_grows_as_the_value_to_the_power_of_one_minus_p(
    seed: int, exponent: float
) -> None:
    x = values(seed=seed)
    found = row(error_magnitude(x, quantized(x, 8, exponent)), "all")
    assert found["slope"] == pytest.approx(1 - exponent, abs=0.03)
    assert found["spearman"] > 0.4


def test_what_is_rounded_to_zero_is_set_apart() -> None:
    """On three levels, half of these become 0, with the error |x|."""
    x = np.linspace(-1, 1, 4001)
    table = error_magnitude(x, np.round(x))
    assert row(table, "all")["share"] == 1
    resolved = row(table, "not rounded to 0")
    assert resolved["share"] == pytest.approx(0.5, abs=1e-3)
    assert resolved["spearman"] == pytest.approx(-1, abs=1e-3)
    assert abs(row(table, "all")["spearman"]) < 0.1


def test_bins_hold_equally_many_from_small_to_large() -> None:
    x = values(1000)
    table = error_by_magnitude(x, x + 0.5)
    assert len(table) == BINS
    assert table["n"].tolist() == [50] * BINS
    assert table["magnitude"].is_monotonic_increasing
    assert table["error"].tolist() == pytest.approx([0.5] * BINS)
    first = np.sort(np.abs(x))[:50]
    assert table["magnitude"][0] == pytest.approx(np.median(first))


def test_what_does_not_vary_has_no_relation() -> None:
    x = values(1000)
    relation = ["pearson", "spearman", "slope"]
    assert row(error_magnitude(x, x), "all")[relation].isna().all()
    nothing = row(error_magnitude(x, np.zeros(1000)), "not rounded to 0")
    assert (nothing["n"], nothing["share"]) == (0, 0)
    assert nothing[relation].isna().all()


def test_what_cannot_be_related_is_told() -> None:
    with pytest.raises(InputError, match=r"shape \(100,\) have quantized ones of \(50, 2\)"):
        error_magnitude(np.ones(100), np.ones((50, 2)))
    with pytest.raises(InputError, match="39 values are too few for 20 bins: give 40"):
        error_magnitude(np.ones(39), np.ones(39))
    with pytest.raises(InputError, match="NaN or infinite"):
        error_by_magnitude(np.full(100, np.nan), np.ones(100))
