"""Run Snakemake in this folder, one run at a time: `python scripts/study/launch.py <options>`.

Snakemake's own lock outlives a killed run and must then be removed by hand. The lock taken here
ends with its process, however that ends; so while it is held, what a run left behind is a remnant:
files, and jobs that go on where Snakemake alone was killed, and would hold memory and a GPU.
"""

import argparse
import errno
import fcntl
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lowbit.errors import InputError
from study.cluster import cancel_left_jobs, check_cluster, read_profile, runs_on_cluster

HEAD = "LOWBIT_HEAD"
"""Variable that tells a job the process of its Snakemake; see rules/common.smk."""
STATE = Path(".snakemake")
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What file systems without locks answer."""
PATIENCE = 3.0
"""Seconds that another run is waited for: jobs of one that was just killed have the lock until the
system has cleared them away."""


def take_lock(path: Path) -> int:
    """Lock this folder for the life of this process; return the descriptor of the lock file.

    Raises:
        SystemExit: another run has the lock; names its process and says what to do. Or the file
            system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    end = time.monotonic() + PATIENCE
    while not _is_locked(lock):
        if time.monotonic() > end:
            sys.exit(
                f"error: another run is at work in this folder ({path.read_text()}). Wait until it "
                "ends, or stop it, and run the same command again: finished jobs are kept."
            )
        time.sleep(0.05)
    os.truncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {platform.node()}".encode())
    return lock


def _is_locked(descriptor: int) -> bool:
    """Try to lock the file; whether it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        sys.exit(
            f"error: the file system of {Path.cwd()} has no file locks ({error.strerror}), which "
            "keep two runs apart. Move this folder to another, such as a scratch file system, or "
            "have this one mounted with locks (Lustre: -o flock)."
        )
    return True


def remove_remnants() -> None:
    """Remove what a killed run left: Snakemake's locks and half-written files."""
    for remnant in (*STATE.glob("locks/*"), *Path("results").glob("**/*.partial")):
        remnant.unlink()


def end_leftover_jobs() -> None:
    """End jobs of this folder whose Snakemake is no more (`HEAD` in their environment)."""
    ended = 0
    for process in psutil.process_iter():
        try:
            head = process.environ().get(HEAD, "")
            if head.isdigit() and Path(process.cwd()) == Path.cwd() and not _alive(int(head)):
                process.kill()
                ended += 1
        except psutil.Error:  # it has just ended, or is not ours
            continue
    if ended:
        print(f"ended {ended} processes that a killed run had left at work", file=sys.stderr)


def _alive(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def check_profile(arguments: Sequence[str]) -> None:
    """See whether the cluster, where the profile runs jobs on one, has what the study asks for.

    Raises:
        InputError: it cannot; says what to change.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workflow-profile", type=Path)
    parser.add_argument("--configfile", type=Path)
    given, _ = parser.parse_known_args(arguments)
    if given.workflow_profile and runs_on_cluster(read_profile(given.workflow_profile)):
        check_cluster(given.workflow_profile, given.configfile and asks_for_gpu(given.configfile))


def asks_for_gpu(file: Path) -> bool:
    """Whether a study may use a GPU."""
    from study.config.study import load_study

    return load_study(Path("config.yaml"), file).engine.device != "cpu"


def main(arguments: Sequence[str]) -> None:
    """Take the lock and become Snakemake, which keeps the lock to its end."""
    lock = take_lock(STATE / "run.lock")
    end_leftover_jobs()
    try:
        check_profile(arguments)
        cancel_left_jobs()
    except InputError as error:
        sys.exit(f"error: {error}")
    remove_remnants()
    os.set_inheritable(lock, True)
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
