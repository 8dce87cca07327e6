"""Downloading into the Hugging Face cache: what arrived is kept, what is damaged is not.

huggingface_hub itself forgets half a file when its process ends (since 2.0) and trusts what it
gets. So the blobs of its cache are written here, with its own transfer, and checked.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.errors import InputError
from lowbit.files import sha256
from lowbit.inputs.hub.address import Address
from lowbit.inputs.hub.problems import explained, retried

if TYPE_CHECKING:
    from lowbit.inputs.hub.listings import File, Listing


def storage(address: Address) -> Path:
    """Folder of a repository in the cache: `<cache>/models--<owner>--<name>`."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"{address.kind}s--{address.repo.replace('/', '--')}")


def cached_file(address: Address, name: str) -> Path | None:
    """A file in the cache, at an address with a commit; None where it is not."""
    path = storage(address) / "snapshots" / address.revision / name
    return path if path.is_file() else None


def download(address: Address, names: Iterable[str], listing: "Listing") -> Path:
    """Bring files into the cache unless they are there; check each one's hash.

    Args:
        address: of the repository; the commit is the listing's.
        names: of the files, as `listing.files` has them.
        listing: what the hub says of the files.

    Returns:
        The snapshot's folder in the cache, with all of `names`.

    Raises:
        InputError: no space, a file that is damaged twice, or the hub cannot be asked.
    """
    address = address.at(listing.commit)
    files = {name: listing.files[name] for name in names}
    missing = {name: file for name, file in files.items() if not _is_whole(address, name, file)}
    _check_space(address, missing)
    for name, file in missing.items():
        _fetch(address, name, file)
    return storage(address) / "snapshots" / listing.commit


def is_intact(path: Path, file: "File") -> bool:
    """Whether a file's content is what the hub says."""
    if path.stat().st_size != file.bytes:
        return False
    if file.sha256:
        return sha256(path) == file.sha256
    return git_blob_id(path) == file.blob_id


def git_blob_id(path: Path) -> str:
    """SHA-1 of a file as git takes it, after a line with its size."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _is_whole(address: Address, name: str, file: "File") -> bool:
    """Whether the cache has the file; a damaged one is removed from it."""
    path = cached_file(address, name)
    if path is None:
        return False
    if is_intact(path, file):
        return True
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    return False


def _check_space(address: Address, files: Mapping[str, "File"]) -> None:
    """Raise unless there is room for the files."""
    place = storage(address)
    partial = (_partial(address, file) for file in files.values())
    have = sum(path.stat().st_size for path in partial if path.is_file())
    needed = sum(file.bytes for file in files.values()) - have
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(
            f"{address} needs {needed / 1e9:.2f} GB in {place}, where {free / 1e9:.2f} GB are "
            "free; free some space, or set HF_HOME to a folder on a larger disk, and run the same "
            "command again"
        )


def _blob(address: Address, file: "File") -> Path:
    return storage(address) / "blobs" / str(file.sha256 or file.blob_id)


def _partial(address: Address, file: "File") -> Path:
    blob = _blob(address, file)
    return blob.with_name(f"{blob.name}.incomplete")


def _fetch(address: Address, name: str, file: "File") -> None:
    """Download one file, again from the start if it came damaged, and link it into the snapshot."""
    from huggingface_hub.utils import WeakFileLock

    blob = _blob(address, file)
    place = storage(address)
    lock = place.parent / ".locks" / place.name / f"{blob.name}.lock"  # as huggingface_hub has it
    pointer = place / "snapshots" / address.revision / name
    _make_folders(blob.parent, lock.parent, pointer.parent)
    with WeakFileLock(lock):
        if not (blob.is_file() and is_intact(blob, file)):
            blob.unlink(missing_ok=True)
            if not _transfer(address, name, file) and not _transfer(address, name, file):
                raise InputError(
                    f"{address}: {name} arrived damaged twice (its hash is not {blob.name}); "
                    "something between here and the hub changes it. Try another network, or "
                    "another mirror in HF_ENDPOINT, and run the same command again"
                )
            os.replace(_partial(address, file), blob)
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(os.path.relpath(blob, pointer.parent))


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the cache {folder} cannot be made ({error.strerror}); set HF_HOME to a "
                "folder that can be written"
            ) from None


def _transfer(address: Address, name: str, file: "File") -> bool:
    """Download what is missing of one file; whether it is intact then. If not, it is removed."""
    from httpx2 import ReadError
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial = _partial(address, file)
    url = hf_hub_url(address.repo, name, repo_type=address.kind, revision=address.revision)

    def get() -> None:
        if partial.is_file() and partial.stat().st_size > file.bytes:
            partial.unlink()
        with open(partial, "ab") as stream:
            if stream.tell() < file.bytes or not file.bytes:
                http_get(
                    url,
                    stream,
                    resume_size=stream.tell(),
                    headers=build_hf_headers(),
                    displayed_filename=name,
                )
        if partial.stat().st_size < file.bytes:  # not every server says how much there is to come
            raise ReadError("the transfer ended early")

    with explained(address):
        retried(get, rate_limits=False)  # http_get itself waits as long as the hub says
    if is_intact(partial, file):
        return True
    partial.unlink()
    return False
