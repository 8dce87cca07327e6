"""One uninterrupted run of the small study, and copies of it."""

from pathlib import Path

import pytest
from copies import Copy, copy_sources, fork
from filelock import FileLock


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The repository as it is now, without results; not to be changed."""
    return copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def made_once(sources: Copy, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Copy:
    """A copy in which the small study ran without interruption; all workers have the same."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "made_once"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            copy = fork(sources, tmp_path_factory.mktemp("made"))
            copy.study()
            copy.folder.rename(folder)
    return Copy(folder)


@pytest.fixture(scope="session")
def finished(made_once: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """This worker's copy of it, with its dates; not to be changed."""
    return fork(made_once, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def fresh(sources: Copy, tmp_path: Path) -> Copy:
    """A copy without results, in a folder of its own."""
    return fork(sources, tmp_path / "fresh")


@pytest.fixture
def done(finished: Copy, tmp_path: Path) -> Copy:
    """A copy with the finished study and its dates, in a folder of its own."""
    return fork(finished, tmp_path / "done")
