"""Non-uniform quantizers: transforms, levels by hand, and what is fitted, against theory."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.errors import InputError
from lowbit.quantization.companding import Compander
from lowbit.quantization.quantized import QuantizedLayer, dequantize, relative_error
from lowbit.quantizers import log, piecewise, power, rtn, sigmoid
from lowbit.quantizers.log import MuLaw
from lowbit.quantizers.piecewise import PiecewiseLinear
from lowbit.quantizers.power import Power
from lowbit.quantizers.sigmoid import Sigmoid

COMPANDERS: list[Compander] = [
    *(Power(), Power(0.1), Power(0.5), Power(1.0), Power(2.0)),
    *(Sigmoid(), Sigmoid(0.1), Sigmoid(20.0)),
    *(MuLaw(), MuLaw(0.01), MuLaw(1e6)),
    *(PiecewiseLinear(), PiecewiseLinear(0.01), PiecewiseLinear(0.5)),
]
named = pytest.mark.parametrize("compander", COMPANDERS, ids=str)


def gaussian(rows: int = 64, columns: int = 128, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


@named
def test_a_compander_is_an_odd_increasing_map_of_the_interval_onto_itself(
    compander: Compander,
) -> None:
    u = torch.arange(-1000, 1001, dtype=torch.float64) / 1000
    f = compander.forward(u)
    assert f[[0, 1000, 2000]].tolist() == pytest.approx([-1.0, 0.0, 1.0], abs=1e-15)
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


def test_levels_by_hand() -> None:
    """f^-1 of 1/3 and 2/3."""
    weight = torch.tensor([[-1.0, 0.1, 0.5, 1.0]])
    for layer, expected in [
        (sigmoid.quantize(weight, bits=3, group_size=4, steepness=2.0), [0.2595395, 0.5596658]),
        (log.quantize(weight, bits=3, group_size=4, mu=7.0), [1 / 7, 3 / 7]),
        (piecewise.quantize(weight, bits=3, group_size=4, break_point=0.3), [0.2, 1.6 / 3]),
    ]:
        low, high = expected
        levels = torch.tensor([-1.0, -high, -low, 0.0, low, high, 1.0])
        torch.testing.assert_close(layer.codebook, levels, rtol=1e-5, atol=0)


def test_curves_by_hand() -> None:
    u = torch.tensor([0.0, 0.1, -0.3, 0.5, -1.0], dtype=torch.float64)
    by_definition = {
        Sigmoid(5.0): [np.tanh(2.5 * value) / np.tanh(2.5) for value in u.tolist()],
        MuLaw(15.0): [np.sign(v) * np.log2(1 + 15 * abs(v)) / 4 for v in u.tolist()],
        PiecewiseLinear(0.3): [0.0, 0.1 / 0.6, -0.5, 0.5 + 0.2 / 1.4, -1.0],
    }
    for compander, expected in by_definition.items():
        assert compander.forward(u).tolist() == pytest.approx(expected, rel=1e-12)


FITS: list[tuple[Callable[..., QuantizedLayer], str, Callable[[float], Compander], list[float]]] = [
    (power.quantize, "exponent", Power, power.FITTED),
    (sigmoid.quantize, "steepness", Sigmoid, sigmoid.FITTED),
    (log.quantize, "mu", MuLaw, log.FITTED),
    (piecewise.quantize, "break_point", PiecewiseLinear, piecewise.FITTED),
]


@settings(max_examples=10)
@given(
    st.sampled_from(FITS),
    st.integers(2, 8),
    st.sampled_from([32, "row", "tensor"]),
    st.integers(0, 999),
)
def test_a_fitted_parameter_has_the_least_error(
    fit: tuple, bits: int, group_size: int | str, seed: int
) -> None:
    """Against the definition, written out in float64."""
    quantize, key, family, candidates = fit
    weight, half = gaussian(seed=seed) ** 3, 2 ** (bits - 1) - 1
    size = {"row": 128, "tensor": weight.numel()}.get(group_size, group_size)
    groups = weight.double().view(-1, size)
    largest = groups.abs().amax(1, keepdim=True)

    def error(parameter: float) -> float:
        compander = family(parameter)
        steps = (compander.forward(groups / largest) * half).round()
        restored = compander.inverse(steps / half) * largest
        return (torch.linalg.vector_norm(groups - restored) / groups.norm()).item()

    fitted = quantize(weight, bits=bits, group_size=group_size, **{key: "fit"})
    least = min(map(error, candidates))
    assert relative_error(weight, dequantize(fitted)) == pytest.approx(least, rel=1e-5)


def test_the_fitted_exponent_is_that_of_high_resolution_theory() -> None:
    """x = t**3 with t even on [-1, 1]: E[1 / f'(x)**2] (Bennett) is least for f = x**(7/9)."""
    weight = torch.linspace(-1, 1, 2**18, dtype=torch.float64).pow(3).float().view(512, 512)
    layer = power.quantize(weight, bits=8, group_size="tensor", exponent="fit")
    exponent = np.log(64 / 127) / np.log(layer.codebook[127 + 64].item())
    assert exponent == pytest.approx(7 / 9, abs=0.01)


def test_the_fitted_break_point_is_that_of_high_resolution_theory() -> None:
    """The same t**3: 4 b**2 P(x < b) + 4 (1 - b)**2 P(x > b), with P(x < b) = b**(1/3)."""
    weight = torch.linspace(-1, 1, 2**18, dtype=torch.float64).pow(3).float().view(512, 512)
    layer = piecewise.quantize(weight, bits=8, group_size="tensor")

    def error(b: np.ndarray | float) -> np.ndarray | float:
        return b**2 * np.cbrt(b) + (1 - b) ** 2 * (1 - np.cbrt(b))

    found = layer.codebook[127 + 32].item() * 127 / 64  # on the inner line, which ends at 63.5
    assert error(0.5) > 1.03 * error(found)
    assert error(found) < 1.002 * error(np.linspace(0.01, 0.5, 5000)).min()


def test_parameters_that_give_no_transform_are_told() -> None:
    for quantize, parameter, text in [
        (power.quantize, {"exponent": 0.0}, r"exponent is 0\.0; write a number from 0\.1 to 2"),
        (power.quantize, {"exponent": float("nan")}, "exponent is nan; write a number"),
        (sigmoid.quantize, {"steepness": 21.0}, r"steepness is 21\.0; write .* 0\.1 to 20"),
        (log.quantize, {"mu": -1.0}, r"mu is -1\.0; write a number from 0\.01 to 1000000"),
        (piecewise.quantize, {"break_point": 0.6}, r"break_point is 0\.6; .* 0\.01 to 0\.5"),
    ]:
        with pytest.raises(InputError, match=text):
            quantize(gaussian(), bits=3, group_size=32, **parameter)
