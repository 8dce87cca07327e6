"""Run Snakemake in this folder, one run at a time: `python scripts/study/launch.py <its options>`.

Snakemake's own lock outlives a killed run and must then be removed by hand. The lock taken here ends
with its process, however that ends; so while it is held, whatever a run left behind is a remnant.
"""

import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

STATE = Path(".snakemake")


def take_lock(path: Path) -> TextIO:
    """Lock this folder for the life of this process; return the open lock file.

    Raises:
        SystemExit: another run has the lock; names its process and says what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open(path, "a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        sys.exit(
            f"error: another run is at work in this folder (process {lock.read().strip()}). Wait "
            "until it ends, or stop it, and run the same command again: finished jobs are kept."
        )
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def remove_remnants() -> None:
    """Remove what a killed run left: Snakemake's locks and half-written files."""
    for remnant in (*STATE.glob("locks/*"), *Path("results").glob("**/*.partial")):
        remnant.unlink()


def main(arguments: Sequence[str]) -> None:
    """Take the lock and become Snakemake, which keeps the lock to its end."""
    lock = take_lock(STATE / "run.lock")
    remove_remnants()
    os.set_inheritable(lock.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
