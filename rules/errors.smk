"""Errors of each document and method, and the documents that break."""


rule compute_errors:
    input:
        scores=f"{TABLES}/scores.json",
        tokens=of_study("tokens"),
    output:
        errors=f"{TABLES}/errors.parquet",
        perplexity=table("perplexity", "Errors"),
        sets=f"{TABLES}/sets.parquet",
        overlap=f"{TABLES}/overlap.csv",
    log:
        f"{TABLES}/logs/compute_errors.log",
    benchmark:
        f"{TABLES}/benchmarks/compute_errors.tsv"
    resources:
        **needs("compute_errors"),
    params:
        code=code("compute_errors.py", "analysis"),
        settings=as_json(STUDY.errors.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Compute the errors of {wildcards.model}"
    shell:
        "python scripts/compute_errors.py --scores {input.scores} --tokens {input.tokens} "
        "--settings {params.settings:q} {params.seed} --errors {output.errors} "
        "--perplexity {output.perplexity} --sets {output.sets} --overlap {output.overlap} "
        "2>&1 | tee {log}"


rule plot_errors:
    input:
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
        overlap=f"{TABLES}/overlap.csv",
    output:
        errors=figure("error_distribution", "Errors"),
        overlap=figure("overlap", "Errors"),
    log:
        f"{TABLES}/logs/plot_errors.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_errors.tsv"
    resources:
        **needs("plot_errors"),
    params:
        code=code("plot_errors.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw the errors of {wildcards.model}"
    shell:
        "python scripts/plot_errors.py --errors {input.errors} --sets {input.sets} "
        "--overlap {input.overlap} --methods {params.methods:q} "
        "--distribution-figure {output.errors} --overlap-figure {output.overlap} 2>&1 | tee {log}"
