"""Kill a small study at random moments; the same command goes on, and no byte is another.

`python tests/e2e/kills.py --kills 30` runs the study without interruption, then, in fresh copies of
the repository, again and again with some kills each, and prints a table. What is killed by SIGKILL
is one job's process (`worker`), Snakemake alone (`head`), or all that was started (`everything`).
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import psutil
from copies import SECONDS, SMALL, Copy, copy_sources, fork, kill

KINDS = WORKER, HEAD, EVERYTHING = "worker", "head", "everything"
KILLS_IN_A_STUDY = 10
LONGEST_DELAY = 6.0
"""Seconds: from the end of a job to the kill, so that it comes at any moment of the next ones."""
DONE = re.compile(r"^(\d+) of \d+ steps ", re.MULTILINE)
TOTAL = re.compile(r"^total +(\d+)$", re.MULTILINE)
STARTED = re.compile(r"^(?:local)?rule \w+:|^Job \d+: ", re.MULTILINE)


@dataclass(frozen=True)
class Kill:
    """One kill, and what came of it."""

    kind: str
    after: float
    """Share of the study's jobs that are done before."""
    delay: float
    """Seconds from then."""
    at_work: str = ""
    """Scripts that were running."""
    seconds: float = 0.0
    """From the same command to the start of its first job."""


class Run:
    """The study as a command that is under way; what it says is read by a thread."""

    def __init__(self, copy: Copy, study: str) -> None:
        # Jobs keep every part, so that short ones have some.
        self.process = copy.start("study", f"STUDY={study}", LOWBIT_SAVE_EVERY="0")
        self.started = time.monotonic()
        self.first_job: float | None = None
        """Seconds from the command to its first job."""
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if self.first_job is None and STARTED.search(line):
                self.first_job = time.monotonic() - self.started
            self._lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def done(self) -> int:
        """How many jobs of this run are done."""
        return int(([0, *DONE.findall(self.output)])[-1])

    @property
    def jobs(self) -> int:
        """How many jobs this run has; 0 before it says so."""
        return int(([0, *TOTAL.findall(self.output)])[-1])

    def heads(self) -> list[psutil.Process]:
        """Snakemake's process; none before it has started."""
        return [each for each in self._processes() if "snakemake" in _words(each)]

    def workers(self) -> list[psutil.Process]:
        """The scripts that run as jobs."""
        return [each for each in self._processes() if _script(each)]

    def _processes(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait(self) -> int:
        """Wait until the command has ended by itself; return its exit code."""
        code = self.process.wait(timeout=SECONDS)
        self._reader.join(timeout=1)  # a job that was left behind keeps the pipe open
        return code


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return []


def _script(process: psutil.Process) -> str:
    """`score` for a process that runs scripts/score.py, else nothing."""
    words = _words(process)[1:2]
    found = re.fullmatch(r"scripts/(\w+)\.py", words[0]) if words else None
    return found[1] if found else ""


@contextmanager
def running(copy: Copy, study: str) -> Iterator[Run]:
    """A run that is killed, whatever happens, when the block ends."""
    run = Run(copy, study)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            kill(run.process)  # else what it started is left to what comes after


def draw(kills: int, seed: int) -> list[Kill]:
    """Draw when to kill what: each kind in turn, moments in the order of the study."""
    chosen = random.Random(seed)
    kinds = list(islice(cycle(KINDS), kills))
    chosen.shuffle(kinds)
    moments = sorted(chosen.uniform(0, 0.9) for _ in kinds)
    return [
        Kill(kind, after, chosen.uniform(0, LONGEST_DELAY))
        for kind, after in zip(kinds, moments, strict=True)
    ]


def kill_one(run: Run, planned: Kill, done_before: int) -> Kill:
    """Wait for the moment, kill, and wait until the command has ended.

    Args:
        done_before: jobs that were done in the runs before this one.
    """
    _wait(run, lambda: bool(run.jobs))
    first = int(planned.after * (done_before + run.jobs))
    _wait(run, lambda: done_before + run.done >= min(first, done_before + run.jobs - 1))
    wanted = time.monotonic() + planned.delay
    _wait(run, lambda: time.monotonic() >= wanted or run.jobs - run.done <= 1)
    _wait(run, lambda: bool(run.workers() if planned.kind == WORKER else run.heads()))
    workers = run.workers()
    at_work = ", ".join(sorted({_script(each) for each in workers} - {""})) or "Snakemake"
    if planned.kind == WORKER:
        workers[0].kill()
        assert run.wait() != 0, "a run whose job was killed says that it succeeded"
    elif planned.kind == HEAD:
        run.heads()[0].kill()
        assert run.wait() != 0
    else:
        kill(run.process)
        run.wait()
    return replace(planned, at_work=at_work)


def _wait(run: Run, come: object) -> None:
    end = time.monotonic() + SECONDS
    while not come():
        assert run.process.poll() is None, f"the run ended before its kill:\n{run.output}"
        assert time.monotonic() < end, run.output
        time.sleep(0.005)


def kill_again_and_again(copy: Copy, kills: Sequence[Kill], study: str) -> list[Kill]:
    """Kill a study as often as is planned, each time go on, and let it end.

    Raises:
        AssertionError: a run did not start, or the last one did not succeed.
    """
    found, done = [], 0
    for planned in [*kills, None]:
        with running(copy, study) as run:
            killed = None if planned is None else kill_one(run, planned, done)
            if planned is None:
                assert run.wait() == 0, run.output
        done += run.done
        if found:
            assert run.first_job is not None, run.output
            found[-1] = replace(found[-1], seconds=run.first_job)
        found += [killed] if killed else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", default=SMALL)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = copy_sources(Path(folder) / "sources")
        whole = fork(sources, Path(folder) / "whole")
        whole.study(arguments.study)
        expected = whole.results()
        print("| kill | study | killed | jobs done | at work | seconds to resume | identical |")
        print("|---|---|---|---|---|---|---|", flush=True)
        number = 0
        for study, first in enumerate(range(0, arguments.kills, KILLS_IN_A_STUDY)):
            copy = fork(sources, Path(folder) / f"study{study}")
            wanted = min(KILLS_IN_A_STUDY, arguments.kills - first)
            kills = draw(wanted, arguments.seed + study)
            found = kill_again_and_again(copy, kills, arguments.study)
            same = copy.results() == expected
            for each in found:
                number += 1
                print(
                    f"| {number} | {study + 1} | {each.kind} "
                    f"| {each.after:.0%} + {each.delay:.1f} s | {each.at_work} "
                    f"| {each.seconds:.1f} | {'yes' if same else 'NO'} |",
                    flush=True,
                )
            if not same:
                sys.exit(f"error: study {study + 1} has other results than one without kills")
            shutil.rmtree(copy.folder)


if __name__ == "__main__":
    main()
