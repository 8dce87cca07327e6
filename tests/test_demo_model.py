"""The embedded model: its split, its documents, its training's resumption, its product."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

from demo_model import corpus, documents, last_word, publish, train

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "resources" / "demo"
TINY = train.Recipe(
    hidden_size=32,
    intermediate_size=64,
    layers=2,
    heads=2,
    vocabulary_size=64,
    length=16,
    steps=6,
    batch_size=2,
    save_every=2,
)


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((DEMO / "card.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO / "model" / "tokenizer.json"))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(DEMO / "model", dtype=torch.float32).eval()


def tiny_data() -> train.Data:
    generator = np.random.default_rng(0)
    shapes = [(20, 16), (4, 16), (4, 16)]
    return train.Data(*(generator.integers(0, 64, shape).astype(np.uint16) for shape in shapes))


def tiny_trainer() -> train.Trainer:
    return train.Trainer(TINY, tiny_data(), "cpu", autocast=False, compiled=False)


# Corpus and split


def test_a_module_is_held_out_or_trained_on_but_never_both() -> None:
    source = corpus.Source("package", "1.0", "MIT")
    found = []
    for number in range(60):
        texts = [f"Text {index} of module {number}. " * 40 for index in range(12)]
        found.append((corpus.Module(f"package.module{number}", source, None), texts))
    table = corpus.passage_table(found)
    splits = table.groupby("module")["split"]
    assert splits.nunique().max() == 1
    assert splits.size().min() > 1
    assert set(table["split"]) == {"training", "heldout"}


def test_held_out_share_is_about_what_is_asked_for() -> None:
    share = np.mean([corpus.is_heldout(f"package.module{index}") for index in range(5000)])
    assert share == pytest.approx(corpus.HELDOUT_SHARE, abs=0.015)


def test_docstrings_are_read_without_import_and_each_is_kept_once(tmp_path: Path) -> None:
    prose = "Explain at some length what this function returns and why it does."
    path = tmp_path / "module.py"
    path.write_text(
        f'"""{prose}"""\nraise ImportError\n'
        f'def first():\n    """{prose}"""\n'
        'def short():\n    """Too short."""\n'
        f'add_docstr(first, """Added. {prose}""")\n'
    )
    source = corpus.Source("package", "1.0", "MIT")
    module = corpus.Module("package.module", source, path)
    texts = corpus.module_texts(module)
    assert texts == [prose, f"Added. {prose}", prose] or texts == [prose, prose, f"Added. {prose}"]
    table = corpus.passage_table([(module, texts)])
    assert "\n".join(table["text"]).count(prose) == 2


def test_passages_are_cut_between_texts_and_lose_nothing() -> None:
    texts = [f"{index} " + "word " * (index % 90) for index in range(300)]
    cut = corpus.passages(texts, target=1000)
    assert "\n\n".join(cut) == "\n\n".join(texts)
    assert min(len(item) for item in cut[:-1]) >= 1000
    assert max(len(item) for item in cut) < 2000


def test_content_hash_ignores_order_and_sees_every_change() -> None:
    assert corpus.content_hash(["a", "b"]) == corpus.content_hash(["b", "a"])
    assert corpus.content_hash(["a", "b"]) != corpus.content_hash(["ab"])


# Near-duplicates


def sequential_jaccard(first: list[int], second: list[int]) -> float:
    """Jaccard similarity of token 5-grams, the plain way."""
    grams = [
        {tuple(tokens[start : start + 5]) for start in range(len(tokens) - 4)}
        for tokens in (first, second)
    ]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def test_index_gives_the_plain_jaccard_similarity() -> None:
    generator = np.random.default_rng(1)
    lists = [generator.integers(0, 3, 60).tolist() for _ in range(12)]
    index = documents.GramIndex([documents.gram_set(tokens) for tokens in lists])
    for tokens in lists:
        expected = [sequential_jaccard(tokens, other) for other in lists]
        np.testing.assert_allclose(index.jaccard(documents.gram_set(tokens)), expected)


def test_a_planted_near_duplicate_is_dropped() -> None:
    generator = np.random.default_rng(2)
    training = [generator.integers(0, 4096, 800).tolist() for _ in range(20)]
    fresh = generator.integers(0, 4096, 800).tolist()
    planted = training[7][:300] + generator.integers(0, 4096, 500).tolist()
    assert sequential_jaccard(planted, training[7]) > 0.1
    keep = documents.far_from_training([fresh, planted], training, 0.1)
    assert keep.tolist() == [True, False]
    repeated = fresh[:400] + generator.integers(0, 4096, 400).tolist()
    assert documents.distinct([fresh, repeated, planted], 0.1).tolist() == [True, False, True]


def test_training_rows_begin_long_passages_and_use_no_token_twice() -> None:
    lengths = [700, 100, 1500, 511, 30]
    starts = np.cumsum([2, *lengths])
    passages = [
        list(range(start, start + size)) for start, size in zip(starts, lengths, strict=False)
    ]
    rows = documents.training_rows(passages)
    assert (rows[:3, 0] == 0).all()
    used = rows[rows >= 2]
    assert len(np.unique(used)) == len(used)


# Committed tables


def test_committed_documents_are_enough_and_long_enough(tokenizer: Tokenizer) -> None:
    table = pd.read_parquet(DEMO / "documents.parquet")
    assert list(table.columns) == ["doc_id", "text", "source", "licence"]
    assert table["doc_id"].is_unique
    assert (table["licence"].str.len() > 0).all()
    lengths = [len(item.ids) for item in tokenizer.encode_batch(table["text"].tolist())]
    assert len(table) >= 250
    assert min(lengths) >= 512


def test_no_committed_document_is_near_a_calibration_passage(tokenizer: Tokenizer) -> None:
    heldout, calibration = (
        documents.encode(tokenizer, pd.read_parquet(DEMO / name)["text"])
        for name in ("documents.parquet", "calibration.parquet")
    )
    assert documents.far_from_training(heldout, calibration, 0.1).all()
    assert documents.distinct(heldout, 0.1).all()


def test_splits_of_the_committed_tables_follow_from_module_names() -> None:
    for name, heldout in (("documents.parquet", True), ("calibration.parquet", False)):
        doc_ids = pd.read_parquet(DEMO / name)["doc_id"]
        modules = doc_ids.str.split("/").str[1].str.rsplit("#", n=1).str[0]
        assert all(corpus.is_heldout(module) == heldout for module in modules)


# Last-word task


def test_passages_end_in_a_word_that_stands_before_in_them(tokenizer: Tokenizer) -> None:
    filler = "This sentence is here for nothing but its length, as any reader can see. " * 4
    text = f"The array is returned. {filler}It has the shape of the array, of course. End"
    found = last_word.passages(text, tokenizer)
    assert {passage.rpartition(" ")[2] for passage in found} == {"length", "array"}
    assert found[-1] == text[: text.index(", of course")]
    other = last_word.passages(text.replace("The array is", "This was"), tokenizer)
    assert {passage.rpartition(" ")[2] for passage in other} == {"length"}


def test_the_committed_task_is_made_of_the_committed_documents(
    tokenizer: Tokenizer, card: dict
) -> None:
    heldout, calibration, task = (
        pd.read_parquet(DEMO / f"{name}.parquet")
        for name in ("documents", "calibration", "last_word")
    )
    made = last_word.last_word_task(heldout, calibration, tokenizer, documents.SEED)
    pd.testing.assert_frame_equal(made, task)
    assert task["doc_id"].is_unique
    assert len(task) == card["last_word_items"] >= 350
    whole = heldout.set_index("doc_id")["text"]
    assert all(text in whole[name] for name, text in zip(task["doc_id"], task["text"], strict=True))
    before, words = zip(*(text.rsplit(" ", 1) for text in task["text"]), strict=True)
    assert all(word in re.findall(r"\w+", text) for text, word in zip(before, words, strict=True))
    lengths = [len(ids) for ids in documents.encode(tokenizer, task["text"])]
    assert min(lengths) >= 30
    assert max(lengths) <= 127


def test_no_item_of_the_task_is_near_a_calibration_passage(tokenizer: Tokenizer) -> None:
    items, calibration = (
        [set(documents.gram_set(ids)) for ids in documents.encode(tokenizer, frame["text"])]
        for frame in (
            pd.read_parquet(DEMO / f"{name}.parquet") for name in ("last_word", "calibration")
        )
    )
    known = set().union(*calibration)
    assert max(len(item & known) / len(item) for item in items) <= 0.1


# Product


def test_model_is_small_bfloat16_and_divisible_by_128() -> None:
    config = json.loads((DEMO / "model" / "config.json").read_text())
    assert config["hidden_size"] % 128 == 0
    assert config["intermediate_size"] % 128 == 0
    assert config["num_hidden_layers"] >= 6
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    weights = DEMO / "model" / "model.safetensors"
    assert weights.stat().st_size <= 16 * 2**20
    with safe_open(weights, framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in sorted(file.keys())} == {"BF16"}


def test_tokenizer_puts_the_start_token_first_and_gives_the_text_back() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    text = "Return the eigenvalues of a matrix — café, 1.5e-3.\n\n    >>> f(x)"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 0
    assert tokenizer.eos_token_id == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:]


def test_held_out_loss_is_near_the_cards(model: LlamaForCausalLM, card: dict) -> None:
    rows = publish.document_rows(DEMO / "documents.parquet", DEMO / "model")[:20]
    loss = publish.mean_loss(model, rows, "20 documents", batch=4)
    assert loss < math.log(4096) / 2
    assert loss == pytest.approx(card["loss"]["documents"], abs=0.4)


def test_card_and_curve_tell_of_the_same_run(card: dict) -> None:
    curve = pd.read_csv(DEMO / "training_curve.csv")
    assert list(curve.columns) == ["step", "tokens", "train_loss", "heldout_loss"]
    assert curve["step"].iloc[-1] == card["step"]
    assert curve["tokens"].iloc[-1] == card["tokens_seen"]
    assert card["corpus"]["content_sha256"] in (DEMO / "README.md").read_text()
    # The curve is measured in bfloat16 arithmetic, the card in float32 on rounded weights.
    assert curve["heldout_loss"].iloc[-1] == pytest.approx(card["loss"]["heldout_sample"], abs=0.02)


# Training


def test_resumed_training_equals_uninterrupted_training(tmp_path: Path) -> None:
    whole, first, second = tiny_trainer(), tiny_trainer(), tiny_trainer()
    train.train(whole, tmp_path / "whole")
    train.train(first, tmp_path / "parts", stop=3)  # after the checkpoint of step 2
    train.train(second, tmp_path / "parts")
    assert second.step == whole.step == 6
    assert second.curve == whole.curve
    expected = whole.model.state_dict()
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_checkpoint_of_another_corpus_or_recipe_is_refused(tmp_path: Path) -> None:
    trainer = tiny_trainer()
    trainer.save(tmp_path / "checkpoint.pt")
    trainer.data.training[0, 0] += 1
    with pytest.raises(ValueError, match="another recipe or corpus"):
        trainer.load(tmp_path / "checkpoint.pt")


def test_each_epoch_visits_every_row_once_in_its_own_order() -> None:
    visited = np.concatenate([train.batch_rows(step, 20, TINY) for step in range(20)])
    first, second = visited[:20], visited[20:]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first.tolist() != second.tolist()


def test_learning_rate_warms_up_holds_and_ends_near_zero() -> None:
    recipe = train.Recipe(steps=1000)
    rates = [train.learning_rate(step, recipe) for step in range(1000)]
    assert rates[0] < rates[10] < rates[19] == recipe.peak_learning_rate
    assert set(rates[20:750]) == {recipe.peak_learning_rate}
    assert 0 < rates[999] < 0.01 * recipe.peak_learning_rate


def test_kept_steps_are_complete_models(tmp_path: Path) -> None:
    trainer = train.Trainer(
        train.Recipe(**{**vars(TINY), "steps": 16, "save_every": 16}),
        tiny_data(),
        "cpu",
        autocast=False,
        compiled=False,
    )
    train.train(trainer, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    train.finish(trainer.recipe, tmp_path, tmp_path, tmp_path / "trained.pt")
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        f"step-{step:06d}" for step in (1, 2, 4, 8)
    ]
    kept = LlamaForCausalLM.from_pretrained(tmp_path / "step-000008")
    assert not torch.equal(kept.model.norm.weight, trainer.model.model.norm.weight)
    assert (tmp_path / "trained.pt").exists()


def test_kept_steps_are_published_like_the_model(tmp_path: Path) -> None:
    trainer = tiny_trainer()
    train.train(trainer, tmp_path / "progress")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    publish.publish_checkpoints(TINY, tmp_path, tmp_path / "checkpoints")
    published = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in published] == ["step-000001", "step-000003"]
    for path in published:
        assert (path / "tokenizer.json").exists()
        weights = LlamaForCausalLM.from_pretrained(path, dtype=torch.bfloat16).state_dict()
        kept = LlamaForCausalLM.from_pretrained(tmp_path / "progress" / path.name).state_dict()
        assert weights.keys() == kept.keys()
        for name, value in weights.items():
            assert torch.equal(value, kept[name].bfloat16()), name
        config = json.loads((path / "config.json").read_text())
        assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_keeping_weights_does_not_change_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping, plain = tiny_trainer(), tiny_trainer()
    train.train(keeping, tmp_path / "keeping")
    monkeypatch.setattr(train.Recipe, "kept_steps", [])
    train.train(plain, tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("step-*"))
    expected = plain.model.state_dict()
    for name, value in keeping.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_resumed_training_that_lacks_kept_weights_is_refused(tmp_path: Path) -> None:
    train.train(tiny_trainer(), tmp_path, stop=4)
    (tmp_path / "step-000001").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="has no weights of steps 1, which training keeps"):
        train.train(tiny_trainer(), tmp_path)


def test_the_study_of_the_training_has_every_kept_step(card: dict) -> None:
    models = yaml.safe_load((ROOT / "config" / "demo-training.yaml").read_text())["models"]
    recipe = train.Recipe()
    assert card["kept_steps"] == recipe.kept_steps == [60, 120, 240, 480, 960, 1920]
    assert [model["step"] for model in models.values()] == [*recipe.kept_steps, recipe.steps]
    for model in list(models.values())[:-1]:
        name = train.kept_weights(Path(".cache/demo-model/checkpoints"), model["step"])
        assert model["source"] == f"path:{name}"
