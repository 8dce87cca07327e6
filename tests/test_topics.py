"""Topics: classifiers of texts, what they say of documents, and what D_large is about."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from run_script import run_script
from safetensors.torch import load_file, save_file
from test_claims import results as claim_results
from tiny_classifier import (
    LABELS,
    ROPE,
    SIZES,
    WORDS,
    write_bert,
    write_gte,
    write_llama,
    write_roberta,
)
from torch import Tensor
from torch.nn import functional as F

from lowbit.analysis.statistics import BootstrapSettings
from lowbit.analysis.tables import MEAN_OF_METHODS, Method
from lowbit.analysis.topics import one_hot, topics_answer, topics_table
from lowbit.claims.results import NotMeasured
from lowbit.claims.topic_statistics import largest_topic_share, topics_in_large
from lowbit.errors import InputError
from lowbit.experiments.topics import STREAM, classify, maximum_tokens
from lowbit.figures import plotting
from lowbit.figures.topics import topics_of_large
from lowbit.inputs.classifier import load_classifier
from lowbit.inputs.classifier_source import describe_classifier, read_labels
from lowbit.inputs.tokens import TokenRows, write_tokens

SETTINGS = BootstrapSettings(resamples=300, confidence=0.95)
TEXTS = ["the he it was", "of", " ".join(WORDS[4:] * 5), "she and in a to he he he", "unknown"]


def change_config(folder: Path, **changes) -> None:
    """Change keys of a config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def reference_logits(folder: Path, ids: Tensor) -> Tensor:
    """What the published code computes for one text, ids [tokens]: written out by hand."""
    weights = load_file(folder / "model.safetensors")

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def normed(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    heads, width = 2, 16
    theta, factor = ROPE["rope_theta"], ROPE["rope_scaling"]["factor"]
    frequency = torch.tensor(
        [(theta * factor) ** (-2 * i / width) * factor ** (-2 / width) for i in range(width // 2)]
    )
    angle = torch.arange(len(ids))[:, None] * frequency  # [tokens, width / 2]

    def rotated(x: Tensor) -> Tensor:  # [heads, tokens, width]
        first, second = x.split(width // 2, dim=-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    x = normed("new.embeddings.LayerNorm", weights["new.embeddings.word_embeddings.weight"][ids])
    for layer in range(SIZES["num_hidden_layers"]):
        block = f"new.encoder.layer.{layer}"
        packed = linear(f"{block}.attention.qkv_proj", x).view(len(ids), 3, heads, width)
        query, key, value = packed.permute(1, 2, 0, 3)
        attention = (rotated(query) @ rotated(key).mT / width**0.5).softmax(dim=-1)
        mixed = (attention @ value).transpose(0, 1).reshape(len(ids), -1)
        x = normed(f"{block}.attn_ln", x + linear(f"{block}.attention.o_proj", mixed))
        up, gate = linear(f"{block}.mlp.up_gate_proj", x).chunk(2, dim=-1)
        x = normed(f"{block}.mlp_ln", x + linear(f"{block}.mlp.down_proj", up * F.gelu(gate)))
    return linear("classifier", linear("new.pooler.dense", x[0]).tanh())


def test_a_classifier_published_with_code_computes_what_the_code_would(tmp_path: Path) -> None:
    folder = write_gte(tmp_path / "gte")
    tokenizer, model = load_classifier(folder)
    for text in ("the he it was", "she and in a to he he he of it the it was"):
        inputs = tokenizer([text], return_tensors="pt")
        expected = reference_logits(folder, inputs["input_ids"][0])
        with torch.inference_mode():
            torch.testing.assert_close(model(**inputs).logits[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("write", [write_bert, write_gte, write_roberta, write_llama])
def test_texts_get_the_labels_that_transformers_own_pipeline_gives(tmp_path: Path, write) -> None:
    from transformers import pipeline

    tokenizer, model = load_classifier(write(tmp_path / "it"))
    alone = pipeline("text-classification", model, tokenizer=tokenizer, device="cpu")
    limit = maximum_tokens(tokenizer, model)
    expected = [alone(text, truncation=True, max_length=limit) for text in TEXTS]
    found = [shard[STREAM] for shard in classify(tokenizer, model, TEXTS)]
    labels = [LABELS[shard.label.item()] for shard in found]
    assert labels == [each[0]["label"] for each in expected]
    probability = np.concatenate([shard.probability for shard in found])
    np.testing.assert_allclose(probability, [each[0]["score"] for each in expected], rtol=1e-4)


@pytest.mark.parametrize(
    ("write", "limit"),
    [(write_bert, 24), (write_gte, 24), (write_roberta, 22), (write_llama, 4096)],
)
def test_a_text_is_cut_where_the_classifier_ends(tmp_path: Path, write, limit: int) -> None:
    tokenizer, model = load_classifier(write(tmp_path / "it"))
    assert maximum_tokens(tokenizer, model) == limit
    words = ["the", "of", "it"] * limit
    cut = [" ".join(words[: limit - 2]), " ".join(words)]  # and two tokens around them
    short, long = (shard[STREAM].probability for shard in classify(tokenizer, model, cut))
    assert short == long
    tokenizer.model_max_length = 9
    assert maximum_tokens(tokenizer, model) == 9
    tokenizer.model_max_length = 10**30
    model.config.max_position_embeddings = -1  # as XLNet has it
    assert maximum_tokens(tokenizer, model) is None
    assert len([*classify(tokenizer, model, TEXTS[:1])]) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["BertModel"]}, "is no classifier of texts"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "has no names for the labels"),
        ({"id2label": {"0": "a", "2": "b"}}, "has no names for the labels"),
        ({"id2label": {"zero": "a", "one": "b"}}, "has no names for the labels"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "has 'a', which stands twice"),
        ({"id2label": {"0": "a", "1": "None"}}, "has 'None', which stands twice or is no name"),
        ({"id2label": {"0": "a", "1": 3}}, "has 3, which stands twice or is no name"),
        ({"model_type": "something"}, "code that comes with a model is not run"),
    ],
)
def test_what_cannot_classify_is_told(tmp_path: Path, changes: dict, told: str) -> None:
    folder = write_bert(tmp_path / "it")
    change_config(folder, **changes)
    with pytest.raises(InputError, match=told):
        describe_classifier("path:it", folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"position_embedding_type": "absolute"},
        {"logn_attention_scale": True},
        {"pack_qkv": False},
        {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ],
)
def test_what_transformers_has_not_of_the_published_code_is_told(
    tmp_path: Path, changes: dict
) -> None:
    folder = write_gte(tmp_path / "it", **changes)
    with pytest.raises(InputError, match="which transformers' GTE has not"):
        load_classifier(folder)


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "it")
    change_config(folder, intermediate_size=40)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_classifier(folder)


def test_missing_weights_are_told(tmp_path: Path) -> None:
    folder = write_gte(tmp_path / "it")
    weights = load_file(folder / "model.safetensors")
    del weights["new.encoder.layer.1.attention.qkv_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError,
        match=r"lacks 3 weights of a GteForSequenceClassification, such as gte\.layers\.1",
    ):
        load_classifier(folder)


def test_labels_are_in_the_order_of_the_outputs(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "it", ["zebra", "apple", "mouse"])
    labels = json.loads((folder / "config.json").read_text())["id2label"]
    change_config(folder, id2label=dict(reversed(labels.items())))
    assert read_labels(folder) == ["zebra", "apple", "mouse"]


# --- The script ---------------------------------------------------------------------------------
@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with a classifier and documents, and the options to classify these."""
    folder = write_bert(tmp_path / "classifier/files")
    record = describe_classifier("path:it", folder)
    (tmp_path / "classifier/classifier.json").write_text(json.dumps(record))
    ids = [f"d{index}" for index in range(len(TEXTS))]
    rows = TokenRows(ids, np.zeros((len(TEXTS), 2), np.int32), 0, len(TEXTS))
    write_tokens(tmp_path / "tokens.parquet", rows, TEXTS)
    settings = json.dumps({"device": "cpu", "threads": 1})
    options = ["--classifier", "classifier/classifier.json", "--tokens", "tokens.parquet"]
    return tmp_path, [*options, "--settings", settings, "--code", "c", "--output", "topics.parquet"]


def test_the_script_writes_the_label_of_every_document(job) -> None:
    folder, options = job
    assert run_script("classify_topics.py", folder, *options) == ""
    table = pd.read_parquet(folder / "topics.parquet")
    assert table["doc_id"].tolist() == [f"d{index}" for index in range(len(TEXTS))]
    tokenizer, model = load_classifier(folder / "classifier/files")
    found = [shard[STREAM].label[0] for shard in classify(tokenizer, model, TEXTS)]
    assert table["topic"].tolist() == [LABELS[label] for label in found]
    assert not (folder / "topics.unfinished").exists()


def test_a_classifier_that_has_changed_since_it_was_checked_is_told(job) -> None:
    folder, options = job
    change_config(folder / "classifier/files", something="new")
    told = run_script("classify_topics.py", folder, *options)
    assert "config.json is missing or has changed since" in told


def test_an_interrupted_job_goes_on(job, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, options = job
    assert run_script("classify_topics.py", folder, *options) == ""
    whole = (folder / "topics.parquet").read_bytes()
    (folder / "topics.parquet").unlink()
    monkeypatch.setattr("lowbit.unfinished.SAVE_EVERY", 0)
    started = []

    def killed(*arguments):
        """The real one, killed when it is asked for a third text."""
        started.append(arguments[-1])
        shards = classify(*arguments)
        yield next(shards)
        yield next(shards)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lowbit.experiments.topics.classify", killed)
        with pytest.raises(KeyboardInterrupt):
            run_script("classify_topics.py", folder, *options)
    monkeypatch.setattr("lowbit.experiments.topics.classify", _noted(started))
    assert run_script("classify_topics.py", folder, *options) == ""
    assert started == [0, 2]
    assert (folder / "topics.parquet").read_bytes() == whole


def _noted(started: list[int]):
    """The real one; where it begins is noted."""

    def noted(*arguments):
        started.append(arguments[-1])
        yield from classify(*arguments)

    return noted


# --- The table, the answer, the figure, the claim -----------------------------------------------
DOCUMENTS = [f"d{index}" for index in range(40)]
METHODS = ["a3", "b3"]


def inputs(large: dict[str, list[int]]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Topics (ten documents of each of four), errors and sets."""
    names = np.repeat(["cats", "dogs", "law", "tea"], 10)
    topics = pd.DataFrame({"doc_id": DOCUMENTS, "topic": names})
    rng = np.random.default_rng(0)
    errors = pd.concat(
        pd.DataFrame({"doc_id": DOCUMENTS, "method": name, "error": rng.normal(size=40)})
        for name in METHODS
    )
    sets = [(DOCUMENTS[index], name, "large") for name, chosen in large.items() for index in chosen]
    return topics, errors, pd.DataFrame(sets, columns=["doc_id", "method", "set"])


def table_of(large: dict[str, list[int]], labels: list[str]) -> pd.DataFrame:
    """The table of such inputs."""
    topics, errors, sets = inputs(large)
    return topics_table(topics, labels, errors, sets, METHODS, SETTINGS, 0)


def test_shares_and_errors_by_hand() -> None:
    labels = ["tea", "cats", "dogs", "law", "nothing"]
    table = table_of({"a3": [0, 1, 2, 10, 30], "b3": [0, 1, 2, 3, 4]}, labels)
    assert table["method"].unique().tolist() == [*METHODS, MEAN_OF_METHODS]
    one = table[table["method"] == "a3"].set_index("topic")
    assert one.index.tolist() == labels
    assert one["n"].tolist() == [10, 10, 10, 10, 0]
    assert one["share"].tolist() == [0.25, 0.25, 0.25, 0.25, 0]
    assert one["n_large"].tolist() == [1, 3, 1, 0, 0]
    assert one["share_large"].tolist() == pytest.approx([0.2, 0.6, 0.2, 0, 0])
    assert one["excess"].tolist() == pytest.approx([-0.05, 0.35, -0.05, -0.25, 0])
    errors = inputs({})[1].query("method == 'a3'")["error"].to_numpy()
    assert one.loc["dogs", "mean_error"] == pytest.approx(errors[10:20].mean())
    assert np.isnan(one.loc["nothing", ["mean_error", "error_low"]].astype(float)).all()
    mean = table[table["method"] == MEAN_OF_METHODS].set_index("topic")
    assert mean["share_large"].tolist() == pytest.approx([0.1, 0.8, 0.1, 0, 0])
    assert mean["n_large"].tolist() == pytest.approx([0.5, 4, 0.5, 0, 0])
    assert (mean["low"] <= mean["share_large"]).all()
    assert (mean["share_large"] <= mean["high"]).all()
    only = table[(table["method"] == "b3") & (table["topic"] == "cats")].iloc[0]
    assert (only["low"], only["high"]) == (1, 1)  # all of D_large, in every resample


def test_intervals_are_those_of_resampled_documents() -> None:
    """Beside a bootstrap written as a loop over resamples."""
    topics, errors, sets = inputs({"a3": [*range(0, 40, 3)], "b3": [*range(5)]})
    table = topics_table(topics, ["cats", "dogs", "law", "tea"], errors, sets, METHODS, SETTINGS, 7)
    row = table[(table["method"] == "a3") & (table["topic"] == "law")].iloc[0]
    rng, shares, excesses = np.random.default_rng(7), [], []
    for _ in range(SETTINGS.resamples):
        drawn = rng.integers(0, 40, 40)
        large = drawn[drawn % 3 == 0]
        shares.append(np.mean((large >= 20) & (large < 30)))
        excesses.append(shares[-1] - np.mean((drawn >= 20) & (drawn < 30)))
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(shares, [0.025, 0.975]))
    expected = np.quantile(excesses, [0.025, 0.975])
    assert [row["excess_low"], row["excess_high"]] == pytest.approx(expected)


def test_few_documents_have_no_interval() -> None:
    table = table_of({"a3": [0, 1, 2, 3], "b3": [*range(6)]}, ["cats", "dogs", "law", "tea"])
    known = table.groupby("method")["low"].count()
    assert known.to_dict() == {"a3": 0, "b3": 4, MEAN_OF_METHODS: 0}
    assert "Not measured" in topics_answer(table, "m")


def test_the_answer_names_topics_by_their_interval() -> None:
    labels = ["cats", "dogs", "law", "tea"]
    table = table_of({"a3": [*range(8), 39], "b3": [*range(9), 20]}, labels)
    text = topics_answer(table, "m")
    assert "D_large has documents of 3 of 4 topics; most are of “cats”, a share of 0.89" in text
    more, less = text.split("Fewer than")
    assert "More than among all documents, interval on one side of 0: “cats”" in more
    assert "“dogs” (-0.25" in less
    assert "“cats”" not in less


@pytest.mark.parametrize("large", [[*range(8)], [1, 2]])
def test_the_figure_shows_every_topic(large: list[int]) -> None:
    plotting.start()
    table = table_of({"a3": large, "b3": [*range(9), 20]}, ["cats", "dogs", "law", "tea"])
    figure = topics_of_large(table, [Method("a3", "a", 3), Method("b3", "b", 3)])
    figure.draw_without_rendering()
    headline = figure.texts[0].get_text()
    assert "holds 95 % of D_large (cats)" in headline.replace("\n", " ")
    assert ("more of it than" in headline.replace("\n", " ")) == (len(large) > 2)
    left = figure.axes[0]
    assert sorted(label.get_text() for label in left.get_yticklabels()) == [
        "cats",
        "dogs",
        "law",
        "tea",
    ]
    shown = {line.get_label(): line.get_xdata() for line in left.lines}
    for name in METHODS:
        of_method = table[table["method"] == name]["share_large"]
        assert sorted(shown[name]) == sorted(of_method)


CLASSIFIER = "hub:WebOrganizer/TopicClassifier-NoURL@main"
OPTIONS = {"classifiers": ["WebOrganizer/TopicClassifier-NoURL"]}


def claim(topics: Sequence[str], statistic=largest_topic_share, classifier: str = CLASSIFIER):
    """Measure a claim on the synthetic study of the claims' tests."""
    results = claim_results()
    table = pd.DataFrame({"doc_id": results.doc_ids, "topic": topics, "known": 24})
    results.tables["topics"] = table.assign(classifier=classifier)
    return statistic(results, [method.name for method in results.methods], OPTIONS)


def synthetic() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Topics of the synthetic study, twenty in turn, and who is in which D_large."""
    results = claim_results()
    topics = np.array([f"t{k % 20}" for k in range(len(results.doc_ids))], dtype=object)
    names = [method.name for method in results.methods]
    return topics, {name: results.member(name, "large") for name in names}


def test_the_claim_is_about_the_largest_topic_of_any_method() -> None:
    topics, large = synthetic()
    chosen = [*large.values()][1]
    topics[np.flatnonzero(chosen)[: chosen.sum() // 2]] = "cats"
    found = claim(topics)
    of_cats = {name: np.mean(topics[member] == "cats") for name, member in large.items()}
    assert found.value == pytest.approx(max(of_cats.values()))
    assert found.detail == f"“cats” under {max(of_cats, key=of_cats.get)}"
    assert found.low < found.value < found.high
    assert found.n == min(member.sum() for member in large.values())


def test_the_claim_is_about_the_method_with_the_fewest_topics() -> None:
    topics, large = synthetic()
    few = [*large][2]
    topics[large[few]] = np.resize(["cats", "dogs"], large[few].sum())
    found = claim(topics, topics_in_large)
    counted = {name: len(set(topics[member])) for name, member in large.items()}
    assert counted[few] == min(counted.values()) == 2
    assert found.value == min(counted.values())
    assert found.detail == f"{few}; the classifier knows 24"
    assert found.low <= found.value == found.high  # a resample can only lose topics


@pytest.mark.parametrize("statistic", [largest_topic_share, topics_in_large])
def test_the_claims_are_about_the_papers_topics_only(statistic) -> None:
    topics, _ = synthetic()
    for other in ("hub:WebOrganizer/FormatClassifier-NoURL@main", "path:TopicClassifier-NoURL"):
        with pytest.raises(NotMeasured, match=f"this study's are of {other}"):
            claim(topics, statistic, other)
    with pytest.raises(NotMeasured, match="write a section topics"):
        statistic(claim_results(), ["nf3"], OPTIONS)


def test_documents_without_a_topic_are_an_error() -> None:
    topics = pd.DataFrame({"doc_id": ["a"], "topic": ["x"]})
    with pytest.raises(KeyError):
        one_hot(topics, ["x"], np.array(["a", "b"]))
