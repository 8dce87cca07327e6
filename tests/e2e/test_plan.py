"""The plan of the small study, beside what the study then really took; that of a large model."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from copies import SMALL, Copy

from lowbit.files import read_json, write_json
from lowbit.inputs.hub import File, Listing
from study.estimates.fit import finished_jobs, study_account

TOLERANCE = 0.2
"""Of memory and disk: as a share of what was measured."""


@pytest.fixture(scope="module")
def account(finished: Copy) -> dict[str, Any]:
    """What the plan is made of, in the folder where the study has run."""
    return study_account(SMALL, finished.folder)


def stage_rows(output: str) -> dict[str, Sequence[str]]:
    """The printed table: stage -> its cells."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) == 8}


def test_the_jobs_are_counted_before_anything_runs(fresh: Copy, finished: Copy) -> None:
    planned = fresh.make("plan", f"STUDY={SMALL}")
    assert planned.code == 0, planned.output
    ran = read_json(finished.folder / "results/small/provenance.json")["rules"]
    jobs = sum(rule["jobs"] for rule in ran.values())
    assert sum(planned.rules.values()) == jobs
    assert f"{jobs} of {jobs} jobs are to run" in planned.output
    assert stage_rows(planned.output)["total"][:2] == [str(jobs), "0"]
    assert planned.output.index("Assumed:") < planned.output.index("Job stats:")
    assert not list((fresh.folder / "results").glob("*/"))


def test_a_finished_study_is_planned_as_done(finished: Copy) -> None:
    planned = finished.make("plan", f"STUDY={SMALL}")
    assert planned.code == 0, planned.output
    jobs, done, *rest = stage_rows(planned.output)["total"]
    assert jobs == done
    assert rest[0] == "0.00"


def test_a_part_of_a_study_can_be_planned(fresh: Copy) -> None:
    planned = fresh.make("plan", f"STUDY={SMALL}", "ARGS=--until tokenize_documents")
    assert dict(planned.rules) == {
        "fetch_documents": 1,
        "fetch_model": 1,
        "tokenize_documents": 1,
    }


def test_memory_is_what_the_jobs_took(account: dict[str, Any], finished: Copy) -> None:
    jobs = list(finished_jobs(account, finished.folder))
    assert {job.rule for job in jobs} >= {"score", "quantize_hqq", "patch", "predict"}
    wrong = {
        (job.rule, job.peak_mib, job.estimated_mib)
        for job in jobs
        if abs(job.estimated_mib / job.peak_mib - 1) > TOLERANCE
    }
    assert not wrong


def test_disk_is_what_the_results_take(account: dict[str, Any], finished: Copy) -> None:
    def size(path: Path) -> int:
        return path.stat().st_size

    outputs = [finished.folder / name for job in account["jobs"] for name in job["output"]]
    kept = [*outputs, *finished.folder.glob("results/models/*/scores/*/*.parquet")]
    planned = sum(job["disk"] for job in account["jobs"])
    assert planned == pytest.approx(sum(map(size, kept)), rel=TOLERANCE)
    for job in account["jobs"]:
        if job["rule"].startswith("quantize_"):
            taken = sum(size(finished.folder / name) for name in job["output"])
            assert job["disk"] == pytest.approx(taken, rel=TOLERANCE)


def test_resources_rerun_nothing(done: Copy) -> None:
    """Other estimates are other resources, and no reason to run a job again."""
    file = done.folder / "scripts/study/estimates/requests.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("MEMORY_MARGIN = 1.25", "MEMORY_MARGIN = 2.5"), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != text
    assert not done.plan()


COMMIT = "0123456789" * 4
LARGE = """\
study: large
models: {llama: {source: "hub:someone/llama-70b@%s"}}
methods:
  rtn3: {quantizer: rtn, bits: 3, group_size: 128}
  gptq4: {quantizer: gptq, bits: 4, group_size: 128, symmetric: true}
engine: {device: cuda, dtype: bfloat16, mode: %s}
"""


def remember_llama(results: Path) -> int:
    """Leave what the hub would say of Llama 2 70B; return the bytes of its weights."""
    hidden, inside, keys, vocabulary, layers = 8192, 28672, 1024, 32000, 80
    block = {
        **{f"self_attn.{name}_proj": [hidden, hidden] for name in "qo"},
        **{f"self_attn.{name}_proj": [keys, hidden] for name in "kv"},
        **{f"mlp.{name}_proj": [inside, hidden] for name in ("gate", "up")},
        "mlp.down_proj": [hidden, inside],
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
    }
    shapes = {
        f"model.layers.{k}.{name}": shape for k in range(layers) for name, shape in block.items()
    }
    shapes |= {name: [vocabulary, hidden] for name in ("model.embed_tokens", "lm_head")}
    shapes["model.norm"] = [hidden]
    size = 2 * sum(math.prod(shape) for shape in shapes.values())
    names = {"config.json": 1000, "tokenizer.json": 2_000_000, "model.safetensors": size}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_attention_heads": 64,
        "max_position_embeddings": 4096,
    }
    header = {f"{name}.weight": {"dtype": "BF16", "shape": shape} for name, shape in shapes.items()}
    listed = Listing(
        f"hub:someone/llama-70b@{COMMIT}",
        COMMIT,
        {name: File(each, None, COMMIT) for name, each in names.items()},
        {"config.json": config},
        {"model.safetensors": header},
    )
    write_json(results / f"hub/models/someone--llama-70b/{COMMIT}.json", asdict(listed))
    return size


def test_a_large_model_is_planned_before_it_is_downloaded(fresh: Copy) -> None:
    size = remember_llama(fresh.folder / "results")
    plans = {}
    for mode in ("stream", "resident"):
        (fresh.folder / "large.yaml").write_text(LARGE % (COMMIT, mode), encoding="utf-8")
        done = fresh.make("plan", "STUDY=large.yaml")
        assert done.code == 0, done.output
        assert "68,976.6 million parameters, 138 GB of weights, download 138 GB" in done.output
        plans[mode] = done
    assert size == 2 * 68_976_648_192
    streamed, whole = (stage_rows(plans[mode].output) for mode in ("stream", "resident"))
    gpu_hours, memory, gpu_memory = 3, 4, 5
    assert float(streamed["score"][gpu_hours]) > 0
    assert gigabytes(streamed["score"][gpu_memory]) < 80 < gigabytes(whole["score"][gpu_memory])
    assert gigabytes(whole["score"][gpu_memory]) == pytest.approx(3 * 138, rel=0.1)
    # Quantizers have the model in float32 on the CPU.
    assert gigabytes(streamed["quantize"][memory]) > 276
    assert "NVIDIA A100" in plans["stream"].output
    assert "engine.mode: stream" in plans["resident"].output


def gigabytes(size: str) -> float:
    """A size of the table that is one of gigabytes."""
    number, unit = size.split()
    assert unit == "GB"
    return float(number)
