"""Errors a user can act on, and how a script shows them and what memory it took."""

import errno
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

GO_ON = "run the same command again: what is finished is kept."
FULL_DISK = {
    errno.ENOSPC: ("no space left on the device", "Free some space"),
    errno.EDQUOT: ("the disk quota is used up", "Delete what you no longer need, or ask for more"),
}
"""What is wrong where nothing more can be written, and what to do."""


class InputError(Exception):
    """What the user gave cannot be used; the message says what to write or do instead."""


class GateError(Exception):
    """A check that runs in every job found wrong numbers; the message holds them."""


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; print a foreseen error, a full disk or memory and exit with 1.

    Every other exception is a defect of ours and keeps its traceback. At the end the log gets the
    peak of the memory: benchmark files have what was seen at a few moments.
    """
    try:
        main()
        print(peak_memory(), file=sys.stderr)
    except (InputError, GateError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        wrong, remedy = FULL_DISK[error.errno]
        where = error.filename or "an output"
        sys.exit(f"error: {wrong} while writing {where}. {remedy} and {GO_ON}")
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        said = str(error).partition("\n")[0]
        sys.exit(
            f"error: the memory is full ({said}). Give the job more, or less to hold at once "
            f"(engine.mode: stream, a smaller engine.batch_size), and {GO_ON}"
        )


def _is_memory(error: Exception) -> bool:
    """Whether no memory was left: PyTorch has an error of its own for GPUs, and none for CPUs."""
    names = {each.__name__ for each in type(error).__mro__}
    told = "can't allocate memory" in str(error)
    return told or not names.isdisjoint({"MemoryError", "OutOfMemoryError"})


def peak_memory() -> str:
    """'peak memory: 512 MiB', of this process so far; also of the GPU, where PyTorch used one."""
    found = f"peak memory: {_peak_bytes() / 2**20:.0f} MiB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found += f", of the GPU: {torch.cuda.max_memory_reserved() / 2**20:.0f} MiB"
    return found


def _peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    try:  # getrusage's counts what was there before this program took the process over
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024
    except FileNotFoundError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
