"""GPTQModel and llm-compressor: their checks, run in their environment."""

import pytest
from environments import outcomes_in

CHECKS = [
    "gptqmodel_properties",
    "gptqmodel_parity",
    "gptqmodel_by_hand",
    "gptqmodel_bad_input",
    "llm_compressor_properties",
    "llm_compressor_parity",
    "llm_compressor_by_hand",
    "llm_compressor_bad_input",
    "awq_properties",
    "awq_parity",
    "awq_scales",
    "awq_bad_input",
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What went wrong in each check."""
    return outcomes_in("modern", "tests/library_checks/modern.py")


@pytest.mark.parametrize("check", CHECKS)
def test_modern(check: str, outcomes: dict[str, str]) -> None:
    assert outcomes[check] == ""


def test_every_check_is_run(outcomes: dict[str, str]) -> None:
    assert sorted(outcomes) == sorted(CHECKS)
