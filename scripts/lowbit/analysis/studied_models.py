"""The models of a study as what is compared: their family, size, training step and base."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StudiedModel:
    """A model among the others of a study."""

    name: str
    family: str
    """As in the config, or the architecture's: `LlamaForCausalLM` is a `llama`."""
    parameters: int
    """Number of weights, counted in the model's files."""
    step: int | None = None
    """Steps of training, where the model is a checkpoint of one."""
    base: str | None = None
    """The model of the study that it was fine-tuned from."""


def studied_models(
    settings: Mapping[str, Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]
) -> list[StudiedModel]:
    """Put together what config and files tell of each model, in the config's order.

    Args:
        settings: of each model `family`, `step` and `base`, None where the config is silent.
        records: contents of each `model.json`.
    """
    return [
        StudiedModel(
            name=name,
            family=given["family"] or family_of(records[name]["architecture"]),
            parameters=records[name]["parameters"],
            step=given["step"],
            base=given["base"],
        )
        for name, given in settings.items()
    ]


def family_of(architecture: str) -> str:
    """`llama` for `LlamaForCausalLM`."""
    return architecture.removesuffix("ForCausalLM").lower()
