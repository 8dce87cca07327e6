"""Contenders of a benchmark take turns, each in a process of its own, on the same token ids."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SCRIPTS = Path(__file__).resolve().parents[1]


def add_options(parser: argparse.ArgumentParser, documents: int, rounds: int) -> None:
    """Add what these benchmarks are told alike."""
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face directory")
    parser.add_argument("--documents", type=Path, required=True, help="Parquet with a text column")
    parser.add_argument("--peer-python", type=Path, help="python of the peer, where there is one")
    parser.add_argument("--n", type=int, default=documents, help="documents (default %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="tokens a document")
    parser.add_argument("--batch-size", type=int, default=8, help="documents (default 8)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each contender")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write: every run")


def first_documents(model: Path, documents: Path, n: int, length: int) -> "np.ndarray":
    """Return the first `n` documents that have `length` tokens, cut there: int32 `[n, length]`."""
    import numpy as np
    import pandas as pd
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = pd.read_parquet(documents)["text"]
    rows = [ids[:length] for ids in tokenizer(texts.tolist())["input_ids"]]
    return np.array([row for row in rows if len(row) == length][:n], dtype=np.int32)


def run_process(
    name: str, python: Path | str, script: Path, options: Mapping[str, object], threads: int
) -> dict[str, Any]:
    """Run a contender; return the JSON object that is the last line it prints.

    Raises:
        SystemExit: it failed; with what it wrote.
    """
    command = command_of(python, script, options)
    done = subprocess.run(command, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def command_of(python: Path | str, script: Path, options: Mapping[str, object]) -> list[str]:
    """Return the command line of a script with options."""
    return [str(python), str(script), *(str(x) for pair in options.items() for x in pair)]


def environment(threads: int) -> dict[str, str]:
    """Return the environment that all contenders have alike."""
    return {
        "PYTHONPATH": str(SCRIPTS),
        "HF_HUB_OFFLINE": "1",
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": str(threads),
        # As in every job of the workflow (rules/common.smk). Threads that wait actively made the
        # same code five times slower where another process was at work.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
