"""Whether documents that the full-precision model finds hard suffer more than easy ones."""


rule analyze_long_tail:
    input:
        f"{TABLES}/errors.parquet",
    output:
        table("long_tail", "Long tail"),
    log:
        f"{TABLES}/logs/analyze_long_tail.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_long_tail.tsv"
    resources:
        **needs("analyze_long_tail"),
    params:
        code=code("analyze_long_tail.py", "analysis"),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Compare the errors of easy and hard documents of {wildcards.model}"
    shell:
        "python scripts/analyze_long_tail.py --errors {input} --settings {params.settings:q} "
        "{params.seed} --output {output} 2>&1 | tee {log}"


rule plot_long_tail:
    input:
        long_tail=f"{TABLES}/long_tail.csv",
        errors=f"{TABLES}/errors.parquet",
    output:
        figure("long_tail", "Long tail"),
    log:
        f"{TABLES}/logs/plot_long_tail.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_long_tail.tsv"
    resources:
        **needs("plot_long_tail"),
    params:
        code=code("plot_long_tail.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw the errors of {wildcards.model} against its NLL"
    shell:
        "python scripts/plot_long_tail.py --table {input.long_tail} --errors {input.errors} "
        "--methods {params.methods:q} --figure {output} 2>&1 | tee {log}"
