"""The settings of methods agree with the modules and environments that implement them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from study.config.methods import METHODS, Awq, Backend, Method

REPOSITORY = Path(__file__).parents[1]
IMPLEMENTATIONS = [
    pytest.param(method, backend, id=f"{method.__name__}-{name}")
    for method in METHODS
    for name, backend in method.BACKENDS.items()
]


def keywords(module: str) -> dict[str, set[str]]:
    """Keyword-only parameters of a module's functions; read, because its library is elsewhere."""
    source = REPOSITORY / "scripts" / Path(*module.split(".")).with_suffix(".py")
    functions = [
        node for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    return {each.name: {word.arg for word in each.args.kwonlyargs} for each in functions}


@pytest.mark.parametrize(("method", "backend"), IMPLEMENTATIONS)
def test_the_module_takes_exactly_the_settings(method: type[Method], backend: Backend) -> None:
    settings = set(method.model_fields) - {"quantizer", "backend", "calibration"}
    found = keywords(backend.module)
    function = "quantize_block" if "quantize_block" in found else "quantize"
    assert settings <= found[function]
    assert found.get("finish", settings) <= settings


@pytest.mark.parametrize(("method", "backend"), IMPLEMENTATIONS)
def test_the_environment_is_there(method: type[Method], backend: Backend) -> None:
    assert (REPOSITORY / "envs" / f"{backend.environment}.yaml").exists()


@pytest.mark.parametrize("method", METHODS)
def test_examples_are_valid_and_the_first_backend_is_the_default(method: type[Method]) -> None:
    example = method.model_config["json_schema_extra"]["examples"][0]
    made = method.model_validate(example)
    assert made.implementation == next(iter(method.BACKENDS.values()))
    if "backend" in method.model_fields:
        chosen = method.model_fields["backend"].annotation.__args__
        assert chosen == tuple(method.BACKENDS)


def test_only_autoawq_clips() -> None:
    settings = {"quantizer": "awq", "bits": 3, "group_size": 64}
    assert Awq.model_validate(settings).clipping
    settings["backend"] = "llm-compressor"
    assert not Awq.model_validate(settings).clipping
    with pytest.raises(ValueError, match=r"needs backend: autoawq; write clipping: false"):
        Awq.model_validate({**settings, "clipping": True})


def test_settings_leave_out_what_the_workflow_alone_needs() -> None:
    made = METHODS[0].model_validate(
        {"quantizer": "rtn", "bits": 3, "group_size": 64, "calibration": "mine"}
    )
    assert made.settings() == {"bits": 3, "group_size": 64, "symmetric": False}


def test_methods_need_no_heavy_import() -> None:
    code = "import sys, study.config.methods; print({'torch', 'numpy', 'hqq'} & set(sys.modules))"
    scripts = REPOSITORY / "scripts"
    done = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
