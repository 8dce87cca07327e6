"""Quantization of weights and activations, uniform or not, simulated (arXiv 2403.06408)."""

SIMULATED = STUDY.simulation


rule simulate_quantization:
    input:
        model=of_study("model"),
        tokens=of_study("tokens"),
        rows=lambda w: list(evaluation_sets(w.model).values()),
        calibration=lambda w: PATHS.shared(
            "calibration", model=w.model, calibration=next(iter(STUDY.calibration))
        ),
    output:
        scores=f"{TABLES}/simulation_scores.parquet",
        sizes=f"{TABLES}/simulation_errors.parquet",
        gates=f"{TABLES}/simulation_gates.json",
        **on_sets("simulation_evaluation.parquet"),
    log:
        f"{TABLES}/logs/simulate_quantization.log",
    benchmark:
        f"{TABLES}/benchmarks/simulate_quantization.tsv"
    threads: THREADS
    resources:
        **needs("simulate_quantization"),
    params:
        code=code("simulate.py", "core"),
        simulation=as_json(SIMULATED.model_dump()),
        settings=as_json(STUDY.engine.model_dump()),
        sets=lambda w: f"--sets {shlex.quote(as_json(evaluation_sets(w.model)))}",
        evaluation=f"--evaluation {TABLES}/simulation_evaluation.parquet",
    conda:
        environment("core")
    message:
        "Simulate quantization of weights and activations of {wildcards.model}"
    shell:
        "python scripts/simulate.py --model {input.model} --tokens {input.tokens} "
        "--calibration {input.calibration} --simulation {params.simulation:q} "
        "--settings {params.settings:q} --code {params.code} --gates {output.gates} "
        "--sizes {output.sizes} --scores {output.scores} {params.sets} {params.evaluation} "
        "2>&1 | tee {log}"


rule analyze_simulation:
    input:
        scores=f"{TABLES}/simulation_scores.parquet",
        sizes=f"{TABLES}/simulation_errors.parquet",
        **on_sets("simulation_evaluation.parquet"),
    output:
        **({"sets": table("simulation_sets", "Perturbation")} if STUDY.evaluation else {}),
        simulations=table("simulations", "Perturbation"),
        best=table("best_transforms", "Perturbation"),
    log:
        f"{TABLES}/logs/analyze_simulation.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_simulation.tsv"
    resources:
        **needs("analyze_simulation"),
    params:
        code=code("analyze_simulation.py", "analysis"),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
        sets=lambda w, input, output: (
            f"--evaluation {input.evaluation} --sets {output.sets}" if STUDY.evaluation else ""
        ),
    conda:
        environment("analysis")
    message:
        "Tabulate simulated quantization of {wildcards.model}"
    shell:
        "python scripts/analyze_simulation.py --scores {input.scores} --sizes {input.sizes} "
        "--settings {params.settings:q} {params.seed} --simulations {output.simulations} "
        "--best {output.best} {params.sets} 2>&1 | tee {log}"


rule plot_simulation:
    input:
        f"{TABLES}/simulations.csv",
    output:
        transforms=figure("transforms", "Perturbation"),
        sqnr=figure("sqnr", "Perturbation"),
    log:
        f"{TABLES}/logs/plot_simulation.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_simulation.tsv"
    resources:
        **needs("plot_simulation"),
    params:
        code=code("plot_simulation.py", "analysis"),
    conda:
        environment("analysis")
    message:
        "Draw simulated quantization of {wildcards.model}"
    shell:
        "python scripts/plot_simulation.py --simulations {input} "
        "--transforms-figure {output.transforms} --sqnr-figure {output.sqnr} 2>&1 | tee {log}"


rule relate_errors:
    input:
        of_study("model"),
    output:
        table("error_magnitude", "Perturbation"),
    log:
        f"{TABLES}/logs/relate_errors.log",
    benchmark:
        f"{TABLES}/benchmarks/relate_errors.tsv"
    threads: THREADS
    resources:
        **needs("relate_errors"),
    params:
        code=code("relate_errors.py", "core"),
        settings=as_json(STUDY.engine.model_dump()),
        bits="--bits 4 8",
    conda:
        environment("core")
    message:
        "Relate errors to weights of {wildcards.model}"
    shell:
        "python scripts/relate_errors.py --model {input} --settings {params.settings:q} "
        "{params.bits} --output {output} 2>&1 | tee {log}"


CLAIM_TABLES.extend(["simulation_scores.parquet", "error_magnitude.csv"])
COMPARED_TABLES.append("simulation_scores.parquet")
ANSWER_TABLES.append("best_transforms.csv")
