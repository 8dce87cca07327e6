"""Tasks of lm-evaluation-harness on a model in memory. Runs in the harness's environment."""

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import lm_eval.tasks
import pandas as pd
import torch
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lowbit.downstream.buckets import BUCKETS, MINIMUM_ITEMS
from lowbit.errors import GateError, InputError
from lowbit.inputs.tokenizer import encode

METRICS = ("exact_match", "acc")
"""What may say that an answer is right, 1 or 0; the first one that a task has is taken."""
PROBE = ("Q: Who wrote Hamlet? A:", " William Shakespeare")
"""A prompt and its continuation, to compare log-likelihoods on."""
TOLERANCE = 1e-4
"""Nats per token that the harness's log-likelihood may differ from a plain forward's."""

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of each prompt that it cuts


class HeldModel(HFLM):
    """A model in memory, as the harness calls it; knows which prompts are longer than the context.

    The harness cuts these from the left: examples are lost, and the start token.

    Args:
        model: on its device, weights as they are to be tried.
        tokenizer: of the model.
        start_token: that the tokenizer puts before a text, if any.
        context: longest input in tokens; None for unlimited positions (then 2,048).
        batch_size: prompts at once.
        name: of the task in the config, for messages.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        start_token: int | None,
        context: int | None,
        batch_size: int,
        name: str,
    ) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=batch_size,
            max_length=context,
            softmax_dtype="float32",
        )
        self.start_token = start_token
        self.name = name
        self.cut: set[tuple[str, int]] = set()
        """Task and number of every item whose prompt was cut."""

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer by greedy generation; note which prompts do not fit."""

        def excess(prompt: str, settings: dict[str, Any]) -> int:
            new = normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
            return len(self.tok_encode(prompt)) + new - self.max_length

        self._note_cut(requests, [excess(*request.args) for request in requests])
        return super().generate_until(requests, disable_tqdm)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Score continuations; note which prompts do not fit."""

        def excess(prompt: str, continuation: str) -> int:
            # The last token is only predicted, not read.
            return sum(map(len, self._encode_pair(prompt, continuation))) - 1 - self.max_length

        self._note_cut(requests, [excess(*request.args) for request in requests])
        return super().loglikelihood(requests, disable_tqdm)

    def _note_cut(self, requests: Sequence[Instance], excess: Sequence[int]) -> None:
        pairs = list(zip(requests, excess, strict=True))
        self.cut |= {(r.task_name, r.doc_id) for r, tokens in pairs if tokens > 0}
        items = {(request.task_name, request.doc_id) for request in requests}
        if items <= self.cut:
            raise InputError(
                f"downstream.{self.name}.shots: every prompt is longer than the model's context of "
                f"{self.max_length} tokens, the shortest by {min(excess)}; lm-evaluation-harness "
                "would cut off where they begin, examples first. Write fewer shots"
            )


@dataclass(frozen=True)
class LoadedTask:
    """A task or group of tasks, with its items."""

    root: Task | Group
    tasks: Mapping[str, Task]
    """The task itself, or those of the group, by name."""
    manager: TaskManager


def load_task(source: str, name: str) -> LoadedTask:
    """Load a task and its data set.

    Args:
        source: path of a task file, or the name of a task of the harness.
        name: of the task in the config, for messages.

    Raises:
        InputError: the data set cannot be read, lacks a column that the task file uses, or fails
            one of the task's own checks.
    """
    folder = Path(lm_eval.tasks.__file__).parent / source
    own = not Path(source).is_file()
    manager = TaskManager(include_defaults=False, include_path=folder if own else None)
    try:
        loaded = manager.load([source])
    except jinja2.UndefinedError as error:
        raise InputError(
            f"downstream.{name}.task: {source} uses a column that its data set lacks: {error}"
        ) from error
    except InputError as error:
        raise InputError(f"downstream.{name}.task: {source}: {error}") from error
    except (ConnectionError, FileNotFoundError) as error:
        raise InputError(
            f"downstream.{name}.task: the data set of {source} cannot be read ({error}); run it "
            "once where the hub can be reached, which keeps the data in Hugging Face's cache, or "
            "write a task file whose dataset_kwargs.data_files are local"
        ) from error
    (root,) = [*loaded.get("groups", {}).values(), *loaded["tasks"].values()][:1]
    return LoadedTask(root, loaded["tasks"], manager)


def check_task(loaded: LoadedTask, shots: int, name: str) -> None:
    """Check what would stop the harness only after hours, or be ignored by it.

    Raises:
        InputError: the task does not say what is right, has no popularity where it says so, is
            fixed to no examples, or has fewer examples than there are shots.
    """
    for task_name, task in loaded.tasks.items():
        where = f"downstream.{name}.task: {task_name}"
        if not set(METRICS) & set(task.aggregation()):
            raise InputError(
                f"{where} has the metrics {', '.join(task.aggregation())}; one of "
                f"{', '.join(METRICS)} is needed to tell which answers are right"
            )
        _check_popularity(task, where)
        if shots and task.get_config("num_fewshot") == 0:
            raise InputError(
                f"downstream.{name}.shots is {shots}, but {task_name} is fixed to none "
                "(num_fewshot: 0); write shots: 0"
            )
        _check_examples(task, shots, f"downstream.{name}.shots")


def _check_popularity(task: Task, where: str) -> None:
    """Raise `InputError` if the task names a popularity that its items cannot be cut by."""
    column = popularity_column(task)
    if not column:
        return
    if column not in task.features:
        raise InputError(
            f"{where} names {column} as popularity (metadata.popularity), but its items have the "
            f"columns {', '.join(task.features)}"
        )
    if not pd.api.types.is_numeric_dtype(values := pd.Series(task.eval_docs[column])):
        raise InputError(f"{where}: {column} must hold numbers, not {values.iloc[0]!r}")
    if values.isna().any():
        raise InputError(f"{where}: {column} is empty in {values.isna().sum()} items")
    if len(values) < MINIMUM_ITEMS:
        raise InputError(
            f"{where} has {len(values)} items; {BUCKETS} buckets by popularity need "
            f"{MINIMUM_ITEMS} or more"
        )


def _check_examples(task: Task, shots: int, key: str) -> None:
    """Raise `InputError` if the task has too few items that examples may be drawn from."""
    if not shots:
        return
    sampler = getattr(task, "sampler", None)
    itself = task.fewshot_cfg.split == task.config.test_split
    there = 0 if sampler is None else len(sampler.df) - itself
    if shots > there:
        raise InputError(
            f"{key} is {shots}, but {task.task_name} has {there} examples; write {there} or fewer"
        )


def popularity_column(task: Task) -> str | None:
    """Column that a task file names as the popularity of its items."""
    return (task.config.metadata or {}).get("popularity")


def draw_items(loaded: LoadedTask, limit: int | None, seed: int) -> dict[str, list[int]] | None:
    """Numbers of the items to try, by task, ascending; None for all.

    Drawn from the whole task: the first items of a data set are often all of one kind.
    """
    sizes = {name: len(task.eval_docs) for name, task in loaded.tasks.items()}
    if limit is None or limit >= max(sizes.values()):
        return None
    return {
        name: sorted(random.Random(f"{seed} {name}").sample(range(size), min(limit, size)))
        for name, size in sizes.items()
    }


@torch.no_grad()
def check_loglikelihood(lm: HeldModel) -> float:
    """Compare the harness's log-likelihood of `PROBE` with a plain forward of this project's ids.

    A start token that is missing or doubled, another tokenizer, or probabilities in a coarse
    number format show here.

    Returns:
        The difference, nats per token of the continuation.

    Raises:
        GateError: it is above the tolerance.
    """
    request = Instance("loglikelihood", {}, PROBE, 0)
    found, _ = HFLM.loglikelihood(lm, [request], disable_tqdm=True)[0]
    whole, prompt = encode(["".join(PROBE), PROBE[0]], lm.tokenizer, lm.start_token)
    count = len(whole) - len(prompt)
    expected = -plain_nll(lm.model, torch.tensor(whole, device=lm.device))[-count:].sum()
    difference = abs(found - float(expected)) / count
    if not difference <= TOLERANCE:
        raise GateError(
            f"lm-evaluation-harness gives {PROBE[1]!r} after {PROBE[0]!r} a log-likelihood of "
            f"{found:.6f}, a plain forward {float(expected):.6f}; they differ by {difference:.3g} "
            f"nats per token, and {TOLERANCE:g} is allowed. Start token, tokenizer or number "
            "format differ."
        )
    return difference


def plain_nll(model: nn.Module, token_ids: Tensor) -> Tensor:
    """NLL of each token `[length]` but the first, by the model's own forward; float32, nats."""
    logits = model(input_ids=token_ids[None, :-1], use_cache=False).logits[0].float()
    return nn.functional.cross_entropy(logits, token_ids[1:], reduction="none")


def evaluate(
    lm: HeldModel, loaded: LoadedTask, shots: int, limit: int | None, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Let the model answer a task's items.

    Returns:
        One row per item (see `item_rows`), and the harness's own aggregates and versions.

    Raises:
        InputError: no prompt fits into the context.
        GateError: the rows' means are not the harness's aggregates.
    """
    result = simple_evaluate(
        model=lm,
        tasks=[loaded.root],
        num_fewshot=shots,
        samples=draw_items(loaded, limit, seed),
        bootstrap_iters=0,
        log_samples=True,
        task_manager=loaded.manager,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    parts = [
        item_rows(task, result["samples"][name], result["results"][name], lm.cut)
        for name, task in loaded.tasks.items()
    ]
    return pd.concat(parts, ignore_index=True), {
        "results": {name: _aggregates(values) for name, values in result["results"].items()},
        "versions": result["versions"],
        "n-shot": result["n-shot"],
        "items_sha256": _items_hash(result["samples"]),
    }


def item_rows(
    task: Task,
    samples: Sequence[Mapping[str, Any]],
    aggregates: Mapping[str, Any],
    cut: set[tuple[str, int]],
) -> pd.DataFrame:
    """Turn the harness's samples of a task into rows.

    Returns:
        `task`, `item` (its number in the data set), `correct` (1 or 0), `answer`, `popularity` (nan
        without), `cut` (whether the prompt was), `prompt` (its hash).

    Raises:
        InputError: the task filters answers in several ways.
        GateError: the mean of `correct` is not the harness's own aggregate.
    """
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    if len(filters) > 1:
        raise InputError(
            f"task {task.task_name} filters its answers in {len(filters)} ways "
            f"({', '.join(filters)}); leave one in its filter_list"
        )
    metric = next(name for name in METRICS if name in samples[0]["metrics"])
    column = popularity_column(task)
    rows = pd.DataFrame(
        {
            "task": task.task_name,
            "item": sample["doc_id"],
            "correct": float(sample[metric]),
            "answer": _answer(task, sample),
            "popularity": float(sample["doc"][column]) if column else float("nan"),
            "cut": (task.task_name, place) in cut,
            "prompt": sample["prompt_hash"],
        }
        for place, sample in enumerate(samples)
    )
    expected, found = aggregates[f"{metric},{filters[0]}"], rows["correct"].mean()
    if not abs(expected - found) <= 1e-9:
        raise GateError(
            f"{task.task_name}: lm-evaluation-harness reports {metric} {expected:.9f}, its items "
            f"have a mean of {found:.9f}"
        )
    return rows


def _answer(task: Task, sample: Mapping[str, Any]) -> str:
    """What the model answered: the text, or the likeliest of the choices."""
    given = sample["filtered_resps"]
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(given[0]).strip()
    likelihoods = [likelihood for likelihood, _ in given]
    return str(task.doc_to_choice(sample["doc"])[likelihoods.index(max(likelihoods))])


def _aggregates(values: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's numbers of one task without standard errors, which it was not asked for."""
    return {key: value for key, value in values.items() if "_stderr" not in key}


def _items_hash(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Hash of all items as the data set has them, by which another version of it shows."""
    digest = hashlib.sha256()
    for name in sorted(samples):
        for sample in samples[name]:
            digest.update(sample["doc_hash"].encode())
    return digest.hexdigest()
