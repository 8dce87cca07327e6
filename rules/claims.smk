"""The papers' claims, judged against what was measured."""


rule judge_claims:
    input:
        tables=expand(
            f"{TABLES}/{{table}}",
            table=["errors.parquet", "sets.parquet", *CLAIM_TABLES],
            model=STUDY.models,
        ),
        residuals=[PATHS.shared("residuals", model=model) for model in STUDY.models],
        records=[PATHS.shared("model", model=model) for model in STUDY.models],
    output:
        csv=f"{STUDY_FOLDER}/claims.csv",
        markdown=f"{STUDY_FOLDER}/claims.md",
    log:
        f"{STUDY_FOLDER}/logs/judge_claims.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/judge_claims.tsv"
    resources:
        **needs("judge_claims"),
    params:
        code=code("judge_claims.py", "analysis"),
        claims=list(map(str, CLAIMS)),
        content=list(map(sha256, CLAIMS)),
        models=as_json(
            {
                model: {
                    **settings.model_dump(),
                    "results": PATHS.result("", model),
                    "residuals": PATHS.shared("residuals", model=model),
                    "record": PATHS.shared("model", model=model),
                }
                for model, settings in STUDY.models.items()
            }
        ),
        documents=as_json(STUDY.documents.model_dump(include={"source", "length"})),
        tables=" ".join(CLAIM_TABLES),
        methods=METHODS,
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Judge the papers' claims"
    shell:
        "python scripts/judge_claims.py --claims {params.claims} --models {params.models:q} "
        "--document-settings {params.documents:q} --methods {params.methods:q} "
        "--tables {params.tables} --settings {params.settings:q} {params.seed} --csv {output.csv} "
        "--markdown {output.markdown} 2>&1 | tee {log}"
