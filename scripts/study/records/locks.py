"""Locks: exactly what an environment that jobs run in has installed."""

import hashlib
import subprocess
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from lowbit.files import write_text


def lock_of(prefix: Path) -> str:
    """The lock of an environment: Python, what conda installed, and every Python package.

    Packages are written as `pip install -r` reads them. The hash after each is over names and
    hashes of its files as installed, without what depends on the environment's place: programs,
    whose first line names its interpreter, compiled modules and the installer's notes. Equal locks
    therefore mean equal packages, wherever and by whatever they were installed.

    Args:
        prefix: folder of the environment, made by conda or by `python -m venv`.

    Raises:
        FileNotFoundError: there is no environment.
    """
    packages = sorted(
        (distribution.name, distribution.version, _files_digest(distribution))
        for distribution in _installed(prefix)
    )
    conda = sorted(file.stem for file in prefix.glob("conda-meta/*.json"))
    lines = [
        f"# {_python_version(prefix)}",
        *(f"# conda: {name}" for name in conda),
        *(f"{name}=={version}  # files sha256:{digest}" for name, version, digest in packages),
    ]
    return "".join(f"{line}\n" for line in lines)


def write_lock(name: str, prefix: Path, folder: Path) -> Path:
    """Write the lock of environment `name` as `<folder>/<name>-<digest>.txt`; return its path.

    The digest is 8 hex digits over the lock's content, so that a lock is never overwritten by
    another.
    """
    lock = lock_of(prefix)
    path = folder / f"{name}-{hashlib.sha256(lock.encode()).hexdigest()[:8]}.txt"
    if not path.exists():
        write_text(path, lock)
    return path


def _installed(prefix: Path) -> Iterator[Distribution]:
    """The Python packages of an environment, from their metadata: nothing of it is run."""
    folders = [str(folder) for folder in sorted(prefix.glob("lib/python3.*/site-packages"))]
    if not folders:
        raise FileNotFoundError(f"there is no environment in {prefix}")
    return distributions(path=folders)


def _python_version(prefix: Path) -> str:
    """`Python 3.11.7`, as the environment's interpreter says it."""
    command = [str(prefix / "bin" / "python"), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _files_digest(distribution: Distribution) -> str:
    """64 hex digits over names and hashes of a package's own files."""
    listed = (line.rsplit(",", 2) for line in (distribution.read_text("RECORD") or "").splitlines())
    own = sorted(f"{name},{digest}\n" for name, digest, _ in listed if _is_own(name))
    return hashlib.sha256("".join(own).encode()).hexdigest()


def _is_own(name: str) -> bool:
    """Whether a file comes from the package and not from whatever installed it."""
    return not name.endswith(".pyc") and not name.startswith("..") and ".dist-info/" not in name
