"""Run a small study, through `make`, in copies of the repository that share its environments."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lowbit.files import sha256
from study.estimates.fit import OF_MAKE

ROOT = Path(__file__).parents[2]
SMALL = "tests/e2e/config/small.yaml"
SECONDS = 900
"""For one run of the small study; it takes about one minute, more where others use the machine."""
# What may differ between two runs of the same study: seconds, memory, dates and hardware.
DIFFERS = re.compile(r"(^|/)(logs|benchmarks|provenance)/|(provenance\.json|crate\.zip)$")


@dataclass(frozen=True)
class Finished:
    """What a command said and did."""

    code: int
    output: str

    @property
    def rules(self) -> Counter[str]:
        """How often each rule ran, or in a dry run would have run."""
        stats = re.search(r"^Job stats:\n(?:.*\n){2}((?:\w+ +\d+\n)+)", self.output, re.MULTILINE)
        lines = stats[1].splitlines() if stats else []
        counts = {name: int(count) for name, count in map(str.split, lines)}
        return Counter({name: n for name, n in counts.items() if name not in ("all", "total")})


@dataclass(frozen=True)
class Copy:
    """A copy of the repository."""

    folder: Path

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start `make` in a process group of its own, with more variables in its environment."""
        # What the tests themselves were called with is not for the runs that they start.
        environment = {k: v for k, v in os.environ.items() if k not in OF_MAKE}
        environment |= variables
        return subprocess.Popen(
            ["make", "--no-print-directory", *arguments],
            cwd=self.folder,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def make(self, *arguments: str) -> Finished:
        """Run `make` to its end."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=SECONDS)
        finally:
            kill(process)
        return Finished(process.returncode, output)

    def study(self, study: str = SMALL, options: str = "") -> Finished:
        """Run a study and require that it succeeds."""
        done = self.make("study", f"STUDY={study}", f"ARGS={options}")
        assert done.code == 0, done.output
        return done

    def plan(self, study: str = SMALL) -> Counter[str]:
        """The rules that a study would run."""
        done = self.make("plan", f"STUDY={study}")
        assert done.code == 0, done.output
        return done.rules

    def results(self) -> dict[str, str]:
        """Content hash of every file below `results/` that must be the same in every run."""
        root = self.folder / "results"
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        return {name: sha256(root / name) for name in sorted(names) if not DIFFERS.search(name)}

    def edit(self, file: str) -> None:
        """Change a source file without changing what it does."""
        with open(self.folder / file, "a", encoding="utf-8") as stream:
            stream.write("\n# a comment\n")


def kill(process: subprocess.Popen[str]) -> None:
    """Kill the process and all that it started, at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


@contextmanager
def started(copy: Copy, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that is killed, whatever happens, when the block ends."""
    process = copy.start(*arguments)
    try:
        yield process
    finally:
        kill(process)
        process.stdout.close()


def fork(copy: Copy, folder: Path) -> Copy:
    """The same files, with their dates, in another folder."""
    return Copy(Path(shutil.copytree(copy.folder, folder / "repository", symlinks=True)))


def copy_sources(folder: Path) -> Copy:
    """Copy what belongs to the repository, all files dated now; share the environments."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for shared in (".venv", ".envs"):
        (folder / shared).symlink_to(ROOT / shared)
    return Copy(folder)
