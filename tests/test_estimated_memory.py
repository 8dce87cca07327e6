"""Memory that jobs of a model larger than Python's libraries take, beside what the plan says.

Models here are random and large enough that their own memory is most of a job's; what Python and
its libraries take is found by the same job on a tiny model.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from environments import ROOT, python_of

from bench.random_llama import write_model
from bench.shape import Shape
from study.config.study import Study, load_study
from study.estimates.engine_memory import cpu_memory
from study.estimates.need import MIB
from study.estimates.shapes import shape_of
from study.estimates.walks import engine_job

TINY = Shape(hidden=64, intermediate=128, layers=2, heads=4, vocabulary=128)
LARGE = Shape(hidden=1024, intermediate=2816, layers=4, heads=16, vocabulary=8192)
N, LENGTH = 16, 128
TOLERANCE = 0.2
PEAK = re.compile(r"peak memory: (\d+) MiB")


def prepare(folder: Path, shape: Shape) -> Path:
    """Write a model, its weights in 4 bits, and random tokens."""
    write_model(shape, folder, LENGTH, bits=4, group_size=32)
    ids = np.random.default_rng(0).integers(shape.vocabulary, size=(N, LENGTH), dtype=np.int32)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), LENGTH)
    table = pa.table({"doc_id": [f"d{k}" for k in range(N)], "token_ids": rows})
    pyarrow.parquet.write_table(table, folder / "tokens.parquet")
    return folder


def peak(folder: Path, study: Study) -> float:
    """Bytes that a job that scores takes at its peak."""
    record = str(folder / "rtn/method.json")
    methods = [
        {"name": name, "record": made, "scores": str(folder / f"{name}.parquet")}
        for name, made in (("full", None), *((name, record) for name in study.methods))
    ]
    options = {
        "--model": folder / "model.json",
        "--tokens": folder / "tokens.parquet",
        "--methods": json.dumps(methods),
        "--settings": study.engine.model_dump_json(),
        "--code": study.engine.mode,
        "--gates": folder / "gates.json",
        "--output": folder / "scores.json",
    }
    command = [python_of("core"), ROOT / "scripts/score.py", *sum(options.items(), ())]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | threads | {"OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(PEAK.search(done.stderr)[1]) * MIB


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny and the large model."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: prepare(folder / name, shape) for name, shape in (("tiny", TINY), ("large", LARGE))
    }


@pytest.fixture
def study_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Makes a study of two methods with engine settings."""
    monkeypatch.chdir(ROOT)
    methods = {name: {"quantizer": "rtn", "bits": 4, "group_size": 32} for name in ("a", "b")}
    documents = {"name": "d", "source": "demo", "n": N, "length": LENGTH}

    def make(**engine: Any) -> Study:
        changes = {"methods": methods, "documents": documents, "perturbation": None}
        changes["engine"] = {"device": "cpu"} | engine
        return load_study(Path("config.yaml"), overrides=changes)

    return make


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_scoring_takes_the_memory_that_is_planned(
    mode: str, folders: dict[str, Path], study_of: Callable[..., Study]
) -> None:
    study = study_of(mode=mode)

    def planned(name: str) -> float:
        shape = shape_of(folders[name] / "files")
        return cpu_memory(engine_job("score", study, shape), shape, study.engine)

    libraries = peak(folders["tiny"], study) - planned("tiny")
    taken = peak(folders["large"], study)
    assert libraries + planned("large") == pytest.approx(taken, rel=TOLERANCE)
    assert planned("large") > libraries / 2
