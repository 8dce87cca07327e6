"""What stands after `hub:` in the config. Uses the standard library only."""

import re
from dataclasses import dataclass, replace

from lowbit.errors import InputError

MODEL, DATASET = "model", "dataset"
"""Kinds of repository."""
FORMS = {
    MODEL: "hub:<owner>/<model>@<revision>",
    DATASET: "hub:<owner>/<data set>@<revision>/<file, or pattern such as data/*.parquet>",
}
COMMIT = re.compile(r"[0-9a-f]{40}")

_REPO = r"(?P<repo>(?:[\w.-]+/)?[\w.-]+)"
_ADDRESS = {
    MODEL: re.compile(rf"{_REPO}@(?P<revision>[\w./-]+)(?P<path>)"),
    # Only these revisions of data sets have a slash: refs/pr/1 and refs/convert/parquet.
    DATASET: re.compile(
        rf"{_REPO}@(?P<revision>refs/[\w.-]+/[\w.-]+|[\w.-]+)(?:/(?P<path>[^/].*))?"
    ),
}


@dataclass(frozen=True)
class Address:
    """A repository at a revision, and of a data set the files that are meant."""

    kind: str
    """`MODEL` or `DATASET`."""
    repo: str
    revision: str
    """Branch, tag or commit (40 hex digits)."""
    path: str = ""
    """A file or a pattern, of data sets only."""

    def __str__(self) -> str:
        path = f"/{self.path}" if self.path else ""
        return f"hub:{self.repo}@{self.revision}{path}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never moves."""
        return bool(COMMIT.fullmatch(self.revision))

    @property
    def repository(self) -> str:
        """Repository and kind, as the hub's own pages name them: `datasets/<repo>` or `<repo>`."""
        return f"datasets/{self.repo}" if self.kind == DATASET else self.repo

    def at(self, commit: str) -> "Address":
        """The same at a commit."""
        return replace(self, revision=commit)


def parse(argument: str, kind: str) -> Address:
    """Read what stands after `hub:`, such as `Qwen/Qwen2.5-0.5B@main`.

    Raises:
        InputError: no such address; says what to write.
    """
    found = _ADDRESS[kind].fullmatch(argument)
    if found and ".." not in argument:
        return Address(kind, found["repo"], found["revision"], found["path"] or "")
    if re.fullmatch(_REPO, argument):
        raise InputError(
            f"hub:{argument} has no revision; write hub:{argument}@main, or better a commit, "
            "which never changes, in place of main"
        )
    raise InputError(f"hub:{argument} is no address on the hub; write {FORMS[kind]}")
