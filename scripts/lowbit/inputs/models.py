"""Hugging Face model directories: finding the files that matter and checking them before use.

What a config check needs (`locate_model`, `model_files`, `block_linears`, `context_length`) uses
the standard library only; what reads weights or runs the tokenizer imports torch or transformers
inside its function.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.engine.roles import find_architecture
from lowbit.errors import InputError
from lowbit.files import read_json, sha256
from lowbit.inputs.header import read_header
from lowbit.inputs.sources import Source, embedded, find_source, on_disk
from lowbit.inputs.tokenizer import VOCABULARY_FILES, find_start_token, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

SOURCES: dict[str, Source] = {
    "demo": Source("demo", embedded, local=True),
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


def model_files(directory: Path) -> list[str]:
    """Names of the files that make up the model, sorted; everything else there is ignored.

    Raises:
        InputError: no config.json, no tokenizer, no safetensors weights, or a missing shard.
    """
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory} is not a Hugging Face model: it has no config.json")
    if not any((directory / name).is_file() for name in VOCABULARY_FILES):
        raise InputError(
            f"{directory} has no tokenizer; copy the model's tokenizer.json and "
            f"tokenizer_config.json there (one of {', '.join(VOCABULARY_FILES)} is needed)"
        )
    weights = weight_files(directory)
    if (directory / WEIGHTS_INDEX).is_file() and weights != [SINGLE_WEIGHTS]:
        weights = [WEIGHTS_INDEX, *weights]
    optional = ("generation_config.json", *TOKENIZER_FILES)
    present = [name for name in optional if (directory / name).is_file()]
    return sorted({"config.json", *weights, *present})


def weight_files(directory: Path) -> list[str]:
    """Names of the safetensors files that hold the weights, as transformers would choose them.

    Raises:
        InputError: there are none (pickle weights are never read), or a shard is missing.
    """
    if (directory / SINGLE_WEIGHTS).is_file():
        return [SINGLE_WEIGHTS]
    if not (directory / WEIGHTS_INDEX).is_file():
        pickles = sorted(
            path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES
        )
        if pickles:
            raise InputError(
                f"{directory} has only pickle weights ({', '.join(pickles)}), which can run code "
                "when they are read; load the model once where you trust it and write it with "
                "save_pretrained(directory, safe_serialization=True)"
            )
        raise InputError(
            f"{directory} has no weights: neither {SINGLE_WEIGHTS} nor {WEIGHTS_INDEX}"
        )
    shards = sorted(set(_json(directory / WEIGHTS_INDEX)["weight_map"].values()))
    missing = [name for name in shards if not (directory / name).is_file()]
    if missing:
        raise InputError(
            f"{directory} lacks {len(missing)} of the {len(shards)} weight files that "
            f"{WEIGHTS_INDEX} lists: {', '.join(missing)}; copy or download them again"
        )
    return shards


def _json(path: Path) -> Any:
    """Read JSON; a broken file is the user's, not ours."""
    try:
        return read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); copy or download it again") from None


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json."""
    return _json(directory / "config.json")


def context_length(config: dict[str, Any]) -> int | None:
    """Longest input in tokens, start token included; None where positions are unlimited (BLOOM)."""
    if config.get("model_type") == "bloom":
        return None  # ALiBi; `seq_length` is only what it was trained with
    return config.get("max_position_embeddings")


def block_linears(directory: Path) -> list[tuple[str, int, int]]:
    """Matrices inside numbered decoder blocks: `(name with * for the number, outputs, inputs)`.

    These are what quantizers work on; embeddings and output head have no number in their name.
    Read from the safetensors headers, so that no table of widths per architecture is needed.
    """
    found = set()
    for name in weight_files(directory):
        for tensor, entry in read_header(directory / name).items():
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
        "files": {name: _describe_file(directory / name) for name in names},
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "context_length": context_length(raw),
        "vocabulary": config.vocab_size,
        "start_token": start_token,
        "parameters": parameters,
    }


def _describe_file(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def read_architecture(directory: Path) -> str:
    """The Hugging Face class that the model was saved from, such as `LlamaForCausalLM`.

    Raises:
        InputError: none or several are named, or one without an entry in `lowbit.engine.roles`.
    """
    names = read_config(directory).get("architectures") or []
    if len(names) != 1:
        raise InputError(
            f'{directory / "config.json"} must name one class in "architectures", such as '
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
