"""Statistics of the claims about the topics of the documents that break.

The option `classifiers` names the hub repositories whose topics a claim is about.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import mean_draws
from lowbit.analysis.topics import one_hot
from lowbit.claims.paper import repository
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, weakest
from lowbit.names import LARGE

TABLE = "topics"
"""Name of the stage's table: topics.parquet."""


def largest_topic_share(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Share of D_large that is of one topic: of the topic and method whose interval reaches
    furthest up."""
    labels, shares = _shares(results, names, options)
    draws = np.concatenate(shares, axis=1)  # [1 + R, methods x labels]
    worst = weakest(draws, results.settings.confidence, "below")
    method, label = divmod(worst, len(labels))
    detail = f"“{labels[label]}” under {names[method]}"
    return results.measure(draws[:, worst], names, detail, results.smallest(names, LARGE))


def topics_in_large(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Number of topics that D_large has a document of, of the method that has the fewest."""
    _, shares = _shares(results, names, options)
    draws = np.stack([(share > 0).sum(axis=1) for share in shares], axis=1).astype(float)
    fewest = weakest(draws, results.settings.confidence)
    known = results.table(TABLE)["known"].iloc[0]
    detail = f"{names[fewest]}; the classifier knows {known}"
    return results.measure(draws[:, fewest], names, detail, results.smallest(names, LARGE))


def _shares(
    results: ModelResults, names: Sequence[str], options: dict
) -> tuple[list[str], list[np.ndarray]]:
    """Topics of this study, and for each method their shares of D_large, draws [1 + R, topics]."""
    table = _table(results, options)
    labels = sorted(table["topic"].unique())
    of_topic = one_hot(table, labels, results.doc_ids)
    members = [results.member(name, LARGE) for name in names]
    return labels, [mean_draws(of_topic, member, results.counts) for member in members]


def _table(results: ModelResults, options: dict) -> pd.DataFrame:
    """The topics; `NotMeasured` if they are not those that the claim is about."""
    table = results.table(TABLE)
    source = table["classifier"].iloc[0]
    wanted = {name.casefold() for name in options["classifiers"]}
    if repository(source).casefold() not in wanted:
        raise NotMeasured(
            f"it is about the topics of {' or '.join(options['classifiers'])}, this study's are of "
            f"{source}"
        )
    return table
