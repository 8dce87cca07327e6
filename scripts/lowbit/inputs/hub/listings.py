"""What a repository holds at one commit, asked once and remembered: no weights are needed for it.

The process that starts a run asks the hub and leaves the answer in `results/hub/`; its jobs, which
may run where there is no network, read it there. A branch stays at the commit that it had when it
was first asked for, until its entry in `revisions.json` is deleted.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lowbit.errors import InputError
from lowbit.files import read_json, write_json
from lowbit.inputs.header import read_header
from lowbit.inputs.hub.address import COMMIT, MODEL, Address
from lowbit.inputs.hub.downloads import cached_file, download, storage
from lowbit.inputs.hub.problems import NotThere, explained, retried

FOLDER = Path("results/hub")
"""Where listings and resolved revisions are remembered, relative to the repository root."""
REVISIONS = "revisions.json"
CONFIG = "config.json"
SETTINGS = (CONFIG, "model.safetensors.index.json", "quantize_config.json")
"""Small files of a model that a config check reads; the listing holds their content."""


@dataclass(frozen=True)
class File:
    """A file as the hub lists it."""

    bytes: int
    sha256: str | None
    """Of the content, where the file is in large file storage."""
    blob_id: str | None
    """Git's SHA-1 of the content, where it is not."""


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    address: str
    """`hub:<repo>@<commit>`; for messages and records."""
    commit: str
    files: Mapping[str, File]
    """Name, with its folders -> what is known of it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of a model: the content of `SETTINGS`, by file."""
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a model: safetensors file -> tensor -> `dtype` and `shape`."""

    def __str__(self) -> str:
        return self.address

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def names(self) -> list[str]:
        """Names of the files that are not in a subfolder, sorted."""
        return sorted(name for name in self.files if "/" not in name)

    def json(self, name: str) -> Any:
        """The content of one of `SETTINGS`."""
        return self.settings[name]

    def header(self, name: str) -> Mapping[str, Any]:
        """Tensors of a safetensors file: name -> `dtype` and `shape`."""
        return self.headers[name]

    @property
    def config(self) -> dict[str, Any]:
        """The model's config.json.

        Raises:
            InputError: it has none.
        """
        if CONFIG not in self.settings:
            raise InputError(f"{self.address} is not a Hugging Face model: it has no {CONFIG}")
        return self.settings[CONFIG]

    @property
    def tensors(self) -> dict[str, Any]:
        """The model's tensors: name -> `dtype` (as safetensors has it, `BF16`) and `shape`."""
        return {name: entry for header in self.headers.values() for name, entry in header.items()}


def listing(address: Address, folder: Path = FOLDER) -> Listing:
    """Return what the repository holds; ask the hub only for what is not remembered.

    Args:
        address: of a data set, only the folder that its `path` lies in is listed.
        folder: where it is remembered.

    Raises:
        InputError: the hub cannot be asked or has no such thing; says what to do.
    """
    held = _held_commit(address, folder)
    if held:
        place = _place(address.at(held), folder)
        if place.is_file():
            return _read(place)
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:  # what the cache has need not be all, so it is not remembered
        commit = held or _commit_in_cache(address)
        found = _from_cache(address.at(commit))
    else:
        with explained(address):
            commit = held or _ask_commit(address)
        found = _ask(address.at(commit))
        write_json(_place(address.at(commit), folder), asdict(found))
    _hold(address, commit, folder)
    return found


def matching(address: Address, listed: Listing) -> list[str]:
    """Names of the files that an address' `path` means, sorted; all where it has none.

    Raises:
        InputError: none.
    """
    names = sorted(fnmatch.filter(listed.files, address.path or "*"))
    if not names:
        some = ", ".join(sorted(listed.files)[:5]) or "none at all"
        raise NotThere(f"{address} matches no file; files there are {some}")
    return names


def _key(address: Address) -> str:
    return f"{address.kind}s/{address.repo}@{address.revision}"


def _held_commit(address: Address, folder: Path) -> str | None:
    """The commit that the address means, if that is known without asking."""
    if address.is_pinned:
        return address.revision
    file = folder / REVISIONS
    return read_json(file).get(_key(address)) if file.is_file() else None


def _hold(address: Address, commit: str, folder: Path) -> None:
    """Record what a branch or tag was resolved to."""
    file = folder / REVISIONS
    known = read_json(file) if file.is_file() else {}
    if not address.is_pinned and known.get(_key(address)) != commit:
        write_json(file, dict(sorted((known | {_key(address): commit}).items())))


def _place(address: Address, folder: Path) -> Path:
    """File of a remembered listing; of a data set, one for each folder that is listed."""
    top, deep = _listed_folder(address)
    part = re.sub(r"[^\w.-]", "--", f".{top}" if top else "") + (".deep" if deep else "")
    repo = address.repo.replace("/", "--")
    return folder / f"{address.kind}s" / repo / f"{address.revision}{part}.json"


def _listed_folder(address: Address) -> tuple[str, bool]:
    """The folder of a repository to list, and whether with its subfolders."""
    if address.kind == MODEL:
        return "", False
    folders = PurePosixPath(address.path).parent.parts
    plain = [*folders, "*"].index(next((f for f in folders if re.search(r"[*?[]", f)), "*"))
    return "/".join(folders[:plain]), plain < len(folders) or not address.path


def _read(file: Path) -> Listing:
    """Read a remembered listing."""
    content = read_json(file)
    files = {name: File(**entry) for name, entry in content.pop("files").items()}
    return Listing(files=files, **content)


def _ask_commit(address: Address) -> str:
    """Ask the hub which commit a branch or tag is at."""
    from huggingface_hub import HfApi, constants

    def ask() -> str | None:
        return (
            HfApi()
            .repo_info(
                address.repo,
                repo_type=address.kind,
                revision=address.revision,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
            .sha
        )

    commit = retried(ask)
    if not COMMIT.fullmatch(commit or ""):
        raise InputError(f"{address} has no commit at {constants.ENDPOINT}; write another revision")
    return commit


def _ask(address: Address) -> Listing:
    """Ask the hub what is in a repository at a commit."""
    with explained(address):
        files = dict(sorted(_ask_files(address)))
    bare = Listing(
        str(Address(address.kind, address.repo, address.revision)), address.revision, files
    )
    if address.kind != MODEL:
        return bare
    wanted = [name for name in SETTINGS if name in files]
    folder = download(address, wanted, bare)
    settings = {name: _parsed(folder / name) for name in wanted}
    headers = {name: _ask_header(address, name, files) for name in _weights(files, settings)}
    return Listing(bare.address, bare.commit, files, settings, headers)


def _ask_files(address: Address) -> Iterator[tuple[str, File]]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    top, deep = _listed_folder(address)
    for entry in HfApi().list_repo_tree(
        address.repo,
        top or None,
        recursive=deep,
        revision=address.revision,
        repo_type=address.kind,
    ):
        if isinstance(entry, RepoFile):
            yield entry.path, _as_file(entry)


def _as_file(entry: Any) -> File:
    """What the hub says of a file; the blob of one in large storage is only its pointer."""
    sha256 = entry.lfs.sha256 if entry.lfs else None
    return File(entry.size, sha256, None if sha256 else entry.blob_id)


def _weights(files: Mapping[str, File], settings: Mapping[str, Any]) -> list[str]:
    """Files with the weights, as transformers chooses them; otherwise all there are.

    AutoGPTQ names its file after its settings: `gptq_model-4bit-128g.safetensors`.
    """
    if "model.safetensors" in files:
        return ["model.safetensors"]
    shards = settings.get("model.safetensors.index.json", {}).get("weight_map", {}).values()
    chosen = shards or fnmatch.filter(files, "*.safetensors")
    return sorted(set(chosen) & set(files))


def _ask_header(address: Address, name: str, files: Mapping[str, File]) -> dict[str, Any]:
    """Read a safetensors header from the hub, by its first bytes; from the cache where it is."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import SafetensorsParsingError

    cached = cached_file(address, name)
    if cached and cached.stat().st_size == files[name].bytes:
        return _shapes(read_header(cached))

    def ask() -> Any:
        return HfApi().parse_safetensors_file_metadata(
            address.repo, name, repo_type=address.kind, revision=address.revision
        )

    try:
        with explained(address):
            tensors = retried(ask).tensors
    except SafetensorsParsingError:
        raise InputError(
            f"{address}: {name} is not a safetensors file; use another checkpoint"
        ) from None
    return _shapes({key: {"dtype": one.dtype, "shape": one.shape} for key, one in tensors.items()})


def _shapes(header: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"dtype": str(entry["dtype"]), "shape": list(entry["shape"])}
        for name, entry in sorted(header.items())
    }


def _parsed(file: Path) -> Any:
    try:
        return read_json(file)
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}); use another revision") from None


def _commit_in_cache(address: Address) -> str:
    """The commit that the cache has for a branch or tag."""
    file = storage(address) / "refs" / address.revision
    if not file.is_file():
        raise InputError(
            f"{address} is not in the cache ({file} is missing), and HF_HUB_OFFLINE forbids to ask "
            "the hub; write a commit that the cache has, or unset HF_HUB_OFFLINE"
        )
    return file.read_text(encoding="utf-8").strip()


def _from_cache(address: Address) -> Listing:
    """List what the cache has of a repository at a commit; its files' names there are hashes."""
    folder = storage(address) / "snapshots" / address.revision
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not found:
        raise InputError(
            f"{address} is not in the cache ({folder}), and HF_HUB_OFFLINE forbids to ask the hub; "
            "unset HF_HUB_OFFLINE, or fill the cache where there is a network"
        )
    files = {path.relative_to(folder).as_posix(): _cached(path) for path in found}
    bare = str(Address(address.kind, address.repo, address.revision))
    if address.kind != MODEL:
        return Listing(bare, address.revision, files)
    settings = {name: _parsed(folder / name) for name in SETTINGS if name in files}
    weights = _weights(files, settings)
    headers = {name: _shapes(read_header(folder / name)) for name in weights}
    return Listing(bare, address.revision, files, settings, headers)


def _cached(path: Path) -> File:
    """A file of the cache, which is a link to a blob that is named after its hash."""
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return File(path.stat().st_size, name, None)
    if COMMIT.fullmatch(name):
        return File(path.stat().st_size, None, name)
    raise InputError(
        f"{path} is no link to a blob, so its hash is not known; unset HF_HUB_OFFLINE once, or "
        "fill the cache on a file system with symbolic links"
    )
