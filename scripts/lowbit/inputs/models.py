"""Hugging Face models: finding the files that matter and checking them before use.

What a config check needs (`outline_model`, `model_files`, `block_linears`, `context_length`) uses
the standard library only, and fetches no weights of a model that is on the hub; what reads weights
or runs the tokenizer imports torch or transformers inside its function.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.engine.roles import find_architecture
from lowbit.errors import InputError
from lowbit.files import sha256
from lowbit.inputs import hub
from lowbit.inputs.model_files import ModelFiles, files_of
from lowbit.inputs.sources import Source, embedded, find_source, on_disk
from lowbit.inputs.tokenizer import VOCABULARY_FILES, find_start_token, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor


def _from_hub(argument: str, demo: Path) -> Path:
    """The snapshot of a model of the hub in the Hugging Face cache, downloaded where needed."""
    address = hub.parse(argument, hub.MODEL)
    listed = hub.listing(address)
    return hub.download(address, model_files(listed), listed)


SOURCES: dict[str, Source] = {
    "demo": Source("demo", embedded, local=True),
    "hub": Source("hub:<repo>@<revision>", _from_hub, local=False),
    "path": Source("path:<directory>", on_disk, local=True),
}

SINGLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def locate_model(source: str, demo: Path) -> Path:
    """Return the directory of a model source, fetching it where its kind needs that.

    Raises:
        InputError: unknown kind of source, or nothing there.
    """
    kind, argument = find_source(source, SOURCES)
    directory = kind.locate(argument, demo)
    if not directory.is_dir():
        raise InputError(f"{directory} is a file; a model is a directory with config.json")
    return directory


def outline_model(source: str, demo: Path) -> Path | hub.Listing:
    """Return what a config check looks at: a local directory, or what the hub lists.

    Raises:
        InputError: unknown kind of source, nothing there, or the hub cannot be asked.
    """
    kind, argument = find_source(source, SOURCES)
    if kind.local:
        return locate_model(source, demo)
    return hub.listing(hub.parse(argument, hub.MODEL))


def pinned(source: str) -> str:
    """The source of a model or checkpoint, on the hub with its commit for a branch."""
    kind, argument = find_source(source, SOURCES)
    return source if kind.local else hub.listing(hub.parse(argument, hub.MODEL)).address


def model_files(place: Path | ModelFiles) -> list[str]:
    """Names of the files that make up the model, sorted; everything else there is ignored.

    Raises:
        InputError: no config.json, no tokenizer, no safetensors weights, or a missing shard.
    """
    files = files_of(place)
    if "config.json" not in files:
        raise InputError(f"{files} is not a Hugging Face model: it has no config.json")
    if not any(name in files for name in VOCABULARY_FILES):
        raise InputError(
            f"{files} has no tokenizer; copy the model's tokenizer.json and "
            f"tokenizer_config.json there (one of {', '.join(VOCABULARY_FILES)} is needed)"
        )
    weights = weight_files(files)
    if WEIGHTS_INDEX in files and weights != [SINGLE_WEIGHTS]:
        weights = [WEIGHTS_INDEX, *weights]
    present = [name for name in ("generation_config.json", *TOKENIZER_FILES) if name in files]
    return sorted({"config.json", *weights, *present})


def weight_files(place: Path | ModelFiles) -> list[str]:
    """Names of the safetensors files that hold the weights, as transformers would choose them.

    Raises:
        InputError: there are none (pickle weights are never read), or a shard is missing.
    """
    files = files_of(place)
    if SINGLE_WEIGHTS in files:
        return [SINGLE_WEIGHTS]
    if WEIGHTS_INDEX not in files:
        pickles = [name for name in files.names() if Path(name).suffix in PICKLE_SUFFIXES]
        if pickles:
            raise InputError(
                f"{files} has only pickle weights ({', '.join(pickles)}), which can run code "
                "when they are read; load the model once where you trust it and write it with "
                "save_pretrained(directory, safe_serialization=True)"
            )
        raise InputError(f"{files} has no weights: neither {SINGLE_WEIGHTS} nor {WEIGHTS_INDEX}")
    shards = sorted(set(files.json(WEIGHTS_INDEX)["weight_map"].values()))
    missing = [name for name in shards if name not in files]
    if missing:
        raise InputError(
            f"{files} lacks {len(missing)} of the {len(shards)} weight files that "
            f"{WEIGHTS_INDEX} lists: {', '.join(missing)}; copy or download them again"
        )
    return shards


def read_config(place: Path | ModelFiles) -> dict[str, Any]:
    """Read config.json."""
    return files_of(place).json("config.json")


def context_length(config: dict[str, Any]) -> int | None:
    """Longest input in tokens, start token included; None where positions are unlimited (BLOOM)."""
    if config.get("model_type") == "bloom":
        return None  # ALiBi; `seq_length` is only what it was trained with
    return config.get("max_position_embeddings")


def block_linears(place: Path | ModelFiles) -> list[tuple[str, int, int]]:
    """Matrices inside numbered decoder blocks: `(name with * for the number, outputs, inputs)`.

    These are what quantizers work on; embeddings and output head have no number in their name.
    Read from the safetensors headers, so that no table of widths per architecture is needed.
    """
    files, found = files_of(place), set()
    for name in weight_files(files):
        for tensor, entry in files.header(name).items():
            numbered = re.sub(r"\.\d+\.", ".*.", "." + tensor)[1:]
            if "*" in numbered and tensor.endswith(".weight") and len(entry["shape"]) == 2:
                found.add((numbered.removesuffix(".weight"), *entry["shape"]))
    return sorted(found)


def resolve(source: str, directory: Path) -> dict[str, Any]:
    """Check a model directory and describe it: the content of `model.json`.

    Every tensor is read once, so that a damaged file goes no further.

    Args:
        source: as the config has it; only recorded.
        directory: of the model.

    Raises:
        InputError: whatever keeps the model from being used, and what to do about it.
    """
    names = model_files(directory)
    raw = read_config(directory)
    architecture = read_architecture(directory)
    parameters = check_weights([directory / name for name in weight_files(directory)])

    config = _parsed_config(directory)
    start_token = find_start_token(load_tokenizer(directory))
    return {
        "source": source,
        "architecture": architecture,
        "files": describe_files(directory, names),
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "context_length": context_length(raw),
        "vocabulary": config.vocab_size,
        "start_token": start_token,
        "parameters": parameters,
    }


def describe_files(directory: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> `sha256` and `bytes` of files in a directory."""
    paths = {name: directory / name for name in names}
    return {
        name: {"sha256": sha256(path), "bytes": path.stat().st_size} for name, path in paths.items()
    }


def read_architecture(place: Path | ModelFiles) -> str:
    """The Hugging Face class that the model was saved from, such as `LlamaForCausalLM`.

    Raises:
        InputError: none or several are named, or one without an entry in `lowbit.engine.roles`.
    """
    names = read_config(place).get("architectures") or []
    if len(names) != 1:
        raise InputError(
            f'{files_of(place)}/config.json must name one class in "architectures", such as '
            f'["LlamaForCausalLM"]; it has {names}'
        )
    find_architecture(names[0])
    return names[0]


def _parsed_config(directory: Path) -> Any:
    """The config as transformers reads it, where every architecture has the same names."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{directory / 'config.json'} cannot be used: {error}") from error


def check_weights(files: list[Path]) -> int:
    """Read every tensor once; return the number of parameters.

    Raises:
        InputError: a file that is not whole, or a tensor with NaN or infinite values.
    """
    from tqdm import tqdm

    from lowbit.inputs.tensor_file import TensorFile

    opened = [TensorFile(path) for path in files]
    parameters = 0
    with tqdm(total=sum(len(f.names) for f in opened), desc="check weights", unit="tensor") as bar:
        for file in opened:
            for name in file.names:
                tensor = file.read(name)
                parameters += tensor.numel()
                if bad := _not_finite(tensor):
                    raise InputError(
                        f"{file.path}: {name} has {bad} values of {tensor.numel()} that are NaN or "
                        "infinite; copy the file again or use another checkpoint"
                    )
                bar.update()
    return parameters


def _not_finite(tensor: "Tensor") -> int:
    """How many values are NaN or infinite."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0
    if tensor.itemsize == 1:
        tensor = tensor.half()  # PyTorch does not compare 8-bit floats
    if all(extreme.isfinite() for extreme in tensor.aminmax()):  # far faster; NaN comes through
        return 0
    return tensor.numel() - int(tensor.isfinite().sum())
