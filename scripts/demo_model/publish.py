"""Write the product: bfloat16 weights, tokenizer, documents, loss curve and model card.

Weights that training kept on its way are written likewise, beside the build's other files.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import LlamaForCausalLM

from .documents import encode, first_row
from .train import Recipe, build_model, kept_weights

PRODUCTS = ("documents.parquet", "calibration.parquet", "last_word.parquet")
TEMPLATE = Path(__file__).with_name("card.md.jinja")


def write_model(weights: dict[str, Any], recipe: Recipe, directory: Path) -> None:
    """Save weights in bfloat16 as a Hugging Face directory."""
    model = build_model(recipe)
    model.load_state_dict(weights)
    model.config.use_cache = model.generation_config.use_cache = True
    model.to(torch.bfloat16).save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # saved readable by its owner only
    # transformers 4, in the environments of archived quantizers, knows the older keys only.
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config |= {"rope_theta": recipe.rope_theta, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, rows: np.ndarray, name: str, batch: int = 8) -> float:
    """Mean next-token loss in nats over token rows `[rows, length]`, all rows weighted alike."""
    losses = []
    for start in tqdm(range(0, len(rows), batch), desc=f"loss on {name}", unit="batch"):
        tokens = torch.from_numpy(rows[start : start + batch].astype(np.int64))
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        losses.append(float(loss) * len(tokens))
    return sum(losses) / len(rows)


def document_rows(documents: Path, tokenizer: Path) -> np.ndarray:
    """Start token and first 511 tokens of every committed document, `[documents, 512]`."""
    texts = pd.read_parquet(documents)["text"]
    ids = encode(Tokenizer.from_file(str(tokenizer / "tokenizer.json")), texts)
    return first_row(pd.Series(ids))


def measured_losses(model_directory: Path, build: Path) -> dict[str, float]:
    """Losses in nats of the published weights, computed in float32 from the files themselves."""
    model = LlamaForCausalLM.from_pretrained(model_directory, dtype=torch.float32).eval()
    rows = {
        "documents": document_rows(build / "documents.parquet", build / "tokenizer"),
        "heldout_sample": np.load(build / "heldout_sample.npy"),
        "training_sample": np.load(build / "training_sample.npy"),
    }
    return {name: round(mean_loss(model, item, name), 5) for name, item in rows.items()}


def card_values(
    state: dict[str, Any], recipe: Recipe, losses: dict[str, float], build: Path
) -> dict[str, Any]:
    """Everything the model card says, from the run's own records."""
    heldout = [point["heldout_loss"] for point in state["curve"]]
    weights = build_model(recipe).parameters()
    return {
        "step": state["step"],
        "tokens_seen": state["step"] * recipe.batch_size * recipe.length,
        "parameters": sum(weight.numel() for weight in weights),
        "loss": losses,
        "perplexity": round(math.exp(losses["documents"]), 4),
        "uniform_loss": round(math.log(recipe.vocabulary_size), 5),
        "last_fall": round(heldout[-2] - heldout[-1], 5) if len(heldout) > 1 else None,
        "last_fall_steps": recipe.save_every,
        "kept_steps": recipe.kept_steps,
        "recipe": asdict(recipe),
        "splits": json.loads((build / "splits.json").read_text()),
        "last_word_items": len(pd.read_parquet(build / "last_word.parquet")),
        "corpus": json.loads((build / "corpus.json").read_text()),
    }


def publish(checkpoint: Path, build: Path, output: Path) -> dict[str, Any]:
    """Make the product beside `output`, then move file by file, so readers see whole files."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    recipe = Recipe(**state["recipe"])
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".demo-") as name:
        made = Path(name)
        write_model(state["model"], recipe, made / "model")
        shutil.copytree(build / "tokenizer", made / "model", dirs_exist_ok=True)
        for product in PRODUCTS:
            shutil.copyfile(build / product, made / product)
        curve = pd.DataFrame(state["curve"])
        curve.to_csv(made / "training_curve.csv", index=False, float_format="%.5f")
        card = card_values(state, recipe, measured_losses(made / "model", build), build)
        (made / "card.json").write_text(json.dumps(card, indent=1) + "\n")
        template = jinja2.Template(TEMPLATE.read_text(), keep_trailing_newline=True)
        (made / "README.md").write_text(template.render(card=card))
        for path in sorted(item for item in made.rglob("*") if item.is_file()):
            target = output / path.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    return card


def publish_checkpoints(recipe: Recipe, build: Path, output: Path) -> None:
    """Write the weights that training kept as models like the last: `output/step-<step>/`."""
    for step in recipe.kept_steps:
        weights = load_file(kept_weights(build / "progress", step) / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]  # stored once
        directory = output / kept_weights(build, step).name
        write_model(weights, recipe, directory)
        shutil.copytree(build / "tokenizer", directory, dirs_exist_ok=True)


def main() -> None:
    """Publish one checkpoint; an unfinished one gives a card marked as provisional."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--build", type=Path, required=True, help="build directory")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True, help="directory of kept steps")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    card = publish(arguments.checkpoint, arguments.build, arguments.output)
    publish_checkpoints(Recipe(**card["recipe"]), arguments.build, arguments.checkpoints)
    print(json.dumps({"step": card["step"], "loss": card["loss"]}))


if __name__ == "__main__":
    main()
