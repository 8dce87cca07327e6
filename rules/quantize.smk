"""Quantized weights: one rule per implementation in the study, each in its own environment."""

for (rule_name, backend), names in implementations().items():

    rule:
        name:
            rule_name
        input:
            model=pattern("model"),
            probe=pattern("probe"),
            calibration=lambda w: PATHS.shared(
                "calibration",
                model=PATHS.plain_name(w.model),
                calibration=STUDY.calibration_of(PATHS.plain_name(w.method)),
            ),
        output:
            weights=pattern("weights"),
            record=pattern("method_record"),
        log:
            f"{SHARED}/logs/quantize/{{method}}.log",
        benchmark:
            f"{SHARED}/benchmarks/quantize/{{method}}.tsv"
        wildcard_constraints:
            method="|".join(re.escape(PATHS.methods[name]) for name in names),
        threads: THREADS
        resources:
            **needs(rule_name),
        params:
            code=code("quantize.py", backend.environment, backend.module),
            module=backend.module,
            name=lambda w: f"--name {PATHS.plain_name(w.method)}",
            method=lambda w: as_json(quantizer_call(PATHS.plain_name(w.method))),
            seed=f"--seed {STUDY.seed}",
            threads=f"--threads {THREADS}",
            device=f"--device {STUDY.engine.device}",
        conda:
            environment(backend.environment)
        message:
            "Quantize {wildcards.model}: {wildcards.method}"
        shell:
            "python scripts/quantize.py --model {input.model} --probe {input.probe} "
            "--calibration {input.calibration} --module {params.module} "
            "--method {params.method:q} {params.name} {params.seed} {params.threads} "
            "{params.device} --code {params.code} "
            "--weights {output.weights} --record {output.record} 2>&1 | tee {log}"


rule tabulate_quantization:
    input:
        lambda w: [
            PATHS.shared("method_record", model=w.model, method=method) for method in STUDY.methods
        ],
    output:
        csv=table("quantization", "Quantization"),
        markdown=f"{TABLES}/quantization.md",
    log:
        f"{TABLES}/logs/tabulate_quantization.log",
    benchmark:
        f"{TABLES}/benchmarks/tabulate_quantization.tsv"
    resources:
        **needs("tabulate_quantization"),
    params:
        code=code("tabulate_quantization.py", "analysis"),
        model=lambda w: f"--model {w.model}",
        names=as_json(list(STUDY.methods)),
    conda:
        environment("analysis")
    message:
        "Tabulate what quantizing {wildcards.model} cost"
    shell:
        "python scripts/tabulate_quantization.py {params.model} --records {input} "
        "--names {params.names:q} --csv {output.csv} --markdown {output.markdown} 2>&1 | tee {log}"
