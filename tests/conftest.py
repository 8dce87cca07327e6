"""Fixtures that several test files use."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and no limit of time: these machines are shared.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")

END_TO_END = "tests/e2e/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(END_TO_END))


@pytest.fixture(autouse=True)
def figures_are_closed() -> Iterator[None]:
    """Close what a test has drawn; matplotlib keeps it otherwise, and warns of it."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def llama_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama directory with tokenizer; not to be changed."""
    from tiny_checkpoints import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def llama_directory(llama_source: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama directory that a test may damage."""
    return Path(shutil.copytree(llama_source, tmp_path / "llama"))
