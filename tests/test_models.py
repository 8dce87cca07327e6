"""Model directories: what is recorded of good ones, and what bad ones are told."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from run_script import run_script
from safetensors.torch import load_file, save_file
from tiny_checkpoints import CONFIGS, CONTEXT, START_TOKENS, VOCABULARY, write_checkpoint

from lowbit.errors import InputError
from lowbit.files import read_json, sha256
from lowbit.inputs import models


@pytest.fixture(scope="module", params=list(CONFIGS))
def family(request: pytest.FixtureRequest) -> str:
    """Name of an architecture family."""
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model directory of that family."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / family, family)


def test_a_model_is_described(family: str, checkpoint: Path) -> None:
    record = models.resolve("path:somewhere", checkpoint)
    model = hf.AutoModelForCausalLM.from_pretrained(checkpoint)
    assert record["source"] == "path:somewhere"
    assert record["architecture"] == type(model).__name__
    assert record["parameters"] == sum(p.numel() for p in model.parameters())
    assert (record["hidden_size"], record["layers"]) == (64, 2)
    assert record["vocabulary"] == VOCABULARY
    assert record["context_length"] == (None if family == "bloom" else CONTEXT)
    assert record["start_token"] == START_TOKENS[family]
    for name, file in record["files"].items():
        assert file == {
            "sha256": sha256(checkpoint / name),
            "bytes": (checkpoint / name).stat().st_size,
        }
    assert {"config.json", "model.safetensors", "tokenizer_config.json"} <= set(record["files"])


def test_the_matrices_of_blocks_are_the_linear_layers(checkpoint: Path) -> None:
    model = hf.AutoModelForCausalLM.from_pretrained(checkpoint)
    expected = {
        (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(part.isdigit() for part in name.split("."))
    }
    found = models.block_linears(checkpoint)
    assert {(outputs, inputs) for _, outputs, inputs in found} == expected
    assert all("*" in name for name, _, _ in found)


def shard(directory: Path) -> None:
    """Rewrite the weights as several files with an index."""
    model = hf.AutoModelForCausalLM.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size="100KB")


def test_shards_are_as_good_as_one_file(llama_directory: Path) -> None:
    whole = models.resolve("demo", llama_directory)
    linears = models.block_linears(llama_directory)
    shard(llama_directory)
    record = models.resolve("demo", llama_directory)
    assert len(models.weight_files(llama_directory)) > 1
    assert models.WEIGHTS_INDEX in record["files"]
    assert record["parameters"] == whole["parameters"]
    assert models.block_linears(llama_directory) == linears


def test_a_missing_shard_is_named(llama_directory: Path) -> None:
    shard(llama_directory)
    first, *_ = models.weight_files(llama_directory)
    (llama_directory / first).unlink()
    with pytest.raises(InputError, match=rf"lacks 1 of the \d+ weight files .*: {first}"):
        models.resolve("demo", llama_directory)


def test_files_that_are_no_part_of_the_model_are_ignored(llama_directory: Path) -> None:
    before = models.model_files(llama_directory)
    for name in ("README.md", "pytorch_model.bin", "consolidated.safetensors", "training_args.bin"):
        (llama_directory / name).write_bytes(b"anything")
    assert models.model_files(llama_directory) == before


def set_value(directory: Path, value: float, dtype: torch.dtype) -> None:
    """Store the weights as `dtype` with one element replaced."""
    tensors = {k: v.to(dtype) for k, v in load_file(directory / "model.safetensors").items()}
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_infinite_weights_are_named(
    llama_directory: Path, value: float, dtype: torch.dtype
) -> None:
    set_value(llama_directory, value, dtype)
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight has 1 values"):
        models.resolve("demo", llama_directory)


def edit_config(directory: Path, **changes: object) -> None:
    """Change keys of config.json."""
    config = read_json(directory / "config.json") | changes
    (directory / "config.json").write_text(json.dumps(config))


def cut(directory: Path, size: int) -> None:
    """Keep the first bytes of the weights only; a negative size counts from the end."""
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])


def to_pickle(directory: Path) -> None:
    """Leave only weights that would have to be unpickled."""
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def huge_header(directory: Path) -> None:
    """A header length that no file has."""
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda d: cut(d, -100), r"bytes but its header promises \d+: it was cut off"),
    "truncated header": (lambda d: cut(d, 100), "header cannot be read"),
    "truncated to nothing": (lambda d: cut(d, 0), r"\(0 bytes\) is not a whole safetensors"),
    "not safetensors": (huge_header, "header cannot be read"),
    "pickle": (to_pickle, r"only pickle weights \(pytorch_model.bin\).*safe_serialization"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "has no weights"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "has no tokenizer; copy"),
    "broken tokenizer": (lambda d: (d / "tokenizer.json").write_text("{}"), "cannot be loaded"),
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda d: (d / "config.json").write_text("{"), "is not valid JSON"),
    "unknown architecture": (
        lambda d: edit_config(d, architectures=["MambaForCausalLM"]),
        "MambaForCausalLM is not known: its roles residual_mid, .* are missing",
    ),
    "no architecture": (lambda d: edit_config(d, architectures=None), "must name one class"),
    "unknown kind": (lambda d: edit_config(d, model_type="xyz"), "config.json cannot be used"),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_model_is_refused(
    llama_directory: Path, damage: Callable[[Path], object], told: str
) -> None:
    damage(llama_directory)
    with pytest.raises(InputError, match=told):
        models.resolve("demo", llama_directory)


def test_code_that_comes_with_a_model_is_never_run(llama_directory: Path) -> None:
    edit_config(llama_directory, auto_map={"AutoConfig": "code.Config"}, model_type="own")
    (llama_directory / "code.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match=r"config\.json cannot be used"):
        models.resolve("demo", llama_directory)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("path:nowhere", "path:nowhere does not exist"),
        (
            "s3:x/y",
            "is not a known source; write demo or hub:<repo>@<revision> or path:<directory>",
        ),
        ("hub:x/y", "hub:x/y has no revision; write hub:x/y@main"),
        ("demo:x", "write demo"),
        ("path", "write path:<directory>"),
        ("demo", "the embedded demo is not at missing; restore it with git checkout missing"),
    ],
)
def test_a_source_that_cannot_be_found_is_told(source: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        models.locate_model(source, Path("missing"))
    assert told in str(caught.value)


def fetch(source: str, output: Path, folder: Path) -> str:
    """Run the script as a rule would."""
    options = ("--source", source, "--demo", "demo", "--output", output)
    return run_script("fetch_model.py", folder, *options)


def test_the_script_records_and_links_so_that_the_project_can_move(
    llama_directory: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    llama_directory.rename(project / "llama")
    output = Path("results/models/m/model.json")
    assert fetch("path:llama", output, project) == ""
    moved = project.rename(tmp_path / "moved")
    record = read_json(moved / output)
    assert record == models.resolve("path:llama", moved / "llama")
    link = (moved / output).parent / "files"
    assert link.is_symlink()
    assert sorted(os.listdir(link)) == sorted(os.listdir(moved / "llama"))


def test_the_link_holds_where_results_is_a_link_itself(
    llama_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "other" / "disk").mkdir(parents=True)
    (tmp_path / "results").symlink_to("other/disk")
    assert fetch("path:llama", Path("results/m/model.json"), tmp_path) == ""
    assert (tmp_path / "results/m/files/config.json").is_file()


def test_the_script_tells_an_error_in_one_line_and_leaves_no_record(
    llama_directory: Path, tmp_path: Path
) -> None:
    cut(llama_directory, -1)
    told = fetch(f"path:{llama_directory}", tmp_path / "out" / "model.json", tmp_path)
    assert told.startswith("error: ")
    assert "\n" not in told
    assert not (tmp_path / "out").exists()
