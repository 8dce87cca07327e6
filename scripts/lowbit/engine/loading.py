"""A model's weights: all at once (`resident`), or a block's when the walk reaches it (`stream`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from lowbit.engine.decoder import Decoder
from lowbit.engine.walk import BlockParameters, own_parameters
from lowbit.errors import InputError
from lowbit.files import read_json
from lowbit.inputs.checkpoint import load_model
from lowbit.inputs.tensor_file import FLOATS, TensorFile


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        InputError: a CUDA device is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"engine.device is {name}, but PyTorch sees no GPU. "
            "Write engine.device: auto, or run the job where a GPU is."
        )
    return torch.device(name)


def load_decoder(
    directory: Path, mode: str, dtype: torch.dtype, device: torch.device
) -> tuple[Decoder, BlockParameters]:
    """Load a Hugging Face directory; return the decoder and its full-precision block parameters."""
    if mode == "resident":
        return Decoder(load_model(directory, dtype).to(device)), own_parameters
    return _load_without_blocks(directory, dtype, device)


def _load_without_blocks(
    directory: Path, dtype: torch.dtype, device: torch.device
) -> tuple[Decoder, BlockParameters]:
    """Load everything but the blocks; these are read again each time the walk reaches them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    with _parameters_on_meta():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    decoder = Decoder(model)
    read = _checkpoint_reader(directory, model, dtype, device)
    inside = tuple(f"{decoder.blocks_name}.{index}." for index in range(len(decoder)))
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    for name, _ in list(model.named_parameters(remove_duplicate=False)):
        if not name.startswith(inside) and name not in tied:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(read(name), requires_grad=False))
    model.tie_weights()
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)

    @lru_cache(maxsize=1)  # all streams of a block share one reading of it
    def block_parameters(index: int) -> dict[str, Tensor]:
        names = [name for name, _ in decoder.blocks[index].named_parameters()]
        return {name: read(inside[index] + name) for name in names}

    return decoder, block_parameters


def _checkpoint_reader(
    directory: Path, model: nn.Module, dtype: torch.dtype, device: torch.device
) -> Callable[[str], Tensor]:
    """Return a function from a parameter's name to its tensor, read from the safetensors files.

    Checkpoint names become parameter names by transformers' own rules.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    transforms = get_model_conversion_mapping(model)
    converters = [rule for rule in transforms if isinstance(rule, WeightConverter)]
    renamings = [rule for rule in transforms if not isinstance(rule, WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    places = {}
    for path in _weight_files(directory):
        file = TensorFile(path)
        for key in file.names:
            name, converter = rename_source_key(key, renamings, converters, prefix, state)
            if converter is None:
                places[name] = file, key

    def read(name: str) -> Tensor:
        if name not in places:
            raise InputError(
                f"engine.mode: stream reads one tensor per parameter, but the checkpoint has none "
                f"that is {name} (transformers merges or splits some). Write engine.mode: resident."
            )
        file, key = places[name]
        if file.stored(key) not in FLOATS:
            raise InputError(
                f"{file.path}: {key} is stored as {file.stored(key)}, and engine.mode: stream "
                f"reads only {', '.join(FLOATS)}. Write engine.mode: resident."
            )
        return file.read(key).to(device, dtype)

    return read


def _weight_files(directory: Path) -> list[Path]:
    """The files that `from_pretrained` would read; a directory may hold others beside them."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return [directory / "model.safetensors"]
    return [directory / name for name in sorted(set(read_json(index)["weight_map"].values()))]


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Build modules whose parameters take no memory; buffers (RoPE frequencies) stay real."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register
