"""A model's files: where `fetch_model.py` left them, and loading them whole.

Runs in every environment that quantizes, the old ones with transformers 4 included.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.errors import InputError
from lowbit.files import read_json

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig


def directory_of(model_record: Path) -> Path:
    """Return the model's directory: `files` beside its `model.json`.

    Raises:
        InputError: a file is gone or has another size than when it was recorded.
    """
    directory = model_record.parent / "files"
    for name, file in read_json(model_record)["files"].items():
        path = directory / name
        if not path.exists() or path.stat().st_size != file["bytes"]:
            raise InputError(
                f"{path} is missing or has changed since {model_record} recorded it. "
                f"Restore it, or delete {model_record} and run again."
            )
    return directory


def load_model(
    directory: Path,
    dtype: "torch.dtype",
    kind: str = "AutoModelForCausalLM",
    config: "PretrainedConfig | None" = None,
) -> "nn.Module":
    """Load a Hugging Face directory on the CPU, with transformers 4 or 5.

    Args:
        directory: of the model.
        dtype: of its weights in memory.
        kind: the class of transformers that finds its architecture.
        config: the model's, where it is not what config.json says.

    Raises:
        InputError: weights are missing that transformers would have filled with random numbers.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    version_4 = transformers.__version__.startswith("4.")
    model, loaded = getattr(transformers, kind).from_pretrained(
        directory,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        **{"torch_dtype" if version_4 else "dtype": dtype},
    )
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise InputError(
            f"{directory} lacks {len(missing)} weights of a {type(model).__name__}, "
            f"such as {missing[0]}; copy or download the model again"
        )
    return model.eval()
