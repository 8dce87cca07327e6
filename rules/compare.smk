"""The models of a study side by side: families, sizes, checkpoints of a training, fine-tuned ones."""


rule compare_models:
    input:
        records=[PATHS.shared("model", model=model) for model in STUDY.models],
        tables=expand(f"{TABLES}/{{table}}", table=COMPARED_TABLES, model=STUDY.models),
    output:
        over_models("robustness", "csv", "Perturbation"),
    log:
        f"{STUDY_FOLDER}/logs/compare_models.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/compare_models.tsv"
    resources:
        **needs("compare_models"),
    params:
        code=code("compare_models.py", "analysis"),
        models=as_json(
            {
                model: {
                    **settings.model_dump(exclude={"source"}),
                    "results": PATHS.result("", model),
                    "record": PATHS.shared("model", model=model),
                }
                for model, settings in STUDY.models.items()
            }
        ),
        tables=" ".join(COMPARED_TABLES),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Compare how robust the models are"
    shell:
        "python scripts/compare_models.py --models {params.models:q} --tables {params.tables} "
        "--settings {params.settings:q} {params.seed} --output {output} 2>&1 | tee {log}"


rule plot_robustness:
    input:
        f"{STUDY_FOLDER}/robustness.csv",
    output:
        [over_models("robustness", ending, "Perturbation") for ending in ("png", "svg")],
    log:
        f"{STUDY_FOLDER}/logs/plot_robustness.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/plot_robustness.tsv"
    resources:
        **needs("plot_robustness"),
    params:
        code=code("plot_robustness.py", "analysis"),
    conda:
        environment("analysis")
    message:
        "Draw how robust the models are"
    shell:
        "python scripts/plot_robustness.py --robustness {input} --figure {output} "
        "2>&1 | tee {log}"
