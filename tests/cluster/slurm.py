"""A real SLURM of three nodes on this machine, which lasts as long as a test needs it.

Everything it writes is in one folder, but for the links in /etc/slurm: job steps look for the
configuration there and nowhere else. Its daemons are children of this process and end with it.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

HERE = Path(__file__).parent
CONFIGURATION = Path("/etc/slurm")
NODES = ("c1", "c2", "g1")
GPUS = (
    "NodeName=g1 Name=gpu Type=a100 File=/dev/null\nNodeName=g1 Name=gpu Type=a100 File=/dev/zero\n"
)
"""Pretended: any character device does, and `CUDA_VISIBLE_DEVICES` is set all the same."""
LOG = "daemons.log"
MARK = "LOWBIT_TEST_CLUSTER"
"""Variable by which processes of jobs are told when the cluster is taken down."""


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job, waiting, running or ended in the last minutes."""

    number: str
    state: str
    partition: str
    minutes: str
    """Its limit, as `1:00`."""
    memory: str
    """Its limit, as `1000M`."""
    node: str
    submitted: str
    started: str
    ended: str
    """Times, as ISO 8601."""
    folder: str
    """Where it works."""
    comment: str
    """Rule and wildcards."""


def jobs(rule: str = "") -> list[Job]:
    """All jobs of a rule that SLURM still knows, in the order of their submission."""
    fields = "%A|%T|%P|%l|%m|%N|%V|%S|%e|%Z|%k"
    listed = ask("squeue", "--states=all", "--noheader", "--sort=i", f"--format={fields}")
    found = [Job(*line.split("|")) for line in listed.splitlines()]
    return [job for job in found if job.comment.startswith(f"rule_{rule}")]


def running(rule: str = "") -> list[Job]:
    """Its jobs that run."""
    return [job for job in jobs(rule) if job.state == "RUNNING"]


def ask(*command: str) -> str:
    """Output of one of SLURM's commands."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_until(true: Callable[[], object], seconds: float) -> None:
    """Wait; fail when it takes longer."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Start the cluster and, whatever happens, take it down again.

    Raises:
        RuntimeError: this machine has a SLURM of its own, which is left alone.
    """
    # Told to stop, as by `timeout`, take it down as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        write_configuration(folder)
        stack.enter_context(linked(folder))
        stack.enter_context(daemon(folder, *munge(folder)))
        wait_until((folder / "munge.socket").exists, 10)
        stack.enter_context(daemon(folder, "slurmctld", "-D"))
        for node in NODES:
            stack.enter_context(daemon(folder, "slurmd", "-D", "-N", node))
        os.environ[MARK] = str(folder)
        stack.callback(end_jobs)
        wait_until(lambda: node_states() == dict.fromkeys(NODES, "idle"), 60)
        yield


def write_configuration(folder: Path) -> None:
    """Write the configuration, with ports that are free now, and a key."""
    ports = dict(zip(("port", *(f"port_{node}" for node in NODES)), free_ports(4), strict=True))
    template = Template((HERE / "slurm.conf").read_text(encoding="utf-8"))
    host = socket.gethostname().split(".")[0]
    written = {
        "slurm.conf": template.substitute(ports, folder=folder, host=host),
        "gres.conf": GPUS,
        "plugstack.conf": "",
    }
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def linked(folder: Path) -> Iterator[None]:
    """Make the configuration that of this machine."""
    made = not CONFIGURATION.exists()
    CONFIGURATION.mkdir(exist_ok=True)
    links = {CONFIGURATION / name: folder / name for name in ("slurm.conf", "gres.conf")}
    try:
        for link, file in links.items():
            # A link that a killed test left leads nowhere, or to the folder of a cluster as here.
            if link.exists() and not (link.resolve().parent / LOG).exists():
                raise RuntimeError(f"{link} is there: this machine has a SLURM of its own")
            link.unlink(missing_ok=True)
            link.symlink_to(file)
        yield
    finally:
        for link, file in links.items():
            if link.is_symlink() and link.readlink() == file:
                link.unlink()
        if made:
            CONFIGURATION.rmdir()


def munge(folder: Path) -> list[str]:
    """The command that starts the cluster's own munge, beside one that the machine may have."""
    files = {
        "key-file": "key",
        "socket": "socket",
        "pid-file": "pid",
        "log-file": "log",
        "seed-file": "seed",
    }
    options = [f"--{option}={folder}/munge.{name}" for option, name in files.items()]
    return ["munged", "--foreground", "--force", *options]


@contextmanager
def daemon(folder: Path, *command: str) -> Iterator[None]:
    """Run a daemon, which ends when the block does or this process dies."""
    with open(folder / LOG, "ab") as log:
        # Its job steps begin as its children: a signal to its group would not spare them.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def node_states() -> dict[str, str]:
    """State of each node; empty while the cluster does not answer."""
    command = ["sinfo", "--noheader", "--Node", "--format=%N %T"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split() for line in listed)


def end_jobs() -> None:
    """Cancel all jobs; end what outlived its job."""
    for node in NODES:
        subprocess.run(
            ["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True
        )
    subprocess.run(["scancel", "--me"], capture_output=True)
    end = time.monotonic() + 30
    while ask("squeue", "--noheader") and time.monotonic() < end:
        time.sleep(0.2)
    mark = f"{MARK}={os.environ.pop(MARK)}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.name != str(os.getpid()) and mark in (
                process / "environ"
            ).read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
