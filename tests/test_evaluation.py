"""Evaluation sets: rows, scores, and what independent implementations say of the same texts."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from environments import run_in
from hypothesis import given
from hypothesis import strategies as st
from mechanism_inputs import SETTINGS, open_engine
from run_script import run_script
from tiny_models import MODELS, VOCABULARY, build, token_ids
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lowbit.engine.edits import Edited, Restoration
from lowbit.engine.engine import Engine
from lowbit.engine.losses import chosen_losses, token_losses
from lowbit.engine.walk import Stream
from lowbit.errors import InputError
from lowbit.experiments.evaluation import RowScores, evaluation_scores, join_rows
from lowbit.files import read_json, sha256, write_json
from lowbit.inputs.evaluation import (
    LAST_WORD,
    EvaluationRows,
    cut_windows,
    draw_items,
    last_word_rows,
    read_rows,
    split_last_word,
    write_rows,
)
from lowbit.inputs.models import resolve
from lowbit.names import FULL
from lowbit.quantization.quantized import dequantize, describe, write_quantized
from lowbit.quantizers import rtn

# Rows


@given(st.integers(8, 200), st.integers(8, 30), st.none() | st.integers(1, 9))
def test_windows_follow_each_other_and_the_remainder_is_dropped(
    size: int, length: int, n: int | None
) -> None:
    ids = list(range(size))
    if size < length:
        with pytest.raises(InputError, match=f"evaluation.w.source has {size} tokens, too few"):
            cut_windows(ids, length, n, "evaluation.w")
        return
    rows, there = cut_windows(ids, length, n, "evaluation.w")
    assert there == size // length
    assert len(rows) == min(there, n or there)
    assert rows.token_ids.ravel().tolist() == ids[: len(rows) * length]
    assert (rows.tokens == length - 1).all()
    assert rows.scored.all()
    assert rows.row_ids == [str(number) for number in range(len(rows))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat sat", ("the cat", " sat")),
        ("the cat  sat", ("the cat", "  sat")),
        ('"No.\n\nHe left', ('"No.\n\nHe', " left")),
        ("one\n two", ("one", "\n two")),
        ("word", None),
        ("ends in a space ", None),
        (" word", None),
        ("", None),
    ],
)
def test_the_last_word_is_what_follows_the_last_space(
    text: str, expected: tuple[str, str] | None
) -> None:
    assert split_last_word(text) == expected


def test_items_are_padded_on_the_right_and_cut_on_the_left() -> None:
    texts = [[0, 1, 2], [0, *range(10, 19)], [0, 3, 4, 5, 6]]
    before = [[0, 1], [0, *range(10, 17)], [0, 3, 4]]
    rows, cut = last_word_rows(["a", "b", "c"], texts, before, 6, "evaluation.l")
    assert cut == 1
    assert rows.row_ids == ["b", "c", "a"]
    assert rows.token_ids.tolist() == [
        [12, 13, 14, 15, 16, 17, 18],
        [0, 3, 4, 5, 6, 0, 0],
        [0, 1, 2, 0, 0, 0, 0],
    ]
    assert rows.first.tolist() == [5, 3, 2]
    assert rows.end.tolist() == [7, 5, 3]
    assert rows.inputs.shape == (3, 6)
    assert rows.input_lengths.tolist() == [6, 4, 2]
    assert rows.scored.astype(int).tolist() == [
        [0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]
    uncut, cut = last_word_rows(["a", "b", "c"], texts, before, None, "evaluation.l")
    assert (uncut.token_ids.shape[1], cut) == (10, 0)


def test_items_that_no_model_could_be_asked_are_told() -> None:
    for texts, before, told in (
        ([[0, 1]], [[0, 1]], "the last word of a has 0 tokens, the model can be asked for 1 to 1"),
        (
            [[*range(9)]],
            [[0]],
            "the last word of a has 8 tokens, the model can be asked for 1 to 4",
        ),
        ([[*range(9)]], [[*range(8)]], "none of its 1 items fits .* 4 tokens, the shortest has 9"),
    ):
        with pytest.raises(InputError, match=told):
            last_word_rows(["a"], texts, before, 4, "evaluation.l")


def test_items_are_drawn_by_the_seed_in_their_own_order() -> None:
    assert draw_items(5, None, 0).tolist() == draw_items(5, 9, 1).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_items(100, 20, 0)
    assert drawn.tolist() == sorted(set(drawn))
    assert drawn.tolist() == draw_items(100, 20, 0).tolist() != draw_items(100, 20, 1).tolist()


def random_items(count: int = 7, seed: int = 0) -> EvaluationRows:
    """Items of 3 to 20 random tokens, the last 1 to 2 of which are the word."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(2, VOCABULARY, size).tolist() for size in rng.integers(3, 21, count)]
    before = [text[: -rng.integers(1, 3)] for text in texts]
    return last_word_rows(list("abcdefghij")[:count], texts, before, None, "evaluation.l")[0]


def test_the_file_keeps_the_rows(tmp_path: Path) -> None:
    for rows in (random_items(), cut_windows(list(range(50)), 8, 3, "evaluation.w")[0]):
        write_rows(tmp_path / "rows.parquet", rows)
        read = read_rows(tmp_path / "rows.parquet")
        assert (read.kind, read.row_ids) == (rows.kind, rows.row_ids)
        for name in ("token_ids", "first", "end"):
            np.testing.assert_array_equal(getattr(read, name), getattr(rows, name))
            assert getattr(read, name).dtype == getattr(rows, name).dtype


# Scores


def scores_of(engine: Engine, streams: list[Stream], rows: EvaluationRows, **more: Any) -> dict:
    """Scores of all streams over all rows."""
    parts = list(evaluation_scores(engine, streams, rows, **more))
    return {name: join_rows([part[name] for part in parts]) for name in parts[0]}


def plain_last_word(model: nn.Module, ids: list[int], first: int) -> tuple[bool, float]:
    """Whether greedy decoding gives the tokens from `first` on, and their NLL; unpadded."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, first - 1 : -1].double()
    word = torch.tensor(ids[first:])
    nll = torch.nn.functional.cross_entropy(logits, word, reduction="sum")
    return bool((logits.argmax(-1) == word).all()), float(nll)


def with_greedy_words(model: nn.Module, rows: EvaluationRows) -> EvaluationRows:
    """The same rows, the last word of every other one being what the model would say."""
    token_ids = rows.token_ids.copy()
    for row in range(0, len(rows), 2):
        for place in range(rows.first[row], rows.end[row]):
            with torch.inference_mode():
                logits = model(torch.tensor(token_ids[row : row + 1, :place]).long()).logits
            token_ids[row, place] = int(logits[0, -1].argmax())
    return EvaluationRows(LAST_WORD, rows.row_ids, token_ids, rows.first, rows.end)


@pytest.mark.parametrize("name", MODELS)
def test_padded_rows_give_what_each_row_gives_alone(name: str) -> None:
    model = build(name)
    rows = with_greedy_words(model, random_items())
    engine = open_engine(model)
    scores = scores_of(engine, [engine.full], rows)[FULL]
    expected = [
        plain_last_word(model, ids[:end].tolist(), first)
        for ids, first, end in zip(rows.token_ids, rows.first, rows.end, strict=True)
    ]
    assert scores.correct.tolist() == [correct for correct, _ in expected]
    assert scores.correct[::2].all()
    assert not scores.correct.all()
    np.testing.assert_allclose(scores.nll, [nll for _, nll in expected], atol=2e-5)


def test_padding_is_never_seen() -> None:
    engine, rows = open_engine(build("llama")), random_items()
    token_ids = rows.token_ids.copy()
    token_ids[np.arange(token_ids.shape[1]) >= rows.end[:, None]] = 7
    other = EvaluationRows(rows.kind, rows.row_ids, token_ids, rows.first, rows.end)
    one, two = (scores_of(engine, [engine.full], each)[FULL] for each in (rows, other))
    np.testing.assert_array_equal(one.nll, two.nll)


def test_chosen_tokens_have_the_losses_of_all() -> None:
    ids = token_ids(5, 9)
    normed = {"a": torch.randn(5, 9, 16), "b": torch.randn(5, 9, 16)}
    head = torch.randn(16, VOCABULARY)

    def logits(states: torch.Tensor) -> torch.Tensor:
        return states @ head

    everything = token_losses(logits, normed, ids, None)
    chosen = torch.rand(5, 8) < 0.4
    some = chosen_losses(
        logits, {k: v[:, :-1] for k, v in normed.items()}, ids[:, 1:], chosen, True
    )
    for name in normed:
        assert torch.equal(some[name].nll, torch.where(chosen, everything[name].nll, 0.0))
        top = logits(normed[name][:, :-1]).argmax(-1) == ids[:, 1:]
        assert torch.equal(some[name].hit, top | ~chosen)


def test_edited_streams_are_scored_beside_their_base() -> None:
    model, other = build("llama"), build("llama", seed=1)
    engine, rows = open_engine(model), random_items()
    blocks = [dict(block.named_parameters()) for block in other.model.layers]
    swapped = Stream("other", blocks.__getitem__)
    edit = Edited(FULL, Restoration(blocks.__getitem__, frozenset(range(3))))
    together = scores_of(engine, [engine.full], rows, edits={"edited": edit})
    apart = scores_of(engine, [swapped], rows)["other"]
    np.testing.assert_allclose(together["edited"].nll, apart.nll, atol=1e-5)
    alone = scores_of(engine, [engine.full], rows)[FULL]
    np.testing.assert_array_equal(together[FULL].nll, alone.nll)
    assert np.abs(apart.nll - alone.nll).min() > 1e-3


def test_weights_read_block_by_block_give_the_same(tmp_path: Path) -> None:
    model, rows = build("llama"), random_items(10)
    model.save_pretrained(tmp_path / "files")
    files = {p.name: {"bytes": p.stat().st_size} for p in (tmp_path / "files").iterdir()}
    write_json(tmp_path / "model.json", {"files": files})
    found = []
    for mode in ("resident", "stream"):
        engine = Engine.open(tmp_path / "model.json", SETTINGS | {"mode": mode})
        found.append(scores_of(engine, [engine.full], rows)[FULL])
    np.testing.assert_array_equal(found[0].nll, found[1].nll)
    np.testing.assert_array_equal(found[0].correct, found[1].correct)


# The scripts, against independent implementations


WORDS = ("the", "cat", "sat", "on", "a", "mat", "model", "of", "language", "table", "counts", ".")


def make_texts(count: int, words: tuple[int, int], seed: int = 0) -> list[str]:
    """Texts of so many words, each the one after the last in `WORDS` but for one in five."""
    rng = np.random.default_rng(seed)
    texts = []
    for size in rng.integers(*words, count):
        steps = np.where(rng.random(size) < 0.2, rng.integers(2, 9, size), 1)
        texts.append(" ".join(WORDS[at % len(WORDS)] for at in np.cumsum(steps)))
    return texts


@pytest.fixture(scope="module")
def record(llama_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.json of a tiny Llama (context 64) that has learned something of such texts."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(llama_source, folder / "files")
    model = AutoModelForCausalLM.from_pretrained(folder / "files")
    tokenizer = AutoTokenizer.from_pretrained(folder / "files")
    ids = tokenizer(" ".join(make_texts(80, (40, 50), seed=2)), return_tensors="pt").input_ids
    rows = ids[0, : ids.numel() // 64 * 64].view(-1, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for batch in rows.repeat(20, 1).split(16):
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.save_pretrained(folder / "files")
    write_json(folder / "model.json", resolve("demo", folder / "files"))
    return folder / "model.json"


def tokenize(folder: Path, record: Path, texts: list[str], **settings: Any) -> str:
    """Run the script on these texts as a rule would; return its error."""
    documents = pd.DataFrame({"doc_id": [f"d{at}" for at in range(len(texts))], "text": texts})
    documents.to_parquet(folder / "documents.parquet")
    every = {"kind": "windows", "n": None, "length": None, "join": None} | settings
    return run_script(
        "tokenize_evaluation.py",
        folder,
        *("--model", record, "--documents", "documents.parquet", "--name", "set", "--seed", 0),
        *("--settings", json.dumps(every), "--output", "rows.parquet", "--record", "rows.json"),
    )


def gptq_windows(model: nn.Module, tokenizer: Any, texts: list[str], length: int) -> list[float]:
    """Mean NLL of each window, as GPTQ's own evaluation computes it, window by window."""
    ids = tokenizer("\n\n".join(texts), return_tensors="pt").input_ids
    found = []
    for at in range(ids.numel() // length):
        batch = ids[:, at * length : (at + 1) * length]
        with torch.inference_mode():
            logits = model(batch).logits[:, :-1]
        found.append(float(torch.nn.functional.cross_entropy(logits[0], batch[0, 1:])))
    return found


def write_method(folder: Path, model: nn.Module) -> Path:
    """Quantize the blocks of a Llama with 2 bits; return method.json."""
    layers = {
        f"model.layers.{name}": rtn.quantize(module.weight.detach(), bits=2, group_size=16)
        for name, module in model.model.layers.named_modules()
        if isinstance(module, nn.Linear)
    }
    folder.mkdir()
    write_quantized(folder / "weights.safetensors", layers, {})
    described = {name: describe(layer) for name, layer in layers.items()}
    weights = sha256(folder / "weights.safetensors")
    write_json(folder / "method.json", {"weights_sha256": weights, "layers": described})
    return folder / "method.json"


def evaluate(folder: Path, record: Path, sets: list[str], methods: dict, code: str = "c") -> Any:
    """Run the script on sets `<name>.parquet` as the rule would; return the table of scores."""
    listed = [
        {
            "name": name,
            "record": method and str(method),
            "scores": {each: str(folder / "scores" / f"{each}-{name}.parquet") for each in sets},
        }
        for name, method in {"full": None, **methods}.items()
    ]
    rows = {name: str(folder / f"{name}.parquet") for name in sets}
    told = run_script(
        "evaluate.py",
        folder,
        *("--model", record, "--sets", json.dumps(rows), "--methods", json.dumps(listed)),
        *("--settings", json.dumps(SETTINGS), "--code", code, "--gates", "gates.json"),
        *("--output", "evaluation.parquet"),
    )
    assert told == ""
    return pd.read_parquet(folder / "evaluation.parquet")


@pytest.fixture
def prepared(tmp_path: Path, record: Path) -> tuple[Path, dict, list[str], list[str]]:
    """Two sets, windows and items, in a folder; the quantized method; the texts of both sets."""
    texts, items = make_texts(9, (40, 90)), make_texts(15, (2, 100), seed=1)
    for name, kind, given_texts in (("w", "windows", texts), ("l", "last_word", items)):
        assert tokenize(tmp_path, record, given_texts, kind=kind) == ""
        for suffix in ("parquet", "json"):
            (tmp_path / f"rows.{suffix}").rename(tmp_path / f"{name}.{suffix}")
    model = AutoModelForCausalLM.from_pretrained(record.parent / "files")
    return tmp_path, {"rtn2": write_method(tmp_path / "rtn2", model)}, texts, items


def test_scripts_give_what_plain_loops_over_hugging_face_give(prepared: Any, record: Path) -> None:
    folder, methods, texts, items = prepared
    table = evaluate(folder, record, ["w", "l"], methods)
    assert list(table.columns) == ["set", "kind", "method", "row", "nll", "tokens", "correct"]
    model = AutoModelForCausalLM.from_pretrained(record.parent / "files").eval()
    tokenizer = AutoTokenizer.from_pretrained(record.parent / "files")
    for method in ("full", "rtn2"):
        if method == "rtn2":
            for module in model.model.layers.modules():
                if isinstance(module, nn.Linear):
                    layer = rtn.quantize(module.weight.detach(), bits=2, group_size=16)
                    module.weight.data = dequantize(layer)
        mine = table[table["method"] == method]
        windows = mine[mine["set"] == "w"]
        expected = gptq_windows(model, tokenizer, texts, length=64)
        np.testing.assert_allclose(windows["nll"] / windows["tokens"], expected, atol=1e-5)
        assert windows["correct"].isna().all()
        words = mine[mine["set"] == "l"].set_index("row")
        for at, text in enumerate(items):
            ids = tokenizer(text).input_ids
            first = len(tokenizer(text.rpartition(" ")[0]).input_ids)
            cut = max(0, len(ids) - 65)
            correct, nll = plain_last_word(model, ids[cut:], first - cut)
            row = words.loc[f"d{at}"]
            assert row["correct"] == correct
            assert row["nll"] == pytest.approx(nll, abs=2e-5)
            assert row["tokens"] == len(ids) - first
    assert 0 < table.loc[table["method"] == "full", "correct"].mean() < 1
    record_of = read_json(folder / "l.json")
    assert 0 < record_of["cut_from_the_left"] < len(items)
    assert record_of["whole"] is True
    gates = read_json(folder / "gates.json")
    assert gates["w"]["rtn2"] == gates["l"]["rtn2"] == {"self_patch": 0.0, "full_patch": 0.0}
    assert gates["l"]["full"]["parity_with_plain_forward"] <= 1e-5


def test_only_what_is_missing_is_scored_again(prepared: Any, record: Path) -> None:
    folder, methods, _, _ = prepared

    def dates() -> dict[str, int]:
        return {path.stem: path.stat().st_mtime_ns for path in (folder / "scores").iterdir()}

    evaluate(folder, record, ["w"], {})
    first = dates()
    table = evaluate(folder, record, ["w", "l"], methods)
    second = dates()
    assert set(second) == {"w-full", "w-rtn2", "l-full", "l-rtn2"}
    assert second["w-full"] == first["w-full"]
    again = evaluate(folder, record, ["w", "l"], methods)
    assert dates() == second
    pd.testing.assert_frame_equal(table, again)
    evaluate(folder, record, ["w", "l"], methods, code="other")
    assert all(dates()[name] != date for name, date in second.items())


def test_the_record_says_what_was_made_of_the_text(record: Path, tmp_path: Path) -> None:
    texts = make_texts(9, (20, 60))
    assert tokenize(tmp_path, record, texts) == ""
    whole, rows = read_json(tmp_path / "rows.json"), read_rows(tmp_path / "rows.parquet")
    assert whole["length"] == 64, "the model's context, which is shorter than 2,048"
    assert (whole["whole"], whole["windows"]) == (True, len(rows))
    assert whole["scored_tokens"] == 63 * len(rows)
    assert (rows.token_ids == 0).sum() == 1, "the start token is at the beginning only"
    assert rows.token_ids[0, 0] == 0
    assert tokenize(tmp_path, record, texts, n=2, length=16) == ""
    some, first = read_json(tmp_path / "rows.json"), read_rows(tmp_path / "rows.parquet")
    assert (some["whole"], some["windows"], some["length"]) == (False, 2, 16)
    np.testing.assert_array_equal(first.token_ids.ravel(), rows.token_ids.ravel()[:32])


def test_a_long_text_is_tokenized_only_as_far_as_it_is_needed(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lowbit.inputs import tokenizer

    texts, seen, encode = make_texts(400, (50, 60)), [], tokenizer.encode
    monkeypatch.setattr(
        tokenizer, "encode", lambda given, *more: seen.append(given) or encode(given, *more)
    )
    tokenize(tmp_path, record, texts, length=8)
    every = read_rows(tmp_path / "rows.parquet").token_ids
    tokenize(tmp_path, record, texts, n=20, length=8)
    assert len(seen[1][0]) < len(seen[0][0]) / 10
    np.testing.assert_array_equal(read_rows(tmp_path / "rows.parquet").token_ids, every[:20])


def test_empty_documents_stand_between_others_as_they_are_joined(
    record: Path, tmp_path: Path
) -> None:
    texts = ["", " = A = \n", "", *make_texts(3, (20, 30))]
    source = tmp_path / "wiki.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    fetch = ("--source", f"path:{source}", "--demo", "x", "--output", "out.parquet")
    told = run_script("fetch_documents.py", tmp_path, *fetch, "--record", "o.json", "--keep-empty")
    assert told == ""
    read = pd.read_parquet(tmp_path / "out.parquet")["text"].tolist()
    assert read == texts
    tokenize(tmp_path, record, read, length=32)
    tokenizer = AutoTokenizer.from_pretrained(record.parent / "files")
    expected = tokenizer("\n\n".join(texts)).input_ids[:32]
    assert read_rows(tmp_path / "rows.parquet").token_ids[0].tolist() == expected


@pytest.mark.parametrize(
    ("texts", "settings", "told"),
    [
        (["the cat"], {}, r"evaluation.set.source has \d tokens, too few for one window of 64"),
        ([""], {}, "evaluation.set.source has 1 tokens, too few"),
        (["the cat", "cat "], {"kind": "last_word"}, "d1 has no last word: each text must end in"),
        (["the cat " * 60 + "cat"], {"kind": "last_word"}, "none of its 1 items fits the model's"),
    ],
)
def test_texts_that_cannot_be_used_are_told(
    record: Path, tmp_path: Path, texts: list[str], settings: dict, told: str
) -> None:
    message = tokenize(tmp_path, record, texts, **settings)
    assert re.search(told, message), message
    assert not (tmp_path / "rows.parquet").exists()


def test_a_file_without_the_text_column_is_told_with_the_sets_key(tmp_path: Path) -> None:
    pd.DataFrame({"body": ["a b"]}).to_parquet(tmp_path / "a.parquet")
    told = run_script(
        "fetch_documents.py",
        tmp_path,
        *("--source", "path:a.parquet", "--demo", "x", "--key", "evaluation.lambada"),
        *("--output", "o.parquet", "--record", "o.json"),
    )
    assert told == "error: a.parquet has no text; set evaluation.lambada.text_column to one of body"


def test_lm_evaluation_harness_says_the_same(prepared: Any, record: Path) -> None:
    folder, _, _, items = prepared
    table = evaluate(folder, record, ["w", "l"], {})
    file = folder / "items.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in items))
    np.save(folder / "windows.npy", read_rows(folder / "w.parquet").token_ids)
    script = "tests/library_checks/lm_eval_items.py"
    arguments = (record.parent / "files", file, folder / "windows.npy")
    found = json.loads(run_in("lm_eval", script, *map(str, arguments)).splitlines()[-1])
    words = table[table["set"] == "l"].set_index("row").loc[[f"d{at}" for at in range(len(items))]]
    assert words["correct"].tolist() == found["items"]["correct"]
    assert 0 < words["correct"].mean() < 1
    assert words["correct"].mean() == found["items"]["accuracy"]
    np.testing.assert_allclose(words["nll"], found["items"]["nll"], atol=1e-4)
    assert np.exp(words["nll"].mean()) == pytest.approx(found["items"]["perplexity"], rel=1e-4)
    windows = table[table["set"] == "w"]
    theirs = np.exp(np.sum(found["rows"]) / windows["tokens"].sum())
    ours = np.exp(windows["nll"].sum() / windows["tokens"].sum())
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_parts_are_joined_in_order() -> None:
    parts = [
        RowScores(np.array([1.0]), np.array([True])),
        RowScores(np.array([2.0]), np.array([False])),
    ]
    joined = join_rows(parts)
    assert (joined.nll.tolist(), joined.correct.tolist()) == ([1.0, 2.0], [True, False])
