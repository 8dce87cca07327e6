"""One uninterrupted run of the small study, and copies of it."""

import shutil
from pathlib import Path

import pytest
from copies import Copy, copy_sources
from filelock import FileLock


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The repository as it is now, without results; not to be changed."""
    return copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def made_once(sources: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small study ran without interruption; all workers have the same."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if own.name.startswith("popen-") else own) / "made_once"
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.copytree(sources.folder, folder, symlinks=True)
            Copy(folder).study()
            done.touch()
    return folder


@pytest.fixture(scope="session")
def finished(made_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """This worker's copy of it, with its dates; not to be changed."""
    return fork(made_once, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def fresh(sources: Copy, tmp_path: Path) -> Copy:
    """A copy without results, in a folder of its own."""
    return fork(sources.folder, tmp_path / "fresh")


@pytest.fixture
def done(finished: Copy, tmp_path: Path) -> Copy:
    """A copy with the finished study and its dates, in a folder of its own."""
    return fork(finished.folder, tmp_path / "done")


def fork(folder: Path, new: Path) -> Copy:
    """The same files, with their dates, in another folder."""
    return Copy(Path(shutil.copytree(folder, new / "repository", symlinks=True)))
