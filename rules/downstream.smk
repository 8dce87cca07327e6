"""Downstream tasks: one job per model, method and task, through lm-evaluation-harness.

Answers depend on no document of the study, so they are shared by all studies, as weights are.
"""

ANSWERED = [
    (name, method) for name in STUDY.downstream for method in STUDY.downstream_methods(name)
]
"""Every task with every method that answers it."""
BY_POPULARITY = any(
    file.popularity for name in STUDY.downstream if (file := STUDY.downstream[name].task_file())
)
"""Whether there is a task whose results are cut by popularity."""

CLAIM_TABLES.append("downstream.parquet")


rule answer:
    input:
        model=pattern("model"),
        probe=pattern("probe"),
        record=of_method("method_record"),
        # Its content is in the record, as in the rule that scores.
        weights=lambda w: ancient(of_method("weights")(w)),
    output:
        answers=pattern("answers"),
        record=pattern("answers_record"),
    log:
        f"{SHARED}/logs/downstream/{{downstream}}/{{scores}}.log",
    benchmark:
        f"{SHARED}/benchmarks/downstream/{{downstream}}/{{scores}}.tsv"
    wildcard_constraints:
        downstream="[^/]+",
        scores="[^/]+",
    threads: THREADS
    resources:
        **needs("answer"),
    params:
        code=lambda w: task_code(w.downstream),
        task=lambda w: task_options(w.downstream),
        name=not_compared(lambda w: task_name(w.downstream)),
        method=lambda w, input: f"--method {PATHS.plain_name(w.scores)}"
        + (f" --record {input.record}" if input.record else ""),
        settings=as_json(STUDY.engine.model_dump(exclude={"mode"})),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("lm_eval")
    message:
        "Let {wildcards.model} ({wildcards.scores}) answer {wildcards.downstream}"
    shell:
        "python scripts/downstream.py --model {input.model} --probe {input.probe} {params.method} "
        "{params.name} {params.task} --settings {params.settings:q} {params.seed} --items {output.answers} "
        "--output {output.record} 2>&1 | tee {log}"


rule analyze_downstream:
    input:
        answers=lambda w: [PATHS.shared("answers", w.model, m, downstream=n) for n, m in ANSWERED],
        records=lambda w: [
            PATHS.shared("answers_record", w.model, m, downstream=n) for n, m in ANSWERED
        ],
    output:
        answers=f"{TABLES}/downstream.parquet",
        table=table("downstream", "Downstream"),
        **({"popularity": table("popularity", "Downstream")} if BY_POPULARITY else {}),
    log:
        f"{TABLES}/logs/analyze_downstream.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_downstream.tsv"
    resources:
        **needs("analyze_downstream"),
    params:
        code=code("analyze_downstream.py", "analysis"),
        answers=lambda w, input: as_json(
            [
                {"name": name, "method": method, "items": items, "record": record}
                for (name, method), items, record in zip(ANSWERED, input.answers, input.records)
            ]
        ),
        popularity=lambda w, output: f"--popularity {output.popularity}" if BY_POPULARITY else "",
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Tabulate what {wildcards.model} answered"
    shell:
        "python scripts/analyze_downstream.py --answers {params.answers:q} "
        "--settings {params.settings:q} {params.seed} --output {output.answers} "
        "--table {output.table} {params.popularity} 2>&1 | tee {log}"


if BY_POPULARITY:

    rule plot_downstream:
        input:
            f"{TABLES}/popularity.csv",
        output:
            figure("popularity", "Downstream"),
        log:
            f"{TABLES}/logs/plot_downstream.log",
        benchmark:
            f"{TABLES}/benchmarks/plot_downstream.tsv"
        resources:
            **needs("plot_downstream"),
        params:
            code=code("plot_downstream.py", "analysis"),
            methods=METHODS,
        conda:
            environment("analysis")
        message:
            "Draw what {wildcards.model} answered by popularity"
        shell:
            "python scripts/plot_downstream.py --table {input} --methods {params.methods:q} "
            "--figure {output} 2>&1 | tee {log}"
