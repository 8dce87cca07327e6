"""Early exit and amplification: full-precision and quantized models side by side, by layer."""

TRACED = STUDY.mechanism_methods()


rule trace_layers:
    input:
        model=of_study("model"),
        tokens=of_study("tokens"),
        sets=f"{TABLES}/sets.parquet",
        records=lambda w: [
            PATHS.shared("method_record", model=w.model, method=method) for method in TRACED
        ],
        # Their content is in the records; they are too large to be compared by content at each start.
        weights=lambda w: ancient(
            [PATHS.shared("weights", model=w.model, method=method) for method in TRACED]
        ),
    output:
        exits=f"{TABLES}/early_exit.parquet",
        differences=f"{TABLES}/mlp_differences.parquet",
        gates=f"{TABLES}/trace_gates.json",
    log:
        f"{TABLES}/logs/trace_layers.log",
    benchmark:
        f"{TABLES}/benchmarks/trace_layers.tsv"
    threads: THREADS
    resources:
        **needs("trace_layers"),
    params:
        code=code("trace_layers.py", "core"),
        methods=lambda w: as_json(inside_calls(w.model)),
        settings=as_json(STUDY.engine.model_dump()),
    conda:
        environment("core")
    message:
        "Trace {wildcards.model} layer by layer"
    shell:
        "python scripts/trace_layers.py --model {input.model} --tokens {input.tokens} "
        "--sets {input.sets} --methods {params.methods:q} --settings {params.settings:q} "
        "--code {params.code} --gates {output.gates} --exits {output.exits} --differences {output.differences} "
        "2>&1 | tee {log}"


rule analyze_trace:
    input:
        exits=f"{TABLES}/early_exit.parquet",
        differences=f"{TABLES}/mlp_differences.parquet",
        residuals=of_study("residuals"),
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
    output:
        exits=table("early_exit", "Early exit"),
        amplification=table("amplification", "Residual magnitudes"),
    log:
        f"{TABLES}/logs/analyze_trace.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_trace.tsv"
    resources:
        **needs("analyze_trace"),
    params:
        code=code("analyze_trace.py", "analysis"),
        methods=" ".join(TRACED),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Tabulate early exit and amplification of {wildcards.model}"
    shell:
        "python scripts/analyze_trace.py --exits {input.exits} --differences {input.differences} "
        "--residuals {input.residuals} --errors {input.errors} --sets {input.sets} "
        "--methods {params.methods} --settings {params.settings:q} {params.seed} "
        "--early-exit {output.exits} --amplification {output.amplification} 2>&1 | tee {log}"


rule plot_trace:
    input:
        exits=f"{TABLES}/early_exit.csv",
        amplification=f"{TABLES}/amplification.csv",
    output:
        exits=figure("early_exit", "Early exit"),
        amplification=figure("amplification", "Residual magnitudes"),
    log:
        f"{TABLES}/logs/plot_trace.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_trace.tsv"
    resources:
        **needs("plot_trace"),
    params:
        code=code("plot_trace.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw early exit and amplification of {wildcards.model}"
    shell:
        "python scripts/plot_trace.py --early-exit {input.exits} "
        "--amplification {input.amplification} --methods {params.methods:q} "
        "--exit-figure {output.exits} --amplification-figure {output.amplification} "
        "2>&1 | tee {log}"


CLAIM_TABLES.extend(["early_exit.parquet", "mlp_differences.parquet"])
