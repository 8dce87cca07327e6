"""A hub on this machine, for the tests of what comes from the hub."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import Hub, running_hub


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub for all tests, which name their repositories so that they do not meet."""
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(shared_hub: Hub, tmp_path: Path) -> Iterator[Hub]:
    """The hub with an empty cache in front and nothing wrong yet."""
    shared_hub.repair()
    yield dataclasses.replace(shared_hub, home=tmp_path / "home")
    shared_hub.repair()
