"""Say what a study would take and run: `python scripts/study/plan.py <options of Snakemake>`.

Snakemake makes its graph of jobs without running any (a dry run) and leaves an account of them; the
table of it is printed first, then what Snakemake says.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from study.estimates.table import plan_text


def main(options: Sequence[str]) -> None:
    """Let Snakemake plan; print the table and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        account = Path(os.environ.get("PLAN_ACCOUNT", f"{folder}/account.json"))
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "host", *options]
        environment = os.environ | {"PLAN_ACCOUNT": str(account)}
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            free = shutil.disk_usage(".").free
            print(plan_text(json.loads(account.read_text(encoding="utf-8")), free), end="\n\n")
    print(done.stdout, end="", flush=True)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
