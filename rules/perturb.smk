"""Perturbations: noise and clipping in place of quantization (arXiv 2403.06408)."""

PERTURBED = STUDY.perturbation


rule perturb:
    input:
        model=of_study("model"),
        tokens=of_study("tokens"),
        reference=lambda w: PATHS.shared("method_record", w.model, PERTURBED.reference),
        # Its content is in the record, as in the rule that scores.
        weights=lambda w: ancient(PATHS.shared("weights", w.model, PERTURBED.reference)),
    output:
        scores=f"{TABLES}/perturbation_scores.parquet",
        norms=f"{TABLES}/perturbation_norms.parquet",
        gates=f"{TABLES}/perturbation_gates.json",
    log:
        f"{TABLES}/logs/perturb.log",
    benchmark:
        f"{TABLES}/benchmarks/perturb.tsv"
    threads: THREADS
    resources:
        mem_mb=4000,
    params:
        code=code("perturb.py", "core"),
        reference=f"--reference {PERTURBED.reference}",
        perturbation=as_json(PERTURBED.model_dump()),
        settings=as_json(STUDY.engine.model_dump()),
    conda:
        environment("core")
    message:
        "Perturb {wildcards.model}"
    shell:
        "python scripts/perturb.py --model {input.model} --tokens {input.tokens} "
        "{params.reference} --reference-record {input.reference} "
        "--perturbation {params.perturbation:q} --settings {params.settings:q} "
        "--gates {output.gates} --norms {output.norms} --scores {output.scores} "
        "2>&1 | tee {log}"
