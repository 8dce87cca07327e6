"""Classifiers of texts in the Hugging Face format: what they are, and loading them.

Code that a repository brings along is never run. WebOrganizer's classifiers (arXiv 2502.10341) name
such code, `model_type: new`: a GTE encoder, which transformers has as `gte`, with other names in
its config (`native_config`). What a config check needs uses the standard library only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError
from lowbit.inputs.model_files import ModelFiles, files_of
from lowbit.inputs.models import (
    SOURCES,
    check_weights,
    describe_files,
    model_files,
    read_config,
    weight_files,
)
from lowbit.inputs.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CLASSIFIER_SOURCES = {kind: source for kind, source in SOURCES.items() if kind != "demo"}
"""What a classifier's source may be: none is embedded."""
KIND = "ForSequenceClassification"
"""How the classes of classifiers end in "architectures"."""
PLACEHOLDER = "LABEL_0"
"""What transformers calls the first label of a classifier that has no names for them."""
GTE_WITH_CODE = "new"
UNDERSTOOD = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
}
"""What such a config may say; the authors' code knows more, transformers does not."""


def read_labels(place: Path | ModelFiles) -> list[str]:
    """Names of a classifier's labels, in the order of its outputs.

    Raises:
        InputError: it is no classifier of texts, or its labels have no names.
    """
    config = read_config(place)
    names = config.get("architectures") or []
    if len(names) != 1 or not names[0].endswith(KIND):
        raise InputError(
            f"{files_of(place)} is no classifier of texts: config.json must name one class "
            f'...{KIND} in "architectures"; it has {names}'
        )
    labels = {int(index): name for index, name in (config.get("id2label") or {}).items()}
    if len(labels) < 2 or PLACEHOLDER in labels.values() or sorted(labels) != [*range(len(labels))]:
        raise InputError(
            f'{files_of(place)}/config.json has no names for the labels; write them into "id2label"'
        )
    return [labels[index] for index in range(len(labels))]


def describe_classifier(source: str, directory: Path) -> dict[str, Any]:
    """Check a classifier's directory and describe it: the content of `classifier.json`.

    Raises:
        InputError: whatever keeps it from being used, and what to do about it.
    """
    names, labels = model_files(directory), read_labels(directory)
    parameters = check_weights([directory / name for name in weight_files(directory)])
    _, model = load_classifier(directory)
    return {
        "source": source,
        "architecture": read_config(directory)["architectures"][0],
        "files": describe_files(directory, names),
        "labels": labels,
        "context_length": getattr(model.config, "max_position_embeddings", None),
        "parameters": parameters,
    }


def load_classifier(directory: Path) -> tuple["PreTrainedTokenizerBase", "PreTrainedModel"]:
    """Load tokenizer and classifier, the weights in float32, ready to classify.

    Raises:
        InputError: transformers does not have this architecture, or the weights do not fit it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    content = native_config(read_config(directory))
    try:
        config = AutoConfig.for_model(**content)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            directory,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise InputError(
            f"the classifier in {directory} cannot be loaded ({error}); code that comes with a "
            "model is not run: use one whose architecture transformers has"
        ) from error
    if wrong := sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])}):
        raise InputError(
            f"the weights in {directory} do not fit its config.json: {len(wrong)} are missing or "
            f"of another shape, such as {wrong[0]}"
        )
    return load_tokenizer(directory, config), model.eval()


def native_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A config in transformers' own terms, without the code that it names.

    Of a GTE encoder published with code, `rope_scaling: {type: ntk, factor: k}` divides the
    frequencies theta^(-2i/d) by k^(2(i+1)/d): it is theta k with all positions divided by k^(2/d).

    Args:
        raw: config.json.

    Raises:
        InputError: a GTE encoder with what transformers' does not have.
    """
    config = {key: value for key, value in raw.items() if key != "auto_map"}
    if config.get("model_type") != GTE_WITH_CODE:
        return config
    for key, value in UNDERSTOOD.items():
        if config.pop(key, value) != value:
            raise InputError(
                f"config.json has {key}: {raw[key]}, which transformers' GTE has not; use a "
                f"classifier with {value}"
            )
    theta, scaling = config.pop("rope_theta", 10000.0), config.pop("rope_scaling", None)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(theta)}
    if scaling:
        if scaling.get("type") != "ntk" or scaling.get("mixed_b") is not None:
            raise InputError(
                f"config.json has rope_scaling: {scaling}, which transformers' GTE has not; use a "
                "classifier with type: ntk, without mixed_b"
            )
        factor, width = scaling["factor"], raw["hidden_size"] // raw["num_attention_heads"]
        rope = {
            "rope_type": "linear",
            "rope_theta": float(theta) * factor,
            "factor": factor ** (2 / width),
        }
    return config | {"model_type": "gte", "rope_parameters": rope}
