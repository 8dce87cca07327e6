"""The papers' own perplexities after patching, for the models of a study that are theirs."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from lowbit.analysis.mechanisms.patching_report import QUANTIZED
from lowbit.claims.judging import Study, require_text, study_method, study_model
from lowbit.claims.paper import KEY_SEPARATOR, Claim, Paper, text_of
from lowbit.claims.results import NotMeasured
from lowbit.experiments.conditions import ALL_WEIGHTS, LAST, NONE, UPPER
from lowbit.names import FULL

COLUMNS = ["method", "sets_of", "kind", "role", "layers", "value"]


def paper_perplexities(papers: Sequence[Paper], study: Study, model: str) -> pd.DataFrame:
    """Rows for `patching_report.patching_markdown`; none where the model is not a paper's.

    Args:
        study: its `results` are not used.
    """
    rows = [
        [*names, *condition, value]
        for paper in papers
        for claim in paper.claims
        for names, condition, value in _figures(paper, claim, study, model)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _figures(
    paper: Paper, claim: Claim, study: Study, model: str
) -> Iterator[tuple[tuple[str, str], tuple[str, str, str], float]]:
    """Yield ((method, whose D_large), (kind, role, layers), perplexity) of one claim."""
    if claim.statistic_of_figures not in ("patched_perplexity", "perplexity_on_large"):
        return
    for paper_model, values in claim.figures.values.items():
        for key, value in values.items():
            try:
                if study_model(paper, paper_model, study) != model:
                    continue
                require_text(text_of(paper, claim), study, "the figure")
                sets_of, scored = (
                    study_method(paper, label, study) for label in key.split(KEY_SEPARATOR)
                )
            except NotMeasured:
                continue
            yield from _placed(claim.options, sets_of, scored, value, study)


def _placed(
    options: dict[str, Any], sets_of: str, scored: str, value: float, study: Study
) -> Iterator[tuple[tuple[str, str], tuple[str, str, str], float]]:
    """Where a figure belongs: 16 bit beside every method, the others beside their own."""
    if condition := options.get("condition"):
        layers = LAST if condition["role"] == ALL_WEIGHTS else UPPER
        yield (scored, sets_of), (condition["kind"], condition["role"], layers), value
    elif scored == FULL:
        for method in study.methods:
            yield (method, sets_of), (NONE, FULL, ""), value
    else:
        yield (scored, sets_of), (NONE, QUANTIZED, ""), value
