"""What a quantized checkpoint's config.json says of it; uses the standard library only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowbit.errors import InputError
from lowbit.inputs import hub
from lowbit.inputs.model_files import ModelFiles, files_of
from lowbit.inputs.models import SINGLE_WEIGHTS, WEIGHTS_INDEX, read_config, weight_files
from lowbit.inputs.sources import Source, find_source, on_disk


def _from_hub(argument: str, demo: Path) -> Path:
    """The snapshot of a checkpoint in the Hugging Face cache, downloaded where needed."""
    address = hub.parse(argument, hub.MODEL)
    listed = hub.listing(address)
    return hub.download(address, checkpoint_files(listed), listed)


SOURCES: dict[str, Source] = {
    "hub": Source("hub:<repo>@<revision>", _from_hub, local=False),
    "path": Source("path:<directory>", on_disk, local=True),
}

FAMILIES = ("gptq", "awq", "compressed-tensors", "bitsandbytes", "hqq")
"""Formats that are read, as `quantization_config.quant_method` names them."""

OLD_CONFIG = "quantize_config.json"
"""Where AutoGPTQ said how it quantized before config.json had a place for that."""
BITSANDBYTES_BLOCK = 64
"""Weights per scale of every 4-bit checkpoint that transformers writes; each layer states it."""


def locate_checkpoint(source: str) -> Path:
    """Return the directory of a checkpoint's source, such as `path:<directory>`.

    Raises:
        InputError: unknown kind of source, or nothing there.
    """
    kind, argument = find_source(source, SOURCES)
    directory = kind.locate(argument, Path())
    if not directory.is_dir():
        raise InputError(f"{directory} is a file; a checkpoint is a directory with config.json")
    return directory


def outline_checkpoint(source: str) -> Path | hub.Listing:
    """Return what a config check looks at: a local directory, or what the hub lists.

    Raises:
        InputError: unknown kind of source, nothing there, or the hub cannot be asked.
    """
    kind, argument = find_source(source, SOURCES)
    if kind.local:
        return locate_checkpoint(source)
    return hub.listing(hub.parse(argument, hub.MODEL))


def checkpoint_files(place: Path | ModelFiles) -> list[str]:
    """Names of the files that a quantized checkpoint is read from.

    Raises:
        InputError: no config.json, or no safetensors weights (pickled ones are never read).
    """
    files = files_of(place)
    if "config.json" not in files:
        raise InputError(f"{files} is not a Hugging Face model: it has no config.json")
    beside = [name for name in (WEIGHTS_INDEX, OLD_CONFIG) if name in files]
    return ["config.json", *beside, *weight_names(files)]


def weight_names(place: Path | ModelFiles) -> list[str]:
    """Names of the safetensors files, as transformers would choose them; or the only one there.

    AutoGPTQ names its file after its settings: `gptq_model-4bit-128g.safetensors`.
    """
    files = files_of(place)
    found = [name for name in files.names() if name.endswith(".safetensors")]
    if len(found) == 1 and not any(name in files for name in (SINGLE_WEIGHTS, WEIGHTS_INDEX)):
        return found
    return weight_files(files)


def quantization_config(place: Path | ModelFiles) -> dict[str, Any]:
    """The `quantization_config` of config.json, its `quant_method` one of `FAMILIES`.

    Raises:
        InputError: there is none, or its format is not read here.
    """
    files = files_of(place)
    config, named = read_config(files), f"{files}/config.json"
    found = config.get("quantization_config") or config.get("compression_config")
    if found is None and OLD_CONFIG in files:
        found = {"quant_method": "gptq"} | files.json(OLD_CONFIG)
    if not isinstance(found, dict):
        raise InputError(
            f"{named} has no quantization_config: this is no quantized checkpoint, or one of a "
            f"library that does not say how it was quantized. Read are {', '.join(FAMILIES)}"
        )
    family = found.get("quant_method")
    if family == "exl3":
        raise InputError(
            f"{named}: EXL3 is not read; its trellis codes only come apart in exllamav3's own "
            f"kernels. Read are {', '.join(FAMILIES)}"
        )
    if family not in FAMILIES:
        raise InputError(
            f"{named}: quant_method {family!r} is not read, only {', '.join(FAMILIES)}"
        )
    return found


def describe_checkpoint(place: Path | ModelFiles) -> dict[str, Any]:
    """Return `quantizer` (the family), `bits` and `group_size` of the most quantized layers.

    Raises:
        InputError: config.json does not say.
    """
    config = quantization_config(place)
    family = config["quant_method"]
    try:
        bits, group_size = _DESCRIBED[family](config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{files_of(place)}/config.json: quantization_config does not say how many bits and "
            f"which group size ({family}; {error!r}); copy or download it again"
        ) from error
    return {"quantizer": family, "bits": bits, "group_size": group_size}


def _of_groups(config: Mapping[str, Any]) -> tuple[int, int | str]:
    """GPTQ and AWQ."""
    size = int(config["group_size"])
    return int(config["bits"]), "row" if size < 0 else size


def _of_schemes(config: Mapping[str, Any]) -> tuple[int, int | str]:
    """compressed-tensors: several schemes, of which the one with the fewest bits counts."""
    schemes = [group["weights"] for group in config["config_groups"].values()]
    weights = min(schemes, key=lambda scheme: scheme["num_bits"])
    words = {"tensor": "tensor", "channel": "row", "block": "row"}
    size = words.get(weights.get("strategy"), weights.get("group_size"))
    return int(weights["num_bits"]), size if isinstance(size, str) else int(size)


def _of_bitsandbytes(config: Mapping[str, Any]) -> tuple[int, int | str]:
    if not (config.get("load_in_4bit") or config.get("_load_in_4bit")):
        raise ValueError("only 4-bit checkpoints are read, not LLM.int8")
    return 4, BITSANDBYTES_BLOCK


def _of_hqq(config: Mapping[str, Any]) -> tuple[int, int | str]:
    """One setting for all layers, or one for each kind of layer."""
    settings = config["quant_config"]
    if "weight_quant_params" not in settings:
        settings = min(settings.values(), key=lambda one: one["weight_quant_params"]["nbits"])
    weights = settings["weight_quant_params"]
    return int(weights["nbits"]), weights["group_size"] or "row"


_DESCRIBED = {
    "gptq": _of_groups,
    "awq": _of_groups,
    "compressed-tensors": _of_schemes,
    "bitsandbytes": _of_bitsandbytes,
    "hqq": _of_hqq,
}
