"""The analysis scripts as a user runs them, from scores to the summary."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from run_script import run_script
from synthetic_study import LAYERS, METHODS, SyntheticStudy, write_study

BOOTSTRAP = '{"resamples": 200, "confidence": 0.95}'
ERRORS = (
    '{"large_fraction": 0.1, "control_fraction": 0.5, "duplicate_ngram": 5, '
    '"duplicate_jaccard": 0.1}'
)


def run(script: str, *options: object) -> str:
    """Run a script here; return its error message, "" where it succeeded."""
    return run_script(script, Path.cwd(), *options)


def analyse(study: SyntheticStudy, methods: dict = METHODS, resamples: str = BOOTSTRAP) -> None:
    """Run every analysis script on a study."""
    results, method_json = study.results, json.dumps(methods)
    table = results.joinpath
    bootstrap = ("--settings", resamples, "--seed", 0)
    calls = [
        ("compute_errors.py", "--scores", study.scores, "--tokens", study.tokens,
         "--settings", ERRORS, "--seed", 0, "--errors", table("errors.parquet"),
         "--perplexity", table("perplexity.csv"), "--sets", table("sets.parquet"),
         "--overlap", table("overlap.csv")),
        ("correlate.py", "--errors", table("errors.parquet"), "--methods", method_json, *bootstrap,
         "--pairs", table("correlation.csv"), "--by-bits", table("correlation_by_bits.csv")),
        ("analyze_residuals.py", "--residuals", study.residuals, "--dimensions", study.dimensions,
         "--errors", table("errors.parquet"), "--sets", table("sets.parquet"), *bootstrap,
         "--correlation", table("residual_correlation.csv"),
         "--by-set", table("residual_sets.csv"), "--outliers", table("outlier_dimensions.csv")),
        ("predict.py", "--errors", table("errors.parquet"), "--sets", table("sets.parquet"),
         "--residuals", study.residuals, "--tokens", study.tokens, "--model", study.model,
         "--name", "demo", "--prediction", '{"folds": 2, "repeats": 1}', *bootstrap,
         "--predictions", table("predictions.parquet"), "--table", table("prediction.csv"),
         "--added", table("prediction_added.csv"), "--transfer", table("prediction_transfer.csv"),
         "--partial", table("partial_correlation.csv"), "--markdown", table("prediction.md")),
        ("analyze_long_tail.py", "--errors", table("errors.parquet"), *bootstrap,
         "--output", table("long_tail.csv")),
        ("analyze_tokens.py", "--scores", study.scores, "--tokens", study.tokens,
         "--sets", table("sets.parquet"), *bootstrap,
         "--concentration", table("token_concentration.csv"),
         "--by-bin", table("token_errors.csv")),
        ("judge_claims.py", "--claims", "claims/inputs.yaml",
         "claims/perturbation.yaml", "--models",
         json.dumps({"demo": {"source": "demo", "family": None, "step": None, "base": None,
                              "results": str(results), "residuals": str(study.residuals),
                              "record": str(study.model)}}),
         "--document-settings", '{"source": "demo", "length": 512}', "--methods", method_json,
         "--tables", "predictions.parquet", *bootstrap,
         "--csv", results.parent / "claims.csv",
         "--markdown", results.parent / "claims.md"),
        ("write_summary.py", "--study", "demo", "--models",
         json.dumps({"demo": {"results": str(results), "record": str(study.model)}}),
         "--methods", method_json, "--documents", study.documents,
         "--claims", results.parent / "claims.csv", *bootstrap,
         "--output", results.parent / "summary.md"),
    ]  # fmt: skip
    for call in calls:
        message = run(*call)
        assert message == "", f"{call[0]}: {message}"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SyntheticStudy:
    """A synthetic study, analysed."""
    written = write_study(tmp_path_factory.mktemp("study"))
    analyse(written)
    return written


def test_pairs_equal_scipy(study):
    errors = pd.read_parquet(study.results / "errors.parquet")
    wide = errors.pivot(index="doc_id", columns="method", values="error")
    pairs = pd.read_csv(study.results / "correlation.csv")
    assert len(pairs) == 9 * 8 / 2
    assert pairs["same_quantizer"].sum() == 9
    for row in pairs.sample(8, random_state=0).itertuples():
        a, b = wide[row.method_a], wide[row.method_b]
        assert row.pearson == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-8)
        assert row.spearman == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-8)
        assert row.pearson_low < row.pearson < row.pearson_high
        assert row.spearman_low < row.spearman < row.spearman_high


def test_means_by_bits_leave_out_pairs_of_one_quantizer(study):
    pairs = pd.read_csv(study.results / "correlation.csv")
    by_bits = pd.read_csv(study.results / "correlation_by_bits.csv", dtype={"bits_a": str})
    assert list(by_bits["bits_a"]) == ["all", "2", "2", "2", "3", "3", "4"]
    assert list(by_bits["pairs"]) == [27, 3, 6, 6, 3, 6, 3]
    different = pairs[~pairs["same_quantizer"]]
    assert by_bits["mean_pearson"][0] == pytest.approx(different["pearson"].mean())
    low_bits = different[(different["bits_a"] == 2) & (different["bits_b"] == 2)]
    assert by_bits["mean_pearson"][1] == pytest.approx(low_bits["pearson"].mean())
    assert (by_bits["low"] < by_bits["mean_pearson"]).all()
    assert (by_bits["mean_pearson"] < by_bits["high"]).all()


def test_residual_correlations_equal_scipy_and_deepen(study):
    errors = pd.read_parquet(study.results / "errors.parquet").set_index("doc_id")
    norms = pd.read_parquet(study.residuals)
    table = pd.read_csv(study.results / "residual_correlation.csv")
    assert len(table) == 9 * 3 * LAYERS
    for row in table.sample(8, random_state=0).itertuples():
        layer = norms[norms["layer"] == row.layer].set_index("doc_id")[row.quantity]
        error = errors.loc[errors["method"] == row.method, "error"]
        expected = scipy.stats.pearsonr(layer.loc[error.index], error).statistic
        assert row.pearson == pytest.approx(expected, abs=1e-8)
        expected = scipy.stats.spearmanr(layer.loc[error.index], error).statistic
        assert row.spearman == pytest.approx(expected, abs=1e-8)
        assert row.low < row.pearson < row.high
    rtn2 = table[(table["method"] == "rtn2") & (table["quantity"] == "r")].set_index("layer")
    assert rtn2["pearson"][LAYERS] < rtn2["pearson"][1] < 0


def test_norms_by_set_are_means_over_the_sets(study):
    sets = pd.read_parquet(study.results / "sets.parquet")
    norms = pd.read_parquet(study.residuals)
    table = pd.read_csv(study.results / "residual_sets.csv")
    mine = table[(table["method"] == "nf2") & (table["quantity"] == "h") & (table["layer"] == 6)]
    mine = mine.set_index("set")
    layer = norms[norms["layer"] == 6].set_index("doc_id")["h"]
    means = {}
    for name in ("large", "control"):
        chosen = sets.loc[(sets["method"] == "nf2") & (sets["set"] == name), "doc_id"]
        means[name] = layer.loc[chosen].mean()
        assert mine["mean"][name] == pytest.approx(means[name])
        assert mine["n"][name] == len(chosen)
    assert mine["mean"]["difference"] == pytest.approx(means["large"] - means["control"])
    assert mine["mean"]["ratio"] == pytest.approx(means["large"] / means["control"])
    assert 1 < mine["low"]["ratio"] < mine["mean"]["ratio"] < mine["high"]["ratio"]


def test_summary_begins_with_the_answer(study):
    text = (study.results.parent / "summary.md").read_text()
    answer = text[: text.index("## ")]
    assert "Do methods break the same documents?* Partly" in answer
    assert "They are easier for the full model" in answer
    assert "A smaller norm goes with a larger error for 9 of 9 methods" in answer
    assert "Directions: " in answer
    assert "It is none of the paper's models" in answer
    by_bits = pd.read_csv(study.results / "correlation_by_bits.csv")
    assert f"mean r of {by_bits['mean_pearson'][0]:.2f} [" in answer
    assert "| full | - |" in text
    assert "(demo/figures/correlation.png)" in text
    rows = [line for line in text.splitlines() if line.startswith(("| document", "| `doc"))]
    assert len(rows) == 11  # header and ten documents
    assert all(line.replace("\\|", "").count("|") == 9 for line in rows)


def test_summary_says_what_prediction_tails_and_tokens_show(study):
    text = (study.results.parent / "summary.md").read_text()
    answer = text[: text.index("## ")]
    values = pd.read_csv(study.results / "prediction.csv")
    mean = values[(values["method"] == "mean of methods") & (values["metric"] == "r2")]
    everything = mean.set_index("features")["value"]["all"]
    assert (
        "Can errors be predicted before quantizing?* In part: on held-out documents norms, NLL, "
        f"entropy and text together have an R2 of {everything:.2f} [" in answer
    )
    assert "Beyond NLL, entropy and text, the last layer's norm adds to the R2 of e(x) (" in answer
    assert "(demo/prediction.md)" in answer
    assert "Is it hard text that breaks?* No, rather easy text: the tenth of the" in answer
    shares = pd.read_csv(study.results / "token_concentration.csv")
    mean = shares[(shares["method"] == "mean of methods") & (shares["top"] == 0.05)]
    large = mean.set_index("set")["share"]["large"]
    assert f"the worst 5 % of a document's tokens carry a share of {large:.2f} [" in answer
    assert "(no measurable difference; mean of methods)" in answer


def test_the_summary_tells_of_evaluation_sets_where_there_are_any(study, tmp_path):
    results = tmp_path / study.results.name
    shutil.copytree(study.results, results)
    values = [{"method": name, "value": 20 + at} for at, name in enumerate(["full", *METHODS])]
    table = pd.DataFrame(values).assign(set="wikitext2", measure="perplexity", low=1.0, high=99.0)
    table.to_csv(results / "evaluation.csv", index=False)
    models = {"demo": {"results": str(results), "record": str(study.model)}}
    output = tmp_path / "with_evaluation.md"
    told = run(
        "write_summary.py",
        *("--study", "demo", "--models", json.dumps(models), "--methods", json.dumps(METHODS)),
        *("--documents", study.documents, "--claims", study.results.parent / "claims.csv"),
        *("--settings", BOOTSTRAP, "--seed", 0, "--tables", "evaluation.csv", "--output", output),
    )
    assert told == ""
    summary = output.read_text()
    assert "*What is lost on evaluation sets?* wikitext2: perplexity 20.00 in full" in summary
    assert "## demo: evaluation sets\n\n| method | wikitext2: perplexity |" in summary
    assert "(demo/figures/evaluation.png)" in summary
    plain = (study.results.parent / "summary.md").read_text()
    assert "evaluation" not in plain


def test_claims_about_prediction_are_judged(study):
    claims = pd.read_csv(study.results.parent / "claims.csv").set_index("claim")
    names = ["residual_predicts_at_equal_nll", "residual_adds_to_prediction", "text_baseline"]
    assert claims.loc[names, "verdict"].tolist() == ["reproduced", "reproduced", "differs"]
    added = pd.read_csv(study.results / "prediction_added.csv").query("added == 'norm'")
    few_bits = added[added["method"].str.endswith(("2", "3"))]
    for claim, metric in (
        ("residual_adds_to_prediction", "r2"),
        ("residual_adds_to_sets", "auroc"),
    ):
        mean = few_bits.loc[few_bits["metric"] == metric, "difference"].mean()
        assert claims.loc[claim, "measured"] == pytest.approx(mean)
    assert claims.loc["residual_adds_to_prediction", "n"] == 200
    assert claims.loc["residual_adds_to_sets", "n"] == 40


def test_claims_of_stages_that_were_not_run_say_why(study):
    claims = pd.read_csv(study.results.parent / "claims.csv").set_index("claim")
    reason = "not run (this study has no table perturbation_scores: write a section perturbation)"
    assert claims.loc["relation_weights", "verdict"] == reason
    row = claims.loc["sizes_uniform_per_token"]
    assert row["verdict"] == "not run (needs 4 sizes of one family; this study has 1 of llama)"
    assert row["model"] == "all models"
    page = (study.results.parent / "claims.md").read_text()
    assert f"Not judged:\n\n- {reason}: 1 of `distribution_weights`, 1 of" in page
    summary = (study.results.parent / "summary.md").read_text()
    assert "relation_weights" not in summary
    waiting = claims["verdict"].str.startswith("not run") & (claims["kind"] == "direction")
    assert f"{waiting.sum()} more were not run; [claims.md](claims.md) says why." in summary


FIGURES = {
    "plot_prediction.py": ("prediction", "transfer"),
    "plot_long_tail.py": ("",),
    "plot_tokens.py": ("concentration", "errors", "flips"),
}


def draw(study: SyntheticStudy, folder: Path, methods: dict = METHODS) -> list[Path]:
    """Draw the figures of prediction, long tail and tokens; return the files."""
    table = study.results.joinpath
    inputs = {
        "plot_prediction.py": [
            "--table", table("prediction.csv"), "--added", table("prediction_added.csv"),
            "--transfer", table("prediction_transfer.csv"),
            "--partial", table("partial_correlation.csv"),
        ],
        "plot_long_tail.py": [
            "--table", table("long_tail.csv"), "--errors", table("errors.parquet"),
        ],
        "plot_tokens.py": [
            "--concentration", table("token_concentration.csv"),
            "--by-bin", table("token_errors.csv"),
        ],
    }  # fmt: skip
    for script, names in FIGURES.items():
        options = []
        for name in names:
            stem = f"{script}_{name}"
            options += [f"--{name}-figure" if name else "--figure"]
            options += [folder / f"{stem}.png", folder / f"{stem}.svg"]
        message = run(script, *inputs[script], "--methods", json.dumps(methods), *options)
        assert message == "", f"{script}: {message}"
    return sorted(folder.iterdir())


def test_figures_of_prediction_tails_and_tokens_are_drawn(study, tmp_path):
    files = draw(study, tmp_path)
    assert len(files) == 12
    assert all(path.stat().st_size > 5000 for path in files)


def test_the_summarys_overlap_is_that_of_the_claim(study):
    """Both leave out pairs of one quantizer, which would make the mean larger."""
    text = (study.results.parent / "summary.md").read_text()
    claims = pd.read_csv(study.results.parent / "claims.csv").set_index("claim")
    detail = claims.loc["large_sets_overlap", "detail"]
    jaccard, chance = re.search(
        r"Jaccard index of ([\d.]+) on average; random sets would have (\d\.\d+)", text
    ).groups()
    assert detail == f"Jaccard {jaccard}, chance {chance}, 27 pairs"
    overlap = pd.read_csv(study.results / "overlap.csv")
    quantizers = overlap[["method_a", "method_b"]].map(lambda name: METHODS[name]["quantizer"])
    different = overlap[quantizers["method_a"] != quantizers["method_b"]]
    assert jaccard == f"{different['jaccard'].mean():.2f}"


def test_same_input_gives_the_same_bytes(study, tmp_path):
    again = write_study(tmp_path / "again")
    analyse(again)
    for path in sorted(study.results.parent.rglob("*.*")):
        if path.is_file():
            other = again.results.parent / path.relative_to(study.results.parent)
            assert other.read_bytes() == path.read_bytes(), path.name


def test_one_quantizer_leaves_empty_means_and_an_honest_summary(tmp_path):
    methods = {name: METHODS[name] for name in ("rtn2", "rtn3")}
    study = write_study(tmp_path, n=60, methods=methods)
    analyse(study, methods)
    assert pd.read_csv(study.results / "correlation_by_bits.csv").empty
    claims = pd.read_csv(study.results.parent / "claims.csv").set_index("claim")
    first, second = (draw(study, tmp_path / name, methods) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    verdict = claims.loc["every_pair_correlates", "verdict"]
    assert verdict == "not run (no two methods from different quantizers in this study)"
    text = (study.results.parent / "summary.md").read_text()
    assert "Not measured: the study has no two methods of different quantizers" in text


@pytest.fixture(scope="module")
def parallel_study(tmp_path_factory) -> SyntheticStudy:
    """A study of a model whose attention and MLP run in parallel: its residuals have no r."""
    written = write_study(tmp_path_factory.mktemp("parallel"), n=60)
    residuals = pd.read_parquet(written.residuals).drop(columns=["r", "r_kurtosis"])
    residuals.to_parquet(written.residuals, index=False)
    analyse(written)
    return written


def test_a_model_without_r_is_analysed_and_judged_by_its_other_norms(parallel_study):
    for name in ("residual_correlation.csv", "residual_sets.csv"):
        table = pd.read_csv(parallel_study.results / name)
        assert set(table["quantity"]) - {"h_kurtosis"} == {"z", "h"}
        assert np.isfinite(table[["low", "high"]]).all(axis=None)
    claims = pd.read_csv(parallel_study.results.parent / "claims.csv")
    verdicts = claims[claims["kind"] == "direction"].set_index("claim")["verdict"]
    reason = "not run (this architecture has no r: attention and MLP run in parallel)"
    for claim in ("residual_predicts_error", "residual_correlation_deepens",
                  "block_output_predicts_less", "large_has_smaller_residual"):  # fmt: skip
        assert verdicts[claim] == reason
    assert verdicts["block_output_predicts_error"] == "reproduced"
    assert verdicts["reversal"] in ("reproduced", "differs")
    assert verdicts["residual_predicts_at_equal_nll"] == reason
    assert verdicts["residual_adds_to_sets"].startswith("not run (6 documents in D_large and 6 in")
    partial = pd.read_csv(parallel_study.results / "partial_correlation.csv")
    assert set(partial["quantity"]) == {"z"}


def test_the_summary_of_a_model_without_r_says_so(parallel_study):
    text = (parallel_study.results.parent / "summary.md").read_text()
    assert "Not measured: this architecture has no norm(r): attention and MLP run in" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| rtn2 |"))
    assert row.split(" | ")[-2] == "-"


def test_the_figures_of_a_model_without_r_are_drawn(parallel_study, tmp_path):
    files = {
        option: [tmp_path / f"{option}.png", tmp_path / f"{option}.svg"]
        for option in ("layers", "norms", "reversal", "density", "kurtosis")
    }
    error = run(
        "plot_residuals.py", "--correlation", parallel_study.results / "residual_correlation.csv",
        "--by-set", parallel_study.results / "residual_sets.csv",
        "--residuals", parallel_study.residuals, "--sets", parallel_study.results / "sets.parquet",
        "--methods", json.dumps(METHODS),
        *(part for option, paths in files.items() for part in (f"--{option}-figure", *paths)),
    )  # fmt: skip
    assert error == ""
    assert all(path.stat().st_size for paths in files.values() for path in paths)


def test_tiny_studies_run(tmp_path):
    """The smallest study that can be: one document in D_large, three methods."""
    methods = {name: METHODS[name] for name in ("rtn2", "nf2", "hqq3")}
    study = write_study(tmp_path, n=10, methods=methods)
    analyse(study, methods)
    sets = pd.read_parquet(study.results / "sets.parquet")
    assert (sets["set"] == "large").sum() == 3
    overlap = pd.read_csv(study.results / "overlap.csv")
    assert overlap["jaccard"].between(0, 1).all()
    norms = pd.read_csv(study.results / "residual_sets.csv")
    assert np.isfinite(norms["mean"]).all()
    assert norms["low"].isna().all()  # a set is one document
    assert pd.read_csv(study.results / "prediction.csv")["value"].isna().all()
    text = (study.results.parent / "summary.md").read_text()
    for question, reason in (
        ("Can errors be predicted before quantizing?", "10 documents in 2 folds, each fold needs"),
        ("Is it hard text that breaks?", "a tenth of the documents is too few"),
        ("Do a few tokens carry the error?", "D_large or D_ctrl has too few documents"),
    ):
        assert f"*{question}* Not measured: {reason}" in text
    assert len(draw(study, tmp_path / "figures", methods)) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "--settings is not JSON"),
        ("[]", "--settings must be a JSON object"),
        ('{"resample": 5}', "--settings has unknown keys ['resample']"),
        ('{"resamples": 0}', "bootstrap.resamples is 0"),
    ],
)
def test_wrong_settings_are_one_line_errors(study, tmp_path, settings, message):
    error = run(
        "correlate.py", "--errors", study.results / "errors.parquet",
        "--methods", json.dumps(METHODS), "--settings", settings, "--seed", 0,
        "--pairs", tmp_path / "a.csv", "--by-bits", tmp_path / "b.csv",
    )  # fmt: skip
    assert error.startswith("error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_methods_must_match_the_table(study, tmp_path):
    error = run(
        "correlate.py", "--errors", study.results / "errors.parquet",
        "--methods", '{"rtn2": {"quantizer": "rtn", "bits": 2}}', "--settings", BOOTSTRAP,
        "--seed", 0, "--pairs", tmp_path / "a.csv", "--by-bits", tmp_path / "b.csv",
    )  # fmt: skip
    assert "compute the errors again" in error


def test_a_score_file_that_is_not_the_recorded_one(tmp_path):
    study = write_study(tmp_path, n=20, methods={"rtn2": METHODS["rtn2"]})
    table = pd.read_parquet(tmp_path / "rtn2.parquet")
    table.assign(nll=0.0).to_parquet(tmp_path / "rtn2.parquet")
    error = run(
        "compute_errors.py", "--scores", study.scores, "--tokens", study.tokens,
        "--settings", ERRORS, "--seed", 0, "--errors", tmp_path / "e", "--perplexity",
        tmp_path / "p", "--sets", tmp_path / "s", "--overlap", tmp_path / "o",
    )  # fmt: skip
    assert "is not the file that" in error
    assert "'rtn2'" in error
