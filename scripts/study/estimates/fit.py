"""Fit the measured numbers of the plan to studies that are finished in this folder.

`python scripts/study/estimates/fit.py --studies config.yaml ... [--write]` prints, rule by rule,
what jobs took beside what the plan says; with --write the numbers in
scripts/study/estimates/measured.json are fitted to them anew. Seconds mean something only where the
studies ran with nothing beside them; --only-memory leaves them as they were.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # Python put only this folder there

from tabulate import tabulate

from lowbit.errors import InputError, run
from lowbit.files import read_json, write_json
from study.estimates.jobs import runs_on_device
from study.estimates.measured import FILE, Measured
from study.estimates.need import MIB

PEAK = re.compile(r"^peak memory: (\d+) MiB", re.MULTILINE)
STARTING = "probe_model"
"""The rule whose jobs load a model and do hardly more."""
HERE = Path(".")
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "ARGS", "STUDY", "PROFILE", "RUN_BY")
"""Variables by which a `make` that this runs in would change the plan."""
LONG = 3.0
"""Times the start that a job which runs a model must take for its rate to be more than noise."""
GROWN = 2.0
"""Times the least work of a rule's jobs from which the most work tells of a rate."""


@dataclass(frozen=True)
class Finished:
    """A job as it ran, and what the plan had to say of it."""

    rule: str
    threads: int
    seconds: float
    peak_mib: float
    estimated_seconds: float
    estimated_mib: float
    computed_mib: float
    """Of the memory, what formulas say of models and tables."""
    work: float


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", nargs="+", required=True, help="study files")
    parser.add_argument(
        "--only-memory", action="store_true", help="keep seconds and rates: the machine was busy"
    )
    parser.add_argument("--machine", help="what it is, for the plan; with --write")
    parser.add_argument("--write", action="store_true", help="write the fitted numbers")
    return parser.parse_args()


def main() -> None:
    """Read finished jobs, show them beside the plan, fit."""
    arguments = parse_arguments()
    jobs = [job for study in arguments.studies for job in finished_jobs(study_account(study))]
    by_rule: dict[str, list[Finished]] = defaultdict(list)
    for job in jobs:
        by_rule[job.rule].append(job)
    print(tabulate(_rows(by_rule), headers=["rule", "jobs", "MiB", "plan", "s", "plan"]))
    if arguments.write:
        known = read_json(FILE)
        start = min(job.seconds for job in by_rule[STARTING])
        fitted = {rule: asdict(fit(found, start)) for rule, found in by_rule.items()}
        for rule in known["rules"].keys() & fitted.keys() if arguments.only_memory else ():
            fitted[rule] = known["rules"][rule] | {"memory_mib": fitted[rule]["memory_mib"]}
        rules = dict(sorted((known["rules"] | fitted).items()))
        write_json(FILE, {"machine": arguments.machine or known["machine"], "rules": rules})


def study_account(study: str, folder: Path = HERE) -> dict[str, Any]:
    """The account of a study's jobs in a folder that `make plan` is made from.

    Raises:
        InputError: there is no plan; with what `make` said.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "account.json")
        done = subprocess.run(
            ["make", "plan", f"STUDY={study}"],
            cwd=folder,
            env=environment | {"PLAN_ACCOUNT": str(file)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise InputError(f"`make plan STUDY={study}` failed:\n{done.stdout}")
        return json.loads(file.read_text(encoding="utf-8"))


def finished_jobs(account: Mapping[str, Any], folder: Path = HERE) -> Iterator[Finished]:
    """The jobs of an account that have run in a folder, with what they took."""
    for job in account["jobs"]:
        benchmark = folder / job["benchmark"]
        if not benchmark.exists():
            continue
        seconds, peak = took(benchmark, [folder / log for log in job["log"]])
        if peak is not None:
            yield Finished(
                job["rule"],
                job["threads"],
                seconds,
                peak,
                job["seconds"],
                job["memory"] / MIB,
                job["computed_memory"] / MIB,
                job["work"],
            )


def took(benchmark: Path, logs: Iterable[Path]) -> tuple[float, float | None]:
    """Seconds of a job, and its peak memory in MiB, from its log; None where that has none."""
    with open(benchmark, encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream, delimiter="\t"))
    texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    found = [int(peak) for text in texts for peak in PEAK.findall(text)]
    return float(row["s"]), float(found[-1]) if found else None


def fit(jobs: Sequence[Finished], start: float) -> Measured:
    """The numbers of one rule, from the jobs with the least and the most work.

    Args:
        start: seconds of a job that loads a model and does hardly more, the least that any job of a
            rule that runs models takes before its work.
    """
    least, most = min(jobs, key=lambda job: job.work), max(jobs, key=lambda job: job.work)
    runs_models, alike = runs_on_device(most.rule), most.work <= GROWN * least.work
    floor = min(start, least.seconds) if runs_models else 0.0
    took, rate = floor if runs_models and alike else least.seconds, None
    if most.work > 0 and most.seconds > (LONG if runs_models else 1) * took:
        if not alike:
            took, rate = _line(least, most, floor)
        elif runs_models:
            rate = most.work / (most.seconds - floor)
    threads = most.threads if runs_models else 1
    return Measured(
        memory_mib=round(_beside(jobs)),
        seconds=round(took, 1),
        rate=None if rate is None else float(f"{rate / threads:.3g}"),
    )


def _line(least: Finished, most: Finished, floor: float) -> tuple[float, float]:
    """Seconds before any work, `floor` or more, and work per second after that."""
    rate = (most.work - least.work) / (most.seconds - least.seconds)
    before = least.seconds - least.work / rate
    if before < floor:
        return floor, most.work / (most.seconds - floor)
    return before, rate


def _beside(jobs: Sequence[Finished]) -> float:
    """MiB that, added to what is computed, are off by the least share of any job's peak."""
    ordered = sorted(jobs, key=lambda job: job.peak_mib - job.computed_mib)
    extremes = ordered[0], ordered[-1]
    wanted = sum((job.peak_mib - job.computed_mib) / job.peak_mib for job in extremes)
    return wanted / sum(1 / job.peak_mib for job in extremes)


def _rows(by_rule: Mapping[str, Sequence[Finished]]) -> Iterator[list[Any]]:
    """Per job: what it took and what the plan says."""
    for rule, jobs in sorted(by_rule.items()):
        for job in jobs:
            yield [
                rule,
                len(jobs),
                round(job.peak_mib),
                round(job.estimated_mib),
                round(job.seconds, 1),
                round(job.estimated_seconds, 1),
            ]


if __name__ == "__main__":
    run(main)
