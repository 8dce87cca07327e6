"""Keys and paths: what shares a file and what does not, and when a source counts as changed."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_classifier import write_bert

from lowbit.errors import InputError
from study.config.study import Study, load_study
from study.paths import SHARED, Fingerprints, Paths, paths_of, pattern

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(
    tmp_path: Path, llama_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A folder with a study of a local model and a local document file; returns these two."""
    monkeypatch.chdir(tmp_path)
    documents = tmp_path / "documents.jsonl"
    documents.write_text('{"text": "a"}\n')
    calibration = tmp_path / "calibration.txt"
    calibration.write_text("a")
    Path("config.yaml").write_text((ROOT / "config.yaml").read_text())
    Path("resources").symlink_to(ROOT / "resources")
    Path("study.yaml").write_text(
        f"study: local\nmodels: {{m: {{source: 'path:{llama_directory}'}}}}\n"
        f"documents: {{name: d, source: 'path:{documents}', n: 20, length: 32}}\n"
        f"calibration: {{c: {{source: 'path:{calibration}', n: 8, length: 16}}}}\n"
        "methods:\n"
        "  a: {quantizer: rtn, bits: 3, group_size: 32}\n"
        "  b: {quantizer: nf, bits: 3, group_size: 32}\n"
    )
    return llama_directory, documents


def load(**overrides: Any) -> Study:
    """The study in the current folder."""
    return load_study(Path("config.yaml"), Path("study.yaml"), overrides=overrides)


def changed(before: Paths, after: Paths) -> set[str]:
    """Names of the keyed parts that differ."""
    names = ("models", "documents", "tokens", "calibration", "methods", "scores", "residuals")
    names += ("evaluation_documents", "evaluation")
    return {name for name in names if getattr(before, name) != getattr(after, name)}


ALL_SCORES = {"scores", "residuals"}


def test_topics_are_of_tokens_classifier_and_how_it_is_run(
    project: tuple[Path, Path], tmp_path: Path
) -> None:
    """And not of what the language model is run by."""
    folder = write_bert(tmp_path / "classifier")

    def topics(**overrides: Any) -> tuple[str, str]:
        paths = paths_of(load(topics={"source": f"path:{folder}"}, **overrides))
        return paths.classifier, paths.topics

    before = topics()
    same = {"dtype": "bfloat16", "mode": "stream", "batch_size": 3}
    assert topics(engine=same) == before
    for changes in ({"engine": {"threads": 7}}, {"engine": {"device": "cpu"}}, {"seed": 1}):
        classifier, of_documents = topics(**changes)
        assert classifier == before[0]
        assert of_documents != before[1]
    config = folder / "config.json"
    config.write_text(config.read_text().replace("Topic 3", "Tea"))
    assert [now == then for now, then in zip(topics(), before, strict=True)] == [False, False]
    without = paths_of(load())
    assert (without.classifier, without.topics) == ("", "")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"study": "other"}, set()),
        ({"bootstrap": {"resamples": 100}}, set()),
        ({"errors": {"large_fraction": 0.2}}, set()),
        ({"seed": 1}, {"tokens", "calibration", "methods", "scores", "residuals"}),
        ({"engine": {"batch_size": 1}}, ALL_SCORES),
        ({"engine": {"threads": 1}}, ALL_SCORES | {"methods"}),
        ({"engine": {"device": "cpu"}}, ALL_SCORES | {"methods"}),
    ],
)
def test_a_setting_changes_exactly_the_keys_of_what_reads_it(
    project: Any, overrides: dict, expected: set[str]
) -> None:
    assert changed(paths_of(load()), paths_of(load(**overrides))) == expected


def test_the_key_of_a_downstream_task_is_over_what_is_asked(project: Any) -> None:
    Path("items.jsonl").write_text("{}\n")
    text = "task: t\ndataset_kwargs: {data_files: items.jsonl}\n"
    Path("task.yaml").write_text(text)

    def key(shots: int = 3, **others: Any) -> str:
        asked = {"task": "task.yaml", "shots": shots, **others}
        return paths_of(load(downstream={"q": asked})).downstream["q"]

    first = key()
    assert key(methods=["a"]) == first
    assert len({first, key(shots=4), key(limit=9)}) == 3
    assert paths_of(load(seed=1, downstream={"q": {"task": "mmlu", "shots": 3}})).downstream != {
        "q": paths_of(load(downstream={"q": {"task": "mmlu", "shots": 3}})).downstream["q"]
    }
    os.utime("items.jsonl")
    assert key() == first
    Path("items.jsonl").write_text("{} \n")
    changed_data = key()
    Path("task.yaml").write_text(text + "description: Answer.\n")
    assert len({first, changed_data, key()}) == 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("n", 21, {"tokens", "residuals"}),
        ("length", 16, {"tokens", "residuals"}),
        ("id_column", "id", {"documents", "tokens", "residuals"}),
    ],
)
def test_document_settings_change_their_keys(
    project: Any, key: str, value: Any, expected: set[str]
) -> None:
    study = load()
    documents = study.documents.model_dump() | {key: value}
    assert changed(paths_of(study), paths_of(load(documents=documents))) == expected


@pytest.mark.parametrize(
    "change",
    [{"minimum": {"n": 1}}, {"candidates": 30}, {"ids": "path:ids.txt", "n": 12}],
    ids=["minimum", "candidates", "ids"],
)
def test_what_selects_documents_changes_their_keys(project: Any, change: dict) -> None:
    Path("ids.txt").write_text("".join(f"d{at}\n" for at in range(12)))
    study = load()
    before, after = paths_of(study), paths_of(load(documents=study.documents.model_dump() | change))
    assert changed(before, after) == {"documents", "tokens", "residuals"}


def test_the_seed_is_in_the_key_of_documents_only_where_they_are_drawn(project: Any) -> None:
    study = load()
    drawn = study.documents.model_dump() | {"candidates": 30}
    assert paths_of(load(seed=1)).documents == paths_of(study).documents
    assert (
        paths_of(load(documents=drawn, seed=1)).documents
        != paths_of(load(documents=drawn)).documents
    )


def test_documents_are_chosen_for_all_models_only_where_their_tokenizers_differ(
    project: tuple[Path, Path],
) -> None:
    model = project[0]
    other = Path(shutil.copytree(model, model.with_name("other")))
    weights = (model / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:-1] + b"?")
    two = {"m": {"source": f"path:{model}"}, "o": {"source": f"path:{other}"}}
    alone, together = paths_of(load()), paths_of(load(models=two))
    assert not alone.chosen_for_all
    assert not together.chosen_for_all
    assert together.tokens == alone.tokens
    assert together.models["o"] != together.models["m"]
    (other / "tokenizer_config.json").write_text("{}")
    apart = paths_of(load(models=two))
    assert apart.chosen_for_all
    assert changed(together, apart) == {"models", "tokens", "residuals"}
    assert apart.tokens == paths_of(load(models=dict(reversed(two.items())))).tokens
    assert (
        apart.shared("chosen") == f"results/documents/{apart.documents}/chosen/{apart.tokens}.txt"
    )
    Path("ids.txt").write_text("".join(f"d{at}\n" for at in range(20)))
    listed = load().documents.model_dump() | {"ids": "path:ids.txt"}
    assert not paths_of(load(models=two, documents=listed)).chosen_for_all


def test_released_sets_are_keyed_by_the_model_that_reads_them(project: tuple[Path, Path]) -> None:
    released = {"name": "d", "source": "qerror:Qwen2.5-7B/awq3", "n": 20, "length": 32}
    first = paths_of(load(documents=released)).documents
    several = released | {"source": "qerror:Qwen2.5-7B/awq3+nf3"}
    (project[0] / "config.json").write_text((project[0] / "config.json").read_text() + "\n")
    assert first != paths_of(load(documents=released)).documents
    assert first != paths_of(load(documents=several)).documents


def test_calibration_changes_the_methods_that_use_it(project: Any) -> None:
    study = load()
    sets = {name: each.model_dump() for name, each in study.calibration.items()}
    methods = {name: method.model_dump() for name, method in study.methods.items()}
    before = paths_of(study)
    longer = sets | {"other": sets["c"] | {"n": 9}}
    added = paths_of(load(calibration=longer))
    assert changed(before, added) == {"calibration"}
    methods["a"]["calibration"] = "other"
    after = paths_of(load(calibration=longer, methods=methods))
    assert after.methods["a"] != before.methods["a"]
    assert after.methods["b"] == before.methods["b"]


def test_evaluation_settings_change_the_keys_of_their_set(project: tuple[Path, Path]) -> None:
    windows = {"kind": "windows", "source": f"path:{project[1]}"}
    before = paths_of(load(evaluation={"e": windows}))
    assert changed(paths_of(load()), before) == {"evaluation_documents", "evaluation"}
    for change in ({"n": 1}, {"length": 8}, {"join": " "}):
        assert changed(before, paths_of(load(evaluation={"e": windows | change}))) == {"evaluation"}
    both = {"evaluation_documents", "evaluation"}
    for change in ({"kind": "last_word"}, {"text_column": "body"}):
        assert changed(before, paths_of(load(evaluation={"e": windows | change}))) == both
    project[1].write_text('{"text": "other"}\n')
    assert changed(before, paths_of(load(evaluation={"e": windows}))) >= both


def test_one_method_more_leaves_the_others_keys(project: Any) -> None:
    before = paths_of(load())
    methods = {name: m.model_dump() for name, m in load().methods.items()}
    methods["c"] = methods["a"] | {"bits": 4}
    after = paths_of(load(methods=methods))
    assert after.methods["a"] == before.methods["a"]
    assert after.scores["full"] == before.scores["full"]
    assert len(set(after.methods.values())) == 3


def test_the_name_is_no_part_of_the_key(project: Any) -> None:
    methods = {name: m.model_dump() for name, m in load().methods.items()}
    renamed = {"x": methods["a"], "y": methods["b"]}
    before, after = paths_of(load()).methods, paths_of(load(methods=renamed)).methods
    assert before["a"].split("-")[1] == after["x"].split("-")[1]


def test_a_changed_model_or_document_file_changes_the_key(project: tuple[Path, Path]) -> None:
    model, documents = project
    first = paths_of(load())
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    second = paths_of(load())
    assert changed(first, second) == {"models"}
    documents.write_text('{"text": "b"}\n')
    assert changed(second, paths_of(load())) == {"documents", "tokens", "residuals"}


def test_touched_moved_or_unrelated_files_change_nothing(project: tuple[Path, Path]) -> None:
    model, documents = project
    before = paths_of(load())
    for file in (model / "config.json", model / "model.safetensors", documents):
        os.utime(file, (1, 1))
    (model / "README.md").write_text("not read")
    moved = model.rename(model.with_name("elsewhere"))
    assert changed(before, paths_of(load(models={"m": {"source": f"path:{moved}"}}))) == set()


def test_paths_are_those_of_the_layout(project: Any) -> None:
    paths = paths_of(load())
    model, method = paths.models["m"], paths.methods["a"]
    assert paths.shared("weights", model="m", method="a") == (
        f"results/models/{model}/quantized/{method}/weights.safetensors"
    )
    assert paths.shared("tokens", model="m") == (
        f"results/models/{model}/tokens/{paths.tokens}/tokens.parquet"
    )
    assert paths.shared("scores", model="m", method="full") == (
        f"results/models/{model}/scores/{paths.tokens}/{paths.scores['full']}.parquet"
    )
    evaluated = paths_of(load(evaluation={"e": {"kind": "windows", "source": "demo"}}))
    assert evaluated.shared("evaluation_scores", model="m", method="a", evaluation="e") == (
        f"results/models/{model}/evaluation/{evaluated.evaluation['e']}/{paths.scores['a']}.parquet"
    )
    assert evaluated.plain_name(evaluated.evaluation["e"]) == "e"
    assert paths.result("claims.csv") == "results/local/claims.csv"
    assert paths.result("errors.parquet", "m") == "results/local/m/errors.parquet"
    assert pattern("model") == "results/models/{model}/model.json"


def test_every_path_of_a_study_is_one_file_only(project: Any) -> None:
    paths = paths_of(
        load(
            evaluation={"e": {"kind": "windows", "source": "demo"}},
            downstream={"q": {"task": "mmlu", "shots": 5}},
        )
    )
    names = {"model": "m", "method": "a", "calibration": "c", "evaluation": "e", "downstream": "q"}
    made = [paths.shared(kind, **names) for kind in SHARED]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("kind", "names"),
    [("model", {}), ("model", {"model": "other"}), ("weights", {"model": "m", "method": "full"})],
)
def test_a_path_that_cannot_be_named_is_an_error(project: Any, kind: str, names: dict) -> None:
    with pytest.raises(KeyError):
        paths_of(load()).shared(kind, **names)


def test_a_key_of_another_config_is_refused(project: Any) -> None:
    paths = paths_of(load())
    assert paths.plain_name(paths.methods["a"]) == "a"
    with pytest.raises(InputError, match="a-00000000 is not part of study local"):
        paths.plain_name("a-00000000")


def test_large_files_are_read_again_only_when_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "large", tmp_path / "cache" / "fingerprints.json"
    file.write_bytes(b"1" * 100)
    first = Fingerprints(cache, large_file=100)
    digest = first.of_file(file)
    first.save()

    monkeypatch.setattr("study.paths.sha256", lambda path: pytest.fail("read again"))
    assert Fingerprints(cache, large_file=100).of_file(file) == digest
    monkeypatch.undo()

    os.utime(file, (1, 1))
    assert Fingerprints(cache, large_file=100).of_file(file) == digest
    file.write_bytes(b"2" * 101)
    assert Fingerprints(cache, large_file=100).of_file(file) != digest


def test_a_damaged_fingerprint_cache_is_made_again(tmp_path: Path) -> None:
    file, cache = tmp_path / "large", tmp_path / "fingerprints.json"
    file.write_bytes(b"1" * 100)
    cache.write_text("{")
    fingerprints = Fingerprints(cache, large_file=1)
    digest = fingerprints.of_file(file)
    fingerprints.save()
    assert Fingerprints(cache, large_file=1).known[str(file.resolve())][3] == digest
