"""On a cluster: which jobs run beside Snakemake itself instead of on a node. Elsewhere nothing changes.

A job on a node takes 5-7 s more, and its end is seen up to half a minute later; what is expected to
take less than a minute, and runs no model or quantizer, is therefore better done at once. What fetches
models and texts needs a network, which nodes often lack.
"""

LIGHT = 60
"""Seconds."""


def is_light(name):
    """Whether the jobs of this rule run beside Snakemake."""
    if name.startswith("fetch"):
        return True
    if name == "all" or runs_on_device(name):
        return False
    return all(ESTIMATES.need(name, {"model": model}).seconds < LIGHT for model in STUDY.models)


for each in workflow.rules:
    if is_light(each.name):
        workflow.localrules(each.name)
