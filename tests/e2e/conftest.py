"""One uninterrupted run of the small study, and copies of it."""

import shutil
from pathlib import Path

import pytest
from copies import Copy, copy_sources


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The repository as it is now, without results; not to be changed."""
    return copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def finished(sources: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy in which the small study ran without interruption; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "repository"
    shutil.copytree(sources.folder, folder, symlinks=True)
    copy = Copy(folder)
    copy.study()
    return copy


@pytest.fixture
def fresh(sources: Copy, tmp_path: Path) -> Copy:
    """A copy without results, in a folder of its own."""
    folder = tmp_path / "fresh"
    shutil.copytree(sources.folder, folder, symlinks=True)
    return Copy(folder)


@pytest.fixture
def done(finished: Copy, tmp_path: Path) -> Copy:
    """A copy with the finished study and its dates, in a folder of its own."""
    folder = tmp_path / "done"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Copy(folder)
