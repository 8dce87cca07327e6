"""A model's tokenizer: loading it, what it puts before a text, and running it on documents."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
"""Files that hold a vocabulary, the first present one being the one that is used."""
CHUNK = 64
"""Documents tokenized between two steps of the progress bar."""


def load_tokenizer(
    directory: Path, config: "PreTrainedConfig | None" = None
) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model directory, as transformers does for every user of that model.

    Args:
        directory: of the model.
        config: the model's, where it is not what config.json says.

    Raises:
        InputError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            directory, config=config, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises many kinds for a broken file
        raise InputError(
            f"the tokenizer in {directory} cannot be loaded ({error}); copy the model's "
            "tokenizer.json and tokenizer_config.json there"
        ) from error


def find_start_token(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token that the tokenizer puts before a text, or None (Qwen, BLOOM, GPT-NeoX put none).

    Asked of the tokenizer itself: a `bos_token_id` in a config does not say that it is used.

    Raises:
        InputError: it puts more than one token there.
    """
    text = "a"
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    full = tokenizer(text)["input_ids"]
    places = [at for at in range(len(full)) if full[at : at + len(bare)] == bare]
    prefix = full[: places[0]] if places else full
    if len(prefix) > 1:
        raise InputError(
            f"the tokenizer puts {len(prefix)} tokens {prefix} before a text; only one start token "
            "is supported. Change post_processor in its tokenizer.json"
        )
    return prefix[0] if prefix else None


def encode(
    texts: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    start_token: int | None,
    progress: Callable[[int], object] = lambda documents: None,
) -> Iterator[list[int]]:
    """Yield each text's token ids, the start token first; no other special token is added."""
    prefix = [] if start_token is None else [start_token]
    for at in range(0, len(texts), CHUNK):
        chunk = list(texts[at : at + CHUNK])
        encoded = tokenizer(chunk, add_special_tokens=False, verbose=False)["input_ids"]
        yield from (prefix + ids for ids in encoded)
        progress(len(chunk))


def decode(token_ids: "np.ndarray", tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Turn token ids `[documents, length]` into text, without special tokens such as the start's.

    A character cut in the middle of its bytes comes out as U+FFFD.
    """
    return tokenizer.batch_decode(
        token_ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def tokenizer_sha256(files: Mapping[str, Mapping[str, object]]) -> str:
    """The hash that identifies a model's tokenizer: that of its vocabulary file.

    Args:
        files: the `files` of model.json.
    """
    return next(str(files[name]["sha256"]) for name in VOCABULARY_FILES if name in files)


def document_tokens(
    documents: "pd.DataFrame",
    tokenizer: "PreTrainedTokenizerBase",
    model: Mapping[str, Any],
    key: str,
) -> list[Any]:
    """Token ids of each document: made of its text, or the table's own where it has them.

    Args:
        documents: a table of documents.
        tokenizer: the model's.
        model: its model.json.
        key: section of the config, for messages.

    Raises:
        InputError: the table's ids were made by another tokenizer.
    """
    from tqdm import tqdm

    if "token_ids" in documents:
        return _given_tokens(documents, tokenizer_sha256(model["files"]), key)
    texts = documents["text"].tolist()
    with tqdm(total=len(texts), desc="tokenize", unit="document") as bar:
        return list(encode(texts, tokenizer, model["start_token"], bar.update))


def _given_tokens(documents: "pd.DataFrame", tokenizer_hash: str, key: str) -> list[Any]:
    """The table's own token ids, if the model's tokenizer made all of them."""
    others = sorted(set(documents["tokenizer_sha256"]) - {tokenizer_hash})
    if others:
        raise InputError(
            f"{key}.source has token_ids made by a tokenizer with SHA-256 {', '.join(others)}, "
            f"but this model's is {tokenizer_hash}; use the model they were made for, or leave "
            "the column token_ids out so that the text is tokenized"
        )
    return documents["token_ids"].tolist()
