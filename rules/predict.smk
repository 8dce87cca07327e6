"""Whether errors can be predicted on held-out documents, and what the norm adds to simpler things."""

CLAIM_TABLES.append("predictions.parquet")
MODEL_RESULTS.append("prediction.md")


rule predict:
    input:
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
        residuals=of_study("residuals"),
        tokens=of_study("tokens"),
        model=of_study("model"),
    output:
        predictions=f"{TABLES}/predictions.parquet",
        values=table("prediction", "Prediction"),
        added=table("prediction_added", "Prediction"),
        transfer=f"{TABLES}/prediction_transfer.csv",
        partial=table("partial_correlation", "Prediction"),
        markdown=f"{TABLES}/prediction.md",
    log:
        f"{TABLES}/logs/predict.log",
    benchmark:
        f"{TABLES}/benchmarks/predict.tsv"
    resources:
        **needs("predict"),
    params:
        code=code("predict.py", "analysis"),
        name=lambda w: f"--name {w.model}",
        prediction=as_json(STUDY.prediction.model_dump()),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Predict the errors of {wildcards.model} on held-out documents"
    shell:
        "python scripts/predict.py --errors {input.errors} --sets {input.sets} "
        "--residuals {input.residuals} --tokens {input.tokens} --model {input.model} {params.name} "
        "--prediction {params.prediction:q} --settings {params.settings:q} {params.seed} "
        "--predictions {output.predictions} --table {output.values} --added {output.added} "
        "--transfer {output.transfer} --partial {output.partial} --markdown {output.markdown} "
        "2>&1 | tee {log}"


rule plot_prediction:
    input:
        values=f"{TABLES}/prediction.csv",
        added=f"{TABLES}/prediction_added.csv",
        transfer=f"{TABLES}/prediction_transfer.csv",
        partial=f"{TABLES}/partial_correlation.csv",
    output:
        prediction=figure("prediction", "Prediction"),
        transfer=figure("prediction_transfer", "Prediction"),
    log:
        f"{TABLES}/logs/plot_prediction.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_prediction.tsv"
    resources:
        **needs("plot_prediction"),
    params:
        code=code("plot_prediction.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw how well the errors of {wildcards.model} are predicted"
    shell:
        "python scripts/plot_prediction.py --table {input.values} --added {input.added} "
        "--transfer {input.transfer} --partial {input.partial} --methods {params.methods:q} "
        "--prediction-figure {output.prediction} --transfer-figure {output.transfer} "
        "2>&1 | tee {log}"
