"""What a study ran on and what it took: the one result with dates, seconds and hardware."""

import csv
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def provenance(benchmarks: Iterable[str]) -> dict[str, Any]:
    """Date, code, machine, and what each rule took.

    Args:
        benchmarks: files `benchmarks/<rule>.tsv` or `benchmarks/<rule>/<what>.tsv` of the study.
    """
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": describe_code(),
        "snakemake": version("snakemake"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "rules": summarize(sorted(map(Path, benchmarks))),
    }


def describe_code() -> str | None:
    """The commit, `-dirty` added where files differ from it; None outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def summarize(benchmarks: Iterable[Path]) -> dict[str, dict[str, float]]:
    """Rule -> number of jobs, seconds in all, and the largest job's memory in MiB."""
    rules: dict[str, dict[str, float]] = {}
    for file in benchmarks:
        folder = file.parent
        rule = rules.setdefault(
            file.stem if folder.name == "benchmarks" else folder.name,
            {"jobs": 0, "seconds": 0.0, "max_memory_mib": 0.0},
        )
        with open(file, encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                rule["jobs"] += 1
                rule["seconds"] = round(rule["seconds"] + float(row["s"]), 1)
                # Snakemake writes NA for a job too short to be looked at.
                if row["max_rss"] != "NA":
                    rule["max_memory_mib"] = max(rule["max_memory_mib"], float(row["max_rss"]))
    return rules
