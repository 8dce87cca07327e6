"""What a long job has finished while it is under way, so that an interrupted one goes on.

It lies in a folder of its own, which is no declared output, and says what it was made from. What
was made from something else, or is damaged, is made again, and the job's log says why.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowbit.files import atomic, read_json, write_json

SAVE_EVERY = float(os.environ.get("LOWBIT_SAVE_EVERY", 20))
"""Seconds of a walk after which its next finished shard is written; 0: after each (for tests)."""
RECORD = "made_from.json"

T = TypeVar("T")
"""A dataclass of arrays `[documents, ...]`, some of them None: what a stream makes of documents."""
Make = Callable[[int], Iterable[Mapping[str, T]]]
"""From the first document that is wanted (the end of a batch) to what a walk makes of it and of all
after it: shard by shard, by stream."""


def claim(folder: Path, made_from: Mapping[str, Any]) -> str:
    """Take over what an interrupted run left in a folder, or remove it if it cannot be used.

    Args:
        made_from: all that the content depends on, as JSON by its name: model, settings, code.

    Returns:
        A fingerprint of `made_from`, 64 hex digits.
    """
    digests = {name: _digest(value) for name, value in made_from.items()}
    if folder.exists():
        reason = _reason(folder / RECORD, digests)
        if reason:
            say(f"{folder}, which an interrupted run left, is not used, but made again: {reason}")
            shutil.rmtree(folder)
        else:
            say(f"going on with what an interrupted run left in {folder}")
    write_json(folder / RECORD, digests)
    return _digest(digests)


def remove(folder: Path) -> None:
    """Delete what was unfinished: the job's outputs are written."""
    shutil.rmtree(folder, ignore_errors=True)


def say(text: str) -> None:
    """Write a line to the job's log."""
    print(text, file=sys.stderr, flush=True)


def _reason(record: Path, digests: Mapping[str, str]) -> str:
    """Why what was made from other things cannot be used; empty if it was made from the same."""
    try:
        before = dict(read_json(record))
    except (OSError, ValueError):
        return f"{record.name} is damaged or not there"
    names = dict.fromkeys([*digests, *before])
    changed = [name for name in names if before.get(name) != digests.get(name)]
    return f"since then there was a change of {', '.join(changed)}" if changed else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Unkept:
    """Walks of which nothing is kept: short ones, such as checks."""

    def of(self, name: str) -> "Unkept":
        """Those of one part of the job."""
        return self

    def walk(
        self,
        kind: type[T],
        streams: Collection[str],
        make: Make[T],
        state: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Iterator[Mapping[str, T]]:
        """Yield what a walk over documents makes of them, shard by shard; see `Parts.walk`."""
        yield from make(0)


UNKEPT = Unkept()


@dataclass(frozen=True)
class Parts(Unkept):
    """Finished parts of a job's walks over documents, each a file of consecutive documents.

    They are cut where shards end, so that an interrupted walk goes on with the same batches, and
    all numbers are those of one that was not interrupted.
    """

    folder: Path
    fingerprint: str

    @classmethod
    def open(cls, folder: Path, made_from: Mapping[str, Any]) -> "Parts":
        """Claim a folder; see `claim`."""
        return cls(folder, claim(folder, made_from))

    def of(self, name: str) -> "Parts":
        """Those of one part of the job: every walk needs a folder of its own."""
        return Parts(self.folder / name, self.fingerprint)

    def walk(
        self,
        kind: type[T],
        streams: Collection[str],
        make: Make[T],
        state: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Iterator[Mapping[str, T]]:
        """Yield what was kept of a walk, then what `make` makes of the other documents; keep it.

        Args:
            kind: what holds a stream's arrays.
            streams: names of all that are wanted; there may be more.
            state: tensors that the walk changes in place, as they are where a part ends.
        """
        first, kept = 0, None
        while (found := self._read(first, streams)) is not None:
            kept = found
            yield {name: kind(**arrays) for name, arrays in kept.streams.items()}
            first += kept.documents
        for name, tensor in state.items() if kept else ():
            tensor.copy_(torch.from_numpy(kept.state[name]))
        waiting: list[Mapping[str, T]] = []
        saved_at = time.monotonic()
        for shard in make(first):
            yield shard
            waiting.append(shard)
            if time.monotonic() - saved_at >= SAVE_EVERY:
                first += self._write(first, waiting, state)
                waiting, saved_at = [], time.monotonic()
        if waiting:
            self._write(first, waiting, state)

    def remove(self) -> None:
        """Delete the folder; see `remove`."""
        remove(self.folder)

    def _path(self, first: int) -> Path:
        return self.folder / f"{first}.npz"

    def _write(
        self, first: int, shards: Sequence[Mapping[str, T]], state: Mapping[str, Tensor]
    ) -> int:
        """Write a part; return the number of its documents."""
        arrays = {f"state/{name}": tensor.cpu().numpy() for name, tensor in state.items()}
        for stream in shards[0]:
            columns = [vars(shard[stream]) for shard in shards]
            for field, value in columns[0].items():
                if value is not None:
                    joined = np.concatenate([column[field] for column in columns])
                    arrays[f"stream/{stream}/{field}"] = joined
                    documents = len(joined)
        with atomic(self._path(first)) as partial, open(partial, "wb") as file:
            np.savez(file, fingerprint=self.fingerprint, **arrays)
        return documents

    def _read(self, first: int, streams: Collection[str]) -> "_Part | None":
        """The part that starts at a document; None where there is none to use."""
        path = self._path(first)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)  # reads all, and so compares the checksums
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            say(f"{path} is damaged ({error}): made again")
            return None
        if str(arrays.pop("fingerprint", "")) != self.fingerprint:
            say(f"{path} was made from something else: made again")
            return None
        part = _Part.sorted(arrays)
        missing = set(streams) - part.streams.keys()
        if missing:
            say(f"{path} has nothing of {', '.join(sorted(missing))}: made again")
            return None
        return part


@dataclass(frozen=True)
class _Part:
    streams: dict[str, dict[str, NDArray]]
    state: dict[str, NDArray]

    @classmethod
    def sorted(cls, arrays: Mapping[str, NDArray]) -> "_Part":
        """Take apart what was read from a file."""
        part = cls({}, {})
        for key, array in arrays.items():
            what, _, name = key.partition("/")
            if what == "state":
                part.state[name] = array
            else:
                stream, _, field = name.rpartition("/")
                part.streams.setdefault(stream, {})[field] = array
        return part

    @property
    def documents(self) -> int:
        return len(next(iter(next(iter(self.streams.values())).values())))
