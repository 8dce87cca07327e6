"""Measure patching in one walk against nnsight and plain hooks, side by side in one run.

The target is the model with weights rounded to 3 bits, written densely; the donor is the model as
it is. Every round starts each contender once, in turn, in a process of its own, all of them in
nnsight's environment; a ratio compares processes of the same round, so that a machine whose speed
drifts does not decide it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from bench import turns

if TYPE_CHECKING:
    import pandas as pd

CONTENDER = Path(__file__).with_name("patching_contender.py")
BARE, PEER, WALK = "2 + K bare forwards, no loss", "nnsight", "walk"
ROWS = {
    BARE: ("bare_forwards", "each_block"),
    WALK: ("walk", "each_block"),
    "walk, conditions from the middle": ("walk", "upper_half"),
    "walk, conditions from the first block": ("walk", "from_first_block"),
    "plain Hugging Face hooks": ("plain_hooks", "each_block"),
    PEER: ("nnsight", "each_block"),
}
"""Rows of the table: how, and which conditions (`patching_contender.CONDITIONS`)."""
TOLERANCE = 1e-4
"""Largest difference of one token's NLL between contenders, nats."""
BITS, GROUP_SIZE = 3, 64


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    turns.add_options(parser, documents=16, rounds=5)
    return parser.parse_args()


def main() -> None:
    """Measure round by round; stop if contenders disagree; write and print."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from lowbit import markdown
    from lowbit.files import write_csv

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_target(arguments.model, work / "target")
        shape = (arguments.model, arguments.documents, arguments.n, arguments.length)
        np.save(work / "tokens.npy", turns.first_documents(*shape))
        order = [(turn, name) for turn in range(arguments.rounds) for name in ROWS]
        runs = []
        for turn, name in tqdm(order, unit="run"):
            runs.append(measure(arguments, work, turn, name))
            write_csv(arguments.output, pd.DataFrame(runs))
        difference = largest_difference([work / f"{how}-each_block.npy" for how in compared()])
    rows = summary(pd.DataFrame(runs)).astype(str)
    print(markdown.table(list(rows.columns), rows.to_numpy().tolist()))
    print(f"Largest difference of a token's NLL between contenders: {difference:.2g} nats")


def write_target(model: Path, directory: Path) -> None:
    """Write the model with the matrices of its blocks rounded to `BITS` bits, as full weights."""
    import torch
    from torch import nn

    from lowbit.engine.roles import decoder_blocks
    from lowbit.inputs.checkpoint import load_model
    from lowbit.quantization.quantized import dequantize
    from lowbit.quantizers import rtn

    target = load_model(model, torch.float32)
    _, blocks = decoder_blocks(target)
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            layer = rtn.quantize(module.weight.detach(), bits=BITS, group_size=GROUP_SIZE)
            module.weight.data = dequantize(layer)
    target.save_pretrained(directory)


def measure(arguments: argparse.Namespace, work: Path, turn: int, name: str) -> dict[str, object]:
    """Run one contender; its row of the table of runs."""
    how, conditions = ROWS[name]
    options = {
        "--contender": how,
        "--conditions": conditions,
        "--donor": arguments.model,
        "--target": work / "target",
        "--tokens": work / "tokens.npy",
        "--batch-size": arguments.batch_size,
        "--threads": arguments.threads,
        "--nll": work / f"{how}-{conditions}.npy",
    }
    result = turns.run_process(name, arguments.peer_python, CONTENDER, options, arguments.threads)
    tokens = arguments.n * arguments.length * result["streams"]
    return {"round": turn, "contender": name, "stream_tokens": tokens, **result}


def compared() -> list[str]:
    """How the contenders work that compute the same losses."""
    return [how for how, conditions in ROWS.values() if conditions == "each_block"][1:]


def largest_difference(files: Sequence[Path]) -> float:
    """Largest difference of a token's NLL from that of the first contender, nats.

    Raises:
        SystemExit: it is above `TOLERANCE`, so that the times do not compare.
    """
    import numpy as np

    first, *others = (np.load(file) for file in files)
    worst = [float(np.abs(first - other).max()) for other in others]
    if not np.max(worst) <= TOLERANCE:  # also where one is NaN
        names = ", ".join(
            f"{file.stem} by {value:.3g}" for file, value in zip(files[1:], worst, strict=True)
        )
        sys.exit(
            f"error: the contenders' times do not compare, because their NLLs differ: from "
            f"{files[0].stem} {names} nats; {TOLERANCE:g} is allowed"
        )
    return max(worst)


def summary(table: "pd.DataFrame") -> "pd.DataFrame":
    """Medians over the rounds; ratios are taken within a round first."""
    import numpy as np
    import pandas as pd

    def spread(ratio: "pd.Series") -> str:
        return "{:.2f} ({:.2f} - {:.2f})".format(*np.quantile(ratio, [0.5, 0, 1]))

    seconds = table.pivot(index="round", columns="contender", values="seconds")
    rows = table.drop_duplicates("contender").set_index("contender")
    memory = table.groupby("contender")["peak_mib"].median()
    return pd.DataFrame(
        {
            "contender": name,
            "seconds": f"{seconds[name].median():.2f}",
            "stream-tokens/s": round(rows["stream_tokens"][name] / seconds[name].median()),
            "time x bare forwards": spread(seconds[name] / seconds[BARE]),
            "times faster than nnsight": spread(seconds[PEER] / seconds[name]),
            "peak memory, MiB": round(memory[name]),
        }
        for name in ROWS
    )


if __name__ == "__main__":
    main()
