"""auto-gptq and AutoAWQ: each check runs in their environment (`library_checks/archived.py`)."""

import pytest
from environments import run_in


@pytest.mark.parametrize(
    "check",
    [
        "gptq_properties",
        "gptq_parity",
        "gptq_by_hand",
        "gptq_groups",
        "gptq_bad_input",
        "awq_properties",
        "awq_parity",
        "awq_scales",
        "awq_bad_input",
    ],
)
def test_archived(check: str) -> None:
    run_in("archived", "tests/library_checks/archived.py", check)
