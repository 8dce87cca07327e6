"""Whether different methods break the same documents."""


rule correlate:
    input:
        f"{TABLES}/errors.parquet",
    output:
        pairs=f"{TABLES}/correlation.csv",
        by_bits=table("correlation_by_bits", "Correlation between methods"),
    log:
        f"{TABLES}/logs/correlate.log",
    benchmark:
        f"{TABLES}/benchmarks/correlate.tsv"
    resources:
        **needs("correlate"),
    params:
        code=code("correlate.py", "analysis"),
        methods=METHODS,
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Correlate the errors of {wildcards.model} between methods"
    shell:
        "python scripts/correlate.py --errors {input} --methods {params.methods:q} "
        "--settings {params.settings:q} {params.seed} "
        "--pairs {output.pairs} --by-bits {output.by_bits} 2>&1 | tee {log}"


rule plot_correlation:
    input:
        pairs=f"{TABLES}/correlation.csv",
        errors=f"{TABLES}/errors.parquet",
    output:
        heatmap=figure("correlation", "Correlation between methods"),
        scatter=figure("scatter", "Correlation between methods"),
    log:
        f"{TABLES}/logs/plot_correlation.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_correlation.tsv"
    resources:
        **needs("plot_correlation"),
    params:
        code=code("plot_correlation.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw the correlations of {wildcards.model}"
    shell:
        "python scripts/plot_correlation.py --pairs {input.pairs} --errors {input.errors} "
        "--methods {params.methods:q} --heatmap-figure {output.heatmap} "
        "--scatter-figure {output.scatter} 2>&1 | tee {log}"
