"""Topics: what the documents that break are about, as a classifier of texts says."""

CLAIM_TABLES.append("topics.parquet")
ANSWER_TABLES.append("topics.csv")


rule fetch_classifier:
    output:
        PATHS.shared("classifier"),
    log:
        f"results/classifiers/{PATHS.classifier}/logs/fetch_classifier.log",
    benchmark:
        f"results/classifiers/{PATHS.classifier}/benchmarks/fetch_classifier.tsv"
    resources:
        **needs("fetch_classifier"),
    params:
        code=code("fetch_classifier.py", "core"),
        source=not_compared(lambda w: pinned(STUDY.topics.source)),
    conda:
        environment("core")
    message:
        "Check the classifier of topics"
    shell:
        "python scripts/fetch_classifier.py --source {params.source:q} --output {output} "
        "2>&1 | tee {log}"


rule classify_topics:
    input:
        classifier=PATHS.shared("classifier"),
        tokens=lambda w: pattern("tokens").format(model=w.model, tokens=PATHS.tokens),
    output:
        pattern("topics"),
    log:
        f"{SHARED}/logs/classify_topics/{{topics}}.log",
    benchmark:
        f"{SHARED}/benchmarks/classify_topics/{{topics}}.tsv"
    wildcard_constraints:
        topics="[^/]+",
    threads: THREADS
    resources:
        **needs("classify_topics"),
    params:
        code=code("classify_topics.py", "core"),
        settings=as_json(STUDY.engine.model_dump(include=TOPIC_SETTINGS)),
    conda:
        environment("core")
    message:
        "Classify the documents of {wildcards.model} by their topic"
    shell:
        "python scripts/classify_topics.py --classifier {input.classifier} --tokens {input.tokens} "
        "--settings {params.settings:q} --code {params.code} --output {output} 2>&1 | tee {log}"


rule analyze_topics:
    input:
        classifier=PATHS.shared("classifier"),
        topics=of_study("topics"),
        errors=f"{TABLES}/errors.parquet",
        sets=f"{TABLES}/sets.parquet",
    output:
        documents=f"{TABLES}/topics.parquet",
        table=table("topics", "Topics"),
    log:
        f"{TABLES}/logs/analyze_topics.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_topics.tsv"
    resources:
        **needs("analyze_topics"),
    params:
        code=code("analyze_topics.py", "analysis"),
        methods=METHODS,
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Compare the topics of the documents that break {wildcards.model} with all"
    shell:
        "python scripts/analyze_topics.py --classifier {input.classifier} --topics {input.topics} "
        "--errors {input.errors} --sets {input.sets} --methods {params.methods:q} "
        "--settings {params.settings:q} {params.seed} --documents {output.documents} "
        "--output {output.table} 2>&1 | tee {log}"


rule plot_topics:
    input:
        f"{TABLES}/topics.csv",
    output:
        figure("topics", "Topics"),
    log:
        f"{TABLES}/logs/plot_topics.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_topics.tsv"
    resources:
        **needs("plot_topics"),
    params:
        code=code("plot_topics.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw the topics of the documents that break {wildcards.model}"
    shell:
        "python scripts/plot_topics.py --table {input} --methods {params.methods:q} "
        "--figure {output} 2>&1 | tee {log}"
