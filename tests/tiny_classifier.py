"""Tiny random classifiers of texts: one of transformers' own, one published with code."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

LABELS = [f"Topic {index}" for index in range(24)]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS += ["the", "of", "and", "to", "in", "a", "he", "she", "it", "was"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}
ROPE = {"rope_theta": 500, "rope_scaling": {"type": "ntk", "factor": 2.0}}
"""Of the classifier that was published with code; a small theta, so that the scaling shows."""


def write_bert(folder: Path, labels: list[str] = LABELS) -> Path:
    """Write a classifier that transformers has by its own name."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES, id2label=dict(enumerate(labels))))
    shake(model.state_dict())
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_roberta(folder: Path) -> Path:
    """Write one whose table of positions begins with those of padding: it holds two tokens less."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    config = RobertaConfig(**SIZES | {"pad_token_id": 1}, id2label=dict(enumerate(LABELS)))
    RobertaForSequenceClassification(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_llama(folder: Path) -> Path:
    """Write one that reads from left to right, has no token for padding, and says no limit."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    sizes = SIZES | {"pad_token_id": None, "max_position_embeddings": 4096}
    config = LlamaConfig(**sizes, id2label=dict(enumerate(LABELS)))
    LlamaForSequenceClassification(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_gte(folder: Path, **changes) -> Path:
    """Write a classifier as WebOrganizer's are published: packed weights, and code for them."""
    hidden, inside = SIZES["hidden_size"], SIZES["intermediate_size"]
    shapes = {"new.embeddings.word_embeddings.weight": (SIZES["vocab_size"], hidden)}
    shapes |= norm("new.embeddings.LayerNorm") | linear("new.pooler.dense", hidden, hidden)
    shapes |= linear("classifier", len(LABELS), hidden)
    for layer in range(SIZES["num_hidden_layers"]):
        block = f"new.encoder.layer.{layer}"
        shapes |= linear(f"{block}.attention.qkv_proj", 3 * hidden, hidden)
        shapes |= linear(f"{block}.attention.o_proj", hidden, hidden)
        shapes |= {f"{block}.mlp.up_gate_proj.weight": (2 * inside, hidden)}
        shapes |= linear(f"{block}.mlp.down_proj", hidden, inside)
        shapes |= norm(f"{block}.attn_ln") | norm(f"{block}.mlp_ln")
    torch.manual_seed(0)
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    shake(weights)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = (
        SIZES
        | ROPE
        | {
            "model_type": "new",
            "architectures": ["NewForSequenceClassification"],
            "auto_map": {"AutoConfig": "someone/code--configuration.NewConfig"},
            "id2label": dict(enumerate(LABELS)),
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "layer_norm_type": "layer_norm",
            "logn_attention_scale": False,
            "pack_qkv": True,
            "position_embedding_type": "rope",
            "type_vocab_size": 0,
            "unpad_inputs": True,
            "use_memory_efficient_attention": True,
        }
    )
    (folder / "config.json").write_text(json.dumps(config | changes))
    write_tokenizer(folder)
    return folder


def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a linear layer."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer norm."""
    return {f"{name}.weight": (SIZES["hidden_size"],), f"{name}.bias": (SIZES["hidden_size"],)}


def shake(weights: dict[str, Tensor]) -> None:
    """Make all weights random and large enough that every part has a say."""
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.4)


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of whole words that puts [CLS] before a text and [SEP] behind it."""
    ids = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, ids[word]) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, special)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
