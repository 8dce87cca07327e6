"""Quantized weights: one rule per quantizer of the registry, each in that quantizer's environment."""

for name, quantizer in QUANTIZERS.items():
    if not methods_with(name):
        continue

    rule:
        name:
            f"quantize_{name}"
        input:
            model=pattern("model"),
            probe=pattern("probe"),
        output:
            weights=pattern("weights"),
            record=pattern("method_record"),
        log:
            f"{SHARED}/logs/quantize/{{method}}.log",
        benchmark:
            f"{SHARED}/benchmarks/quantize/{{method}}.tsv"
        wildcard_constraints:
            method="|".join(re.escape(PATHS.methods[method]) for method in methods_with(name)),
        threads: THREADS
        resources:
            mem_mb=4000,
        params:
            code=code("quantize.py", quantizer.environment, quantizer.module),
            quantizer=name,
            name=lambda w: f"--name {PATHS.plain_name(w.method)}",
            settings=lambda w: as_json(STUDY.methods[PATHS.plain_name(w.method)].settings()),
            seed=f"--seed {STUDY.seed}",
            threads=f"--threads {THREADS}",
        conda:
            environment(quantizer.environment)
        message:
            "Quantize {wildcards.model}: {wildcards.method}"
        shell:
            "python scripts/quantize.py --model {input.model} --probe {input.probe} "
            "--quantizer {params.quantizer} --settings {params.settings:q} {params.name} "
            "{params.seed} {params.threads} "
            "--weights {output.weights} --record {output.record} 2>&1 | tee {log}"
