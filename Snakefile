"""Which inputs break low-bit quantization, and why: the workflow's table of contents."""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27.1")
sys.path.insert(0, str(Path(workflow.basedir, "scripts")))


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/resources.smk"
include: "rules/model.smk"
include: "rules/documents.smk"
include: "rules/tokens.smk"
include: "rules/quantize.smk"
include: "rules/published.smk"
include: "rules/score.smk"
include: "rules/errors.smk"
include: "rules/correlate.smk"
include: "rules/residuals.smk"
include: "rules/trace.smk"
include: "rules/predict.smk"
include: "rules/long_tail.smk"
include: "rules/token_errors.smk"
include: "rules/patch.smk"

if STUDY.documents.released:

    include: "rules/released.smk"

if STUDY.evaluation:

    include: "rules/evaluation.smk"

if STUDY.mechanisms.interventions:

    include: "rules/intervene.smk"

if STUDY.mechanisms.mixed_precision:

    include: "rules/mixed_precision.smk"

if STUDY.perturbation:

    include: "rules/perturb.smk"

if STUDY.simulation:

    include: "rules/simulate.smk"

if STUDY.topics:

    include: "rules/topics.smk"

if STUDY.downstream:

    include: "rules/downstream.smk"

if len(STUDY.models) > 1 and COMPARED_TABLES:

    include: "rules/compare.smk"

include: "rules/claims.smk"
include: "rules/report.smk"
include: "rules/head.smk"


rule all:
    input:
        final_outputs(),
    default_target: True
