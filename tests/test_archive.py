"""Named sources: their copies, which is taken, and what is said of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lowbit.errors import InputError
from lowbit.files import read_json
from lowbit.inputs import documents, hub
from lowbit.inputs.documents import DocumentFiles
from study.config import archive
from study.config.archive import ARCHIVE, HELD, locate, read_archive

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("demo")
ENTRY = {
    "about": "Web pages",
    "licence": "ODC-By 1.0",
    "primary": {"source": "hub:a/web@main/x.parquet", "sha256": "f" * 64},
    "mirrors": [{"source": "hub:b/web@main/x.parquet"}, {"source": "path:web.parquet"}],
    "id_column": "id",
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A folder with an archive; `asked(gone)` says which repositories are gone from the hub."""
    monkeypatch.chdir(tmp_path)
    ARCHIVE.parent.mkdir()
    ARCHIVE.write_text(yaml.safe_dump({"web": ENTRY}))

    def answer(*gone: str, problem: type[InputError] = hub.NotThere) -> list[str]:
        sources: list[str] = []

        def outline(source: str, demo: Path) -> DocumentFiles:
            sources.append(source)
            if any(repo in source for repo in gone):
                raise problem(f"{source} is not there")
            return DocumentFiles(Path("."), ["x.parquet"])

        locate.cache_clear()
        monkeypatch.setattr(documents, "outline_documents", outline)
        return sources

    yield answer
    locate.cache_clear()


def test_every_entry_of_the_archive_can_be_asked_for() -> None:
    entries = read_archive(ROOT / ARCHIVE)
    expected = {"fineweb", "c4", "pile", "wikitext2", "lambada", "arxiv", "openwebmath"}
    assert expected <= entries.keys()
    for entry in entries.values():
        for copy in (entry.primary, *entry.mirrors):
            address = hub.parse(copy.source.removeprefix("hub:"), hub.DATASET)
            assert address.path
            assert address.is_pinned or address.revision == "main"
            assert documents.readable([address.path], "x")
    assert any(entry.mirrors for entry in entries.values())


def test_the_primary_copy_is_taken_and_held(asked: Callable) -> None:
    asked()
    found = locate("named:web", DEMO)
    assert (found.source, found.sha256) == (ENTRY["primary"]["source"], "f" * 64)
    assert found.passed_over == {}
    assert read_json(HELD)["web"]["source"] == found.source
    assert asked("a/web") == []  # gone later: the copy is held, and the hub not even asked
    assert locate("named:web", DEMO) == found


def test_without_a_way_to_the_hub_only_copies_elsewhere_are_tried(asked: Callable) -> None:
    sources = asked("hub:", problem=hub.Unreachable)
    assert locate("named:web", DEMO).source == "path:web.parquet"
    assert sources == ["hub:a/web@main/x.parquet", "path:web.parquet"]


def test_that_the_hub_cannot_be_reached_is_said_as_such(asked: Callable) -> None:
    asked("hub:", "path:", problem=hub.Unreachable)
    with pytest.raises(hub.Unreachable):
        locate("named:web", DEMO)


def test_a_mirror_is_taken_where_the_primary_is_gone_and_this_is_recorded(asked: Callable) -> None:
    asked("a/web")
    found = locate("named:web", DEMO)
    assert found.source == "hub:b/web@main/x.parquet"
    assert found.sha256 is None
    assert found.passed_over == {
        "hub:a/web@main/x.parquet": "hub:a/web@main/x.parquet is not there"
    }
    asked()  # back again: the study goes on with the mirror it began with
    assert locate("named:web", DEMO) == found
    HELD.unlink()
    asked("a/web", "b/web")
    assert locate("named:web", DEMO).source == "path:web.parquet"


def test_a_held_copy_that_the_archive_no_longer_has_is_looked_for_anew(asked: Callable) -> None:
    asked("a/web")
    locate("named:web", DEMO)
    ARCHIVE.write_text(yaml.safe_dump({"web": ENTRY | {"mirrors": []}}))
    asked()
    assert locate("named:web", DEMO).source == ENTRY["primary"]["source"]


def test_where_no_copy_is_there_each_is_told(asked: Callable) -> None:
    asked("a/web", "b/web", "path:")
    with pytest.raises(InputError) as caught:
        locate("named:web", DEMO)
    told = str(caught.value)
    assert told.startswith("named:web: no copy that config/sources.yaml names is there: hub:a/web")
    assert "path:web.parquet is not there" in told
    assert not HELD.exists()


def test_a_copy_that_is_refused_is_not_replaced_by_another(asked: Callable) -> None:
    asked("a/web", problem=InputError)
    with pytest.raises(InputError, match=r"hub:a/web@main/x\.parquet is not"):
        locate("named:web", DEMO)
    assert not HELD.exists()


def test_what_is_not_named_is_itself(asked: Callable) -> None:
    assert locate("path:x.jsonl", DEMO).source == "path:x.jsonl"
    with pytest.raises(InputError, match=r"named:wiki is no entry of config/sources\.yaml"):
        locate("named:wiki", DEMO)


def test_an_entrys_columns_are_filled_in(asked: Callable) -> None:
    assert archive.columns_of("named:web") == {"text_column": "text", "id_column": "id"}
    assert archive.columns_of("demo") == archive.columns_of("named:x") == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"primary": {"source": "ftp:x"}}, "web.primary.source 'ftp:x' is not a known source"),
        ({"primary": {}}, "web.primary.source is missing"),
        ({"mirror": []}, "web.mirror is not a key that exists: did you mean mirrors?"),
        ({"primary": {"source": "demo", "sha256": "f"}}, "web.primary.sha256 is 'f', but must"),
    ],
)
def test_mistakes_are_told_with_line_and_key(asked: Callable, change: dict, told: str) -> None:
    ARCHIVE.write_text(yaml.safe_dump({"web": ENTRY | change}))
    with pytest.raises(InputError) as caught:
        read_archive()
    assert told in str(caught.value)
    assert "config/sources.yaml:" in str(caught.value)
