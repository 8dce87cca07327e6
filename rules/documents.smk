"""The documents: one table of texts, whatever they came from."""


rule fetch_documents:
    input:
        model=lambda w: reading_model(w.documents),
    output:
        documents=pattern("documents"),
        record=pattern("documents_record"),
    log:
        "results/documents/{documents}/logs/fetch_documents.log",
    benchmark:
        "results/documents/{documents}/benchmarks/fetch_documents.tsv"
    resources:
        **needs("fetch_documents"),
    params:
        code=code("fetch_documents.py", "core"),
        names=not_compared(lambda w: document_names(w.documents)),
        reading=lambda w: document_options(w.documents),
        model=lambda w, input: f"--model {input.model}" if input.model else "",
    conda:
        environment("core")
    message:
        "Read the documents {wildcards.documents}"
    shell:
        "python scripts/fetch_documents.py {params.names} {params.reading} {params.model} "
        "--output {output.documents} --record {output.record} 2>&1 | tee {log}"
