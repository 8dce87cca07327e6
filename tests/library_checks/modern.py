"""Checks of GPTQModel's and llm-compressor's quantizers, run in their environment."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import tiny_models
import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationScheme,
    forward_quantize,
)
from datasets import Dataset
from library_checks.checks import run_checks
from library_checks.published import save_tokenizer
from library_checks.quantizers import (
    GPTQ,
    LAYERS,
    check_awq_scales,
    check_gptq_bad_input,
    check_gptq_by_hand,
    check_properties,
    expect_error,
    first_block,
    llama,
    quantized,
    text,
)
from llmcompressor import oneshot
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lowbit.quantization.quantize_model import CALIBRATION_BATCH
from lowbit.quantization.quantized import dequantize
from lowbit.quantizers import awq_llm_compressor, gptq_gptqmodel, gptq_llm_compressor

AWQ = {"bits": 3, "group_size": 32, "clipping": False}


@contextmanager
def saved(model: nn.Module) -> Iterator[Path]:
    """Save a model, with a tokenizer that knows the numbers below the vocabulary's size.

    The working directory is one that goes away: the libraries write logs there.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            place = Path(folder, "model")
            model.save_pretrained(place)
            save_tokenizer(place, model.config.vocab_size)
            yield place
        finally:
            os.chdir(before)


def check_equal(
    module: ModuleType, expected: dict[str, Tensor], settings: dict[str, object]
) -> None:
    """The module's weights of `llama()` are these, to the last bit."""
    layers, replaced = quantized(module, llama(), **settings)
    assert len(layers) == 7 * LAYERS
    assert not replaced
    for name, layer in layers.items():
        difference = (dequantize(layer) - expected[f"{name}.weight"]).abs().max()
        assert difference == 0, (settings, name, difference)
        assert (layer.zeros is None) == settings["symmetric"]


def gptqmodel_properties() -> None:
    check_properties(gptq_gptqmodel, GPTQ)
    check_properties(gptq_gptqmodel, GPTQ | {"activation_order": True, "symmetric": True})


def library_gptqmodel(place: Path, **settings: object) -> dict[str, Tensor]:
    """The weights that GPTQModel's own run over a whole model makes."""
    from gptqmodel import GPTQModel, QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ as LibraryGPTQ

    config = QuantizeConfig(
        bits=settings["bits"],
        group_size=-1 if settings["group_size"] == "row" else settings["group_size"],
        damp_percent=settings["damping"],
        desc_act=settings["activation_order"],
        sym=settings["symmetric"],
        act_group_aware=False,
        format="gptq_v2",
        device="cpu",
        offload_to_disk=False,
        pack_impl="original",
    )
    weights = {}
    quantize = LibraryGPTQ.quantize

    def keep_weight(solver: LibraryGPTQ) -> tuple:
        result = quantize(solver)
        weights[f"{solver._named_module.full_name}.weight"] = result[0].clone()  # packed in halves
        return result

    model = GPTQModel.load(str(place), config, dtype=torch.float32)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in text().tolist()]
    with (
        patch.dict(os.environ, GPTQMODEL_CPU_WORKERS="2"),  # its own choice fails on two cores
        patch.object(LibraryGPTQ, "quantize", keep_weight),
    ):
        model.quantize(rows, batch_size=CALIBRATION_BATCH)
    return weights


def gptqmodel_parity() -> None:
    """Exactly the weights that the library's own run makes, in every variant."""
    variants = [
        {},
        {"symmetric": True},
        {"activation_order": True},
        {"activation_order": True, "symmetric": True, "bits": 4, "damping": 0.05},
        {"group_size": "row", "activation_order": True},
    ]
    with saved(llama()) as place:
        for variant in variants:
            settings = GPTQ | variant
            expected = library_gptqmodel(place, **settings)
            check_equal(gptq_gptqmodel, expected, settings)


def gptqmodel_by_hand() -> None:
    check_gptq_by_hand(gptq_gptqmodel)


def gptqmodel_bad_input() -> None:
    check_gptq_bad_input(gptq_gptqmodel)


def llm_compressor_properties() -> None:
    check_properties(gptq_llm_compressor, GPTQ)
    check_properties(gptq_llm_compressor, GPTQ | {"activation_order": True, "symmetric": True})


def one_shot(place: Path, recipe: list[Modifier]) -> nn.Module:
    """llm-compressor's own run over a whole model, on the rows and batches of `quantized`."""
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    rows = text().tolist()
    masks = [[1] * len(row) for row in rows]
    return oneshot(
        model=model,
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": masks}),
        recipe=recipe,
        batch_size=CALIBRATION_BATCH,
        num_calibration_samples=len(rows),
        max_seq_length=len(rows[0]),
        shuffle_calibration_samples=False,
        pipeline="sequential",
    )


def library_scheme(**settings: object) -> dict[str, object]:
    args = QuantizationArgs(
        num_bits=settings["bits"],
        symmetric=settings.get("symmetric", False),
        strategy="channel" if settings["group_size"] == "row" else "group",
        group_size=None if settings["group_size"] == "row" else settings["group_size"],
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    return {"config_groups": {"all": scheme}, "ignore": ["lm_head"]}


def llm_compressor_parity() -> None:
    """Exactly the weights that the library's own run leaves, in every variant."""
    variants = [
        {},
        {"symmetric": True, "activation_order": True},
        {"activation_order": True, "bits": 4, "damping": 0.05},
        {"group_size": "row", "activation_order": True},
    ]
    with saved(llama()) as place:
        for variant in variants:
            settings = GPTQ | variant
            modifier = GPTQModifier(
                **library_scheme(**settings),
                dampening_frac=settings["damping"],
                actorder="static" if settings["activation_order"] else None,
            )
            expected = dict(one_shot(place, [modifier]).state_dict())
            check_equal(gptq_llm_compressor, expected, settings)


def llm_compressor_by_hand() -> None:
    check_gptq_by_hand(gptq_llm_compressor)


def llm_compressor_bad_input() -> None:
    check_gptq_bad_input(gptq_llm_compressor)


def awq_properties() -> None:
    check_properties(awq_llm_compressor, AWQ)
    check_properties(awq_llm_compressor, AWQ | {"group_size": "row"})


def library_awq(place: Path, **settings: object) -> dict[str, Tensor]:
    """All tensors that the library's own run leaves, its rounding included."""
    with patch.object(IntermediatesCache, "pin_memory", lambda self, batch_index: None):
        recipe = [AWQModifier(), QuantizationModifier(**library_scheme(**settings))]
        model = one_shot(place, recipe)
    tensors = dict(model.state_dict())
    for name, module in model.model.named_modules():
        if isinstance(module, nn.Linear):
            rounded = forward_quantize(
                module, module.weight, "weight", module.quantization_scheme.weights
            )
            tensors[f"model.{name}.weight"] = rounded
    return tensors


@torch.no_grad()
def awq_parity() -> None:
    """The library's weights and norms, but for the last bits: its stream is of scaled blocks."""
    for heads, settings in ((4, AWQ), (2, AWQ | {"bits": 4}), (4, AWQ | {"group_size": "row"})):
        with saved(llama(heads)) as place:
            expected = library_awq(place, **settings)
        layers, replaced = quantized(awq_llm_compressor, llama(heads), **settings)
        found = replaced | {f"{n}.weight": dequantize(layer) for n, layer in layers.items()}
        assert len(replaced) == 2 * LAYERS
        for name, tensor in found.items():
            error = (tensor - expected[name]).norm() / expected[name].norm()
            assert error < 1e-6, (heads, settings, name, error)


def awq_scales() -> None:
    models = {
        "llama": lambda: llama(),
        "grouped-query": lambda: llama(2),
        "qwen2": lambda: tiny_models.build("qwen2"),
        "qwen3": lambda: tiny_models.build("qwen3"),
        "gemma": lambda: tiny_models.build("gemma"),
        "gemma2": lambda: tiny_models.build("gemma2"),
        "gemma3": lambda: tiny_models.build("gemma3"),
        "mistral": lambda: tiny_models.build("mistral"),
    }
    for name, build in models.items():
        layers = check_awq_scales(awq_llm_compressor, build()).layers
        divided = {n for n in layers if layers[n].output_scale is not None}
        heads_of_their_own = {"self_attn.v_proj"} if name == "llama" else set()
        assert divided == {"mlp.up_proj"} | heads_of_their_own, (name, divided)


def awq_bad_input() -> None:
    """Architectures that the library's tables do not fit, broken numbers: errors."""
    for name, words in (
        ("opt", "llm-compressor's table of layers does not fit OPTForCausalLM"),
        ("gpt-neox", "llm-compressor's table of layers does not fit GPTNeoXForCausalLM"),
        ("bloom", "llm-compressor scales the activation function of BloomForCausalLM"),
        ("qwen3-moe", "llm-compressor's table of layers does not fit Qwen3MoeForCausalLM"),
    ):
        block = first_block(tiny_models.build(name))
        expect_error(words, lambda block=block: awq_llm_compressor.quantize_block(block, **AWQ))
    broken = first_block(llama())
    broken.batches[1].full[0, 3] = torch.nan
    expect_error(
        "the inputs of model.layers.0.self_attn.q_proj on the calibration text are not finite",
        lambda: awq_llm_compressor.quantize_block(broken, **AWQ),
    )
    expect_error(
        "no clipping; write clipping: false",
        lambda: awq_llm_compressor.quantize_block(broken, **AWQ | {"clipping": True}),
    )


CHECKS = {
    function.__name__: function
    for function in (
        gptqmodel_properties,
        gptqmodel_parity,
        gptqmodel_by_hand,
        gptqmodel_bad_input,
        llm_compressor_properties,
        llm_compressor_parity,
        llm_compressor_by_hand,
        llm_compressor_bad_input,
        awq_properties,
        awq_parity,
        awq_scales,
        awq_bad_input,
    )
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    run_checks(CHECKS)
