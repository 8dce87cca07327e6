"""The documents that the inputs paper's authors released: D_large and D_ctrl as token ids.

arXiv 2506.12044; GitHub `terarachang/QError`, in the folder `data` files
`<model>/<method>-{large,nonlarge}_error_seqs-10.pt`, each int64 `[1000, 512]`: FineWeb documents,
those of `large` the worst first. A model is called as its repository on the hub. Rows begin with
the start token where the model has one.
"""

import hashlib
import io
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError

COMMIT = "9fdcdd7faabd88dba39314bba8ebb9cc10832aa4"
URL = f"https://raw.githubusercontent.com/terarachang/QError/{COMMIT}/data"
URL_VARIABLE = "QERROR_URL"
"""Environment variable: another place of the same folder `data`, such as file:///data/QError/data."""
RELEASED = {
    "Qwen2.5-7B": ("awq3", "gptq3", "nf3"),
    "Meta-Llama-3-8B": ("awq3", "nf3"),
    "Meta-Llama-3-70B": ("awq3",),
    "Mistral-Nemo-Base-2407": ("awq3", "gptq3", "nf3"),
}
"""Models and methods that there are sets of."""
PARTS = ("large", "nonlarge")
SHAPE = (1000, 512)
DECODED = 0.9
"""Share of rows that must come out the same when their text is tokenized again; 0.999 measured."""
WAITS = (1.0, 4.0)
"""Seconds before the second and the last try of a download."""

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ReleasedSets:
    """The sets of one model and some methods."""

    model: str
    methods: Sequence[str]

    @property
    def pinned(self) -> str:
        """The source as the config would have it; the commit is always the same."""
        return f"qerror:{self.model}/{'+'.join(self.methods)}"

    @property
    def content(self) -> dict[str, str]:
        """What identifies the content."""
        return {"source": self.pinned, "commit": COMMIT}

    @property
    def names(self) -> list[str]:
        """Files below the folder `data`."""
        return [
            f"{self.model}/{method}-{part}_error_seqs-10.pt"
            for method in self.methods
            for part in PARTS
        ]


def parse_released(argument: str) -> ReleasedSets:
    """Read what stands after `qerror:`, such as `Qwen2.5-7B/awq3` or `Qwen2.5-7B/awq3+nf3`.

    Raises:
        InputError: there are no such sets; says which there are.
    """
    model, _, methods = argument.partition("/")
    wanted = methods.split("+")
    if model not in RELEASED:
        models = ", ".join(RELEASED)
        raise InputError(f"qerror:{argument}: there are sets of the models {models}; write one")
    if len(set(wanted)) < len(wanted) or not set(wanted) <= set(RELEASED[model]):
        there = "+".join(RELEASED[model])
        raise InputError(
            f"qerror:{argument}: of {model} there are sets of {', '.join(RELEASED[model])}; write "
            f"qerror:{model}/{RELEASED[model][0]}, or several as qerror:{model}/{there}"
        )
    return ReleasedSets(model, tuple(wanted))


def download(name: str) -> bytes:
    """Fetch one file.

    Raises:
        InputError: it is not there, or cannot be reached.
    """
    url = f"{os.environ.get(URL_VARIABLE, URL)}/{name}"
    for wait in (*WAITS, None):
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return response.read()
        except (OSError, ValueError) as error:
            lasting = isinstance(error, ValueError) or getattr(error, "code", 500) < 500
            if wait is None or lasting:
                raise InputError(
                    f"{url} cannot be read ({error}); check the network and run the same command "
                    f"again, or set {URL_VARIABLE} to another place of the folder data, such as "
                    "file:///data/QError/data"
                ) from None
        time.sleep(wait)
    raise AssertionError("unreachable")


def read_rows(content: bytes, name: str, model: Mapping[str, Any]) -> "np.ndarray":
    """Check one file and return its token ids, int64 `[1000, 512]`.

    Args:
        content: of the file.
        name: of the file, for messages.
        model: model.json of the model that the ids are for.

    Raises:
        InputError: it is not what was released, or belongs to another model.
    """
    import torch

    try:
        rows = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # the library raises many kinds for a broken file
        raise InputError(f"{name} is not a tensor as PyTorch saves it ({error})") from None
    if not isinstance(rows, torch.Tensor) or rows.dtype != torch.int64 or rows.shape != SHAPE:
        found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, torch.Tensor) else type(rows)
        raise InputError(f"{name} holds {found}, not torch.int64 {list(SHAPE)} as was released")
    start, vocabulary = model["start_token"], model["vocabulary"]
    if rows.min() < 0 or rows.max() >= vocabulary:
        raise InputError(
            f"{name} has token ids from {rows.min()} to {rows.max()}, but the study's model has a "
            f"vocabulary of {vocabulary}; write the model that the sets are of"
        )
    first = set(rows[:, 0].tolist())
    if (start is not None and first != {start}) or (start is None and len(first) == 1):
        raise InputError(
            f"{name}: rows begin with {sorted(first)[:3]}, but the study's model puts {start} "
            "before a text; write the model that the sets are of"
        )
    return rows.numpy()


def released_documents(
    sets: ReleasedSets,
    contents: Mapping[str, bytes],
    tokenizer: "PreTrainedTokenizerBase",
    model: Mapping[str, Any],
    tokenizer_hash: str,
) -> tuple["pd.DataFrame", float]:
    """Make a table of documents of the files; a document that several sets have stands once.

    Args:
        sets: which.
        contents: file -> what it holds.
        tokenizer: the model's, which decodes.
        model: its model.json.
        tokenizer_hash: of the tokenizer.

    Returns:
        doc_id (`awq3-large#0`, the first place of the document), text, source (the sets that have
        it: `awq3-large nf3-large`), token_ids and tokenizer_sha256; and the share of rows that
        tokenize to the same ids again.

    Raises:
        InputError: a file is not what was released, or the tokenizer is another one.
    """
    import numpy as np
    import pandas as pd

    from lowbit.inputs.tokenizer import decode, encode

    places: dict[bytes, list[str]] = {}
    for name in sets.names:
        part = name.rpartition("/")[2].removesuffix("_error_seqs-10.pt")
        for number, row in enumerate(read_rows(contents[name], name, model)):
            places.setdefault(row.astype(np.int32).tobytes(), []).append(f"{part}#{number}")
    rows = np.stack([np.frombuffer(row, np.int32) for row in places])
    texts = decode(rows, tokenizer)
    again = encode(texts, tokenizer, model["start_token"])
    same = float(np.mean([ids == row.tolist() for ids, row in zip(again, rows, strict=True)]))
    if same < DECODED:
        raise InputError(
            f"{sets.pinned}: only {same:.0%} of the rows come out the same when their text is "
            "tokenized again: the study's model has another tokenizer; write the model that the "
            "sets are of"
        )
    frame = pd.DataFrame(
        {
            "doc_id": [found[0] for found in places.values()],
            "text": texts,
            "source": [" ".join(p.partition("#")[0] for p in found) for found in places.values()],
            "token_ids": list(rows),
            "tokenizer_sha256": tokenizer_hash,
        }
    )
    return frame, same


def sha256_of(content: bytes) -> str:
    """Hash of a downloaded file; 64 hex digits."""
    return hashlib.sha256(content).hexdigest()
