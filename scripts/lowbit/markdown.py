"""Small pieces of Markdown."""

import math
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a table; bars and line breaks inside cells are made safe.

    Raises:
        ValueError: a row that has not as many cells as the header.
    """
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"{len(header)} columns, but a row of {len(wrong[0])} cells: {wrong[0]}")
    lines = [
        [_cell(text) for text in header],
        ["---"] * len(header),
        *([_cell(text) for text in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plain(text: str) -> str:
    """Show a text as it is, without any markup it happens to hold."""
    return "".join(f"\\{letter}" if letter in "\\`*_<>[]" else letter for letter in text)


def number(value: float) -> str:
    """Show a number with two decimals, or two significant digits where it is below 0.1."""
    return _rounded([value])[0]


def number_with_interval(value: float, low: float, high: float) -> str:
    """'0.48 [0.40, 0.55]', all with the same decimals; '0.48' where there is no interval, and
    nothing where there is no value."""
    if math.isnan(value):
        return ""
    if math.isnan(low):
        return number(value)
    value_text, low_text, high_text = _rounded([value, low, high])
    return f"{value_text} [{low_text}, {high_text}]"


def _rounded(values: Sequence[float]) -> list[str]:
    """Round to two decimals, or to two significant digits of the largest value below 0.1.

    A third decimal is added where a bound would be shown as 0 and is not.
    """
    largest = max(abs(value) for value in values)
    decimals = 2 if largest >= 0.1 or largest == 0 else 1 - math.floor(math.log10(largest))
    if any(value and not round(value, decimals) for value in values):
        decimals += 1
    return [f"{value:.{decimals}f}" for value in values]


def _cell(text: str) -> str:
    """Make text safe inside a table cell."""
    return " ".join(text.split()).replace("|", "\\|")
