"""What is asked of a cluster for a job that is expected to take so much."""

from collections.abc import Iterable
from math import ceil, inf

from study.estimates.need import MIB, Need

REQUESTS = ("mem_mb", "runtime", "disk_mb")
"""Resources that every job asks for; those that run on a GPU ask for `gpu` as well."""
MEMORY_MARGIN = 1.25
"""Times the memory that is expected: estimates are within a fifth of what was measured."""
SNAKEMAKE_MB = 300
"""Of the two processes of Snakemake that a job of a cluster runs in, measured as 250 MB."""
MORE_MEMORY = 0.5
"""How much more each further attempt gets, of what the first one got."""
TIME_MARGIN, START_MINUTES = 3.0, 10
"""Times the time that is expected, which depends on the machine; and minutes on top of it."""
DISK_MARGIN, DISK_MB = 2.0, 100
"""Times what is kept, for what is written on the way; and megabytes on top of it."""


def longest_runtime(partitions: Iterable[tuple[float, int]], uses_gpu: bool) -> float:
    """Minutes that a job may ask for at most; infinite where nothing limits it.

    Args:
        partitions: `max_runtime` and `max_gpu` of each.
        uses_gpu: whether the job asks for a GPU; others go to partitions without, if there are any.
    """
    partitions = list(partitions)
    of_kind = [runtime for runtime, gpus in partitions if bool(gpus) == uses_gpu]
    return max(of_kind or [runtime for runtime, _ in partitions], default=inf)


def request(need: Need, attempt: int, longest: float = inf) -> dict[str, int | None]:
    """Resources of a job: `mem_mb`, `runtime` (minutes), `disk_mb`, and `gpu` (None: no GPU).

    Args:
        need: what the job is expected to take.
        attempt: 1 for the first; each further one gets half as much memory more, and as much time.
        longest: minutes that may be asked for at most.
    """
    minutes = ceil((TIME_MARGIN * need.seconds / 60 + START_MINUTES) * attempt)
    memory = MEMORY_MARGIN * need.memory / 1e6 + SNAKEMAKE_MB
    return {
        "mem_mb": ceil(memory * (1 + MORE_MEMORY * (attempt - 1))),
        "runtime": int(min(minutes, longest)),
        "disk_mb": ceil(DISK_MARGIN * need.disk / MIB) + DISK_MB,
        "gpu": 1 if need.uses_gpu else None,
    }
