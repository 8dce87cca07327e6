"""An account of all jobs of a study, taken from Snakemake's own graph of them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from study.estimates.jobs import Estimates
from study.estimates.measured import measured_on
from study.estimates.need import Need
from study.estimates.seconds import DOWNLOAD_RATE

FINAL = "all"
"""The rule that asks for everything and does nothing."""


def account(
    dag: Any, need_of: Callable[[str, Any], Need], estimates: Estimates, on_gpu: bool
) -> dict[str, Any]:
    """List every job with what it is expected to take, and what the plan says beside the jobs.

    Args:
        dag: Snakemake's graph, complete.
        need_of: from a rule's name and a job's wildcards to its need.
    """
    study, classifier = estimates.study, estimates.classifier_download
    return {
        "study": study.study,
        "device": study.engine.device,
        "on_gpu": on_gpu,
        "gpu": {"name": estimates.gpu.name, "memory": estimates.gpu.memory},
        "assumed": list(_assumed(estimates, on_gpu)),
        "models": {
            name: {
                "source": study.models[name].source,
                "parameters": shape.parameters,
                "stored_bytes": shape.stored_bytes,
                "download": estimates.downloads.get(name, 0),
            }
            for name, shape in estimates.shapes.items()
        },
        "checkpoints": {  # by their source: methods may share one
            study.methods[name].quantized: size for name, size in estimates.checkpoints.items()
        },
        "classifiers": {study.topics.source: classifier} if classifier else {},
        "texts": {
            name.rpartition("-")[0]: source.download
            for name, source in estimates.texts.items()
            if source.is_downloaded
        },
        "jobs": [
            _entry(job, not dag.needrun(job), need_of, estimates)
            for job in dag.jobs
            if job.rule.name != FINAL
        ],
    }


def _entry(
    job: Any, done: bool, need_of: Callable[[str, Any], Need], estimates: Estimates
) -> dict[str, Any]:
    """One job; the last four say where what it really took is found, and what was computed."""
    rule, wildcards = job.rule.name, dict(job.wildcards.items())
    return {
        "rule": rule,
        "done": done,
        "threads": job.threads,
        **asdict(need_of(rule, job.wildcards)),
        "wildcards": wildcards,
        "output": [str(file) for file in job.output],
        "benchmark": str(job.benchmark),
        "log": [str(file) for file in job.log],
        "computed_memory": estimates.computed_memory(rule, wildcards),
        "work": estimates.work(rule, wildcards),
    }


def _assumed(estimates: Estimates, on_gpu: bool) -> Iterator[str]:
    """What the numbers rest on that was not measured or could not be known."""
    study, gpu = estimates.study, estimates.gpu
    if on_gpu:
        rates = ", ".join(
            f"{gpu.share[kind]:.0%} of {rate / 1e12:g} TFLOP/s in {kind}"
            for kind, rate in gpu.rates.items()
        )
        yield f"GPU: {gpu.name}, {rates} (data sheet; the shares are assumed, not measured)"
    elif study.engine.device == "auto":
        yield (
            "engine.device is auto, and there is no GPU here: planned for the CPU. On a cluster "
            "auto asks for a GPU; write cuda to plan for one"
        )
    yield f"CPU: rates measured on {measured_on()}, per thread; engine.threads more is faster"
    of_models = (*estimates.downloads.values(), *estimates.checkpoints.values())
    if any((*of_models, estimates.classifier_download)):
        yield f"downloads at {DOWNLOAD_RATE / 1e6:g} MB/s"
    for name, each in study.evaluation.items():
        if each.n is None:
            yield f"evaluation.{name}: as many rows as WikiText-2 or LAMBADA has; n says otherwise"
    unknown = sorted({name.rpartition("-")[0] for name in estimates.unknown_documents()})
    if unknown:
        yield (
            f"documents {', '.join(unknown)}: their size is not known before they are fetched; "
            "disk is without them"
        )
    for name, benchmark in study.downstream.items():
        if not benchmark.limit:
            yield f"downstream.{name}: all items of the task, prompts of 1,024 tokens"
