"""Score documents in one mode under a limit on the process's data; print what it took.

Prints one JSON line: seconds, and the anonymous memory in MiB that Python and its libraries alone
take. The driver watches from outside how much there is at most.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python put only this folder there


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.json")
    parser.add_argument("--method", type=Path, required=True, help="method.json")
    parser.add_argument("--mode", choices=("stream", "resident"), required=True)
    parser.add_argument(
        "--tokens", type=Path, required=True, help=".npy, int32 [documents, length]"
    )
    parser.add_argument("--batch-size", type=int, required=True, help="documents")
    parser.add_argument("--threads", type=int, required=True, help="CPU threads")
    parser.add_argument("--limit", type=int, required=True, help="MiB of more data; 0: any")
    parser.add_argument("--nll", type=Path, required=True, help=".npy to write: per-token NLL")
    return parser.parse_args()


def main() -> None:
    """Import everything, take the limit, score."""
    arguments = parse_arguments()
    import numpy as np
    from transformers import LlamaForCausalLM  # noqa: F401 - imported now, not counted later

    from bench.memory import MIB, memory_mib
    from lowbit.engine.engine import Engine
    from lowbit.experiments.scoring import score_documents

    imported = memory_mib("self", "RssAnon")
    if arguments.limit:
        limit = round((memory_mib("self", "VmData") + arguments.limit) * MIB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start = time.perf_counter()
    settings = {"device": "cpu", "dtype": "float32"} | vars(arguments)
    engine = Engine.open(arguments.model, settings)
    streams = [engine.quantized("rtn", arguments.method)]
    rows = np.load(arguments.tokens)
    batches = score_documents(engine, streams, rows)
    parts = [np.stack([scores.token_nll for scores in batch.values()]) for batch in batches]
    np.save(arguments.nll, np.concatenate(parts, axis=1))
    print(json.dumps({"seconds": time.perf_counter() - start, "imported_mib": imported}))


if __name__ == "__main__":
    main()
