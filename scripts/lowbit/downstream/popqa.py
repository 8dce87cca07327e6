"""PopQA (Mallen et al. 2023, arXiv 2212.10511): its columns, and which answers are right.

The functions that `resources/tasks/popqa.yaml` names.
"""

import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("question", "obj", "prop", "possible_answers", "s_pop")
"""Question, answer in examples, relation, all answers, popularity of the question's subject."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def check_columns(dataset: "Dataset") -> "Dataset":
    """Return the items as they are.

    Raises:
        InputError: a column is missing, or an item's answers cannot be read.
    """
    missing = [column for column in COLUMNS if column not in dataset.column_names]
    if missing:
        raise InputError(
            f"the items lack {', '.join(missing)}: items in PopQA's form have the columns "
            f"{', '.join(COLUMNS)}, and these have {', '.join(dataset.column_names)}"
        )
    for number, value in enumerate(dataset["possible_answers"]):
        try:
            answers({"possible_answers": value})
        except InputError as error:
            raise InputError(f"item {number}: {error}") from None
    return dataset


def answers(item: Mapping[str, Any]) -> list[str]:
    """All right answers of an item: a list, or one written as JSON, as PopQA has it.

    Raises:
        InputError: there are none, or they are no texts.
    """
    value = item["possible_answers"]
    try:
        found = json.loads(value) if isinstance(value, str) else list(value)
    except (json.JSONDecodeError, TypeError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(a, str) for a in found):
        raise InputError(
            f"possible_answers is {value!r}, but must be a list of texts, or one as JSON: "
            '["Paris", "City of Light"]'
        )
    return found


def normalise(text: str) -> str:
    """Lower-case, without punctuation, articles and superfluous white space.

    As in the evaluation of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250).
    """
    plain = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def matches(answer: str, possible: Sequence[str]) -> bool:
    """Tell whether an answer is one of the possible ones, both normalised; an empty one never is.

    The whole answer counts. PopQA's authors count a possible answer anywhere in it.
    """
    given = normalise(answer)
    return given != "" and given in {normalise(each) for each in possible}


def exact_match(item: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Judge the one answer to an item: `process_results` of the task file."""
    return {"exact_match": float(matches(results[0], answers(item)))}
