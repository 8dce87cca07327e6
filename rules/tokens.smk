"""The tokens: made once per model and documents; every later stage reads these."""


rule tokenize_documents:
    input:
        model=pattern("model"),
        documents=PATHS.shared("documents"),
    output:
        tokens=pattern("tokens"),
        record=pattern("tokens_record"),
    log:
        f"{SHARED}/logs/tokenize_documents/{{tokens}}.log",
    benchmark:
        f"{SHARED}/benchmarks/tokenize_documents/{{tokens}}.tsv"
    params:
        code=code("tokenize_documents.py", "core"),
        n=f"--n {STUDY.documents.n}",
        length=f"--length {STUDY.documents.length}",
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("core")
    message:
        "Tokenize the documents for {wildcards.model}"
    shell:
        "python scripts/tokenize_documents.py --model {input.model} --documents {input.documents} "
        "{params.n} {params.length} {params.seed} "
        "--output {output.tokens} --record {output.record} 2>&1 | tee {log}"
