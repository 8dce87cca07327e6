"""Evaluation sets: perplexity of a text, accuracy for last words, of every method."""

CLAIM_TABLES.append("evaluation.csv")
ANSWER_TABLES.append("evaluation.csv")


rule tokenize_evaluation:
    input:
        model=pattern("model"),
        documents=lambda w: pattern("documents").format(
            documents=PATHS.evaluation_documents[PATHS.plain_name(w.evaluation)]
        ),
    output:
        rows=pattern("evaluation_rows"),
        record=pattern("evaluation_record"),
    log:
        f"{SHARED}/logs/tokenize_evaluation/{{evaluation}}.log",
    benchmark:
        f"{SHARED}/benchmarks/tokenize_evaluation/{{evaluation}}.tsv"
    resources:
        **needs("tokenize_evaluation"),
    params:
        code=code("tokenize_evaluation.py", "core"),
        name=lambda w: f"--name {PATHS.plain_name(w.evaluation)}",
        settings=lambda w: as_json(
            STUDY.evaluation[PATHS.plain_name(w.evaluation)].model_dump(
                include={"kind", "n", "length", "join"}
            )
        ),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("core")
    message:
        "Tokenize the evaluation set {wildcards.evaluation} for {wildcards.model}"
    shell:
        "python scripts/tokenize_evaluation.py --model {input.model} "
        "--documents {input.documents} {params.name} --settings {params.settings:q} "
        "{params.seed} --output {output.rows} --record {output.record} 2>&1 | tee {log}"


# As in the rule that scores, the files of single methods are no declared output: they stay, and one
# made from the same model, rows, weights, settings and code is not made again.
rule evaluate:
    input:
        model=of_study("model"),
        rows=lambda w: list(evaluation_sets(w.model).values()),
        methods=lambda w: [
            PATHS.shared("method_record", model=w.model, method=method) for method in STUDY.methods
        ],
        # Their content is in the records, as in the rule that scores.
        weights=lambda w: ancient(
            [PATHS.shared("weights", model=w.model, method=method) for method in STUDY.methods]
        ),
    output:
        scores=f"{TABLES}/evaluation.parquet",
        gates=f"{TABLES}/evaluation_gates.json",
    log:
        f"{TABLES}/logs/evaluate.log",
    benchmark:
        f"{TABLES}/benchmarks/evaluate.tsv"
    threads: THREADS
    resources:
        **needs("evaluate"),
    params:
        code=code("evaluate.py", "core"),
        sets=lambda w: as_json(evaluation_sets(w.model)),
        methods=lambda w: as_json(evaluation_files(w.model)),
        settings=as_json(STUDY.engine.model_dump()),
    conda:
        environment("core")
    message:
        "Evaluate {wildcards.model} and its quantized versions"
    shell:
        "python scripts/evaluate.py --model {input.model} --sets {params.sets:q} "
        "--methods {params.methods:q} --settings {params.settings:q} --code {params.code} "
        "--gates {output.gates} --output {output.scores} 2>&1 | tee {log}"


rule analyze_evaluation:
    input:
        scores=f"{TABLES}/evaluation.parquet",
        records=lambda w: [
            PATHS.shared("evaluation_record", model=w.model, evaluation=name)
            for name in STUDY.evaluation
        ],
    output:
        table("evaluation", "Evaluation"),
    log:
        f"{TABLES}/logs/analyze_evaluation.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_evaluation.tsv"
    resources:
        **needs("analyze_evaluation"),
    params:
        code=code("analyze_evaluation.py", "analysis"),
        records=lambda w: as_json(
            {
                name: PATHS.shared("evaluation_record", w.model, evaluation=name)
                for name in STUDY.evaluation
            }
        ),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Tabulate what the methods of {wildcards.model} lose on the evaluation sets"
    shell:
        "python scripts/analyze_evaluation.py --scores {input.scores} "
        "--records {params.records:q} --settings {params.settings:q} {params.seed} "
        "--output {output} 2>&1 | tee {log}"


rule plot_evaluation:
    input:
        f"{TABLES}/evaluation.csv",
    output:
        figure("evaluation", "Evaluation"),
    log:
        f"{TABLES}/logs/plot_evaluation.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_evaluation.tsv"
    resources:
        **needs("plot_evaluation"),
    params:
        code=code("plot_evaluation.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw the evaluation of {wildcards.model}"
    shell:
        "python scripts/plot_evaluation.py --table {input} --methods {params.methods:q} "
        "--figure {output} 2>&1 | tee {log}"
