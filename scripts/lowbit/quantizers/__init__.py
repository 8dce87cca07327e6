"""The quantizers by name. A new one is one module here and one line in `QUANTIZERS`.

A quantizer's module has `quantize(weight, **settings) -> QuantizedLayer`, for a float32 weight
`[out, in]`, and `LIBRARY`, the distribution whose version the record names. This file imports none
of them: the workflow reads it in an environment without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from lowbit.errors import InputError


@dataclass(frozen=True)
class Quantizer:
    """What the workflow must know of a quantizer without importing it."""

    module: str
    environment: str
    """It runs in `envs/<environment>.yaml`."""
    bits: tuple[int, ...]
    group_sizes: tuple[str, ...] = ()
    """Words that `group_size` may be instead of a number."""
    group_multiple: int = 1
    """A number for `group_size` must be a multiple of this."""
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Further settings and the values they may have, the default first."""


QUANTIZERS: dict[str, Quantizer] = {
    "rtn": Quantizer(
        "lowbit.quantizers.rtn",
        "core",
        bits=(2, 3, 4, 5, 6, 7, 8),
        group_sizes=("row", "tensor"),
        options={"symmetric": (False, True)},
    ),
    "nf": Quantizer(
        "lowbit.quantizers.nf", "core", bits=(2, 3, 4, 5, 6, 7, 8), group_sizes=("row", "tensor")
    ),
    "hqq": Quantizer(
        "lowbit.quantizers.hqq",
        "hqq",
        bits=(2, 3, 4, 5, 6, 8),
        group_sizes=("row",),
        group_multiple=8,
        options={"axis": (1, 0)},
    ),
}


def find_quantizer(name: str) -> Quantizer:
    """Look a quantizer up.

    Raises:
        InputError: there is none of that name.
    """
    if name not in QUANTIZERS:
        raise InputError(
            f"quantizer {name!r} is not known; write one of {_alternatives(QUANTIZERS)}"
        )
    return QUANTIZERS[name]


def load_quantizer(name: str) -> ModuleType:
    """Import a quantizer's module, with the library behind it."""
    return import_module(find_quantizer(name).module)


def complete_settings(quantizer: str, settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Check a method's settings and add the defaults, keys in a fixed order.

    Raises:
        InputError: a missing, unknown or impossible setting; names it as `methods.<method>.<key>`.
    """
    known = find_quantizer(quantizer)
    key = f"methods.{method}"
    unknown = sorted(settings.keys() - {"bits", "group_size", *known.options})
    if unknown:
        allowed = _alternatives(["bits", "group_size", *known.options])
        raise InputError(f"{key}.{unknown[0]} is no setting of {quantizer}; it has {allowed}")
    _check_choice(f"{key}.bits", settings.get("bits"), known.bits)
    _check_group_size(f"{key}.group_size", settings.get("group_size"), known)
    complete = {"bits": settings["bits"], "group_size": settings["group_size"]}
    for option, values in known.options.items():
        complete[option] = settings.get(option, values[0])
        _check_choice(f"{key}.{option}", complete[option], values)
    return complete


def _check_choice(key: str, value: Any, values: tuple[Any, ...]) -> None:
    # By type too: True == 1 and 3.0 == 3 in Python, not in a config.
    if (type(value), value) not in [(type(each), each) for each in values]:
        raise InputError(f"{key} is {value!r}; write one of {_alternatives(values)}")


def _check_group_size(key: str, value: Any, known: Quantizer) -> None:
    multiple = known.group_multiple
    if value in known.group_sizes or (type(value) is int and value > 0 and value % multiple == 0):
        return
    number = "a positive whole number" if multiple == 1 else f"a positive multiple of {multiple}"
    words = "".join(f' or "{word}"' for word in known.group_sizes)
    raise InputError(f"{key} is {value!r}; write {number}{words}, such as 64")


def _alternatives(values: Any) -> str:
    return ", ".join(str(value).lower() if type(value) is bool else str(value) for value in values)
