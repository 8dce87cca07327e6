"""The cluster, and copies of the repository in which studies run on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from copies import Copy, copy_sources, fork
from slurm import cluster


@pytest.fixture(scope="session", autouse=True)
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A SLURM of three nodes."""
    with cluster(tmp_path_factory.mktemp("cluster")):
        yield


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The repository as it is now, without results; not to be changed."""
    return copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def finished(sources: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy in which the small study ran without the cluster; not to be changed."""
    copy = fork(sources, tmp_path_factory.mktemp("finished"))
    copy.study()
    return copy


@pytest.fixture
def fresh(sources: Copy, tmp_path: Path) -> Copy:
    """A copy without results, in a folder of its own."""
    return fork(sources, tmp_path)
