"""Measure the scorer against a plain forward and lm-evaluation-harness, side by side in one run.

Every round starts each contender once, in turn, in a process of its own; a ratio compares processes
of the same round, so that a machine whose speed drifts does not decide it.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from bench import turns
from lowbit import markdown

CONTENDER = Path(__file__).with_name("contender.py")
BASELINE = "plain forward, no loss"
PEER = "lm-evaluation-harness, rolling"
OWN = ("walk, NLL", "walk, NLL + KL, 1 + 4 streams")
NLL_TOLERANCE = 1e-4


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    turns.add_options(parser, documents=64, rounds=5)
    return parser.parse_args()


def main() -> None:
    from tqdm import tqdm

    arguments = parse_arguments()
    order = [(r, name) for r in range(arguments.rounds) for name in (BASELINE, *OWN, PEER)]
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.npy"
        shape = (arguments.model, arguments.documents, arguments.n, arguments.length)
        np.save(tokens, turns.first_documents(*shape))
        runs = [measure(arguments, tokens, r, name) for r, name in tqdm(order, unit="run")]
    table = pd.DataFrame(runs)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False)
    check_same_work(table)
    rows = summary(table).astype(str)
    print(markdown.table(list(rows.columns), rows.to_numpy().tolist()))


def measure(arguments: argparse.Namespace, tokens: Path, turn: int, name: str) -> dict:
    """Run one contender; its row of the table."""
    python = arguments.peer_python if name == PEER else sys.executable
    options = {
        "--contender": name,
        "--model": arguments.model,
        "--tokens": tokens,
        "--batch-size": arguments.batch_size,
        "--threads": arguments.threads,
    }
    result = turns.run_process(name, python, CONTENDER, options, arguments.threads)
    return {"round": turn, "contender": name, **result}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Medians over the rounds; ratios are taken within a round first."""
    table = table.assign(rate=table["tokens"] / table["seconds"])
    rates = table.pivot(index="round", columns="contender", values="rate")
    memory = table.groupby("contender")["peak_mib"].median()
    return pd.DataFrame(
        {
            "contender": name,
            "stream-tokens/s": round(rates[name].median()),
            "x plain forward": round((rates[name] / rates[BASELINE]).median(), 2),
            "x lm-eval": round((rates[name] / rates[PEER]).median(), 2),
            "lowest - highest x plain": "{:.2f} - {:.2f}".format(
                *np.quantile(rates[name] / rates[BASELINE], [0, 1])
            ),
            "peak memory, MiB": round(memory[name]),
        }
        for name in (BASELINE, *OWN, PEER)
    )


def check_same_work(table: pd.DataFrame) -> None:
    """Stop if the contenders that compute a loss disagree on it: then they were not comparable."""
    losses = table.groupby("contender")["nll"].first().dropna()
    if losses.max() - losses.min() > NLL_TOLERANCE:
        sys.exit(f"the contenders' mean NLL differ, so the rates do not compare:\n{losses}")


if __name__ == "__main__":
    main()
