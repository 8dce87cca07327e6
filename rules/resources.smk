"""What jobs may take: memory, time and disk from the sizes of the models and the study.

Nothing here reruns anything: Snakemake does not compare resources. On one machine they limit
nothing either (memory is only counted where `--resources mem_mb=...` says how much there is), but
for GPUs: jobs that use one run one after the other. Clusters are asked for all of it, but for no
more time than their partitions give.
"""

import atexit
import os
from functools import cache
from math import inf

from lowbit.files import write_json
from lowbit.inputs.documents import outline_documents
from lowbit.quantization.published.description import checkpoint_files
from study.config.archive import locate
from study.estimates.jobs import Estimates, gpu_is_here, runs_on_device
from study.estimates.requests import REQUESTS, longest_runtime, request
from study.estimates.shapes import download_bytes, shape_of
from study.estimates.texts import text_source

OUTLINES = {name: STUDY.model_outline(name) for name in STUDY.models}
"""Local directory of each model, or what the hub lists of it."""
TEXTS = {
    keyed: text_source(
        outline_documents(locate(settings.source, demo).source, demo), settings.candidates
    )
    for keyed, (_, settings, demo) in DOCUMENT_SETS.items()
}
CLASSIFIER = STUDY.classifier_outline() if STUDY.topics else None
"""The same of the classifier of topics, where there is one."""
ESTIMATES = Estimates(
    STUDY,
    PATHS,
    {name: shape_of(place) for name, place in OUTLINES.items()},
    {keyed: found for keyed, found in TEXTS.items() if found},
    {name: download_bytes(place) for name, place in OUTLINES.items()},
    {
        name: size
        for name in PUBLISHED
        if (size := download_bytes(STUDY.methods[name].checkpoint(), checkpoint_files))
    },
    shape_of(CLASSIFIER) if CLASSIFIER else None,
    download_bytes(CLASSIFIER) if CLASSIFIER else 0,
)
ACCOUNT = os.environ.get("PLAN_ACCOUNT")
"""File that a dry run leaves what `make plan` shows in."""


def on_gpu():
    """Whether what runs on `engine.device` gets a GPU. `auto` does on a cluster, and here where there is one."""
    device = STUDY.engine.device
    if device != "auto":
        return device != "cpu"
    return workflow.non_local_exec or gpu_is_here()


def need_of(rule, wildcards):
    """What a job of a rule is expected to take."""
    outputs = list(map(str, workflow.get_rule(rule).output))
    return ESTIMATES.need(rule, dict(wildcards.items()), outputs, on_gpu())


@cache
def longest(uses_gpu):
    """Minutes that a job may ask for at most, in the partitions that the profile names."""
    file = getattr(workflow.executor_settings, "partition_config", None)
    if file is None:
        return inf
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    limits = [partition.limits for partition in read_partition_file(file)]
    return longest_runtime([(each.max_runtime, each.max_gpu) for each in limits], uses_gpu)


def needs(rule):
    """Resources of a rule: what its jobs are expected to take and a margin, more at each attempt."""

    def ask(kind):
        def asked(wildcards, attempt):
            need = need_of(rule, wildcards)
            return request(need, attempt, longest(need.uses_gpu))[kind]

        return asked

    gpu = ("gpu",) if runs_on_device(rule) else ()
    return {kind: ask(kind) for kind in (*REQUESTS, *gpu)}


if ACCOUNT and workflow.is_main_process:
    from study.estimates.account import account

    atexit.register(lambda: write_json(ACCOUNT, account(workflow.dag, need_of, ESTIMATES, on_gpu())))
