"""Fixtures that several test files use."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def llama_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama directory with tokenizer; not to be changed."""
    from tiny_checkpoints import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def llama_directory(llama_source: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama directory that a test may damage."""
    return Path(shutil.copytree(llama_source, tmp_path / "llama"))
