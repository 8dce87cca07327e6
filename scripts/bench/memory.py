"""Measure the memory of scoring in `stream` mode, where the whole model is too much.

A random Llama larger than the limit and its weights in 4 bits are written, scored block by block,
and removed. What stream mode may take beside Python and its libraries: embeddings, output head, two
blocks of each weight set (one is read while the other is let go), the hidden states of a shard.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there

from bench import turns
from bench.shape import Shape

CONTENDER = Path(__file__).with_name("memory_contender.py")
MIB = 2**20
BITS, GROUP_SIZE = 4, 32
STREAMS = 2
"""Full precision and rounded to 4 bits: as many weight sets."""
STREAM, KEPT = "stream", "freed memory kept as glibc does"
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
"""glibc may keep freed memory in pieces up to 32 MiB. The matrices of a model that
needs stream mode are larger than that; here they are made to be by a lower threshold."""
INTERVAL = 0.002
"""Seconds between two looks at a process's memory."""
OUT_OF_MEMORY = re.compile(
    r"cannot allocate memory|can't allocate memory|MemoryError|bad_alloc", re.IGNORECASE
)


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024, help="width (default %(default)s)")
    parser.add_argument("--intermediate", type=int, default=2816, help="MLP (default %(default)s)")
    parser.add_argument("--layers", type=int, default=42, help="blocks (default %(default)s)")
    parser.add_argument("--heads", type=int, default=16, help="attention (default %(default)s)")
    parser.add_argument("--vocabulary", type=int, default=8192, help="tokens (default %(default)s)")
    parser.add_argument("--n", type=int, default=4, help="documents (default %(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens a document")
    parser.add_argument("--batch-size", type=int, default=2, help="documents (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")
    parser.add_argument(
        "--limit",
        type=int,
        default=768,
        help="MiB of data beside Python and its libraries (default %(default)s)",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(".cache"), help="where the model is for a while"
    )
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    return parser.parse_args()


def main() -> None:
    """Show that both modes agree on a small model, then measure a large one; write and print."""
    arguments = parse_arguments()
    if sys.platform != "linux":
        sys.exit("error: this reads a process's memory from /proc, which only Linux has")
    import pandas as pd

    from lowbit import markdown

    sizes = (getattr(arguments, name) for name in ("hidden", "intermediate", "layers", "heads"))
    shape = Shape(*sizes, vocabulary=arguments.vocabulary)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        check_same_bits(arguments, Path(folder) / "small")
        runs = measure_both(arguments, shape, Path(folder) / "large")
    table = pd.DataFrame(runs, dtype=object)  # whole numbers stay whole beside gaps
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False)
    print("On a small model of the same kind both modes give the same bits.")
    print(
        f"Model: {shape.parameters * 4 / MIB:.0f} MiB in float32, scored beside its weights in "
        f"{BITS} bits. Limit and peak: beside what Python and its libraries take.\n"
    )
    rows = table.fillna("").astype(str)
    print(markdown.table(list(rows.columns), rows.to_numpy().tolist()))
    taken, bound = table["peak, MiB"][0], table["bound, MiB"][0]
    if not taken <= bound:
        sys.exit(f"error: stream mode took {taken:.0f} MiB, and {bound:.0f} MiB are its bound")


def bound_bytes(shape: Shape, documents: int, length: int, streams: int) -> int:
    """Bytes that stream mode may take, float32, with as many weight sets as streams.

    Hidden states are those of each stream, and the embedded tokens that all of them started from.
    """
    weights = 2 * shape.head_parameters + streams * 2 * shape.block_parameters
    hidden_states = (streams + 1) * documents * length * shape.hidden
    return 4 * (weights + hidden_states)


def check_same_bits(arguments: argparse.Namespace, folder: Path) -> None:
    """Score a small model in both modes.

    Raises:
        SystemExit: the NLLs differ in any bit.
    """
    import numpy as np

    prepare(arguments, Shape(64, 128, 3, 4, 100), folder)
    found = []
    for mode in ("stream", "resident"):
        run(arguments, folder, mode, limit=0)
        found.append(np.load(folder / f"{mode}.npy"))
    if not np.array_equal(*found):
        sys.exit("error: stream and resident mode give different NLLs on a small model")


def measure_both(
    arguments: argparse.Namespace, shape: Shape, folder: Path
) -> list[dict[str, object]]:
    """Score the large model in both modes under the limit; a row of the table for each.

    Raises:
        SystemExit: resident mode did not run out of memory, so that the limit shows nothing.
    """
    from lowbit.engine.sizes import STREAM_SHARD

    prepare(arguments, shape, folder)
    bound = bound_bytes(shape, min(arguments.n, STREAM_SHARD), arguments.length, STREAMS) / MIB
    rows: list[dict[str, object]] = []
    for name, limit, heap in ((STREAM, arguments.limit, RETURNED), (f"{STREAM}, {KEPT}", 0, {})):
        done = run(arguments, folder, "stream", limit, heap)
        rows.append(
            {
                "mode": name,
                "limit, MiB": limit or "none",
                "result": "scored",
                "peak, MiB": round(done["peak_mib"] - done["imported_mib"]),
                "bound, MiB": round(bound),
                "Python and libraries, MiB": round(done["imported_mib"]),
                "seconds": round(done["seconds"], 1),
            }
        )
    resident = run(arguments, folder, "resident", arguments.limit, RETURNED, may_fail=True)
    if "error" not in resident:
        sys.exit(f"error: the whole model fits into --limit {arguments.limit}; choose a lower one")
    result = f"failed: {resident['error']}"
    return [*rows, {"mode": "resident", "limit, MiB": arguments.limit, "result": result}]


def prepare(arguments: argparse.Namespace, shape: Shape, folder: Path) -> None:
    """Write a model, its weights in 4 bits and random token ids."""
    import numpy as np

    from bench.random_llama import write_model

    write_model(shape, folder, arguments.length, BITS, GROUP_SIZE)
    size = (arguments.n, arguments.length)
    rows = np.random.default_rng(0).integers(shape.vocabulary, size=size, dtype=np.int32)
    np.save(folder / "tokens.npy", rows)


def run(
    arguments: argparse.Namespace,
    folder: Path,
    mode: str,
    limit: int,
    heap: Mapping[str, str] = MappingProxyType({}),
    may_fail: bool = False,
) -> dict[str, Any]:
    """Score in a process of its own and watch its memory.

    Args:
        limit: MiB of data beside Python and its libraries; 0: none.
        heap: environment variables of glibc's allocator other than the workflow's.

    Returns:
        What the process printed and `peak_mib`; or `error`, where memory did not suffice and that
        was foreseen.

    Raises:
        SystemExit: it failed otherwise; with what it wrote.
    """
    options = {
        "--model": folder / "model.json",
        "--method": folder / "rtn" / "method.json",
        "--mode": mode,
        "--tokens": folder / "tokens.npy",
        "--batch-size": arguments.batch_size,
        "--threads": arguments.threads,
        "--limit": limit,
        "--nll": folder / f"{mode}.npy",
    }
    command = turns.command_of(sys.executable, CONTENDER, options)
    printed, written = folder / "printed", folder / "written"
    with open(printed, "w") as out, open(written, "w") as errors:
        environment = turns.environment(arguments.threads) | dict(heap)
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory_mib(process.pid, "RssAnon"))
            time.sleep(INTERVAL)
    if process.returncode == 0:
        return json.loads(printed.read_text().splitlines()[-1]) | {"peak_mib": peak}
    reason = written.read_text()
    if may_fail and OUT_OF_MEMORY.search(reason):
        return {"error": reason.splitlines()[-1]}
    sys.exit(f"{mode} mode failed:\n{reason}")


def memory_mib(process: int | str, kind: str) -> float:
    """Memory of a process in MiB, 0 once it has ended.

    Args:
        kind: `RssAnon`, what is not of mapped files; or `VmData`, what RLIMIT_DATA limits.
    """
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"^{kind}:\s+(\d+) kB", status, re.M)
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
