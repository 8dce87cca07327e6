"""Published checkpoints: read, checked against the model, and written like the study's own."""

if PUBLISHED:

    rule fetch_checkpoint:
        output:
            pattern("checkpoint"),
        log:
            f"{SHARED}/logs/fetch_checkpoint/{{method}}.log",
        benchmark:
            f"{SHARED}/benchmarks/fetch_checkpoint/{{method}}.tsv"
        resources:
            **needs("fetch_checkpoint"),
        params:
            code=code("fetch_checkpoint.py", "core"),
            source=not_compared(
                lambda w: pinned(STUDY.methods[PATHS.plain_name(w.method)].quantized)
            ),
        conda:
            environment("core")
        message:
            "Fetch a published checkpoint of {wildcards.model}: {wildcards.method}"
        shell:
            "python scripts/fetch_checkpoint.py --source {params.source:q} --output {output} "
            "2>&1 | tee {log}"

    rule read_checkpoint:
        input:
            fetched=fetched_checkpoint,
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
            method="|".join(re.escape(PATHS.methods[name]) for name in PUBLISHED),
        threads: THREADS
        resources:
            **needs("read_checkpoint"),
        params:
            code=code("read_checkpoint.py", "core"),
            source=not_compared(
                lambda w: pinned(STUDY.methods[PATHS.plain_name(w.method)].quantized)
            ),
            threads=f"--threads {THREADS}",
            device=f"--device {STUDY.engine.device}",
        conda:
            environment("core")
        message:
            "Read a published checkpoint of {wildcards.model}: {wildcards.method}"
        shell:
            "python scripts/read_checkpoint.py --model {input.model} --probe {input.probe} "
            "--calibration {input.calibration} --source {params.source:q} {params.threads} "
            "{params.device} --weights {output.weights} --record {output.record} 2>&1 | tee {log}"
