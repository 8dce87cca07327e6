"""Jobs that go wrong at their first attempt and well at the next; jobs with and without a GPU.

A node is taken down from under a job of `lost`, so all others stay away from it.
"""

LOST, OTHERS = "--nodelist=c2", "--exclude=c2"
FAULTS = ["over_time", "over_memory", "cancelled", "lost", "on_gpu", "without_gpu"]


rule all:
    input:
        expand("results/{fault}.txt", fault=FAULTS),


rule over_time:
    output:
        "results/over_time.txt",
    resources:
        slurm_extra=OTHERS,
        runtime=lambda wildcards, attempt: attempt,
    shell:
        "(( {resources.runtime} > 1 )) || sleep 600; touch {output}"


rule over_memory:
    output:
        "results/over_memory.txt",
    resources:
        slurm_extra=OTHERS,
    shell:
        """python3 -c "import time; block = b'x' * (900 << 20); time.sleep(12)"; touch {output}"""


rule cancelled:
    output:
        "results/cancelled.txt",
    resources:
        slurm_extra=OTHERS,
        tries=lambda wildcards, attempt: attempt,
    shell:
        "(( {resources.tries} > 1 )) || sleep 600; touch {output}"


rule lost:
    output:
        "results/lost.txt",
    resources:
        slurm_extra=lambda wildcards, attempt: LOST if attempt == 1 else "",
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
    resources:
        slurm_extra=OTHERS,
    shell:
        "touch {output}"
