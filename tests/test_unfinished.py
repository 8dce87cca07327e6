"""Jobs that are killed at any moment go on where they were, to the same bytes."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mechanism_inputs import SETTINGS, quantized_layers, write_method, write_model
from numpy.typing import NDArray
from run_script import SCRIPTS, run_script
from tiny_models import token_ids

from lowbit import unfinished
from lowbit.engine import engine
from lowbit.errors import InputError, run
from lowbit.inputs.evaluation import cut_windows, last_word_rows, write_rows
from lowbit.unfinished import Parts


class Killed(BaseException):
    """Stands for a killed process: nothing catches it."""


@dataclass
class Column:
    x: NDArray[np.float64]
    y: NDArray[np.bool_] | None = None


DOCUMENTS = 12


def make(sums: torch.Tensor, made: list[int], batch: int = 2) -> unfinished.Make:
    """A walk that notes the documents it makes and adds to `sums` as edits add up norms."""

    def walk(first: int) -> Iterator[Mapping[str, Column]]:
        for start in range(first, DOCUMENTS, batch):
            rows = np.arange(start, start + batch)
            made.extend(rows.tolist())
            sums.add_(float((rows / 7).sum()))
            yield {"a, b/c": Column(rows / 3, rows % 2 == 0), "d": Column(rows * 2.0)}

    return walk


def joined(shards: Sequence[Mapping[str, Column]]) -> dict[str, list]:
    return {
        "x": np.concatenate([shard["a, b/c"].x for shard in shards]).tolist(),
        "y": np.concatenate([shard["a, b/c"].y for shard in shards]).tolist(),
        "d": np.concatenate([shard["d"].x for shard in shards]).tolist(),
        "none": [shard["d"].y for shard in shards if shard["d"].y is not None],
    }


@settings(max_examples=60, deadline=None)
@given(kills=st.lists(st.integers(0, 6), max_size=5), gaps=st.integers(1, 4))
def test_a_walk_goes_on_wherever_it_was_killed(kills: list[int], gaps: int) -> None:
    """`gaps`: shards between two parts; what was made after the last part is made again."""
    ticks = iter(range(10**6))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfinished, "SAVE_EVERY", gaps)
        patch.setattr(unfinished.time, "monotonic", lambda: next(ticks))
        expected = torch.zeros(1, dtype=torch.float64)
        whole = joined(list(make(expected, [])(0)))
        made: list[int] = []
        for shards in kills:
            state = {"sums": torch.zeros(1, dtype=torch.float64)}
            parts = Parts.open(Path(folder) / "p", {"code": "1"}).of("walk")
            walk = parts.walk(Column, ["d"], make(state["sums"], made), state)
            for _ in zip(range(shards), walk, strict=False):
                pass
            walk.close()
        state = {"sums": torch.zeros(1, dtype=torch.float64)}
        parts = Parts.open(Path(folder) / "p", {"code": "1"})
        walk = parts.of("walk").walk(Column, ["d"], make(state["sums"], made), state)
        assert joined(list(walk)) == whole
        assert torch.equal(state["sums"], expected)
        again: list[int] = []
        walk = parts.of("walk").walk(Column, ["d"], make(state["sums"], again), state)
        assert joined(list(walk)) == whole
        assert not again  # all is kept once it was done
        assert torch.equal(state["sums"], expected)
        parts.remove()
        assert not (Path(folder) / "p").exists()


def filled(folder: Path, patch: pytest.MonkeyPatch, **made_from: str) -> Parts:
    """Parts of two documents each."""
    patch.setattr(unfinished, "SAVE_EVERY", 0)
    parts = Parts.open(folder, {"model": "m", "settings": "s", "code": "c"} | made_from)
    list(parts.walk(Column, ["d"], make(torch.zeros(1), [])))
    return parts


@pytest.mark.parametrize("changed", ["model", "settings", "code", "tokens"])
def test_what_was_made_from_something_else_is_made_again_and_the_log_says_why(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    filled(tmp_path / "p", monkeypatch)
    capsys.readouterr()
    parts = filled(tmp_path / "p", monkeypatch, **{changed: "other"})
    assert capsys.readouterr().err == (
        f"{tmp_path / 'p'}, which an interrupted run left, is not used, but made again: "
        f"since then there was a change of {changed}\n"
    )
    filled(tmp_path / "p", monkeypatch, **{changed: "other"})
    assert capsys.readouterr().err.startswith("going on with what an interrupted run left in")
    made: list[int] = []
    list(parts.walk(Column, ["d"], make(torch.zeros(1), made)))
    assert not made


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "nonsense", "foreign"])
def test_a_damaged_part_is_made_again_and_the_log_says_so(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    parts = filled(tmp_path / "p", monkeypatch)
    whole = joined(list(parts.walk(Column, ["d"], make(torch.zeros(1), []))))
    part = tmp_path / "p" / "4.npz"
    content = bytearray(part.read_bytes())
    number = np.float64(4 / 3).tobytes()
    assert number in content
    content[content.index(number) + 3] ^= 1
    if damage == "foreign":
        foreign = filled(tmp_path / "q", monkeypatch, code="other")
        part.write_bytes((foreign.folder / "4.npz").read_bytes())
    else:
        contents = {"cut": content[:-30], "empty": b"", "bit": content, "nonsense": b"PK\3\4 no"}
        part.write_bytes(contents[damage])
    made: list[int] = []
    assert joined(list(parts.walk(Column, ["d"], make(torch.zeros(1), made)))) == whole
    assert made == list(range(4, DOCUMENTS))
    said = "made from something else" if damage == "foreign" else "is damaged"
    assert f"4.npz {'was ' if damage == 'foreign' else ''}{said}" in capsys.readouterr().err


def test_a_folder_that_does_not_say_what_it_was_made_from_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    filled(tmp_path / "p", monkeypatch)
    (tmp_path / "p" / "made_from.json").write_text("{")
    Parts.open(tmp_path / "p", {"model": "m", "settings": "s", "code": "c"})
    assert "made_from.json is damaged or not there" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["made_from.json"]


def test_a_stream_that_was_not_walked_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    parts, made = filled(tmp_path / "p", monkeypatch), []
    list(parts.walk(Column, ["d", "new"], make(torch.zeros(1), made)))
    assert made == list(range(DOCUMENTS))
    assert "0.npz has nothing of new: made again" in capsys.readouterr().err


# Every script that keeps parts, with all it is asked for, and what it writes.
MODEL = ("--model", "model.json", "--tokens", "tokens.parquet")
RECORDS = {"m": "m/method.json", "n": "n/method.json"}
CALLS = [{"name": name, "record": record, "sets_of": "m"} for name, record in RECORDS.items()]
STREAMS = {"full": None} | RECORDS
ROWS = {"windows": "windows.parquet", "words": "words.parquet"}
ON_SETS = ("--sets", json.dumps(ROWS), "--evaluation", "on_sets.parquet")
PERTURBATION = {
    "activation_bits": 8,
    "documents": 5,
    "intensities": [1.0],
    "quantiles": [0.99],
    "seeds": 1,
    "sensitivity": False,
    "projections": None,
}
SIMULATION = {
    "settings": ["W4A16", "W8A8"],
    "documents": 9,
    "group_size": 16,
    "transforms": ["uniform", "power"],
    "activation_transforms": ["uniform"],
}
JOBS: dict[str, tuple[object, ...]] = {
    "score": (
        *MODEL,
        "--methods",
        json.dumps(
            [
                {"name": name, "record": record, "scores": f"scores/{name}.parquet"}
                for name, record in STREAMS.items()
            ]
        ),
        *("--output", "scores.json"),
    ),
    "residuals": (*MODEL, "--output", "norms.parquet", "--dimensions", "dimensions.parquet"),
    "trace_layers": (
        *MODEL,
        *("--sets", "sets.parquet", "--methods", json.dumps(CALLS)),
        *("--exits", "exits.parquet", "--differences", "differences.parquet"),
    ),
    "evaluate": (
        *MODEL[:2],
        "--methods",
        json.dumps(
            [
                {"name": n, "record": r, "scores": {s: f"evaluated/{s}-{n}.parquet" for s in ROWS}}
                for n, r in STREAMS.items()
            ]
        ),
        *("--sets", json.dumps(ROWS), "--output", "evaluation.parquet"),
    ),
    "patch": (
        *MODEL,
        *("--sets", "sets.parquet", "--methods", json.dumps(CALLS)),
        *("--patch", "upper", "single", "--output", "patching.parquet"),
    ),
    "intervene": (
        *MODEL,
        *("--errors", "errors.parquet", "--sets", "sets.parquet"),
        *("--residuals", "residuals.parquet", "--methods", json.dumps({"m": "m/method.json"})),
        *("--output", "interventions.parquet"),
    ),
    "mixed_precision": (
        *MODEL,
        *("--base", "m", "--base-record", "m/method.json", "--higher", "n"),
        *("--higher-record", "n/method.json", "--extra-bits", 1.5, "--seed", 0),
        *("--plan", "plan.json", "--modules", "modules.parquet", "--models", "models.parquet"),
    ),
    "perturb": (
        *MODEL,
        *("--reference", "m", "--reference-record", "m/method.json", "--seed", 0),
        *("--perturbation", json.dumps(PERTURBATION), "--norms", "norms.parquet"),
        *("--scores", "perturbed.parquet", *ON_SETS),
    ),
    "simulate": (
        *MODEL,
        *("--calibration", "tokens.parquet", "--simulation", json.dumps(SIMULATION)),
        *("--sizes", "sizes.parquet", "--scores", "simulated.parquet", *ON_SETS),
    ),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, two methods and all that jobs read; not to be changed."""
    folder = tmp_path_factory.mktemp("prepared")
    model = write_model(folder, "llama", documents=18)
    write_method(folder / "m", quantized_layers(model, 2))
    write_method(folder / "n", quantized_layers(model, 4))
    ids = token_ids(1, 200)[0].tolist()
    write_rows(folder / "windows.parquet", cut_windows(ids, 20, None, "set")[0])
    texts = [ids[start : start + 9 + start % 3] for start in range(10)]
    words = last_word_rows([f"i{n}" for n in range(10)], texts, [t[:-2] for t in texts], 64, "set")
    write_rows(folder / "words.parquet", words[0])
    return folder


@pytest.fixture
def work(prepared: Path, tmp_path: Path) -> Path:
    """A folder with the prepared files, to work in."""
    for path in prepared.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def command(job: str, mode: str = "resident") -> tuple[object, ...]:
    settings = SETTINGS | {"mode": mode, "batch_size": 3}
    shared = ("--settings", json.dumps(settings), "--code", "c", "--gates", "gates.json")
    return (f"{job}.py", *JOBS[job], *shared)


def results(folder: Path) -> dict[str, bytes]:
    """Content of all that was written there."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    made = {
        name: path for name, path in names.items() if not (folder / name.split("/")[0]).is_symlink()
    }
    return {name: path.read_bytes() for name, path in sorted(made.items())}


BY_BLOCK = {"perturb", "simulate"}
"""Jobs that walk block by block in any mode."""
MODES = [("resident", job) for job in JOBS] + [("stream", job) for job in JOBS.keys() - BY_BLOCK]


@pytest.mark.parametrize(("mode", "job"), sorted(MODES))
def test_a_job_that_is_killed_again_and_again_writes_the_same_bytes(
    mode: str, job: str, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, *options = command(job, mode)
    straight = tmp_path_factory.mktemp("straight")
    for path in work.iterdir():
        (straight / path.name).symlink_to(path.resolve())
    assert run_script(name, straight, *options) == ""
    expected = results(straight)
    write, kills = Parts._write, 0

    def killing(left: list[int]) -> object:
        def written(self: Parts, *arguments: object) -> int:
            if not left:
                raise Killed
            left.pop()
            return write(self, *arguments)

        return written

    for attempt in range(10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unfinished, "SAVE_EVERY", 0)
            patch.setattr(engine, "STREAM_SHARD", 6)
            patch.setattr(Parts, "_write", killing([0] * 4**attempt))
            try:
                assert run_script(name, work, *options) == ""
                break
            except Killed:
                kills += 1
                assert any(path.suffix == ".unfinished" for path in work.iterdir())
    assert kills
    assert results(work) == expected
    assert not any(path.suffix == ".unfinished" for path in work.iterdir())


def test_a_killed_process_goes_on_and_says_so(work: Path) -> None:
    """SIGKILL between two parts of a real process."""
    name, *options = command("score")
    line = [sys.executable, str(SCRIPTS / name), *map(str, options)]
    environment = os.environ | {"LOWBIT_SAVE_EVERY": "0", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, cwd=work, env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (work / "scores.unfinished" / "3.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if not (work / "scores" / "full.parquet").exists():
        assert "going on with what an interrupted run left in scores.unfinished" in done.stderr
    found = results(work)
    for path in [*work.glob("scores/*"), work / "scores.json", work / "gates.json"]:
        path.unlink()
    assert run_script(name, work, *options) == ""
    assert results(work) == found


def test_scores_killed_between_two_methods_are_not_walked_again(work: Path) -> None:
    name, *options = command("score")
    from lowbit.experiments import kept_scores

    write = kept_scores.write_scores

    def killed_at_second(path: str, *arguments: object) -> None:
        if path.endswith("m.parquet"):
            raise Killed
        write(path, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_scores, "write_scores", killed_at_second)
        with pytest.raises(Killed):
            run_script(name, work, *options)
    assert (work / "scores/full.parquet").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "_write", None)  # nothing is left to be made
        assert run_script(name, work, *options) == ""
    found = results(work)
    for path in work.glob("scores/*"):
        path.unlink()
    assert run_script(name, work, *options) == ""
    assert results(work) == found


@pytest.mark.parametrize("job", ["score", "evaluate"])
def test_nothing_unfinished_stays_where_a_job_was_killed_at_its_very_end(
    job: str, work: Path
) -> None:
    name, *options = command(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfinished, "remove", lambda folder: None)
        assert run_script(name, work, *options) == ""
    assert len(list(work.glob("*.unfinished"))) == 1
    assert run_script(name, work, *options) == ""
    assert not list(work.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the device while"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up while"),
        (MemoryError("Unable to allocate 9 GiB"), "the memory is full (Unable to allocate 9 GiB)"),
        (torch.OutOfMemoryError("CUDA out of memory.\nmore"), "the memory is full (CUDA out of"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "the memory is full (DefaultCPUAllocator",
        ),
    ],
    ids=["disk", "quota", "numpy", "gpu", "cpu"],
)
def test_a_full_disk_or_memory_is_told_and_the_job_goes_on(
    error: Exception, told: str, work: Path
) -> None:
    name, *options = command("patch")
    write, written = Parts._write, []

    def failing(self: Parts, first: int, *arguments: object) -> int:
        written.append(first)
        if len(written) == 4:
            raise error
        return write(self, first, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfinished, "SAVE_EVERY", 0)
        patch.setattr(Parts, "_write", failing)
        message = run_script(name, work, *options)
        assert message.startswith(f"error: {told}")
        assert "run the same command again: what is finished is kept." in message
        assert run_script(name, work, *options) == ""
    found = results(work)
    assert run_script(name, work, *options) == ""
    assert results(work) == found


def test_a_defect_keeps_its_traceback() -> None:
    def main() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run(main)
    with pytest.raises(SystemExit, match="error: write this"):
        run(lambda: (_ for _ in ()).throw(InputError("write this")))
