"""Fixtures that several test files use."""

import shutil
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let two workers share the tests: what shares a costly fixture stays with one worker.

    The end-to-end tests share a finished study, the others what their file has set up; the longest
    come first.
    """
    for item in items:
        group = "e2e" if "e2e" in item.path.parts else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def llama_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama directory with tokenizer; not to be changed."""
    from tiny_checkpoints import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def llama_directory(llama_source: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama directory that a test may damage."""
    return Path(shutil.copytree(llama_source, tmp_path / "llama"))
