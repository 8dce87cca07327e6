"""Downstream tasks: how many items are answered right, and what quantization takes of that.

Items are resampled as documents are elsewhere; full and quantized models answer the same ones, so
that differences are paired. Inputs paper (arXiv 2506.12044), PopQA: the damage is least at both
extremes of popularity.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    require_documents,
    resample_counts,
    summarise,
)
from lowbit.downstream.buckets import BUCKETS, MINIMUM_ITEMS, popularity_buckets
from lowbit.errors import InputError
from lowbit.names import FULL

LOWEST, HIGHEST = "lowest less middle", "highest less middle"
"""Rows with the damage in the first (last) bucket less the mean of those between."""

COLUMNS = [
    "name",
    "method",
    "shots",
    "n",
    "accuracy",
    "low",
    "high",
    "damage",
    "damage_low",
    "damage_high",
    "cut",
]
POPULARITY_COLUMNS = [
    "name",
    "method",
    "bucket",
    "popularity_from",
    "popularity_to",
    "popularity_median",
    "n",
    "accuracy",
    "low",
    "high",
    "damage",
    "damage_low",
    "damage_high",
]


def join_answers(parts: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Put the answers of all tasks and methods into one table, `name` and `method` first.

    Args:
        parts: by name of the task in the config and method; task, item, correct, prompt, ...

    Raises:
        InputError: two methods were not asked the same.
    """
    for (name, method), rows in parts.items():
        asked, expected = (table[["task", "item", "prompt"]] for table in (rows, parts[name, FULL]))
        if not asked.equals(expected):
            raise InputError(
                f"downstream.{name}: {method} and {FULL} were not asked the same questions, "
                "probably of two versions of the data set; delete the task's folder under "
                "results/models/<model>/downstream and run again"
            )
    tables = [
        pd.DataFrame({"name": name, "method": method, **rows})
        for (name, method), rows in parts.items()
    ]
    return pd.concat(tables, ignore_index=True)


def accuracy_table(
    answers: pd.DataFrame, shots: Mapping[str, int], settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """Share of right answers and damage of each task and method: `COLUMNS`.

    `damage` is the share with the full model less that with the method, paired over items; `cut`
    the share of prompts that were longer than the context.

    Args:
        answers: of `join_answers`.
        shots: examples in the prompts, by name of the task.
    """
    rows = []
    for name, of_task in answers.groupby("name", sort=False):
        correct, methods = by_item(of_task)
        require_documents(len(correct))
        counts = resample_counts(len(correct), settings, seed)
        draws = mean_draws(correct, np.ones(len(correct), bool), counts)
        cut = of_task.groupby("method")["cut"].mean()
        found = _accuracy_and_damage(draws, methods, settings.confidence)
        rows += [
            [name, method, shots[name], len(correct), *numbers, cut[method]]
            for method, numbers in zip(methods, found, strict=True)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def popularity_table(answers: pd.DataFrame, settings: BootstrapSettings, seed: int) -> pd.DataFrame:
    """The same by bucket of popularity, for tasks that have one: `POPULARITY_COLUMNS`.

    `bucket` is 1 (least popular) to 8, or for quantized models `LOWEST` or `HIGHEST`, whose
    `damage` is a difference of damages, negative where the extreme suffers less.
    """
    tables = []
    for name in popular_tasks(answers):
        of_task = answers[answers["name"] == name]
        correct, methods = by_item(of_task)
        popularity = item_popularity(of_task)
        counts = resample_counts(len(correct), settings, seed)
        draws = bucket_draws(correct, popularity, counts)
        tables.append(_bucket_rows(popularity, draws, methods, settings.confidence))
        tables[-1].insert(0, "name", name)
    return pd.concat(tables, ignore_index=True)[POPULARITY_COLUMNS]


def popular_tasks(answers: pd.DataFrame) -> list[str]:
    """Names of the tasks whose items have a popularity."""
    return list(answers.loc[answers["popularity"].notna(), "name"].unique())


def by_item(answers: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Turn one task's rows into correct [items, methods], and the methods, `full` first."""
    methods = list(answers["method"].unique())
    wide = answers.pivot(index=["task", "item"], columns="method", values="correct")
    return wide[methods].to_numpy(float), methods


def item_popularity(answers: pd.DataFrame) -> np.ndarray:
    """Popularity of one task's items [items], in the order of `by_item`.

    Raises:
        InputError: there are too few items for the buckets.
    """
    items = answers[answers["method"] == FULL].sort_values(["task", "item"])
    if len(items) < MINIMUM_ITEMS:
        raise InputError(
            f"downstream.{items['name'].iloc[0]} has {len(items)} items; {BUCKETS} buckets by "
            f"popularity need {MINIMUM_ITEMS} or more"
        )
    return items["popularity"].to_numpy(float)


def bucket_draws(correct: np.ndarray, popularity: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of right answers by bucket -> draws [1 + R, buckets, methods].

    Args:
        correct: [items, methods].
        popularity: [items].
        counts: resamples [1 + R, items].
    """
    place = popularity_buckets(popularity)
    return np.stack(
        [mean_draws(correct, place == bucket, counts) for bucket in range(BUCKETS)], axis=1
    )


def extreme_gaps(damage: np.ndarray) -> np.ndarray:
    """Damage in the first and in the last bucket less the mean of the others: [1 + R, 2, ...].

    Args:
        damage: draws [1 + R, buckets, ...].
    """
    return damage[:, [0, -1]] - damage[:, 1:-1].mean(axis=1, keepdims=True)


def _accuracy_and_damage(
    draws: np.ndarray, methods: Sequence[str], confidence: float
) -> np.ndarray:
    """Accuracy and damage with intervals from draws [1 + R, ..., methods]: [methods, ..., 6].

    The full model has no damage: nan.
    """
    damage = draws[..., [methods.index(FULL)]] - draws
    damage[..., methods.index(FULL)] = np.nan
    parts = [*summarise(draws, confidence), *_summary_where_known(damage, confidence)]
    return np.moveaxis(np.stack(parts, axis=-1), -2, 0)


def _summary_where_known(draws: np.ndarray, confidence: float) -> list[np.ndarray]:
    """Value, low and high of draws [1 + R, ...]; nan where all of them are."""
    known = ~np.isnan(draws).all(axis=0)
    found = [np.full(draws.shape[1:], np.nan) for _ in range(3)]
    for target, values in zip(found, summarise(draws[:, known], confidence), strict=True):
        target[known] = values
    return found


def _bucket_rows(
    popularity: np.ndarray, draws: np.ndarray, methods: Sequence[str], confidence: float
) -> pd.DataFrame:
    """Rows of one task from draws [1 + R, buckets, methods]."""
    place = popularity_buckets(popularity)
    ranges = [
        {
            "bucket": str(bucket + 1),
            "popularity_from": popularity[place == bucket].min(),
            "popularity_to": popularity[place == bucket].max(),
            "popularity_median": np.median(popularity[place == bucket]),
            "n": int((place == bucket).sum()),
        }
        for bucket in range(BUCKETS)
    ]
    found = _accuracy_and_damage(draws, methods, confidence)
    gaps = extreme_gaps(draws[..., [methods.index(FULL)]] - draws)
    value, low, high = summarise(gaps, confidence)  # [2, methods] each
    names = ("accuracy", "low", "high", "damage", "damage_low", "damage_high")
    rows = []
    for column, method in enumerate(methods):
        rows += [
            {"method": method, **place, **dict(zip(names, numbers, strict=True))}
            for place, numbers in zip(ranges, found[column], strict=True)
        ]
        if method != FULL:
            rows += [
                {
                    "method": method,
                    "bucket": bucket,
                    "n": ranges[end]["n"],
                    "damage": value[end, column],
                    "damage_low": low[end, column],
                    "damage_high": high[end, column],
                }
                for end, bucket in ((0, LOWEST), (-1, HIGHEST))
            ]
    return pd.DataFrame(rows)
