"""Lloyd-Max codebooks: against published optima, scikit-learn, and all codebooks of a formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import t as student_t
from sklearn.cluster import KMeans

from lowbit.quantization.quantized import dequantize, relative_error, sqnr_db
from lowbit.quantizers import lloyd_max, log, nf, piecewise, power, rtn, sigmoid


def drawn(seed: int = 0, rows: int = 32, columns: int = 128) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns))).float()


@pytest.mark.parametrize(
    ("bits", "mean_squared_error"), [(2, 0.1175), (3, 0.03454), (4, 0.009497), (5, 0.002499)]
)
def test_gaussian_levels_have_the_error_of_max(bits: int, mean_squared_error: float) -> None:
    """Max (1960), table I: the least errors for a normal variable of variance 1."""
    even = (np.arange(2**18) + 0.5) / 2**18
    weight = torch.from_numpy(ndtri(even)).float().view(512, 512)
    layer = lloyd_max.quantize(weight, bits=bits, group_size="tensor")
    error = (weight - dequantize(layer)).square().mean().item()
    assert error == pytest.approx(mean_squared_error, rel=0.003)


def test_four_levels_by_hand() -> None:
    weight = torch.tensor([[-8.0, -8.0, -6.0, -6.0, 0.0, 1.0, 1.0, 8.0]])
    layer = lloyd_max.quantize(weight, bits=2, group_size="row")
    assert (layer.codebook.sort().values * 8).tolist() == pytest.approx([-8, -6, 2 / 3, 8])
    assert layer.codes.tolist() == [[0, 0, 1, 1, 2, 2, 2, 3]]


def error(values: np.ndarray, importance: np.ndarray, levels: np.ndarray) -> float:
    """By brute force, values `[n, 1]`."""
    return float((importance * ((values - levels) ** 2).min(axis=1)).sum())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [32, "row", "tensor"])
def test_it_ends_where_scikit_learn_ends(bits: int, group_size: int | str) -> None:
    """From the same start, with the same importance: squared scales."""
    weight = drawn() * torch.linspace(0.1, 3, 32).unsqueeze(1)
    layer = lloyd_max.quantize(weight, bits=bits, group_size=group_size)
    size = {"row": 128, "tensor": weight.numel()}.get(group_size, group_size)
    groups = weight.double().view(-1, size)
    largest = groups.abs().amax(1, keepdim=True)
    values = (groups / largest).reshape(-1, 1).numpy()
    importance = largest.square().expand_as(groups).flatten().numpy()
    arranged = lloyd_max.Sorted.of(values[:, 0], importance)
    starts = [nf.codebook(bits).numpy(), *lloyd_max.dense_levels(arranged, 2**bits)]
    start = min(starts, key=lambda levels: error(values, importance, levels))
    means = KMeans(2**bits, init=start[:, None], n_init=1, tol=0, max_iter=3000)
    means.fit(values, sample_weight=importance)
    expected = np.sort(means.cluster_centers_[:, 0])
    np.testing.assert_allclose(layer.codebook.numpy(), expected, atol=2e-6)


@settings(max_examples=40)
@given(st.integers(2, 8), st.sampled_from([16, "row", "tensor"]), st.integers(0, 999))
def test_levels_are_the_means_of_their_weights(bits: int, group_size: int | str, seed: int) -> None:
    weight = drawn(seed, 16, 32)
    layer = lloyd_max.quantize(weight, bits=bits, group_size=group_size)
    size = {"row": 32, "tensor": weight.numel()}.get(group_size, group_size)
    groups = weight.double().view(-1, size)
    scales = groups.abs().amax(1, keepdim=True).expand_as(groups).flatten()
    codes = layer.codes.flatten()
    for code in codes.unique().tolist():
        own, scale = groups.flatten()[codes == code], scales[codes == code]
        best = (own * scale).sum() / scale.square().sum()  # of least sum (own - scale level)**2
        assert layer.codebook[code].item() == pytest.approx(best.item(), abs=1e-6)
    levels = layer.codebook
    assert (levels.diff() >= 0).all()
    nearest = (groups.flatten() / scales).unsqueeze(1).sub(levels).abs().amin(1)
    chosen = (groups.flatten() / scales - levels[codes.long()]).abs()
    torch.testing.assert_close(chosen, nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group_size", [64, "row", "tensor"])
@pytest.mark.parametrize("tails", ["normal", "student", "outlier"])
def test_no_formula_is_better(tails: str, group_size: int | str, bits: int) -> None:
    weight = drawn(rows=64, columns=512)
    if tails == "student":
        even = (np.random.default_rng(1).permutation(64 * 512) + 0.5) / (64 * 512)
        weight = torch.from_numpy(student_t.ppf(even, 3)).float().view(64, 512)
    if tails == "outlier":
        weight[:, :3] *= 60
    chosen = {"bits": bits, "group_size": group_size}
    own = sqnr_db(weight, dequantize(lloyd_max.quantize(weight, **chosen)))
    for layer in (
        rtn.quantize(weight, **chosen, symmetric=True),
        nf.quantize(weight, **chosen),
        power.quantize(weight, **chosen, exponent="fit"),
        sigmoid.quantize(weight, **chosen, steepness="fit"),
        log.quantize(weight, **chosen, mu="fit"),
        piecewise.quantize(weight, **chosen),
    ):
        assert sqnr_db(weight, dequantize(layer)) <= own


def test_the_error_is_that_of_brute_force() -> None:
    values, importance = drawn(rows=1).double().numpy()[0] / 4, np.arange(128.0)
    arranged, constant = lloyd_max.Sorted.of(values, importance), (importance * values**2).sum()
    for levels in (np.array([-0.3, 0.0, 0.4]), np.linspace(-1, 1, 9)):
        found = arranged.error(levels) + constant
        assert found == pytest.approx(error(values[:, None], importance, levels))


def test_fewer_values_than_levels_and_zeros_are_exact() -> None:
    weight = torch.tensor([[0.5, -0.5, 0.25, 0.5], [0.0, 0.0, 0.0, 0.0]])
    for group_size in (2, "row", "tensor"):
        restored = dequantize(lloyd_max.quantize(weight, bits=4, group_size=group_size))
        torch.testing.assert_close(restored, weight, atol=1e-7, rtol=1e-6)
    nothing = torch.zeros(4, 8)
    assert torch.equal(dequantize(lloyd_max.quantize(nothing, bits=3, group_size=4)), nothing)


def test_large_groups_count_more() -> None:
    """The larger rows' weights get the levels they need: their error counts with its square."""
    weight = drawn(rows=2, columns=512)
    weight[1] = weight[1].sign() * weight[1].abs().sqrt()
    for scale, own in [(100.0, 1), (0.01, 0)]:
        both = weight * torch.tensor([[1.0], [scale]])
        restored = dequantize(lloyd_max.quantize(both, bits=3, group_size="row"))
        alone = dequantize(lloyd_max.quantize(both[own : own + 1], bits=3, group_size="row"))
        error = relative_error(both[own], restored[own])
        assert error == pytest.approx(relative_error(both[own], alone[0]), rel=1e-3)
