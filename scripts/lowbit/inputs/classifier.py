"""Loading a classifier of texts in the Hugging Face format.

Code that a repository brings along is never run. WebOrganizer's classifiers (arXiv 2502.10341) name
such code, `model_type: new`: a GTE encoder, which transformers has as `gte`, with other names in
its config (`native_config`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError
from lowbit.inputs.checkpoint import load_model
from lowbit.inputs.model_files import files_of
from lowbit.inputs.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

GTE_WITH_CODE = "new"
UNDERSTOOD = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
}
"""What such a config may say; the authors' code knows more, transformers does not."""


def load_classifier(directory: Path) -> tuple["PreTrainedTokenizerBase", "PreTrainedModel"]:
    """Load tokenizer and classifier, the weights in float32, ready to classify.

    Raises:
        InputError: transformers does not have this architecture, or the weights do not fit it.
    """
    import torch

    config = classifier_config(directory)
    try:
        model = load_model(directory, torch.float32, "AutoModelForSequenceClassification", config)
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"the classifier in {directory} cannot be loaded: {error}") from error
    return load_tokenizer(directory, config), model


def classifier_config(directory: Path) -> "PreTrainedConfig":
    """The config of a classifier, in transformers' own terms.

    Raises:
        InputError: transformers does not have this architecture.
    """
    from transformers import AutoConfig

    content = native_config(files_of(directory).json("config.json"))
    try:
        return AutoConfig.for_model(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"the classifier in {directory} cannot be used ({error}); code that comes with a model "
            "is not run: use one whose architecture transformers has"
        ) from error


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
