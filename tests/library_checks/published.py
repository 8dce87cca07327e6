"""Write tiny quantized checkpoints with the real libraries, and what these dequantize them to.

    python tests/library_checks/published.py <environment> <folder>

does all checks of an environment (libraries take long to import) and writes, for each,
`<folder>/<check>/model` (full precision), `.../checkpoint` and `.../dequantized.safetensors`
(weights `[out, in]` by layer).
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

VOCABULARY = 320
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
EXPERTS = SHAPE | {
    "head_dim": 16,
    "moe_intermediate_size": 32,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}


def save_tokenizer(folder: Path, vocabulary: int) -> None:
    """Save a tokenizer that knows the numbers below the vocabulary's size."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {str(number): number for number in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="0", pad_token="1"
    ).save_pretrained(folder)


def make_model(folder: Path, experts: bool = False) -> nn.Module:
    """Save a random model and its tokenizer."""
    import transformers as hf

    torch.manual_seed(0)
    if experts:
        model = hf.Glm4MoeForCausalLM(hf.Glm4MoeConfig(**EXPERTS))
    else:
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.to(torch.bfloat16 if experts else torch.float16).save_pretrained(folder / "model")
    save_tokenizer(folder / "model", VOCABULARY)
    return model.eval()


def token_rows(rows: int = 8, length: int = 32) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, VOCABULARY, (rows, length), generator=generator).tolist()


def write_dequantized(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    assert weights, "no layer was quantized"
    copies = {name: weight.detach().clone().contiguous() for name, weight in weights.items()}
    save_file(copies, folder / "dequantized.safetensors")


def tensors_of(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                yield name, file.get_tensor(name)


def bitsandbytes(folder: Path, kind: str, double: bool) -> None:
    import transformers as hf
    from bitsandbytes.functional import dequantize_4bit

    make_model(folder)
    config = hf.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = hf.AutoModelForCausalLM.from_pretrained(
        folder / "model", quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    model.save_pretrained(folder / "checkpoint")
    weights = {}
    for name, module in model.named_modules():
        if hasattr(module, "weight") and hasattr(module.weight, "quant_state"):
            weights[name] = dequantize_4bit(module.weight.data, module.weight.quant_state)
    write_dequantized(folder, weights)


def hqq(folder: Path, bits: int, axis: int) -> None:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from hqq.models.hf.base import AutoHQQHFModel

    model = make_model(folder).float()
    config = BaseQuantizeConfig(nbits=bits, group_size=32, axis=axis)
    AutoHQQHFModel.quantize_model(model, config, compute_dtype=torch.float32, device="cpu")
    model.config.quantization_config = {"quant_method": "hqq", "quant_config": config}
    (folder / "checkpoint").mkdir()  # the package asks a shell, which a blank in the path misleads
    AutoHQQHFModel.save_to_safetensors(model, str(folder / "checkpoint"), verbose=False)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, HQQLinear)}
    write_dequantized(folder, {name: layer.dequantize() for name, layer in layers.items()})


def compressed_tensors(folder: Path, scheme: dict | str, experts: bool = False) -> None:
    import transformers as hf
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    make_model(folder, experts)
    model = hf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto")
    ignored = ["lm_head", "re:.*mlp.gate$", "re:.*layers.1.self_attn.o_proj$"]
    if isinstance(scheme, str):
        chosen = {"scheme": scheme, "targets": ["Linear"]}
    else:
        chosen = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme}}}
    oneshot(model=model, recipe=QuantizationModifier(ignore=ignored, **chosen))
    model.save_pretrained(folder / "checkpoint", save_compressed=True)
    written = json.loads((folder / "checkpoint" / "config.json").read_text())
    config = QuantizationConfig.model_validate(written["quantization_config"])
    (read_scheme,) = config.config_groups.values()
    states: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors_of(folder / "checkpoint"):
        layer, _, part = name.rpartition(".")
        states.setdefault(layer, {})[part] = tensor
    compressor = BaseCompressor.get_value_from_registry(read_scheme.format or config.format)
    weights = {
        name: compressor.decompress(state, read_scheme)["weight"]
        for name, state in states.items()
        if "weight_scale" in state
    }
    write_dequantized(folder, weights)


def gptqmodel(folder: Path, bits: int, form: str, **settings: bool) -> None:
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # with its own choice it crashes on two cores
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    make_model(folder)
    config = QuantizeConfig(
        bits=bits,
        group_size=32,
        format=form,
        device="cpu",
        offload_to_disk=False,
        pack_impl="original",  # the default compiles an extension first
        **settings,
    )
    model = GPTQModel.load(str(folder / "model"), config)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in token_rows()]
    model.quantize(rows, batch_size=4)
    model.save(str(folder / "checkpoint"))
    again = GPTQModel.load(
        str(folder / "checkpoint"), backend=BACKEND.TORCH, device="cpu", dtype=torch.float16
    )
    weights = {
        name: module.dequantize_weight().T
        for name, module in again.model.named_modules()
        if hasattr(module, "qweight")
    }
    write_dequantized(folder, weights)


@contextmanager
def without_cuda() -> Iterator[None]:
    import auto_gptq.modeling._base as base

    synchronize = torch.cuda.synchronize
    base.CUDA_0, torch.cuda.synchronize = torch.device("cpu"), lambda *_: None
    yield
    torch.cuda.synchronize = synchronize


def auto_gptq(folder: Path, bits: int, **settings: bool) -> None:
    from auto_gptq import BaseQuantizeConfig
    from auto_gptq.modeling.llama import LlamaGPTQForCausalLM

    model = make_model(folder).float()
    model.config.use_cache = False
    wrapped = LlamaGPTQForCausalLM(
        model, False, BaseQuantizeConfig(bits=bits, group_size=32, **settings)
    )
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in token_rows()]
    with without_cuda():
        wrapped.quantize(rows, batch_size=1)
    wrapped.save_quantized(str(folder / "checkpoint"), use_safetensors=True)
    weights = {}
    for name, module in wrapped.model.named_modules():
        if hasattr(module, "qweight"):
            with torch.no_grad():
                weights[name] = module(torch.eye(module.infeatures)).T
    write_dequantized(folder, weights)


def autoawq(folder: Path) -> None:
    from awq import AutoAWQForCausalLM
    from awq.modules.linear import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm
    from transformers import AutoTokenizer

    make_model(folder)
    model = AutoAWQForCausalLM.from_pretrained(
        str(folder / "model"), torch_dtype=torch.float32, use_cache=False, device_map="cpu"
    )
    model.quantize(
        AutoTokenizer.from_pretrained(folder / "model"),
        quant_config={"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"},
        calib_data=token_rows(),
        max_calib_seq_len=32,
        max_calib_samples=8,
        apply_clip=False,  # it takes no layer as narrow as these
    )
    model.save_quantized(str(folder / "checkpoint"))
    weights = {
        name: dequantize_gemm(m.qweight, m.qzeros, m.scales, 4, m.group_size).T
        for name, m in model.model.named_modules()
        if isinstance(m, WQLinear_GEMM)
    }
    write_dequantized(folder, weights)


def integers(bits: int, symmetric: bool) -> dict:
    return {
        "type": "int",
        "strategy": "group",
        "group_size": 32,
        "num_bits": bits,
        "symmetric": symmetric,
    }


ROWS = {"type": "int", "strategy": "channel", "num_bits": 8, "symmetric": True}
CHECKS: dict[str, dict[str, Callable[[Path], None]]] = {
    "modern": {
        "bitsandbytes nf4": partial(bitsandbytes, kind="nf4", double=False),
        "bitsandbytes nf4 double": partial(bitsandbytes, kind="nf4", double=True),
        "bitsandbytes fp4": partial(bitsandbytes, kind="fp4", double=False),
        "hqq 4": partial(hqq, bits=4, axis=1),
        "hqq 3": partial(hqq, bits=3, axis=1),
        "hqq 2 axis 0": partial(hqq, bits=2, axis=0),
        "int4": partial(compressed_tensors, scheme=integers(4, True)),
        "int4 zeros": partial(compressed_tensors, scheme=integers(4, False)),
        "int3 zeros": partial(compressed_tensors, scheme=integers(3, False)),
        "int8 rows": partial(compressed_tensors, scheme=ROWS),
        "int8 activations": partial(compressed_tensors, scheme="W8A8"),
        "fp8": partial(compressed_tensors, scheme="FP8_DYNAMIC"),
        "experts int4": partial(compressed_tensors, scheme=integers(4, True), experts=True),
        "gptqmodel 4": partial(gptqmodel, bits=4, form="gptq", sym=True, desc_act=False),
        "gptqmodel 3 order v2": partial(
            gptqmodel, bits=3, form="gptq_v2", sym=False, desc_act=True
        ),
    },
    "archived": {
        "auto-gptq 4": partial(auto_gptq, bits=4, sym=True, desc_act=False),
        "auto-gptq 3 order": partial(auto_gptq, bits=3, sym=True, desc_act=True),
        "auto-gptq 2 zeros": partial(auto_gptq, bits=2, sym=False, desc_act=False),
        "auto-gptq 8": partial(auto_gptq, bits=8, sym=True, desc_act=False),
        "autoawq": autoawq,
    },
}
"""Environment -> name of a check -> what it does."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    for check, write in CHECKS[sys.argv[1]].items():
        place = Path(sys.argv[2], check)
        place.mkdir(parents=True)
        os.chdir(place)  # some write logs where they are
        write(place)
