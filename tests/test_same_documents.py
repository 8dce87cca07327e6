"""All models of a study score the same documents: long enough under every tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_script import run_script
from tiny_checkpoints import write_checkpoint
from tokenizers import Tokenizer

from lowbit.errors import InputError
from lowbit.files import read_json, write_json
from lowbit.inputs.documents import read_ids
from lowbit.inputs.models import resolve
from lowbit.inputs.tokens import choose_rows, draw_documents, read_tokens

TEXTS = [" ".join(["the cat sat on the mat"] * at) for at in range(1, 13)]
"""Documents of 1 to 12 sentences."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """model.json of a Llama, its copy without merges (more tokens), and a Qwen (no start token)."""
    folder = tmp_path_factory.mktemp("models")
    records = {}
    for name, family in (("llama", "llama"), ("letters", "llama"), ("qwen", "qwen2")):
        directory = write_checkpoint(folder / name / "files", family)
        if name == "letters":
            without_merges(directory / "tokenizer.json")
        records[name] = folder / name / "model.json"
        write_json(records[name], resolve("demo", directory))
    return records


def without_merges(file: Path) -> None:
    """Make a BPE tokenizer split every text into single bytes."""
    content = json.loads(file.read_text())
    content["model"]["merges"] = []
    Tokenizer.from_str(json.dumps(content)).save(str(file))


def choose(folder: Path, records: list[Path], **options: Any) -> tuple[str, list[str]]:
    """Run the script as a rule would; return its error text and the ids it chose."""
    frame = pd.DataFrame({"doc_id": [f"d{at}" for at in range(len(TEXTS))], "text": TEXTS})
    frame.to_parquet(folder / "documents.parquet")
    settings = {"n": 5, "length": 31, "seed": 0} | options
    arguments = ["--models", *records, "--documents", "documents.parquet"]
    arguments += [text for key, value in settings.items() for text in (f"--{key}", value)]
    arguments += ["--output", "out/ids.txt", "--record", "out/ids.json"]
    told = run_script("choose_documents.py", folder, *arguments)
    return told, [] if told else read_ids(folder / "out/ids.txt")


def tokenize(
    folder: Path, record: Path, chosen: bool, **options: Any
) -> tuple[list[str], np.ndarray]:
    """Tokenize for one model as a rule would."""
    settings = {"n": 5, "length": 31, "seed": 0} | options
    arguments = ["--model", record, "--documents", "documents.parquet"]
    arguments += ["--chosen", "out/ids.txt"] if chosen else []
    arguments += [text for key, value in settings.items() for text in (f"--{key}", value)]
    arguments += ["--output", "out/t.parquet", "--record", "out/t.json", "--ids", "out/used.txt"]
    assert run_script("tokenize_documents.py", folder, *arguments) == ""
    doc_ids, tokens = read_tokens(folder / "out/t.parquet")
    assert read_ids(folder / "out/used.txt") == doc_ids
    return doc_ids, tokens


def test_every_model_gets_the_same_documents_and_each_is_long_enough(
    models: dict[str, Path], tmp_path: Path
) -> None:
    told, ids = choose(tmp_path, list(models.values()))
    assert told == ""
    long_enough = {
        name: entry["long_enough"]
        for name, entry in read_json(tmp_path / "out/ids.json")["models"].items()
    }
    assert long_enough["letters"] > long_enough["llama"] > long_enough["qwen"]
    assert read_json(tmp_path / "out/ids.json")["eligible"] == long_enough["qwen"]
    for record in models.values():
        doc_ids, tokens = tokenize(tmp_path, record, chosen=True)
        assert doc_ids == ids
        assert tokens.shape == (5, 31)
        assert read_json(tmp_path / "out/t.json")["chosen"] == "for all models"


def test_models_with_one_tokenizer_get_what_each_would_choose_by_itself(
    models: dict[str, Path], tmp_path: Path
) -> None:
    _, ids = choose(tmp_path, [models["qwen"], models["qwen"]])
    assert tokenize(tmp_path, models["qwen"], chosen=False)[0] == ids


def test_too_few_documents_for_all_models_are_told(models: dict[str, Path], tmp_path: Path) -> None:
    told, _ = choose(tmp_path, list(models.values()), length=70, n=8)
    assert told.startswith("error: only ")
    assert "of 12 documents have 70 tokens or more, but 8 are asked for by documents.n" in told


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=30),
    st.integers(0, 5),
)
def test_the_draw_is_over_what_is_long_enough_everywhere(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    table = np.array(sizes)
    both = np.flatnonzero((table >= 4).all(axis=1))
    fewest = table.min(axis=1)
    if len(both) < 2:
        with pytest.raises(InputError):
            draw_documents(fewest, 2, 4, seed)
        return
    chosen = draw_documents(fewest, 2, 4, seed)
    assert set(chosen) <= set(both)
    alone = choose_rows([str(at) for at in both], [[1] * 4] * len(both), 2, 4, seed)
    assert [str(at) for at in chosen] == alone.doc_ids
