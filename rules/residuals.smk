"""Residual magnitudes of the full-precision model, and how they go with the errors."""


rule measure_residuals:
    input:
        model=pattern("model"),
        tokens=lambda w: PATHS.shared("tokens", model=PATHS.plain_name(w.model)),
    output:
        residuals=pattern("residuals"),
        dimensions=pattern("residual_dimensions"),
        gates=pattern("residuals").replace("residuals.parquet", "gates.json"),
    log:
        f"{SHARED}/logs/measure_residuals/{{residuals}}.log",
    benchmark:
        f"{SHARED}/benchmarks/measure_residuals/{{residuals}}.tsv"
    threads: THREADS
    resources:
        **needs("measure_residuals"),
    params:
        code=code("residuals.py", "core"),
        settings=as_json(STUDY.engine.model_dump()),
    conda:
        environment("core")
    message:
        "Measure the residual magnitudes of {wildcards.model}"
    shell:
        "python scripts/residuals.py --model {input.model} --tokens {input.tokens} "
        "--settings {params.settings:q} --code {params.code} --gates {output.gates} "
        "--output {output.residuals} --dimensions {output.dimensions} 2>&1 | tee {log}"


rule analyze_residuals:
    input:
        residuals=of_study("residuals"),
        dimensions=of_study("residual_dimensions"),
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
    output:
        correlation=f"{TABLES}/residual_correlation.csv",
        by_set=f"{TABLES}/residual_sets.csv",
        outliers=table("outlier_dimensions", "Residual magnitudes"),
    log:
        f"{TABLES}/logs/analyze_residuals.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_residuals.tsv"
    resources:
        **needs("analyze_residuals"),
    params:
        code=code("analyze_residuals.py", "analysis"),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Relate the residual magnitudes of {wildcards.model} to its errors"
    shell:
        "python scripts/analyze_residuals.py --residuals {input.residuals} --errors {input.errors} "
        "--sets {input.sets} --settings {params.settings:q} {params.seed} "
        "--dimensions {input.dimensions} --correlation {output.correlation} "
        "--by-set {output.by_set} --outliers {output.outliers} 2>&1 | tee {log}"


rule plot_residuals:
    input:
        residuals=of_study("residuals"),
        sets=f"{TABLES}/sets.parquet",
        correlation=f"{TABLES}/residual_correlation.csv",
        by_set=f"{TABLES}/residual_sets.csv",
    output:
        layers=figure("residual_correlation", "Residual magnitudes"),
        norms=figure("residual_norms", "Residual magnitudes"),
        reversal=figure("residual_reversal", "Residual magnitudes"),
        density=figure("residual_density", "Residual magnitudes"),
        kurtosis=figure("residual_kurtosis", "Residual magnitudes"),
    log:
        f"{TABLES}/logs/plot_residuals.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_residuals.tsv"
    resources:
        **needs("plot_residuals"),
    params:
        code=code("plot_residuals.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw the residual magnitudes of {wildcards.model}"
    shell:
        "python scripts/plot_residuals.py --correlation {input.correlation} --by-set {input.by_set} "
        "--methods {params.methods:q} --layers-figure {output.layers} "
        "--norms-figure {output.norms} --reversal-figure {output.reversal} "
        "--residuals {input.residuals} --sets {input.sets} --density-figure {output.density} "
        "--kurtosis-figure {output.kurtosis} 2>&1 | tee {log}"


CLAIM_TABLES.append("outlier_dimensions.csv")
