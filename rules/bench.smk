"""How fast the scorer is, beside a plain forward pass and lm-evaluation-harness (`make bench`)."""


rule bench:
    output:
        "results/benchmarks/scorer.csv",
    log:
        "results/logs/bench.log",
    threads: 2
    params:
        model="resources/demo/model",
        documents="resources/demo/documents.parquet",
        peer=".envs/bench/bin/python",
    conda:
        "../envs/core.yaml"
    message:
        "Measure the scorer"
    shell:
        "python scripts/bench/engine.py --model {params.model} --documents {params.documents} "
        "--peer-python {params.peer} --threads {threads} --output {output} 2>&1 | tee {log}"
