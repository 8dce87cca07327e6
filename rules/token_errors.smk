"""Which tokens carry the errors."""


rule analyze_tokens:
    input:
        scores=f"{TABLES}/scores.json",
        tokens=of_study("tokens"),
        sets=f"{TABLES}/sets.parquet",
    output:
        concentration=table("token_concentration", "Tokens"),
        by_bin=f"{TABLES}/token_errors.csv",
    log:
        f"{TABLES}/logs/analyze_tokens.log",
    benchmark:
        f"{TABLES}/benchmarks/analyze_tokens.tsv"
    resources:
        **needs("analyze_tokens"),
    params:
        code=code("analyze_tokens.py", "analysis"),
        settings=as_json(STUDY.bootstrap.model_dump()),
        seed=f"--seed {STUDY.seed}",
    conda:
        environment("analysis")
    message:
        "Find out which tokens carry the errors of {wildcards.model}"
    shell:
        "python scripts/analyze_tokens.py --scores {input.scores} --tokens {input.tokens} "
        "--sets {input.sets} --settings {params.settings:q} {params.seed} "
        "--concentration {output.concentration} --by-bin {output.by_bin} 2>&1 | tee {log}"


rule plot_tokens:
    input:
        concentration=f"{TABLES}/token_concentration.csv",
        by_bin=f"{TABLES}/token_errors.csv",
    output:
        concentration=figure("token_concentration", "Tokens"),
        errors=figure("token_errors", "Tokens"),
        flips=figure("token_flips", "Tokens"),
    log:
        f"{TABLES}/logs/plot_tokens.log",
    benchmark:
        f"{TABLES}/benchmarks/plot_tokens.tsv"
    resources:
        **needs("plot_tokens"),
    params:
        code=code("plot_tokens.py", "analysis"),
        methods=METHODS,
    conda:
        environment("analysis")
    message:
        "Draw which tokens carry the errors of {wildcards.model}"
    shell:
        "python scripts/plot_tokens.py --concentration {input.concentration} "
        "--by-bin {input.by_bin} --methods {params.methods:q} "
        "--concentration-figure {output.concentration} --errors-figure {output.errors} "
        "--flips-figure {output.flips} 2>&1 | tee {log}"
