"""Perturbations: noise and clipping in place of quantization (arXiv 2403.06408)."""

PERTURBED = STUDY.perturbation


rule perturb:
    input:
        model=of_study("model"),
        tokens=of_study("tokens"),
        rows=lambda w: list(evaluation_sets(w.model).values()),
        reference=lambda w: PATHS.shared("method_record", w.model, PERTURBED.reference),
        # Its content is in the record, as in the rule that scores.
        weights=lambda w: ancient(PATHS.shared("weights", w.model, PERTURBED.reference)),
    output:
        scores=f"{TABLES}/perturbation_scores.parquet",
        norms=f"{TABLES}/perturbation_norms.parquet",
        gates=f"{TABLES}/perturbation_gates.json",
        **on_sets("perturbation_evaluation.parquet"),
    log:
        f"{TABLES}/logs/perturb.log",
    benchmark:
        f"{TABLES}/benchmarks/perturb.tsv"
    threads: THREADS
    resources:
        **needs("perturb"),
    params:
        code=code("perturb.py", "core"),
        reference=f"--reference {PERTURBED.reference}",
        perturbation=as_json(PERTURBED.model_dump()),
        seed=f"--seed {STUDY.seed}",
        settings=as_json(STUDY.engine.model_dump()),
        sets=lambda w: f"--sets {shlex.quote(as_json(evaluation_sets(w.model)))}",
        evaluation=f"--evaluation {TABLES}/perturbation_evaluation.parquet",
    conda:
        environment("core")
    message:
        "Perturb {wildcards.model}"
    shell:
        "python scripts/perturb.py --model {input.model} --tokens {input.tokens} "
        "{params.reference} --reference-record {input.reference} "
        "--perturbation {params.perturbation:q} {params.seed} --settings {params.settings:q} "
        "--code {params.code} --gates {output.gates} --norms {output.norms} --scores {output.scores} "
        "{params.sets} {params.evaluation} 2>&1 | tee {log}"


rule analyze_perturbation:
    input:
        scores=f"{TABLES}/perturbation_scores.parquet",
        norms=f"{TABLES}/perturbation_norms.parquet",
        errors=f"{TABLES}/errors.parquet",
        **on_sets("perturbation_evaluation.parquet"),
    output:
        **({"sets": table("perturbation_sets", "Perturbation")} if STUDY.evaluation else {}),
        effects=table("perturbation", "Perturbation"),
        interaction=table("interaction", "Perturbation"),
        **({"sensitivity": table("sensitivity", "Perturbation")} if PERTURBED.sensitivity else {}),
        agreement=table("perturbation_agreement", "Perturbation"),
        markdown=f"{TABLES}/perturbation.md",
    log:
        f"{TABLES}/logs/analyze_perturbation.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_perturbation.tsv"
    resources:
        **needs("analyze_perturbation"),
    params:
        code=code("analyze_perturbation.py", "analysis"),
        model=lambda w: f"--model {w.model}",
        reference=f"--reference {PERTURBED.reference}",
        bits=f"--activation-bits {PERTURBED.activation_bits}",
        methods=" ".join(STUDY.methods),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
        sensitivity=lambda w, output: (
            f"--sensitivity {output.sensitivity}" if PERTURBED.sensitivity else ""
        ),
        sets=lambda w, input, output: (
            f"--evaluation {input.evaluation} --sets {output.sets}" if STUDY.evaluation else ""
        ),
    conda:
        environment("analysis")
    message:
        "Tabulate what perturbations of {wildcards.model} did"
    shell:
        "python scripts/analyze_perturbation.py {params.model} {params.reference} {params.bits} "
        "--scores {input.scores} --norms {input.norms} --errors {input.errors} "
        "--methods {params.methods} --settings {params.settings:q} {params.seed} "
        "--effects {output.effects} --interaction {output.interaction} "
        "{params.sensitivity} --agreement {output.agreement} "
        "--markdown {output.markdown} {params.sets} 2>&1 | tee {log}"


rule plot_perturbation:
    input:
        effects=f"{TABLES}/perturbation.csv",
        interaction=f"{TABLES}/interaction.csv",
        agreement=f"{TABLES}/perturbation_agreement.csv",
        **({"sensitivity": f"{TABLES}/sensitivity.csv"} if PERTURBED.sensitivity else {}),
    output:
        intensity=figure("perturbation_intensity", "Perturbation"),
        distribution=figure("perturbation_distribution", "Perturbation"),
        clipping=figure("clipping", "Perturbation"),
        interaction=figure("interaction", "Perturbation"),
        agreement=figure("perturbation_agreement", "Perturbation"),
        **({"sensitivity": figure("sensitivity", "Perturbation")} if PERTURBED.sensitivity else {}),
    log:
        f"{TABLES}/logs/plot_perturbation.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_perturbation.tsv"
    resources:
        **needs("plot_perturbation"),
    params:
        code=code("plot_perturbation.py", "analysis"),
        methods=METHODS,
        sensitivity=lambda w, input, output: (
            f"--sensitivity {input.sensitivity} --sensitivity-figure {output.sensitivity}"
            if PERTURBED.sensitivity
            else ""
        ),
    conda:
        environment("analysis")
    message:
        "Draw what perturbations of {wildcards.model} did"
    shell:
        "python scripts/plot_perturbation.py --effects {input.effects} "
        "--interaction {input.interaction} --agreement {input.agreement} "
        "--methods {params.methods:q} "
        "--intensity-figure {output.intensity} --distribution-figure {output.distribution} "
        "--clipping-figure {output.clipping} --interaction-figure {output.interaction} "
        "--agreement-figure {output.agreement} {params.sensitivity} 2>&1 | tee {log}"


MODEL_RESULTS.append("perturbation.md")
CLAIM_TABLES.extend(["perturbation_scores.parquet", "perturbation.csv"])
COMPARED_TABLES.extend(["perturbation_scores.parquet", "perturbation.csv"])
ANSWER_TABLES.extend(["perturbation.csv", "perturbation_agreement.csv"])
if PERTURBED.sensitivity:
    ANSWER_TABLES.append("sensitivity.csv")
