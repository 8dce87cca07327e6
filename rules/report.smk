"""What a reader begins with: the summary, and the config that led to it."""

SUMMARY_TABLES = [
    "errors.parquet",
    "sets.parquet",
    "perplexity.csv",
    "overlap.csv",
    "correlation_by_bits.csv",
    "residual_correlation.csv",
    "prediction.csv",
    "prediction_added.csv",
    "long_tail.csv",
    "token_concentration.csv",
]


rule write_summary:
    input:
        claims=f"{STUDY_FOLDER}/claims.csv",
        documents=PATHS.shared("documents"),
        records=[PATHS.shared("model", model=model) for model in STUDY.models],
        tables=expand(f"{TABLES}/{{table}}", table=[*SUMMARY_TABLES, *ANSWER_TABLES], model=STUDY.models),
    output:
        f"{STUDY_FOLDER}/summary.md",
    log:
        f"{STUDY_FOLDER}/logs/write_summary.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/write_summary.tsv"
    resources:
        **needs("write_summary"),
    params:
        code=code("write_summary.py", "analysis"),
        study=f"--study {STUDY.study}",
        tables=" ".join(ANSWER_TABLES),
        models=as_json(
            {
                model: {
                    "results": PATHS.result("", model),
                    "record": PATHS.shared("model", model=model),
                }
                for model in STUDY.models
            }
        ),
        methods=METHODS,
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Write the summary"
    shell:
        "python scripts/write_summary.py {params.study} --models {params.models:q} "
        "--methods {params.methods:q} --documents {input.documents} --claims {input.claims} "
        "--tables {params.tables} "
        "--settings {params.settings:q} {params.seed} --output {output} 2>&1 | tee {log}"


rule render_pages:
    input:
        summary=f"{STUDY_FOLDER}/summary.md",
        claims=f"{STUDY_FOLDER}/claims.md",
    output:
        summary=report(
            f"{STUDY_FOLDER}/summary.html", caption="../report/summary.rst", category="Summary"
        ),
        claims=report(
            f"{STUDY_FOLDER}/claims.html", caption="../report/claims.rst", category="Claims"
        ),
    log:
        f"{STUDY_FOLDER}/logs/render_pages.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/render_pages.tsv"
    resources:
        **needs("render_pages"),
    params:
        code=code("render_pages.py", "core"),
    conda:
        environment("core")
    message:
        "Render the summary and the claims for the report"
    shell:
        "python scripts/render_pages.py --markdown {input.summary} {input.claims} "
        "--html {output.summary} {output.claims} 2>&1 | tee {log}"


rule write_config:
    output:
        f"{STUDY_FOLDER}/config.resolved.yaml",
    log:
        f"{STUDY_FOLDER}/logs/write_config.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/write_config.tsv"
    resources:
        **needs("write_config"),
    params:
        text=STUDY.resolved(),
    conda:
        environment("analysis")
    message:
        "Write down the config in full"
    shell:
        "printf %s {params.text:q} > {output} 2> {log}"


onstart:
    begin_run(workflow, STUDY)
    link_models()


onsuccess:
    end_run(workflow, STUDY, PATHS, final_outputs())


onerror:
    end_run(workflow, STUDY, PATHS, final_outputs(), failed=True)
