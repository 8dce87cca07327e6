"""auto-gptq and AutoAWQ: their checks, run in their environment."""

import pytest
from environments import outcomes_in

CHECKS = [
    "gptq_properties",
    "gptq_parity",
    "gptq_by_hand",
    "gptq_groups",
    "gptq_bad_input",
    "awq_properties",
    "awq_parity",
    "awq_scales",
    "awq_bad_input",
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What went wrong in each check."""
    return outcomes_in("archived", "tests/library_checks/archived.py")


@pytest.mark.parametrize("check", CHECKS)
def test_archived(check: str, outcomes: dict[str, str]) -> None:
    assert outcomes[check] == ""


def test_every_check_is_run(outcomes: dict[str, str]) -> None:
    assert sorted(outcomes) == sorted(CHECKS)
