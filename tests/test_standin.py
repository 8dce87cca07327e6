"""The stand-in for conda, and when it is used."""

import ast
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STANDIN = ROOT / "envs" / "standin" / "conda"
ENVIRONMENT = """\
# A comment.
channels:
  - conda-forge
dependencies:
  - python=3.11  # another
  - pip
"""


def conda(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STANDIN, *arguments], capture_output=True, text=True)


def create(file: Path, prefix: Path) -> subprocess.CompletedProcess[str]:
    options = ("--quiet", "--no-default-packages", "--file", file, "--prefix", prefix)
    return conda("env", "create", *options)


def write_environment(folder: Path, *dependencies: str) -> Path:
    file = folder / "environment.yaml"
    file.write_text(ENVIRONMENT + "".join(f"{line}\n" for line in dependencies), encoding="utf-8")
    return file


def write_wheel(folder: Path) -> str:
    """A package `hello` with one module; return its requirement."""
    wheel = folder / "hello-1.0-py3-none-any.whl"
    info = "hello-1.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hello.py", "WORD = 'hello'\n")
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "hello.py,,\n")
    return f"      - hello @ {wheel.as_uri()}"


def test_it_answers_what_snakemake_asks_before_it_makes_an_environment() -> None:
    assert conda("--version").stdout == "conda 24.7.1\n"
    prefix = Path(json.loads(conda("info", "--json").stdout)["conda_prefix"])
    assert (prefix / "bin" / "activate").is_file()
    priority = json.loads(conda("config", "--get", "channel_priority", "--json").stdout)
    assert priority == {"get": {"channel_priority": "strict"}}
    assert conda("clean", "-y", "--tarballs").returncode == 0


def test_it_makes_an_environment_of_its_own(tmp_path: Path) -> None:
    file = write_environment(tmp_path, "  - pip:", write_wheel(tmp_path))
    prefix = tmp_path / "made"
    (prefix / "left").mkdir(parents=True)  # by a run that was killed
    done = create(file, prefix)
    assert done.returncode == 0, done.stderr
    assert not (prefix / "left").exists()
    assert (prefix / "conda-meta" / "history").is_file()
    activate = STANDIN.parent / "bin" / "activate"
    program = "import hello, sys; print(hello.WORD, sys.prefix, sys.version_info[:2])"
    line = f"set -eu; source {activate} '{prefix}'; python -c '{program}'"
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
    assert said == f"hello {prefix} (3, 11)\n"
    assert "hello @ file" in conda("env", "export", "--prefix", prefix).stdout


def test_an_incomplete_environment_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    absent = (tmp_path / "absent-1.0-py3-none-any.whl").as_uri()
    file = write_environment(tmp_path, "  - pip:", f"      - absent @ {absent}")
    done = create(file, tmp_path / "made")
    assert done.returncode != 0
    assert "absent-1.0" in done.stderr
    assert (tmp_path / "made").exists()
    assert not (tmp_path / "made" / "conda-meta").exists()


@pytest.mark.parametrize(
    ("dependencies", "problem"),
    [
        (["  - samtools=1.2", "  - bwa"], "cannot serve samtools=1.2, bwa"),
        (["  - pip:", "      - rich", "  - cuda-nvcc"], "cannot serve cuda-nvcc"),
        (["  - python=3.2"], "Python 3.2 with its venv module was not found"),
    ],
)
def test_it_names_what_it_cannot_serve(
    dependencies: list[str], problem: str, tmp_path: Path
) -> None:
    done = create(write_environment(tmp_path, *dependencies), tmp_path / "made")
    assert done.returncode != 0
    assert problem in done.stderr
    assert "conda" in done.stderr
    assert not (tmp_path / "made").exists()


def test_an_old_python_can_run_it_to_find_the_right_one() -> None:
    """`python3` is 3.6 on some clusters; the annotations of later versions are in quotes."""
    parsed = ast.parse(STANDIN.read_text(encoding="utf-8"), feature_version=(3, 6))
    functions = [node for node in ast.walk(parsed) if isinstance(node, ast.FunctionDef)]
    hints = [hint for each in functions for hint in (each.returns, *_hints(each)) if hint]
    assert not [hint for hint in hints if isinstance(hint, ast.Subscript)]


def _hints(function: ast.FunctionDef) -> list[ast.expr | None]:
    return [argument.annotation for argument in function.args.args]


def test_it_refuses_what_it_does_not_know() -> None:
    done = conda("install", "numpy")
    assert done.returncode != 0
    assert "conda install numpy: not known" in done.stderr


def which_conda(path: str, *variables: str) -> tuple[str, str]:
    """The conda that the Makefile would use, and where its environments would go."""
    show = "show: ; @command -v conda; echo $$SNAKEMAKE_CONDA_PREFIX"
    command = ["make", "--no-print-directory", f"--eval={show}", "show", *variables]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    conda, prefix = done.stdout.split()
    return conda, Path(prefix).relative_to(ROOT).as_posix()


def test_it_is_used_only_where_there_is_no_conda(tmp_path: Path) -> None:
    real = tmp_path / "conda"
    real.write_text("#!/bin/sh\n", encoding="utf-8")
    real.chmod(0o755)
    system = "/usr/bin:/bin"
    standin = (str(STANDIN), ".envs/standin")
    assert which_conda(system) == standin
    assert which_conda(f"{STANDIN.parent}:{system}") == standin  # make called by make
    assert which_conda(f"{tmp_path}:{system}") == (str(real), ".envs/conda")
    assert which_conda(f"{tmp_path}:{system}", "REAL_CONDA=") == standin
