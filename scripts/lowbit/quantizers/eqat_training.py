"""What both phases of EfficientQAT share: the learning rate's schedule and a check of losses."""

import math

from torch import Tensor

from lowbit.errors import InputError


def cosine(position: int, steps: int, last: float = 0.0) -> float:
    """Factor of the learning rate at step `position`: from 1 along half a cosine towards `last`."""
    return last + (1 - last) * (1 + math.cos(math.pi * position / steps)) / 2


def require_finite(value: Tensor, position: int, where: str, settings: str) -> None:
    """Raise `InputError` where training diverged; it names the settings to lower.

    Args:
        value: a loss or a parameter.
        position: steps done; before the first one no learning rate can be at fault.
        where: "block 3" or the like.
        settings: learning rates that moved the parameters.
    """
    if value.isfinite().all():
        return
    if position == 0:
        raise InputError(
            f"eqat: the loss of {where} is not a finite number before the first step of training; "
            "the model overflows on the calibration text"
        )
    raise InputError(
        f"eqat: the loss of {where} is no finite number any more after {position} steps of "
        f"training; write a lower {settings}"
    )
