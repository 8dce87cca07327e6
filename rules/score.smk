"""Scores: all methods of a model walk beside one full-precision stream in one job.

The score files themselves are no declared output: Snakemake would delete them all before a rerun.
They stay, and one made from the same model, tokens, weights, settings and code is not made again;
`scores.json` records the content of each.
"""


rule score:
    input:
        model=of_study("model"),
        tokens=of_study("tokens"),
        calibration=f"{TABLES}/calibration_overlap.json",
        methods=lambda w: [
            PATHS.shared("method_record", model=w.model, method=method) for method in STUDY.methods
        ],
        # Their content is in the records; they are too large to be compared by content at each start.
        weights=lambda w: ancient(
            [PATHS.shared("weights", model=w.model, method=method) for method in STUDY.methods]
        ),
    output:
        scores=f"{TABLES}/scores.json",
        gates=f"{TABLES}/score_gates.json",
    log:
        f"{TABLES}/logs/score.log",
    benchmark:
        f"{TABLES}/benchmarks/score.tsv"
    threads: THREADS
    resources:
        **needs("score"),
    params:
        code=code("score.py", "core"),
        methods=lambda w: as_json(score_files(w.model)),
        settings=as_json(STUDY.engine.model_dump()),
    conda:
        environment("core")
    message:
        "Score the documents with {wildcards.model} and its quantized versions"
    shell:
        "python scripts/score.py --model {input.model} --tokens {input.tokens} "
        "--methods {params.methods:q} --settings {params.settings:q} --code {params.code} "
        "--gates {output.gates} --output {output.scores} 2>&1 | tee {log}"
