"""What jobs will take: sizes read from headers, formulas on cases computed by hand, requests."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_rules import RULES
from tiny_classifier import write_gte
from tiny_models import MODELS

from lowbit.analysis.mechanisms.mixed_precision import RANDOM_CHOICES
from lowbit.errors import InputError
from lowbit.experiments import edited_documents, intervention_conditions
from lowbit.experiments.kept_scores import write_scores
from lowbit.inputs.hub import File, Listing
from lowbit.inputs.models import block_linears
from lowbit.quantization import quantize_model, quantized
from lowbit.quantization.published.description import checkpoint_files
from lowbit.quantizers import nf, rtn
from study.config.study import Study, load_study
from study.estimates import disk, engine_memory, quantizer_memory, seconds, walks
from study.estimates.fit import OF_MAKE, Finished, fit, study_account
from study.estimates.jobs import Estimates
from study.estimates.measured import read_measured
from study.estimates.need import Need
from study.estimates.requests import longest_runtime, request
from study.estimates.shapes import ModelShape, download_bytes, model_shape, shape_of
from study.estimates.table import ANALYSES, STAGES, in_words, plan_text, stage_of
from study.paths import paths_of

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "resources/demo/model"
MODES = ("resident", "stream")
LLAMA_70B = {"hidden_size": 8192, "num_attention_heads": 64, "max_position_embeddings": 4096}


def llama_tensors(
    hidden: int, inside: int, layers: int, vocabulary: int, keys: int
) -> Iterator[tuple[str, str, list[int]]]:
    """Name, type and shape of every tensor of a Llama in bfloat16, its head untied."""
    shapes = {
        "self_attn.q_proj": [hidden, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, hidden],
        "mlp.gate_proj": [inside, hidden],
        "mlp.up_proj": [inside, hidden],
        "mlp.down_proj": [hidden, inside],
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
    }
    yield "model.embed_tokens.weight", "BF16", [vocabulary, hidden]
    yield "lm_head.weight", "BF16", [vocabulary, hidden]
    yield "model.norm.weight", "BF16", [hidden]
    for layer in range(layers):
        for name, shape in shapes.items():
            yield f"model.layers.{layer}.{name}.weight", "BF16", shape


@pytest.fixture(scope="module")
def large() -> ModelShape:
    """Llama 2 70B."""
    return model_shape(LLAMA_70B, llama_tensors(8192, 28672, 80, 32000, 1024))


@pytest.fixture
def study_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Makes the default study with changes; nothing is perturbed."""
    monkeypatch.chdir(ROOT)
    plain: dict[str, Any] = {"perturbation": None}
    return lambda **changes: load_study(Path("config.yaml"), overrides=plain | changes)


def test_the_sizes_of_the_embedded_model() -> None:
    shape = shape_of(DEMO)
    # 4 attention matrices, 3 of the MLP, 2 norms
    block = 4 * 128 * 128 + 3 * 128 * 384 + 2 * 128
    assert shape.block_parameters == 6 * block
    assert shape.parameters == 4096 * 128 + 6 * block + 128 == 1_803_904
    assert shape.stored_bytes == 2 * shape.parameters
    assert shape.block_weights == shape.active_weights == 6 * (block - 2 * 128)
    assert (shape.layers, shape.hidden, shape.heads, shape.vocabulary) == (6, 128, 4, 4096)
    assert (shape.widest, shape.largest_matrix, shape.context) == (384, 128 * 384, 512)


def test_the_sizes_of_a_large_model(large: ModelShape) -> None:
    assert large.parameters == 68_976_648_192  # as its makers count it
    assert large.stored_bytes == 2 * large.parameters
    assert large.kept_parameters == 2 * 32000 * 8192 + 8192


@pytest.mark.parametrize("name", MODELS)
def test_the_sizes_of_every_architecture(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    shape = shape_of(tmp_path)
    buffers = model.state_dict().keys() - dict(model.named_parameters(remove_duplicate=False))
    stored = sum(model.get_buffer(each).numel() for each in buffers)
    assert shape.parameters == model.num_parameters() + stored
    assert (shape.layers, shape.hidden) == (3, 64)
    assert shape.vocabulary == model.get_input_embeddings().num_embeddings
    found = [(each.name, each.outputs, each.inputs) for each in shape.matrices]
    assert found == block_linears(tmp_path)
    assert 0 < shape.expert_share <= 1


def test_a_token_goes_through_some_experts_only() -> None:
    experts = [
        (f"model.layers.0.mlp.experts.{k}.up_proj.weight", "BF16", [8, 4]) for k in range(16)
    ]
    others = [
        ("model.layers.0.self_attn.q_proj.weight", "BF16", [4, 4]),
        ("model.embed_tokens.weight", "BF16", [100, 4]),
    ]
    shape = model_shape({"num_experts": 16, "num_experts_per_tok": 2}, [*experts, *others])
    assert shape.block_weights == 16 * 32 + 16
    assert shape.active_weights == 2 * 32 + 16


def test_what_is_not_a_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="no decoder blocks"):
        model_shape({}, [("embeddings.weight", "F32", [10, 4])])


def test_numbers_of_the_library_are_its_own() -> None:
    """The library needs PyTorch, which the workflow's environment does not have."""
    assert walks.EDITS_AT_ONCE == edited_documents.EDITS_AT_ONCE
    assert walks.MIXED_MODELS == RANDOM_CHOICES + 3
    assert quantizer_memory.CALIBRATION_BATCH == quantize_model.CALIBRATION_BATCH
    starts = [min(blocks) / 12 for blocks in intervention_conditions.layer_sets(12).values()]
    assert tuple(starts) == pytest.approx(walks.LAYER_SETS)
    assert walks.SCALINGS == walks.SHAMS == len(intervention_conditions.FACTORS)
    assert len(intervention_conditions.SWAPS) == walks.SWAPS


def test_weights_of_a_large_model(large: ModelShape, study_of: Callable[..., Study]) -> None:
    study = study_of(
        methods={
            "a": {"quantizer": "rtn", "bits": 3, "group_size": 128},
            "b": {"quantizer": "hqq", "bits": 4, "group_size": 64},
        }
    )
    weights = large.block_weights
    headers = 80 * 7 * 300
    # 3 bits, and per 128 weights a float32 scale and a byte
    assert disk.weights_bytes(study.methods["a"], large) == pytest.approx(
        weights * (3 / 8 + 5 / 128) + headers
    )
    # 4 bits, and per 64 weights a scale and a zero, float32
    assert disk.weights_bytes(study.methods["b"], large) == pytest.approx(
        weights * (4 / 8 + 8 / 64) + headers
    )


@pytest.mark.parametrize(("quantizer", "implementation"), [("rtn", rtn), ("nf", nf)])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_take_the_disk_that_is_planned(
    quantizer: str, implementation: Any, bits: int, tmp_path: Path, study_of: Callable[..., Study]
) -> None:
    shapes = {"q_proj": (256, 256), "up_proj": (512, 256)}
    layers = {
        f"model.layers.0.{name}": implementation.quantize(
            torch.randn(size), bits=bits, group_size=64
        )
        for name, size in shapes.items()
    }
    file = tmp_path / "weights.safetensors"
    quantized.write_quantized(file, layers, {})
    tensors = [(f"model.layers.0.{name}.weight", "F32", size) for name, size in shapes.items()]
    shape = model_shape({}, [*tensors, ("embed.weight", "F32", (10, 256))])
    method = {"quantizer": quantizer, "bits": bits, "group_size": 64}
    study = study_of(methods={"a": method, "b": method})
    planned = disk.weights_bytes(study.methods["a"], shape)
    assert planned == pytest.approx(file.stat().st_size, rel=0.02)


@pytest.mark.parametrize("documents", [24, 300, 2000])
def test_scores_take_the_disk_that_is_planned(
    documents: int, tmp_path: Path, study_of: Callable[..., Study]
) -> None:
    length = 128
    random = np.random.default_rng(0)
    size = (documents, length - 1)
    nll = random.gamma(2, 1.5, size).astype(np.float32)
    columns = {
        "doc_id": [f"document {k}" for k in range(documents)],
        "nll": nll.mean(1, dtype=float),
        "token_nll": nll,
        "token_flip": random.random(size) < 0.2,
    }
    for name, extra in (("full", {"token_confidence": random.random(size, np.float32)}), ("a", {})):
        write_scores(tmp_path / f"{name}.parquet", columns | extra, {"gates": "{}"})
    method = {"quantizer": "rtn", "bits": 3, "group_size": 64}
    study = study_of(
        methods={"a": method, "b": method},
        documents={"name": "demo", "source": "demo", "n": documents, "length": length},
    )
    full, one = ((tmp_path / f"{name}.parquet").stat().st_size for name in ("full", "a"))
    assert disk.score_bytes(study) == pytest.approx(full + 2 * one, rel=0.2)


def scoring(study: Study, shape: ModelShape) -> float:
    """Memory of scoring beside Python and its libraries, bytes."""
    return engine_memory.engine_memory(walks.engine_job("score", study, shape), shape, study.engine)


def test_memory_of_scoring_by_hand(large: ModelShape, study_of: Callable[..., Study]) -> None:
    engine = {"dtype": "bfloat16", "batch_size": 4}
    study = study_of(
        methods={
            name: {"quantizer": "rtn", "bits": 3, "group_size": 64} for name in ("a", "b", "c")
        },
        documents={"name": "demo", "source": "demo", "n": 1000, "length": 512},
        engine=engine,
    )
    weights = 2 * (large.parameters + 3 * large.block_weights)
    states = 2 * (4 + 1) * 4 * 512 * 8192
    inside = 2 * 4 * 512 * (4 * 28672 + 6 * 8192)
    chunks = 6 * 8 * 2**20
    assert chunks < inside  # and they are not there at once
    assert scoring(study, large) == pytest.approx(weights + states + inside)
    job = walks.engine_job("score", study, large)
    assert engine_memory.unpacking(job, large) == 13 * 8192 * 28672
    streamed = study_of(
        **{"methods": study.model_dump()["methods"]}
        | {"documents": study.documents.model_dump(), "engine": engine | {"mode": "stream"}}
    )
    blocks = large.block_parameters / 80 + 3 * large.block_weights / 80
    weights = 2 * (large.kept_parameters + blocks)
    states = 2 * (4 + 1) * 256 * 512 * 8192
    assert scoring(streamed, large) == pytest.approx(weights + states + inside)
    assert scoring(streamed, large) < 80e9 < scoring(study, large)
    held = weights + states + max(inside, 13 * 8192 * 28672)
    assert engine_memory.RETURNED == 2 * 4 * 512 * 8192  # the smallest other piece
    holes = 2 * chunks  # after 250 batches as many as there can be
    taken = engine_memory.cpu_memory(job, large, streamed.engine)
    assert taken == pytest.approx(held + holes)


@pytest.mark.parametrize("exits", [False, True])
def test_weights_of_a_block_are_gone_when_losses_come_after_the_last(
    exits: bool, large: ModelShape, study_of: Callable[..., Study]
) -> None:
    engine = study_of(engine={"mode": "stream"}).engine
    walk = walks.Walk(rows=1, length=2, streams=1, blocks=80, read_outs=160, exits=exits)
    block = 4 * large.block_parameters / 80
    states = 4 * 2 * 2 * 8192
    loss = 6 * 4 * 2 * large.vocabulary
    inside = 4 * 2 * (4 * 28672 + 6 * 8192)
    assert loss > inside
    taken = engine_memory.engine_memory(walks.Job([walk]), large, engine)
    during_loss = 4 * large.kept_parameters + (1 + exits) * block + states + loss
    in_a_block = 4 * large.kept_parameters + 2 * block + states + inside
    assert taken == pytest.approx(max(during_loss, in_a_block))


def test_freed_memory_leaves_holes_by_hand(
    large: ModelShape, study_of: Callable[..., Study]
) -> None:
    engine = study_of(engine={"mode": "stream", "batch_size": 4}).engine
    walk = walks.Walk(8, 16, 2, 1, read_outs=2, changed_matrices=3, groups=2)
    share = 0.35 * log2(1 + 2 * 2)  # two groups of two batches each

    def beside(shape: ModelShape) -> float:
        """Bytes beside what is held."""
        job = walks.Job([walk])
        held = engine_memory.engine_memory(job, shape, engine)
        return engine_memory.cpu_memory(job, shape, engine) - held

    shape = shape_of(DEMO)
    tokens, states = 4 * 16, 4 * (2 + 1) * 4 * 16 * shape.hidden  # of one batch, not of all
    inside = 4 * tokens * (4 * shape.widest + 6 * shape.hidden)
    changed = 4 * 3 * shape.block_weights / shape.layers
    loss = 6 * 4 * tokens * shape.vocabulary
    assert beside(shape) == pytest.approx(share * (states + inside + changed + loss))
    # A matrix of the large model is given back at once when it is let go.
    states = 4 * (2 + 1) * 4 * 16 * large.hidden
    inside = 4 * tokens * (4 * large.widest + 6 * large.hidden)
    loss = 6 * 4 * tokens * large.vocabulary
    assert beside(large) == pytest.approx(share * (states + inside + loss))


SIZES = st.integers(1, 4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=SIZES, length=SIZES, batch=SIZES, methods=SIZES, mode=st.sampled_from(MODES))
def test_more_of_anything_takes_no_less(
    n: int, length: int, batch: int, methods: int, mode: str, study_of: Callable[..., Study]
) -> None:
    plain, shape = study_of(), shape_of(DEMO)

    def study(n: int, length: int, batch: int, methods: int) -> Study:
        documents = plain.documents.model_copy(update={"n": 20 * n, "length": 64 * length})
        engine = plain.engine.model_copy(update={"batch_size": 4 * batch, "mode": mode})
        chosen = dict(list(plain.methods.items())[: methods + 1])
        changes = {"documents": documents, "engine": engine, "methods": chosen}
        return plain.model_copy(update=changes)

    def taken(rule: str, of: Study) -> tuple[float, float, float]:
        job = walks.engine_job(rule, of, shape)
        memory = engine_memory.engine_memory(job, shape, of.engine)
        on_cpu = engine_memory.cpu_memory(job, shape, of.engine)
        return memory, seconds.engine_work(job, shape), on_cpu

    sizes = (n, length, batch, methods)
    for rule in ("score", "measure_residuals", "trace_layers", "patch"):
        memory, work, on_cpu = taken(rule, study(*sizes))
        for place in range(4):
            more = study(*(value + (k == place) for k, value in enumerate(sizes)))
            more_memory, more_work, more_on_cpu = taken(rule, more)
            assert memory <= more_memory
            assert work <= more_work
            if place != 2:  # larger batches are fewer, and leave a smaller share of holes
                assert on_cpu <= more_on_cpu


def test_time_of_scoring_by_hand(study_of: Callable[..., Study]) -> None:
    study = study_of()
    shape = shape_of(DEMO)
    tokens, streams = 300 * 512, 1 + len(study.methods)
    per_token = 2 * shape.block_weights + 6 * 4 * 512 * 128 + 2 * 4096 * 128
    job = walks.engine_job("score", study, shape)
    assert seconds.engine_work(job, shape) == pytest.approx(tokens * streams * per_token)


@pytest.fixture
def estimates(study_of: Callable[..., Study], large: ModelShape) -> Estimates:
    """The default study, as if its model were Llama 2 70B."""
    study = study_of(engine={"device": "cuda", "mode": "stream", "dtype": "bfloat16"})
    return Estimates(study, paths_of(study), {"demo": large})


def test_a_large_model_on_one_gpu(estimates: Estimates, large: ModelShape) -> None:
    score = estimates.need("score", {"model": "demo"}, on_gpu=True)
    assert score.gpu_memory < 80e9
    assert score.memory < large.stored_bytes
    keyed = {"model": estimates.paths.models["demo"], "method": estimates.paths.methods["gptq3"]}
    quantize = estimates.need("quantize_gptq", keyed, ["results/weights.safetensors"], on_gpu=True)
    assert quantize.memory > 4 * large.parameters  # float32, whole, on the CPU
    assert quantize.gpu_memory < 80e9
    assert quantize.disk == disk.weights_bytes(estimates.study.methods["gptq3"], large)
    table = estimates.need("plot_errors", {"model": "demo"}, on_gpu=True)
    assert not table.uses_gpu
    assert table.memory < 1e9


def test_downloads_take_their_time(estimates: Estimates, large: ModelShape) -> None:
    local = estimates.need("fetch_model", {"model": "demo"})
    size = large.stored_bytes
    fetched = replace(estimates, downloads={"demo": size}).need("fetch_model", {"model": "demo"})
    assert fetched.seconds - local.seconds == pytest.approx(size / 5e7)
    assert request(fetched, 1)["runtime"] > 60


def test_of_a_published_checkpoint_what_is_read_is_downloaded(
    estimates: Estimates,
) -> None:
    sizes = {"config.json": 1000, "gptq_model-4bit-128g.safetensors": 4 * 10**9, "old.bin": 10**10}
    files = {name: File(size, None, "0" * 40) for name, size in sizes.items()}
    listed = Listing("hub:someone/llama-gptq@" + "0" * 40, "0" * 40, files)
    size = download_bytes(listed, checkpoint_files)
    assert size == 4 * 10**9 + 1000
    assert download_bytes(DEMO, checkpoint_files) == 0
    fetching = "fetch_checkpoint", {"model": "demo", "method": estimates.paths.methods["gptq3"]}
    at_once = replace(estimates, checkpoints={}).need(*fetching)
    fetched = replace(estimates, checkpoints={"gptq3": size}).need(*fetching)
    assert fetched.seconds - at_once.seconds == pytest.approx(size / 5e7 + size / 2.5e8)


def test_a_classifier_takes_what_its_own_size_and_a_batch_take(
    estimates: Estimates, large: ModelShape, tmp_path: Path
) -> None:
    shape = shape_of(write_gte(tmp_path))
    with_topics = replace(estimates, classifier=shape, classifier_download=10**9)
    keyed = {"model": estimates.paths.models["demo"]}
    documents = estimates.study.documents
    # A text at a time; widest are the packed queries, keys and values.
    inside = 4 * documents.length * (4 * 3 * 32 + 6 * 32)
    taken = with_topics.computed_memory("classify_topics", keyed)
    assert taken == pytest.approx(4 * shape.parameters + inside)
    per_token = 2 * 2 * (4 * 32 * 32 + 3 * 32 * 48) + 2 * 4 * documents.length * 32
    work = with_topics.work("classify_topics", keyed)
    assert work == documents.n * documents.length * per_token
    on_gpu = with_topics.need("classify_topics", keyed, on_gpu=True)
    assert on_gpu.uses_gpu
    fetched = with_topics.need("fetch_classifier", {})
    local = replace(with_topics, classifier_download=0).need("fetch_classifier", {})
    assert fetched.seconds - local.seconds == pytest.approx(1e9 / 5e7)


def test_resident_weights_take_more_than_streamed_ones(estimates: Estimates) -> None:
    study = estimates.study
    resident = study.model_copy(
        update={"engine": study.engine.model_copy(update={"mode": "resident"})}
    )
    for rule in ("score", "measure_residuals", "trace_layers", "patch"):
        streamed = estimates.need(rule, {"model": "demo"})
        whole = replace(estimates, study=resident).need(rule, {"model": "demo"})
        assert streamed.memory < whole.memory


def test_each_attempt_asks_for_more() -> None:
    need = Need(memory=8e9, seconds=3600, disk=10 * 2**20)
    first, second, third = (request(need, attempt) for attempt in (1, 2, 3))
    assert first == {"mem_mb": 10_300, "runtime": 190, "disk_mb": 120, "gpu": None}
    assert (second["mem_mb"], third["mem_mb"]) == (15_450, 20_600)
    assert second["runtime"] == 380
    assert request(replace(need, gpu_memory=1.0), 1)["gpu"] == 1


def test_no_job_asks_for_more_time_than_its_partitions_give() -> None:
    partitions = [(60, 0), (2880, 0), (1440, 8)]
    assert longest_runtime(partitions, uses_gpu=False) == 2880
    assert longest_runtime(partitions, uses_gpu=True) == 1440
    assert longest_runtime([(1440, 8)], uses_gpu=False) == 1440  # they have nowhere else to go
    assert longest_runtime([(60, 0), (inf, 0)], uses_gpu=False) == inf
    assert longest_runtime([], uses_gpu=True) == inf
    need = Need(memory=8e9, seconds=12 * 3600, disk=0)
    asked = [request(need, attempt, 2880)["runtime"] for attempt in (1, 2, 3)]
    assert asked == [2170, 2880, 2880]
    assert isinstance(request(need, 2, 2880.0)["runtime"], int)


def finished(rule: str, seconds: float, work: float) -> Finished:
    return Finished(rule, 2, seconds, 500.0, 0.0, 0.0, 100.0, work)


@pytest.mark.parametrize(
    ("rule", "jobs", "seconds", "rate"),
    [
        ("correlate", [(2.0, 10.0), (5.0, 40.0)], 1.0, 10.0),  # a line; one thread
        ("correlate", [(2.0, 10.0), (2.5, 15.0)], 2.0, None),  # hardly more work
        ("score", [(10.0, 100.0), (60.0, 1100.0)], 5.0, 10.0),  # two threads
        ("score", [(10.0, 100.0), (67.0, 660.0)], 1.0, 5.0),  # no job takes less than its start
        ("score", [(41.0, 100.0)], 1.0, 1.25),  # all beyond the start is work
        ("score", [(2.0, 100.0)], 1.0, None),  # hardly longer than the start
    ],
)
def test_seconds_and_rates_by_hand(
    rule: str, jobs: list[tuple[float, float]], seconds: float, rate: float | None
) -> None:
    found = fit([finished(rule, *job) for job in jobs], start=1.0)
    assert (found.seconds, found.rate) == (seconds, rate)
    assert found.memory_mib == 400


def test_the_plan_to_fit_is_of_the_study_whatever_make_was_called_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tmp_path / "make"
    make.write_text('#!/bin/bash\necho "$*: $MAKEFLAGS$MFLAGS$ARGS$STUDY$PROFILE$RUN_BY"; exit 2\n')
    make.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in OF_MAKE:
        monkeypatch.setenv(name, "other")
    with pytest.raises(InputError) as error:
        study_account("a.yaml", tmp_path)
    assert str(error.value) == "`make plan STUDY=a.yaml` failed:\nplan STUDY=a.yaml: \n"


NEVER_MEASURED = {
    *("answer", "analyze_downstream", "plot_downstream"),
    *("choose_documents", "compare_models", "compare_released", "plot_robustness"),
    *("fetch_checkpoint", "read_checkpoint"),
}
"""Rules that take the numbers of the largest rule of their kind."""


def test_every_rule_has_measured_numbers() -> None:
    assert RULES.keys() - read_measured().keys() <= NEVER_MEASURED


def job(**changes: Any) -> Mapping[str, Any]:
    """An entry of an account."""
    plain = {"rule": "score", "done": False, "threads": 2, "seconds": 3600.0}
    return plain | {"memory": 4e9, "gpu_memory": 0.0, "disk": 1e6} | changes


def test_the_table_adds_up() -> None:
    account = {
        "study": "s",
        "gpu": {"name": "G", "memory": 80e9},
        "assumed": ["something"],
        "models": {
            "m": {
                "source": "hub:a/b@main",
                "parameters": 7e9,
                "stored_bytes": 14e9,
                "download": 14e9,
            }
        },
        "checkpoints": {"hub:someone/llama-gptq@main": 4e9},
        "classifiers": {"hub:someone/topics@main": 5e8},
        "texts": {"web": 2e9},
        "jobs": [
            job(),
            job(done=True),
            job(rule="quantize_rtn", gpu_memory=90e9, memory=2e9),
            job(rule="plot_errors", threads=1, seconds=360.0),
        ],
    }
    text = plan_text(account, free=1e9)
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["score"][-7:] == ["2", "1", "2.00", "0.00", "4", "GB", "-", "1", "MB"][-7:]
    assert rows["total"][1:5] == ["4", "1", "2.10", "1.00"]
    assert "3 of 4 jobs are to run" in text
    assert "download 14 GB" in text
    assert "checkpoint hub:someone/llama-gptq@main: download 4 GB" in text
    assert "classifier hub:someone/topics@main: download 500 MB" in text
    assert "downloads in all: 20.5 GB" in text
    assert "DISK: 20.5 GB are needed, and 1 GB are free here" in text
    assert "GPU: quantize_rtn take more than the 80 GB of one G" in text
    assert "- something" in text


ANALYSIS = (
    *("analyze_", "compare_", "compute_errors", "correlate", "judge_", "plot_", "predict"),
    *("render_", "tabulate_", "write_"),
)
"""How the rules' names begin that make tables, figures and pages of what others measured."""


def test_every_rule_has_its_stage() -> None:
    assert STAGES.keys() <= RULES.keys()
    others = {rule for rule in RULES if stage_of(rule) == ANALYSES}
    assert others == {rule for rule in RULES if rule.startswith(ANALYSIS)}


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (1500, "1.5 kB"), (3.61e6, "3.61 MB"), (138e9, "138 GB"), (1.2e12, "1.2 TB")],
)
def test_sizes_in_words(size: float, words: str) -> None:
    assert in_words(size) == words
