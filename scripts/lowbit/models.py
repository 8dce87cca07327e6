"""Hugging Face model directories: finding the files that matter and checking them before use.

What a config check needs (`locate_model`, `model_files`, `block_linears`, `context_length`) uses
the standard library only; what reads weights or runs the tokenizer imports torch or transformers
inside its function.
"""

import json
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError
from lowbit.files import read_json
from lowbit.sources import Source, embedded, find_source, on_disk

if TYPE_CHECKING:
    pass

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
VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
LARGEST_HEADER = 100_000_000
"""Bytes; the limit the safetensors library sets."""


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


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read a safetensors header: tensor name -> `dtype`, `shape`, `data_offsets`.

    Raises:
        InputError: not a safetensors file, or one whose size is not what its header says.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
        text = file.read(length) if length <= LARGEST_HEADER else b""
    try:
        header = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(
            f"{path} ({size} bytes) is not a whole safetensors file: its header cannot be read; "
            "copy or download it again"
        ) from None
    header.pop("__metadata__", None)
    ends = [tensor["data_offsets"][1] for tensor in header.values()]
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise InputError(
            f"{path} has {size} bytes but its header promises {expected}: it was cut off or "
            "damaged; copy or download it again"
        )
    return header


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
