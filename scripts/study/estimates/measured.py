"""Numbers measured on finished studies: what Python and its libraries take, and how fast rules run.

`measured.json` is written by `scripts/study/estimates/fit.py`; nothing in it is typed by hand.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowbit.files import read_json

FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """One rule, from all its finished jobs."""

    memory_mib: float
    """Of Python and its libraries: the peak less what the formulas say of it (where jobs differ, so
    that the largest share by which it is off is least)."""
    seconds: float
    """Of a job's start: of the shortest job."""
    rate: float | None
    """Units of work per second and thread beyond the start; None where time hardly grows."""


def measured_on(file: Path = FILE) -> str:
    """The machine that the numbers are from, in words."""
    return read_json(file)["machine"]


def read_measured(file: Path = FILE) -> dict[str, Measured]:
    """Read the measured numbers, by rule."""
    rules: dict[str, dict[str, Any]] = read_json(file)["rules"]
    return {rule: Measured(**entry) for rule, entry in rules.items()}
