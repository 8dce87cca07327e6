"""Companded quantizers: their transforms, their levels by hand, and fits against theory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.errors import InputError
from lowbit.quantization.companding import Compander, fit_compander
from lowbit.quantization.quantized import dequantize, relative_error
from lowbit.quantizers import power, rtn
from lowbit.quantizers.power import Power

COMPANDERS: list[Compander] = [Power(), Power(0.1), Power(0.5), Power(1.0), Power(2.0)]
named = pytest.mark.parametrize("compander", COMPANDERS, ids=str)


def gaussian(rows: int = 64, columns: int = 128, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


@named
def test_a_compander_is_an_odd_increasing_map_of_the_interval_onto_itself(
    compander: Compander,
) -> None:
    u = torch.arange(-1000, 1001, dtype=torch.float64) / 1000
    f = compander.forward(u)
    assert f[[0, 1000, 2000]].tolist() == [-1.0, 0.0, 1.0]
    assert torch.equal(f, -f.flip(0))
    assert (f.diff() > 0).all()
    torch.testing.assert_close(compander.inverse(f), u)
    torch.testing.assert_close(compander.forward(compander.inverse(u)), u)


@named
@pytest.mark.parametrize("bits", range(2, 9))
def test_levels_are_distinct_symmetric_and_hold_zero_and_the_extremes(
    compander: Compander, bits: int
) -> None:
    levels = compander.levels(bits)
    assert levels.dtype == torch.float32
    assert len(levels) == 2**bits - 1
    assert (levels.diff() > 0).all()
    assert torch.equal(levels, -levels.flip(0))
    assert levels[-1] == 1
    assert levels[len(levels) // 2] == 0


@named
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_level_is_its_own_step(compander: Compander, bits: int) -> None:
    half = 2 ** (bits - 1) - 1
    levels = compander.levels(bits)[half:]
    assert compander.steps(levels, bits).tolist() == list(range(half + 1))


@pytest.mark.parametrize("group_size", [15, "row", "tensor"])
def test_the_cube_root_is_exact_at_its_grid_points(group_size: int | str) -> None:
    points = torch.arange(-7, 8).double().div(7).pow(3).float()
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    weight = torch.stack([points, points[order] * 0.3, -points]).repeat(1, 2)
    if group_size == "tensor":
        weight = weight[[0, 2]]
    restored = dequantize(power.quantize(weight, bits=4, group_size=group_size))
    assert torch.equal(restored, weight)


def test_the_cube_root_rounds_before_the_inverse_transform() -> None:
    """Levels 0, 1/27, 8/27, 1; 0.13 is nearer to 1/27, but its cube root 0.507 to 2/3."""
    layer = power.quantize(torch.tensor([[1.0, 0.13, 0.12, -0.004, -0.005]]), bits=3, group_size=5)
    codebook = torch.tensor([-27.0, -8.0, -1.0, 0.0, 1.0, 8.0, 27.0]) / 27
    torch.testing.assert_close(layer.codebook, codebook)
    assert layer.codes.tolist() == [[6, 5, 4, 3, 2]]


def test_an_exponent_of_one_is_the_uniform_grid() -> None:
    for group_size in (32, "row", "tensor"):
        layer = power.quantize(gaussian(), bits=4, group_size=group_size, exponent=1.0)
        uniform = rtn.quantize(gaussian(), bits=4, group_size=group_size, symmetric=True)
        torch.testing.assert_close(dequantize(layer), dequantize(uniform))


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(2, 8), st.sampled_from([32, "row", "tensor"]), st.integers(0, 999))
def test_the_fitted_exponent_has_the_least_error(
    bits: int, group_size: int | str, seed: int
) -> None:
    """Against the definition, written out in float64."""
    weight, half = gaussian(seed=seed) ** 3, 2 ** (bits - 1) - 1
    size = {"row": 128, "tensor": weight.numel()}.get(group_size, group_size)
    groups = weight.double().view(-1, size)
    u = groups / groups.abs().amax(1, keepdim=True)

    def error(exponent: float) -> float:
        codes = (u.abs() ** exponent * half).round()
        restored = (codes / half) ** (1 / exponent) * u.sign() * groups.abs().amax(1, keepdim=True)
        return (torch.linalg.vector_norm(groups - restored) / groups.norm()).item()

    fitted = power.quantize(weight, bits=bits, group_size=group_size, exponent="fit")
    least = min(map(error, power.FITTED))
    assert relative_error(weight, dequantize(fitted)) == pytest.approx(least, rel=1e-5)


def test_the_fitted_exponent_is_that_of_high_resolution_theory() -> None:
    """x = t**3 with t even on [-1, 1]: E[1 / f'(x)**2] (Bennett) is least for f = x**(7/9)."""
    weight = torch.linspace(-1, 1, 2**18, dtype=torch.float64).pow(3).float().view(512, 512)
    found = fit_compander(map(Power, power.FITTED), weight, bits=8, group_size="tensor")
    assert found.exponent == pytest.approx(7 / 9, abs=0.01)


def test_parameters_that_give_no_transform_are_told() -> None:
    for exponent in (0.0, -1.0, 0.09, 3.0, float("nan")):
        with pytest.raises(InputError, match=r"write a number from 0\.1 to 2"):
            power.quantize(gaussian(), bits=3, group_size=32, exponent=exponent)
