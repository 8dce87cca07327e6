"""The machine that jobs run on, and the code that they run."""

import csv
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

MIB = 2**20


class Part(BaseModel):
    """A part of the record: unknown keys are an error, docstrings become the schema's text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Gpu(Part):
    """One GPU, as nvidia-smi names it."""

    name: str
    """Its model."""
    memory: str
    """With its unit: `81559 MiB`."""
    driver: str
    """Version of the driver."""


class Machine(Part):
    """Hardware and system; no names of hosts or users."""

    platform: str
    """System, kernel, architecture and C library."""
    cpu: str
    """Model of the processor."""
    cpus: int
    """Logical processors."""
    memory_mib: int
    """Of the whole machine."""
    gpus: list[Gpu]
    """Empty where nvidia-smi lists none."""


class Code(Part):
    """Which state of this repository ran."""

    commit: str | None
    """40 hex digits; null outside a git checkout, where each result's `code` says what ran."""
    dirty: bool | None
    """Whether tracked files differed from the commit."""


def describe_machine() -> Machine:
    """The machine of this process."""
    return Machine(
        platform=platform.platform(),
        cpu=_processor(),
        cpus=os.cpu_count() or 1,
        memory_mib=psutil.virtual_memory().total // MIB,
        gpus=_gpus(),
    )


def describe_code() -> Code:
    """Commit and state of the checkout that this process runs in."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return Code(commit=None, dirty=None)
    commit, dirty, _ = done.stdout.strip().partition("-dirty")
    return Code(commit=commit, dirty=bool(dirty))


def without_home(text: str) -> str:
    """Write the user's home directory as `~`."""
    home = re.escape(str(Path.home()).rstrip("/"))
    return re.sub(rf"{home}(?![^/])", "~", text)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _gpus() -> list[Gpu]:
    """The GPUs that nvidia-smi lists; none where it is missing or finds no driver."""
    if not shutil.which("nvidia-smi"):
        return []
    query = "--query-gpu=name,memory.total,driver_version"
    done = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True
    )
    if done.returncode:
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [Gpu(name=name, memory=memory, driver=driver) for name, memory, driver in rows]
