"""The plan as text: a table of stages, downloads, and what is assumed."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tabulate import tabulate

HOUR = 3600.0
INPUTS, ANALYSES, TOTAL = "models and texts", "tables, figures, pages", "total"
STAGES = MappingProxyType(
    {
        "fetch_model": INPUTS,
        "fetch_classifier": INPUTS,
        "fetch_checkpoint": INPUTS,
        "probe_model": INPUTS,
        "fetch_documents": INPUTS,
        "choose_documents": INPUTS,
        "tokenize_documents": INPUTS,
        "tokenize_calibration": INPUTS,
        "tokenize_evaluation": INPUTS,
        "check_calibration": INPUTS,
        "read_checkpoint": "quantize",
        "score": "score",
        "evaluate": "evaluate",
        "classify_topics": "classify topics",
        "answer": "answer questions",
        "measure_residuals": "residuals",
        "trace_layers": "trace layers",
        "patch": "patch",
        "intervene": "intervene",
        "mix_precision": "mix precision",
        "perturb": "perturb",
        "simulate_quantization": "simulate",
        "relate_errors": "relate errors",
    }
)
"""Rule -> what the table calls it; quantizers are one stage, all others `ANALYSES`."""
OTHERS = MappingProxyType(
    {"checkpoints": "checkpoint", "classifiers": "classifier", "texts": "documents"}
)
"""What is downloaded beside models: key of the account -> what the plan calls one."""
ORDER = (INPUTS, "quantize", *dict.fromkeys(STAGES.values()), ANALYSES)
HEADERS = ("stage", "jobs", "done", "CPU hours", "GPU hours", "memory", "GPU memory", "disk")
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def plan_text(account: Mapping[str, Any], free: float) -> str:
    """The whole plan.

    Args:
        account: of `study.estimates.account`.
        free: bytes of disk that are free for results.
    """
    jobs = account["jobs"]
    pending = [job for job in jobs if not job["done"]]
    lines = [
        f"Plan of study {account['study']}: {len(pending)} of {len(jobs)} jobs are to run.",
        "Hours, memory (of the largest job) and disk are those of the jobs to run.\n",
        tabulate(
            [*_rows(jobs), _row(TOTAL, jobs)],
            headers=HEADERS,
            disable_numparse=True,
            colalign=("left", *["right"] * (len(HEADERS) - 1)),
        ),
        "",
        *_downloads(account),
        *_warnings(account, pending, free),
        "\nAssumed:",
        *(f"- {line}" for line in account["assumed"]),
    ]
    return "\n".join(lines)


def stage_of(rule: str) -> str:
    """What the table calls a rule's stage."""
    return "quantize" if rule.startswith("quantize_") else STAGES.get(rule, ANALYSES)


def in_words(size: float) -> str:
    """Bytes in a readable unit: 13.5 GB."""
    for unit, name in UNITS:
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 999 * unit else f"{size / unit:.0f} {name}"
    return f"{size:.0f} B"


def _rows(jobs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for stage in dict.fromkeys(ORDER):
        of_stage = [job for job in jobs if stage_of(job["rule"]) == stage]
        if of_stage:
            yield _row(stage, of_stage)


def _row(name: str, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line; hours of a CPU count each thread, those of a GPU each job."""
    pending = [job for job in jobs if not job["done"]]
    on_gpu = [job for job in pending if job["gpu_memory"]]
    cpu_hours = sum(job["seconds"] * job["threads"] for job in pending if not job["gpu_memory"])
    gpu_hours = sum(job["seconds"] for job in on_gpu)
    return [
        name,
        str(len(jobs)),
        str(len(jobs) - len(pending)),
        _hours(cpu_hours),
        _hours(gpu_hours),
        in_words(max((job["memory"] for job in pending), default=0)),
        in_words(max(job["gpu_memory"] for job in on_gpu)) if on_gpu else "-",
        in_words(sum(job["disk"] for job in pending)),
    ]


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR:,.2f}" if seconds < 100 * HOUR else f"{seconds / HOUR:,.0f}"


def _downloads(account: Mapping[str, Any]) -> Iterator[str]:
    """One line per model, downloaded checkpoint and text, and what is downloaded in all."""
    for name, model in account["models"].items():
        download = model["download"]
        yield (
            f"model {name} ({model['source']}): {model['parameters'] / 1e6:,.1f} million "
            f"parameters, {in_words(model['stored_bytes'])} of weights, "
            + (f"download {in_words(download)}" if download else "nothing to download")
        )
    for kind, word in OTHERS.items():
        yield from (
            f"{word} {name}: download {in_words(size)}" for name, size in account[kind].items()
        )
    total = _downloaded(account)
    if total:
        yield f"downloads in all: {in_words(total)}, less what the cache of the hub has"


def _downloaded(account: Mapping[str, Any]) -> float:
    models = sum(model["download"] for model in account["models"].values())
    return models + sum(size for kind in OTHERS for size in account[kind].values())


def _warnings(
    account: Mapping[str, Any], pending: Sequence[Mapping[str, Any]], free: float
) -> Iterator[str]:
    """What will not fit."""
    wanted = sum(job["disk"] for job in pending) + _downloaded(account)
    if wanted > free:
        yield f"\nDISK: {in_words(wanted)} are needed, and {in_words(free)} are free here."
    gpu = account["gpu"]
    large = sorted({job["rule"] for job in pending if job["gpu_memory"] > gpu["memory"]})
    if large:
        yield (
            f"\nGPU: {', '.join(large)} take more than the {in_words(gpu['memory'])} of one "
            f"{gpu['name']}; write engine.mode: stream, a smaller engine.batch_size, or fewer "
            "methods"
        )
