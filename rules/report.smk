"""What a reader gets: figures, the summary, and the config that led to them."""


rule write_config:
    output:
        f"{STUDY_FOLDER}/config.resolved.yaml",
    log:
        f"{STUDY_FOLDER}/logs/write_config.log",
    params:
        text=STUDY.resolved(),
    conda:
        environment("analysis")
    message:
        "Write down the config in full"
    shell:
        "printf %s {params.text:q} > {output} 2> {log}"
