"""How fast the engine is and what memory it takes, beside others (`make bench`, `make bench-...`)."""


rule bench:
    input:
        peer="results/benchmarks/lm_eval_python.txt",
    output:
        "results/benchmarks/scorer.csv",
    log:
        "results/logs/bench.log",
    threads: 2
    params:
        model="resources/demo/model",
        documents="resources/demo/documents.parquet",
    conda:
        "../envs/core.yaml"
    message:
        "Measure the scorer"
    shell:
        "python scripts/bench/engine.py --model {params.model} --documents {params.documents} "
        "--peer-python $(cat {input.peer}) --threads {threads} --output {output} 2>&1 | tee {log}"


rule find_lm_eval:
    output:
        temp("results/benchmarks/lm_eval_python.txt"),
    log:
        "results/logs/find_lm_eval.log",
    conda:
        "../envs/lm_eval.yaml"
    message:
        "Find the interpreter that has lm-evaluation-harness"
    shell:
        "python -c 'import sys; print(sys.executable)' > {output} 2> {log}"


rule bench_patching:
    output:
        "results/benchmarks/patching.csv",
    log:
        "results/logs/bench_patching.log",
    threads: 2
    params:
        model="resources/demo/model",
        documents="resources/demo/documents.parquet",
        peer=".envs/bench_patching/bin/python",
    conda:
        "../envs/core.yaml"
    message:
        "Measure patching"
    shell:
        "python scripts/bench/patching.py --model {params.model} --documents {params.documents} "
        "--peer-python {params.peer} --threads {threads} --output {output} 2>&1 | tee {log}"


rule bench_memory:
    output:
        "results/benchmarks/memory.csv",
    log:
        "results/logs/bench_memory.log",
    threads: 2
    conda:
        "../envs/core.yaml"
    message:
        "Measure the memory of engine.mode: stream"
    shell:
        "python scripts/bench/memory.py --threads {threads} --output {output} 2>&1 | tee {log}"


rule bench_gpu:
    output:
        "results/benchmarks/gpu.csv",
    log:
        "results/logs/bench_gpu.log",
    params:
        options=config.get("options", ""),
    conda:
        "../envs/core.yaml"
    message:
        "Measure scoring on a GPU"
    shell:
        "python scripts/bench/gpu.py {params.options} --output {output} 2>&1 | tee {log}"


rule bench_perturbation:
    output:
        "results/benchmarks/perturbation.csv",
    log:
        "results/logs/bench_perturbation.log",
    threads: 2
    params:
        model="resources/demo/model",
        documents="resources/demo/documents.parquet",
    conda:
        "../envs/core.yaml"
    message:
        "Measure perturbations"
    shell:
        "python scripts/bench/perturbation.py --model {params.model} "
        "--documents {params.documents} --threads {threads} --output {output} 2>&1 | tee {log}"
