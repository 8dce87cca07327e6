"""Statistics of the claims about downstream tasks."""

from collections.abc import Sequence

from lowbit.analysis.downstream import (
    bucket_draws,
    by_item,
    extreme_gaps,
    item_popularity,
    popular_tasks,
)
from lowbit.analysis.statistics import resample_counts
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, weakest
from lowbit.names import FULL

TABLE = "downstream"
"""Name of the stage's table: downstream.parquet."""


def extremes_damage(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Damage at the extremes of popularity less that in the middle, mean over methods.

    The statement is about both extremes, so the one whose interval reaches further against it is
    judged. `n` counts the items of a task, which are resampled in place of documents.
    """
    table = results.table(TABLE)
    tasks = popular_tasks(table)
    if not tasks:
        raise NotMeasured("no downstream task of this study has a popularity")
    of_task = table[table["name"] == tasks[0]]
    correct, answered = by_item(of_task)
    measured = [name for name in names if name in answered]
    if not measured:
        raise NotMeasured(f"none of the claim's methods answered {tasks[0]}")
    if not correct[:, answered.index(FULL)].any():
        raise NotMeasured(
            f"the full-precision model answers none of the {len(correct)} items of {tasks[0]} "
            "right, so none can be lost"
        )
    counts = resample_counts(len(correct), results.settings, results.seed)
    draws = bucket_draws(correct, item_popularity(of_task), counts)
    lost = draws[..., [answered.index(FULL)]] - draws[..., [answered.index(m) for m in measured]]
    gaps = extreme_gaps(lost.mean(axis=2))  # [1 + R, 2]
    worst = weakest(gaps, results.settings.confidence, "below")
    detail = f"{tasks[0]}: {gaps[0, 0]:+.3f} least popular, {gaps[0, 1]:+.3f} most popular"
    return results.measure(gaps[:, worst], measured, detail, len(correct))
