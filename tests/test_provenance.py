"""Where results come from: runs, what made a file, hardware, and locks of environments."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowbit.files import read_json, write_json
from study.records import machine
from study.records.locks import lock_of, write_lock
from study.records.machine import Code, Machine, describe_code, describe_machine, without_home
from study.records.provenance import (
    Job,
    Placement,
    Run,
    _commit,
    _results,
    keep_run,
    kept_runs,
    run_of,
    summarize,
)
from study.records.runs import _placement_file, place_jobs
from study.schema import PROVENANCE_SCHEMA, provenance_schema

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2026, 1, 1, tzinfo=UTC)
HERE = Machine(platform="Linux", cpu="a processor", cpus=2, memory_mib=8000, gpus=[])
NODE = Machine(platform="Linux", cpu="another", cpus=64, memory_mib=512000, gpus=[])


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def make_run(started: float, ended: float | None = None) -> Run:
    return Run(
        study="small",
        status="running" if ended is None else "finished",
        started=at(started),
        ended=None if ended is None else at(ended),
        config_sha256="0" * 64,
        seed=0,
        code=Code(commit=None, dirty=None),
        machine=HERE,
        snakemake="9",
        environments={"core": "results/provenance/environments/core-00000000.txt"},
    )


def make_job(made: dict[str, datetime | None], placement: Placement | None = None) -> Job:
    return Job(
        rule="score",
        inputs=["results/tokens"],
        made=made,
        code="digest",
        environment="core",
        benchmark=None,
        placement=placement,
    )


def test_the_date_of_a_file_says_which_run_made_it() -> None:
    runs = [make_run(0, 10), make_run(20), make_run(40, 50)]  # the second was killed
    expected = {-1: None, 0: 0, 10: 0, 15: None, 20: 1, 39: 1, 40: 2, 50: 2, 51: None}
    for minutes, index in expected.items():
        wanted = None if index is None else runs[index].id
        assert run_of(at(minutes), runs) == wanted, minutes
    assert run_of(None, runs) is None
    assert run_of(at(5), []) is None


@given(st.lists(st.floats(0, 1000), min_size=1, unique=True), st.floats(-10, 1010))
def test_a_file_never_belongs_to_a_later_run(starts: list[float], made: float) -> None:
    runs = [make_run(start) for start in sorted(starts)]
    found = run_of(at(made), runs)
    earlier = [run for run in runs if run.started <= at(made)]
    assert found == (earlier[-1].id if earlier else None)


def test_runs_are_kept_by_start_and_of_another_version_left_out(tmp_path: Path) -> None:
    for run in (make_run(20), make_run(0)):
        keep_run(run, tmp_path)
    keep_run(make_run(0, 10), tmp_path)  # the same run, when it ended
    write_json(tmp_path / "runs" / "older.json", {"study": "small"})
    assert kept_runs(tmp_path) == [make_run(0, 10), make_run(20)]


def test_a_result_has_its_hash_its_run_and_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").write_bytes(b"content")
    Path("unknown").write_bytes(b"")
    runs = [make_run(0, 10), make_run(20, 30)]
    on_node = Placement(started=at(4), machine=NODE)
    jobs = [
        make_job({"there": at(5), "gone": at(5), "never made": None}, on_node),
        make_job({"later": at(25)}, on_node),  # a file of before says nothing of this run
        make_job({"unknown": None}),
    ]
    results = _results(jobs, runs)
    assert list(results) == ["gone", "later", "there", "unknown"]
    assert results["there"].sha256 == hashlib.sha256(b"content").hexdigest()
    assert results["there"].bytes == 7
    assert (results["there"].run, results["there"].machine) == (runs[0].id, NODE)
    assert (results["gone"].sha256, results["gone"].bytes) == (None, None)
    assert (results["later"].run, results["later"].machine) == (runs[1].id, None)
    assert (results["unknown"].run, results["unknown"].made) == (None, None)


def test_a_job_on_a_cluster_notes_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = ["quantize:model=demo-1,method=rtn-2", "plot:"]
    place_jobs(["--mode", "remote", "--target-jobs", *jobs, "--cores", "1", "all"])
    expected = [
        _placement_file("quantize", {"method": "rtn-2", "model": "demo-1"}),
        _placement_file("plot", {}),
    ]
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.json")} == {*expected}
    for file in expected:
        assert Placement.model_validate(read_json(file)).machine == describe_machine()


def test_weights_have_the_hash_of_their_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.safetensors").write_bytes(b"many bytes")
    write_json("method.json", {"weights_sha256": "f" * 64})
    (result,) = _results([make_job({"weights.safetensors": at(1)})], []).values()
    assert result.sha256 == "f" * 64


@pytest.mark.parametrize(
    ("record", "commit"),
    [
        ({"source": f"hub:org/model@{'a1' * 20}"}, "a1" * 20),
        ({"source": f"hub:org/data@{'b2' * 20}/part-*.parquet"}, "b2" * 20),
        ({"source": "qerror:llama", "commit": "c3" * 20}, "c3" * 20),
        ({"source": "path:/data/me@home.txt"}, None),
    ],
)
def test_the_commit_of_a_source_is_found(record: dict[str, str], commit: str | None) -> None:
    assert _commit(record) == commit


def test_costs_are_summed_by_rule(tmp_path: Path) -> None:
    head = "s\th:m:s\tmax_rss\n"
    files = {
        "benchmarks/score.tsv": "1.5\t0:00:01\t300.5\n",
        "benchmarks/quantize/rtn.tsv": "2.0\t0:00:02\tNA\n",
        "benchmarks/quantize/nf.tsv": "3.04\t0:00:03\t100.0\n",
    }
    for name, row in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(head + row)
    costs = summarize([tmp_path / name for name in [*files, "benchmarks/absent.tsv"]])
    assert {rule: cost.model_dump() for rule, cost in costs.items()} == {
        "quantize": {"jobs": 2, "seconds": 5.0, "max_memory_mib": 100.0},
        "score": {"jobs": 1, "seconds": 1.5, "max_memory_mib": 300.5},
    }


def test_the_machine_is_described() -> None:
    here = describe_machine()
    assert here.cpus == os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert abs(here.memory_mib - pages / 2**20) <= 1
    assert here.cpu
    assert os.uname().nodename not in here.model_dump_json()


def test_gpus_are_listed_where_nvidia_smi_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB, 570.86'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (gpu,) = describe_machine().gpus
    assert gpu.model_dump() == {
        "name": "NVIDIA H100 80GB HBM3",
        "memory": "81559 MiB",
        "driver": "570.86",
    }
    program.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert describe_machine().gpus == []


def test_a_changed_file_makes_the_code_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_code() == Code(commit=None, dirty=None)

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    Path("file").write_text("one")
    git("add", "file")
    git("commit", "--message", "first")
    commit = git("rev-parse", "HEAD")
    assert describe_code() == Code(commit=commit, dirty=False)
    Path("file").write_text("two")
    assert describe_code() == Code(commit=commit, dirty=True)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("path:/home/ada/models/llama", "path:~/models/llama"),
        ("path:/home/ada", "path:~"),
        ("path:/home/adam/models", "path:/home/adam/models"),
        ("path:models/llama", "path:models/llama"),
    ],
)
def test_no_path_of_the_home_directory_is_recorded(
    text: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.Path, "home", lambda: Path("/home/ada"))
    assert without_home(text) == written


def install(prefix: Path, files: dict[str, str], version: str = "1.0") -> None:
    """Put a package `hello` into a folder as pip would, linked to this interpreter."""
    packages = prefix / "lib/python3.11/site-packages"
    info = packages / f"hello-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hello\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{name},{digest},1\n" for name, digest in files.items()))
    (prefix / "bin").mkdir()
    (prefix / "bin/python").symlink_to(sys.executable)


OWN = {"hello/__init__.py": "sha256=one", '"a,b.py"': "sha256=two"}


def test_a_lock_depends_on_the_package_alone(tmp_path: Path) -> None:
    by_the_way = {
        "../../../bin/hello": "sha256=of_its_first_line",
        "hello/__pycache__/__init__.cpython-311.pyc": "",
        "hello-1.0.dist-info/INSTALLER": "sha256=conda",
        "hello-1.0.dist-info/RECORD": "",
    }
    install(tmp_path / "here", OWN | by_the_way)
    install(tmp_path / "there", dict(reversed(OWN.items())))
    install(tmp_path / "changed", OWN | {"hello/__init__.py": "sha256=three"})
    here, there, changed = (lock_of(tmp_path / name) for name in ("here", "there", "changed"))
    assert here == there != changed
    version = ".".join(map(str, sys.version_info[:3]))
    listed = 'hello/__init__.py,sha256=one\n"a,b.py",sha256=two\n'
    digest = hashlib.sha256("".join(sorted(listed.splitlines(keepends=True))).encode()).hexdigest()
    assert here == f"# Python {version}\nhello==1.0  # files sha256:{digest}\n"


def test_a_lock_names_what_conda_installed(tmp_path: Path) -> None:
    install(tmp_path, OWN)
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/python-3.11.7-h955ad1f_0.json").write_text("{}")
    (tmp_path / "conda-meta/history").write_text("")
    assert "\n# conda: python-3.11.7-h955ad1f_0\n" in lock_of(tmp_path)


def test_another_lock_gets_another_file(tmp_path: Path) -> None:
    install(tmp_path / "first", OWN)
    install(tmp_path / "second", OWN, version="2.0")
    paths = {write_lock("core", tmp_path / name, tmp_path) for name in ("first", "second")}
    assert len(paths) == 2
    assert write_lock("core", tmp_path / "first", tmp_path) in paths
    for path in paths:
        assert path.stem == f"core-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def test_there_is_no_lock_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no environment"):
        lock_of(tmp_path)


def test_a_lock_lists_what_pip_lists() -> None:
    command = [sys.executable, "-m", "pip", "freeze", "--all"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lock = lock_of(Path(sys.prefix)).splitlines()[1:]
    assert sorted(line.split()[0] for line in lock) == sorted(done.stdout.splitlines())


def test_the_schema_is_in_step_and_explains_every_key() -> None:
    schema = json.loads(PROVENANCE_SCHEMA.read_text(encoding="utf-8"))
    assert schema == provenance_schema(), "run: make schema"
    for definition in [schema, *schema["$defs"].values()]:
        for key, entry in definition["properties"].items():
            assert "description" in entry, key
