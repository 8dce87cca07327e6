"""The workflow's own Python: config, paths, code digests. It runs in Snakemake, without torch."""
