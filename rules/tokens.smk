"""The tokens: made once per model and documents; every later stage reads these."""

if PATHS.chosen_for_all:

    rule choose_documents:
        input:
            models=sorted(PATHS.shared("model", model=model) for model in STUDY.models),
            documents=PATHS.shared("documents"),
        output:
            ids=PATHS.shared("chosen"),
            record=PATHS.shared("chosen_record"),
        log:
            f"results/documents/{PATHS.documents}/logs/choose_documents/{PATHS.tokens}.log",
        benchmark:
            f"results/documents/{PATHS.documents}/benchmarks/choose_documents/{PATHS.tokens}.tsv"
        resources:
            **needs("choose_documents"),
        params:
            code=code("choose_documents.py", "core"),
            n=f"--n {STUDY.documents.n}",
            length=f"--length {STUDY.documents.length}",
            seed=f"--seed {STUDY.seed}",
        conda:
            environment("core")
        message:
            "Choose documents that are long enough under the tokenizer of every model"
        shell:
            "python scripts/choose_documents.py --models {input.models} "
            "--documents {input.documents} {params.n} {params.length} {params.seed} "
            "--output {output.ids} --record {output.record} 2>&1 | tee {log}"


rule tokenize_documents:
    input:
        model=pattern("model"),
        documents=PATHS.shared("documents"),
        chosen=[PATHS.shared("chosen")] if PATHS.chosen_for_all else [],
    output:
        tokens=pattern("tokens"),
        record=pattern("tokens_record"),
        ids=pattern("document_ids"),
    log:
        f"{SHARED}/logs/tokenize_documents/{{tokens}}.log",
    benchmark:
        f"{SHARED}/benchmarks/tokenize_documents/{{tokens}}.tsv"
    resources:
        **needs("tokenize_documents"),
    params:
        code=code("tokenize_documents.py", "core"),
        n=f"--n {STUDY.documents.n}",
        length=f"--length {STUDY.documents.length}",
        seed=f"--seed {STUDY.seed}",
        chosen=lambda w, input: f"--chosen {input.chosen}" if input.chosen else "",
    conda:
        environment("core")
    message:
        "Tokenize the documents for {wildcards.model}"
    shell:
        "python scripts/tokenize_documents.py --model {input.model} --documents {input.documents} "
        "{params.n} {params.length} {params.seed} {params.chosen} --output {output.tokens} "
        "--record {output.record} --ids {output.ids} 2>&1 | tee {log}"


rule tokenize_calibration:
    input:
        model=pattern("model"),
        documents=lambda w: pattern("documents").format(
            documents=PATHS.calibration_documents[PATHS.plain_name(w.calibration)]
        ),
    output:
        tokens=pattern("calibration"),
        record=pattern("calibration_record"),
    log:
        f"{SHARED}/logs/tokenize_calibration/{{calibration}}.log",
    benchmark:
        f"{SHARED}/benchmarks/tokenize_calibration/{{calibration}}.tsv"
    resources:
        **needs("tokenize_calibration"),
    params:
        code=code("tokenize_documents.py", "core"),
        key=lambda w: f"--key calibration.{PATHS.plain_name(w.calibration)}",
        n=lambda w: f"--n {STUDY.calibration[PATHS.plain_name(w.calibration)].n}",
        length=lambda w: f"--length {STUDY.calibration[PATHS.plain_name(w.calibration)].length}",
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("core")
    message:
        "Tokenize the calibration texts {wildcards.calibration} for {wildcards.model}"
    shell:
        "python scripts/tokenize_documents.py --model {input.model} --documents {input.documents} "
        "{params.key} {params.n} {params.length} {params.seed} "
        "--output {output.tokens} --record {output.record} 2>&1 | tee {log}"


rule check_calibration:
    input:
        tokens=of_study("tokens"),
        calibration=lambda w: [
            PATHS.shared("calibration", model=w.model, calibration=name)
            for name in STUDY.calibration
        ],
    output:
        f"{TABLES}/calibration_overlap.json",
    log:
        f"{TABLES}/logs/check_calibration.log",
    benchmark:
        f"{TABLES}/benchmarks/check_calibration.tsv"
    resources:
        **needs("check_calibration"),
    params:
        code=code("check_calibration.py", "core"),
        names=as_json(list(STUDY.calibration)),
        settings=as_json(
            STUDY.errors.model_dump(include={"duplicate_ngram", "duplicate_jaccard"})
        ),
    conda:
        environment("core")
    message:
        "Check that no calibration text of {wildcards.model} is scored"
    shell:
        "python scripts/check_calibration.py --tokens {input.tokens} "
        "--calibration {input.calibration} --names {params.names:q} "
        "--settings {params.settings:q} --output {output} 2>&1 | tee {log}"
