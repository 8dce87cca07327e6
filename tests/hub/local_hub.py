"""A hub on this machine: olah, a server of the hub's protocol, over git repositories made here."""

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faulty_proxy import Fault, FaultyProxy, proxy_of

ROOT = Path(__file__).parents[2]
SERVER = ROOT / ".envs/test_hub/bin/python"
REDIRECTS = (301, 302, 303, 307, 308)
STARTING = 60.0
"""Seconds that the server is given to start; it takes about three."""
IN_LARGE_STORAGE = (".safetensors", ".parquet", ".bin")
"""Endings of files that git has only a pointer of, as on the hub."""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"


@dataclass
class Hub:
    """The server behind its proxy, and how to put something there."""

    folder: Path
    """The server's repositories: `models/<owner>/<name>` and `datasets/<owner>/<name>`."""
    proxy: FaultyProxy
    home: Path
    """For `HF_HOME`: an empty cache."""

    @property
    def endpoint(self) -> str:
        """For `HF_ENDPOINT`."""
        return self.proxy.url

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process that uses this hub and nothing of this machine's own."""
        own = ("HF_", "HUGGINGFACE", "MAKE", "MFLAGS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return kept | {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home)}

    def publish(self, kind: str, repo: str, folder: Path) -> str:
        """Make a folder's files the next commit of branch main; return the commit.

        Args:
            kind: `model` or `dataset`.
            repo: `<owner>/<name>`.
            folder: with files and folders of files.
        """
        place = self.folder / f"{kind}s" / repo
        if not place.exists():
            place.mkdir(parents=True)
            _git(place, "init", "--quiet", "--initial-branch=main")
        for old in place.iterdir():
            if old.name != ".git":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            _store(path, place / path.relative_to(folder), place)
        _git(place, "add", "--all")
        _git(place, "commit", "--quiet", "--allow-empty", "--message=Publish")
        return _git(place, "rev-parse", "HEAD")

    def fail(self, path: str, status: int, times: int = 10**6, **headers: str) -> Fault:
        """Answer requests for paths that match with an error; `_` in a header's name is `-`."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.disturb(Fault(path, times, status, headers))

    def disturb(self, fault: Fault) -> Fault:
        """Let something go wrong."""
        self.proxy.faults.append(fault)
        return fault

    def repair(self) -> None:
        """Let everything go well from now on, and forget what was asked."""
        self.proxy.faults.clear()
        self.proxy.requests.clear()

    def asked(self, part: str = "") -> list[str]:
        """Paths that were asked for and contain this text, in order."""
        return [request.path for request in self.proxy.requests if part in request.path]

    def answered(self, part: str) -> list[str]:
        """The same without those that the server only sent on.

        olah sends `/tree/<commit>` on to the same with a slash at its end.
        """
        found = [each for each in self.proxy.requests if each.status not in REDIRECTS]
        return [each.path for each in found if part in each.path]


def _store(path: Path, copy: Path, place: Path) -> None:
    """Copy a file into a repository; of a large one, the pointer and apart its content."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix not in IN_LARGE_STORAGE:
        shutil.copy(path, copy)
        return
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    stored = place / ".git/lfs/objects" / sha256[:2] / sha256[2:4] / sha256
    stored.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, stored)
    copy.write_text(POINTER.format(sha256=sha256, size=path.stat().st_size))


def _git(place: Path, *arguments: str) -> str:
    """Run git with nothing of the user's configuration."""
    person = {
        f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", "-C", place, *arguments],
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, **person},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[Path, int]]:
    """Start olah in a folder; yield the folder of its repositories and its port."""
    repositories = folder / "repositories"
    repositories.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "olah.toml").write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nmirrors-path = ["{repositories}"]\n'
        "[accessibility]\noffline = true\n"
    )
    with open(folder / "log", "w") as log:
        command = [SERVER, "-m", "olah.server", "--config", "olah.toml"]
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            _wait_for(port, server, folder / "log")
            yield repositories, port
        finally:
            server.kill()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    """Return once something listens on the port."""
    end = time.monotonic() + STARTING
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")


@contextmanager
def running_hub(folder: Path) -> Iterator[Hub]:
    """A hub with nothing in it, until the block ends."""
    with running_server(folder) as (repositories, port), proxy_of(port) as proxy:
        yield Hub(repositories, proxy, folder / "home")
