"""Checks of downstream tasks, run in the environment of lm-evaluation-harness."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import lm_eval.tasks
import pandas as pd
import torch
import transformers
import yaml
from library_checks.checks import run_checks
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from run_script import run_script
from tiny_checkpoints import write_checkpoint
from torch import nn

from lowbit.downstream.harness import (
    HeldModel,
    check_loglikelihood,
    check_task,
    draw_items,
    evaluate,
    load_task,
)
from lowbit.engine import streams
from lowbit.errors import GateError, InputError
from lowbit.files import read_json, sha256, write_json
from lowbit.inputs.checkpoint import load_model
from lowbit.inputs.tokenizer import load_tokenizer
from lowbit.quantization.probe import make_probe
from lowbit.quantization.quantized import dequantize, describe, write_quantized
from lowbit.quantizers import rtn

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "tests/downstream/questions.jsonl").read_text(encoding="utf-8").splitlines()
QUESTIONS = [json.loads(line) for line in LINES]
POPQA = "resources/tasks/popqa.yaml"
CONTEXT, SHOTS, SEED = 600, 3, 5
SETTINGS = {"dtype": "float32", "device": "cpu", "batch_size": 8, "threads": 1}


@cache
def folder() -> Path:
    """Where the checks of this process write."""
    return Path(mkdtemp(prefix="downstream"))


@cache
def model_files() -> Path:
    """A tiny Llama directory whose context holds a few examples."""
    directory = write_checkpoint(folder() / "files")
    config = read_json(directory / "config.json") | {"max_position_embeddings": CONTEXT}
    write_json(directory / "config.json", config)
    return directory


@cache
def model_record() -> Path:
    """`model.json` and `probe.json` beside the model's files, as the workflow writes them."""
    files = {file.name: {"bytes": file.stat().st_size} for file in model_files().iterdir()}
    record = {"files": files, "context_length": CONTEXT, "start_token": 0}
    write_json(folder() / "model.json", record)
    write_json(folder() / "probe.json", make_probe(plain_model(), CONTEXT))
    return folder() / "model.json"


@cache
def method_record() -> Path:
    """The model quantized to 2 bits, as the workflow writes it."""
    layers = {
        name: rtn.quantize(linear.weight.detach(), bits=2, group_size=16)
        for name, linear in linears(plain_model())
    }
    weights = folder() / "rtn2" / "weights.safetensors"
    write_quantized(weights, layers, {})
    described = {name: describe(layer) for name, layer in layers.items()}
    record = {"weights_sha256": sha256(weights), "layers": described}
    write_json(weights.with_name("method.json"), record)
    return weights.with_name("method.json")


def plain_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    return load_model(model_files(), dtype)


def linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Linear layers of the blocks."""
    found = model.model.layers.named_modules()
    return [(f"model.layers.{n}", m) for n, m in found if isinstance(m, nn.Linear)]


def quantized_directory() -> Path:
    """A plain Hugging Face directory with dequantized weights, made without the engine."""
    directory = folder() / "dense"
    shutil.copytree(model_files(), directory)
    model = plain_model()
    for _, linear in linears(model):
        layer = rtn.quantize(linear.weight.detach(), bits=2, group_size=16)
        linear.weight.data = dequantize(layer)
    model.save_pretrained(directory)
    return directory


def held(model: nn.Module | None = None, start_token: int | None = 0) -> HeldModel:
    tokenizer = load_tokenizer(model_files())
    return HeldModel(model or plain_model(), tokenizer, start_token, CONTEXT, 8, "mine")


def write_task(name: str, items: Sequence[dict], include: str = POPQA, **keys: Any) -> str:
    """Write a task file and its items; return its path."""
    content = {"task": name, "dataset_path": "json", "test_split": "test"}
    content["dataset_kwargs"] = write_items(name, items)
    if include:
        content["include"] = str(ROOT / include)
    (folder() / f"{name}.yaml").write_text(yaml.safe_dump(content | keys))
    return str(folder() / f"{name}.yaml")


def write_items(name: str, items: Sequence[dict]) -> dict[str, Any]:
    """Write items; return the `dataset_kwargs` that read them."""
    data = folder() / f"{name}.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    return {"data_files": {"test": str(data)}}


def answer(task: str, method: str, **changes: object) -> tuple[pd.DataFrame, dict]:
    """Run `downstream.py`; return the rows and the record that it writes."""
    options = {
        "model": model_record(),
        "probe": folder() / "probe.json",
        "method": method,
        "name": "mine",
        "task": task,
        "shots": SHOTS,
        "settings": json.dumps(SETTINGS),
        "seed": SEED,
        "items": folder() / "items.parquet",
        "output": folder() / "record.json",
    }
    if method != "full":
        options["record"] = method_record()
    words = [word for key, value in (options | changes).items() for word in (f"--{key}", value)]
    if message := run_script("downstream.py", ROOT, *words):
        raise InputError(message)
    return pd.read_parquet(options["items"]), read_json(options["output"])


def alone(task: str, directory: Path) -> pd.DataFrame:
    """What lm-evaluation-harness says of a directory by itself."""
    result = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(directory), "dtype": "float32", "max_length": CONTEXT},
        device="cpu",
        batch_size=8,
        tasks=[task],
        num_fewshot=SHOTS,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
        fewshot_random_seed=SEED,
    )
    (samples,) = result["samples"].values()
    return pd.DataFrame(
        {
            "item": sample["doc_id"],
            "correct": sample["exact_match"],
            "answer": sample["filtered_resps"][0].strip(),
            "prompt": sample["prompt_hash"],
        }
        for sample in samples
    )


def equals_the_harness_alone() -> None:
    """Full and quantized, with items that the full model answers right."""
    said = alone(write_task("said", QUESTIONS), model_files())["answer"]
    words = said.str.replace(r"[^\w]", "", regex=True).str.len() > 1
    items = [
        item | {"possible_answers": json.dumps([f"The {text.upper()}!"])} if known else item
        for item, text, known in zip(QUESTIONS, said, words & (said.index % 2 == 0), strict=True)
    ]
    task = write_task("known", items)
    right = {}
    for method, directory in {"full": model_files(), "rtn2": quantized_directory()}.items():
        rows, record = answer(task, method)
        expected = alone(task, directory)
        pd.testing.assert_frame_equal(rows[list(expected)], expected)
        assert (rows["correct"] == 1).sum() == record["lm_eval"]["results"]["known"][
            "exact_match,none"
        ] * len(items)
        assert rows["popularity"].tolist() == [item["s_pop"] for item in items]
        assert record["checks"]["loglikelihood"] <= 1e-4
        right[method] = rows["correct"].sum()
    assert right["full"] >= 5, right
    assert right["rtn2"] < right["full"], right


def prompts_are_popqas() -> None:
    """Examples of other relations, as many of each, in lines like the question's."""
    task = load_task(write_task("prompts", QUESTIONS), "mine").tasks["prompts"]
    task.set_config("num_fewshot", 5)
    task.set_fewshot_seed(SEED)
    task.build_all_requests()
    relation = {f"Q: {q['question']} A: {q['obj']}": q["prop"] for q in QUESTIONS}
    for request, item in zip(task.instances, QUESTIONS, strict=True):
        prompt, settings = request.args
        *examples, question = prompt.split("\n\n")
        assert question == f"Q: {item['question']} A:"
        drawn = [relation[example] for example in examples]
        assert len(drawn) == len(set(examples)) == 5
        assert sorted(drawn.count(prop) for prop in set(drawn)) == [1, 2, 2]
        assert item["prop"] not in drawn
        assert (settings["until"], settings["max_gen_toks"]) == (["\n"], 15)
        assert settings["do_sample"] is False
    assert len({request.args[0].split("\n\n")[0] for request in task.instances}) > 20


CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["yes", "no", "perhaps"],
    "doc_to_target": "{{target}}",
    "dataset_path": "json",
    "test_split": "test",
    "fewshot_split": "test",
    "fewshot_config": {"sampler": "first_n"},
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def groups_of_choices() -> None:
    """A group of multiple-choice tasks, as MMLU is: answers by hand, mean over all items."""
    members, items = [], {}
    for name, count in (("few", 6), ("many", 17)):
        items[name] = [{"question": f"{name} {k}?", "target": k % 3} for k in range(count)]
        data = folder() / f"{name}.jsonl"
        data.write_text("".join(json.dumps(item) + "\n" for item in items[name]))
        members.append(
            {"task": name, **CHOICES, "dataset_kwargs": {"data_files": {"test": str(data)}}}
        )
    group = {"group": "both", "task": members, "aggregate_metric_list": [{"metric": "acc"}]}
    (folder() / "both").mkdir()
    (folder() / "both" / "both.yaml").write_text(yaml.safe_dump(group))
    with patch.object(lm_eval.tasks, "__file__", str(folder() / "__init__.py")):
        loaded, again = load_task("both", "mine"), load_task("both", "mine")
    check_task(loaded, 2, "mine")
    lm = held()
    rows, aggregates = evaluate(lm, loaded, 2, None, SEED)
    assert abs(rows["correct"].mean() - aggregates["results"]["both"]["acc,none"]) < 1e-12
    assert rows["task"].value_counts().to_dict() == {"both::few": 6, "both::many": 17}
    assert rows["popularity"].isna().all()
    for row in rows.itertuples():
        name = row.task.removeprefix("both::")
        item = items[name][row.item]
        others = [each for each in items[name] if each != item][:2]
        lines = [f"{e['question']} {CHOICES['doc_to_choice'][e['target']]}\n\n" for e in others]
        likelihoods = [
            log_likelihood(lm, "".join(lines) + item["question"], f" {choice}")
            for choice in CHOICES["doc_to_choice"]
        ]
        best = max(range(3), key=likelihoods.__getitem__)
        assert row.answer == CHOICES["doc_to_choice"][best]
        assert row.correct == float(best == item["target"])
    few, _ = evaluate(held(), again, 0, 6, SEED)
    assert few["task"].value_counts().to_dict() == {"both::few": 6, "both::many": 6}


def log_likelihood(lm: HeldModel, prompt: str, continuation: str) -> float:
    """By a plain forward of the tokenizer's own ids."""
    ids = torch.tensor(lm.tokenizer(prompt + continuation)["input_ids"])
    start = len(lm.tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        logits = lm.model(ids[None]).logits[0].log_softmax(-1)
    return float(logits[:-1].gather(1, ids[1:, None])[start - 1 :].sum())


def items_are_drawn() -> None:
    loaded = load_task(write_task("drawn", QUESTIONS), "mine")
    drawn = draw_items(loaded, 40, SEED)
    assert drawn == draw_items(loaded, 40, SEED) != draw_items(loaded, 40, SEED + 1)
    assert drawn["drawn"] == sorted(set(drawn["drawn"]))
    assert len(drawn["drawn"]) == 40
    assert drawn["drawn"] != list(range(40))
    assert draw_items(loaded, 48, SEED) is draw_items(loaded, None, SEED) is None
    rows, record = answer(write_task("drawn", QUESTIONS), "full", limit=40)
    assert rows["item"].tolist() == drawn["drawn"]
    assert [record["items"], record["limit"]] == [40, 40]
    popularity = [QUESTIONS[number]["s_pop"] for number in rows["item"]]
    assert rows["popularity"].tolist() == popularity


def cut_prompts_are_told() -> None:
    """The harness cuts prompts from the left; which, and that it may not be all of them."""
    long = [
        item | {"question": item["question"] + " Really?" * 90} if number % 4 == 0 else item
        for number, item in enumerate(QUESTIONS)
    ]
    rows, record = answer(write_task("long", long), "full", shots=0)
    tokenizer = load_tokenizer(model_files())
    room = CONTEXT - 15
    lengths = [len(tokenizer(f"Q: {item['question']} A:")["input_ids"]) for item in long]
    assert rows["cut"].tolist() == [length > room for length in lengths]
    assert record["cut"] == rows["cut"].sum() == 12
    message = error(lambda: answer(write_task("long", long), "full", shots=30))
    assert (
        "downstream.mine.shots: every prompt is longer than the model's context of 600" in message
    )
    choices = [{"question": "a" * (560 + 4 * k), "target": 0} for k in range(20)]
    task = write_task("choices", choices, "", **CHOICES | {"task": "choices"})
    lm = held()
    rows, _ = evaluate(lm, load_task(task, "mine"), 0, None, SEED)
    whole = [len(tokenizer(item["question"] + " perhaps")["input_ids"]) for item in choices]
    assert rows["cut"].tolist() == [length > CONTEXT + 1 for length in whole]
    assert 0 < rows["cut"].sum() < 20


def bad_tasks_are_told() -> None:
    without = [{k: v for k, v in item.items() if k != "s_pop"} for item in QUESTIONS]
    tell("the items lack s_pop: items in PopQA's form", write_task("without", without))
    unreadable = [item | {"possible_answers": "Paris"} for item in QUESTIONS]
    tell("item 0: possible_answers is 'Paris', but must be a list", write_task("bad", unreadable))
    keys = {"output_type": "generate_until", "doc_to_target": "{{obj}}"}
    template = {"doc_to_text": "{{query}}", **keys}
    tell(
        "a column that its data set lacks: 'query'", write_task("query", QUESTIONS, "", **template)
    )
    plain = {"doc_to_text": "{{question}}", **keys}
    popularity = {"metadata": {"popularity": "views"}}
    tell("names views as popularity", write_task("views", QUESTIONS, "", **plain, **popularity))
    text = {"metadata": {"popularity": "subj"}}
    tell("subj must hold numbers, not 'France'", write_task("text", QUESTIONS, "", **plain, **text))
    tell("has 39 items; 8 buckets by popularity need 40", write_task("few", QUESTIONS[:39]))
    tell("fixed to none", write_task("fixed", QUESTIONS, num_fewshot=0))
    metric = {"metric_list": [{"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}]}
    tell(
        "has the metrics bleu; one of exact_match, acc",
        write_task("b", QUESTIONS, "", **plain, **metric),
    )
    tell("mine.shots is 48, but shots48 has 47 examples", write_task("shots48", QUESTIONS), 48)
    one = [item | {"prop": "capital"} for item in QUESTIONS]
    tell("than the question's, 'capital', but there is no other", write_task("one", one))
    tell("take 13 about", write_task("shots37", QUESTIONS), 37)
    tell("data set of resources/tasks/popqa.yaml cannot be read", POPQA)
    tell("Couldn't reach 'cais/mmlu'", "mmlu")


def tell(words: str, task: str, shots: int = SHOTS) -> None:
    message = error(lambda: answer(task, "full", shots=shots))
    assert words in message, f"{words!r} is not in: {message}"


def error(function: Callable[[], object]) -> str:
    try:
        function()
    except (InputError, GateError) as found:
        return str(found)
    return "no error"


def gates_stop() -> None:
    """A start token too few, coarse probabilities, weights that are not the method's."""
    assert check_loglikelihood(held()) <= 1e-6
    assert "Start token, tokenizer or number" in error(
        lambda: check_loglikelihood(held(None, None))
    )
    coarse = held(plain_model(torch.bfloat16))
    assert check_loglikelihood(coarse) <= 1e-6
    coarse.softmax_dtype = None
    assert "Start token, tokenizer or number" in error(lambda: check_loglikelihood(coarse))
    with patch.object(streams, "put_into_model", lambda decoder, stream: None):
        told = error(lambda: answer(write_task("gates", QUESTIONS), "rtn2"))
    assert "differs from the plain Hugging Face forward" in told, told
    probe = read_json(folder() / "probe.json")
    write_json(folder() / "other.json", probe | {"nll": [n + 0.01 for n in probe["nll"]]})
    told = error(
        lambda: answer(write_task("gates", QUESTIONS), "full", probe=folder() / "other.json")
    )
    assert "in the core environment" in told, told


CHECKS = {
    function.__name__: function
    for function in (
        equals_the_harness_alone,
        prompts_are_popqas,
        groups_of_choices,
        items_are_drawn,
        cut_prompts_are_told,
        bad_tasks_are_told,
        gates_stop,
    )
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    try:
        run_checks(CHECKS)
    finally:
        shutil.rmtree(folder())
