"""Code digests: a changed module counts for exactly the scripts that import it."""

from pathlib import Path

import pytest

from study import digest
from study.digest import code_digest

FILES = {
    "direct.py": "import lib.a\n",
    "by_name.py": "from lib import a\n",
    "by_object.py": "from lib.a import value\n",
    "nested.py": "def main():\n    from lib import b\n",
    "relative.py": "from lib.sub.inner import value\n",
    "none.py": "import json\nfrom pathlib import Path\n",
    "lib/__init__.py": "",
    "lib/a.py": "value = 1\n",
    "lib/b.py": "from lib.a import value\n",
    "lib/sub/__init__.py": "from .. import c\n",
    "lib/sub/inner.py": "from .other import value\n",
    "lib/sub/other.py": "value = 3\n",
    "lib/c.py": "",
    "lib/plugin.py": "import lib.c\n",
    "json.pyi": "",
}
SCRIPTS = [name for name in FILES if name.endswith(".py") and "/" not in name]
READERS = {
    "lib/a.py": {"direct.py", "by_name.py", "by_object.py", "nested.py"},
    "lib/b.py": {"nested.py"},
    "lib/c.py": {"relative.py"},
    "lib/sub/other.py": {"relative.py"},
    "lib/sub/__init__.py": {"relative.py"},
    "lib/__init__.py": set(SCRIPTS) - {"none.py"},
    "lib/plugin.py": set(),
    "none.py": {"none.py"},
}


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder of scripts and their library."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digests(scripts: Path) -> dict[str, str]:
    """Digest of each script, as a new process would find them."""
    digest._content_hash.cache_clear()
    digest._imported_files.cache_clear()
    return {name: code_digest(scripts / name) for name in SCRIPTS}


@pytest.mark.parametrize("module", READERS)
def test_a_changed_module_changes_exactly_the_scripts_that_import_it(
    scripts: Path, module: str
) -> None:
    before = digests(scripts)
    (scripts / module).write_text(FILES[module] + "# changed\n")
    after = digests(scripts)
    assert {name for name in SCRIPTS if before[name] != after[name]} == READERS[module]


def test_a_module_named_at_run_time_counts_when_it_is_given(scripts: Path) -> None:
    plain = code_digest(scripts / "none.py")
    before = code_digest(scripts / "none.py", ["lib.plugin"])
    (scripts / "lib/c.py").write_text("changed = True\n")
    digests(scripts)
    assert code_digest(scripts / "none.py", ["lib.plugin"]) != before
    assert code_digest(scripts / "none.py") == plain


def test_a_missing_extra_module_is_an_error(scripts: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"lib\.missing"):
        code_digest(scripts / "none.py", ["lib.missing"])


def test_the_place_and_the_times_do_not_count(scripts: Path, tmp_path: Path) -> None:
    before = digests(scripts)
    for name in FILES:
        (scripts / name).touch()
    moved = scripts.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    assert digests(moved) == before


def test_the_digest_is_short_hexadecimal_text(scripts: Path) -> None:
    value = code_digest(scripts / "direct.py")
    assert len(value) == 12
    assert int(value, 16) >= 0


def test_the_real_scripts_have_digests_that_differ() -> None:
    folder = Path(__file__).resolve().parents[1] / "scripts"
    names = sorted(folder.glob("*.py"))
    assert len({code_digest(name) for name in names}) == len(names)
