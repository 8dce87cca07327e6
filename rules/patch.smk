"""Cross-model activation patching, and weights of the last blocks put back.

One job for all methods of `mechanisms`: a job's start costs seconds. Without anything under
`mechanisms.patch` the study has none of this.
"""

PATCH = STUDY.mechanisms.patch

if PATCH:
    CLAIM_TABLES.append("patching.parquet")
    ANSWER_TABLES.append("patching.csv")
    MODEL_RESULTS.append("patching.md")

    rule patch:
        input:
            model=of_study("model"),
            tokens=of_study("tokens"),
            sets=f"{TABLES}/sets.parquet",
            methods=lambda w: [
                PATHS.shared("method_record", model=w.model, method=method)
                for method in STUDY.mechanism_methods()
            ],
            # Their content is in the records, as in the rule that scores.
            weights=lambda w: ancient(
                [
                    PATHS.shared("weights", model=w.model, method=method)
                    for method in STUDY.mechanism_methods()
                ]
            ),
        output:
            patching=f"{TABLES}/patching.parquet",
            gates=f"{TABLES}/patching_gates.json",
        log:
            f"{TABLES}/logs/patch.log",
        benchmark:
            f"{TABLES}/benchmarks/patch.tsv"
        threads: THREADS
        resources:
            **needs("patch"),
        params:
            code=code("patch.py", "core"),
            methods=lambda w: as_json(inside_calls(w.model)),
            patch=f"--patch {' '.join(PATCH)}",
            settings=as_json(STUDY.engine.model_dump()),
        conda:
            environment("core")
        message:
            "Patch the quantized versions of {wildcards.model} with full-precision activations"
        shell:
            "python scripts/patch.py --model {input.model} --tokens {input.tokens} "
            "--sets {input.sets} --methods {params.methods:q} {params.patch} "
            "--settings {params.settings:q} --code {params.code} --gates {output.gates} "
            "--output {output.patching} 2>&1 | tee {log}"

    rule analyze_patching:
        input:
            patching=f"{TABLES}/patching.parquet",
            errors=f"{TABLES}/errors.parquet",
        output:
            table=table("patching", "Activation patching"),
            markdown=f"{TABLES}/patching.md",
        log:
            f"{TABLES}/logs/analyze_patching.log",
        benchmark:
            f"{TABLES}/benchmarks/analyze_patching.tsv"
        resources:
            **needs("analyze_patching"),
        params:
            code=code("analyze_patching.py", "analysis"),
            claims=list(map(str, CLAIMS)),
            content=list(map(sha256, CLAIMS)),
            model=lambda w: f"--name {w.model} --source {shlex.quote(STUDY.models[w.model].source)}",
            documents=as_json(STUDY.documents.model_dump(include={"source", "length"})),
            methods=METHODS,
            settings=as_json(STUDY.bootstrap.model_dump()),
            seed=f"--seed {STUDY.seed}",
        conda:
            environment("analysis")
        message:
            "Say what patching restores in {wildcards.model}"
        shell:
            "python scripts/analyze_patching.py --patching {input.patching} "
            "--errors {input.errors} --claims {params.claims} {params.model} "
            "--document-settings {params.documents:q} --methods {params.methods:q} "
            "--settings {params.settings:q} {params.seed} --table {output.table} "
            "--markdown {output.markdown} 2>&1 | tee {log}"

    # Heat maps of role and block, for the ways of choosing blocks that have them.
    PATCH_MAPS = {
        f"{layers}_figure": figure(f"patching_{layers}", "Activation patching")
        for layers in PATCH
        if layers != "upper"
    }

    rule plot_patching:
        input:
            f"{TABLES}/patching.csv",
        output:
            roles=figure("patching_roles", "Activation patching"),
            last=figure("patching_last_blocks", "Activation patching"),
            **PATCH_MAPS,
        log:
            f"{TABLES}/logs/plot_patching.log",
        benchmark:
            f"{TABLES}/benchmarks/plot_patching.tsv"
        resources:
            **needs("plot_patching"),
        params:
            code=code("plot_patching.py", "analysis"),
            methods=METHODS,
            maps=lambda w, output: " ".join(
                f"--{name.replace('_', '-')} {' '.join(getattr(output, name))}" for name in PATCH_MAPS
            ),
        conda:
            environment("analysis")
        message:
            "Draw what patching restores in {wildcards.model}"
        shell:
            "python scripts/plot_patching.py --table {input} --methods {params.methods:q} "
            "--roles-figure {output.roles} --last-figure {output.last} {params.maps} "
            "2>&1 | tee {log}"
