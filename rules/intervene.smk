"""Interventions: the residual norm is changed, to see whether that makes inputs break."""

INTERVENED = STUDY.mechanism_methods()

MODEL_RESULTS.append("interventions.md")
ANSWER_TABLES.append("interventions.csv")


rule intervene:
    input:
        model=of_study("model"),
        tokens=of_study("tokens"),
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
        residuals=of_study("residuals"),
        methods=lambda w: [
            PATHS.shared("method_record", model=w.model, method=name) for name in INTERVENED
        ],
        # Their content is in the records, as in the rule that scores.
        weights=lambda w: ancient(
            [PATHS.shared("weights", model=w.model, method=name) for name in INTERVENED]
        ),
    output:
        scores=f"{TABLES}/intervention_scores.parquet",
        gates=f"{TABLES}/intervention_gates.json",
    log:
        f"{TABLES}/logs/intervene.log",
    benchmark:
        f"{TABLES}/benchmarks/intervene.tsv"
    threads: THREADS
    resources:
        **needs("intervene"),
    params:
        code=code("intervene.py", "core"),
        methods=lambda w: as_json(
            {name: PATHS.shared("method_record", w.model, name) for name in INTERVENED}
        ),
        settings=as_json(STUDY.engine.model_dump()),
    conda:
        environment("core")
    message:
        "Change the residual norms of {wildcards.model}"
    shell:
        "python scripts/intervene.py --model {input.model} --tokens {input.tokens} "
        "--errors {input.errors} --sets {input.sets} --residuals {input.residuals} "
        "--methods {params.methods:q} --settings {params.settings:q} --code {params.code} "
        "--gates {output.gates} --output {output.scores} 2>&1 | tee {log}"


rule analyze_interventions:
    input:
        scores=f"{TABLES}/intervention_scores.parquet",
        gates=f"{TABLES}/intervention_gates.json",
        errors=f"{TABLES}/errors.parquet",
    output:
        csv=table("interventions", "Interventions"),
        markdown=f"{TABLES}/interventions.md",
    log:
        f"{TABLES}/logs/analyze_interventions.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_interventions.tsv"
    resources:
        **needs("analyze_interventions"),
    params:
        code=code("analyze_interventions.py", "analysis"),
        model=lambda w: f"--model {w.model}",
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Tabulate what changing the residual norms of {wildcards.model} did"
    shell:
        "python scripts/analyze_interventions.py {params.model} --scores {input.scores} "
        "--gates {input.gates} --errors {input.errors} --settings {params.settings:q} "
        "{params.seed} --csv {output.csv} --markdown {output.markdown} 2>&1 | tee {log}"


rule plot_interventions:
    input:
        f"{TABLES}/interventions.csv",
    output:
        figure("interventions", "Interventions"),
    log:
        f"{TABLES}/logs/plot_interventions.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_interventions.tsv"
    resources:
        **needs("plot_interventions"),
    params:
        code=code("plot_interventions.py", "analysis"),
    conda:
        environment("analysis")
    message:
        "Draw what changing the residual norms of {wildcards.model} did"
    shell:
        "python scripts/plot_interventions.py --table {input} --figure {output} 2>&1 | tee {log}"
