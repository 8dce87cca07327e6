"""A finished study becomes a Workflow Run RO-Crate that says what is true."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from copies import SMALL, Copy

from lowbit.files import read_json, sha256

METADATA = "ro-crate-metadata.json"


@pytest.fixture(scope="module")
def crate(finished: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked crate; not to be changed."""
    packed = finished.make("crate", f"STUDY={SMALL}", "RUN_BY=Ada Lovelace")
    assert packed.code == 0, packed.output
    folder = tmp_path_factory.mktemp("crate")
    zipfile.ZipFile(finished.folder / "results/small/crate.zip").extractall(folder)
    return folder


def entities(crate: Path) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in read_json(crate / METADATA)["@graph"]}


def problems(crate: Path, copy: Copy) -> list[str]:
    """What the validator finds, run by itself."""
    program = (
        "import json, sys; sys.path.insert(0, 'scripts'); from pathlib import Path; "
        "from study.records.crate_check import problems; "
        "print(json.dumps(problems(Path(sys.argv[1]))))"
    )
    command = [copy.folder / ".envs/crate/bin/python", "-c", program, crate]
    done = subprocess.run(command, cwd=copy.folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_every_file_is_there_with_its_hash(crate: Path, finished: Copy) -> None:
    packed = {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file()}
    described = {
        name: entity for name, entity in entities(crate).items() if "File" in entity["@type"]
    }
    assert packed - {METADATA} == described.keys()
    for name, entity in described.items():
        assert entity["sha256"] == sha256(crate / name), name
    tables = {name for name in finished.results() if name.startswith("small/")}
    assert {f"results/{name}" for name in tables} <= packed
    assert not [name for name in packed if name.endswith(".safetensors")]


def test_the_run_is_described(crate: Path, finished: Copy) -> None:
    record = read_json(finished.folder / "results/small/provenance.json")
    (run,) = record["runs"].values()
    found = entities(crate)
    (action,) = (entity for entity in found.values() if entity["@type"] == "CreateAction")
    assert action["instrument"] == found["./"]["mainEntity"] == {"@id": "Snakefile"}
    assert (action["startTime"][:19], action["endTime"][:19]) == (
        run["started"][:19],
        run["ended"][:19],
    )
    assert found[action["agent"]["@id"]]["name"] == "Ada Lovelace"
    assert {"@id": "results/small/summary.md"} in action["result"]
    assert {"@id": "results/small/config.resolved.yaml"} in action["object"]
    locks = {entity["@id"] for entity in found["Snakefile"]["softwareRequirements"]}
    assert locks == record["environments"].keys()


def test_the_profile_is_checked(crate: Path, finished: Copy, tmp_path: Path) -> None:
    """The crate conforms, and one that does not is found out."""
    assert problems(crate, finished) == []
    described = read_json(crate / METADATA)
    (action,) = (one for one in described["@graph"] if one["@type"] == "CreateAction")
    del action["instrument"]
    for file in ("Snakefile", METADATA):
        (tmp_path / file).write_bytes((crate / file).read_bytes())
    (tmp_path / METADATA).write_text(json.dumps(described), encoding="utf-8")
    found = problems(tmp_path, finished)
    assert any("MUST have an instrument" in problem for problem in found)
    assert any("summary.md" in problem for problem in found)  # described, but not there


def test_a_changed_result_is_not_packed(done: Copy) -> None:
    with open(done.folder / "results/small/demo/patching.csv", "a", encoding="utf-8") as table:
        table.write("\n")
    command = [".envs/crate/bin/python", "scripts/study/records/crate.py", "--study", SMALL]
    refused = subprocess.run(command, cwd=done.folder, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "results/small/demo/patching.csv is not the file that the study made" in refused.stderr
