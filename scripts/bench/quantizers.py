"""Show what every quantizer of a study took and gave: seconds and memory beside the output error.

`make bench-quantizers` first quantizes everything anew, one job after the other on the same model,
calibration and threads; this reads what Snakemake measured of those jobs. Seconds are of whole
processes: starting Python, importing the library, loading the model and measuring errors included.
"""

import argparse
import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from lowbit.markdown import table
from study.config.study import load_study
from study.paths import Paths, paths_of

COLUMNS = (
    "method",
    "library",
    "bits",
    "seconds",
    "cpu_seconds",
    "peak_mib",
    "bits_per_weight",
    "output_error",
    "rtn_output_error",
)


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True, help="study file")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    return parser.parse_args()


def main() -> None:
    """Join the study's tables with its benchmarks; write and print."""
    arguments = parse_arguments()
    study = load_study(Path("config.yaml"), arguments.study)
    paths = paths_of(study)
    rows = [row for model in study.models for row in rows_of(paths, model)]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    print(table(COLUMNS, [[str(row[column]) for column in COLUMNS] for row in rows]))


def rows_of(paths: Paths, model: str) -> list[dict]:
    """One row per method of a model."""
    folder = Path(paths.shared("model", model=model)).parent / "benchmarks" / "quantize"
    rows = []
    for row in read_table(Path(paths.result("quantization.csv", model)), ","):
        measured = read_table(folder / f"{paths.methods[row['method']]}.tsv", "\t")[-1]
        taken = {
            "seconds": round(float(measured["s"]), 1),
            "cpu_seconds": round(float(measured["cpu_time"]), 1),
            "peak_mib": round(float(measured["max_rss"])),
        }
        short = {key: f"{float(row[key]):.4g}" for key in COLUMNS[-3:]}
        rows.append(row | taken | short)
    return rows


def read_table(path: Path, delimiter: str) -> list[dict[str, str]]:
    """Read a table of text."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


if __name__ == "__main__":
    main()
