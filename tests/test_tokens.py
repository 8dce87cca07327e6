"""Token rows: start tokens, lengths, the draw, ready ids, and the file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_script import SCRIPTS, run_script
from tiny_checkpoints import START_TOKENS, write_tokenizer
from tokenizers import processors

from lowbit.errors import InputError
from lowbit.files import read_json, write_json
from lowbit.inputs.models import resolve
from lowbit.inputs.tokenizer import encode, find_start_token, load_tokenizer, tokenizer_sha256
from lowbit.inputs.tokens import (
    TokenRows,
    check_vocabulary,
    choose_rows,
    read_texts,
    read_tokens,
    write_tokens,
)


@pytest.fixture(scope="module", params=list(START_TOKENS))
def family(request: pytest.FixtureRequest) -> str:
    """Name of an architecture family."""
    return request.param


def test_the_start_token_is_what_the_tokenizer_really_puts_first(
    family: str, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path, family)
    tokenizer = load_tokenizer(tmp_path)
    start = find_start_token(tokenizer)
    assert start == START_TOKENS[family]
    texts = ["the cat", "a table of 17 mats\n"]
    assert list(encode(texts, tokenizer, start)) == [tokenizer(text).input_ids for text in texts]


def test_two_start_tokens_are_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama")
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> </s> $A", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    with pytest.raises(InputError, match=r"puts 2 tokens \[0, 1\] before a text"):
        find_start_token(tokenizer)


def choose(sizes: list[int], n: int, length: int, seed: int = 0) -> TokenRows:
    """Choose among documents whose tokens are their own number."""
    ids = [f"d{at}" for at in range(len(sizes))]
    return choose_rows(ids, [[at] * size for at, size in enumerate(sizes)], n, length, seed)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(1, 10), st.data())
def test_rows_are_long_enough_documents_in_table_order(
    sizes: list[int], length: int, data: st.DataObject
) -> None:
    long_enough = [at for at, size in enumerate(sizes) if size >= length]
    n = data.draw(st.integers(1, max(len(long_enough), 1)))
    if n > len(long_enough):
        with pytest.raises(InputError):
            choose(sizes, n, length)
        return
    rows = choose(sizes, n, length)
    chosen = [int(name[1:]) for name in rows.doc_ids]
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(long_enough)
    assert rows.token_ids.shape == (n, length)
    assert rows.token_ids.dtype == np.int32
    assert (rows.token_ids == np.array(chosen)[:, None]).all()
    assert rows.dropped_short == len(sizes) - len(long_enough)
    assert rows.eligible == len(long_enough)


def test_the_draw_is_the_seeds() -> None:
    sizes = [10] * 100
    assert choose(sizes, 20, 5, seed=1).doc_ids == choose(sizes, 20, 5, seed=1).doc_ids
    assert choose(sizes, 20, 5, seed=1).doc_ids != choose(sizes, 20, 5, seed=2).doc_ids
    every = [choose(sizes, 20, 5, seed).doc_ids for seed in range(50)]
    assert len({name for names in every for name in names}) == 100


@pytest.mark.parametrize(
    ("sizes", "n", "told"),
    [
        ([9, 3, 5, 7], 3, "only 2 of 4 documents have 6 tokens or more, but 3 are"),
        ([9, 3, 5, 7], 3, "write documents.n: 2 or documents.length: 5, or give more"),
        ([3, 4], 2, "write documents.length: 3, or give more"),
        ([9], 2, "write documents.n: 1, or give more"),
        ([1], 2, "documents.n; give more or longer documents"),
    ],
)
def test_too_few_long_documents_are_told_with_what_would_do(
    sizes: list[int], n: int, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        choose(sizes, n, 6)
    assert told in str(caught.value)


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    check_vocabulary(np.array([[0, 9]]), 10)
    for ids in ([[0, 10]], [[-1, 3]]):
        with pytest.raises(InputError, match="vocabulary has 10 entries"):
            check_vocabulary(np.array(ids), 10)


def test_the_file_keeps_rows_and_type(tmp_path: Path) -> None:
    rows = TokenRows(["a", "b#1"], np.arange(10, dtype=np.int32).reshape(2, 5), 0, 2)
    write_tokens(tmp_path / "tokens.parquet", rows)
    doc_ids, tokens = read_tokens(tmp_path / "tokens.parquet")
    assert doc_ids == rows.doc_ids
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, rows.token_ids)
    schema = pq.read_schema(tmp_path / "tokens.parquet")
    assert str(schema.field("token_ids").type).startswith("fixed_size_list<")
    assert schema.field("token_ids").type.list_size == 5


def test_reading_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, lowbit.inputs.tokens; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, check=True)


@pytest.fixture
def record(llama_source: Path, tmp_path: Path) -> Path:
    """model.json of the tiny Llama, its directory linked beside it."""
    path = tmp_path / "model" / "model.json"
    write_json(path, resolve("demo", llama_source))
    (path.parent / "files").symlink_to(llama_source)
    return path


def tokenize(
    folder: Path, record: Path, documents: pd.DataFrame, **options: Any
) -> tuple[str, dict[str, bytes]]:
    """Run the script as a rule would; return its error text and the files it wrote."""
    documents.to_parquet(folder / "documents.parquet")
    settings = {"n": 4, "length": 8, "seed": 0} | options
    arguments = ["--model", record, "--documents", "documents.parquet"]
    arguments += [text for key, value in settings.items() for text in (f"--{key}", value)]
    arguments += ["--output", "out/tokens.parquet", "--record", "out/tokens.json"]
    told = run_script("tokenize_documents.py", folder, *arguments)
    return told, {path.name: path.read_bytes() for path in folder.glob("out/*")}


def test_the_script_tokenizes_and_records(record: Path, tmp_path: Path) -> None:
    texts = [
        "the cat sat on the mat " * 3,
        "short",
        *(f"{at} a model on a mat" * 3 for at in "12345"),
    ]
    documents = pd.DataFrame({"doc_id": list("abcdefg"), "text": texts})
    _, files = tokenize(tmp_path, record, documents, n=5)
    assert tokenize(tmp_path, record, documents, n=5)[1] == files
    doc_ids, tokens = read_tokens(tmp_path / "out/tokens.parquet")
    assert len(doc_ids) == len(tokens) == 5
    assert (tokens[:, 0] == 0).all()
    tokenizer = load_tokenizer(record.parent / "files")
    seen = read_texts(tmp_path / "out/tokens.parquet")
    for name, row, text in zip(doc_ids, tokens, seen, strict=True):
        whole = texts["abcdefg".index(name)]
        assert tokenizer(whole).input_ids[:8] == row.tolist()
        assert whole.startswith(text)
        assert tokenizer(text).input_ids == row.tolist()
    assert read_json(tmp_path / "out/tokens.json") == {
        "n": 5,
        "length": 8,
        "seed": 0,
        "start_token": 0,
        "token_ids": "made",
        "tokenizer_sha256": tokenizer_sha256(read_json(record)["files"]),
        "chosen": "for this model",
        "documents": 7,
        "dropped_short": 1,
        "eligible": 6,
    }


def given_rows(tokenizer_hash: str) -> pd.DataFrame:
    """Documents with ready token ids that no tokenizer would make of their text."""
    ids = [np.arange(at, at + 9, dtype=np.int64) for at in range(6)]
    return pd.DataFrame(
        {
            "doc_id": list("abcdef"),
            "text": "x",
            "token_ids": ids,
            "tokenizer_sha256": tokenizer_hash,
        }
    )


def test_ready_ids_are_used_unchanged(record: Path, tmp_path: Path) -> None:
    documents = given_rows(tokenizer_sha256(read_json(record)["files"]))
    tokenize(tmp_path, record, documents)
    doc_ids, tokens = read_tokens(tmp_path / "out/tokens.parquet")
    tokenizer = load_tokenizer(record.parent / "files")
    seen = read_texts(tmp_path / "out/tokens.parquet")
    for name, row, text in zip(doc_ids, tokens, seen, strict=True):
        first = "abcdef".index(name)
        assert row.tolist() == list(range(first, first + 8))
        assert text == tokenizer.decode(row, skip_special_tokens=True)
    assert read_json(tmp_path / "out/tokens.json")["token_ids"] == "given"


def test_ready_ids_of_another_tokenizer_are_refused(record: Path, tmp_path: Path) -> None:
    told, _ = tokenize(tmp_path, record, given_rows("f" * 64))
    assert told.startswith(
        f"error: documents.source has token_ids made by a tokenizer with SHA-256 {'f' * 64}"
    )


def test_too_few_documents_stop_the_script(record: Path, tmp_path: Path) -> None:
    documents = pd.DataFrame({"doc_id": ["a"], "text": ["the cat"]})
    told, files = tokenize(tmp_path, record, documents)
    assert "error: only 0 of 1 documents have 8 tokens or more" in told
    assert files == {}
