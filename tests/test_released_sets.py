"""The sets that the inputs paper's authors released: fetched, checked, decoded, compared."""

import functools
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from run_script import run_script
from tiny_checkpoints import write_checkpoint

from lowbit.analysis.released_sets import agreement_table, released_sets
from lowbit.analysis.statistics import BootstrapSettings, expected_jaccard
from lowbit.analysis.tables import Method
from lowbit.errors import InputError
from lowbit.files import read_json, sha256, write_json
from lowbit.inputs.documents import find_documents, outline_documents
from lowbit.inputs.models import resolve
from lowbit.inputs.released_sets import SHAPE, parse_released, read_rows
from lowbit.inputs.tokenizer import encode, load_tokenizer, tokenizer_sha256

ROWS, LENGTH = 100, 64
"""Of the sets made here; the authors' are larger."""
WORDS = ["the", "cat", "sat", "on", "mat", "a", "model", "of", "language", "is", "table", "counts"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.json of a tiny Llama, whose tokenizer puts 0 before a text."""
    return record_of(tmp_path_factory.mktemp("llama"), "llama")


def record_of(folder: Path, family: str) -> Path:
    """model.json of a tiny model."""
    write_json(folder / "model.json", resolve("demo", write_checkpoint(folder / "files", family)))
    return folder / "model.json"


def token_rows(record: Path, seed: int) -> torch.Tensor:
    """Texts of random words as the authors' files hold them."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, LENGTH)) for _ in range(ROWS)]
    model, tokenizer = read_json(record), load_tokenizer(record.parent / "files")
    ids = [row[:LENGTH] for row in encode(texts, tokenizer, model["start_token"])]
    return torch.tensor(ids)


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' folder `data`, with sets of two methods that share half of the documents."""
    folder = tmp_path_factory.mktemp("QError") / "data"
    large, control, other = (token_rows(llama, seed) for seed in range(3))
    for method, part, rows in (
        ("awq3", "large", large),
        ("awq3", "nonlarge", control),
        ("nf3", "large", torch.cat([other[:50], large[:50]])),
        ("nf3", "nonlarge", control),
    ):
        file = folder / f"Meta-Llama-3-8B/{method}-{part}_error_seqs-10.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(rows, file)
    return folder


@pytest.fixture
def served(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The folder behind a local HTTP server, which the variable names."""
    monkeypatch.setattr("lowbit.inputs.released_sets.SHAPE", (ROWS, LENGTH))
    handler = functools.partial(QuietHandler, directory=str(data))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("QERROR_URL", url)
    yield url
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def fetch(folder: Path, source: str, record: Path) -> str:
    """Run the script as a rule would."""
    options = ["--source", source, "--demo", "demo.parquet", "--model", record]
    options += ["--output", "out/documents.parquet", "--record", "out/documents.json"]
    return run_script("fetch_documents.py", folder, *options)


def test_sets_are_fetched_decoded_and_recorded(
    served: str, data: Path, llama: Path, tmp_path: Path
) -> None:
    assert fetch(tmp_path, "qerror:Meta-Llama-3-8B/awq3+nf3", llama) == ""
    frame = pd.read_parquet(tmp_path / "out/documents.parquet")
    assert len(frame) == 250
    assert frame["doc_id"].is_unique
    sets = frame.set_index("doc_id")["source"]
    assert sets["awq3-large#0"] == "awq3-large nf3-large"
    assert sets["awq3-large#99"] == "awq3-large"
    assert sets["awq3-nonlarge#3"] == "awq3-nonlarge nf3-nonlarge"
    assert sets["nf3-large#0"] == "nf3-large"
    rows = torch.load(data / "Meta-Llama-3-8B/awq3-large_error_seqs-10.pt", weights_only=True)
    assert (np.stack(frame["token_ids"][:100]) == rows.numpy()).all()
    tokenizer = load_tokenizer(llama.parent / "files")
    assert frame["text"][7] == tokenizer.decode(rows[7], skip_special_tokens=True)
    assert set(frame["tokenizer_sha256"]) == {tokenizer_sha256(read_json(llama)["files"])}
    record = read_json(tmp_path / "out/documents.json")
    assert record["files"]["Meta-Llama-3-8B/nf3-large_error_seqs-10.pt"] == sha256(
        data / "Meta-Llama-3-8B/nf3-large_error_seqs-10.pt"
    )
    assert record["commit"].startswith("9fdcdd7")
    assert record["same_tokens_again"] > 0.9


def test_a_folder_takes_the_servers_place(
    data: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowbit.inputs.released_sets.SHAPE", (ROWS, LENGTH))
    monkeypatch.setenv("QERROR_URL", data.as_uri())
    assert fetch(tmp_path, "qerror:Meta-Llama-3-8B/awq3", llama) == ""
    assert len(pd.read_parquet(tmp_path / "out/documents.parquet")) == 200


def test_a_file_that_is_not_there_is_told(served: str, llama: Path, tmp_path: Path) -> None:
    told = fetch(tmp_path, "qerror:Qwen2.5-7B/awq3", llama)
    assert f"error: {served}/Qwen2.5-7B/awq3-large_error_seqs-10.pt cannot be read (HTTP" in told
    assert "set QERROR_URL to another place" in told


def test_the_tokens_of_another_model_are_refused(served: str, llama: Path, tmp_path: Path) -> None:
    told = fetch(tmp_path, "qerror:Meta-Llama-3-8B/awq3", record_of(tmp_path / "q", "qwen2"))
    assert "rows begin with [0], but the study's model puts None before a text" in told
    shuffled = record_of(tmp_path / "s", "llama")
    # A word and a letter change places: all ids exist, but a text of them is cut up differently.
    file = shuffled.parent / "files" / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["Ġcat"], words["e"] = words["e"], words["Ġcat"]
    file.write_text(json.dumps(content))
    told = fetch(tmp_path, "qerror:Meta-Llama-3-8B/awq3", shuffled)
    assert "of the rows come out the same when their text is tokenized again" in told


def saved(value: Any) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


RELEASED = torch.ones(SHAPE, dtype=torch.int64)
BROKEN = {
    "no tensor": (saved({"rows": [1]}), "holds <class 'dict'>, not torch.int64 [1000, 512]"),
    "other numbers": (saved(RELEASED.float()), "holds torch.float32 [1000, 512], not torch.int64"),
    "another shape": (saved(RELEASED[:, 1:]), "holds torch.int64 [1000, 511], not"),
    "cut off": (saved(RELEASED)[:-100], "is not a tensor as PyTorch saves it"),
    "unknown tokens": (
        saved(RELEASED * 320),
        "token ids from 320 to 320, but the study",
    ),
    "no start token": (saved(RELEASED), "rows begin with [1], but the study's model puts 0 before"),
}


@pytest.mark.parametrize(("content", "told"), BROKEN.values(), ids=list(BROKEN))
def test_what_was_not_released_so_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_rows(content, "x.pt", {"start_token": 0, "vocabulary": 320})
    assert told in str(caught.value)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "harmed",))

    with pytest.raises(InputError, match="is not a tensor as PyTorch saves it"):
        read_rows(saved(Harmful()), "x.pt", {"start_token": 0, "vocabulary": 320})
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "qerror:Qwen2.5-7B/awq4",
            "there are sets of awq3, gptq3, nf3; write qerror:Qwen2.5-7B/aw",
        ),
        ("qerror:Qwen2.5-7B/awq3+awq3", "there are sets of awq3, gptq3, nf3"),
        ("qerror:Qwen2.5-7B", "there are sets of awq3, gptq3, nf3"),
        ("qerror:gpt2/awq3", "there are sets of the models Qwen2.5-7B, Meta-Llama-3-8B"),
        ("qerror", "write qerror:<model>/<method>"),
    ],
)
def test_sets_that_there_are_not_are_told(source: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        outline_documents(source, Path("demo"))
    assert told in str(caught.value)


def test_they_are_pinned_and_need_a_model() -> None:
    outline = parse_released("Meta-Llama-3-70B/awq3")
    assert outline.pinned == "qerror:Meta-Llama-3-70B/awq3"
    assert outline.content["commit"] == "9fdcdd7faabd88dba39314bba8ebb9cc10832aa4"
    with pytest.raises(InputError, match="need a model's tokenizer"):
        find_documents("qerror:Qwen2.5-7B/awq3", Path("demo"))


def test_agreement_is_counted_on_their_documents() -> None:
    """Hand-computed: of ten documents four are their D_large; ours has three of them."""
    sources = ["awq3-large nf3-nonlarge"] * 4 + ["awq3-nonlarge"] * 5 + ["nf3-large"]
    doc_ids = [f"d{at}" for at in range(10)]
    released = released_sets(pd.DataFrame({"doc_id": doc_ids, "source": sources}))
    assert len(released) == 14
    assert released["set"].value_counts().to_dict() == {"control": 9, "large": 5}
    error = [9.0, 8, 7, 0, 6, 1, 1, 1, 1, 0.5]
    errors = pd.concat(
        pd.DataFrame({"doc_id": doc_ids, "method": name, "error": error}) for name in ("a", "r")
    )
    ours = pd.DataFrame({"doc_id": ["d0", "d4"], "method": "a", "set": "large"})
    methods = [Method("a", "awq", 3), Method("r", "rtn", 3)]
    settings = BootstrapSettings(resamples=200, confidence=0.95)
    table = agreement_table(errors, ours, released, methods, settings, 0)
    assert table["method"].tolist() == ["a"]
    row = table.iloc[0]
    assert (row["n"], row["theirs"], row["large"]) == (10, 4, 2)
    assert row["jaccard"] == pytest.approx(3 / 5)
    assert row["precision"] == pytest.approx(3 / 4)
    assert row["precision_chance"] == pytest.approx(0.4)
    assert row["jaccard_chance"] == pytest.approx(expected_jaccard(4, 4, 10))
    assert row["large_precision"] == pytest.approx(1 / 2)
    assert row["jaccard_low"] <= row["jaccard"] <= row["jaccard_high"]
