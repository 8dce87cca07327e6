"""Simulated quantization of activations: by hand, by brute force, and what must always hold."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from lowbit.errors import InputError
from lowbit.quantization.activations import (
    COMPANDERS,
    ActivationQuantization,
    largest_magnitude,
    quantize_activation,
)
from lowbit.quantization.quantized import dequantize
from lowbit.quantizers import power, rtn

TRANSFORMS = ["uniform", *COMPANDERS]
DYNAMIC = [("tensor", None), ("token", None), ("group", 4)]
STATIC = [("tensor", None), ("channel", None), ("group", 4)]


def random_activations(*shape: int, seed: int = 0) -> torch.Tensor:
    """Gaussian, but for one large channel."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    x[..., 1] *= 40
    return x


def make(granularity: str, group_size: int | None, **more: object) -> ActivationQuantization:
    return ActivationQuantization(
        **{"bits": 8, "granularity": granularity, "group_size": group_size, **more}
    )


def ranges_by_loop(x: torch.Tensor, chosen: ActivationQuantization) -> torch.Tensor:
    """The dynamic range of every value of `[batch, length, width]`, one at a time."""
    ranges = torch.empty_like(x)
    for document, token, channel in torch.cartesian_prod(*map(torch.arange, x.shape)):
        first = channel - channel % (chosen.group_size or x.shape[2])
        shared = {
            "tensor": x[document],
            "token": x[document, token],
            "group": x[document, token, first : first + (chosen.group_size or 0)],
        }[chosen.granularity]
        ranges[document, token, channel] = max(abs(value) for value in shared.flatten().tolist())
    return ranges


def test_uniform_by_hand() -> None:
    x = torch.tensor([[[3.0, -1.0, 0.4, 0.0], [0.3, 0.1, -0.16, -0.1]]])
    by_token = quantize_activation(x, make("token", None, bits=3))
    expected = torch.tensor([[[3.0, -1.0, 0.0, 0.0], [0.3, 0.1, -0.2, -0.1]]])
    torch.testing.assert_close(by_token, expected)
    by_document = quantize_activation(x, make("tensor", None, bits=3))
    expected = torch.tensor([[[3.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    torch.testing.assert_close(by_document, expected)


def test_cube_root_by_hand() -> None:
    """Levels 0, 1/27, 8/27, 1 of the range; cube roots meet half way at 1/216, 1/8, 125/216."""
    x = torch.tensor([[[27.0, 0.12, 0.13, -3.3, -3.4, 15.6, 15.7, 0.0]]])
    restored = quantize_activation(x, make("token", None, bits=3, transform="power"))
    expected = torch.tensor([[[27.0, 0.0, 1.0, -1.0, -8.0, 8.0, 27.0, 0.0]]])
    torch.testing.assert_close(restored, expected)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("granularity", "group_size"), DYNAMIC)
def test_every_value_is_rounded_on_the_grid_of_its_range(
    granularity: str, group_size: int | None, transform: str
) -> None:
    x = random_activations(2, 5, 8)
    chosen = make(granularity, group_size, bits=4, transform=transform)
    restored = quantize_activation(x, chosen)
    ranges = ranges_by_loop(x, chosen).double()
    if chosen.compander is None:
        levels = (x / ranges * 7).round() / 7
    else:
        steps = (chosen.compander.forward(x / ranges) * 7).round() / 7
        levels = chosen.compander.inverse(steps)
    torch.testing.assert_close(restored.double(), levels * ranges, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_tokens_are_quantized_as_rows_of_a_weight(bits: int) -> None:
    x = random_activations(1, 16, 32)
    cube_root = quantize_activation(x, make("token", None, bits=bits, transform="power"))
    layer = power.quantize(x[0], bits=bits, group_size="row")
    assert torch.equal(cube_root[0], dequantize(layer))
    uniform = quantize_activation(x, make("token", None, bits=bits))
    layer = rtn.quantize(x[0], bits=bits, group_size="row", symmetric=True)
    torch.testing.assert_close(uniform[0], dequantize(layer), rtol=1e-6, atol=0)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("granularity", "group_size"), STATIC)
def test_static_ranges_clip(granularity: str, group_size: int | None, transform: str) -> None:
    calibration, x = random_activations(3, 6, 8), random_activations(2, 5, 8, seed=1) * 4
    chosen = make(granularity, group_size, static=True, transform=transform)
    largest = largest_magnitude(calibration, chosen)
    limits = torch.empty(8)
    for channel in range(8):
        first, last = {"tensor": (0, 8), "channel": (channel, channel + 1)}.get(
            granularity, (channel - channel % 4, channel - channel % 4 + 4)
        )
        limits[channel] = calibration[:, :, first:last].abs().max()
    restored = quantize_activation(x, chosen, largest)
    beyond = x.abs() > limits
    assert beyond.any()
    assert torch.equal(restored[beyond], (limits * x.sign())[beyond])
    inside = quantize_activation(x.clamp(-limits, limits), chosen, largest)
    assert torch.equal(restored, inside)
    assert torch.equal(quantize_activation(restored, chosen, largest), restored)


def test_a_channel_that_was_always_zero_is_clipped_to_zero() -> None:
    chosen = make("channel", None, static=True)
    restored = quantize_activation(torch.ones(1, 2, 3), chosen, torch.tensor([1.0, 0.0, 0.5]))
    assert restored.tolist() == [[[1.0, 0.0, 0.5]] * 2]


def test_ranges_of_batches_are_joined_by_their_maximum() -> None:
    x = random_activations(4, 5, 8)
    for granularity, group_size in STATIC:
        chosen = make(granularity, group_size, static=True)
        parts = [largest_magnitude(part, chosen) for part in x.split(1)]
        assert torch.equal(torch.stack(parts).amax(0), largest_magnitude(x, chosen))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("granularity", "group_size"), DYNAMIC)
@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 6e4, 6e-8])
def test_constants_are_exact_in_every_type(
    value: float, granularity: str, group_size: int | None, transform: str, dtype: torch.dtype
) -> None:
    x = torch.full((2, 3, 8), value, dtype=dtype)
    for bits in (2, 3, 8):
        chosen = make(granularity, group_size, bits=bits, transform=transform)
        restored = quantize_activation(x, chosen)
        assert restored.dtype == dtype
        assert torch.equal(restored, x)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_documents_do_not_affect_each_other(transform: str) -> None:
    x = random_activations(5, 7, 24)
    for granularity, group_size in DYNAMIC:
        chosen = make(granularity, group_size, transform=transform)
        together = quantize_activation(x, chosen)
        alone = torch.cat([quantize_activation(document, chosen) for document in x.split(1)])
        assert torch.equal(together, alone)


@options(max_examples=100)
@given(
    st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=16, max_size=16),
    st.integers(2, 8),
    st.sampled_from(DYNAMIC),
    st.sampled_from(TRANSFORMS),
)
def test_always_finite_odd_and_within_the_range(
    values: list[float], bits: int, grouped: tuple[str, int | None], transform: str
) -> None:
    x = torch.tensor(values).view(1, 2, 8)
    before = x.clone()
    chosen = make(*grouped, bits=bits, transform=transform)
    restored = quantize_activation(x, chosen)
    assert torch.equal(x, before)
    assert restored.isfinite().all()
    assert (restored.abs() <= ranges_by_loop(x, chosen)).all()
    assert (restored * x.sign() >= 0).all()
    assert torch.equal(quantize_activation(-x, chosen), -restored)
    assert torch.equal(quantize_activation(restored, chosen), restored)


def test_activations_need_not_be_contiguous() -> None:
    x = random_activations(2, 8, 8)
    for granularity, group_size in DYNAMIC[1:]:
        for transform in TRANSFORMS:
            chosen = make(granularity, group_size, transform=transform)
            turned = x.transpose(1, 2)
            expected = quantize_activation(turned.contiguous(), chosen)
            assert torch.equal(quantize_activation(turned, chosen), expected)


def test_tokens_without_documents() -> None:
    x = random_activations(2, 5, 8)
    for granularity, group_size in DYNAMIC[1:]:
        chosen = make(granularity, group_size)
        flat = quantize_activation(x.flatten(0, 1), chosen)
        assert torch.equal(flat.view(2, 5, 8), quantize_activation(x, chosen))
    with pytest.raises(InputError, match=r"needs activations \[batch, length, width\], not \[10"):
        quantize_activation(x.flatten(0, 1), make("tensor", None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 16}, "bits is 16; write one of 2, 3"),
        ({"granularity": "row"}, "'row'; write one of tensor, token"),
        ({"granularity": "channel"}, "channel needs static: true"),
        ({"static": True}, "token needs static: false"),
        ({"granularity": "group"}, "group and group_size go together"),
        ({"group_size": 4}, "group and group_size go together"),
        ({"transform": "cube"}, "'cube'; write one of uniform, power"),
        ({"granularity": "group", "group_size": 0}, "group_size is 0; write a number"),
        ({"parameter": 2.0}, "uniform has no parameter"),
        ({"transform": "power", "parameter": 0.0}, "exponent is 0.0; write a number from 0.1"),
    ],
)
def test_settings_that_do_not_go_together_are_told(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**{"granularity": "token", "group_size": None, **changes})


def test_ranges_and_groups_that_do_not_fit_are_told() -> None:
    x = torch.ones(1, 2, 6)
    with pytest.raises(InputError, match="static: true needs ranges"):
        quantize_activation(x, make("tensor", None, static=True))
    with pytest.raises(InputError, match="static: false takes no ranges"):
        quantize_activation(x, make("tensor", None), torch.ones(()))
    with pytest.raises(InputError, match="static: false takes no ranges"):
        largest_magnitude(x, make("token", None))
    with pytest.raises(InputError, match="4 does not divide activations of 6"):
        quantize_activation(x, make("group", 4))
