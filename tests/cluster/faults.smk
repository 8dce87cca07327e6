"""Jobs that go wrong at their first attempt and well at the next; jobs with and without a GPU."""


rule over_time:
    output:
        "results/over_time.txt",
    resources:
        runtime=lambda wildcards, attempt: attempt,
    shell:
        "(( {resources.runtime} > 1 )) || sleep 600; touch {output}"


rule over_memory:
    output:
        "results/over_memory.txt",
    shell:
        """python3 -c "import time; block = b'x' * (900 << 20); time.sleep(12)"; touch {output}"""


rule interrupted:
    output:
        "results/interrupted.txt",
    resources:
        tries=lambda wildcards, attempt: attempt,
    shell:
        "(( {resources.tries} > 1 )) || sleep 600; touch {output}"


rule on_gpu:
    output:
        "results/on_gpu.txt",
    resources:
        gpu=1,
    shell:
        "echo $CUDA_VISIBLE_DEVICES > {output}"


rule without_gpu:
    output:
        "results/without_gpu.txt",
    shell:
        "touch {output}"
