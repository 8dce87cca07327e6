"""The workflow's environments, and running a check inside one of them."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 600


@cache
def python_of(name: str) -> Path:
    """The interpreter of `envs/<name>.yaml`, where Snakemake made it.

    Raises:
        FileNotFoundError: it was not made, or from another version of the file.
    """
    wanted = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_bytes())
    for made in sorted((ROOT / ".envs").glob("*/*_.yaml")):
        python = made.with_suffix("") / "bin" / "python"
        if python.exists() and yaml.safe_load(made.read_bytes()) == wanted:
            return python
    raise FileNotFoundError(f"environment {name} is not there; run: make environments")


def run_in(name: str, script: str, *arguments: str) -> str:
    """Run a script of this repository in an environment; return what it prints.

    Raises:
        AssertionError: it failed; with all it printed.
    """
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("scripts", "tests"))
    done = subprocess.run(
        [str(python_of(name)), script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{script} {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def outcomes_in(name: str, script: str) -> dict[str, str]:
    """Run a script that ends in `run_checks` in an environment; return what went wrong by check."""
    return json.loads(run_in(name, script).splitlines()[-1])
