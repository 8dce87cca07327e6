"""On a cluster: which jobs run beside Snakemake itself instead of on a node. Elsewhere nothing changes.

A job on a node costs 5-7 s more and up to half a minute until its end is seen. What reads tables and draws or
writes takes less than that; what fetches models and texts needs a network, which nodes often lack.
"""

SMALL = 1000
"""Documents up to which the analyses, which run no model, take less than a minute each."""
LIGHT = ["compare", "fetch", "judge", "plot", "render", "tabulate", "write"]
LIGHT_IF_SMALL = ["analyze", "check", "compute", "correlate", "predict", "tokenize"]
"""First words of rules' names."""

for each in workflow.rules:
    light = [*LIGHT, *(LIGHT_IF_SMALL if STUDY.documents.n <= SMALL else [])]
    if each.name.split("_")[0] in light:
        workflow.localrules(each.name)
