"""Run a study on this machine, then on a SLURM of three nodes that are this machine: what is added?

Prints both times, the overhead (SLURM wall - local wall) / SLURM wall, and how many jobs went to
nodes and for how long. The results must be the same.
"""

import argparse
import csv
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from copies import Copy, copy_sources
from slurm import Job, cluster, jobs


def main() -> None:
    """Run it twice, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="config.yaml", help="file (default %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(Path(folder), arguments.study)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.output, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, row)
        writer.writeheader()
        writer.writerow(row)
    for name, value in row.items():
        print(f"{name:<16}{value}")


def measure(folder: Path, study: str) -> dict[str, Any]:
    """Run the study both ways in copies of the repository."""
    local, on_slurm = copy_sources(folder / "local"), copy_sources(folder / "slurm")
    local_seconds = seconds(local, f"STUDY={study}")
    with cluster(Path(tempfile.mkdtemp(dir=folder))):
        slurm_seconds = seconds(on_slurm, f"STUDY={study}", "PROFILE=slurm")
        took = [duration(job) for job in jobs()]
    if local.results() != on_slurm.results():
        sys.exit("error: the results differ")
    return {
        "local_seconds": round(local_seconds, 1),
        "slurm_seconds": round(slurm_seconds, 1),
        "overhead": round((slurm_seconds - local_seconds) / slurm_seconds, 3),
        "jobs": len(took),
        "job_seconds": sum(took),
        "longer_than_60": sum(each >= 60 for each in took),
    }


def seconds(copy: Copy, *arguments: str) -> float:
    """How long `make study` takes."""
    start = time.monotonic()
    done = copy.make("study", *arguments)
    if done.code:
        sys.exit(done.output)
    return time.monotonic() - start


def duration(job: Job) -> int:
    """Seconds that a job was on its node, the start of Snakemake there included."""
    return int(
        (datetime.fromisoformat(job.ended) - datetime.fromisoformat(job.started)).total_seconds()
    )


if __name__ == "__main__":
    main()
