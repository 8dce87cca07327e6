"""On the documents that the inputs paper's authors released: do ours break where theirs did?"""

CLAIM_TABLES.append("released_sets.parquet")


rule compare_released:
    input:
        documents=PATHS.shared("documents"),
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
    output:
        released=f"{TABLES}/released_sets.parquet",
        table=table("released_agreement", "Errors"),
    log:
        f"{TABLES}/logs/compare_released.log",
    benchmark:
        f"{TABLES}/benchmarks/compare_released.tsv"
    resources:
        **needs("compare_released"),
    params:
        code=code("compare_released.py", "analysis"),
        methods=METHODS,
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Compare the documents that break {wildcards.model} with the authors'"
    shell:
        "python scripts/compare_released.py --documents {input.documents} --errors {input.errors} "
        "--sets {input.sets} --methods {params.methods:q} --settings {params.settings:q} "
        "{params.seed} --released {output.released} --output {output.table} 2>&1 | tee {log}"
