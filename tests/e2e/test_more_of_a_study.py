"""What is added to a finished study, or to another that shares its model, takes what is there."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from copies import Copy
from tiny_classifier import LABELS, write_gte

# What belongs to no study: files of models and documents, tokens, weights, norms; with their number
# in the small study.
SHARED = {
    "fetch_model": 1,
    "probe_model": 1,
    "fetch_documents": 2,
    "tokenize_documents": 1,
    "tokenize_calibration": 1,
    "quantize_rtn": 1,
    "quantize_nf": 1,
    "quantize_hqq": 1,
    "measure_residuals": 1,
}


def shared(planned: Mapping[str, int]) -> dict[str, int]:
    return {rule: count for rule, count in planned.items() if rule in SHARED}


def test_a_new_method_leaves_the_others_as_they_are(done: Copy) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        found = done.folder.glob("results/models/*/*/**/*.parquet")
        found = [*found, *done.folder.glob("results/models/*/quantized/*/*")]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    before = files()
    added = done.study("tests/e2e/config/more_methods.yaml", "--until score")
    assert dict(added.rules) == {"quantize_rtn": 1, "score": 1}
    after = files()
    assert {path: after[path] for path in before} == before
    new = {path.name.partition("-")[0] for path in after.keys() - before.keys()}
    assert new == {"rtn3", "method.json", "weights.safetensors"}


def test_a_study_of_the_same_model_shares_files_tokens_weights_and_scores(done: Copy) -> None:
    def files() -> dict[str, tuple[int, int]]:
        paths = [path for path in done.folder.glob("results/models/**/*") if path.is_file()]
        kept = [path for path in paths if not {"logs", "benchmarks"} & set(path.parts)]
        return {
            path.relative_to(done.folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in kept
        }

    study = "tests/e2e/config/neighbour.yaml"
    assert shared(done.plan(study)) == {"quantize_rtn": 1}  # rtn4; nf3 is there
    before = files()
    ran = done.study(study, "--until score").rules
    assert dict(ran) == {"quantize_rtn": 1, "check_calibration": 1, "score": 1}
    after = files()
    assert {name: after[name] for name in before} == before
    new = [re.sub("-[0-9a-f]{8}", "", name) for name in sorted(after.keys() - before.keys())]
    assert new == [
        "results/models/demo/quantized/rtn4/method.json",
        "results/models/demo/quantized/rtn4/weights.safetensors",
        "results/models/demo/scores/demo/rtn4.parquet",
    ]
    assert not done.plan()  # the other study is as it was


def test_changed_analyses_neither_quantize_nor_score(fresh: Copy, finished: Copy) -> None:
    study = "tests/e2e/config/other_analyses.yaml"
    anew = fresh.plan(study)
    assert shared(anew) == SHARED
    assert anew["score"] == 1
    planned = finished.plan(study)
    assert not shared(planned)
    assert not planned["score"]
    assert {"compute_errors", "correlate", "predict", "patch", "intervene"} <= set(planned)
    # Nothing else is left out: all that a fresh study would run, but for what was made before it.
    left_out = {*SHARED, "score", "check_calibration", "tabulate_quantization"}
    assert set(anew) - set(planned) == left_out


def test_perturbations_are_added_to_a_finished_study(done: Copy) -> None:
    """Nothing of the study itself runs again but the pages that tell of it."""
    added = done.study("tests/e2e/config/perturbed.yaml")
    assert not {"score", "compute_errors", "trace_layers", "patch", "predict"} & set(added.rules)
    made = ("evaluate", "perturb", "simulate_quantization", "judge_claims", "write_summary")
    for rule in made:
        assert added.rules[rule] == 1
    results = done.folder / "results/small/demo"
    gates = json.loads((results / "perturbation_gates.json").read_text())
    assert gates["intensity_0"] == 0
    assert gates["norms"] < 1e-4
    for table in ("evaluation.csv", "perturbation_sets.csv"):
        assert (results / table).stat().st_size > 0
    assert (results / "figures/transforms.svg").stat().st_size > 0
    assert "What kind of perturbation hurts?" in (results.parent / "summary.md").read_text()


def test_topics_are_added_to_a_finished_study(done: Copy) -> None:
    write_gte(done.folder / "classifier")
    study = "tests/e2e/config/topics.yaml"
    made = {"fetch_classifier", "classify_topics", "analyze_topics", "plot_topics"}
    pages = {"judge_claims", "write_summary", "render_pages", "write_config"}
    assert set(done.study(study).rules) == made | pages
    results = done.folder / "results/small"
    topics = pd.read_parquet(results / "demo/topics.parquet")
    assert topics["topic"].isin(LABELS).all()
    assert len(topics) == 24
    assert (results / "demo/figures/topics.svg").stat().st_size > 0
    assert "Is it one topic that breaks?" in (results / "summary.md").read_text()
    provenance = json.loads((results / "provenance.json").read_text())
    assert provenance["classifier"]["files"].keys() >= {"config.json", "model.safetensors"}
    assert not done.plan(study)
    # Code of topics alone makes nothing else anew.
    done.edit("scripts/lowbit/inputs/classifier.py")
    assert set(done.plan(study)) == made | pages - {"write_config"}
    assert not {*SHARED, "score", "compute_errors"} & done.plan().keys()
    # The same content elsewhere is what it was; what is there is read from there.
    (done.folder / "classifier").rename(done.folder / "elsewhere")
    moved = (done.folder / study).read_text().replace("path:classifier", "path:elsewhere")
    (done.folder / "moved.yaml").write_text(moved)
    assert "classify_topics" in done.study("moved.yaml", "--until classify_topics").rules
    (record,) = done.folder.glob("results/classifiers/topics-*/classifier.json")
    assert (record.parent / "files").resolve() == done.folder / "elsewhere"


def test_other_names_of_the_same_content_make_nothing_anew(done: Copy) -> None:
    model = shutil.copytree(done.folder / "resources/demo/model", done.folder / "elsewhere")
    study = "tests/e2e/config/renamed.yaml"
    planned = done.plan(study)
    assert "write_config" in planned
    assert not {*SHARED, "score", "compute_errors", "patch"} & planned.keys()
    done.study(study, "--until write_config")
    (record,) = done.folder.glob("results/models/demo-*/model.json")
    assert (record.parent / "files").resolve() == model
    assert not {*SHARED, "score"} & done.plan().keys()
