"""What runs again, and what does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from copies import Copy

# Rules that follow from new errors and from new scores.
AFTER_ERRORS = {
    "analyze_long_tail",
    "analyze_patching",
    "analyze_residuals",
    "analyze_tokens",
    "analyze_trace",
    "correlate",
    "judge_claims",
    "patch",
    "plot_correlation",
    "plot_errors",
    "plot_long_tail",
    "plot_patching",
    "plot_prediction",
    "plot_residuals",
    "plot_tokens",
    "plot_trace",
    "predict",
    "render_pages",
    "trace_layers",
    "write_summary",
}
AFTER_SCORES = AFTER_ERRORS | {"compute_errors"}
AFTER_WEIGHTS = AFTER_SCORES | {"score", "tabulate_quantization"}


def test_every_stage_ran(finished: Copy) -> None:
    results = finished.folder / "results"
    for name in ("summary.md", "claims.csv", "claims.md", "config.resolved.yaml"):
        assert (results / "small" / name).stat().st_size > 0
    figures = {path.suffix for path in (results / "small/demo/figures").iterdir()}
    assert figures == {".png", ".svg"}
    assert not list(results.rglob("*.partial"))


def test_a_second_run_does_nothing(finished: Copy) -> None:
    again = finished.study()
    assert "Nothing to be done" in again.output
    assert not again.rules


def test_a_touched_file_reruns_nothing(done: Copy) -> None:
    for path in done.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path)
    assert not done.plan()


def test_a_fresh_clone_over_old_results_reruns_nothing(finished: Copy, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    # All dates are new, in whatever order the files are copied.
    shutil.copytree(finished.folder, clone, symlinks=True, copy_function=shutil.copy)
    assert not Copy(clone).plan()


def test_deleted_weights_are_made_again_only_when_needed(done: Copy) -> None:
    for weights in done.folder.glob("results/models/*/quantized/*/weights.safetensors"):
        weights.unlink()
    assert not done.plan()
    done.edit("scripts/lowbit/experiments/scoring.py")
    assert {"quantize_rtn", "quantize_nf", "quantize_hqq", "score"} <= set(done.plan())


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("claims/report", {"judge_claims", "render_pages", "write_summary"}),
        (
            "analysis/correlation",
            {"correlate", "plot_correlation", "render_pages", "write_summary"},
        ),
        (
            "figures/errors",
            {"plot_correlation", "plot_errors", "plot_long_tail", "plot_patching"}
            | {"plot_prediction"},
        ),
        ("experiments/scoring", {"score"} | AFTER_SCORES),
        ("quantizers/hqq", {"quantize_hqq"} | AFTER_WEIGHTS),
    ],
)
def test_a_changed_module_reruns_what_imports_it(module: str, rules: set[str], done: Copy) -> None:
    done.edit(f"scripts/lowbit/{module}.py")
    assert set(done.plan()) == rules


def test_an_equal_result_after_a_rerun(done: Copy, finished: Copy) -> None:
    done.edit("scripts/lowbit/claims/report.py")
    again = done.study()
    assert dict(again.rules) == {"judge_claims": 1, "render_pages": 1, "write_summary": 1}
    assert done.results() == finished.results()


def test_a_changed_setting_reruns_what_reads_it(finished: Copy) -> None:
    planned = finished.plan("tests/e2e/config/other_sets.yaml")
    assert set(planned) == {"write_config", "compute_errors"} | AFTER_ERRORS


def test_a_changed_environment_reruns_what_uses_it_but_a_comment_does_not(done: Copy) -> None:
    file = done.folder / "envs" / "hqq.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(f"# another comment\n{text}", encoding="utf-8")
    assert not done.plan()
    file.write_text(text.replace("einops==0.8.2", "einops==0.8.1"), encoding="utf-8")
    assert set(done.plan()) == {"quantize_hqq"} | AFTER_WEIGHTS


def test_a_script_runs_alone(finished: Copy, tmp_path: Path) -> None:
    tables = Path("results/small/demo")
    (tokens,) = finished.folder.glob("results/models/*/tokens/*/tokens.parquet")
    outputs = {
        "errors": "errors.parquet",
        "perplexity": "perplexity.csv",
        "sets": "sets.parquet",
        "overlap": "overlap.csv",
    }
    config = yaml.safe_load((finished.folder / "results/small/config.resolved.yaml").read_text())
    settings = json.dumps(config["errors"])
    options = ["--scores", tables / "scores.json", "--tokens", tokens, "--settings", settings]
    for option, name in outputs.items():
        options += [f"--{option}", tmp_path / name]
    command = [sys.executable, "scripts/compute_errors.py", "--seed", "0", *options]
    subprocess.run(command, cwd=finished.folder, check=True)
    for name in outputs.values():
        expected = (finished.folder / tables / name).read_bytes()
        assert (tmp_path / name).read_bytes() == expected


SCRIPTS = sorted(Path(__file__).parents[2].glob("scripts/*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_explains_itself_without_loading_anything_heavy(script: Path) -> None:
    program = (
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "finally: print('heavy:', {'torch', 'transformers', 'pandas'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(script.parent)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert done.stdout.endswith("heavy: set()\n")
