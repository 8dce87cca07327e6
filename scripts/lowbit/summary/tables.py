"""Tables of the summary: what methods cost, and the claims."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)
from lowbit.analysis.tables import Method, by_document
from lowbit.claims.report import NOT_RUN
from lowbit.markdown import number, number_with_interval, table
from lowbit.names import FULL
from lowbit.summary.model import ModelSummary


def perplexity_table(
    model: ModelSummary, methods: Sequence[Method], settings: BootstrapSettings, seed: int
) -> str:
    """Perplexity, mean error, KL, flips, and r of residual norm and error, of every method."""
    names = [method.name for method in methods]
    errors = by_document(model.errors, "error", names)
    counts = resample_counts(len(errors), settings, seed)
    draws = mean_draws(errors, np.ones(len(errors), bool), counts)
    intervals = dict(
        zip(names, zip(*summarise(draws, settings.confidence), strict=True), strict=True)
    )
    bits = {method.name: str(method.bits) for method in methods}
    norm = {
        row.method: number_with_interval(row.pearson, row.low, row.high)
        for row in model.last_layer.itertuples()
    }
    rows = []
    for row in model.perplexity.itertuples():
        cells = ["-"] * 5
        if row.method != FULL:
            flips = f"{100 * row.top1_flip_rate:.1f} %"
            error = number_with_interval(*intervals[row.method])
            cells = [bits[row.method], error, number(row.mean_kl), flips, norm.get(row.method, "-")]
        rows.append([row.method, cells[0], f"{row.perplexity:.2f}", *cells[1:], str(row.n)])
    header = ["method", "bits", "perplexity", "mean error [nats per token]", "mean KL [nats]"]
    return table([*header, "changed top token", "r of last residual norm with error", "n"], rows)


def claims_table(claims: pd.DataFrame) -> str:
    """Directions that were judged, one line each, and how many were not."""
    directions = claims[claims["kind"] == "direction"]
    waiting = directions["verdict"].str.startswith(NOT_RUN)
    directions = directions[~waiting]
    rows = [
        [
            row.verdict,
            f"`{row.claim}`",
            "" if pd.isna(row.model) else row.model,
            number_with_interval(row.measured, row.low, row.high),
            row.expected,
            "" if pd.isna(row.paper_value) else row.paper_value,
            "" if pd.isna(row.n) else f"{row.n:.0f}",
        ]
        for row in directions.itertuples()
    ]
    header = ["verdict", "claim", "model", "measured", "expected", "in the paper", "n"]
    others = f"\n{waiting.sum()} more were not run; [claims.md](claims.md) says why.\n"
    return table(header, rows) + (others if waiting.any() else "")
