"""What to keep in higher precision: modules ranked by measuring, and models mixed by that."""

MIXED = STUDY.mechanisms.mixed_precision
MIXED_METHODS = {
    option: name
    for option, name in (("base", MIXED.base), ("higher", MIXED.higher))
    if name != FULL
}
"""The methods whose weights are read, by the option that names them."""

MODEL_RESULTS.append("mixed_precision.md")
ANSWER_TABLES.append("mixed_precision.csv")


rule mix_precision:
    input:
        model=of_study("model"),
        tokens=of_study("tokens"),
        methods=lambda w: [
            PATHS.shared("method_record", model=w.model, method=name) for name in MIXED_METHODS.values()
        ],
        # Their content is in the records, as in the rule that scores.
        weights=lambda w: ancient(
            [PATHS.shared("weights", model=w.model, method=name) for name in MIXED_METHODS.values()]
        ),
    output:
        plan=f"{TABLES}/mixed_precision.json",
        modules=f"{TABLES}/module_scores.parquet",
        models=f"{TABLES}/mixed_scores.parquet",
        gates=f"{TABLES}/mixed_precision_gates.json",
    log:
        f"{TABLES}/logs/mix_precision.log",
    benchmark:
        f"{TABLES}/benchmarks/mix_precision.tsv"
    threads: THREADS
    resources:
        **needs("mix_precision"),
    params:
        code=code("mixed_precision.py", "core"),
        records=lambda w: " ".join(
            f"--{option}-record {PATHS.shared('method_record', w.model, name)}"
            for option, name in MIXED_METHODS.items()
        ),
        names=f"--base {MIXED.base} --higher {MIXED.higher}",
        extra=f"--extra-bits {MIXED.extra_bits}",
        settings=as_json(STUDY.engine.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("core")
    message:
        "Find out what to keep in higher precision in {wildcards.model}"
    shell:
        "python scripts/mixed_precision.py --model {input.model} --tokens {input.tokens} "
        "{params.names} {params.records} {params.extra} "
        "--settings {params.settings:q} --code {params.code} {params.seed} "
        "--gates {output.gates} --plan {output.plan} --modules {output.modules} --models {output.models} "
        "2>&1 | tee {log}"


rule analyze_mixed_precision:
    input:
        plan=f"{TABLES}/mixed_precision.json",
        modules=f"{TABLES}/module_scores.parquet",
        models=f"{TABLES}/mixed_scores.parquet",
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
    output:
        ranking=table("module_ranking", "Mixed precision"),
        mixed=table("mixed_precision", "Mixed precision"),
        markdown=f"{TABLES}/mixed_precision.md",
    log:
        f"{TABLES}/logs/analyze_mixed_precision.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_mixed_precision.tsv"
    resources:
        **needs("analyze_mixed_precision"),
    params:
        code=code("analyze_mixed_precision.py", "analysis"),
        model=lambda w: f"--model {w.model}",
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Tabulate what to keep in higher precision in {wildcards.model}"
    shell:
        "python scripts/analyze_mixed_precision.py {params.model} --plan {input.plan} "
        "--modules {input.modules} --models {input.models} --errors {input.errors} "
        "--sets {input.sets} --settings {params.settings:q} {params.seed} "
        "--ranking {output.ranking} --mixed {output.mixed} --markdown {output.markdown} "
        "2>&1 | tee {log}"


rule plot_mixed_precision:
    input:
        ranking=f"{TABLES}/module_ranking.csv",
        mixed=f"{TABLES}/mixed_precision.csv",
    output:
        ranking=figure("module_ranking", "Mixed precision"),
        mixed=figure("mixed_precision", "Mixed precision"),
    log:
        f"{TABLES}/logs/plot_mixed_precision.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_mixed_precision.tsv"
    resources:
        **needs("plot_mixed_precision"),
    params:
        code=code("plot_mixed_precision.py", "analysis"),
        names=f"--base {MIXED.base} --higher {MIXED.higher}",
    conda:
        environment("analysis")
    message:
        "Draw what to keep in higher precision in {wildcards.model}"
    shell:
        "python scripts/plot_mixed_precision.py --ranking {input.ranking} --mixed {input.mixed} "
        "{params.names} --ranking-figure {output.ranking} --mixed-figure {output.mixed} "
        "2>&1 | tee {log}"
