"""Where a classifier of texts is from, and checking it; needs the standard library only, but for
`describe_classifier`."""

from pathlib import Path
from typing import Any

from lowbit.errors import InputError
from lowbit.inputs.classifier import classifier_config
from lowbit.inputs.model_files import ModelFiles, files_of
from lowbit.inputs.models import (
    SOURCES,
    check_weights,
    describe_files,
    locate_model,
    model_files,
    read_config,
    weight_files,
)
from lowbit.inputs.sources import find_source

CLASSIFIER_SOURCES = {kind: source for kind, source in SOURCES.items() if kind != "demo"}
"""What a classifier's source may be: none is embedded."""
KIND = "ForSequenceClassification"
"""How the classes of classifiers end in "architectures"."""
PLACEHOLDER = "LABEL_0"
"""What transformers calls the first label of a classifier that has no names for them."""
NO_DEMO = Path()
"""What would be the place of an embedded one."""
NO_NAMES = ("", "#n/a", "n/a", "na", "nan", "none", "null", "<na>", "-nan")
"""What tables take for nothing, in lower case."""


def locate_classifier(source: str) -> Path:
    """Return the directory of a classifier, fetched where its source is on the hub.

    Raises:
        InputError: unknown kind of source, or nothing there.
    """
    find_source(source, CLASSIFIER_SOURCES)
    return locate_model(source, NO_DEMO)


def read_labels(place: Path | ModelFiles) -> list[str]:
    """Names of a classifier's labels, in the order of its outputs.

    Raises:
        InputError: it is no classifier of texts, or its labels have no names that tell them apart.
    """
    config = read_config(place)
    names = config.get("architectures") or []
    if len(names) != 1 or not names[0].endswith(KIND):
        raise InputError(
            f"{files_of(place)} is no classifier of texts: config.json must name one class "
            f'...{KIND} in "architectures"; it has {names}'
        )
    given = config.get("id2label") or {}
    labels = [given.get(str(index)) for index in range(len(given))]
    if len(labels) < 2 or None in labels or PLACEHOLDER in labels:
        raise InputError(
            f'{files_of(place)}/config.json has no names for the labels; write them into "id2label"'
        )
    if wrong := [each for each in labels if labels.count(each) > 1 or _is_no_name(each)]:
        raise InputError(
            f'"id2label" in {files_of(place)}/config.json has {wrong[0]!r}, which stands twice or '
            "is no name in a table; give every label one of its own"
        )
    return labels


def _is_no_name(label: Any) -> bool:
    return not isinstance(label, str) or label.strip().lower() in NO_NAMES


def describe_classifier(source: str, directory: Path) -> dict[str, Any]:
    """Check a classifier's directory and describe it: the content of `classifier.json`.

    Every tensor is read once; whether all of them fit is seen when they are loaded.

    Raises:
        InputError: whatever keeps it from being used, and what to do about it.
    """
    names, labels = model_files(directory), read_labels(directory)
    parameters = check_weights([directory / name for name in weight_files(directory)])
    classifier_config(directory)
    return {
        "source": source,
        "architecture": read_config(directory)["architectures"][0],
        "files": describe_files(directory, names),
        "labels": labels,
        "parameters": parameters,
    }
