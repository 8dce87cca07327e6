"""Every environment, built from nothing: `make test-environments` (a quarter of an hour, and 10 GB
of disk at most for a while; not part of `make test`).

What an environment file pins must be exactly what is installed, by the stand-in as by a real conda:
then both install the same.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from study.records.locks import lock_of

ROOT = Path(__file__).resolve().parents[1]
STANDIN = ROOT / "envs" / "standin"
FILES = sorted((ROOT / "envs").glob("*.yaml"))
UNPINNED = {"pip", "setuptools", "wheel"}
"""What Python's own venv module and conda bring along, in versions of their own: fine as long as no
package needs it."""
SECONDS = 1800


def real_conda() -> str | None:
    """A conda that is not the stand-in."""
    path = os.environ["PATH"].split(os.pathsep)
    return shutil.which("conda", path=os.pathsep.join(p for p in path if Path(p) != STANDIN))


BUILDERS = {"stand-in": str(STANDIN / "conda"), "conda": real_conda()}


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module", params=BUILDERS)
def environment(
    request: pytest.FixtureRequest, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """An environment that was just made from the file; removed again after its tests."""
    builder = BUILDERS[request.param]
    if builder is None:
        pytest.skip("conda: not verified, because none is found on this machine")
    prefix = tmp_path_factory.mktemp(file.stem) / "environment"
    command = [builder, "env", "create", "--quiet", "--file", str(file), "--prefix", str(prefix)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    yield prefix
    shutil.rmtree(prefix)


def versions(requirements: list[str]) -> dict[str, str]:
    """Name -> version of lines `name==version`. A build for one kind of machine, such as
    2.13.0+cpu, is the same release."""
    pairs = (line.split("==") for line in requirements)
    return {canonicalize_name(name): version.partition("+")[0] for name, version in pairs}


def pins(file: Path) -> dict[str, str]:
    """What the file pins."""
    dependencies = yaml.safe_load(file.read_bytes())["dependencies"]
    return versions(next(entry["pip"] for entry in dependencies if isinstance(entry, dict)))


def pip(prefix: Path, *arguments: str) -> list[str]:
    """Lines of what the environment's pip says."""
    command = [str(prefix / "bin/python"), "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def requirements(prefix: Path) -> list[Requirement]:
    """What the installed packages require, extras left out."""
    folders = [str(folder) for folder in prefix.glob("lib/python3.*/site-packages")]
    required = (distribution.requires or [] for distribution in distributions(path=folders))
    found = map(Requirement, chain.from_iterable(required))
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def brought_along(required: list[Requirement]) -> dict[str, str]:
    """What an installed package itself pins, as torch does the libraries of CUDA: which these are
    depends on the machine, their versions do not."""
    exact = re.compile(r"==[^*,]+")
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in required
        if exact.fullmatch(str(one.specifier))
    }


def test_what_is_installed_is_what_is_pinned(environment: Path, file: Path) -> None:
    pip(environment, "check")
    installed, pinned = versions(pip(environment, "freeze", "--all")), pins(file)
    assert {name: installed.get(name) for name in pinned} == pinned
    required = requirements(environment)
    more = installed.items() - pinned.items() - brought_along(required).items()
    needless = UNPINNED - {canonicalize_name(one.name) for one in required}
    assert dict(more).keys() <= needless, more


def test_the_lock_is_what_pip_lists(environment: Path) -> None:
    lock = [line.split()[0] for line in lock_of(environment).splitlines() if line[0] != "#"]
    assert sorted(lock) == sorted(pip(environment, "freeze", "--all"))


def test_python_is_the_version_asked_for(environment: Path, file: Path) -> None:
    dependencies = yaml.safe_load(file.read_bytes())["dependencies"]
    (asked,) = (re.fullmatch(r"python=(.+)", one) for one in dependencies if "python" in one)
    python = [str(environment / "bin/python"), "--version"]
    said = subprocess.run(python, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"Python {asked[1]}.")
