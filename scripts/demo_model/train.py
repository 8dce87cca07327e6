"""Train the embedded model; kill it at any time and start it again to go on."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from .tokenizer import BEGIN_ID, END_ID, MAXIMUM_LENGTH, VOCABULARY_SIZE


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, beside the rows and the hardware's rounding."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 6
    heads: int = 4
    vocabulary_size: int = VOCABULARY_SIZE
    length: int = MAXIMUM_LENGTH
    rope_theta: float = 10000.0
    steps: int = 3840
    batch_size: int = 16
    peak_learning_rate: float = 4e-3
    warmup_share: float = 0.02
    decay_share: float = 0.25
    weight_decay: float = 0.1
    beta_one: float = 0.9
    beta_two: float = 0.95
    gradient_clip: float = 1.0
    save_every: int = 160
    seed: int = 20240612

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose weights are kept: 1/64, 1/32, ... 1/2 of the run."""
        return sorted({self.steps // 2**power for power in range(1, 7)} - {0})


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """A freshly initialised float32 model; the seed alone decides its weights."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.length,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=BEGIN_ID,
        eos_token_id=END_ID,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def build_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW whose weight decay acts on matrices only, not on norm weights."""
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (recipe.beta_one, recipe.beta_two)
    return torch.optim.AdamW(groups, lr=recipe.peak_learning_rate, betas=betas, fused=True)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Warm-up, stable, linear decay to zero; `step` counts from 0."""
    warmup = max(1, round(recipe.steps * recipe.warmup_share))
    decay = max(1, round(recipe.steps * recipe.decay_share))
    share = min(1.0, (step + 1) / warmup, (recipe.steps - step) / decay)
    return recipe.peak_learning_rate * share


def batch_rows(step: int, rows: int, recipe: Recipe) -> np.ndarray:
    """Row numbers of one step, `[batch]`: each epoch is a permutation drawn from (seed, epoch).

    A function of the step alone, so a resumed run needs no saved position.
    """
    positions = step * recipe.batch_size + np.arange(recipe.batch_size)
    chosen = np.empty(recipe.batch_size, dtype=np.int64)
    for epoch in np.unique(positions // rows):
        order = np.random.default_rng([recipe.seed, int(epoch)]).permutation(rows)
        inside = positions // rows == epoch
        chosen[inside] = order[positions[inside] % rows]
    return chosen


@dataclass(frozen=True)
class Data:
    """Token rows, uint16 `[rows, length]`: to train on, and two fixed samples for the curve."""

    training: np.ndarray
    training_sample: np.ndarray
    heldout_sample: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 of the training rows: a checkpoint continues only on the rows it began with."""
        return hashlib.sha256(np.ascontiguousarray(self.training).tobytes()).hexdigest()


def read_data(directory: Path) -> Data:
    """The rows that `documents.py` wrote."""
    return Data(
        np.load(directory / "training_rows.npy", mmap_mode="r"),
        np.load(directory / "training_sample.npy"),
        np.load(directory / "heldout_sample.npy"),
    )


class Trainer:
    """A model, its optimizer, its step and its loss curve: all that a checkpoint holds."""

    def __init__(
        self, recipe: Recipe, data: Data, device: str, autocast: bool, compiled: bool
    ) -> None:
        self.recipe, self.data, self.device, self.autocast = recipe, data, device, autocast
        self.model = build_model(recipe).to(device)
        self.optimizer = build_optimizer(self.model, recipe)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self._loss: Callable[[torch.Tensor], torch.Tensor] = self._plain_loss
        if compiled:
            self._loss = torch.compile(self._plain_loss)

    def _plain_loss(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, labels=tokens, use_cache=False).loss

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Mean next-token loss in nats of token rows `[batch, length]`."""
        tokens = torch.from_numpy(rows.astype(np.int64)).to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.autocast):
            return self._loss(tokens)

    def update(self, rows: np.ndarray) -> float:
        """One optimizer step on token rows `[batch, length]`; returns their loss in nats."""
        rate = learning_rate(self.step, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self, rows: np.ndarray) -> float:
        """Mean loss in nats over all rows, taken in whole batches so that one shape is compiled."""
        size = min(self.recipe.batch_size, len(rows))
        batches = rows[: len(rows) // size * size].reshape(-1, size, rows.shape[1])
        return float(np.mean([float(self.loss(batch)) for batch in batches]))

    def save(self, path: Path) -> None:
        """Write the checkpoint so that a kill at any moment leaves the old one or the new one."""
        partial = path.with_suffix(".partial")
        state = {
            "recipe": dataclasses.asdict(self.recipe),
            "data": self.data.digest,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "curve": self.curve,
            "random_state": torch.get_rng_state(),
        }
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError if another recipe or corpus made it."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        expected = (dataclasses.asdict(self.recipe), self.data.digest)
        if (state["recipe"], state["data"]) != expected:
            raise ValueError(f"{path} is of another recipe or corpus: delete it to start again")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.curve = state["step"], state["curve"]
        torch.set_rng_state(state["random_state"].cpu())


def save_weights(model: LlamaForCausalLM, directory: Path) -> None:
    """Write float32 weights and config.json; the directory appears only when it is complete."""
    partial = directory.with_name(directory.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    # The output head is the embedding: one tensor is stored, as transformers does.
    tensors = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    del tensors["lm_head.weight"]
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(partial)
    if directory.exists():
        shutil.rmtree(directory)
    partial.replace(directory)


def record(trainer: Trainer, directory: Path) -> dict[str, float]:
    """Measure both losses, add them to the curve and rewrite its file."""
    recipe, data = trainer.recipe, trainer.data
    point = {
        "step": trainer.step,
        "tokens": trainer.step * recipe.batch_size * recipe.length,
        "train_loss": trainer.evaluate(data.training_sample),
        "heldout_loss": trainer.evaluate(data.heldout_sample),
    }
    trainer.curve.append(point)
    table = pd.DataFrame(trainer.curve)
    table.to_csv(directory / "training_curve.csv", index=False, float_format="%.5f")
    return point


def kept_weights(directory: Path, step: int) -> Path:
    """Where the weights of a kept step are."""
    return directory / f"step-{step:06d}"


def require_kept(recipe: Recipe, directory: Path, done: int) -> None:
    """Raise ValueError if weights up to step `done` are missing, which only a new run can give."""
    missing = [
        step
        for step in recipe.kept_steps
        if step <= done and not kept_weights(directory, step).is_dir()
    ]
    if missing:
        raise ValueError(
            f"{directory} has no weights of steps {', '.join(map(str, missing))}, which training "
            "keeps: delete it to train from the start"
        )


def train(trainer: Trainer, directory: Path, stop: int | None = None) -> None:
    """Train until the recipe's last step (or `stop`), resuming from the checkpoint if there is one.

    In `directory`: `checkpoint.pt`, `training_curve.csv`, `step-<step>/` for the kept steps.
    """
    directory.mkdir(parents=True, exist_ok=True)
    recipe, rows, checkpoint = trainer.recipe, trainer.data.training, directory / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
        require_kept(recipe, directory, trainer.step)
    last = min(recipe.steps, stop or recipe.steps)
    progress = tqdm(total=recipe.steps, initial=trainer.step, unit="step", mininterval=5)
    while trainer.step < last:
        chosen = np.sort(batch_rows(trainer.step, len(rows), recipe))
        loss = trainer.update(rows[chosen])
        progress.update()
        progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if trainer.step in recipe.kept_steps:
            save_weights(trainer.model, kept_weights(directory, trainer.step))
        if trainer.step % recipe.save_every == 0 or trainer.step == recipe.steps:
            point = record(trainer, directory)
            progress.write(json.dumps(point))
            trainer.save(checkpoint)
    progress.close()


def finish(recipe: Recipe, progress: Path, tokenizer: Path, output: Path) -> None:
    """Copy the last checkpoint to `output`; make the kept steps complete model directories."""
    for step in recipe.kept_steps:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, kept_weights(progress, step) / name)
    shutil.copyfile(progress / "checkpoint.pt", output)


def main() -> None:
    """Train, then write the final checkpoint where the workflow expects it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the token rows")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--progress", type=Path, required=True, help="directory of checkpoints")
    parser.add_argument("--output", type=Path, required=True, help="final checkpoint")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--peak-learning-rate", type=float, default=Recipe.peak_learning_rate)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(steps=arguments.steps, peak_learning_rate=arguments.peak_learning_rate)
    autocast = arguments.precision == "bfloat16"
    data = read_data(arguments.data)
    trainer = Trainer(recipe, data, arguments.device, autocast, arguments.compile)
    train(trainer, arguments.progress)
    finish(recipe, arguments.progress, arguments.tokenizer, arguments.output)


if __name__ == "__main__":
    main()
