"""Measure K perturbations in one walk against 1 + K bare forward passes, side by side in one run.

Every round starts each contender once, in turn, in a process of its own.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from bench import turns
from bench.perturbation_contender import BARE, CONTENDERS
from lowbit import markdown

CONTENDER = Path(__file__).with_name("perturbation_contender.py")


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    turns.add_options(parser, documents=64, rounds=5)
    parser.add_argument("--perturbations", type=int, default=9, help="K (default %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Let the contenders take turns, print the ratios."""
    from tqdm import tqdm

    arguments = parse_arguments()
    order = [(turn, name) for turn in range(arguments.rounds) for name in CONTENDERS]
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.npy"
        shape = (arguments.model, arguments.documents, arguments.n, arguments.length)
        np.save(tokens, turns.first_documents(*shape))
        options = {
            "--model": arguments.model,
            "--tokens": tokens,
            "--batch-size": arguments.batch_size,
            "--threads": arguments.threads,
            "--perturbations": arguments.perturbations,
        }
        runs = [
            {"round": turn, "contender": name}
            | turns.run_process(
                name,
                sys.executable,
                CONTENDER,
                {"--contender": name, **options},
                arguments.threads,
            )
            for turn, name in tqdm(order, unit="run")
        ]
    table = pd.DataFrame(runs)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False)
    rows = summary(table, arguments.perturbations).astype(str)
    print(markdown.table(list(rows.columns), rows.to_numpy().tolist()))


def summary(table: pd.DataFrame, perturbations: int) -> pd.DataFrame:
    """Medians over the rounds; ratios are taken within a round first."""
    seconds = table.pivot(index="round", columns="contender", values="seconds")
    memory = table.groupby("contender")["peak_mib"].median()
    ratios = seconds.div(seconds[BARE], axis=0)
    return pd.DataFrame(
        {
            "contender": name,
            "seconds": round(seconds[name].median(), 1),
            f"x {1 + perturbations} bare forwards": round(ratios[name].median(), 2),
            "lowest - highest": f"{ratios[name].min():.2f} - {ratios[name].max():.2f}",
            "peak memory, MiB": round(memory[name]),
        }
        for name in CONTENDERS
    )


if __name__ == "__main__":
    main()
