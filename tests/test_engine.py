"""The lockstep walk against plain Hugging Face forwards with straightforward hooks."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import transformers
from tiny_models import MODELS, build, token_ids
from torch import nn

from lowbit.engine import gates
from lowbit.engine.decoder import Decoder
from lowbit.engine.engine import Engine
from lowbit.engine.loading import load_decoder
from lowbit.engine.losses import token_losses
from lowbit.engine.roles import find_architecture
from lowbit.engine.walk import Stream, own_parameters, walk
from lowbit.errors import GateError, InputError
from lowbit.experiments.residuals import measure_residuals, norm_weights
from lowbit.experiments.scoring import join, score_documents
from lowbit.experiments.trace import exit_nll, mlp_differences
from lowbit.files import sha256
from lowbit.names import FULL

FULL_STREAM = Stream(FULL, own_parameters)


def plain_nll(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Per-token NLL `[rows, length - 1]` from a plain forward, in float64 after the logits."""
    with torch.inference_mode():
        log_probabilities = model(ids).logits.double().log_softmax(-1)
    return -log_probabilities[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]


def noisy_copy(decoder: Decoder, scale: float = 0.1) -> Stream:
    """A stream whose block matrices carry fixed noise, as quantized weights would."""
    generator = torch.Generator().manual_seed(2)
    changed = [
        {
            name: p + (scale * torch.randn(p.shape, generator=generator)).to(p.dtype)
            for name, p in block.named_parameters()
            if p.dim() > 1
        }
        for block in decoder.blocks
    ]
    return Stream("noisy", changed.__getitem__)


def load_into_copy(model: nn.Module, decoder: Decoder, stream: Stream, name: str) -> nn.Module:
    """A second model that really holds the stream's weights."""
    other = build(name)
    other.load_state_dict(model.state_dict())
    for index in range(len(decoder)):
        prefix = f"{decoder.blocks_name}.{index}."
        state = {prefix + key: value for key, value in stream.parameters(index).items()}
        assert not other.load_state_dict(state, strict=False).unexpected_keys
    return other


@pytest.mark.parametrize("name", MODELS)
def test_walk_equals_plain_forward(name: str) -> None:
    model, ids = build(name), token_ids()
    decoder = Decoder(model)
    noisy = noisy_copy(decoder)
    (normed,) = walk(decoder, [FULL_STREAM, noisy], [ids])
    losses = token_losses(decoder.logits, normed, ids, FULL)
    assert (losses[FULL].nll - plain_nll(model, ids)).abs().max() <= 1e-5
    changed = load_into_copy(model, decoder, noisy, name)
    assert (losses["noisy"].nll - plain_nll(changed, ids)).abs().max() <= 1e-5
    assert (losses["noisy"].nll - losses[FULL].nll).abs().mean() > 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_gates_hold(name: str) -> None:
    decoder, ids = Decoder(build(name)), token_ids()
    noisy = noisy_copy(decoder)
    assert gates.parity(decoder, FULL_STREAM, ids, 0.0) <= 1e-5
    assert gates.self_patch(decoder, noisy, ids) == 0
    assert gates.full_patch(decoder, FULL_STREAM, noisy, ids) == 0


def test_gate_stops_a_walk_with_other_numbers() -> None:
    decoder, ids = Decoder(build("llama")), token_ids()
    with pytest.raises(GateError, match="differs from the plain Hugging Face forward by"):
        gates.parity(decoder, noisy_copy(decoder), ids, 0.0)


def test_gate_stops_a_patch_that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, ids = Decoder(build("llama")), token_ids()
    monkeypatch.setattr(gates, "ADDED_TO_RESIDUAL", ())
    with pytest.raises(GateError, match="patched everywhere from full differs"):
        gates.full_patch(decoder, FULL_STREAM, noisy_copy(decoder), ids)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_gates_allow_for_the_rounding_of_bfloat16(batch_size: int) -> None:
    """The head runs in chunks, which bfloat16 rounds otherwise than one large product."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=32_768,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    decoder, ids = Decoder(model), torch.randint(0, 32_768, (8, 64))
    noisy = noisy_copy(decoder, 0.02)
    cpu = torch.device("cpu")
    engine = Engine(decoder, FULL_STREAM, torch.bfloat16, cpu, batch_size, resident=True)
    measured = engine.check([noisy], ids.int().numpy())
    assert measured["noisy"] == {"self_patch": 0.0, "full_patch": 0.0}


def test_losses_equal_direct_formulas() -> None:
    torch.manual_seed(0)
    head, ids = nn.Linear(8, 50), torch.randint(0, 50, (3, 9))
    normed = {"full": torch.randn(3, 9, 8), "other": torch.randn(3, 9, 8)}
    with torch.inference_mode():
        losses = token_losses(head, normed, ids, "full")
        p, q = (head(normed[k][:, :-1]).double().log_softmax(-1) for k in ("full", "other"))
    other = losses["other"]
    expected_nll = -q.gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(other.nll.double(), expected_nll, atol=1e-6, rtol=0)
    torch.testing.assert_close(other.kl.double(), (p.exp() * (p - q)).sum(-1), atol=1e-6, rtol=1e-5)
    assert torch.equal(other.top1_flip.bool(), p.argmax(-1) != q.argmax(-1))
    full = losses["full"]
    assert full.kl.abs().max() == 0
    assert full.top1_flip.sum() == 0
    torch.testing.assert_close(full.entropy.double(), -(p.exp() * p).sum(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(full.confidence.double(), p.exp().amax(-1), atol=1e-6, rtol=0)


def test_losses_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head, ids = nn.Linear(8, 50), torch.randint(0, 50, (3, 9))
    normed = {"full": torch.randn(3, 9, 8), "other": torch.randn(3, 9, 8)}
    with torch.inference_mode():
        whole = token_losses(head, normed, ids, "full")["other"]
        monkeypatch.setattr("lowbit.engine.losses.LOGITS_PER_CHUNK", 150)
        parts = token_losses(head, normed, ids, "full")["other"]
    torch.testing.assert_close(whole.nll, parts.nll, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.kl, parts.kl, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["llama", "opt-350m", "bloom", "gpt-neox-serial", "gemma3"])
def test_taps_see_what_plain_hooks_see(name: str) -> None:
    model, ids = build(name), token_ids()
    decoder, seen = Decoder(model), {}

    def keep(key: tuple[int, str], activation: torch.Tensor) -> None:
        seen[key] = activation.clone()

    def taps(stream: str, index: int, batch: int) -> dict:
        return {role: partial(keep, (index, role)) for role in decoder.sites[index]}

    list(walk(decoder, [FULL_STREAM], [ids], taps))
    with torch.inference_mode():
        hidden_states = model(ids, output_hidden_states=True).hidden_states
    for index in range(len(decoder) - 1):  # the last one is given after the final norm
        torch.testing.assert_close(seen[index, "residual_out"], hidden_states[index + 1])
    for index in range(len(decoder)):
        r, mlp_out = seen[index, "residual_mid"], seen[index, "mlp_out"]
        if name != "opt-350m":  # there a norm follows the addition
            torch.testing.assert_close(seen[index, "residual_out"], r + mlp_out)


def engine_of(model: nn.Module, batch_size: int = 2) -> Engine:
    cpu = torch.device("cpu")
    return Engine(Decoder(model), FULL_STREAM, torch.float32, cpu, batch_size, resident=True)


def test_residual_measures_equal_a_direct_computation() -> None:
    model, ids = build("llama"), token_ids(5)
    engine = engine_of(model)
    batches = list(measure_residuals(engine, ids.int().numpy()))
    found = {
        name: np.concatenate([batch.documents[name] for batch in batches])
        for name in ("r", "z", "h", "r_kurtosis", "h_kurtosis")
    }
    magnitude = sum(batch.magnitude for batch in batches) / len(ids)
    inputs, outputs = [], []
    for block in model.model.layers:
        norm = block.post_attention_layernorm
        norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        norm.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.inference_mode():
        model(ids)
    for layer, (r, h) in enumerate(zip(inputs, outputs, strict=True)):
        for name, activation in (("r", r), ("h", h)):
            norms = activation.pow(2).sum(-1).sqrt().mean(1)
            np.testing.assert_allclose(found[name][:, layer], norms, rtol=1e-5)
            kurtosis = scipy.stats.kurtosis(activation.double(), axis=-1).mean(1)
            np.testing.assert_allclose(found[f"{name}_kurtosis"][:, layer], kurtosis, rtol=1e-4)
        np.testing.assert_allclose(magnitude[layer], r.abs().mean((0, 1)), rtol=1e-5)


def test_parallel_residual_has_no_r() -> None:
    (batch,) = measure_residuals(engine_of(build("gpt-neox")), token_ids(2).int().numpy())
    assert set(batch.documents) == {"z", "h", "h_kurtosis"}


@pytest.mark.parametrize(("name", "offset"), [("llama", 0), ("gemma", 1), ("opt", 0)])
def test_weights_of_the_norm_before_the_mlp(name: str, offset: int) -> None:
    model = build(name)
    norm = "final_layer_norm" if name == "opt" else "post_attention_layernorm"
    weights = norm_weights(engine_of(model))
    expected = model.get_submodule(find_architecture(type(model).__name__).blocks)[1]
    expected = expected.get_submodule(norm).weight.detach() + offset
    np.testing.assert_allclose(weights[1], expected, rtol=1e-6)


def test_no_norm_before_the_mlp() -> None:
    assert norm_weights(engine_of(build("opt-350m"))) is None


@pytest.mark.parametrize("name", ["llama", "opt", "opt-350m", "bloom", "gpt-neox", "gemma2"])
def test_early_exit_equals_the_final_norm_and_head_on_hidden_states(name: str) -> None:
    model, ids = build(name), token_ids(3)
    engine = engine_of(model, batch_size=3)
    noisy = noisy_copy(engine.decoder)
    (found,) = exit_nll(engine, [engine.full, noisy], ids.int().numpy())
    with torch.inference_mode():
        hidden_states = model(ids, output_hidden_states=True).hidden_states
    for index, states in enumerate(hidden_states[1:-1]):
        with torch.inference_mode():
            normed = final_norm(model, states)
            logits = model.get_output_embeddings()(normed)
            if cap := getattr(model.config, "final_logit_softcapping", None):
                logits = cap * torch.tanh(logits / cap)
            losses = logits.double().log_softmax(-1)[:, :-1]
        expected = -losses.gather(-1, ids[:, 1:, None])[..., 0].mean(1)
        np.testing.assert_allclose(found[FULL].z[:, index], expected, atol=1e-5)
    np.testing.assert_allclose(found[FULL].z[:, -1], plain_nll(model, ids).mean(1), atol=1e-5)
    changed = load_into_copy(model, engine.decoder, noisy, name)
    np.testing.assert_allclose(found["noisy"].z[:, -1], plain_nll(changed, ids).mean(1), atol=1e-5)
    assert (found[FULL].r is not None) == (name != "gpt-neox")


def final_norm(model: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """What each architecture's own code does between its last block and its head."""
    base = model.base_model
    if isinstance(model, transformers.OPTForCausalLM):
        decoder = base.decoder
        if decoder.final_layer_norm is not None:
            hidden_states = decoder.final_layer_norm(hidden_states)
        return hidden_states if decoder.project_out is None else decoder.project_out(hidden_states)
    for name in ("norm", "ln_f", "final_layer_norm"):
        if hasattr(base, name):
            return getattr(base, name)(hidden_states)
    raise AssertionError(type(model))


def test_differences_of_mlp_outputs() -> None:
    model, ids = build("llama"), token_ids(5)
    engine = engine_of(model)
    noisy = noisy_copy(engine.decoder)
    parts = list(mlp_differences(engine, [noisy], ids.int().numpy()))
    found = np.concatenate([part["noisy"].mean_squared for part in parts])
    outputs = {}
    for each in (model, load_into_copy(model, engine.decoder, noisy, "llama")):
        seen = outputs.setdefault(id(each), [])
        for block in each.model.layers:
            block.mlp.register_forward_hook(lambda m, args, out, seen=seen: seen.append(out))
        with torch.inference_mode():
            each(ids)
    for layer, (a, b) in enumerate(zip(*outputs.values(), strict=True)):
        np.testing.assert_allclose(found[:, layer], (a - b).pow(2).mean((1, 2)), rtol=1e-4)


def save(model: nn.Module, directory: Path) -> Path:
    """Save a model with the record that `fetch_model.py` would write; return the record's path."""
    files = directory / "files"
    model.save_pretrained(files, max_shard_size="100KB")
    (files / "consolidated.safetensors").write_bytes(b"not read")
    recorded = {
        p.name: {"sha256": sha256(p), "bytes": p.stat().st_size} for p in sorted(files.iterdir())
    }
    record = directory / "model.json"
    record.write_text(json.dumps({"files": recorded}))
    return record


@pytest.mark.parametrize("name", [name for name in MODELS if "moe" not in name])
def test_stream_mode_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    record, ids = save(build(name), tmp_path), token_ids(6).int().numpy()
    settings = {"threads": 1, "device": "cpu", "dtype": "float32", "batch_size": 4}
    scores = {}
    for mode in ("resident", "stream"):
        engine = Engine.open(record, settings | {"mode": mode})
        noisy = noisy_copy(Engine.open(record, settings | {"mode": "resident"}).decoder)
        if mode == "stream":
            merged = noisy.parameters
            noisy = Stream("noisy", lambda i: {**engine.full.parameters(i), **merged(i)})  # noqa: B023
        engine.check([noisy], ids)
        parts = list(score_documents(engine, [noisy], ids))
        scores[mode] = {k: join([part[k] for part in parts]) for k in (FULL, "noisy")}
    for k in (FULL, "noisy"):
        assert (scores["resident"][k].token_nll == scores["stream"][k].token_nll).all()
        assert (scores["resident"][k].kl == scores["stream"][k].kl).all()


def test_stream_mode_refuses_what_it_would_misread(tmp_path: Path) -> None:
    save(build("qwen3-moe"), tmp_path)
    cpu = torch.device("cpu")
    _, parameters = load_decoder(tmp_path / "files", "stream", torch.float32, cpu)
    with pytest.raises(InputError, match=r"engine\.mode: resident"):
        parameters(0)


def test_a_changed_model_file_is_noticed(tmp_path: Path) -> None:
    record = save(build("llama"), tmp_path)
    weights = min((tmp_path / "files").glob("model-00001-of-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"\.safetensors is missing or has changed"):
        Engine.open(record, {"threads": 1, "device": "cpu", "dtype": "float32", "mode": "stream"})


def test_an_unknown_role_is_an_error() -> None:
    decoder, ids = Decoder(build("opt")), token_ids()
    taps = {"mlp_gate": lambda activation: activation * 2}
    with pytest.raises(InputError, match="has no role mlp_gate"):
        list(walk(decoder, [FULL_STREAM], [ids], lambda *_: taps))


def test_a_stream_that_leaves_another_is_walked_from_there() -> None:
    decoder, ids = Decoder(build("llama")), token_ids()
    noisy = noisy_copy(decoder)

    def late(index: int) -> dict[str, torch.Tensor]:
        return noisy.parameters(index) if index >= 1 else {}

    whole, forked = Stream("whole", late), Stream("forked", late, parent=FULL, start=1)
    (normed,) = walk(decoder, [FULL_STREAM, whole, forked], [ids])
    assert torch.equal(normed["whole"], normed["forked"])
    assert not torch.equal(normed["whole"], normed[FULL])


@pytest.mark.parametrize(
    ("parent", "start"), [(None, 1), (FULL, 3), (FULL, -1), ("absent", 1), ("forked", 1)]
)
def test_a_stream_cannot_leave_another_just_anywhere(parent: str | None, start: int) -> None:
    decoder, ids = Decoder(build("llama")), token_ids()
    forked = Stream("forked", own_parameters, parent=FULL, start=1)
    wrong = Stream("wrong", own_parameters, parent=parent, start=start)
    with pytest.raises(ValueError, match="stream wrong cannot leave"):
        list(walk(decoder, [FULL_STREAM, forked, wrong], [ids]))


def test_rows_of_different_lengths_share_no_batch() -> None:
    """So no padding is ever walked; neighbours of one length stay together, in order."""
    engine = Engine(
        Decoder(build("llama")), FULL_STREAM, torch.float32, torch.device("cpu"), 2, resident=True
    )
    ids = token_ids(6, 9).int().numpy()
    lengths = np.array([9, 9, 9, 5, 4, 4])
    batches = [batch for shard in engine.shards(ids, lengths) for batch in shard]
    assert [tuple(batch.shape) for batch in batches] == [(2, 9), (1, 9), (1, 5), (2, 4)]
    found = [row.tolist() for batch in batches for row in batch]
    assert found == [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
