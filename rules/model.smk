"""The model: checked, described, and probed once in the core environment."""


rule fetch_model:
    output:
        pattern("model"),
    log:
        f"{SHARED}/logs/fetch_model.log",
    benchmark:
        f"{SHARED}/benchmarks/fetch_model.tsv"
    resources:
        **needs("fetch_model"),
    params:
        code=code("fetch_model.py", "core"),
        source=not_compared(lambda w: pinned(STUDY.models[PATHS.plain_name(w.model)].source)),
        demo=DEMO_MODEL,
    conda:
        environment("core")
    message:
        "Check model {wildcards.model}"
    shell:
        "python scripts/fetch_model.py --source {params.source:q} --demo {params.demo} "
        "--output {output} 2>&1 | tee {log}"


rule probe_model:
    input:
        pattern("model"),
    output:
        pattern("probe"),
    log:
        f"{SHARED}/logs/probe_model.log",
    benchmark:
        f"{SHARED}/benchmarks/probe_model.tsv"
    threads: THREADS
    resources:
        **needs("probe_model"),
    params:
        code=code("probe_model.py", "core"),
        threads=f"--threads {THREADS}",
    conda:
        environment("core")
    message:
        "Score the probe batch of {wildcards.model} in full precision"
    shell:
        "python scripts/probe_model.py --model {input} {params.threads} --output {output} "
        "2>&1 | tee {log}"
