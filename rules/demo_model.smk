"""How the embedded model and its documents were made. Nothing else in the workflow asks for this.

`publish_demo_model` writes `resources/demo/` without declaring it: those files are committed, the
other rules read them as sources, and a declared output would tie every study to the training.
"""

import shutil

DEMO_BUILD = ".cache/demo-model"
DEMO_SCRIPTS = "scripts/demo_model"


rule demo_model:
    input:
        f"{DEMO_BUILD}/published.json",


rule build_demo_corpus:
    input:
        environment="envs/core.yaml",
        corpus=f"{DEMO_SCRIPTS}/corpus.py",
        tokenizer=f"{DEMO_SCRIPTS}/tokenizer.py",
        documents=f"{DEMO_SCRIPTS}/documents.py",
        last_word=f"{DEMO_SCRIPTS}/last_word.py",
    output:
        passages=f"{DEMO_BUILD}/passages.parquet",
        manifest=f"{DEMO_BUILD}/corpus.json",
        tokenizer=directory(f"{DEMO_BUILD}/tokenizer"),
        tables=expand(
            f"{DEMO_BUILD}/{{name}}.parquet", name=["documents", "calibration", "last_word"]
        ),
        rows=expand(
            f"{DEMO_BUILD}/{{name}}.npy",
            name=["training_rows", "training_sample", "heldout_sample"],
        ),
        splits=f"{DEMO_BUILD}/splits.json",
    params:
        build=DEMO_BUILD,
    log:
        f"{DEMO_BUILD}/logs/corpus.log",
    threads: 2
    conda:
        "../envs/core.yaml"
    shell:
        """
        export PYTHONPATH=scripts
        (
            python -m demo_model.corpus --environment {input.environment} \
                --passages {output.passages} --manifest {output.manifest}
            python -m demo_model.tokenizer --passages {output.passages} \
                --output {output.tokenizer}
            python -m demo_model.documents --passages {output.passages} \
                --tokenizer {output.tokenizer} --output {params.build}
            python -m demo_model.last_word --tokenizer {output.tokenizer} --build {params.build}
        ) 2>&1 | tee {log}
        """


# Partial training stays outside the declared outputs, which Snakemake deletes before a job runs:
# a killed training goes on from `progress/checkpoint.pt`.
rule train_demo_model:
    input:
        rows=rules.build_demo_corpus.output.rows,
        tokenizer=rules.build_demo_corpus.output.tokenizer,
        script=f"{DEMO_SCRIPTS}/train.py",
    output:
        checkpoint=f"{DEMO_BUILD}/trained.pt",
    params:
        build=DEMO_BUILD,
        # Compiling needs a C++ compiler; without one training takes longer.
        compile="--compile" if shutil.which("g++") else "",
    log:
        f"{DEMO_BUILD}/logs/train.log",
    threads: 2
    conda:
        "../envs/core.yaml"
    shell:
        """
        PYTHONPATH=scripts python -m demo_model.train --data {params.build} \
            --tokenizer {input.tokenizer} --progress {params.build}/progress \
            --output {output.checkpoint} --threads {threads} {params.compile} 2>&1 | tee {log}
        """


rule publish_demo_model:
    input:
        checkpoint=rules.train_demo_model.output.checkpoint,
        tables=rules.build_demo_corpus.output.tables,
        tokenizer=rules.build_demo_corpus.output.tokenizer,
        manifest=rules.build_demo_corpus.output.manifest,
        splits=rules.build_demo_corpus.output.splits,
        script=f"{DEMO_SCRIPTS}/publish.py",
        template=f"{DEMO_SCRIPTS}/card.md.jinja",
    output:
        record=f"{DEMO_BUILD}/published.json",
        checkpoints=directory(f"{DEMO_BUILD}/checkpoints"),
    params:
        build=DEMO_BUILD,
        product="resources/demo",
    log:
        f"{DEMO_BUILD}/logs/publish.log",
    threads: 2
    conda:
        "../envs/core.yaml"
    shell:
        """
        (
            PYTHONPATH=scripts python -m demo_model.publish --checkpoint {input.checkpoint} \
                --build {params.build} --output {params.product} \
                --checkpoints {output.checkpoints} --threads {threads}
            cp {params.product}/card.json {output.record}
        ) 2>&1 | tee {log}
        """
